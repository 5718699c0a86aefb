"""Random numbers that depend on the seed and the place in a training alone, not on what was drawn before.

BasicSR seeds each process and each loading worker once, so that a draw depends on all draws before it: on the number of
workers, on validation, on where a training was interrupted. Here every item and every iteration has a stream of its own, so
there is no state to save, and a resumed training draws what an unbroken one does. Generators that a data set makes for itself
are beyond its reach.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch


class Draw(NamedTuple):
    """What a sampler asks a data set for: an item, and the seed of its random numbers."""

    index: int
    seed: int


def stream_seed(*place: str | int) -> int:
    """A seed in [0, 2**64), unrelated for different places, for example ``('item', manual_seed, epoch, position)``."""
    return int.from_bytes(hashlib.blake2b(repr(place).encode(), digest_size=8).digest(), 'big')


def epoch_draws(seed: int, epoch: int, items: int, total: int, rank: int = 0, processes: int = 1,
                passed: int = 0) -> Iterator[Draw]:
    """What one process draws in an epoch.

    An order depends on ``seed`` and ``epoch``, an item's seed also on its position in the order over all processes, which take
    turns.

    Args:
        seed, epoch: Of the training.
        items: In the data set.
        total: In the epoch, over all processes; above ``items`` each comes several times.
        rank, processes: Which process, of how many.
        passed: So many draws of this process are left out at the start.
    """
    order = torch.randperm(total, generator=torch.Generator().manual_seed(stream_seed('order', seed, epoch))).tolist()
    for position in range(rank + passed * processes, total, processes):
        yield Draw(order[position] % items, stream_seed('item', seed, epoch, position))


def seed_item(seed: int) -> None:
    """Seed what data sets draw from: Python, NumPy and PyTorch on the CPU (of whose seed PyTorch takes the lower 32 bits)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def seed_iteration(seed: int) -> None:
    """Seed what networks and losses draw from: the same, and PyTorch on all devices."""
    seed_item(seed)
    torch.manual_seed(seed)
