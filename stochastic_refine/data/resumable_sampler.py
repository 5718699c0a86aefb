"""ResumableSampler: an order of the training items that follows the seed and can be entered in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from basicsr.data.data_sampler import EnlargedSampler

from .random_streams import epoch_draws


class ResumableSampler(EnlargedSampler):
    """EnlargedSampler whose order depends on ``seed``, not on the epoch alone, with a seed for each item
    (:func:`~.random_streams.epoch_draws`). As with EnlargedSampler, an epoch has each item ``ratio`` times.

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
        yield from epoch_draws(self.seed, self.epoch, len(self.dataset), self.total_size, self.rank, self.num_replicas, passed)
