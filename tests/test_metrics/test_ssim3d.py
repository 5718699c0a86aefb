"""calculate_ssim3d: the index over a volume of height, width and channel."""

from __future__ import annotations

import numpy as np
import pytest

from stochastic_refine.errors import InputError
from stochastic_refine.metrics.ssim3d import calculate_ssim3d

C1, C2 = 6.5025, 58.5225


def pair(height=14, width=17):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (height, width, 3), np.uint8)
    return x, np.clip(x + rng.integers(-40, 41, x.shape), 0, 255).astype(np.uint8)


def brute_force(x, y):
    """The index at every voxel, from a window of 11^3 weights over explicitly repeated borders."""
    axis = np.exp(-np.arange(-5, 6)**2 / (2 * 1.5**2))
    window = np.einsum('i,j,k->ijk', axis, axis, axis)
    window /= window.sum()
    x, y = (np.pad(each.astype(float), 5, mode='edge') for each in (x, y))
    out = np.empty([side - 10 for side in x.shape])
    for at in np.ndindex(*out.shape):
        a, b = (each[tuple(slice(i, i + 11) for i in at)] for each in (x, y))
        mean_a, mean_b = (window * a).sum(), (window * b).sum()
        var_a, var_b = (window * (a - mean_a)**2).sum(), (window * (b - mean_b)**2).sum()
        covariance = (window * (a - mean_a) * (b - mean_b)).sum()
        out[at] = ((2 * mean_a * mean_b + C1) * (2 * covariance + C2)
                   / ((mean_a**2 + mean_b**2 + C1) * (var_a + var_b + C2)))
    return out


def test_is_the_mean_over_all_voxels_of_a_window_with_repeated_borders():
    x, y = pair(8, 9)
    assert calculate_ssim3d(x, y) == pytest.approx(brute_force(x, y).mean(), abs=1e-12)


def test_constant_images_leave_the_luminance_term():
    x, y = np.full((20, 20, 3), 100, np.uint8), np.full((20, 20, 3), 140, np.uint8)
    assert calculate_ssim3d(x, y) == pytest.approx((2 * 100 * 140 + C1) / (100**2 + 140**2 + C1), abs=1e-12)


def test_identical_images_give_one_and_channels_mix():
    x, y = pair()
    assert calculate_ssim3d(x, x) == pytest.approx(1, abs=1e-12)
    assert calculate_ssim3d(x, y) == pytest.approx(calculate_ssim3d(x[..., ::-1], y[..., ::-1]), abs=1e-12)  # BGR or RGB
    assert abs(calculate_ssim3d(x, y) - calculate_ssim3d(x[..., [1, 0, 2]], y[..., [1, 0, 2]])) > 1e-4


def test_border_is_left_out_before_the_window_is_applied():
    x, y = pair()
    assert calculate_ssim3d(x, y, crop_border=3) == calculate_ssim3d(x[3:-3, 3:-3], y[3:-3, 3:-3])
    with pytest.raises(InputError, match='SSIM compares images of one size'):
        calculate_ssim3d(x, y[1:])
