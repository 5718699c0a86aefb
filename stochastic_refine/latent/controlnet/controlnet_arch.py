"""ControlNet on Stable Diffusion 2.1, controlled by the blurred image's latent.

The row "ControlNet" of DeblurDiff's tables. How it sees the blurred image is not published; here, as in DeblurDiff
without its kernels, the latent is put beside the noisy one: 8 channels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...archs.build import arch
from ..latent_net import LatentNet
from ..sharing import is_planned
from ..stable_diffusion import build_control, controls, economise, predict_noise, start_from_unet


class ControlledUNet(nn.Module):
    """A frozen U-Net and the ControlNet that steers it."""

    #: What sides of latents must be a multiple of, for tiles.
    size_multiple = 8

    def __init__(self, unet: nn.Module, control: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.control = control

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The predicted noise, (B, 4, h, w).

        Args:
            x: Noisy and blurred latent, (B, 8, h, w).
            t: Steps, (B,).
            context: The text's tokens, (1 or B, 77, C).
        """
        return predict_noise(self.unet, x[:, :4], t, context, controls(self.control, x, t, context))


@arch
class ControlNet(LatentNet):
    """See the module's docstring.

    Args:
        **base: Of :class:`~stochastic_refine.latent.latent_net.LatentNet`.
    """

    def __init__(self, **base: Any) -> None:
        super().__init__(**base)
        self.controlnet = add_control(self, 8)
        self.complete(ControlledUNet(self.base.unet, self.controlnet))


def add_control(net: LatentNet, in_channels: int) -> nn.Module:
    """A ControlNet that starts from the U-Net's weights, where there are any."""
    control = build_control(net.base.unet.config, in_channels)
    if not is_planned():
        start_from_unet(control, net.base.unet)
    economise(control, **net.savings)
    return control
