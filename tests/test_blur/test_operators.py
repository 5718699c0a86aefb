"""Blur is a convolution, and the sRGB curve is the standard's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import convolve2d

from stochastic_refine.blur import blur_valid, linear_to_srgb, srgb_to_linear


def test_blur_is_a_convolution_and_not_a_correlation():
    generator = np.random.default_rng(0)
    image = generator.random((9, 12, 3), dtype=np.float32)
    kernel = generator.random((5, 5), dtype=np.float32)  # no symmetry: flipping it shows
    blurred = blur_valid(image, kernel)
    assert blurred.shape == (5, 8, 3)
    for channel in range(3):
        np.testing.assert_allclose(blurred[..., channel], convolve2d(image[..., channel], kernel, mode='valid'), atol=1e-5)


def test_a_point_of_light_draws_the_kernel():
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3)
    point = np.zeros((5, 5, 1), dtype=np.float32)
    point[2, 2] = 1
    np.testing.assert_array_equal(blur_valid(point, kernel)[..., 0], kernel)


def test_the_adjoint_of_blur_is_the_full_convolution_with_the_flipped_kernel():
    """<A x, y> = <x, A^T y>."""
    generator = np.random.default_rng(1)
    x, kernel = generator.standard_normal((11, 14, 3), dtype=np.float32), generator.random((5, 5), dtype=np.float32)
    y = generator.standard_normal((7, 10, 3), dtype=np.float32)
    adjoint = np.stack([convolve2d(y[..., channel], kernel[::-1, ::-1], mode='full') for channel in range(3)], -1)
    assert np.sum(blur_valid(x, kernel) * y) == pytest.approx(np.sum(x * adjoint), rel=1e-4)


def test_a_kernel_of_one_pixel_changes_nothing():
    image = np.random.default_rng(0).random((4, 6, 3), dtype=np.float32)
    np.testing.assert_array_equal(blur_valid(image, np.ones((1, 1), dtype=np.float32)), image)


@pytest.mark.parametrize(('stored', 'light'), [
    (0.0, 0.0),
    (0.04045, 0.0031308),  # where the straight part ends
    (10 / 255, 0.003035),
    (0.5, 0.214041),
    (188 / 255, 0.502886),
    (1.0, 1.0),
])
def test_known_values_of_the_srgb_curve(stored, light):
    assert srgb_to_linear(np.float32(stored)) == pytest.approx(light, abs=1e-6)
    assert linear_to_srgb(np.float32(light)) == pytest.approx(stored, abs=1e-5)


def test_the_srgb_round_trip_returns_every_8_bit_value():
    grey = np.arange(256, dtype=np.float32) / 255
    back = linear_to_srgb(srgb_to_linear(grey))
    np.testing.assert_allclose(back, grey, atol=1e-6)
    np.testing.assert_array_equal(np.rint(back * 255), np.arange(256))


def test_overshoot_is_clipped_before_the_curve():
    np.testing.assert_allclose(linear_to_srgb(np.array([-0.1, 1.2], dtype=np.float32)), [0, 1], atol=1e-6)
