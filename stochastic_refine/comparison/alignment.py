"""Evaluation of RealBlur: the restored image is aligned with the ground truth before it is scored (Rim et al., ECCV 2020).

RealBlur's pairs come from two cameras behind a beam splitter; they differ by a small homography and in exposure. The published
figures are therefore taken after (1) a global gain, (2) a homography found by the enhanced correlation coefficient
(ECC, Evangelidis and Psarakis, PAMI 2008), and (3) restriction to the pixels that both images cover.

Certain: the least-squares gain, ECC with a homography from the identity over 100 iterations at eps 0 with a 5-pixel Gaussian on
grey images, cubic warping with reflected borders, division of the squared error by the covered pixels, Gaussian SSIM (sigma
1.5, population covariances, data range 1) per channel. Our reading, from memory of the common scripts: the mask is warped by
nearest neighbour, both images are zeroed outside it before SSIM, and SSIM leaves out 5 pixels, half its window, at each edge.

The gain is fitted before the homography, as published; where the images are far apart it comes out too small, by some percent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MetricUnavailable

_ITERATIONS = 100
_GAUSSIAN_SIZE = 5
_SSIM_SIGMA = 1.5
#: Half of scikit-image's Gaussian window for that sigma (it truncates at 3.5 sigma).
_SSIM_RADIUS = int(3.5 * _SSIM_SIGMA + 0.5)


@dataclass
class Alignment:
    """A pair ready to be scored; arrays are (H, W, 3) float32, and 0 outside the mask.

    Args:
        image: The restored image, matched in intensity and warped onto the ground truth; about [0, 1], not clipped.
        ground_truth: The ground truth, [0, 1].
        mask: 1 where the warped image is covered by the restored one, 0 elsewhere.
        converged: False if no homography was found; ``image`` is then matched in intensity only, and the mask is all ones.
    """

    image: NDArray[np.float32]
    ground_truth: NDArray[np.float32]
    mask: NDArray[np.float32]
    converged: bool


def align_to_ground_truth(restored: NDArray, gt: NDArray) -> Alignment:
    """Align a restored image with its ground truth.

    Args:
        restored: (H, W, 3), RGB (the grey image that ECC sees depends on the order), uint8 or float in [0, 1].
        gt: Like ``restored``.

    Raises:
        InputError: If the images are not RGB or differ in size.
    """
    if restored.shape != gt.shape or gt.ndim != 3 or gt.shape[2] != 3:
        raise InputError(f'Alignment needs two RGB images of one size, got shapes {restored.shape} and {gt.shape}.')
    z, x = _unit_range(restored), _unit_range(gt)
    energy = np.sum(z * z, dtype=np.float64)
    gain = np.sum(x * z, dtype=np.float64) / energy if energy > 0 else 1.0
    z = (gain * z).astype(np.float32)

    homography = _homography(x, z)
    if homography is not None:
        size = (x.shape[1], x.shape[0])
        mask = cv2.warpPerspective(np.ones_like(x), homography, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
                                   borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        if mask.any():
            warped = cv2.warpPerspective(z, homography, size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
                                         borderMode=cv2.BORDER_REFLECT)
            return Alignment(warped * mask, x * mask, mask, converged=True)
    return Alignment(z, x, np.ones_like(x), converged=False)


def masked_psnr(image: NDArray, gt: NDArray, mask: NDArray) -> float:
    """PSNR in dB over the pixels and channels where ``mask`` is 1; data range 1, infinite for equal images.

    Args:
        image, gt: (H, W, 3), float.
        mask: (H, W, 3), 0 or 1.
    """
    error = np.sum(mask * np.subtract(image, gt, dtype=np.float64)**2) / np.sum(mask, dtype=np.float64)
    return 10 * math.log10(1 / error) if error > 0 else math.inf


def masked_ssim(image: NDArray, gt: NDArray, mask: NDArray) -> float:
    """Gaussian SSIM, averaged over the mask of each channel and then over the channels; data range 1.

    NaN for images smaller than the window of 11 pixels, and where the mask leaves nothing.

    Args:
        image, gt: (H, W, 3), float.
        mask: (H, W, 3), 0 or 1.

    Raises:
        MetricUnavailable: If scikit-image is not installed.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise MetricUnavailable('SSIM of aligned images needs scikit-image; run: pip install scikit-image.') from error
    if min(gt.shape[:2]) <= 2 * _SSIM_RADIUS:
        return math.nan
    _, ssim_map = structural_similarity(
        gt * mask, image * mask, channel_axis=2, gaussian_weights=True, sigma=_SSIM_SIGMA, use_sample_covariance=False,
        data_range=1.0, full=True)
    inner = slice(_SSIM_RADIUS, -_SSIM_RADIUS)
    mask = mask[inner, inner]
    covered = mask.sum(axis=(0, 1), dtype=np.float64)
    if not covered.all():  # no overlap but at the edge
        return math.nan
    return float(np.mean((ssim_map[inner, inner] * mask).sum(axis=(0, 1), dtype=np.float64) / covered))


def _unit_range(image: NDArray) -> NDArray[np.float32]:
    return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image.astype(np.float32)


def _homography(template: NDArray[np.float32], image: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """The homography from pixels of ``template`` to those of ``image``; None if ECC does not converge."""
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ITERATIONS, 0)
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (template, image)]
    try:
        correlation, homography = cv2.findTransformECC(
            *grey, np.eye(3, dtype=np.float32), cv2.MOTION_HOMOGRAPHY, criteria, None, _GAUSSIAN_SIZE)
    except cv2.error:  # ECC reports so that the images are uncorrelated, or flat
        return None
    return homography if math.isfinite(correlation) and np.isfinite(homography).all() else None
