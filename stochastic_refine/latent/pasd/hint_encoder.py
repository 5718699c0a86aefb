"""What PASD's ControlNet reads the image by."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class HintEncoder(nn.Module):
    """Brings an image to the size of its latent; on the way it predicts what the image looks like without degradation.

    Names are those of diffusers' ``ControlNetConditioningEmbedding``, to which PASD adds ``to_rgbs`` and ``preprocesser``.

    Args:
        out_channels: Of the ControlNet's first map.
        widths: Channels at full size, and after each of the three halvings.
        rrdb: Whether two RRDB blocks follow the first convolution.
    """

    def __init__(self, out_channels: int, widths: Sequence[int] = (16, 32, 96, 256), rrdb: bool = False) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        if rrdb:
            from ...registration import prepare_basicsr
            prepare_basicsr()
            from basicsr.archs.rrdbnet_arch import RRDB
            self.preprocesser = nn.Sequential(*(RRDB(widths[0], widths[0]) for _ in range(2)))
        else:
            self.preprocesser = nn.Identity()
        self.blocks = nn.ModuleList(conv for width, wider in zip(widths, widths[1:]) for conv in (
            nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, wider, 3, stride=2, padding=1)))
        self.to_rgbs = nn.ModuleList(nn.Conv2d(width, 3, 3, padding=1) for width in widths[1:])
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)
        for parameter in self.conv_out.parameters():  # a ControlNet starts without a say
            nn.init.zeros_(parameter)

    def maps(self, image: Tensor) -> list[Tensor]:
        """The maps at 1/2, 1/4 and 1/8 of the image, (B, 3, H, W), [0, 1]."""
        x = F.silu(self.preprocesser(self.conv_in(image)))
        found = []
        for even, odd in zip(self.blocks[::2], self.blocks[1::2]):
            x = F.silu(odd(F.silu(even(x))))
            found.append(x)
        return found

    def images(self, image: Tensor) -> list[Tensor]:
        """The predicted images at 1/2, 1/4 and 1/8, [-1, 1]."""
        return [to_rgb(x) for to_rgb, x in zip(self.to_rgbs, self.maps(image))]

    def forward(self, image: Tensor) -> Tensor:
        """What is added to the ControlNet's first map, (B, C, H / 8, W / 8)."""
        return self.conv_out(self.maps(image)[-1])
