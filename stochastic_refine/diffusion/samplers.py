"""Reverse-process samplers: pure functions of (denoise, r_T, schedule, noise).

``denoise(r_t, noise_level)`` returns the predicted noise, like ``r_t`` in shape; ``noise_level`` is the float
``sqrt(alpha_bar_t)``, which *falls* as noise grows. ``noise()`` returns fresh standard normal noise like ``r_t``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .process import eps_from_r0, posterior, r0_from_eps
from .schedules import NoiseSchedule

Denoise = Callable[[Tensor, float], Tensor]
Constrain = Callable[[Tensor], Tensor]


class SampleNoise:
    """Standard normal noise in which every sample has a generator of its own.

    A sample therefore depends on its seed alone, not on the batch it is drawn in. Noise is drawn on the CPU and moved, so that
    a seed means the same sample on every device.

    Args:
        seeds: One seed per sample of the batch; 0 is a seed like any other.
        shape: Shape of one sample, (C, H, W).
        device: Where the noise is wanted.
    """

    def __init__(self, seeds: Sequence[int], shape: Sequence[int], device: torch.device | str = 'cpu') -> None:
        self.generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self.shape = tuple(shape)
        self.device = device

    def __call__(self) -> Tensor:
        """Draw the next noise, shape (B, C, H, W), float32."""
        noise = torch.empty(len(self.generators), *self.shape)
        for sample, generator in zip(noise, self.generators):
            sample.normal_(generator=generator)
        return noise.to(self.device)


def _reverse_steps(schedule: NoiseSchedule) -> Iterator[tuple[float, float, float]]:
    """Yield (alpha_t, alpha_bar_t, alpha_bar_{t-1}) for t = T, ..., 1."""
    alphas, alpha_bars = schedule.alphas_as_floats, schedule.alpha_bars_as_floats
    for i in range(schedule.steps - 1, -1, -1):
        yield alphas[i], alpha_bars[i], alpha_bars[i - 1] if i else 1.0


def ancestral(denoise: Denoise,
              r_T: Tensor,
              schedule: NoiseSchedule,
              noise: Callable[[], Tensor],
              constrain: Constrain | None = None,
              r0_from: Callable[[Tensor, Tensor, float], Tensor] = r0_from_eps) -> Tensor:
    """Algorithm 1, lines 3 to 6: T draws from the posterior of Eq. (3) with the estimated r0.

    Args:
        denoise: See the module's docstring.
        r_T: Noise to start from, (B, C, H, W).
        schedule: Its T steps are walked from T to 1; the last adds no noise.
        noise: Source of the steps' noise.
        constrain: Applied to each estimate of r0, for example a clamp to the valid range; None reproduces the paper.
        r0_from: What the denoiser's output says of r0: ``r0_from(r_t, output, alpha_bar)``.
    """
    r_t = r_T
    for alpha, alpha_bar, alpha_bar_prev in _reverse_steps(schedule):  # t = T, ..., 1
        r0 = r0_from(r_t, denoise(r_t, alpha_bar**0.5), alpha_bar)
        if constrain is not None:
            r0 = constrain(r0)
        c_0, c_t, variance = posterior(alpha, alpha_bar, alpha_bar_prev)
        r_t = (c_0 * r0).add_(c_t * r_t)  # in place only on what nobody else has seen
        if variance > 0:
            r_t.add_(variance**0.5 * noise())
    return r_t


def ddim(denoise: Denoise,
         r_T: Tensor,
         schedule: NoiseSchedule,
         noise: Callable[[], Tensor],
         constrain: Constrain | None = None,
         eta: float = 0.0) -> Tensor:
    """DDIM (Song et al., ICLR 2021, Eqs. 12 and 16) on every step of ``schedule``.

    ``eta`` = 0 is deterministic given r_T; ``eta`` = 1 equals :func:`ancestral` on the same noise.
    """
    r_t = r_T
    for alpha, alpha_bar, alpha_bar_prev in _reverse_steps(schedule):  # t = T, ..., 1
        eps = denoise(r_t, alpha_bar**0.5)
        r0 = r0_from_eps(r_t, eps, alpha_bar)
        if constrain is not None:
            r0 = constrain(r0)
            eps = eps_from_r0(r_t, r0, alpha_bar)
        variance = eta**2 * posterior(alpha, alpha_bar, alpha_bar_prev)[2]
        r_t = (alpha_bar_prev**0.5 * r0).add_(max(1 - alpha_bar_prev - variance, 0.0)**0.5 * eps)
        if variance > 0:
            r_t.add_(variance**0.5 * noise())
    return r_t


#: Largest weight that :func:`dpmpp_2m` gives to its extrapolation; a grid of equal steps in log-SNR has exactly this one.
_MAX_EXTRAPOLATION = 0.5


def dpmpp_2m(denoise: Denoise,
             r_T: Tensor,
             schedule: NoiseSchedule,
             noise: Callable[[], Tensor],
             constrain: Constrain | None = None,
             eta: float = 0.0) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., 2022, Algorithm 2) on every step of ``schedule``.

    A second-order multistep solver that costs one call of the denoiser per step. The first step, and the last one to
    alpha_bar = 1, are of first order, which makes the last step the estimate of r0 itself. ``eta`` = 0 solves the
    probability-flow ODE, deterministic given r_T; ``eta`` = 1 the reverse diffusion (SDE-DPM-Solver++(2M), their App. A), whose
    fresh noise corrects errors of the steps before; in between, the share ``eta`` of that diffusion's rate.

    Where a step in log-SNR is longer than the one before it, the published weight of the extrapolation, ``h / (2 h_last)``,
    grows with their ratio. A schedule linear in beta ends with such a leap (from 0.55 to 3.9 for 10 steps from 1e-6 to 0.02),
    and the published weight then does worse than DDIM. So the weight is held at that of equal steps; on equal or shortening
    steps this is the published method, and on smoothly growing ones it keeps the second order.

    Args:
        denoise: See the module's docstring.
        r_T: Noise to start from, (B, C, H, W).
        schedule: Its T steps are walked from T to 1.
        noise: Draws the fresh noise; not used for ``eta`` = 0.
        constrain: Applied to each estimate of r0, before it is extrapolated.
        eta: Share of fresh noise, from 0.
    """
    r_t = r_T
    r0_last, h_last = None, 0.0
    for _, alpha_bar, alpha_bar_prev in _reverse_steps(schedule):  # t = T, ..., 1
        r0 = r0_from_eps(r_t, denoise(r_t, alpha_bar**0.5), alpha_bar)
        if constrain is not None:
            r0 = constrain(r0)
        if alpha_bar_prev < 1:
            h = _half_log_snr(alpha_bar_prev) - _half_log_snr(alpha_bar)
            data = r0 if r0_last is None else r0 + min(h / (2 * h_last), _MAX_EXTRAPOLATION) * (r0 - r0_last)
            kept = ((1 - alpha_bar_prev) / (1 - alpha_bar))**0.5 * math.exp(-eta * h)
            r_t = kept * r_t - alpha_bar_prev**0.5 * math.expm1(-(1 + eta) * h) * data
            if eta > 0:
                r_t.add_((-(1 - alpha_bar_prev) * math.expm1(-2 * eta * h))**0.5 * noise())
            r0_last, h_last = r0, h
    return r0


def _half_log_snr(alpha_bar: float) -> float:
    """The solver's time, lambda = log(sqrt(alpha_bar) / sqrt(1 - alpha_bar)); infinite at alpha_bar = 1."""
    return 0.5 * math.log(alpha_bar / (1 - alpha_bar))


DIFFUSION_SAMPLERS: dict[str, Callable[..., Tensor]] = {'ancestral': ancestral, 'ddim': ddim, 'dpmpp_2m': dpmpp_2m}
#: Those that take ``eta``.
TAKE_ETA = ('ddim', 'dpmpp_2m')
