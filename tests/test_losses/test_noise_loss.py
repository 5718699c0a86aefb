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
