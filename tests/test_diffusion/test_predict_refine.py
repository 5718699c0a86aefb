"""The residual target of training and Algorithm 1 around the samplers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stochastic_refine.diffusion import (
    DIFFUSION_SAMPLERS,
    NoiseSchedule,
    SampleNoise,
    conditioning,
    predict_refine_target,
    refine,
)

SCHEDULE = NoiseSchedule.linear(12, 1e-4, 0.4)
with_and_without_predictor = pytest.mark.parametrize('predictor', [True, False], ids=['predictor', 'no predictor'])
every_sampler = pytest.mark.parametrize('sampler', sorted(DIFFUSION_SAMPLERS))


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def oracle(residual: Tensor) -> Callable[[Tensor, float], Tensor]:
    """The perfect denoiser for a known residual."""
    return lambda r_t, noise_level: (r_t - noise_level * residual) / math.sqrt(1 - noise_level**2)


def elementary(lq: Tensor) -> Callable[[Tensor, float], Tensor]:
    """A denoiser that treats each sample alike, and exactly so whatever the batch."""
    condition = conditioning(lq)
    return lambda r_t, noise_level: 0.5 * r_t + 0.25 * noise_level * condition


@every_sampler
@pytest.mark.parametrize('clamp', [False, True])
@pytest.mark.parametrize('scale', [1.0, 4.0])
@with_and_without_predictor
def test_a_perfect_denoiser_restores_exactly(predictor, scale, clamp, sampler):
    gt, initial = images(2, 2, 3, 4, 4).double()
    residual = 2 * scale * (gt - initial) if predictor else scale * (2 * gt - 1)
    noise = SampleNoise([0, 1], (3, 4, 4))
    restored = refine(oracle(residual), initial if predictor else None, SCHEDULE, lambda: noise().double(), sampler,
                      clamp=clamp, residual_scale=scale)
    torch.testing.assert_close(restored, gt, rtol=0, atol=1e-9)


@pytest.mark.parametrize('scale', [1.0, 4.0])
@with_and_without_predictor
def test_samples_follow_the_posterior_given_the_blurry_image(predictor, scale):
    """x0 | y ~ N(0.2 + 0.6 y, 0.1^2) per pixel, whatever the predictor says; bounds are 4.5 standard errors.

    The solver of second order is used because its discretisation does not show here; other samplers have tests of their own.
    """
    schedule = NoiseSchedule.linear(200, 1e-5, 0.1)
    lq = torch.tensor([0.1, 0.9]).view(2, 1, 1, 1).expand(2, 3, 40, 40)
    initial = lq + 0.05 if predictor else None

    def denoise(r_t: Tensor, a: float) -> Tensor:
        mean = 2 * scale * (0.2 + 0.6 * lq - (lq + 0.05)) if predictor else scale * (2 * (0.2 + 0.6 * lq) - 1)
        return (1 - a**2)**0.5 * (r_t - a * mean) / (a**2 * (2 * scale * 0.1)**2 + 1 - a**2)

    samples = refine(denoise, initial, schedule, SampleNoise([0, 1], (3, 40, 40)), 'dpmpp_2m',
                     residual_scale=scale).flatten(1)
    n = samples.shape[1]
    for sample, mean in zip(samples, (0.26, 0.74)):
        assert abs(sample.mean().item() - mean) < 4.5 * 0.1 / math.sqrt(n)
        assert abs(sample.var().item() / 0.01 - 1) < 4.5 * math.sqrt(2 / n)


@every_sampler
@with_and_without_predictor
def test_clamp_keeps_the_image_in_range(predictor, sampler):
    initial = images(2, 3, 4, 4)

    def restore(clamp: bool) -> Tensor:
        return refine(lambda r_t, level: -2 * r_t, initial if predictor else None, SCHEDULE,
                      SampleNoise([0, 1], (3, 4, 4)), sampler, clamp=clamp, residual_scale=4.0)

    free, clamped = restore(False), restore(True)
    assert free.min() < -0.1
    assert free.max() > 1.1
    assert clamped.min() >= -1e-6
    assert clamped.max() <= 1 + 1e-6


@every_sampler
def test_a_seed_means_the_same_sample_whatever_the_batch(sampler):
    seeds = [0, 7, 11, 2**40]
    lq, initial = images(2, 4, 3, 4, 4)

    def restore(order: list[int]) -> Tensor:
        noise = SampleNoise([seeds[i] for i in order], (3, 4, 4))
        return refine(elementary(lq[order]), initial[order], SCHEDULE, noise, sampler)

    together = restore([0, 1, 2, 3])
    assert torch.equal(restore([2, 0, 3, 1]), together[[2, 0, 3, 1]])
    assert torch.equal(torch.cat([restore([i]) for i in range(4)]), together)
    same_image = refine(elementary(lq[:1]), None, SCHEDULE, SampleNoise([0, 1], (3, 4, 4)), sampler)
    assert not torch.equal(same_image[0], same_image[1])


@every_sampler
def test_samples_of_one_image_share_its_initial_prediction(sampler):
    initial = images(1, 3, 4, 4)
    shared, repeated = (
        refine(lambda r_t, level: 0.5 * r_t, of_batch, SCHEDULE, SampleNoise([0, 1], (3, 4, 4)), sampler, clamp=True)
        for of_batch in (initial, initial.repeat(2, 1, 1, 1)))
    assert torch.equal(shared, repeated)


@every_sampler
def test_samplers_ask_for_the_levels_that_they_announce_and_change_no_tensor_of_the_caller(sampler):
    """A denoiser may look its level up, keep what it was given, and return tensors that it keeps."""
    asked, given, noises = [], [], []

    def denoise(r_t: Tensor, noise_level: float) -> Tensor:
        asked.append(noise_level)
        given.append((r_t, r_t.clone()))
        return r_t

    def noise() -> Tensor:
        drawn = torch.randn(2, 3)
        noises.append((drawn, drawn.clone()))
        return drawn

    DIFFUSION_SAMPLERS[sampler](denoise, noise(), SCHEDULE, noise, **({'eta': 0.5} if sampler == 'ddim' else {}))
    assert asked == SCHEDULE.levels[::-1]
    assert SCHEDULE.levels == pytest.approx(SCHEDULE.alpha_bars.sqrt().tolist(), rel=1e-15)
    assert all(torch.equal(now, then) for now, then in given + noises)


def test_sampler_options_are_passed_on():
    lq = images(1, 3, 4, 4)
    runs = [refine(elementary(lq), lq, SCHEDULE, SampleNoise([0], (3, 4, 4)), name, **options)
            for name, options in (('ddim', {}), ('ddim', {'eta': 1.0}), ('ancestral', {}))]
    assert not torch.allclose(runs[0], runs[1], atol=1e-3)
    torch.testing.assert_close(runs[1], runs[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('scale', [1.0, 4.0])
@with_and_without_predictor
def test_target_is_made_of_the_residual_and_the_noise(predictor, scale):
    gt, initial = images(2, 64, 3, 4, 4)
    schedule = NoiseSchedule.linear(5, 0.05, 0.3)
    r_t, level, eps = predict_refine_target(
        gt, initial if predictor else None, schedule, scale, torch.Generator().manual_seed(0))
    assert r_t.dtype == level.dtype == eps.dtype == torch.float32
    assert level.shape == (64, )
    assert schedule.alpha_bars[-1].sqrt() <= level.min()
    assert level.max() <= 1
    assert level.unique().numel() == 64, 'each sample has a level of its own'
    residual = 2 * scale * (gt - initial) if predictor else scale * (2 * gt - 1)
    a = level.double()[:, None, None, None]
    torch.testing.assert_close(r_t.double(), a * residual + (1 - a**2).sqrt() * eps, rtol=0, atol=2e-6)
    assert abs(eps.mean()) < 4 / math.sqrt(eps.numel())
    assert abs(eps.var() - 1) < 4 * math.sqrt(2 / eps.numel())


def test_the_targets_noise_keeps_its_digits_near_a_level_of_1():
    """The training schedule's first levels differ from 1 by less than float32 resolves."""
    zeros = torch.zeros(16, 3, 4, 4)
    schedule = NoiseSchedule(torch.tensor([1e-9], dtype=torch.float64))
    r_t, _, eps = predict_refine_target(zeros, zeros, schedule, generator=torch.Generator().manual_seed(0))
    ratio = (r_t / eps).flatten(1)  # sqrt(1 - alpha_bar) of each sample
    assert ratio.min() > 0
    assert ratio.max() < math.sqrt(1e-9) * 1.000001
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-5, atol=0)


def test_gradient_reaches_the_initial_prediction():
    gt, initial = images(2, 4, 3, 4, 4)
    initial.requires_grad_()
    r_t, level, _ = predict_refine_target(gt, initial, SCHEDULE, 4.0, torch.Generator().manual_seed(0))
    r_t.sum().backward()
    torch.testing.assert_close(initial.grad, (-8 * level)[:, None, None, None].expand_as(gt))


def test_target_draws_follow_their_generator():
    gt, initial = images(2, 4, 3, 4, 4)
    first, again = (predict_refine_target(gt, initial, SCHEDULE, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    torch.manual_seed(0)
    unseeded = predict_refine_target(gt, initial, SCHEDULE)
    assert not torch.equal(unseeded[2], predict_refine_target(gt, initial, SCHEDULE)[2])
    torch.manual_seed(0)
    torch.testing.assert_close(unseeded, predict_refine_target(gt, initial, SCHEDULE), rtol=0, atol=0)
