"""ResShift's U-Net: residual blocks that know the step, and a Swin layer at each level. Provenance: see
:mod:`.resshift_arch`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...archs.build import arch
from ...archs.padding import reflect_pad_to_multiple
from .swin import SwinLayer


class GroupNorm32(nn.GroupNorm):
    """Group normalisation in 32 groups, computed in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__(32, channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class ResBlock(nn.Module):
    """Residual block of (B, C, H, W), scaled and shifted by what it is told of the step, (B, E)."""

    def __init__(self, channels: int, emb_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(GroupNorm32(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels))
        self.out_layers = nn.Sequential(GroupNorm32(out_channels), nn.SiLU(), nn.Dropout(dropout),
                                        nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip_connection = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.emb_layers(emb)[..., None, None].chunk(2, dim=1)
        norm, *rest = self.out_layers
        h = norm(self.in_layers(x)) * (1 + scale) + shift
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h


class Downsample(nn.Module):
    """Half the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Twice the size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode='nearest'))


class Stage(nn.Sequential):
    """Layers one after the other, of which residual blocks are also told of the step."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


def step_embedding(t: Tensor, dim: int) -> Tensor:
    """Cosines, then sines of steps t, (B,), at frequencies from 1 down to 1 / 10000: (B, dim)."""
    frequencies = torch.exp(-math.log(10000) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


@arch
class ResShiftUNet(nn.Module):
    """Predicts a sharp latent from one on its way to the blurred; arguments as in the authors' options files.

    Args:
        image_size: Nominal side of the latents, at which the network was trained; where a level's is no more than a window,
            windows are not shifted.
        in_channels, out_channels: Of the latents.
        model_channels: Channels of the first level; all are multiples of 32.
        channel_mult: Those of each level in units of these.
        num_res_blocks: Residual blocks per level going down, for each level or for all; there is one more going up.
        dropout: In residual blocks.
        num_head_channels: Channels of an attention head.
        swin_depth, swin_embed_dim, window_size, mlp_ratio: Of each level's Swin layer.

    Shape:
        x, (B, in_channels, H, W), scaled; t, (B,), the step from 0; lq, (B, 3, H, W) in [-1, 1], the image that is restored, in
        the latents' size: gives x0, (B, out_channels, H, W). x may hold lq already, as its last channels. H and W are padded
        inside by reflection to multiples of ``size_multiple``.
    """

    def __init__(self,
                 image_size: int = 64,
                 in_channels: int = 3,
                 model_channels: int = 160,
                 out_channels: int = 3,
                 channel_mult: Sequence[int] = (1, 2, 2, 4),
                 num_res_blocks: Sequence[int] | int = 2,
                 dropout: float = 0.0,
                 num_head_channels: int = 32,
                 swin_depth: int = 2,
                 swin_embed_dim: int = 192,
                 window_size: int = 8,
                 mlp_ratio: float = 4) -> None:
        super().__init__()
        levels, emb = len(channel_mult), 4 * model_channels
        blocks = [num_res_blocks] * levels if isinstance(num_res_blocks, int) else list(num_res_blocks)
        widths = [mult * model_channels for mult in channel_mult]
        self.model_channels = model_channels
        self.size_multiple = window_size * 2**(levels - 1)

        def res(channels: int, width: int) -> ResBlock:
            return ResBlock(channels, emb, width, dropout)

        def swin(level: int) -> SwinLayer:
            return SwinLayer(widths[level], image_size >> level, swin_embed_dim, swin_embed_dim // num_head_channels,
                             window_size, mlp_ratio, swin_depth)

        self.time_embed = nn.Sequential(nn.Linear(model_channels, emb), nn.SiLU(), nn.Linear(emb, emb))
        channels = model_channels
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(in_channels + 3, channels, 3, padding=1))])
        skips = [channels]
        for level, width in enumerate(widths):
            for i in range(blocks[level]):
                self.input_blocks.append(Stage(res(channels, width), *([swin(level)] if i == 0 else [])))
                channels = width
                skips.append(channels)
            if level < levels - 1:
                self.input_blocks.append(Stage(Downsample(channels)))
                skips.append(channels)
        self.middle_block = Stage(res(channels, channels), swin(levels - 1), res(channels, channels))
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(levels)):
            for i in range(blocks[level] + 1):
                layers = [res(channels + skips.pop(), widths[level]), *([swin(level)] if i == 0 else [])]
                channels = widths[level]
                if level and i == blocks[level]:
                    layers.append(Upsample(channels))
                self.output_blocks.append(Stage(*layers))
        self.out = nn.Sequential(GroupNorm32(channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, lq: Tensor | None = None) -> Tensor:
        height, width = x.shape[-2:]
        h = reflect_pad_to_multiple(x if lq is None else torch.cat([x, lq], dim=1), self.size_multiple)
        emb = self.time_embed(step_embedding(t, self.model_channels))
        skips = []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return self.out(h)[..., :height, :width]
