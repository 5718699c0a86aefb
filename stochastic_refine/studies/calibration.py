"""The mathematics of calibration: does the standard deviation over samples tell the error?

Everything is per pixel and channel, in grey values of [0, 1]. n samples of a pixel with mean m and standard deviation s (n - 1
in its denominator) are taken as drawn from a Gaussian of unknown mean and variance. One more draw from it, and the truth is one
if the model's posterior is right, then lies in the *predictive* interval

    m +- t_{n-1}(level) * s * sqrt(1 + 1/n),

with Student's t. The samples are not Gaussian where they pile up at black or white; that is part of what is measured. Clipped
to [0, 1] the interval leaves out no possible truth, so widths are those of the clipped one, and coverage is that of both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .association import EDGES, Array, Association, fine_bin

#: Nominal coverage of the intervals that are checked.
LEVELS = (0.5, 0.68, 0.8, 0.9, 0.95)
#: Side of the blocks in which standard deviation and error are averaged for the second pair of correlations.
BLOCK = 8


def half_width(samples: int, level: float) -> float:
    """Half the width of the predictive interval in standard deviations: t_{n-1}(level) * sqrt(1 + 1/n).

    Raises:
        InputError: If there are fewer than two samples, the level is not between 0 and 1, or scipy is missing.
    """
    if samples < 2:
        raise InputError(f'An interval needs at least two samples, got {samples}; draw more.')
    if not 0 < level < 1:
        raise InputError(f'The level of an interval must lie between 0 and 1, got {level}.')
    try:
        from scipy.stats import t
    except ImportError as error:
        raise InputError('Intervals need scipy, which is not installed; run: '
                         "pip install 'stochastic_refine[figures]'.") from error
    return float(t.ppf((1 + level) / 2, samples - 1)) * math.sqrt(1 + 1 / samples)


@dataclass(frozen=True)
class ReliabilityBin:
    """Pixels of similar standard deviation: how many, the error their standard deviation predicts, and the one they have."""

    count: int
    std: float
    predicted: float
    rmse: float


@dataclass(frozen=True)
class CalibrationReport:
    """What the standard deviation is worth.

    Attributes:
        samples: Samples per image.
        values: Number of pixels times channels.
        coverage: Share of the truth inside the interval, by nominal level.
        width: Mean width of the clipped interval, by nominal level.
        pearson, spearman: Correlation of std with the absolute error of the mean.
        block_pearson, block_spearman: The same after averaging both over 8x8 blocks.
        sharpness: Mean std.
        rmse: Of the mean of the samples.
        predicted: The RMSE expected if the truth were one more sample: root mean square of std * sqrt(1 + 1/n).
        reliability: Bins of rising std with about equal counts. If they are calibrated, ``rmse`` is ``predicted`` in each,
            apart from regression to the mean: a std estimated from few samples is too low in the first bins and too high in the
            last.
    """

    samples: int
    values: int
    coverage: dict[float, float]
    width: dict[float, float]
    pearson: float
    spearman: float
    block_pearson: float
    block_spearman: float
    sharpness: float
    rmse: float
    predicted: float
    reliability: list[ReliabilityBin]

    @property
    def scale(self) -> float:
        """The factor on std that would make its overall size right: above 1 the model is too sure of itself."""
        return self.rmse / self.predicted if self.predicted > 0 else math.inf

    @property
    def calibration_error(self) -> float:
        """Mean over the bins of |rmse - predicted| / predicted (expected normalised calibration error)."""
        return float(np.mean([abs(each.rmse - each.predicted) / each.predicted if each.predicted > 0 else math.inf
                              for each in self.reliability]))


class Calibration:
    """Collects a :class:`CalibrationReport` image by image; memory does not grow with their number or size.

    Args:
        samples: Samples behind each mean and standard deviation, at least 2.
        levels: Nominal coverages.
    """

    def __init__(self, samples: int, levels: Sequence[float] = LEVELS) -> None:
        self.samples = samples
        self.levels = tuple(levels)
        self.factors = np.array([half_width(samples, level) for level in self.levels])
        self.inside = np.zeros(len(self.levels), dtype=np.int64)
        self.widths = np.zeros(len(self.levels))
        #: Count, sum of the variances and sum of the squared errors in each fine bin of std.
        self.by_std = np.zeros((3, len(EDGES) - 1))
        self.pixels, self.blocks = Association(), Association()

    def add(self, mean: NDArray[Any], std: NDArray[Any], truth: NDArray[Any]) -> None:
        """Add an image: mean and standard deviation of its samples, and the truth; all (C, H, W), [0, 1]."""
        mean, std, truth = (np.asarray(part, dtype=np.float64) for part in (mean, std, truth))
        error = np.abs(truth - mean)
        for i, factor in enumerate(self.factors):
            self.inside[i] += np.count_nonzero(error <= factor * std)
            self.widths[i] += (np.minimum(mean + factor * std, 1) - np.maximum(mean - factor * std, 0)).sum()
        bins = fine_bin(std).ravel()
        for row, weights in enumerate((None, std.ravel()**2, error.ravel()**2)):
            self.by_std[row] += np.bincount(bins, weights, minlength=self.by_std.shape[1])
        self.pixels.add(std, error)
        if min(std.shape[-2:]) >= BLOCK:
            self.blocks.add(_block_means(std), _block_means(error))

    @property
    def _parts(self) -> dict[str, NDArray[Any]]:
        return {'inside': self.inside, 'widths': self.widths, 'by_std': self.by_std,
                'pixel_moments': self.pixels.moments, 'pixel_table': self.pixels.table,
                'block_moments': self.blocks.moments, 'block_table': self.blocks.table}

    def state(self) -> dict[str, NDArray[Any]]:
        """What was collected, as arrays; mostly zeros, so they compress well."""
        return {name: part.copy() for name, part in self._parts.items()}

    def merge(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Add what another one with the same samples and levels collected."""
        for name, part in self._parts.items():
            part += state[name]

    def report(self, bins: int = 12) -> CalibrationReport:
        """Sum up, with at most so many reliability bins.

        Raises:
            InputError: If nothing was added.
        """
        count, variance, squares = self.by_std
        total = count.sum()
        if not total:
            raise InputError('There is no image to check the standard deviation on; give some.')
        spread = 1 + 1 / self.samples
        # A fine bin goes where its middle pixel belongs.
        group = ((count.cumsum() - count / 2) * bins / total).astype(int).clip(0, bins - 1)
        counts, variances, errors = (np.bincount(group, part, minlength=bins) for part in self.by_std)
        reliability = [
            ReliabilityBin(int(n), math.sqrt(v / n), math.sqrt(v / n * spread), math.sqrt(e / n))
            for n, v, e in zip(counts, variances, errors) if n
        ]
        return CalibrationReport(
            samples=self.samples,
            values=int(total),
            coverage={level: float(n / total) for level, n in zip(self.levels, self.inside)},
            width={level: float(w / total) for level, w in zip(self.levels, self.widths)},
            pearson=self.pixels.pearson,
            spearman=self.pixels.spearman,
            block_pearson=self.blocks.pearson,
            block_spearman=self.blocks.spearman,
            sharpness=float(self.pixels.moments[1] / total),
            rmse=math.sqrt(squares.sum() / total),
            predicted=math.sqrt(variance.sum() / total * spread),
            reliability=reliability)


def _block_means(values: Array) -> Array:
    """Means over whole 8x8 blocks of each channel, (C, H // 8, W // 8)."""
    channels, height, width = values.shape
    rows, columns = height // BLOCK, width // BLOCK
    cut = values[:, :rows * BLOCK, :columns * BLOCK]
    return cut.reshape(channels, rows, BLOCK, columns, BLOCK).mean(axis=(2, 4))
