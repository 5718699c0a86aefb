"""MPRNet: "Multi-Stage Progressive Image Restoration" (Zamir et al., CVPR 2021), the deblurring network.

Provenance: written from the paper and from facts about the published implementation (swz30/MPRNet, commit 43feb2a,
Deblurring/MPRNet.py): parameter names and shapes, wiring, resizing; no line of its code is used. Released checkpoints (key
``state_dict``) load strictly, with no key map. One PReLU slope serves the whole network, and stands in the state dict under
the name of each place that uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from .build import arch
from .padding import any_size


def _conv(in_channels: int, out_channels: int, kernel_size: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)


def split_patches(x: Tensor, dim: int) -> Tensor:
    """The two halves of (B, C, H, W) along ``dim``, one behind the other in the batch: each is an image of its own."""
    return torch.cat(x.chunk(2, dim))


def join_patches(x: Tensor, dim: int) -> Tensor:
    """Undo :func:`split_patches`."""
    return torch.cat(x.chunk(2), dim)


class ChannelAttention(nn.Module):
    """Scales each channel of (B, C, H, W) by a gate in (0, 1) computed from all channels' means."""

    def __init__(self, channels: int, reduction: int, bias: bool = False) -> None:
        super().__init__()
        self.conv_du = nn.Sequential(_conv(channels, channels // reduction, 1, bias), nn.ReLU(),
                                     _conv(channels // reduction, channels, 1, bias), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(x.mean((2, 3), keepdim=True))


class ChannelAttentionBlock(nn.Module):
    """Residual block (CAB in the paper): convolution, activation, convolution, channel attention; plus its input."""

    def __init__(self, channels: int, kernel_size: int, reduction: int, bias: bool, act: nn.Module) -> None:
        super().__init__()
        self.CA = ChannelAttention(channels, reduction, bias)
        self.body = nn.Sequential(_conv(channels, channels, kernel_size, bias), act,
                                  _conv(channels, channels, kernel_size, bias))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.CA(self.body(x))


class OriginalResolutionBlock(nn.Module):
    """Channel-attention blocks and a convolution, plus the input (ORB in the paper)."""

    def __init__(self, channels: int, num_cab: int, kernel_size: int, bias: bool, cab: partial) -> None:
        super().__init__()
        self.body = nn.Sequential(*(cab(channels) for _ in range(num_cab)), _conv(channels, channels, kernel_size, bias))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SupervisedAttention(nn.Module):
    """Supervised attention module (SAM in the paper): a stage's restored image, and features gated by it.

    Forward: features (B, C, H, W) and the degraded image (B, out_c, H, W) to (gated features, restored image).
    """

    def __init__(self, channels: int, out_c: int = 3, kernel_size: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, kernel_size, bias)
        self.conv2 = _conv(channels, out_c, kernel_size, bias)
        self.conv3 = _conv(out_c, channels, kernel_size, bias)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        restored = self.conv2(x) + image
        return x + self.conv1(x) * torch.sigmoid(self.conv3(restored)), restored


class Rescale(nn.Module):
    """Bilinear resizing, then a 1x1 convolution; held as ``.down`` or ``.up``, as the released checkpoints name it."""

    def __init__(self, name: str, in_channels: int, out_channels: int) -> None:
        super().__init__()
        factor = {'down': 0.5, 'up': 2.0}[name]
        resize = nn.Upsample(scale_factor=factor, mode='bilinear', align_corners=False)
        self.add_module(name, nn.Sequential(resize, _conv(in_channels, out_channels, 1)))
        self.resize = name

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.resize)(x)


class Encoder(nn.Module):
    """Features of an image (part) at three levels; with ``csff``, those of the previous stage are added at each level."""

    def __init__(self, channels: Sequence[int], cab: partial, csff: bool) -> None:
        super().__init__()
        self.csff = csff
        for level, c in enumerate(channels, 1):
            self.add_module(f'encoder_level{level}', nn.Sequential(cab(c), cab(c)))
            if csff:
                self.add_module(f'csff_enc{level}', _conv(c, c, 1))
                self.add_module(f'csff_dec{level}', _conv(c, c, 1))
        self.down12, self.down23 = (Rescale('down', fine, coarse) for fine, coarse in pairwise(channels))

    def forward(self, x: Tensor, encoded: Sequence[Tensor] = (), decoded: Sequence[Tensor] = ()) -> list[Tensor]:
        features = []
        for level, down in enumerate((nn.Identity(), self.down12, self.down23), 1):
            x = self.get_submodule(f'encoder_level{level}')(down(x))
            if self.csff:
                x = x + self.get_submodule(f'csff_enc{level}')(encoded[level - 1])
                x = x + self.get_submodule(f'csff_dec{level}')(decoded[level - 1])
            features.append(x)
        return features


class Decoder(nn.Module):
    """Decoded features at three levels, finest first, from the encoder's."""

    def __init__(self, channels: Sequence[int], cab: partial) -> None:
        super().__init__()
        for level, c in enumerate(channels, 1):
            self.add_module(f'decoder_level{level}', nn.Sequential(cab(c), cab(c)))
        self.skip_attn1, self.skip_attn2 = cab(channels[0]), cab(channels[1])
        self.up21, self.up32 = (Rescale('up', coarse, fine) for fine, coarse in pairwise(channels))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        coarse = self.decoder_level3(features[2])
        middle = self.decoder_level2(self.up32(coarse) + self.skip_attn2(features[1]))
        fine = self.decoder_level1(self.up21(middle) + self.skip_attn1(features[0]))
        return [fine, middle, coarse]


class OriginalResolutionNet(nn.Module):
    """The last stage (ORSNet in the paper): no downsampling; the previous stage's features are added after each block."""

    def __init__(self, channels: Sequence[int], width: int, orb: partial) -> None:
        super().__init__()
        for level in (1, 2, 3):
            self.add_module(f'orb{level}', orb(width))
            for source in ('enc', 'dec'):
                self.add_module(f'conv_{source}{level}', _conv(channels[0], width, 1))
        for source in ('enc', 'dec'):
            self.add_module(f'up_{source}1', Rescale('up', channels[1], channels[0]))
            self.add_module(f'up_{source}2', nn.Sequential(Rescale('up', channels[2], channels[1]),
                                                           Rescale('up', channels[1], channels[0])))

    def forward(self, x: Tensor, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
        for level in (1, 2, 3):
            x = self.get_submodule(f'orb{level}')(x)
            for source, features in (('enc', encoded), ('dec', decoded)):
                fine = features[level - 1]
                if level > 1:
                    fine = self.get_submodule(f'up_{source}{level - 1}')(fine)
                x = x + self.get_submodule(f'conv_{source}{level}')(fine)
        return x


@arch
class MPRNet(nn.Module):
    """MPRNet: U-Nets over quarters, then over halves of the image, then a stage at its resolution.

    Args:
        in_c, out_c: Channels of input and output, which must be equal: each stage adds the input.
        n_feat: Channels of the first two stages at the finest level.
        scale_unetfeats: Channels that each coarser level has more.
        scale_orsnetfeats: Channels that the last stage has more.
        num_cab: Channel-attention blocks in each of the last stage's three blocks.
        kernel_size: Of the main convolutions.
        reduction: Factor by which channel attention squeezes the channels.
        bias: Whether the main convolutions have biases.

    Shape:
        (B, in_c, H, W) in [0, 1] to [stage 3, stage 2, stage 1], each like the input; padded by reflection to a multiple of 8.
    """

    size_multiple = 8
    output_index = 0

    def __init__(self,
                 in_c: int = 3,
                 out_c: int = 3,
                 n_feat: int = 96,
                 scale_unetfeats: int = 48,
                 scale_orsnetfeats: int = 32,
                 num_cab: int = 8,
                 kernel_size: int = 3,
                 reduction: int = 4,
                 bias: bool = False) -> None:
        super().__init__()
        if in_c != out_c:
            raise ValueError(f'in_c and out_c must be equal, got {in_c} and {out_c}.')
        cab = partial(ChannelAttentionBlock, kernel_size=kernel_size, reduction=reduction, bias=bias, act=nn.PReLU())
        orb = partial(OriginalResolutionBlock, num_cab=num_cab, kernel_size=kernel_size, bias=bias, cab=cab)
        channels = [n_feat + level * scale_unetfeats for level in range(3)]
        width = n_feat + scale_orsnetfeats
        self.shallow_feat1, self.shallow_feat2, self.shallow_feat3 = (
            nn.Sequential(_conv(in_c, n_feat, kernel_size, bias), cab(n_feat)) for _ in range(3))
        self.stage1_encoder = Encoder(channels, cab, csff=False)
        self.stage1_decoder = Decoder(channels, cab)
        self.stage2_encoder = Encoder(channels, cab, csff=True)
        self.stage2_decoder = Decoder(channels, cab)
        self.stage3_orsnet = OriginalResolutionNet(channels, width, orb)
        self.sam12, self.sam23 = (SupervisedAttention(n_feat, out_c, kernel_size=1, bias=bias) for _ in range(2))
        self.concat12 = _conv(2 * n_feat, n_feat, kernel_size, bias)
        self.concat23 = _conv(2 * n_feat, width, kernel_size, bias)
        self.tail = _conv(width, out_c, kernel_size, bias)

    @any_size(size_multiple)
    def forward(self, x: Tensor) -> list[Tensor]:
        halves = split_patches(x, -2)
        quarters = split_patches(halves, -1)
        encoded = [join_patches(f, -1) for f in self.stage1_encoder(self.shallow_feat1(quarters))]
        decoded = self.stage1_decoder(encoded)
        gated, stage1 = self.sam12(decoded[0], halves)

        fused = self.concat12(torch.cat([self.shallow_feat2(halves), gated], 1))
        encoded = [join_patches(f, -2) for f in self.stage2_encoder(fused, encoded, decoded)]
        decoded = self.stage2_decoder(encoded)
        gated, stage2 = self.sam23(decoded[0], x)

        fused = self.concat23(torch.cat([self.shallow_feat3(x), gated], 1))
        stage3 = self.tail(self.stage3_orsnet(fused, encoded, decoded)) + x
        return [stage3, stage2, join_patches(stage1, -2)]
