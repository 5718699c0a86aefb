"""EVSSM: "Efficient Visual State Space Model for Image Deblurring" (Kong et al., CVPR 2025).

Provenance: written from the paper and from facts about the published implementation (kkkls/EVSSM, commit 5098a52): parameter
names and shapes, the order of the transformations, epsilon, windows. Released checkpoints (key ``params``) load strictly, with
no key map. The published code has two versions of the network with the same parameters; here one is both, see ``windows``.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .build import arch
from .fftformer_arch import PATCH, from_patch_spectra, patch_spectra, resample
from .padding import any_size, even_starts, reflect_pad_to_multiple
from .selective_scan import selective_scan


class RMSNorm2d(nn.Module):
    """Division of (B, C, H, W) by each pixel's root mean square over the channels; the mean stays in."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.square().mean(1, keepdim=True) + self.eps)
        return x * self.weight[:, None, None] + self.bias[:, None, None]


def _norm(channels: int) -> nn.Sequential:
    """The norm under the published parameter names ``body.*``."""
    return nn.Sequential(OrderedDict(body=RMSNorm2d(channels)))


class StateSpace(nn.Module):
    """One selective scan over the pixels of (B, C, H, W), row by row.

    Args:
        dim: C; the scan has twice as many channels.
        d_state: Numbers of the state of each channel.
    """

    def __init__(self, dim: int, d_state: int = 8) -> None:
        super().__init__()
        inner, rank = 2 * dim, math.ceil(dim / 16)
        projected = rank + 2 * d_state
        self.split = [rank, d_state, d_state]
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.x_proj_weight = nn.Parameter(torch.empty(1, projected, inner))
        self.x_conv = nn.Conv1d(projected, projected, 7, padding=3, groups=projected)
        self.dt_projs_weight = nn.Parameter(torch.empty(1, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(1, inner))
        self.A_logs = nn.Parameter(torch.arange(1., d_state + 1).log().repeat(inner, 1))  # A = -1, -2, ... as in S4D
        self.Ds = nn.Parameter(torch.ones(inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        nn.init.uniform_(self.x_proj_weight, -inner**-0.5, inner**-0.5)
        nn.init.uniform_(self.dt_projs_weight, -rank**-0.5, rank**-0.5)
        # As in Mamba: step sizes, softplus of the bias, are spread evenly in their logarithm from 0.001 to 0.1.
        steps = torch.empty_like(self.dt_projs_bias).uniform_(math.log(0.001), math.log(0.1)).exp()
        self.dt_projs_bias.data.copy_(steps + torch.log(-torch.expm1(-steps)))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        x, z = self.in_proj(x.permute(0, 2, 3, 1)).chunk(2, dim=-1)
        u = F.gelu(self.conv2d(x.permute(0, 3, 1, 2))).flatten(2)
        maps = self.x_conv(self.x_proj_weight[0] @ u).transpose(1, 2)
        dt, B, C = maps.split(self.split, dim=-1)
        dt = F.softplus((dt @ self.dt_projs_weight[0].t() + self.dt_projs_bias[0]).float())
        y = selective_scan(u.transpose(1, 2), dt, -self.A_logs.float().exp(), B, C, self.Ds)
        y = self.out_norm(y).unflatten(1, size) * F.gelu(z)
        return self.out_proj(y).permute(0, 3, 1, 2)


class FrequencyFilteredFeedForward(nn.Module):
    """A gated MLP of (B, C, H, W), then learned gains for the frequencies of its output's patches of 8x8."""

    def __init__(self, dim: int, expansion: float, bias: bool) -> None:
        super().__init__()
        hidden = int(dim * expansion)
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.fft = nn.Parameter(torch.ones(dim, 1, 1, PATCH, PATCH // 2 + 1))
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        x = reflect_pad_to_multiple(self.project_out(F.gelu(gate) * value), PATCH)
        return from_patch_spectra(patch_spectra(x) * self.fft)[..., :height, :width]


class ScanBlock(nn.Module):
    """A scan and a feed-forward, each on the normalised map and added to it, of the map turned over first.

    Turning it, and never back, lets scans of one direction see all: the next block goes on from there.

    Args:
        dim: Channels of the map.
        flips: Whether both axes are flipped; else they are exchanged.
        expansion, bias: Of the feed-forward.
    """

    def __init__(self, dim: int, flips: bool, expansion: float, bias: bool) -> None:
        super().__init__()
        self.flips = flips
        self.window: int | None = None
        self.norm1 = _norm(dim)
        self.attn = StateSpace(dim)
        self.norm2 = _norm(dim)
        self.ffn = FrequencyFilteredFeedForward(dim, expansion, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flip(-2, -1) if self.flips else x.transpose(-2, -1)
        x = self._scanned(x)
        return x + self.ffn(self.norm2(x))

    def _scanned(self, x: Tensor) -> Tensor:
        window = self.window
        if self.training or window is None or max(x.shape[-2:]) <= window:
            return x + self.attn(self.norm1(x))
        total, count = torch.zeros_like(x), x.new_zeros(x.shape[-2:])
        for top in even_starts(x.shape[-2], window):
            for left in even_starts(x.shape[-1], window):
                at = (..., slice(top, top + window), slice(left, left + window))
                total[at] += x[at] + self.attn(self.norm1(x[at]))
                count[at] += 1
        return total / count


@arch
class EVSSM(nn.Module):
    """EVSSM, arguments as in the authors' options files.

    Args:
        inp_channels, out_channels: Channels of input and output, equal.
        dim: Channels of the first level; each level doubles them.
        num_blocks: Blocks of the three levels, in the encoder and in the decoder; even, so that maps come back as they were.
        ffn_expansion_factor: Hidden over outer channels in the feed-forward.
        bias: Whether the feed-forwards' and the last convolution have one.
        windows: Sides of the windows of each level's map that are scanned one by one in evaluation, spread evenly, and averaged
            where they overlap; as published. None for whole maps, as in training. A map that fits into one is scanned whole.

    Shape:
        (B, inp_channels, H, W) in [0, 1], any H and W, to the same; padded inside by reflection at the right and bottom to
        multiples of 4, as the published test version wants them.
    """

    size_multiple = 4

    def __init__(self,
                 inp_channels: int = 3,
                 out_channels: int = 3,
                 dim: int = 48,
                 num_blocks: Sequence[int] = (6, 6, 12),
                 ffn_expansion_factor: float = 3,
                 bias: bool = False,
                 windows: Sequence[int] | None = (384, 192, 96)) -> None:
        super().__init__()
        if any(blocks % 2 for blocks in num_blocks):
            raise ValueError(f'num_blocks must be even, got {list(num_blocks)}; the maps would end turned over.')
        if windows is not None and (len(windows) != 3 or min(windows) < 1):
            raise ValueError(f'windows must be three sides in pixels, one for each level, or ~; got {list(windows)}.')

        def stage(level: int) -> nn.Sequential:
            blocks = OrderedDict((f'block{i}', ScanBlock(dim * 2**level, i % 2 == 1, ffn_expansion_factor, bias))
                                 for i in range(num_blocks[level]))
            for block in blocks.values() if windows is not None else ():
                block.window = windows[level]
            return nn.Sequential(blocks)

        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(inp_channels, dim, 3, padding=1, bias=False)))
        self.encoder_level1 = stage(0)
        self.down1_2 = resample(dim, 2 * dim, 0.5)
        self.encoder_level2 = stage(1)
        self.down2_3 = resample(2 * dim, 4 * dim, 0.5)
        self.encoder_level3 = stage(2)
        self.decoder_level3 = stage(2)
        self.up3_2 = resample(4 * dim, 2 * dim, 2)
        self.decoder_level2 = stage(1)
        self.up2_1 = resample(2 * dim, dim, 2)
        self.decoder_level1 = stage(0)
        self.output = nn.Conv2d(dim, out_channels, 3, padding=1, bias=bias)

    @any_size(size_multiple)
    def forward(self, inp_img: Tensor) -> Tensor:
        skip1 = self.encoder_level1(self.patch_embed(inp_img))
        skip2 = self.encoder_level2(self.down1_2(skip1))
        x = self.decoder_level3(self.encoder_level3(self.down2_3(skip2)))
        x = self.decoder_level2(self.up3_2(x) + skip2)
        x = self.decoder_level1(self.up2_1(x) + skip1)
        return self.output(x) + inp_img
