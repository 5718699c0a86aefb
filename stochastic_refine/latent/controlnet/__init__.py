"""A ControlNet on Stable Diffusion 2.1 that sees the blurred image's latent: the baseline of DeblurDiff's tables."""

from .controlnet_arch import ControlNet

__all__ = ['ControlNet']
