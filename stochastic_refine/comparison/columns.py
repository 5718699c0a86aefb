"""Columns of a table, and the scores in them."""

from __future__ import annotations

import math
from dataclasses import dataclass

MISSING = '–'
#: Rows that are no contestants, in lower case.
UNRANKED_ROWS = ('ground truth', 'input')


@dataclass(frozen=True)
class Column:
    """One metric.

    Args:
        key: Its name in ``Row.scores``, e.g. ``psnr``.
        title: Its heading, with the unit.
        better: ``'higher'``, ``'lower'``, or None for a quantity that is shown but not ranked, such as a cost.
        decimals: How many are printed.
    """

    key: str
    title: str
    better: str | None
    decimals: int

    @property
    def heading(self) -> str:
        """The title with an arrow that says which way is better."""
        return self.title + {'higher': ' ↑', 'lower': ' ↓', None: ''}[self.better]
#: Every column that the project prints, in the order of printing.
COLUMNS: dict[str, Column] = {
    column.key: column
    for column in (
        Column('lpips', 'LPIPS (alex)', 'lower', 4),
        Column('stlpips', 'ST-LPIPS (alex)', 'lower', 4),
        Column('niqe', 'NIQE', 'lower', 2),
        Column('fid', 'FID', 'lower', 2),
        Column('kid', 'KID ×1000', 'lower', 2),
        Column('musiq', 'MUSIQ', 'higher', 2),
        Column('maniqa', 'MANIQA', 'higher', 4),
        Column('clipiqa', 'CLIP-IQA', 'higher', 4),
        Column('psnr', 'PSNR', 'higher', 2),
        Column('ssim3d', 'SSIM (MATLAB, 3-D)', 'higher', 4),
        Column('ssim', 'SSIM (BasicSR, 2-D)', 'higher', 4),
        Column('params', 'Params [M]', None, 2),
        Column('gflops', 'GFLOPs', None, 1),
        Column('seconds', 's/image', None, 2),
    )
}


@dataclass(frozen=True)
class Score:
    """A value with what is known of its spread.

    Args:
        mean: The value, or the mean over seeds; NaN counts as missing.
        spread: Standard deviation over seeds; None where nothing is random or there is one seed.
        count: Number of seeds, or of images, behind it.
        decimals: Printed decimals if not the column's: a published figure is printed as it was published.
        exact: Images whose value is infinite, since they are identical to the truth, and that are left out of the mean.
    """

    mean: float
    spread: float | None = None
    count: int | None = None
    decimals: int | None = None
    exact: int = 0

    @property
    def missing(self) -> bool:
        return math.isnan(self.mean)

    def rounded(self, column: Column) -> float:
        """The value as printed, which is also what is ranked: a lead that cannot be seen is none."""
        return round(self.mean, self._decimals(column)) if math.isfinite(self.mean) else self.mean

    def printed(self, column: Column) -> str:
        """``26.21``, ``26.21 ± 0.02``, ``26.21 (+3 exact)``, ``∞`` or a dash."""
        if self.missing:
            return MISSING
        if math.isinf(self.mean):
            return '∞' if self.mean > 0 else '-∞'
        decimals = self._decimals(column)
        text = f'{self.rounded(column):.{decimals}f}'
        known = self.spread is not None and math.isfinite(self.spread)
        text = f'{text} ± {self.spread:.{decimals}f}' if known else text
        return f'{text} (+{self.exact} exact)' if self.exact else text

    def _decimals(self, column: Column) -> int:
        return column.decimals if self.decimals is None else self.decimals
