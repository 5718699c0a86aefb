"""Operators that apply blur, and the sRGB transfer curve between stored and physical light."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray


def blur_valid(image: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """True convolution (kernel flipped) where the kernel lies wholly inside the image.

    Args:
        image: (H, W, C).
        kernel: (K, K) with K odd.

    Returns:
        (H - K + 1, W - K + 1, C).
    """
    channels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[:, None]
    flipped = torch.from_numpy(kernel[::-1, ::-1].copy())[None, None]  # numpy calls a flipped 1x1 contiguous, torch does not
    return F.conv2d(channels, flipped)[:, 0].numpy().transpose(1, 2, 0)


def srgb_to_linear(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stored sRGB values in [0, 1] to light intensities in [0, 1] (IEC 61966-2-1)."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055)**2.4).astype(np.float32)


def linear_to_srgb(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse of :func:`srgb_to_linear`."""
    image = np.clip(image, 0, 1)
    return np.where(image <= 0.0031308, image * 12.92, 1.055 * image**(1 / 2.4) - 0.055).astype(np.float32)
