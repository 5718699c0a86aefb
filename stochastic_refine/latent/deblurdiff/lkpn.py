"""LKPN, DeblurDiff's latent kernel prediction network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..stable_diffusion import build_unet, unet_config
from .eac import eac

#: Latent channels.
_CHANNELS = 4


class LKPN(nn.Module):
    """Deblurs a latent by kernels that a U-Net of Stable Diffusion's kind predicts for each of its pixels.

    Args:
        channels, mults, head_channels: Of the U-Net.
        context: Channels of the text's tokens.
        kernel_size: Side of the kernels, odd.
        eac: False: the U-Net predicts the deblurred latent's difference itself, without kernels ("w/o EAC").
        sees_noisy: False: it sees the blurred latent alone, at no step and without text ("w/o SD for LKPN").
    """

    def __init__(self,
                 channels: int = 128,
                 mults: Sequence[int] = (1, 2, 4, 4),
                 head_channels: int = 64,
                 context: int = 1024,
                 kernel_size: int = 5,
                 eac: bool = True,
                 sees_noisy: bool = True) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd, got {kernel_size}.')
        self.eac = eac
        self.sees_noisy = sees_noisy
        self.unet = build_unet(unet_config(channels, mults, head_channels, context, _CHANNELS * (1 + sees_noisy),
                                           _CHANNELS * (kernel_size**2 if eac else 1)))

    def kernels(self, blurred: Tensor, noisy: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """What the U-Net says, (B, 4 k k, h, w): for each latent channel and pixel a kernel, row by row.

        Args:
            blurred, noisy: Latents, (B, 4, h, w).
            t: Steps, (B,).
            context: The text's tokens, (1 or B, 77, C).
        """
        x = (torch.cat([blurred, noisy], dim=1) if self.sees_noisy else blurred).to(self.unet.dtype)
        if not self.sees_noisy:
            t, context = torch.zeros_like(t), torch.zeros_like(context)
        return self.unet(x, t, context.expand(len(x), -1, -1).to(x.dtype), return_dict=False)[0]

    def forward(self, blurred: Tensor, noisy: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The deblurred latent, (B, 4, h, w)."""
        found = self.kernels(blurred, noisy, t, context).float()
        return blurred + (eac(blurred, found) if self.eac else found)
