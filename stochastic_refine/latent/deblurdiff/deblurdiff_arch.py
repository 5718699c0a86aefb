"""DeblurDiff (Kong et al., NeurIPS 2025): Stable Diffusion 2.1 steered by a latent that is deblurred anew at each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...archs.build import arch
from ..controlnet.controlnet_arch import add_control
from ..latent_net import LatentNet
from ..stable_diffusion import controls, economise, predict_noise
from .lkpn import LKPN


class KernelControlledUNet(nn.Module):
    """A frozen U-Net, a ControlNet, and the network that deblurs the latent for it."""

    #: What sides of latents must be a multiple of, for tiles.
    size_multiple = 8

    def __init__(self, unet: nn.Module, control: nn.Module, kpn: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.control = control
        self.kpn = kpn

    def predict(self, x: Tensor, t: Tensor, context: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The noise and the deblurred latent, (B, 4, h, w), and the ControlNet's maps.

        Args:
            x: Noisy and blurred latent, (B, 8, h, w).
            t: Steps, (B,).
            context: The text's tokens, (1 or B, 77, C).
        """
        noisy, blurred = x.chunk(2, dim=1)
        deblurred = self.kpn(blurred, noisy, t, context)
        added = controls(self.control, torch.cat([x, deblurred], dim=1), t, context)
        return predict_noise(self.unet, noisy, t, context, added), deblurred, added

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The predicted noise alone."""
        return self.predict(x, t, context)[0]


@arch
class DeblurDiff(LatentNet):
    """See the module's docstring.

    Args:
        kpn_channels, kpn_mults, kpn_head_channels, kernel_size: Of :class:`LKPN`.
        eac: False leaves the kernels out ("w/o EAC" of the paper's ablation; how is our reading, see :class:`LKPN`).
        sd_for_lkpn: False lets the LKPN see the blurred latent alone ("w/o SD for LKPN"; likewise).
        attention_window: As published by default.
        **base: Of :class:`~stochastic_refine.latent.latent_net.LatentNet`.
    """

    losses: ClassVar = {'noise': 'MSELoss', 'latent': 'MSELoss'}
    #: The rows of the paper's ablation, as changed options, and the published table of them.
    variants: ClassVar = {'ControlNet': {'type': 'ControlNet'}, 'w/o EAC': {'eac': False},
                          'w/o SD for LKPN': {'sd_for_lkpn': False}, 'DeblurDiff': {}}
    published_variants: ClassVar = 'deblurdiff_ablation'

    def __init__(self,
                 kpn_channels: int = 128,
                 kpn_mults: Sequence[int] = (1, 2, 4, 4),
                 kpn_head_channels: int = 64,
                 kernel_size: int = 5,
                 eac: bool = True,
                 sd_for_lkpn: bool = True,
                 attention_window: int | None = 64,
                 **base: Any) -> None:
        super().__init__(attention_window=attention_window, **base)
        self.kpn = LKPN(kpn_channels, kpn_mults, kpn_head_channels, self.base.unet.config.cross_attention_dim, kernel_size,
                        eac=eac, sees_noisy=sd_for_lkpn)
        economise(self.kpn.unet, **self.savings)
        self.controlnet = add_control(self, 12)
        self.complete(KernelControlledUNet(self.base.unet, self.controlnet, self.kpn))

    def targets(self, noisy: Tensor, blurred: Tensor, sharp: Tensor, noise: Tensor, t: Tensor,
                context: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        predicted, deblurred, _ = self._denoiser.predict(torch.cat([noisy, blurred], dim=1), t, context)
        return {'noise': (predicted, noise), 'latent': (deblurred, sharp)}
