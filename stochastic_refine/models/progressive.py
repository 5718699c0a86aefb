"""Progressive training: patches that grow, and batches that shrink, while the training goes on (Restormer, Sec. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

_KEYS = ('gt_sizes', 'mini_batch_sizes', 'iters')


@dataclass(frozen=True)
class ProgressivePatches:
    """The stages of a progressive training; the last one goes on beyond its iterations.

    Args:
        gt_sizes: Side of the patches in each stage, pixels.
        mini_batch_sizes: Images per process in each stage.
        iters: Iterations of each stage.
    """

    gt_sizes: tuple[int, ...]
    mini_batch_sizes: tuple[int, ...]
    iters: tuple[int, ...]

    @classmethod
    def from_options(cls, dataset: Mapping[str, Any], where: str = 'datasets: train') -> ProgressivePatches | None:
        """The stages that a training data set's keys describe, as Restormer's options do; None without such keys.

        Raises:
            InputError: If a key is missing, or a value is wrong or larger than what the loader gives.
        """
        given = [key for key in _KEYS if dataset.get(key) is not None]
        if not given:
            return None
        if len(given) < len(_KEYS):
            missing = next(key for key in _KEYS if key not in given)
            raise InputError(f"{where}: {given[0]} needs the key '{missing}' too; add it.")
        for key in _KEYS:
            if not isinstance(dataset[key], (list, tuple)) or not dataset[key] or not all(
                    isinstance(value, int) and not isinstance(value, bool) and value >= 1 for value in dataset[key]):
                raise InputError(f'{where}: {key} must be a list of whole numbers from 1, got {dataset[key]!r}.')
        if len({len(dataset[key]) for key in _KEYS}) > 1:
            lengths = ', '.join(f'{len(dataset[key])} {key}' for key in _KEYS)
            raise InputError(f'{where}: there are {lengths}; give one of each for every stage.')
        for key, limit in (('gt_sizes', 'gt_size'), ('mini_batch_sizes', 'batch_size_per_gpu')):
            if limit in dataset and max(dataset[key]) > dataset[limit]:
                raise InputError(f'{where}: {key} has {max(dataset[key])}, more than {limit} {dataset[limit]}, which is what '
                                 f'the loader gives; raise {limit} or lower it.')
        return cls(*(tuple(dataset[key]) for key in _KEYS))

    def stage(self, iteration: int) -> int:
        """Index of the stage that an iteration, counted from 1, belongs to."""
        ends = accumulate(self.iters)
        return min(sum(iteration > end for end in ends), len(self.iters) - 1)

    def cut(self, batch: Sequence[Tensor], iteration: int) -> tuple[Tensor, ...]:
        """A random subset of a batch and a random window of it, the same of all tensors, as the iteration's stage wants.

        Args:
            batch: (B, C, H, W) each, as loaded.
            iteration: Current iteration, from 1.

        Returns:
            All as (b, C, size, size); drawn from PyTorch's global generator on the CPU.
        """
        stage = self.stage(iteration)
        size, count = self.gt_sizes[stage], self.mini_batch_sizes[stage]
        if count < len(batch[0]):
            chosen = torch.randperm(len(batch[0]))[:count].to(batch[0].device)
            batch = [x[chosen] for x in batch]
        height, width = batch[0].shape[-2:]
        top, left = (int(torch.randint(max(side - size, 0) + 1, ())) for side in (height, width))
        return tuple(x[..., top:top + size, left:left + size] for x in batch)
