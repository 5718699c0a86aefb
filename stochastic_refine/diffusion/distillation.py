"""Progressive distillation (Salimans and Ho, ICLR 2022): what one step of a student has to do to replace some of its teacher's.

Teacher and student are sampled by DDIM with eta = 0 on levels of one schedule, of which the student visits every ``stride``-th.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from .predict_refine import residual, residual_clamp
from .process import forward_marginal
from .schedules import NoiseSchedule


def student_r0(denoise: Callable[[Tensor, Tensor], Tensor],
               r_t: Tensor,
               alpha_bars: Tensor,
               constrain: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The estimate of r0 with which one step of DDIM ends where several of the teacher's do (App. G).

    A step of DDIM from level t to s with the estimate r0 ends in ``r_s = a r0 + b r_t``, where ``b = sigma_s / sigma_t`` and
    ``a = sqrt(alpha_bar_s) - b sqrt(alpha_bar_t)``; this is solved for r0. It is a weighted mean of the teacher's own
    estimates, and the last of them where s is free of noise. So a teacher that is held to a range has its students there.

    Args:
        denoise: The teacher, ``denoise(r_t, noise_level)`` with noise_level of shape (B,).
        r_t: Where the step starts, (B, C, H, W).
        alpha_bars: Levels that the teacher visits, from that of ``r_t`` to the one where the step ends, which may be 1;
            (B, k + 1), rising along the second dimension, float64.
        constrain: Applied to each of the teacher's estimates, as in its sampling.
    """
    levels = alpha_bars.T[..., None, None, None]  # (k + 1, B, 1, 1, 1)
    signals, sigmas = levels.sqrt().to(r_t), (1 - levels).sqrt().to(r_t)
    state = r_t
    for (signal, next_signal), (sigma, next_sigma) in zip(pairwise(signals), pairwise(sigmas)):
        eps = denoise(state, signal.flatten())
        r0 = (state - sigma * eps) / signal
        if constrain is not None:
            r0 = constrain(r0)
            eps = (state - signal * r0) / sigma
        state = next_signal * r0 + next_sigma * eps
    kept = sigmas[-1] / sigmas[0]
    return (state - kept * r_t) / (signals[-1] - kept * signals[0])


def distillation_target(denoise: Callable[[Tensor, Tensor], Tensor],
                        gt: Tensor,
                        initial: Tensor | None,
                        schedule: NoiseSchedule,
                        stride: int,
                        clamp: bool = False,
                        residual_scale: float = 1.0,
                        generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One training draw: a state at the start of a random step of the student, and the noise it should predict there.

    The state is a noisy residual, as in training (Eq. 2). At alpha_bar_T it is the noise alone, since sampling starts from that
    although a schedule of few steps leaves some signal there.

    The weight turns a squared error of the noise into one of r0 under the truncated weight of Salimans and Ho, Sec. 4:
    ``|weight (eps - eps')|^2 = max(SNR, 1) |r0 - r0'|^2`` with ``SNR = alpha_bar / (1 - alpha_bar)``.

    Args:
        denoise: The teacher, as for :func:`student_r0`.
        gt: Sharp image, (B, 3, H, W), [0, 1].
        initial: Initial prediction like ``gt``, or None for a diffusion model without a predictor.
        schedule: The teacher's, ``schedule.steps`` being a multiple of ``stride``.
        stride: How many of the teacher's steps one of the student's replaces.
        clamp, residual_scale: As in :func:`~stochastic_refine.diffusion.predict_refine.refine`.
        generator: Source of steps and noise, on the CPU; None uses PyTorch's global one.

    Returns:
        ``(r_t, noise_level, eps, weight)``: (B, 3, H, W), sqrt(alpha_bar) of shape (B,) in float32, (B, 3, H, W), (B, 1, 1, 1).
    """
    starts = stride * torch.randint(1, schedule.steps // stride + 1, (len(gt), 1), generator=generator)  # t of each image
    levels = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alpha_bars])  # of t = 0 to T
    alpha_bars = levels[starts - torch.arange(stride + 1)]
    alpha_bar = alpha_bars[:, :1, None, None]
    noise = torch.randn(gt.shape, generator=generator).to(gt) if generator else torch.randn_like(gt)
    noisy = forward_marginal(residual(gt, initial, residual_scale), noise, alpha_bar)
    r_t = torch.where((starts == schedule.steps)[..., None, None].to(gt.device), noise, noisy)
    with torch.no_grad():
        r0 = student_r0(denoise, r_t, alpha_bars, residual_clamp(initial, residual_scale) if clamp else None)
    signal, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()  # in the table's float64, as sigma can be small
    eps = (r_t - signal.to(gt) * r0) / sigma.to(gt)
    return r_t, signal.flatten().to(gt.device, torch.float32), eps, (sigma / signal).clamp(min=1).to(gt)
