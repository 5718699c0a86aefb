"""A study's result: rows, and the files NAME.csv, NAME.json and NAME.png that they are written to."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..comparison.columns import COLUMNS
from ..errors import InputError
from ..files import to_json, write_atomically, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colours that stay apart for colour-blind readers (Okabe and Ito, 2008), and markers that stay apart without colour.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
_STYLE = {
    'font.size': 9, 'axes.titlesize': 10, 'axes.grid': True, 'grid.alpha': 0.3, 'axes.spines.top': False,
    'axes.spines.right': False, 'legend.frameon': False, 'axes.axisbelow': True,
}


@dataclass
class StudyReport:
    """What a study found.

    Args:
        name: Stem of the files.
        rows: Plain values by column; ``part`` says which table a row belongs to where there are several.
        settings: Everything that the rows depend on.
        words: Sentences and lines that sum up, for the terminal.
    """

    name: str
    rows: list[dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def write(self, folder: Path, figures: dict[str, Callable[[Figure], None]]) -> list[Path]:
        """Write rows and figures; each file is replaced whole.

        Args:
            folder: Made if need be.
            figures: What draws each figure, by the ending of its name: ``''`` for NAME.png, ``'_maps'`` for NAME_maps.png.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f'{self.name}.csv', folder / f'{self.name}.json']
        for file, text in zip(files, (self.to_csv(), self.to_json())):
            write_text(file, text)
        for ending, draw in figures.items():
            files.append(folder / f'{self.name}{ending}.png')
            save_figure(files[-1], draw)
        return files

    def to_csv(self) -> str:
        """One line per row; a column that a row lacks, and NaN, is empty."""
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in self.rows for key in row)), lineterminator='\n')
        writer.writeheader()
        for row in self.rows:
            writer.writerow({key: '' if isinstance(value, float) and math.isnan(value) else value
                             for key, value in row.items()})
        return stream.getvalue()

    def to_json(self) -> str:
        """Strict JSON: NaN is null."""
        return to_json({'study': self.name, 'settings': self.settings, 'rows': self.rows})


def axis_label(key: str) -> str:
    """A metric as the label of an axis: its title, which way is better, its unit."""
    return COLUMNS[key].heading + (' (dB)' if key == 'psnr' else '')


def check_matplotlib() -> None:
    """Raise an InputError if figures cannot be drawn; called before a study's long work."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError('Studies draw figures with matplotlib, which is not installed; run: '
                         "pip install 'stochastic_refine[figures]'.") from error


def save_figure(path: Path, draw: Callable[[Figure], None]) -> None:
    """Draw a figure and write it as a PNG of at most 256 colours, which keeps the files of a repository small.

    Args:
        path: The file.
        draw: Gets an empty figure of 8 x 3.4 inches, whose size it may change.
    """
    check_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure
    from PIL import Image
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.4), dpi=110, layout='constrained')
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format='png', facecolor='white')
    picture = Image.open(buffer).convert('RGB').quantize(256, dither=Image.Dither.NONE)
    write_atomically(path, lambda temporary: picture.save(temporary, optimize=True))
