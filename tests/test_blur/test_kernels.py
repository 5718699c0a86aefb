"""Camera-shake kernels: they blur without brightening or shifting, and are as long as asked."""

from __future__ import annotations

import numpy as np
import pytest

from stochastic_refine.blur import camera_shake_kernel, camera_shake_trajectory, rasterize_trajectory

LENGTHS = [0.3, 3, 10, 40]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def centroid(kernel: np.ndarray) -> np.ndarray:
    """(y, x) from the kernel's middle, pixels."""
    axis = np.arange(len(kernel)) - len(kernel) // 2
    weights = kernel.astype(np.float64)
    return np.array([axis @ weights.sum(1), axis @ weights.sum(0)]) / weights.sum()


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('length', LENGTHS)
def test_the_trajectory_is_as_long_as_asked_and_centred(length, seed):
    path = camera_shake_trajectory(length, rng(seed))
    assert path.shape == (128, 2)
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).sum() == pytest.approx(length, abs=1e-9)
    np.testing.assert_allclose(path.mean(axis=0), 0, atol=1e-6)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('length', LENGTHS)
def test_the_kernel_keeps_brightness_and_place(length, seed):
    kernel = camera_shake_kernel(length, rng(seed))
    assert kernel.dtype == np.float32
    assert kernel.shape[0] == kernel.shape[1] and kernel.shape[0] % 2 == 1
    assert kernel.shape[0] <= length + 4
    assert kernel.min() >= 0
    assert kernel.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(centroid(kernel), 0, atol=2e-5)


def test_no_motion_is_no_blur():
    np.testing.assert_array_equal(camera_shake_kernel(0, rng()), [[1]])


def test_the_same_generator_state_gives_the_same_kernel_and_the_next_draw_another():
    generator = rng(3)
    first, second = camera_shake_kernel(12, generator), camera_shake_kernel(12, generator)
    np.testing.assert_array_equal(first, camera_shake_kernel(12, rng(3)))
    assert first.shape != second.shape or (first != second).any()


def test_a_path_is_drawn_where_it_lies_with_y_first():
    kernel = rasterize_trajectory(np.array([[0.0, 0.0], [0.0, 1.5], [-1.0, 0.0], [2.0, 0.0]]))
    expected = np.zeros((5, 5))
    expected[2, 2] = expected[1, 2] = expected[4, 2] = 0.25
    expected[2, 3] = expected[2, 4] = 0.125  # half a pixel between two columns
    np.testing.assert_allclose(kernel, expected, atol=1e-7)


def test_without_turns_and_impulses_the_path_is_a_straight_line():
    path = camera_shake_trajectory(10, rng(), turn=0, impulse_rate=0)
    assert np.linalg.norm(path[-1] - path[0]) == pytest.approx(10)
    bent = camera_shake_trajectory(10, rng(), turn=0.5)
    assert np.linalg.norm(bent[-1] - bent[0]) < 9
