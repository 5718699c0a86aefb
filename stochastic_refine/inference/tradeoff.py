"""One knob on the perception-distortion curve: a path of operating points, stored in a checkpoint, from faithful to vivid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from .operating_point import OperatingPoint

#: Key of a checkpoint's metadata that holds the path, a list of operating points' options.
TRADEOFF_KEY = 'tradeoff'
#: Settings that the knob chooses, so that they cannot be given beside it.
CHOSEN = ('point', 'sampler', 'steps', 'final_variance', 'last_time', 'eta', 'clamp', 'average')


def tradeoff_path(metadata: Mapping[str, Any], where: str) -> list[OperatingPoint]:
    """The path in a checkpoint's metadata, most faithful point first; empty if there is none.

    Raises:
        InputError: If it is no list of operating points.
    """
    stored = metadata.get(TRADEOFF_KEY) or []
    if not isinstance(stored, list) or not all(isinstance(options, Mapping) for options in stored):
        raise InputError(f'{where}: {TRADEOFF_KEY} in the metadata is no list of operating points; store it again with '
                         'stochastic-refine sweep --store.')
    return [OperatingPoint.from_options(options, f'{where}: {TRADEOFF_KEY} {i}') for i, options in enumerate(stored)]


def point_at(path: Sequence[OperatingPoint], knob: float) -> OperatingPoint:
    """The operating point at a position of the knob.

    The path's points lie evenly on the knob. Between two that differ in numbers only, ``steps``, ``final_variance`` and
    ``num_samples`` go geometrically and ``eta`` linearly, whole numbers rounded; else the nearer of the two is taken.

    Args:
        path: Operating points, most faithful first.
        knob: 0 (most faithful) to 1 (most vivid).

    Raises:
        InputError: If the path is empty or the knob out of range.
    """
    if isinstance(knob, bool) or not isinstance(knob, (int, float)) or not 0 <= knob <= 1:
        raise InputError(f'tradeoff must be a number from 0 (most faithful) to 1 (most vivid), got {knob!r}.')
    if not path:
        raise InputError('These weights hold no path for tradeoff; find and store one: stochastic-refine sweep --weights FILE '
                         '--data FOLDER --store FILE.')
    position = knob * (len(path) - 1)
    below = min(int(position), max(len(path) - 2, 0))
    share = position - below
    if share == 0:
        return path[below]
    first, second = path[below], path[below + 1]
    nearer = first if share < 0.5 else second
    distilled = first.grid_steps or second.grid_steps  # such networks know only certain levels
    alike = (first.sampler, first.clamp, first.last_time) == (second.sampler, second.clamp, second.last_time)
    if not alike or distilled or share == 1:
        return nearer

    def between(key: str) -> float:
        return math.exp((1 - share) * math.log(getattr(first, key)) + share * math.log(getattr(second, key)))

    samples = round(between('num_samples'))
    return dataclasses.replace(
        nearer,
        steps=round(between('steps')),
        final_variance=between('final_variance'),
        eta=(1 - share) * first.eta + share * second.eta,
        num_samples=samples,
        # A single sample is its own mean, so that the neighbour of one tells nothing.
        average=nearer.average if first.average == second.average else samples > 1)


def check_alone(knob: float, point: OperatingPoint, settings: Mapping[str, Any]) -> None:
    """Raise InputError if settings that the knob chooses are given beside it; None stands for one that is not.

    ``num_samples`` contradicts only where the knob's point is a mean of several.
    """
    given = [key for key in CHOSEN if settings.get(key) is not None]
    if settings.get('num_samples') is not None and point.average:
        given.append('samples')
    if given:
        raise InputError(f'tradeoff {knob:g} chooses {" and ".join(given)} itself; leave out one or the other.')
