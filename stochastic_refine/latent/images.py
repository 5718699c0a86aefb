"""What is done to images before and after the diffusion of latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def match_colours(image: Tensor, like: Tensor) -> Tensor:
    """``image`` with each channel's mean and standard deviation of ``like`` (AdaIN; variances unbiased, plus 1e-5).

    Args:
        image, like: (B, C, H, W); ``like`` may have B = 1.
    """
    how = {'dim': (-2, -1), 'keepdim': True, 'correction': int(image.shape[-2:].numel() > 1)}  # one pixel does not vary
    variance, mean = torch.var_mean(image, **how)
    wanted_variance, wanted_mean = torch.var_mean(like, **how)
    return (image - mean) / (variance + 1e-5).sqrt() * (wanted_variance + 1e-5).sqrt() + wanted_mean


def low_frequencies(image: Tensor, levels: int = 5) -> Tensor:
    """What is left of an image, (B, C, H, W), after ``levels`` steps of the undecimated wavelet transform.

    Step i blurs by [1 2 1] / 4 along both axes, its taps 2^i pixels apart; the border is repeated.
    """
    taps = torch.tensor([0.25, 0.5, 0.25], dtype=image.dtype, device=image.device)
    kernel = (taps[:, None] * taps).expand(image.shape[1], 1, 3, 3)
    for level in range(levels):
        reach = 2**level
        image = F.conv2d(F.pad(image, [reach] * 4, mode='replicate'), kernel, dilation=reach, groups=image.shape[1])
    return image
