"""DiffBIR (Lin et al., ECCV 2024): any network restores first, and Stable Diffusion adds what that cannot know."""

from . import published  # noqa: F401  (recognises the authors' files)
from .bsrnet_arch import BSRNet
from .diffbir_arch import DiffBIR, DiffBIRv21

__all__ = ['BSRNet', 'DiffBIR', 'DiffBIRv21']
