"""Restormer: "Efficient Transformer for High-Resolution Image Restoration" (Zamir et al., CVPR 2022).

Provenance: written from the paper and from facts about the published implementation (swz30/Restormer, commit df766d5):
parameter names and shapes, padding, epsilon, scaling of the attention. Released checkpoints (key ``params``) load strictly,
with no key map. The published code has no test-time local converter; the network is the same in training and in testing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .build import arch
from .nafnet_arch import LayerNorm2d
from .padding import any_size


class BiasFreeNorm2d(nn.Module):
    """Division of (B, C, H, W) by each pixel's standard deviation over channels; the mean stays in, and there is no offset."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        variance = x.var(1, keepdim=True, unbiased=False)
        return x * torch.rsqrt(variance + self.eps) * self.weight[:, None, None]


def channel_norm(channels: int, kind: str) -> nn.Sequential:
    """Normalisation over the channels of each pixel, under the published parameter names ``body.*``."""
    body = LayerNorm2d(channels, eps=1e-5) if kind == 'WithBias' else BiasFreeNorm2d(channels)
    return nn.Sequential(OrderedDict(body=body))


class ChannelAttention(nn.Module):
    """Multi-head attention between channels (MDTA): its cost grows linearly with the pixels of (B, C, H, W)."""

    def __init__(self, dim: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * dim, 3 * dim, 3, padding=1, groups=3 * dim, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv_dwconv(self.qkv(x)).flatten(2)
        q, k, v = (part.unflatten(1, (self.heads, -1)) for part in qkv.chunk(3, dim=1))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        return self.project_out((scores.softmax(-1) @ v).reshape(x.shape))


class GatedFeedForward(nn.Module):
    """Gated depthwise-convolution feed-forward (GDFN) of (B, C, H, W); the hidden width is rounded down."""

    def __init__(self, dim: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class TransformerBlock(nn.Module):
    """Channel attention, then the gated feed-forward, each on the normalised map and added to it."""

    def __init__(self, dim: int, heads: int, expansion: float, bias: bool, norm: str) -> None:
        super().__init__()
        self.norm1 = channel_norm(dim, norm)
        self.attn = ChannelAttention(dim, heads, bias)
        self.norm2 = channel_norm(dim, norm)
        self.ffn = GatedFeedForward(dim, expansion, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


def halved(dim: int) -> nn.Sequential:
    """Half the size, twice the channels."""
    body = nn.Sequential(nn.Conv2d(dim, dim // 2, 3, padding=1, bias=False), nn.PixelUnshuffle(2))
    return nn.Sequential(OrderedDict(body=body))


def doubled(dim: int) -> nn.Sequential:
    """Twice the size, half the channels."""
    body = nn.Sequential(nn.Conv2d(dim, 2 * dim, 3, padding=1, bias=False), nn.PixelShuffle(2))
    return nn.Sequential(OrderedDict(body=body))


@arch
class Restormer(nn.Module):
    """Restormer, arguments as in the authors' options files.

    Args:
        inp_channels, out_channels: Channels of input and output; they are equal unless ``dual_pixel_task``.
        dim: Channels of the first level; each level doubles them.
        num_blocks: Blocks of the four levels, on the way down and, but for the last, on the way up.
        num_refinement_blocks: Blocks at full size after the decoder.
        heads: Attention heads of the four levels.
        ffn_expansion_factor: Hidden over outer channels in the feed-forward.
        bias: Whether convolutions have one; the first one and the resampling ones never do.
        LayerNorm_type: ``WithBias`` or ``BiasFree``.
        dual_pixel_task: Map two views (six channels) to one image, which then is not added to the input.

    Shape:
        (B, inp_channels, H, W) in [0, 1], any H and W, to (B, out_channels, H, W). As in the published test script, sides
        that are no multiple of 8 are padded by reflection at the right and bottom.
    """

    size_multiple = 8

    def __init__(self,
                 inp_channels: int = 3,
                 out_channels: int = 3,
                 dim: int = 48,
                 num_blocks: Sequence[int] = (4, 6, 6, 8),
                 num_refinement_blocks: int = 4,
                 heads: Sequence[int] = (1, 2, 4, 8),
                 ffn_expansion_factor: float = 2.66,
                 bias: bool = False,
                 LayerNorm_type: str = 'WithBias',
                 dual_pixel_task: bool = False) -> None:
        super().__init__()
        if LayerNorm_type not in ('WithBias', 'BiasFree'):
            raise ValueError(f"LayerNorm_type is '{LayerNorm_type}'; it must be WithBias or BiasFree.")

        def stage(width: int, level: int, blocks: int) -> nn.Sequential:
            return nn.Sequential(*(TransformerBlock(width, heads[level], ffn_expansion_factor, bias, LayerNorm_type)
                                   for _ in range(blocks)))

        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(inp_channels, dim, 3, padding=1, bias=False)))
        self.encoder_level1 = stage(dim, 0, num_blocks[0])
        self.down1_2 = halved(dim)
        self.encoder_level2 = stage(2 * dim, 1, num_blocks[1])
        self.down2_3 = halved(2 * dim)
        self.encoder_level3 = stage(4 * dim, 2, num_blocks[2])
        self.down3_4 = halved(4 * dim)
        self.latent = stage(8 * dim, 3, num_blocks[3])
        self.up4_3 = doubled(8 * dim)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=bias)
        self.decoder_level3 = stage(4 * dim, 2, num_blocks[2])
        self.up3_2 = doubled(4 * dim)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=bias)
        self.decoder_level2 = stage(2 * dim, 1, num_blocks[1])
        self.up2_1 = doubled(2 * dim)
        # Level 1 keeps the channels of the concatenation: there is no reduction here.
        self.decoder_level1 = stage(2 * dim, 0, num_blocks[0])
        self.refinement = stage(2 * dim, 0, num_refinement_blocks)
        self.skip_conv = nn.Conv2d(dim, 2 * dim, 1, bias=bias) if dual_pixel_task else None
        self.output = nn.Conv2d(2 * dim, out_channels, 3, padding=1, bias=bias)

    @any_size(size_multiple)
    def forward(self, inp_img: Tensor) -> Tensor:
        embedded = self.patch_embed(inp_img)
        skip1 = self.encoder_level1(embedded)
        skip2 = self.encoder_level2(self.down1_2(skip1))
        skip3 = self.encoder_level3(self.down2_3(skip2))
        x = self.up4_3(self.latent(self.down3_4(skip3)))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([x, skip3], dim=1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(x), skip2], dim=1)))
        x = self.refinement(self.decoder_level1(torch.cat([self.up2_1(x), skip1], dim=1)))
        if self.skip_conv is not None:
            return self.output(x + self.skip_conv(embedded))
        return self.output(x) + inp_img
