"""What a sampler calls: a denoiser with what it sees beside the state, and what need not be computed at every step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..diffusion import FlowSchedule, NoiseSchedule
from ..diffusion.samplers import Denoise


def conditioned_denoiser(denoiser: nn.Module,
                         condition: Tensor,
                         schedule: NoiseSchedule | FlowSchedule,
                         call: Callable[..., Tensor] | None = None,
                         share: bool = True,
                         added: float | None = None) -> Denoise:
    """What a sampler calls to denoise one image, or a batch of them.

    A network with a method ``prepare_denoising``, as :class:`RefineUNet` has, computes here, once for all steps and samples,
    what does not depend on the noisy residual. Any other network is called with all its input at every step.

    Args:
        denoiser: A network that maps (B, C, H, W) and noise levels (B,) to the predicted noise.
        condition: Its last input channels, of :func:`~stochastic_refine.diffusion.predict_refine.conditioning`: one per sample,
            or one for all, (1, C, H, W).
        schedule: The levels that it will be called at.
        call: Calls it on a list of tensors, concatenated to its input channels, and the other arguments; default: as it is.
        share: Whether the condition's share of the first convolution, a feature map, may be kept.
        added: Of :attr:`~stochastic_refine.archs.predict_refine_arch.PredictRefineNet.added`.
    """
    steps = None
    share = share and added is None
    if hasattr(denoiser, 'prepare_denoising'):
        steps = denoiser.prepare_denoising(schedule.levels, condition if share else None)

    def denoise(r_t: Tensor, noise_level: float) -> Tensor:
        if added is not None:
            inputs = [condition + added * r_t]
        else:
            inputs = [r_t] if steps and share else [r_t, condition.expand(r_t.shape[0], -1, -1, -1)]
        level = (None, steps[noise_level]) if steps else (torch.full((r_t.shape[0], ), noise_level, device=r_t.device), )
        eps = call(inputs, *level) if call else denoiser(torch.cat(inputs, dim=1), *level)
        eps = eps.to(torch.float32, memory_format=torch.contiguous_format)  # the noise's layout: one for all is faster
        return eps if added is None else r_t + eps

    return denoise
