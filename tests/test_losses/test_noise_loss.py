"""The loss of Eq. (6)."""

from __future__ import annotations

import pytest
import torch

from stochastic_refine.losses.noise_loss import NoisePredictionLoss

NOISE = torch.zeros(1, 1, 2, 2)
PREDICTION = torch.tensor([[[[1.0, -3.0], [0.0, 2.0]]]])


@pytest.mark.parametrize(('options', 'expected'), [
    ({}, 6 / 4),
    ({'norm': 'l2'}, 14 / 4),
    ({'loss_weight': 0.5}, 6 / 8),
    ({'reduction': 'sum'}, 6.0),
    ({'norm': 'l2', 'reduction': 'sum', 'loss_weight': 2.0}, 28.0),
], ids=str)
def test_value(options, expected):
    loss = NoisePredictionLoss(**options)(PREDICTION, NOISE)
    assert loss.shape == ()
    assert loss.item() == expected


def test_the_gradient_of_the_papers_norm_is_the_sign():
    prediction = PREDICTION.clone().requires_grad_()
    NoisePredictionLoss()(prediction, NOISE).backward()
    assert torch.equal(prediction.grad, PREDICTION.sign() / 4)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="'l3'"):
        NoisePredictionLoss(norm='l3')


@pytest.mark.parametrize(('norm', 'expected'), [('l1', (2 + 4) / 2), ('l2', (4 + 16) / 2)])
def test_errors_weigh_as_in_velocity_up_to_the_limit(norm, expected):
    """At levels 1/2 and 0.01: L1 by 2 and at most 4, L2 by 4 and at most 16."""
    prediction, levels = torch.ones(2, 3, 1, 1), torch.tensor([0.5, 0.01])
    loss = NoisePredictionLoss(norm=norm, weight_limit=4 if norm == 'l1' else 16)(prediction, torch.zeros(2, 3, 1, 1), levels)
    assert loss.item() == pytest.approx(expected)


def test_the_weight_is_that_of_the_velocitys_error():
    """v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) r0, where r0 is what r_t and the predicted noise imply."""
    level = torch.tensor([0.6])
    r_t, noise, prediction = torch.randn(3, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def velocity(eps):
        return 0.6 * eps - 0.8 * (r_t - 0.8 * eps) / 0.6

    loss = NoisePredictionLoss(norm='l2', weight_limit=100.0)(prediction, noise, level)
    assert loss.item() == pytest.approx((velocity(prediction) - velocity(noise)).square().mean().item())
