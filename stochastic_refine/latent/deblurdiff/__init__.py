"""DeblurDiff (Kong et al., NeurIPS 2025): a network in Stable Diffusion predicts a blur kernel for each latent pixel."""

from . import published  # noqa: F401  (recognises the authors' file)
from .deblurdiff_arch import DeblurDiff

__all__ = ['DeblurDiff']
