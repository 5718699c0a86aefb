"""ResumableSampler: an order of the training items that follows the seed and can be entered in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from basicsr.data.data_sampler import EnlargedSampler

from .random_streams import Draw, stream_seed


class ResumableSampler(EnlargedSampler):
    """EnlargedSampler whose order depends on ``seed``, not on the epoch alone, with a seed for each item (:class:`Draw`).

    An item's seed depends on ``seed``, the epoch and its position in the epoch's order over all processes. As with
    EnlargedSampler, an epoch has each item ``ratio`` times, and the processes take turns.

    Args:
        args: EnlargedSampler's: dataset, num_replicas, rank, ratio.
    """

    seed = 0
    _resumed_epoch, _passed = 0, 0

    def resume(self, epoch: int, passed: int) -> None:
        """Pass over the first ``passed`` items of this process in ``epoch``, which are not loaded; other epochs are whole."""
        self._resumed_epoch, self._passed = epoch, passed
        self.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        passed = self._passed if self.epoch == self._resumed_epoch else 0
        generator = torch.Generator().manual_seed(stream_seed('order', self.seed, self.epoch))
        order = torch.randperm(self.total_size, generator=generator).tolist()
        for position in range(self.rank + passed * self.num_replicas, self.total_size, self.num_replicas):
            yield Draw(order[position] % len(self.dataset), stream_seed('item', self.seed, self.epoch, position))
