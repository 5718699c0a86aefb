"""Blur as mathematics: camera-shake kernels, exposures of a moving camera, and the operators that apply them."""

from .camera import PRESETS, CameraBlur
from .exposure import Exposure, MovingObject, develop, expose, linear_to_srgb_tensor, srgb_to_linear_tensor
from .jpeg import jpeg_artefacts
from .kernels import camera_shake_kernel, camera_shake_trajectory, rasterize_trajectory
from .operators import blur_valid, linear_to_srgb, srgb_to_linear

__all__ = [
    'PRESETS', 'CameraBlur', 'Exposure', 'MovingObject', 'blur_valid', 'camera_shake_kernel', 'camera_shake_trajectory',
    'develop', 'expose', 'jpeg_artefacts', 'linear_to_srgb', 'linear_to_srgb_tensor', 'rasterize_trajectory',
    'srgb_to_linear', 'srgb_to_linear_tensor'
]
