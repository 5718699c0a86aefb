"""Predict and refine: what the residual is, how a net is trained on it, and how it is put back.

This is the only place that knows the diffusion's range. Images enter and leave in [0, 1]; the denoiser sees the blurry image
and the residual in the units of [-1, 1] images, so a residual is ``2 (x0 - x_init)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .flow import FLOW_SAMPLERS, FlowPath, FlowSchedule
from .process import forward_marginal
from .samplers import DIFFUSION_SAMPLERS, Denoise
from .schedules import NoiseSchedule, draw_alpha_bar

SAMPLERS: dict[str, Callable[..., Tensor]] = {**DIFFUSION_SAMPLERS, **FLOW_SAMPLERS}


def to_signed(image: Tensor) -> Tensor:
    """Map an image from [0, 1] to the diffusion's [-1, 1]."""
    return 2 * image - 1


def conditioning(lq: Tensor, initial: Tensor | None = None) -> Tensor:
    """What the denoiser sees beside the noisy residual, in [-1, 1]: the blurry image and, if given, the initial prediction.

    The paper's denoiser sees the blurry image alone, (B, 3, H, W), and names the other as future work (Sec. 6.1).
    """
    return to_signed(lq if initial is None else torch.cat([lq, initial], dim=1))


def residual(image: Tensor | float, initial: Tensor | None, scale: float) -> Tensor:
    """r0 of ``image``; without a predictor it is the image itself in [-1, 1]."""
    return to_signed(image) * scale if initial is None else 2 * scale * (image - initial)


def recompose(r0: Tensor, initial: Tensor | None, scale: float) -> Tensor:
    """The image whose residual is r0; inverse of :func:`residual`."""
    return (r0 / scale + 1) / 2 if initial is None else initial + r0 / (2 * scale)


def residual_clamp(initial: Tensor | None, scale: float) -> Callable[[Tensor], Tensor]:
    """What keeps an estimate of r0 to residuals of images in [0, 1]."""
    if initial is None:
        return lambda r0: r0.clamp(-scale, scale)
    low, high = residual(0, initial, scale), residual(1, initial, scale)
    return lambda r0: r0.clamp(low, high)


def predict_refine_target(gt: Tensor,
                          initial: Tensor | None,
                          schedule: NoiseSchedule,
                          residual_scale: float = 1.0,
                          generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """One training draw for Eq. (6): a noisy residual, its level, and the noise to be predicted.

    Eq. (6) prints ``x0 - g(x0)``; ``x0 - g(y)`` is meant (Algorithm 1).

    Args:
        gt: Sharp image x0, (B, 3, H, W), [0, 1].
        initial: Initial prediction g(y) like ``gt``; its gradient is kept. None means a diffusion model of the image itself.
        schedule: The training schedule, whose continuous levels are drawn.
        residual_scale: Factor on the residual; 1 is the paper's.
        generator: Source of level and noise, on the CPU; None uses PyTorch's global one.

    Returns:
        ``(r_t, noise_level, eps)``: (B, 3, H, W), sqrt(alpha_bar) of shape (B,) in float32, and (B, 3, H, W).
    """
    alpha_bar = draw_alpha_bar(schedule, gt.shape[0], generator)
    if generator is None:
        eps = torch.randn_like(gt)
    else:
        eps = torch.randn(gt.shape, generator=generator, dtype=gt.dtype).to(gt.device)
    r_t = forward_marginal(residual(gt, initial, residual_scale), eps, alpha_bar[:, None, None, None])
    return r_t, alpha_bar.sqrt().to(gt.device, torch.float32), eps


def refine(denoise: Denoise,
           initial: Tensor | None,
           schedule: NoiseSchedule | FlowSchedule,
           noise: Callable[[], Tensor],
           sampler: str = 'ancestral',
           clamp: bool = False,
           residual_scale: float = 1.0,
           flow: FlowPath | None = None,
           **sampler_options: float) -> Tensor:
    """Algorithm 1, lines 2 to 7: sample a residual and add it to the initial prediction.

    Args:
        denoise: What the samplers call, which has seen :func:`conditioning` already.
        initial: Initial prediction, (B or 1, 3, H, W), [0, 1], or None for a diffusion model without a predictor.
        schedule: Inference schedule; it may differ from training's.
        noise: Source of r_T and of each step's noise, (B, 3, H, W).
        sampler: A name in :data:`SAMPLERS`.
        clamp: Keep each estimate of x_init + r0 in [0, 1]; off reproduces the paper.
        residual_scale: The factor that the denoiser was trained with.
        flow: The path of a flow refiner, whose start the first noise makes; None for the paper's diffusion.
        **sampler_options: Passed to the sampler, e.g. ``eta`` (see ``TAKE_ETA``).

    Returns:
        Restored images, (B, 3, H, W); not clamped at the end.
    """
    constrain = residual_clamp(initial, residual_scale) if clamp else None
    start = noise() if flow is None else flow.start(noise())
    r0 = SAMPLERS[sampler](denoise, start, schedule, noise, constrain=constrain, **sampler_options)
    return recompose(r0, initial, residual_scale)
