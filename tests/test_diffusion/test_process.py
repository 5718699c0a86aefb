"""The forward process against independent derivations."""

from __future__ import annotations

import math

import pytest
import torch

from stochastic_refine.diffusion import NoiseSchedule, eps_from_r0, forward_marginal, posterior, r0_from_eps


def test_marginal_is_the_chain_of_single_steps():
    """Moments of r_t after Eq. (1) step by step, r_t = sqrt(alpha_t) r_{t-1} + sqrt(1 - alpha_t) eps, are those of Eq. (2)."""
    schedule = NoiseSchedule.linear(7, 0.01, 0.4)
    mean, variance = 1.0, 0.0
    for alpha, alpha_bar in zip(schedule.alphas.tolist(), schedule.alpha_bars.tolist()):
        mean, variance = math.sqrt(alpha) * mean, alpha * variance + 1 - alpha
        one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        assert forward_marginal(one, zero, alpha_bar).item() == pytest.approx(mean, rel=1e-13)
        assert forward_marginal(zero, one, alpha_bar).item()**2 == pytest.approx(variance, rel=1e-13)


def test_marginal_statistics():
    generator = torch.Generator().manual_seed(0)
    n, alpha_bar, mean, std = 100_000, 0.3, 0.4, 0.5
    r0 = mean + std * torch.randn(n, generator=generator, dtype=torch.float64)
    r_t = forward_marginal(r0, torch.randn(n, generator=generator, dtype=torch.float64), alpha_bar)
    variance = alpha_bar * std**2 + 1 - alpha_bar
    assert abs(r_t.mean().item() - math.sqrt(alpha_bar) * mean) < 4 * math.sqrt(variance / n)
    assert abs(r_t.var().item() - variance) < 4 * variance * math.sqrt(2 / n)


@pytest.mark.parametrize('alpha_bar', [1e-4, 0.5, 1 - 1e-6, torch.tensor([0.02, 0.7, 0.999]).double()[:, None, None, None]])
def test_round_trips(alpha_bar):
    generator = torch.Generator().manual_seed(1)
    r0, eps = torch.randn(2, 3, 2, 4, 5, generator=generator, dtype=torch.float64)
    r_t = forward_marginal(r0, eps, alpha_bar)
    torch.testing.assert_close(r0_from_eps(r_t, eps, alpha_bar), r0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(eps_from_r0(r_t, r0, alpha_bar), eps, rtol=1e-9, atol=1e-9)


def bayes_posterior(alpha: float, alpha_bar_prev: float) -> tuple[float, float, float]:
    """q(r_{t-1} | r_t, r0) by completing the square: the prior N(sqrt(alpha_bar_prev) r0, 1 - alpha_bar_prev) times the
    likelihood N(r_t; sqrt(alpha) r_{t-1}, 1 - alpha)."""
    precision = 1 / (1 - alpha_bar_prev) + alpha / (1 - alpha)
    weights = math.sqrt(alpha_bar_prev) / (1 - alpha_bar_prev), math.sqrt(alpha) / (1 - alpha)
    return weights[0] / precision, weights[1] / precision, 1 / precision


@pytest.mark.parametrize('schedule', [NoiseSchedule.linear(6, 0.05, 0.5), NoiseSchedule.linear(50, 1e-4, 0.02)])
def test_posterior_is_the_product_of_prior_and_likelihood(schedule):
    alphas, alpha_bars = schedule.alphas.tolist(), schedule.alpha_bars.tolist()
    for i in range(1, schedule.steps):
        expected = bayes_posterior(alphas[i], alpha_bars[i - 1])
        assert posterior(alphas[i], alpha_bars[i], alpha_bars[i - 1]) == pytest.approx(expected, rel=1e-10)


def test_posterior_of_the_last_step_is_r0_itself():
    assert posterior(0.9, 0.9, 1.0) == (1.0, 0.0, 0.0)
