"""Which weights restore a photo when nobody says: the best that are on this machine and take a reasonable time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..archs.sampling import SamplingNetwork
from ..checkpoints.catalogue import catalogue
from ..checkpoints.weights_folder import REFINED, available_weights
from .deblurrer import Deblurrer

#: Bundled: a predictor for photos, one pass, and a pair for whoever wants samples.
BUNDLED_PREDICTOR, BUNDLED_PAIR = 'camera', 'small'
#: What a photo may take when the speed is left open.
REASONABLE_SECONDS = 120.0
#: Side of the crop that is timed; larger ones would cost as much as a photo.
_TIMED_SIDE = 192


@dataclass(frozen=True)
class Choice:
    """Weights for photos.

    Args:
        name: Of the weights.
        deblurrer: Which has loaded them.
        size: (height, width) of a photo.
        seconds: That it will take about.
        better: Names of published weights that are not on this machine and one command away.
        slower: Better weights that are here and take longer than is reasonable, with their seconds.
    """

    name: str
    deblurrer: Deblurrer
    size: tuple[int, int]
    seconds: float
    better: tuple[str, ...] = ()
    slower: tuple[str, float] | None = None

    def words(self, point: str) -> str:
        """One line for the user, with the operating point in words."""
        entry = catalogue().get(self.name)
        scores = f' (published: {entry.scores} dB)' if entry and entry.scores else ''
        line = f'{self.name}{scores}, {point}: about {duration(self.seconds)} for {self.size[1]}x{self.size[0]} pixels.'
        if self.slower:
            line += f' With --best: {self.slower[0]}, about {duration(self.slower[1])}.'
        elif self.better:
            line += f' Better weights are one command away: stochastic-refine weights get {self.better[0]}'
        return line


def choose(speed: str, size: tuple[int, int], load: Callable[[str], Deblurrer], kept: str | None = None) -> Choice:
    """Choose weights for photos.

    Args:
        speed: ``'fast'`` (the bundled weights), ``'auto'`` (the best whose photo takes at most two minutes) or ``'best'``,
            refined where there is a refiner over the best.
        size: (height, width) of a photo.
        load: Makes a deblurrer of weights by name.
        kept: Weights that were chosen before and are to stay.

    Raises:
        InputError: If weights cannot be used.
    """
    published, here = catalogue(), available_weights()
    ranked = [*sorted((name for name in here if name in published), key=_score, reverse=True), BUNDLED_PREDICTOR]
    if speed == 'best':
        ranked = [each for name in ranked for each in (name + REFINED, name) if each == name or each in here]
    candidates = [kept] if kept else [BUNDLED_PREDICTOR] if speed == 'fast' else ranked
    choice: Choice | None = None
    slower: tuple[str, float] | None = None
    for name in candidates:
        deblurrer = load(name)
        seconds = expected_seconds(deblurrer, size)
        choice = Choice(name, deblurrer, size, seconds, _better_than(name) if speed != 'fast' else (), slower)
        if speed == 'best' or seconds <= REASONABLE_SECONDS:
            break
        slower = slower or (name, seconds)
    assert choice is not None  # the bundled weights are always there
    return choice


def bundled_for(settings: Mapping[str, Any], save: Collection[str] = ('image', )) -> str:
    """The bundled weights that settings of a restoration, and what is to be saved, mean something to: any is about samples."""
    of_samples = set(save) - {'image'} or any(value is not None for value in settings.values())
    return BUNDLED_PAIR if of_samples else BUNDLED_PREDICTOR


def expected_seconds(deblurrer: Deblurrer, size: tuple[int, int]) -> float:
    """About how long a photo of that size, (height, width), takes at the first operating point.

    Measured on a small one; of a network that samples with one step of one sample, and counted up.
    """
    rng = np.random.default_rng(0)
    side = min(_TIMED_SIDE, *size)
    crop = rng.random((side, side, 3), np.float32)
    point = deblurrer.operating_point()
    calls = point.calls * point.num_samples if isinstance(deblurrer.net, SamplingNetwork) else 0
    once: dict[str, Any] = {'samples': 1, 'steps': 1} if calls else {}
    deblurrer(crop[:min(side, 64), :min(side, 64)], keep_samples=False, **once)  # the first call sets up
    start = time.perf_counter()
    deblurrer(crop, keep_samples=False, **once)
    return (time.perf_counter() - start) * max((1 + calls) / 2, 1) * size[0] * size[1] / side**2


def photo_size(path: Path) -> tuple[int, int]:
    """(height, width) of a photo, without decoding it; a megapixel's where the file does not tell."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1000, 1000


def duration(seconds: float) -> str:
    """Seconds in words, as exact as an estimate is."""
    if seconds < 1:
        return 'a second'
    if seconds < 100:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'


def _score(name: str) -> float:
    """The best published PSNR of weights in the catalogue; test sets differ, but not by as much as networks do."""
    entry = catalogue().get(name)
    return max((score['psnr'] for score in entry.published.values()), default=0.0) if entry else 0.0


def _better_than(name: str) -> tuple[str, ...]:
    """Published weights that ``get`` fetches by itself, are not here, and have a better score."""
    here = available_weights()
    return tuple(sorted((other for other, entry in catalogue().items() if other not in here and _score(other) > _score(name)
                         and any(source.tried for source in entry.sources)), key=_score, reverse=True))
