"""Alignment before scoring, as published for RealBlur."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from stochastic_refine.comparison.alignment import align_to_ground_truth, masked_psnr, masked_ssim
from stochastic_refine.errors import InputError

MARGIN = 20


@pytest.fixture(scope='module')
def wide():
    """A photo with a margin for warping, smooth enough to be interpolated twice."""
    import skimage.data
    photo = skimage.data.astronaut()[20:240, 120:360].astype(np.float32) / 255
    return cv2.GaussianBlur(photo, (0, 0), 0.8)


@pytest.fixture(scope='module')
def gt(wide):
    return wide[MARGIN:-MARGIN, MARGIN:-MARGIN].copy()


def moved(wide: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """The photo seen through a homography and dimmed."""
    warped = cv2.warpPerspective(wide, homography, wide.shape[1::-1], flags=cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP)
    return 0.9 * np.clip(warped[MARGIN:-MARGIN, MARGIN:-MARGIN], 0, 1)


def plain_psnr(a: np.ndarray, b: np.ndarray) -> float:
    return masked_psnr(a, b, np.ones_like(a))


def test_a_known_homography_and_gain_are_undone(wide, gt):
    restored = moved(wide, np.array([[1.002, 0.001, 1.4], [-0.002, 0.999, -1.1], [1e-6, -1e-6, 1]]))
    aligned = align_to_ground_truth(restored, gt)
    assert aligned.converged
    assert plain_psnr(restored, gt) < 25
    assert masked_psnr(aligned.image, aligned.ground_truth, aligned.mask) > 38
    assert masked_ssim(aligned.image, aligned.ground_truth, aligned.mask) > 0.98
    assert 0.9 < aligned.mask.mean() < 1
    assert not aligned.image[aligned.mask == 0].any() and not aligned.ground_truth[aligned.mask == 0].any()
    eight_bits = align_to_ground_truth((restored * 255).round().astype(np.uint8), (gt * 255).round().astype(np.uint8))
    assert masked_psnr(eight_bits.image, eight_bits.ground_truth, eight_bits.mask) > 38


def test_identical_images(gt):
    aligned = align_to_ground_truth(gt, gt)
    assert aligned.converged and aligned.mask.all()
    assert masked_psnr(aligned.image, aligned.ground_truth, aligned.mask) > 60
    assert masked_psnr(gt, gt, aligned.mask) == math.inf
    assert masked_ssim(gt, gt, aligned.mask) == pytest.approx(1)


@pytest.mark.parametrize('value', [0.0, 0.5])
def test_a_flat_image_is_flagged(gt, value):
    aligned = align_to_ground_truth(np.full_like(gt, value), gt)
    assert not aligned.converged
    assert aligned.mask.all() and np.ptp(aligned.image) == 0 and np.isfinite(aligned.image).all()
    assert math.isfinite(masked_psnr(aligned.image, aligned.ground_truth, aligned.mask))


def test_psnr_divides_by_the_mask_alone():
    gt = np.zeros((4, 4, 3), np.float32)
    image, mask = gt.copy(), np.zeros_like(gt)
    mask[:2], image[:2], image[2:] = 1, 0.1, 1.0
    assert masked_psnr(image, gt, mask) == pytest.approx(20)


def test_ssim_with_a_whole_mask_is_scikit_images(gt):
    from skimage.metrics import structural_similarity
    noisy = (gt + np.random.default_rng(0).normal(0, 0.1, gt.shape)).astype(np.float32)
    expected = structural_similarity(gt, noisy, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                     data_range=1.0)
    assert masked_ssim(noisy, gt, np.ones_like(gt)) == pytest.approx(expected, abs=1e-5)


def test_ssim_sees_only_what_the_mask_covers(gt):
    mask = np.ones_like(gt)
    mask[100:] = 0
    spoilt = gt.copy()
    spoilt[100:] = 0.5
    assert masked_ssim(spoilt, gt, mask) == pytest.approx(1)
    assert math.isnan(masked_ssim(gt, gt, np.zeros_like(gt)))


def test_bad_shapes_are_refused(gt):
    for restored in (gt[:-1], gt[..., 0]):
        with pytest.raises(InputError, match='shapes'):
            align_to_ground_truth(restored, gt)


def test_no_ssim_below_its_window(gt):
    assert math.isnan(masked_ssim(gt[:10], gt[:10], np.ones_like(gt[:10])))
    assert masked_ssim(gt[:11], gt[:11], np.ones_like(gt[:11])) == pytest.approx(1)
