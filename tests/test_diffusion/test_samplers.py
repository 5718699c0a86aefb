"""Samplers against closed forms: one step by Bayes' rule, whole chains on a Gaussian, the order of the ODE solvers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stochastic_refine.diffusion import SAMPLERS, NoiseSchedule, SampleNoise, ancestral, ddim, dpmpp_2m, eps_from_r0

# The target r0 ~ N(MEAN, COV), three-dimensional with correlations; standard deviations 0.5, 0.3 and 0.2.
MEAN = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
COV = torch.tensor([[0.25, 0.09, -0.04], [0.09, 0.09, 0.01], [-0.04, 0.01, 0.04]], dtype=torch.float64)
EYE = torch.eye(3, dtype=torch.float64)

STOCHASTIC = {'ancestral': (ancestral, {}), 'ddim, eta 1': (ddim, {'eta': 1.0}), 'ddim, eta 0.5': (ddim, {'eta': 0.5})}
DETERMINISTIC = {'ddim': (ddim, {}), 'dpmpp_2m': (dpmpp_2m, {})}
stochastic = pytest.mark.parametrize('sampler, options', STOCHASTIC.values(), ids=STOCHASTIC)
deterministic = pytest.mark.parametrize('sampler, options', DETERMINISTIC.values(), ids=DETERMINISTIC)
any_sampler = pytest.mark.parametrize(
    'sampler, options', [*STOCHASTIC.values(), *DETERMINISTIC.values()], ids=[*STOCHASTIC, *DETERMINISTIC])


def gaussian_denoise(r_t: Tensor, noise_level: float) -> Tensor:
    """E[eps | r_t] for the Gaussian target, by the regression of eps on r_t; (B, 3)."""
    marginal = noise_level**2 * COV + (1 - noise_level**2) * EYE
    return math.sqrt(1 - noise_level**2) * torch.linalg.solve(marginal, (r_t - noise_level * MEAN).T).T


def wavy_denoise(r_t: Tensor, noise_level: float) -> Tensor:
    """A nonlinear denoiser of no meaning."""
    return torch.sin(3 * r_t) + noise_level * r_t


def no_noise() -> Tensor:
    raise AssertionError('a deterministic sampler drew noise')


def recording(denoise: Callable, states: list[Tensor]) -> Callable:
    """``denoise`` that also notes the state r_t at every level it is asked about."""

    def wrapped(r_t: Tensor, noise_level: float) -> Tensor:
        states.append(r_t)
        return denoise(r_t, noise_level)

    return wrapped


def levels_schedule(alpha_bars: Tensor) -> NoiseSchedule:
    """The schedule that visits these falling alpha-bars."""
    return NoiseSchedule(1 - alpha_bars / torch.cat([torch.ones(1, dtype=torch.float64), alpha_bars[:-1]]))


def log_snr_schedule(lowest: float, highest: float, intervals: int) -> NoiseSchedule:
    """Equal steps of lambda = log(sqrt(alpha_bar) / sqrt(1 - alpha_bar)) from ``lowest`` (t = T) to ``highest`` (t = 1)."""
    return levels_schedule(torch.sigmoid(2 * torch.linspace(highest, lowest, intervals + 1, dtype=torch.float64)))


def bayes_step(alpha: float, alpha_bar_prev: float) -> tuple[float, float, float]:
    """(c_0, c_t, variance) of q(r_{t-1} | r_t, r0): prior N(sqrt(alpha_bar_prev) r0, 1 - alpha_bar_prev) times likelihood."""
    if alpha_bar_prev == 1:
        return 1.0, 0.0, 0.0
    precision = 1 / (1 - alpha_bar_prev) + alpha / (1 - alpha)
    weights = math.sqrt(alpha_bar_prev) / (1 - alpha_bar_prev), math.sqrt(alpha) / (1 - alpha)
    return weights[0] / precision, weights[1] / precision, 1 / precision


def expected_moments(schedule: NoiseSchedule, eta: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of a sampler's output on the Gaussian target, by carrying those of r_t through its affine steps.

    A step of DDIM keeps the marginal of r_{t-1} given r0 and draws ``eta**2`` times the variance of Bayes' rule.
    """
    mean, cov = torch.zeros(3, dtype=torch.float64), EYE
    levels = [1.0, *schedule.alpha_bars.tolist()]
    for t in range(schedule.steps, 0, -1):
        alpha_bar, prev = levels[t], levels[t - 1]
        variance = eta**2 * bayes_step(alpha_bar / prev, prev)[2]
        gain = math.sqrt(alpha_bar) * torch.linalg.solve(alpha_bar * COV + (1 - alpha_bar) * EYE, COV).T  # of E[r0 | r_t]
        keep = math.sqrt((1 - prev - variance) / (1 - alpha_bar))  # the share of r_t - sqrt(alpha_bar) r0 that stays
        step = math.sqrt(prev) * gain + keep * (EYE - math.sqrt(alpha_bar) * gain)
        mean = math.sqrt(prev) * MEAN + step @ (mean - math.sqrt(alpha_bar) * MEAN)
        cov = step @ cov @ step.T + variance * EYE
    return mean, cov


