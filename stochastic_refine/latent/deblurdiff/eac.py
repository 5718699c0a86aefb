"""Element-wise adaptive convolution (EAC) of DeblurDiff: a kernel of its own for every pixel and channel."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def eac(x: Tensor, kernels: Tensor, plain: bool = False) -> Tensor:
    """``out[b, c, h, w] = sum over i, j of kernels[b, c k k + i k + j, h, w] * x[b, c, h + i - k // 2, w + j - k // 2]``.

    Beyond its borders x is zero. Kernels are not normalised.

    Args:
        x: (B, C, H, W).
        kernels: (B, C k k, H, W), k odd.
        plain: Add up shifted copies one after the other, as the equation reads: less memory, and many more calls. The default
            unfolds x and sums at once.

    Returns:
        Like ``x``.

    Raises:
        ValueError: If the kernels' channels are no odd square for each channel of x.
    """
    batch, channels, height, width = x.shape
    side = math.isqrt(kernels.shape[1] // channels)
    if side % 2 == 0 or kernels.shape != (batch, channels * side**2, height, width):
        raise ValueError(f'kernels of shape {tuple(kernels.shape)} do not fit a map of shape {tuple(x.shape)}: (B, C k k, H, '
                         'W) with odd k is needed.')
    per_pixel = kernels.view(batch, channels, side**2, height, width)
    if not plain:
        patches = F.unfold(x, side, padding=side // 2).view(batch, channels, side**2, height, width)
        return (patches * per_pixel).sum(2)
    padded = F.pad(x, [side // 2] * 4)
    out = 0
    for i in range(side):
        for j in range(side):
            out = out + per_pixel[:, :, i * side + j] * padded[..., i:i + height, j:j + width]
    return out
