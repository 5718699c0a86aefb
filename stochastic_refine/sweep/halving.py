"""Successive halving over the cells of a sweep: all of them on few images, the better half on twice as many, and so on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from .pareto import Better, Scores, ranked

Cell = TypeVar('Cell')
Image = TypeVar('Image')


@dataclass
class Round:
    """One round.

    Args:
        images: Number of images that the cells are scored on, those of earlier rounds included.
        cells: How many cells are scored.
        eliminated: Positions, among all cells, of those that go no further.
    """

    images: int
    cells: int
    eliminated: list[int] = field(default_factory=list)


def halve(cells: Sequence[Cell],
          images: Sequence[Image],
          score: Callable[[list[Cell], Sequence[Image]], list[Scores]],
          better: Better,
          first: int = 4) -> tuple[list[int], list[Round]]:
    """Find the cells that are best in one of two scores, with the others left after few images.

    After round r = 1, 2, ... the best ``ceil(cells / 2^r)`` in each of the two scores go on. (Half of those *left* would be no
    elimination: the two scores pull in opposite directions, so the better half in one and that in the other can be everything.)

    Args:
        cells: What is compared.
        images: In the order in which they are used.
        score: ``score(cells, images)`` returns the pair of mean scores of each cell; what it knows it need not compute again.
        better: ``'higher'`` or ``'lower'`` for each score.
        first: Images of the first round.

    Returns:
        Positions of the survivors, which are scored on all images, and the rounds.
    """
    alive, rounds = list(range(len(cells))), []
    used = min(first, len(images))
    while True:
        pairs = score([cells[i] for i in alive], images[:used])
        rounds.append(Round(used, len(alive)))
        if used == len(images):
            return alive, rounds
        keep = math.ceil(len(cells) / 2**len(rounds))
        best = {alive[k] for axis in range(2) for k in ranked([pair[axis] for pair in pairs], better[axis])[:keep]}
        rounds[-1].eliminated = [i for i in alive if i not in best]
        alive = [i for i in alive if i in best]
        used = min(2 * used, len(images))
