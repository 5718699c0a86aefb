"""ResShift (Yue et al., NeurIPS 2023): a diffusion of few steps between a sharp image's latent and the blurred one's."""

from . import published  # noqa: F401  (recognises the authors' files)
from .resshift_arch import ResShift
from .unet import ResShiftUNet
from .vq import ResShiftVQ

__all__ = ['ResShift', 'ResShiftUNet', 'ResShiftVQ']
