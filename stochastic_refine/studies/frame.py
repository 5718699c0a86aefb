"""The frame of the studies of images, so that each of them is its question, its formula and its figure.

A study's module asks its question at the top and answers it by one function. That gets a :class:`Study`, which the command has
made, and what is the study's own: networks and operating points (:mod:`~stochastic_refine.studies.inputs`), or an options file
to train by (:mod:`~stochastic_refine.studies.trainings`). Within the frame

1. what would fail after long work is refused before it: a missing matplotlib at once, metrics (:attr:`Study.keys`) and what the
   study wants of its networks when it starts;
2. :meth:`Study.each_image` calls the formula once per pair and keeps what it gives, so that a stopped study goes on;
3. the study makes plain rows of that (:func:`means_of`, :func:`standard_error`) and sentences (:meth:`Study.in_words`);
4. :meth:`Study.write` writes them as NAME.csv and NAME.json, and what the study draws as NAME.png.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from .. import __version__
from ..comparison.caches import read_arrays
from ..comparison.columns import COLUMNS
from ..comparison.pairs import ImagePair
from ..comparison.protocols import spread_evenly
from ..comparison.provenance import code_identity, commit, machine
from ..comparison.scoring import (
    METRIC_NOTES,
    SET_METRICS,
    cache_key,
    exact_among,
    mean_score,
    metric_function,
    parse_metrics,
    unavailable_metrics,
)
from ..comparison.systems import Network
from ..data.recorded_png import to_pixels
from ..errors import InputError
from ..files import write_atomically
from ..inference.operating_point import OperatingPoint
from ..inference.restorer import Restorer
from .report import StudyReport, check_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A study's formula: of one pair, blurred (3, H, W) in [0, 1] and sharp (H, W, 3) BGR uint8, named numbers and arrays.
Compute = Callable[[Tensor, NDArray[np.uint8]], Mapping[str, Any]]


@dataclass
class Study:
    """A study under way. A part with images or a formula of its own is a copy under another name (``dataclasses.replace``).

    Args:
        name: Of its files and of its part of the cache.
        images, max_images: Pairs, and how many of them to use.
        output, device: Where to write, where to run.
        metrics: Keys joined by commas; None for a study that scores nothing.

    Attributes:
        chosen: The pairs to use, spread evenly.
        words: Sentences and lines for the terminal.

    Raises:
        InputError: If matplotlib is missing.
    """

    name: str
    images: Sequence[ImagePair]
    output: Path
    device: torch.device
    metrics: str | None = None
    max_images: int | None = None
    chosen: list[ImagePair] = field(init=False)
    words: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        check_matplotlib()
        self.chosen = spread_evenly(self.images, self.max_images)

    @cached_property
    def keys(self) -> list[str]:
        """The metrics that can be had here; what is to say of the others, and beside their values, is among ``words``.

        The first look may download weights: a study takes it when its other input is known to be good, and before its work.

        Raises:
            InputError: If a metric is unknown or needs a whole set of images, or none can be had.
        """
        if self.metrics is None:
            return []
        keys = parse_metrics(self.metrics)
        for key in keys:
            if key in SET_METRICS:
                raise InputError(f"'{key}' is a score of whole sets of images, and a study scores single ones; leave it out of "
                                 '--metrics.')
        reasons = unavailable_metrics(keys)
        self.words += dict.fromkeys(f'Left out: {reason}' for reason in reasons.values())
        if len(reasons) == len(keys):
            raise InputError(f'None of the metrics {self.metrics} can be had here: {next(iter(reasons.values()))}')
        self.words += [METRIC_NOTES[key] for key in keys if key in METRIC_NOTES and key not in reasons]
        return [key for key in keys if key not in reasons]

    def each_image(self, network: Network, compute: Compute, description: str,
                   **settings: Any) -> Iterator[dict[str, NDArray[Any]]]:
        """What ``compute`` gives for each of the chosen pairs, as arrays, from the cache where it is there already.

        Args:
            network: What ``compute`` restores with.
            compute: The formula; called once per pair.
            description: For the progress bar.
            **settings: What else the result depends on, besides the code and the versions of packages; plain values.
        """
        identity = {'study': self.name, 'network': network.fingerprint, 'device': self.device.type, **settings}
        if self.metrics is not None:
            identity['metrics'] = self.keys
        with tqdm(self.chosen, desc=description, unit='image') as bar:
            for pair in bar:
                file = self._cache_file(pair, identity)
                found = read_arrays(file)
                if found is None:
                    found = {name: np.asarray(value) for name, value in compute(*pair.load()).items()}
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(file, lambda temporary, found=found: np.savez_compressed(temporary, **found))
                yield found

    def _cache_file(self, pair: ImagePair, identity: Mapping[str, Any]) -> Path:
        metrics = [cache_key(key) for key in self.keys]
        text = json.dumps([code_identity(), pair.key(), identity, metrics], sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        return self.output / 'cache' / name[:2] / f'{name}.npz'

    def scoring(self, restorer: Restorer, point: OperatingPoint) -> Compute:
        """The formula of studies that ask for nothing but the scores of what is restored."""
        return lambda lq, gt: scores_of(restorer.restore(lq, point).image, gt, self.keys)

    def in_words(self, row: Mapping[str, Any]) -> str:
        """The scores of a row, for a line of ``words``."""
        return ', '.join(f'{COLUMNS[key].title} {row[key]:.4f}' for key in self.keys)

    def write(self, rows: list[dict[str, Any]], settings: Mapping[str, Any], draw: Callable[[Figure], None],
              **more: Callable[[Figure], None]) -> StudyReport:
        """The study's report, written to its files.

        Args:
            rows: Plain values by column.
            settings: What the rows depend on, besides what every study writes down.
            draw: Draws NAME.png.
            **more: What draws further figures, NAME_KEY.png.
        """
        count = len(self.chosen)
        provenance = {'images': count if count == len(self.images) else f'{count} of {len(self.images)}, spread evenly',
                      'version': __version__, 'commit': commit(), 'machine': machine(self.device)}
        report = StudyReport(self.name, rows, {**provenance, **settings}, self.words)
        report.write(self.output, {'': draw, **{f'_{name}': other for name, other in more.items()}})
        return report


def to_bgr(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) RGB in [0, 1] as metrics take it, (H, W, 3) BGR uint8."""
    return np.ascontiguousarray(to_pixels(image.clamp(0, 1))[..., ::-1])


def scores_of(image: Tensor, gt: NDArray[np.uint8], metrics: Sequence[str]) -> dict[str, float]:
    """The scores of an image, (3, H, W) in [0, 1], by metric key."""
    restored = to_bgr(image)
    return {key: float(metric_function(key)(restored, gt)) for key in metrics}


def means_of(found: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, float]:
    """Columns of a row: each score's mean over images, and as ``..._exact`` how many infinite ones it leaves out, if any."""
    columns: dict[str, float] = {}
    for key in keys:
        values = [float(image[key]) for image in found]
        columns[key] = mean_score(values)
        if exact := exact_among(values):
            columns[f'{key}_exact'] = exact
    return columns


def standard_error(values: NDArray[Any]) -> float:
    """Of the mean of values, (N,); NaN if there are fewer than two."""
    return float(values.std(ddof=1) / len(values)**0.5) if len(values) > 1 else math.nan
