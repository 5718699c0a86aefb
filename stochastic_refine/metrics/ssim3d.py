"""SSIM as MATLAB's ``ssim`` computes it on an RGB array, the definition behind the published HINet, MPRNet and NAFNet figures.

MATLAB takes the array for a volume: its Gaussian window spans height, width and channel alike. The index that Wang et al.
(IEEE TIP 2004) defined for grey images, averaged over the channels, is BasicSR's ``calculate_ssim``; the two differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from .images import check_same_size, without_border

#: Wang et al., Sec. III-B: (K L)^2 with K1 = 0.01, K2 = 0.03, and the dynamic range L of uint8.
_C1, _C2 = (0.01 * 255)**2, (0.03 * 255)**2


def calculate_ssim3d(img: NDArray[np.uint8], img2: NDArray[np.uint8], crop_border: int = 0, **kwargs: Any) -> float:
    """MATLAB's ``ssim`` on RGB arrays: the index's mean over all voxels; higher is better, 1 for equal images.

    Args:
        img: Restored image, (H, W, 3), BGR uint8; the order of the channels does not matter as long as green is in the middle.
        img2: Ground truth like ``img``.
        crop_border: Pixels left out at each edge.
        **kwargs: BasicSR passes keys such as ``better``; ignored.

    Raises:
        InputError: If the sizes differ.
    """
    check_same_size(img, img2, 'SSIM')
    x, y = (without_border(image, crop_border).astype(np.float64) for image in (img, img2))
    mean_x, mean_y = _blur(x), _blur(y)
    # Population moments, E[xy] - E[x]E[y], as in MATLAB: no factor n / (n - 1).
    variances = _blur(x * x) - mean_x**2 + _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    index = ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)) / ((mean_x**2 + mean_y**2 + _C1) * (variances + _C2))
    return float(index.mean())


def _blur(volume: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean in the 11x11x11 window, sigma 1.5, with replicated borders."""
    return gaussian_filter(volume, 1.5, mode='nearest', radius=5)
