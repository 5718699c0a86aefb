"""Every sampler against a posterior in closed form: its mean, its variance, and how often the truth is in its intervals.

x ~ N(0, 1), y = x + e, e ~ N(0, 1/4), so x given y is N(0.8 y, 0.2). The initial prediction y / 2 leaves the residual
r = x - y / 2 given y ~ N(0.3 y, 0.2), whose mean depends on y: the ideal network must be told it, as a trained one is.
"""

from __future__ import annotations

import pytest
import torch
from scipy.stats import t as student
from torch import Tensor

from stochastic_refine.diffusion import FLOW_SAMPLERS, SAMPLERS, FlowSchedule, NoiseSchedule

PHOTOS, SAMPLES, VARIANCE = 2000, 32, 0.2
DIFFUSION = {'ancestral': {}, 'ddim': {}, 'ddim, eta 0.5': {'eta': 0.5}, 'dpmpp_2m': {}, 'dpmpp_2m, eta 1': {'eta': 1.0}}


def drawn(name: str, residual_mean: Tensor, generator: torch.Generator) -> Tensor:
    """Samples of r, (PHOTOS, SAMPLES), by the ideal network for residuals N(residual_mean, VARIANCE)."""
    def noise() -> Tensor:
        return torch.randn(PHOTOS, SAMPLES, generator=generator, dtype=torch.float64)

    def predict(state: Tensor, time: float) -> Tensor:
        """E[r | z_t] of z_t = (1 - t) z_0 + t r, z_0 ~ N(0, 0.1^2)."""
        gain = time * VARIANCE / ((1 - time)**2 * 0.1**2 + time**2 * VARIANCE)
        return residual_mean + gain * (state - time * residual_mean)

    def denoise(state: Tensor, level: float) -> Tensor:
        """E[eps | r_t] of r_t = level r + sqrt(1 - level^2) eps."""
        return (1 - level**2)**0.5 * (state - level * residual_mean) / (level**2 * VARIANCE + 1 - level**2)

    sampler = SAMPLERS[name.partition(',')[0]]
    if name in FLOW_SAMPLERS:
        return sampler(predict, 0.1 * noise(), FlowSchedule.even(200), noise)
    return sampler(denoise, noise(), NoiseSchedule.linear(400, 1e-6, 0.05), noise, **DIFFUSION[name])


def test_no_sampler_is_left_out() -> None:
    assert {name.partition(',')[0] for name in DIFFUSION} | set(FLOW_SAMPLERS) == set(SAMPLERS)


@pytest.mark.parametrize('name', [*DIFFUSION, *FLOW_SAMPLERS])
def test_mean_variance_and_coverage_of_the_posterior(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, error = torch.randn(2, PHOTOS, 1, generator=generator, dtype=torch.float64)
    y = x + error / 2
    samples = y / 2 + drawn(name, 0.3 * y, generator)
    mean, std = samples.mean(1), samples.std(1)
    assert (mean - 0.8 * y[:, 0]).mean().abs() < 0.01
    assert torch.corrcoef(torch.stack([mean, y[:, 0]]))[0, 1] > 0.99
    # Four standard errors of 64000 samples are 2.2 %; the rest is discretisation, which halves when the steps double.
    assert ((samples - 0.8 * y)**2).mean() == pytest.approx(VARIANCE, rel=0.05)
    for level in (0.5, 0.9):
        half = student.ppf((1 + level) / 2, SAMPLES - 1) * (1 + 1 / SAMPLES)**0.5 * std
        inside = ((x[:, 0] - mean).abs() <= half).double().mean()
        assert inside == pytest.approx(level, abs=0.045)  # four standard errors of 2000 truths
