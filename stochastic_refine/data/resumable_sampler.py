"""ResumableSampler: BasicSR's order of the training items, which can be entered in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from basicsr.data.data_sampler import EnlargedSampler

from .random_streams import Draw, stream_seed


class ResumableSampler(EnlargedSampler):
    """Gives the items in EnlargedSampler's order, each with the seed of its own random numbers (:class:`Draw`).

    An item's seed depends on ``seed``, the epoch and its position in the epoch's order over all processes.

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
        for i, index in enumerate(super().__iter__()):
            if i >= passed:
                yield Draw(index, stream_seed('item', self.seed, self.epoch, i * self.num_replicas + self.rank))
