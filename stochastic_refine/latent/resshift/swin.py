"""Attention of ResShift's U-Net: Swin blocks with group normalisation, in a layer without a residual around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B, C, H, W) as (B, windows, window^2, C), windows and pixels row by row."""
    x = x.unflatten(3, (-1, window)).unflatten(2, (-1, window))  # B, C, rows, window, columns, window
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)


def from_windows(x: Tensor, height: int, width: int, window: int) -> Tensor:
    """The inverse of :func:`to_windows`."""
    x = x.unflatten(2, (window, window)).unflatten(1, (height // window, width // window))
    return x.permute(0, 5, 1, 3, 2, 4).reshape(len(x), -1, height, width)


def shift_mask(height: int, width: int, window: int, shift: int, device: torch.device | None = None) -> Tensor:
    """What is added to the scores of a map rolled by ``shift``, (windows, window^2, window^2).

    As published, which is not as Swin has it: only windows of the last row keep pixels apart, and by their columns, where those
    of the last row and column should, by whether they were neighbours before. Weights were trained so.
    """
    column = (torch.arange(window, device=device) >= window - shift).repeat(window)
    apart = torch.where(column[:, None] == column, 0.0, -100.0)
    mask = apart.new_zeros(height // window, width // window, window**2, window**2)
    mask[-1] = apart
    return mask.flatten(0, 1)


class WindowAttention(nn.Module):
    """Attention within windows, (B, windows, window^2, C), with a learned bias for each way from pixel to pixel."""

    def __init__(self, dim: int, window: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1)**2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing='ij')).flatten(1)
        rows, columns = at[:, :, None] - at[:, None] + window - 1
        self.register_buffer('relative_position_index', (2 * window - 1) * rows + columns)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(2, 3) for part in self.qkv(x).chunk(3, dim=-1))
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        bias = bias if mask is None else bias + mask[:, None]
        return self.proj(F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype)).transpose(2, 3).flatten(3))


class Mlp(nn.Module):
    """An MLP of each pixel."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Attention within (shifted) windows of (B, C, H, W), then an MLP, each on the normalised map and added to it.

    Args:
        dim: C, a multiple of 32.
        resolution: Nominal side of the map. The mask for that side is in the published files, though never used: it is computed
            for the map at hand.
        heads, window: Of the attention.
        shift: By how many pixels windows are shifted.
        mlp_ratio: Hidden over outer width of the MLP.
    """

    def __init__(self, dim: int, resolution: int, heads: int, window: int, shift: int, mlp_ratio: float) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.register_buffer('attn_mask', shift_mask(resolution, resolution, window, shift) if shift else None)
        self.norm1 = nn.GroupNorm(32, dim)
        self.attn = WindowAttention(dim, window, heads)
        self.norm2 = nn.GroupNorm(32, dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        size, mask, normed = x.shape[-2:], None, self.norm1(x)
        if self.shift:
            normed = normed.roll((-self.shift, -self.shift), (2, 3))
            mask = shift_mask(*size, self.window, self.shift, x.device)
        seen = from_windows(self.attn(to_windows(normed, self.window), mask), *size, self.window)
        x = x + (seen.roll((self.shift, self.shift), (2, 3)) if self.shift else seen)
        return x + self.mlp(self.norm2(x))


class PixelProjection(nn.Module):
    """A linear map of each pixel, under the name ``proj``."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class SwinLayer(nn.Module):
    """Swin blocks of (B, C, H, W) in ``dim`` channels, every second one shifted, and nothing of the input beside them.

    Args:
        channels: C.
        resolution: Nominal side of the map; where it is no more than a window, none is shifted.
        dim, heads, window, mlp_ratio: Of the blocks.
        depth: How many there are.
    """

    def __init__(self, channels: int, resolution: int, dim: int, heads: int, window: int, mlp_ratio: float, depth: int) -> None:
        super().__init__()
        self.patch_embed = PixelProjection(channels, dim)
        self.blocks = nn.ModuleList(
            SwinBlock(dim, resolution, heads, window, window // 2 if i % 2 and resolution > window else 0, mlp_ratio)
            for i in range(depth))
        self.patch_unembed = PixelProjection(dim, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x)
        return self.patch_unembed(x)
