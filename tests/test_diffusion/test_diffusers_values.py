"""Samplers against the values that diffusers' own scheduler tests publish.

Those tests walk a whole chain from a ramp of numbers, with a stand-in for a network that multiplies the state by t / (t + 1).
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stochastic_refine.diffusion import NoiseSchedule, ancestral, ddim, dpmpp_2m

#: Betas of both tests: 1000 training steps.
TRAINING = NoiseSchedule.linear(1000, 1e-4, 0.02)


def ramp() -> Tensor:
    """0 to 1 over 4 x 3 x 8 x 8 values, the last axis of the numbering being the batch."""
    return (torch.arange(768) / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)


def stand_in(steps: list[int]):
    """The network: it depends on the training step alone, which counts from 0 and falls."""
    left = iter(sorted(steps, reverse=True))

    def denoise(r_t: Tensor, noise_level: float) -> Tensor:
        t = next(left)
        assert noise_level == pytest.approx(TRAINING.levels[t])
        return r_t * t / (t + 1)

    return denoise


def test_ddpm_over_all_steps():
    """Estimates of the clean image clipped to [-1, 1], noise of the posterior's variance ('fixed small')."""
    generator = torch.Generator().manual_seed(0)
    out = ancestral(stand_in(list(range(1000))), ramp(), TRAINING, lambda: torch.randn(4, 3, 8, 8, generator=generator),
                    lambda r0: r0.clamp(-1, 1))
    assert out.abs().sum().item() == pytest.approx(258.9606, abs=0.01)  # float32 over 1000 steps; theirs allows as much
    assert out.abs().mean().item() == pytest.approx(0.3372, abs=1e-3)


def test_ddim_over_every_hundredth_step():
    steps = list(range(0, 1000, 100))
    alpha_bars = TRAINING.alpha_bars[steps]
    schedule = NoiseSchedule(1 - alpha_bars / torch.cat([torch.ones(1, dtype=torch.float64), alpha_bars[:-1]]))
    out = ddim(stand_in(steps), ramp(), schedule, lambda: pytest.fail('noise was drawn'), lambda r0: r0.clamp(-1, 1))
    assert out.abs().sum().item() == pytest.approx(172.0067, abs=0.01)
    assert out.abs().mean().item() == pytest.approx(0.223967, abs=1e-3)


@pytest.mark.parametrize('steps', [15, 40])
def test_dpm_solver_on_equal_steps_in_log_snr(steps):
    """Against diffusers' DPM-Solver++(2M) itself, where it is installed."""
    diffusers = pytest.importorskip('diffusers')
    theirs = diffusers.DPMSolverMultistepScheduler(1000, 1e-4, 0.02, 'linear', use_lu_lambdas=True, final_sigmas_type='zero')
    theirs.set_timesteps(steps)
    alpha_bars = 1 / (1 + theirs.sigmas[:-1].double().flip(0)**2)
    schedule = NoiseSchedule(1 - alpha_bars / torch.cat([torch.ones(1, dtype=torch.float64), alpha_bars[:-1]]))

    def denoise(x: Tensor, noise_level: float) -> Tensor:
        return torch.tanh(x) * (1 - noise_level**2)**0.5 + 0.1 * noise_level

    x = start = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for t, alpha_bar in zip(theirs.timesteps, alpha_bars.flip(0)):
        x = theirs.step(denoise(x, float(alpha_bar)**0.5), t, x).prev_sample
    ours = dpmpp_2m(denoise, start, schedule, lambda: pytest.fail('noise was drawn'))
    torch.testing.assert_close(ours, x.double(), rtol=3e-6, atol=1e-6)  # theirs has its levels in float32
