"""Pareto fronts of pairs of scores, the best picks, and thinning a front to a path; pure functions of numbers.

A pair is ``(perceptual, distortion)`` here, but any two scores will do; ``better`` says for each whether ``'higher'`` or
``'lower'`` is better. A pair with a NaN is on no front and is never picked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Scores = tuple[float, float]
Better = tuple[str, str]
#: Share of a front's length that points of a thinned one are apart at least.
SMALLEST_GAP = 0.1


def _signed(pairs: Sequence[Scores], better: Better) -> list[Scores]:
    """Pairs of which higher is better in both."""
    signs = [1 if direction == 'higher' else -1 for direction in better]
    return [(signs[0] * first, signs[1] * second) for first, second in pairs]


def _is_known(pair: Scores) -> bool:
    return not any(math.isnan(value) for value in pair)


def front(pairs: Sequence[Scores], better: Better) -> list[int]:
    """Indices of the pairs that no other pair dominates (is as good in both and better in one).

    They are sorted from the best second score to the best first; equal pairs are all on the front or all off it.
    """
    signed = _signed(pairs, better)
    order = sorted((i for i, pair in enumerate(signed) if _is_known(pair)), key=lambda i: (-signed[i][1], -signed[i][0], i))
    found: list[int] = []
    for i in order:  # the second score falls, so what is new must be better in the first
        if not found or signed[i][0] > signed[found[-1]][0] or signed[i] == signed[found[-1]]:
            found.append(i)
    return found


def pick(pairs: Sequence[Scores], better: Better, axis: int) -> int | None:
    """Index of the best pair by one score, of equals the one better by the other, then the first; None without any."""
    signed = _signed(pairs, better)
    known = [i for i, pair in enumerate(signed) if _is_known(pair)]
    return max(known, key=lambda i: (signed[i][axis], signed[i][1 - axis], -i), default=None)


def ranked(values: Sequence[float], better: str) -> list[int]:
    """Indices from the best value to the worst, NaN last; equals keep their order."""
    sign = -1 if better == 'higher' else 1
    return sorted(range(len(values)), key=lambda i: (math.isnan(values[i]), 0 if math.isnan(values[i]) else sign * values[i]))


def thin(pairs: Sequence[Scores], better: Better, count: int) -> list[int]:
    """Indices of at most ``count`` pairs of the front, about evenly spaced, from the best second score to the best first.

    Distances are Euclidean with both scores scaled to [0, 1] over the front. Both ends are kept and equal pairs count once, so
    from one index to the next the first score gets strictly better and the second strictly worse. Of pairs nearer to each
    other than ``SMALLEST_GAP`` of the front's length, whose order on other images would be a matter of noise, one is kept.

    Args:
        pairs, better: As above.
        count: At least 2.
    """
    along = front(pairs, better)
    along = [i for k, i in enumerate(along) if k == 0 or tuple(pairs[i]) != tuple(pairs[along[k - 1]])]
    if len(along) < 2:
        return along
    points = np.array([pairs[i] for i in along], dtype=np.float64)
    points = (points - points.min(0)) / np.ptp(points, axis=0)
    travelled = np.concatenate([[0.0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    travelled /= travelled[-1]
    chosen = range(len(along))
    if len(along) > count:  # the points nearest to evenly spaced distances; what two distances share is taken once
        chosen = sorted(set(np.abs(travelled[None] - np.linspace(0, 1, count)[:, None]).argmin(1).tolist()))
    kept = [0]
    for k in chosen:
        if travelled[k] - travelled[kept[-1]] >= SMALLEST_GAP:
            kept.append(k)
    kept[1 if len(kept) == 1 else -1:] = [len(along) - 1]
    return [along[k] for k in kept]
