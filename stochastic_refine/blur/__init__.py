"""Blur as mathematics: camera-shake kernels and the operators that apply them."""

from .kernels import camera_shake_kernel, camera_shake_trajectory, rasterize_trajectory
from .operators import blur_valid, linear_to_srgb, srgb_to_linear

__all__ = [
    'blur_valid', 'camera_shake_kernel', 'camera_shake_trajectory', 'linear_to_srgb', 'rasterize_trajectory',
    'srgb_to_linear'
]
