"""The knob: which samples a picture is made of at a position between faithful and vivid, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..archs.sampling import SamplingNetwork
from ..inference.operating_point import OperatingPoint
from .machine import Identity, Machine

#: In place of an operating point's name: the knob walks the weights' path, as ``restore --tradeoff`` does.
PATH = '(path)'


@dataclass(frozen=True)
class Settings:
    """What is chosen on the page beside the knob.

    Args:
        weights: Name or file.
        point: Name of an operating point of theirs; PATH for the path; '' for their first, and of a deterministic network.
        samples: How many are drawn; the path has numbers of its own.
        seed: Of the first sample.
    """

    weights: str
    point: str = ''
    samples: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Wanted:
    """What a picture is made of.

    Args:
        weights: Which ones.
        drawing: The operating point less what does not change a sample: number, mean, seed.
        seeds: Of its samples.
        vividness: Where the picture lies, from 0 (their mean) to 1 (one of them).
    """

    weights: Identity
    drawing: OperatingPoint
    seeds: tuple[int, ...]
    vividness: float


def wanted_at(machine: Machine, settings: Settings, knob: float) -> Wanted:
    """What the picture at a position of the knob, 0 (faithful) to 1 (vivid), is made of.

    Raises:
        InputError: If weights or a setting cannot be used.
    """
    identity, deblurrer = machine.load(settings.weights)
    if not isinstance(deblurrer.net, SamplingNetwork):
        return Wanted(identity, deblurrer.operating_point(), (0, ), 1.0)
    if settings.point == PATH:
        point = deblurrer.operating_point(tradeoff=knob, seed=settings.seed)
        vividness = 0.0 if point.average else 1.0
    else:
        point = deblurrer.operating_point(settings.point or None, num_samples=settings.samples, seed=settings.seed)
        vividness = float(knob)
    drawing = dataclasses.replace(point, num_samples=1, average=False, seed=0)
    return Wanted(identity, drawing, tuple(point.seeds), vividness)


def mixed(samples: Sequence[NDArray[np.float32]], vividness: float,
          chosen: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, str]:
    """The picture that lies so far from the samples' mean to one of them, ``(1 - v) mean + v sample``.

    Estimators between the least distortion and the best perception lie on such a line (Freirich et al., "A Theory of the
    Distortion-Perception Tradeoff in Wasserstein Space", NeurIPS 2021).

    Args:
        samples: At least one, (H, W, 3).
        vividness: 0 (exactly the mean) to 1 (exactly the sample).
        chosen: Index of that sample; the last one if there are fewer.

    Returns:
        The picture; the samples' standard deviation (n - 1 in the denominator), None with one; and the picture in words.
    """
    chosen = min(chosen, len(samples) - 1)
    if len(samples) == 1:
        return samples[0], None, 'one picture, so that the knob changes nothing'
    mean = np.asarray(sum(samples[1:], samples[0])) / np.float32(len(samples))
    squares = sum((sample - mean)**2 for sample in samples)
    share = np.float32(vividness)
    image = (1 - share) * mean + share * samples[chosen]
    ends = {0.0: f'mean of {len(samples)} samples', 1.0: f'sample {chosen + 1} of {len(samples)}'}
    words = ends.get(vividness, f'{vividness:.0%} of the way from the mean to sample {chosen + 1} of {len(samples)}')
    return image, np.sqrt(squares / np.float32(len(samples) - 1)), words
