"""Progressive distillation against closed forms: a target that is reached in one step is where the teacher's steps lead."""

from __future__ import annotations

import pytest
import torch
from test_samplers import gaussian_denoise, no_noise, wavy_denoise
from torch import Tensor

from stochastic_refine.diffusion import NoiseSchedule, ddim, distillation_target, eps_from_r0, r0_from_eps, refine, student_r0

SCHEDULE = NoiseSchedule.linear(8, 1e-6, 0.5)
LEVELS = torch.cat([torch.ones(1, dtype=torch.float64), SCHEDULE.alpha_bars])


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pixels(denoise):
    """``denoise`` of vectors (N, 3) for images (B, 3, H, W) with a level for each."""

    def wrapped(r_t: Tensor, noise_level: Tensor) -> Tensor:
        return torch.stack([denoise(image.flatten(1).T, level.item()).T.view_as(image)
                            for image, level in zip(r_t, noise_level)])

    return wrapped


def step(r_t: Tensor, r0: Tensor, alpha_bar: float, alpha_bar_end: float) -> Tensor:
    """DDIM, Eq. (12), with eta = 0."""
    return alpha_bar_end**0.5 * r0 + (1 - alpha_bar_end)**0.5 * eps_from_r0(r_t, r0, alpha_bar)


@pytest.mark.parametrize('denoise', [gaussian_denoise, wavy_denoise], ids=['Gaussian', 'nonlinear'])
@pytest.mark.parametrize('stride', [1, 2, 4, 8])
def test_one_step_with_the_target_ends_where_the_teachers_steps_end(denoise, stride):
    starts = torch.arange(stride, 9, stride)
    levels = LEVELS[starts[:, None] - torch.arange(stride + 1)]
    r_t = images(len(starts))
    target = student_r0(pixels(denoise), r_t, levels)
    for t, state, r0 in zip(starts.tolist(), r_t, target):
        end = state
        for here in range(t, t - stride, -1):
            a = LEVELS[here].item()
            end = step(end, r0_from_eps(end, pixels(denoise)(end[None], torch.tensor([a**0.5]).double())[0], a), a,
                       LEVELS[here - 1].item())
        reached = step(state, r0, LEVELS[t].item(), LEVELS[t - stride].item())
        torch.testing.assert_close(reached, end, rtol=1e-6, atol=1e-6)
        if t == stride:  # alpha_bar = 1 is reached by the estimate itself
            torch.testing.assert_close(r0, end, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('stride', [2, 4, 8])
def test_a_perfect_student_samples_what_its_teacher_samples(stride):
    """By the sampler that everyone uses, on the schedule that the operating point gives."""
    r_T, starts = images(1), iter(range(8, 0, -stride))

    def student(r_t: Tensor, noise_level: float) -> Tensor:
        t = next(starts)
        assert noise_level**2 == pytest.approx(LEVELS[t].item(), rel=1e-12)
        r0 = student_r0(pixels(wavy_denoise), r_t, LEVELS[t - torch.arange(stride + 1)][None])
        return eps_from_r0(r_t, r0, LEVELS[t].item())

    teachers = ddim(lambda r, level: pixels(wavy_denoise)(r, torch.tensor([level]).double()), r_T, SCHEDULE, no_noise)
    students = ddim(student, r_T, SCHEDULE.every(stride), no_noise)
    torch.testing.assert_close(students, teachers, rtol=1e-6, atol=1e-6)
    assert next(starts, None) is None


def test_a_constrained_teacher_has_targets_within_the_constraint():
    levels = LEVELS[torch.tensor([[8], [4]]) - torch.arange(5)]
    free, held = (student_r0(pixels(wavy_denoise), images(2), levels, constrain=constrain)
                  for constrain in (None, lambda r0: r0.clamp(-0.1, 0.1)))
    assert free.abs().max() > 1
    assert 0 < held.abs().max() <= 0.1 + 1e-9


# ---------------------------------------------------------------- the training draw


def draw(denoise, stride=2, count=64, clamp=False):
    generator = torch.Generator().manual_seed(5)
    gt, initial = torch.rand(2, count, 3, 4, 4, generator=generator)
    return gt, initial, distillation_target(denoise, gt, initial, SCHEDULE, stride, clamp, 4.0, generator)


def test_states_lie_where_sampling_passes():
    """At alpha_bar_T noise alone; elsewhere Eq. (2), so that what is left of a state without its residual is normal noise."""
    gt, initial, (r_t, noise_level, _, _) = draw(lambda r_t, level: torch.zeros_like(r_t))
    levels = SCHEDULE.every(2).alpha_bars.sqrt().float()
    assert sorted(set(noise_level.tolist())) == pytest.approx(sorted(levels.tolist()))
    signal = noise_level[:, None, None, None]
    noise = (r_t - signal * 8 * (gt - initial)) / (1 - signal**2).sqrt()
    noise = torch.where(signal == levels[-1], r_t, noise)
    for level in levels:
        part = noise[noise_level == level]
        assert part.mean().abs() < 4.5 / part.numel()**0.5
        assert part.var().item() == pytest.approx(1, abs=4.5 * (2 / part.numel())**0.5)


def test_weighted_noise_error_is_that_of_r0_under_the_truncated_snr():
    _, _, (r_t, noise_level, eps, weight) = draw(lambda r_t, level: torch.sin(r_t))
    prediction = eps + torch.randn(eps.shape, generator=torch.Generator().manual_seed(1))
    alpha_bar = noise_level[:, None, None, None].double()**2
    r0_error = r0_from_eps(r_t, prediction, alpha_bar) - r0_from_eps(r_t, eps, alpha_bar)
    snr = alpha_bar / (1 - alpha_bar)
    torch.testing.assert_close((weight * (prediction - eps)).double()**2, snr.clamp(min=1) * r0_error**2, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('clamp', [True, False])
def test_the_target_is_the_teachers_whole_sampling_where_one_step_replaces_it(clamp):
    """The draw against the sampler: same scale and clamp."""

    def denoise(r_t: Tensor, noise_level: Tensor | float) -> Tensor:
        return torch.sin(r_t) + 0.2 * torch.as_tensor(noise_level).view(-1, 1, 1, 1)

    _, initial, (r_t, _, eps, _) = draw(denoise, stride=8, count=4, clamp=clamp)
    expected = refine(denoise, initial, SCHEDULE, lambda: r_t, 'ddim', clamp=clamp, residual_scale=4.0)
    image = initial + r0_from_eps(r_t, eps, SCHEDULE.alpha_bars[-1].item()) / 8
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-5)