def exact_moments(sampler: Callable, schedule: NoiseSchedule, options: dict[str, float]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of what ``sampler`` really does on the Gaussian target, free of Monte-Carlo error.

    With this denoiser the output is affine in all noises, so the batch holds zero noise and one unit impulse per noise value.
    """
    draws = 0

    def impulse() -> Tensor:
        nonlocal draws
        noise = torch.zeros(1 + 3 * schedule.steps, 3, dtype=torch.float64)
        noise[1 + 3 * draws:4 + 3 * draws] = EYE
        draws += 1
        return noise

    out = sampler(gaussian_denoise, impulse(), schedule, impulse, **options)
    response = out[1:] - out[0]
    return out[0], response.T @ response


def flow_solution(r_t: Tensor, alpha_bar: float, alpha_bar_end: float) -> Tensor:
    """The probability-flow ODE on the Gaussian target, in closed form; per axis of COV the flow only shifts and scales."""

    def scale(level: float) -> Tensor:
        return (level * values + 1 - level).sqrt()

    values, vectors = torch.linalg.eigh(COV)
    along_axes = (r_t - math.sqrt(alpha_bar) * MEAN) @ vectors
    return math.sqrt(alpha_bar_end) * MEAN + along_axes * scale(alpha_bar_end) / scale(alpha_bar) @ vectors.T


def test_one_ancestral_step_has_the_mean_and_the_variance_of_bayes_rule():
    schedule = NoiseSchedule(torch.tensor([0.1, 0.3, 0.2]))
    alpha_bars = schedule.alpha_bars.tolist()
    r0, r_3 = torch.tensor([[0.7], [-0.4]], dtype=torch.float64), torch.tensor([[1.5], [0.2]], dtype=torch.float64)
    states: dict[float, list[Tensor]] = {}
    for z in (0.0, 1.0):
        # eps is such that the estimate of r0 is r0 at every step
        levels = iter(reversed(alpha_bars))
        states[z] = []
        denoise = recording(lambda r_t, _, levels=levels: eps_from_r0(r_t, r0, next(levels)), states[z])
        ancestral(denoise, r_3, schedule, lambda z=z: z)
    c_0, c_t, variance = bayes_step(0.8, 0.9 * 0.7)
    torch.testing.assert_close(states[0.0][1], c_0 * r0 + c_t * r_3, rtol=1e-6, atol=1e-7)  # betas come from float32
    torch.testing.assert_close(states[1.0][1] - states[0.0][1], torch.full_like(r0, math.sqrt(variance)), rtol=1e-6, atol=0)


@pytest.mark.parametrize('schedule', [
    NoiseSchedule.linear(1, final_variance=0.3), NoiseSchedule.linear(10, 1e-6, 0.01), NoiseSchedule.linear(30, 1e-6, 0.5),
    log_snr_schedule(-3, 3, 40)
], ids=['1 step', '10 weak steps', '30 strong steps', 'log-SNR'])
@pytest.mark.parametrize('name, eta', [('ancestral', 1.0), ('ddim, eta 1', 1.0), ('ddim, eta 0.5', 0.5), ('ddim', 0.0)])
def test_moments_follow_the_linear_recursion(name, eta, schedule):
    sampler, options = {**STOCHASTIC, **DETERMINISTIC}[name]
    torch.testing.assert_close(
        exact_moments(sampler, schedule, options), expected_moments(schedule, eta), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize('schedule', [NoiseSchedule.linear(1000, 1e-6, 0.02), log_snr_schedule(-5, 5, 400)],
                         ids=['linear', 'log-SNR'])
@any_sampler
def test_many_steps_recover_the_target(sampler, options, schedule):
    """On schedules that differ from training's. What is left is discretisation: it halves when the steps double."""
    mean, cov = exact_moments(sampler, schedule, options)
    std = COV.diagonal().sqrt()
    assert ((mean - MEAN).abs() / std).max() < 0.02
    assert ((cov - COV).abs() / torch.outer(std, std)).max() < 0.04


@stochastic
def test_drawn_samples_have_the_exact_moments(sampler, options):
    """With noise as drawn in use; bounds are 4.5 standard errors of the mean and of the covariance."""
    n, schedule = 20_000, NoiseSchedule.linear(30, 1e-6, 0.5)
    noise = SampleNoise([3], (n, 3))
    samples = sampler(gaussian_denoise, noise()[0].double(), schedule, lambda: noise()[0].double(), **options)
    mean, cov = expected_moments(schedule, options.get('eta', 1.0))
    variances = cov.diagonal()
    assert ((samples.mean(0) - mean).abs() / (variances / n).sqrt()).max() < 4.5
    error = ((torch.outer(variances, variances) + cov**2) / n).sqrt()
    assert ((samples.T.cov() - cov).abs() / error).max() < 4.5


def test_ddim_with_eta_1_is_ancestral_on_the_same_noise():
    schedule = NoiseSchedule.linear(25, 1e-6, 0.2)
    r_T, *steps = torch.randn(25, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outputs = [SAMPLERS[name](wavy_denoise, r_T, schedule, iter(steps).__next__, **options)
               for name, options in (('ancestral', {}), ('ddim', {'eta': 1.0}))]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)


@stochastic
def test_every_step_but_the_last_draws_noise_once(sampler, options):
    draws = []
    sampler(wavy_denoise, torch.zeros(1, 3), NoiseSchedule.linear(6, 0.01, 0.3), lambda: draws.append(0) or torch.zeros(1, 3),
            **options)
    assert len(draws) == 5


@deterministic
def test_deterministic_samplers_draw_no_noise(sampler, options):
    sampler(wavy_denoise, torch.ones(1, 3), NoiseSchedule.linear(6, 0.01, 0.3), no_noise, **options)


@any_sampler
def test_a_constraint_replaces_the_estimate_in_every_term(sampler, options):
    """A wrong denoiser that is constrained to the right r0 walks through the same states as the right denoiser."""
    schedule, r0 = NoiseSchedule.linear(6, 0.01, 0.3), torch.full((1, 3), 0.7, dtype=torch.float64)
    r_T = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    constrained, right = [], []
    outputs = [
        sampler(recording(wavy_denoise, constrained), r_T, schedule, lambda: EYE[:1], constrain=lambda _: r0, **options),
        sampler(recording(lambda r_t, level: eps_from_r0(r_t, r0, level**2), right), r_T, schedule, lambda: EYE[:1], **options)
    ]
    assert len(right) == schedule.steps
    torch.testing.assert_close(constrained, right, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)


MEANS, STDS = torch.tensor([[-1.0, 0.8], [0.3, 0.5]], dtype=torch.float64)  # of two equal Gaussians


def mixture_denoise(r_t: Tensor, noise_level: float) -> Tensor:
    """E[eps | r_t] for a one-dimensional mixture of two Gaussians, by Bayes' rule; (N, 1)."""
    variances = noise_level**2 * STDS**2 + 1 - noise_level**2
    offsets = r_t - noise_level * MEANS
    posterior = torch.softmax(-offsets**2 / (2 * variances) - variances.log() / 2, dim=1)
    return math.sqrt(1 - noise_level**2) * (posterior * offsets / variances).sum(1, keepdim=True)


def mixture_share_below(r_t: Tensor, alpha_bar: float) -> Tensor:
    """The distribution function of the mixture at a level; (N, 1). In one dimension the flow keeps it along its paths."""
    stds = (alpha_bar * STDS**2 + 1 - alpha_bar).sqrt()
    return torch.special.ndtr((r_t - math.sqrt(alpha_bar) * MEANS) / stds).mean(1, keepdim=True)


def gaussian_error(r_T: Tensor, alpha_bar: float, r_end: Tensor, alpha_bar_end: float) -> Tensor:
    return r_end - flow_solution(r_T, alpha_bar, alpha_bar_end)


def mixture_error(r_T: Tensor, alpha_bar: float, r_end: Tensor, alpha_bar_end: float) -> Tensor:
    return mixture_share_below(r_end, alpha_bar_end) - mixture_share_below(r_T, alpha_bar)


TARGETS = {'Gaussian': (gaussian_denoise, 3, gaussian_error), 'mixture': (mixture_denoise, 1, mixture_error)}
#: Steps in lambda: the share of the way at equal steps of u.
GRIDS = {'equal': lambda u: u, 'growing': lambda u: 0.2 * u + 0.8 * u**2, 'shortening': lambda u: 1.8 * u - 0.8 * u**2}


@pytest.mark.parametrize('sampler, order', [(ddim, 1), (dpmpp_2m, 2)])
@pytest.mark.parametrize('target', TARGETS)
@pytest.mark.parametrize('grid', GRIDS)
def test_order_of_convergence(sampler, order, target, grid):
    """Against the exact flow, linear and not, at the interior level lambda = 1, which is where the denoiser is asked last."""
    denoise, channels, error = TARGETS[target]
    r_T = torch.randn(5, channels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = []
    for intervals in (50, 100, 200, 400):
        way = GRIDS[grid](torch.linspace(0, 1, intervals + 1, dtype=torch.float64))
        schedule = levels_schedule(torch.sigmoid(2 * (-3 + 4 * way)).flip(0))
        states: list[Tensor] = []
        sampler(recording(denoise, states), r_T, schedule, no_noise)
        levels = schedule.alpha_bars.tolist()
        errors.append(error(r_T, levels[-1], states[-1], levels[0]).norm().item())
    observed = [math.log2(coarse / fine) for coarse, fine in zip(errors, errors[1:])]
    assert observed == pytest.approx([order] * 3, abs=0.15)


def test_dpmpp_2m_equals_ddim_where_it_has_no_history():
    """Its first step, from T to T - 1, and its last one, to alpha_bar = 1, are of first order, and so is DDIM."""
    r_T = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    for steps in (1, 2):
        schedule = NoiseSchedule.linear(steps, 0.1, 0.4)
        outputs = [sampler(wavy_denoise, r_T, schedule, no_noise) for sampler in (dpmpp_2m, ddim)]
        torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)


def test_stochastic_dpmpp_2m_equals_ancestral_where_it_has_no_history():
    """With eta = 1 a step of first order is Bayes' rule itself."""
    r_T = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    schedule = NoiseSchedule.linear(2, 0.1, 0.4)
    fresh = torch.tensor([[0.3, 1.7, -0.2]], dtype=torch.float64)
    outputs = [sampler(wavy_denoise, r_T, schedule, fresh.clone, **options)
               for sampler, options in ((dpmpp_2m, {'eta': 1.0}), (ancestral, {}))]
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('eta', [0.0, 0.5, 1.0])
def test_dpmpp_2m_keeps_the_marginal_for_every_eta(eta):
    """For a target that is one point, r_t = sqrt(alpha_bar) r0 + sqrt(1 - alpha_bar) e with old and fresh noise in e."""
    point, schedule = 0.7, NoiseSchedule.linear(5, 1e-3, 0.6)
    levels, states = schedule.alpha_bars.tolist(), []

    def denoise(r_t: Tensor, noise_level: float) -> Tensor:
        return eps_from_r0(r_t, torch.tensor(point, dtype=torch.float64), noise_level**2)

    axes = torch.eye(5, dtype=torch.float64)  # r_T's noise and the four fresh ones, told apart
    draws = iter(axes[1:])
    dpmpp_2m(recording(denoise, states), (levels[-1]**0.5 * point + (1 - levels[-1])**0.5 * axes[0])[None], schedule,
             lambda: next(draws)[None], eta=eta)
    for state, alpha_bar in zip(states, levels[::-1]):
        noise = state[0] - alpha_bar**0.5 * point
        assert noise.norm().item() == pytest.approx((1 - alpha_bar)**0.5, rel=1e-9)
    assert (noise[1:].norm() > 0.1 * noise.norm()) == (eta > 0)


@pytest.mark.parametrize('h_1, h_2, weight', [(1.0, 0.5, 0.25), (0.5, 0.5, 0.5), (0.5, 1.5, 0.5)],
                         ids=['shortening', 'equal', 'growing, held'])
def test_dpmpp_2m_weight_of_the_extrapolation(h_1, h_2, weight):
    """Algorithm 2 of Lu et al.: D = (1 + w) D_1 - w D_0 with w = h_2 / (2 h_1), held at 1/2 where steps grow."""
    lambdas = torch.tensor([-1.0, -1.0 + h_1, -1.0 + h_1 + h_2], dtype=torch.float64)
    alpha_bars = torch.sigmoid(2 * lambdas)
    estimates, states = [0.3, 0.8, 0.0], []

    def denoise(r_t: Tensor, noise_level: float) -> Tensor:
        return eps_from_r0(r_t, torch.tensor(estimates[len(states) - 1]), noise_level**2)

    dpmpp_2m(recording(denoise, states), torch.ones(1, dtype=torch.float64), levels_schedule(alpha_bars.flip(0)), no_noise)
    data = (1 + weight) * 0.8 - weight * 0.3
    ratio = ((1 - alpha_bars[2]) / (1 - alpha_bars[1])).sqrt()
    expected = ratio * states[1] + alpha_bars[2].sqrt() * (1 - math.exp(-h_2)) * data
    torch.testing.assert_close(states[2], expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize('steps', [10, 20, 50])
def test_dpmpp_2m_beats_ddim_on_the_papers_schedules(steps):
    """Their last step but one leaps in log-SNR; the published weight errs there more than DDIM does."""
    schedule = NoiseSchedule.linear(steps, 1e-6, 0.02)
    r_T = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = flow_solution(r_T, schedule.alpha_bars[-1].item(), 1.0)
    error_2m, error_ddim = (
        (sampler(gaussian_denoise, r_T, schedule, no_noise) - exact).norm().item() for sampler in (dpmpp_2m, ddim))
    assert error_2m < 0.5 * error_ddim


def test_sample_noise_depends_on_each_seed_alone():
    batch = SampleNoise([5, 0, 5], (2, 3))
    first, second = batch(), batch()
    assert first.shape == (3, 2, 3)
    assert first.dtype == torch.float32
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    assert torch.equal(first[1], torch.randn(2, 3, generator=torch.Generator().manual_seed(0)))
    alone = SampleNoise([0], (2, 3))
    torch.rand(7)  # the global generator plays no part
    assert torch.equal(torch.cat([alone(), alone()]), torch.stack([first[1], second[1]]))
