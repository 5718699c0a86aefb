"""How two quantities in [0, 1] go together over any number of pixels: correlations from one pass and in constant memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: Edges of the fine bins that stand for exact values: 2.3 % apart, all below 1e-4 in one.
EDGES = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 401)])

Array = NDArray[np.float64]


class Association:
    """Pearson's and Spearman's correlation of two quantities in [0, 1].

    Pearson's is exact. Spearman's is that of the values' fine bins (``EDGES``), with mean ranks for ties.
    """

    def __init__(self) -> None:
        self.moments = np.zeros(6)
        self.table = np.zeros((len(EDGES) - 1, len(EDGES) - 1), dtype=np.int64)

    def add(self, x: Array, y: Array) -> None:
        """Add pairs; ``x`` and ``y`` have one shape."""
        x, y = x.ravel(), y.ravel()
        self.moments += [x.size, x.sum(), y.sum(), x @ x, y @ y, x @ y]
        size = len(EDGES) - 1
        self.table += np.bincount(fine_bin(x) * size + fine_bin(y), minlength=size**2).reshape(size, size)

    @property
    def pearson(self) -> float:
        """NaN if one quantity is constant."""
        n, x, y, xx, yy, xy = self.moments
        return _ratio(n * xy - x * y, (n * xx - x * x) * (n * yy - y * y))

    @property
    def spearman(self) -> float:
        """NaN if one quantity falls into a single bin."""
        rows, columns = self.table.sum(1), self.table.sum(0)
        x, y = (counts.cumsum() - (counts + 1) / 2 - (counts.sum() - 1) / 2 for counts in (rows, columns))  # ranks around 0
        return _ratio(x @ self.table @ y, (rows @ x**2) * (columns @ y**2))


def fine_bin(values: Array) -> NDArray[np.int64]:
    """The index of each value's fine bin."""
    return np.clip(np.searchsorted(EDGES, values, side='right') - 1, 0, len(EDGES) - 2)


def _ratio(covariance: float, variances: float) -> float:
    return float(covariance / math.sqrt(variances)) if variances > 0 else math.nan
