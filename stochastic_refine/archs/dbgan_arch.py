"""Deblurring generator of DBGAN: "Deblurring by Realistic Blurring" (Zhang et al., CVPR 2020).

Provenance: written from the paper and from facts about the published implementation
(HDCVLab/Deblurring-by-Realistic-Blurring, commit 8f6944f): parameter names and shapes, residual scales, the clamp. Released
checkpoints (``G.pth``, a bare state dict) load strictly, with no key map. The network is ESRGAN's residual-in-residual dense
network (Wang et al., 2018) without upsampling. The blurring GAN and the training settings were not released.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .build import arch

#: Factor on the residual of every dense block, and on that of three of them together.
RESIDUAL_SCALE = 0.2


class ResidualDenseBlock(nn.Module):
    """Five convolutions of (B, C, H, W), each reading all maps before it; the last one's, scaled, is added to the input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for index in range(4):
            conv = nn.Conv2d(channels + index * growth, growth, 3, padding=1)
            self.add_module(f'conv{index + 1}', nn.Sequential(conv, nn.LeakyReLU(0.2)))
        self.conv5 = nn.Sequential(nn.Conv2d(channels + 4 * growth, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        maps = x
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            maps = torch.cat([maps, layer(maps)], dim=1)
        return x + RESIDUAL_SCALE * self.conv5(maps)


class ResidualInResidualDenseBlock(nn.Module):
    """Three dense blocks (RRDB) of (B, C, H, W), whose output is added, scaled, to the input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.RDB1 = ResidualDenseBlock(channels, growth)
        self.RDB2 = ResidualDenseBlock(channels, growth)
        self.RDB3 = ResidualDenseBlock(channels, growth)

    def forward(self, x: Tensor) -> Tensor:
        return x + RESIDUAL_SCALE * self.RDB3(self.RDB2(self.RDB1(x)))


class Trunk(nn.Module):
    """``blocks`` RRDBs and a convolution, with a skip around them all."""

    def __init__(self, channels: int, blocks: int, growth: int) -> None:
        super().__init__()
        self.sub1 = nn.Sequential(*(ResidualInResidualDenseBlock(channels, growth) for _ in range(blocks)))
        self.sub2 = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sub2(self.sub1(x))


@arch
class DBGAN(nn.Module):
    """DBGAN's deblurring generator, arguments as in the authors' options files.

    Args:
        in_nc, out_nc: Channels of input and output, equal.
        nf: Channels of the trunk.
        nb: Number of RRDBs.
        gc: Channels that each convolution of a dense block adds.

    Shape:
        (B, in_nc, H, W) in [0, 1] to the same, any H and W: nothing is resampled, so nothing is padded. The output is clamped
        to [0, 1] in training too, as published, so pixels outside have no gradient.
    """

    size_multiple = 1

    def __init__(self, in_nc: int = 3, out_nc: int = 3, nf: int = 64, nb: int = 16, gc: int = 32) -> None:
        super().__init__()
        # One pixel per 3x3 convolution on the longest path: 15 in each RRDB and 4 around them.
        self.tile_halo = 15 * nb + 4
        self.model = nn.Sequential(
            nn.Conv2d(in_nc, nf, 3, padding=1),
            Trunk(nf, nb, gc),
            nn.Conv2d(nf, nf, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(nf, out_nc, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.model(x)).clamp(0, 1)
