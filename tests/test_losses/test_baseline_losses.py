"""Losses of the published baselines, by values that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from stochastic_refine.losses.edge_loss import CharbonnierEdgeLoss, EdgeLoss
from stochastic_refine.losses.multi_scale_loss import MultiScaleLoss
from stochastic_refine.losses.psnr_loss import PSNRLoss

SHARP = torch.linspace(0, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)


def test_psnr_is_taken_per_image_and_then_averaged():
    errors = torch.tensor([0.1, 0.2]).view(2, 1, 1, 1)
    expected = (-20 + 10 * math.log10(0.04)) / 2
    assert PSNRLoss()(SHARP + errors, SHARP).item() == pytest.approx(expected, abs=1e-4)


def test_psnr_of_a_perfect_output_is_finite_and_stages_are_summed():
    assert PSNRLoss(loss_weight=0.5)([SHARP, SHARP + 0.1], SHARP).item() == pytest.approx(0.5 * (-80 - 20), abs=1e-4)


def test_psnr_has_no_other_reduction():
    with pytest.raises(ValueError, match="'sum'"):
        PSNRLoss(reduction='sum')


def test_edges_of_a_constant_lie_at_the_borders_only():
    # One dimension, 8 pixels of 1: zero-inserted and doubled 2 0 2 0 2 0 2 0, filtered with the last pixel repeated.
    rebuilt = torch.tensor([1.5, 1.1, 1, 1, 1, 1, 0.9, 0.5])
    laplacian = 0.3 * (1 - torch.outer(rebuilt, rebuilt))
    expected = (laplacian**2 + 1e-6).sqrt().mean().item()
    assert EdgeLoss()(SHARP + 0.3, SHARP).item() == pytest.approx(expected, rel=1e-4)


def test_edges_of_one_channel_do_not_reach_another():
    blurry = SHARP.clone()
    blurry[:, 1] += 0.3
    loss = EdgeLoss(eps=0.0)
    assert loss(blurry, SHARP).item() == pytest.approx(loss(SHARP + 0.3, SHARP).item() / 3, rel=1e-3)


def test_charbonnier_edge_loss_adds_up_terms_and_stages():
    edges = EdgeLoss()(SHARP + 0.3, SHARP).item()
    per_stage = math.sqrt(0.3**2 + 1e-6) + 0.05 * edges
    loss = CharbonnierEdgeLoss(loss_weight=2.0)
    assert loss(SHARP + 0.3, SHARP).item() == pytest.approx(2 * per_stage, rel=1e-5)
    assert loss([SHARP, SHARP + 0.3], SHARP).item() == pytest.approx(2 * (1.05e-3 + per_stage), rel=1e-5)


def test_spectrum_is_two_sided_and_not_normalised():
    # A constant has one number other than zero, 64 times itself, among 2 x 64; an impulse is real and equal everywhere.
    assert MultiScaleLoss()(SHARP + 0.2, SHARP).item() == pytest.approx(0.2 + 0.1 * 0.2 / 2, rel=1e-4)
    impulse = SHARP.clone()
    impulse[..., 0, 0] -= 0.2
    expected = 3 * (0.2 / 64 + 0.5 * 0.2 / 2)
    assert MultiScaleLoss(loss_weight=3.0, fft_weight=0.5)(impulse, SHARP).item() == pytest.approx(expected, rel=1e-3)


def test_targets_are_downscaled_bilinearly():
    ramp = torch.arange(8.0).expand(1, 3, 8, 8)
    half = (2 * torch.arange(4.0) + 0.5).expand(1, 3, 4, 4)
    quarter = (4 * torch.arange(2.0) + 1.5).expand(1, 3, 2, 2)
    assert MultiScaleLoss()([quarter, half, ramp], ramp).item() == pytest.approx(0, abs=1e-5)
    assert MultiScaleLoss()([quarter + 1, half - 1, ramp], ramp).item() == pytest.approx(2 * 1.05, rel=1e-5)
