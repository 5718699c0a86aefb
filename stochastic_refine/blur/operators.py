"""Operators that apply blur, and the sRGB transfer curve between stored and physical light."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def blur_valid(image: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """True convolution (kernel flipped) where the kernel lies wholly inside the image.

    Args:
        image: (H, W, C).
        kernel: (K, K) with K odd.

    Returns:
        (H - K + 1, W - K + 1, C).
    """
    radius = kernel.shape[0] // 2
    # OpenCV passes over the zeros, of which a camera-shake kernel has many, and takes a Fourier transform for large kernels.
    blurred = cv2.filter2D(image, -1, kernel[::-1, ::-1]).reshape(image.shape)
    return blurred[radius:image.shape[0] - radius, radius:image.shape[1] - radius]


def srgb_to_linear(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stored sRGB values in [0, 1] to light intensities in [0, 1] (IEC 61966-2-1)."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055)**2.4).astype(np.float32)


def linear_to_srgb(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse of :func:`srgb_to_linear`."""
    image = np.clip(image, 0, 1)
    return np.where(image <= 0.0031308, image * 12.92, 1.055 * image**(1 / 2.4) - 0.055).astype(np.float32)
