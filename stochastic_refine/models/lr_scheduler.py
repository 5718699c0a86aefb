"""Learning-rate schedules by name: BasicSR's, PyTorch's, and those that only the baselines' own forks of BasicSR have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from basicsr.models import lr_scheduler as basicsr_schedules
from torch.optim import lr_scheduler

from ..errors import InputError
from ..values import nearest


class CosineAnnealingRestartLR(basicsr_schedules.CosineAnnealingRestartLR):
    """BasicSR's cosine cycles; the first iteration of a cycle has its highest rate.

    BasicSR's gives that iteration the end of the cycle before, a rate of ``eta_min``: 0 by default, an iteration in which
    nothing is learnt. All other rates, and all of a schedule of one cycle, are BasicSR's.
    """

    def cycle(self) -> int:
        """Index of the cycle that the current iteration belongs to; the last one goes on."""
        return min(sum(self.last_epoch >= end for end in self.cumulative_period), len(self.periods) - 1)

    def get_lr(self) -> list[float]:
        k = self.cycle()
        start = self.cumulative_period[k] - self.periods[k]
        fall = (1 + math.cos(math.pi * (self.last_epoch - start) / self.periods[k])) / 2
        return [self.eta_min + self.restart_weights[k] * (base - self.eta_min) * fall for base in self.base_lrs]


class CosineAnnealingRestartCyclicLR(CosineAnnealingRestartLR):
    """Cosine cycles, each down to a minimum of its own; the name is that of Restormer's options.

    At iteration i, from 0, of cycle k the rate is ``eta_k + w_k (base - eta_k) (1 + cos(pi i / period_k)) / 2``. Restormer's
    first cycle has ``eta_0 = base``, which keeps the rate constant.

    Args:
        optimizer: Whose rate to set.
        periods: Iterations of each cycle.
        restart_weights: w of each cycle.
        eta_mins: Lowest rate of each cycle.
        last_epoch: As in PyTorch.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, periods: list[int], restart_weights: tuple[float, ...] = (1, ),
                 eta_mins: tuple[float, ...] = (0, ), last_epoch: int = -1) -> None:
        if len(eta_mins) != len(periods):
            raise ValueError(f'there are {len(periods)} periods but {len(eta_mins)} eta_mins')
        self.eta_mins = eta_mins
        super().__init__(optimizer, periods, restart_weights, last_epoch=last_epoch)

    def get_lr(self) -> list[float]:
        self.eta_min = self.eta_mins[self.cycle()]
        return super().get_lr()


#: PyTorch's that an options file cannot describe: they want functions, other schedulers, or a validation score.
_NOT_FROM_OPTIONS = {'LRScheduler', 'LambdaLR', 'MultiplicativeLR', 'SequentialLR', 'ChainedScheduler', 'ReduceLROnPlateau'}

#: ``train: scheduler: type`` -> class. Names that BasicSR and PyTorch share mean BasicSR's.
SCHEDULERS: dict[str, type[lr_scheduler.LRScheduler]] = {
    **{name: getattr(lr_scheduler, name) for name in lr_scheduler.__all__ if name not in _NOT_FROM_OPTIONS},
    'MultiStepLR': basicsr_schedules.MultiStepRestartLR,
    'MultiStepRestartLR': basicsr_schedules.MultiStepRestartLR,
    'CosineAnnealingRestartLR': CosineAnnealingRestartLR,
    'CosineAnnealingRestartCyclicLR': CosineAnnealingRestartCyclicLR,
    'TrueCosineAnnealingLR': lr_scheduler.CosineAnnealingLR,  # the name in HINet's and NAFNet's options
}


def build_schedulers(options: Mapping[str, Any],
                     optimizers: Sequence[torch.optim.Optimizer]) -> list[lr_scheduler.LRScheduler]:
    """One schedule, as ``{type: ..., <arguments>}`` describes it, for each optimizer.

    Raises:
        InputError: If the type is unknown or its arguments are refused.
    """
    name = options['type']
    if name not in SCHEDULERS:
        raise InputError(f"train: scheduler has an unknown type '{name}'; {nearest(str(name), SCHEDULERS)}")
    arguments = {key: value for key, value in options.items() if key != 'type'}
    try:
        return [SCHEDULERS[name](optimizer, **arguments) for optimizer in optimizers]
    except (TypeError, ValueError, AssertionError) as error:
        raise InputError(f'train: scheduler cannot be made ({error}); correct its type or arguments.') from error
