"""HINet: "HINet: Half Instance Normalization Network for Image Restoration" (Chen et al., CVPR Workshops 2021).

Provenance: written from the paper and from facts about the published implementation (megvii-model/HINet, commit 4e72315):
parameter names and shapes, wiring, epsilon; no line of its code is used. Released checkpoints (key ``params``) load strictly,
with no key map. Instance norm takes its statistics from the image it is given, so the authors score overlapping crops of
256x256, the size of training, rather than whole images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .build import arch
from .mprnet_arch import SupervisedAttention
from .padding import reflect_pad_to_multiple


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class HINBlock(nn.Module):
    """Two 3x3 convolutions with leaky ReLU, plus a 1x1 convolution of the input: (B, in, H, W) to (B, out, H, W).

    Args:
        in_channels, out_channels: Channels of input and output.
        slope: Negative slope of the leaky ReLUs.
        half_norm: Normalise the first half of the channels per image, after the first convolution.
        csff: Add 3x3 convolutions of an earlier stage's encoder and decoder features (cross-stage feature fusion).
        downsample: Hold the 4x4 convolution, called by the network, that halves the output's sides.
    """

    def __init__(self, in_channels: int, out_channels: int, slope: float, half_norm: bool = False, csff: bool = False,
                 downsample: bool = False) -> None:
        super().__init__()
        self.slope = slope
        self.identity = nn.Conv2d(in_channels, out_channels, 1)
        self.conv_1 = _conv3x3(in_channels, out_channels)
        self.conv_2 = _conv3x3(out_channels, out_channels)
        self.csff_enc = _conv3x3(out_channels, out_channels) if csff else None
        self.csff_dec = _conv3x3(out_channels, out_channels) if csff else None
        self.norm = nn.InstanceNorm2d(out_channels // 2, affine=True) if half_norm else None
        self.downsample = nn.Conv2d(out_channels, out_channels, 4, 2, 1, bias=False) if downsample else None

    def forward(self, x: Tensor, encoded: Tensor | None = None, decoded: Tensor | None = None) -> Tensor:
        h = self.conv_1(x)
        if self.norm is not None:
            normed, plain = h.chunk(2, dim=1)
            h = torch.cat([self.norm(normed), plain], dim=1)
        h = F.leaky_relu(self.conv_2(F.leaky_relu(h, self.slope)), self.slope) + self.identity(x)
        if self.csff_enc is not None:
            h = h + self.csff_enc(encoded) + self.csff_dec(decoded)
        return h


class UpBlock(nn.Module):
    """Doubles the sides, halves the channels, and fuses the skip connection, which has the output's shape."""

    def __init__(self, in_channels: int, out_channels: int, slope: float) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.conv_block = HINBlock(2 * out_channels, out_channels, slope)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv_block(torch.cat([self.up(x), skip], dim=1))


@arch
class HINet(nn.Module):
    """HINet: two U-Nets in a row, arguments as in the authors' options files.

    Args:
        in_chn: Channels of input and output.
        wf: Channels of the first level; each level doubles them.
        depth: Levels; all but the last downsample.
        relu_slope: Negative slope of the leaky ReLUs.
        hin_position_left, hin_position_right: First and last encoder level with half instance normalisation. The authors'
            options file for GoPro says 3 and 4.

    Shape:
        (B, in_chn, H, W) in [0, 1] to [stage 1, stage 2], each like the input; padded by reflection to a multiple of
        2^(depth - 1).
    """

    def __init__(self,
                 in_chn: int = 3,
                 wf: int = 64,
                 depth: int = 5,
                 relu_slope: float = 0.2,
                 hin_position_left: int = 0,
                 hin_position_right: int = 4) -> None:
        super().__init__()
        self.size_multiple = 2**(depth - 1)
        widths = [wf * 2**level for level in range(depth)]

        def encoder(csff: bool) -> nn.ModuleList:
            return nn.ModuleList(
                HINBlock(widths[max(level - 1, 0)], widths[level], relu_slope,
                         half_norm=hin_position_left <= level <= hin_position_right,
                         csff=csff and level < depth - 1, downsample=level < depth - 1) for level in range(depth))

        self.down_path_1, self.down_path_2 = encoder(csff=False), encoder(csff=True)
        self.conv_01, self.conv_02 = _conv3x3(in_chn, wf), _conv3x3(in_chn, wf)
        coarse_to_fine = widths[-2::-1]
        self.up_path_1, self.up_path_2 = (
            nn.ModuleList(UpBlock(2 * width, width, relu_slope) for width in coarse_to_fine) for _ in range(2))
        self.skip_conv_1, self.skip_conv_2 = (
            nn.ModuleList(_conv3x3(width, width) for width in coarse_to_fine) for _ in range(2))
        self.sam12 = SupervisedAttention(wf, in_chn, kernel_size=3, bias=True)
        self.cat12 = nn.Conv2d(2 * wf, wf, 1)
        self.last = _conv3x3(wf, in_chn)

    def forward(self, x: Tensor) -> list[Tensor]:
        height, width = x.shape[-2:]
        # instance normalisation needs more than one pixel at the coarsest level
        least = self.size_multiple if max(height, width) > self.size_multiple else 2 * self.size_multiple
        image = reflect_pad_to_multiple(x, least)
        h, encoded = self._encode(self.down_path_1, self.conv_01(image))
        decoded = self._decode(self.up_path_1, self.skip_conv_1, h, encoded)
        gated, stage1 = self.sam12(decoded[0], image)
        h = self.cat12(torch.cat([self.conv_02(image), gated], dim=1))
        h, encoded = self._encode(self.down_path_2, h, encoded, decoded)
        stage2 = self.last(self._decode(self.up_path_2, self.skip_conv_2, h, encoded)[0]) + image
        return [stage[..., :height, :width] for stage in (stage1, stage2)]

    @staticmethod
    def _encode(blocks: nn.ModuleList, x: Tensor, *fused: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The coarsest features, and those of the levels above it, finest first."""
        features = []
        for level, block in enumerate(blocks[:-1]):
            h = block(x, *(f[level] for f in fused))
            features.append(h)
            x = block.downsample(h)
        return blocks[-1](x), features

    @staticmethod
    def _decode(ups: nn.ModuleList, skips: nn.ModuleList, x: Tensor, encoded: list[Tensor]) -> list[Tensor]:
        """The decoded features of each level but the coarsest, finest first."""
        features = []
        for up, skip, e in zip(ups, skips, reversed(encoded)):
            x = up(x, skip(e))
            features.append(x)
        return features[::-1]
