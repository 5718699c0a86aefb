"""Learning-rate schedules: closed forms through the training loop's own calls, warm-up, resuming."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

BASE = 0.1


def cosine(progress, low=0.0, high=BASE):
    return low + (high - low) * (1 + math.cos(math.pi * progress)) / 2


def rates(model, iterations, warmup=-1):
    """The rate that each iteration's update uses."""
    seen = []
    for i in iterations:
        model.update_learning_rate(i, warmup_iter=warmup)
        model.optimizer_g.step()
        seen.append(model.get_current_learning_rate()[0])
    return seen


# iteration i is the schedule's step i - 1
@pytest.mark.parametrize('scheduler, expected', [
    ({'type': 'TrueCosineAnnealingLR', 'T_max': 20, 'eta_min': 0.01}, {i: cosine((i - 1) / 20, 0.01) for i in range(1, 22)}),
    ({'type': 'CosineAnnealingLR', 'T_max': 20}, {i: cosine((i - 1) / 20) for i in range(1, 22)}),
    ({'type': 'LinearLR', 'start_factor': 1.0, 'end_factor': 0.5, 'total_iters': 10}, {1: BASE, 6: 0.075, 11: 0.05, 20: 0.05}),
    ({'type': 'StepLR', 'step_size': 4, 'gamma': 0.5}, {4: BASE, 5: 0.05, 9: 0.025}),
    ({'type': 'MultiStepLR', 'milestones': [5], 'gamma': 0.5}, {5: BASE, 6: 0.05, 20: 0.05}),
    # Restormer's: constant, then one cosine
    ({'type': 'CosineAnnealingRestartCyclicLR', 'periods': [8, 12], 'restart_weights': [1, 1], 'eta_mins': [BASE, 0.02]},
     {1: BASE, 5: BASE, 9: BASE, **{i: cosine((i - 9) / 12, 0.02) for i in range(10, 22)}}),
    ({'type': 'CosineAnnealingRestartCyclicLR', 'periods': [8, 12], 'restart_weights': [1, 0.5], 'eta_mins': [0.04, 0.02]},
     {1: BASE, 8: cosine(7 / 8, 0.04), 9: 0.06, 15: cosine(0.5, 0.02, 0.06), 21: 0.02}),
    # a cycle begins with its highest rate, not with the 0 in which the one before would end
    ({'type': 'CosineAnnealingRestartLR', 'periods': [8, 12], 'restart_weights': [1, 0.5]},
     {**{i: cosine((i - 1) / 8) for i in range(1, 9)}, **{i: cosine((i - 9) / 12) / 2 for i in range(9, 22)}}),
], ids=lambda value: value.get('type', ''))
def test_rates_are_the_closed_forms_also_after_resuming(build_model, restoration_options, scheduler, expected):
    restoration_options['train'].update(scheduler=scheduler, total_iter=21)
    restoration_options['train']['optim_g']['lr'] = BASE
    model = build_model(restoration_options)
    first = rates(model, range(1, 7))
    model.save(0, 6)
    state = torch.load(Path(model.opt['path']['training_states']) / '6.state', weights_only=True)
    resumed = build_model(restoration_options)
    resumed.resume_training(state)
    for goes_on in (model, resumed):
        seen = first + rates(goes_on, range(7, 22))
        assert {i: seen[i - 1] for i in expected} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize('scheduler, expected', [
    ({'type': 'MultiStepLR', 'milestones': [20], 'gamma': 0.5}, lambda i: BASE),
    ({'type': 'TrueCosineAnnealingLR', 'T_max': 20}, lambda i: cosine((i - 1) / 20)),
    ({'type': 'CosineAnnealingRestartLR', 'periods': [20], 'restart_weights': [1]}, lambda i: cosine((i - 1) / 20)),
], ids=lambda value: value.get('type', '') if isinstance(value, dict) else '')
def test_warm_up_hides_the_schedule_without_changing_it(build_model, restoration_options, scheduler, expected):
    restoration_options['train'].update(scheduler=scheduler, total_iter=20)
    restoration_options['train']['optim_g']['lr'] = BASE
    model = build_model(restoration_options)
    seen = rates(model, range(1, 4), warmup=5)
    model.save(0, 3)  # in the midst of the warm-up
    resumed = build_model(restoration_options)
    resumed.resume_training(torch.load(Path(model.opt['path']['training_states']) / '3.state', weights_only=True))
    seen += rates(resumed, range(4, 21), warmup=5)
    assert seen[:4] == pytest.approx([BASE * i / 5 for i in range(1, 5)])
    assert seen[4:] == pytest.approx([expected(i) for i in range(5, 21)])
