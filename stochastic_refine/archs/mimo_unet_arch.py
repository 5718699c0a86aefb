"""MIMO-UNet and MIMO-UNet+: "Rethinking Coarse-to-Fine Approach in Single Image Deblurring" (Cho et al., ICCV 2021).

Provenance: written from the paper and from facts about the published implementation (chosj95/MIMO-UNet, commit 5c58013):
parameter names and shapes, wiring, resizing; no line of its code is used. Released checkpoints (key ``model``) load strictly,
with no key map. As published, all resizing inside is nearest-neighbour.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .build import arch
from .padding import any_size


def _half(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=0.5)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0)


class ConvLayer(nn.Module):
    """Convolution with bias, with a ReLU unless told otherwise.

    Args:
        in_channels, out_channels: Channels of input and output.
        kernel_size: Of a convolution that keeps the sides.
        relu: Whether a ReLU follows.
        scale: 0.5 halves the sides by a stride of 2, 2 doubles them by a 4x4 transposed convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, relu: bool = True, scale: float = 1) -> None:
        super().__init__()
        if scale > 1:
            conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1)
        else:
            conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=round(1 / scale), padding=kernel_size // 2)
        self.main = nn.Sequential(conv, nn.ReLU()) if relu else nn.Sequential(conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class ResidualBlock(nn.Module):
    """Convolution, ReLU, convolution; plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(ConvLayer(channels, channels), ConvLayer(channels, channels, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


class ResidualBlocks(nn.Module):
    """Residual blocks in a row: one level of encoder or decoder."""

    def __init__(self, channels: int, num_res: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(ResidualBlock(channels) for _ in range(num_res)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ShallowConv(nn.Module):
    """Features of a downscaled input image, (B, 3, H, W) to (B, channels, H, W) (SCM in the paper)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(ConvLayer(3, channels // 4, 3), ConvLayer(channels // 4, channels // 2, 1),
                                  ConvLayer(channels // 2, channels // 2, 3), ConvLayer(channels // 2, channels - 3, 1))
        self.conv = ConvLayer(channels, channels, 1, relu=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(torch.cat([image, self.main(image)], dim=1))


class FeatureAttention(nn.Module):
    """Lets one feature map emphasise or suppress another: ``a + conv(a * b)`` (FAM in the paper)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.merge = ConvLayer(channels, channels, relu=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + self.merge(a * b)


class FeatureFusion(nn.Module):
    """Fuses the features of all three levels, resized to one of them (AFF in the paper)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(ConvLayer(in_channels, out_channels, 1), ConvLayer(out_channels, out_channels, relu=False))

    def forward(self, *features: Tensor) -> Tensor:
        return self.conv(torch.cat(features, dim=1))


@arch
class MIMOUNet(nn.Module):
    """MIMO-UNet: one U-Net that takes the image at three scales and restores it at three.

    Args:
        num_res: Residual blocks per level of encoder and decoder.
        base_channel: Channels of the first level; each level doubles them.
        dropout: Probability with which training drops a channel of the fused features.

    Shape:
        (B, 3, H, W) in [0, 1] to [quarter size, half size, full size], the smaller sides rounded up; padded by reflection
        inside to a multiple of 4.
    """

    size_multiple = 4

    def __init__(self, num_res: int = 8, base_channel: int = 32, dropout: float = 0.0) -> None:
        super().__init__()
        c1, c2, c3 = base_channel, 2 * base_channel, 4 * base_channel
        self.Encoder = nn.ModuleList(ResidualBlocks(c, num_res) for c in (c1, c2, c3))
        self.feat_extract = nn.ModuleList([
            ConvLayer(3, c1), ConvLayer(c1, c2, scale=0.5), ConvLayer(c2, c3, scale=0.5),
            ConvLayer(c3, c2, scale=2), ConvLayer(c2, c1, scale=2), ConvLayer(c1, 3, relu=False)])
        self.Decoder = nn.ModuleList(ResidualBlocks(c, num_res) for c in (c3, c2, c1))
        self.Convs = nn.ModuleList([ConvLayer(c3, c2, 1), ConvLayer(c2, c1, 1)])
        self.ConvsOut = nn.ModuleList([ConvLayer(c3, 3, relu=False), ConvLayer(c2, 3, relu=False)])
        self.AFFs = nn.ModuleList(FeatureFusion(c1 + c2 + c3, c) for c in (c1, c2))
        self.FAM1, self.SCM1 = FeatureAttention(c3), ShallowConv(c3)
        self.FAM2, self.SCM2 = FeatureAttention(c2), ShallowConv(c2)
        self.dropout = nn.Dropout2d(dropout)
        # Two 3x3 convolutions a block: at sides 1/1, 1/2 and 1/4 on the way down, and on the way up again. The rest: the
        # convolutions that change sides, attention, and up to 3 pixels' shift of nearest-neighbour resizing.
        self.tile_halo = 2 * (2 + 4 + 8) * num_res + 20

    @any_size(size_multiple)
    def forward(self, x: Tensor) -> list[Tensor]:
        half = _half(x)
        quarter = _half(half)
        into1, into2, into3, out_of3, out_of2, out_of1 = self.feat_extract

        e1 = self.Encoder[0](into1(x))
        e2 = self.Encoder[1](self.FAM2(into2(e1), self.SCM2(half)))
        e3 = self.Encoder[2](self.FAM1(into3(e2), self.SCM1(quarter)))
        fused1 = self.dropout(self.AFFs[0](e1, _double(e2), _double(_double(e3))))
        fused2 = self.dropout(self.AFFs[1](_half(e1), e2, _double(e3)))

        d3 = self.Decoder[0](e3)
        d2 = self.Decoder[1](self.Convs[0](torch.cat([out_of3(d3), fused2], dim=1)))
        d1 = self.Decoder[2](self.Convs[1](torch.cat([out_of2(d2), fused1], dim=1)))
        return [self.ConvsOut[0](d3) + quarter, self.ConvsOut[1](d2) + half, out_of1(d1) + x]


@arch
class MIMOUNetPlus(MIMOUNet):
    """MIMO-UNet+: more residual blocks, and dropout of fused features; see :class:`MIMOUNet`."""

    def __init__(self, num_res: int = 20, base_channel: int = 32, dropout: float = 0.1) -> None:
        super().__init__(num_res, base_channel, dropout)
