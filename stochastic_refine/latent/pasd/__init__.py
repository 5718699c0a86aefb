"""PASD (Yang et al., ECCV 2024): Stable Diffusion 1.5 whose decoder attends to each pixel of a ControlNet's maps."""

from . import published  # noqa: F401  (recognises the authors' files)
from .pasd_arch import PASD

__all__ = ['PASD']
