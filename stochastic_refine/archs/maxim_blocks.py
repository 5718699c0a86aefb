"""The blocks of MAXIM: mixing along blocks and grids of pixels, gates made of it, channel attention. Provenance: maxim_arch.py.

Maps are (B, H, W, C) here, contiguous: layers on single pixels are plain matrix products on them, a convolution takes the same
memory for channels_last, and layer normalisation runs along it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Numbers in a strip of a map that a CPU works on at once: little enough for its cache, and enough to be worth a call.
STRIP_SIZE = 2**20

#: Over the channels of each pixel; published weights rely on this epsilon.
LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class Conv(nn.Conv2d):
    """Zero-padded convolution of a map: a stride of 1 keeps its sides, one of 2 with an even kernel halves them."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=(kernel_size - 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Doubling(nn.ConvTranspose2d):
    """Twice the sides of a map, by a transposed 2x2 convolution with a stride of 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class JoiningLinear(nn.Linear):
    """A linear layer on the joined channels of several maps, without the memory that joining them would take."""

    def forward(self, *parts: Tensor) -> Tensor:
        weights = self.weight.split([part.shape[-1] for part in parts], dim=1)
        total = F.linear(parts[0], weights[0], self.bias)
        for part, weight in zip(parts[1:], weights[1:]):
            total += F.linear(part, weight)
        return total


def gelu(x: Tensor) -> Tensor:
    """GELU in the published tanh form; in bfloat16 on a CPU in the erf form, at most 5e-4 away and there four times as fast."""
    return F.gelu(x, approximate='none' if x.is_cpu and x.dtype == torch.bfloat16 else 'tanh')


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A context in which layers on the device of ``x`` compute in the type that they are given."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


class Axis(NamedTuple):
    """Which pixels are mixed: those of a block of height x width, or those at one place in all height x width grid cells."""

    height: int
    width: int
    is_grid: bool

    def view(self, x: Tensor) -> Tensor:
        """A map seen as (height, width, B, rows of groups, columns of groups, C); a group is what is mixed."""
        if self.is_grid:
            return x.unflatten(2, (self.width, -1)).unflatten(1, (self.height, -1)).permute(1, 3, 0, 2, 4, 5)
        return x.unflatten(2, (-1, self.width)).unflatten(1, (-1, self.height)).permute(2, 4, 0, 1, 3, 5)

    def gather(self, x: Tensor) -> Tensor:
        """A map as (positions, groups, C): mixing then is one matrix product from the left, with no transpose."""
        return self.view(x).reshape(self.height * self.width, -1, x.shape[-1])

    def scatter(self, t: Tensor, like: Tensor) -> Tensor:
        """The inverse of :meth:`gather`, for a map of the size of ``like``."""
        order = (2, 0, 3, 1, 4, 5) if self.is_grid else (2, 3, 0, 4, 1, 5)
        return t.view(self.view(like).shape).permute(order).reshape(like.shape)

    def strips(self, x: Tensor) -> list[slice]:
        """Rows of a map that are mixed among themselves only, so that each of these strips is a map of its own."""
        rows = x.shape[1] // self.height  # of blocks, or of pixels in a cell
        most = max(STRIP_SIZE * rows // x.numel(), 1)
        together = next(n for n in range(min(most, rows), 0, -1) if rows % n == 0)
        if self.is_grid:
            return [slice(i, None, rows // together) for i in range(rows // together)]
        return [slice(i, i + together * self.height) for i in range(0, x.shape[1], together * self.height)]


def along(axis: Axis, layer: Callable[[Tensor], Tensor], x: Tensor, total: Tensor | None = None) -> Tensor:
    """``total + layer(x)``, for a layer on (positions, groups, C) that keeps the shape; ``total`` may be overwritten.

    Without gradients a CPU works strip by strip, so that all between stays in its cache and takes no memory to speak of.
    """
    if torch.is_grad_enabled() or not x.is_cpu:
        y = axis.scatter(layer(axis.gather(x)), x)
        return y if total is None else total + y
    result = total
    for rows in axis.strips(x):
        y = layer(axis.gather(x[:, rows]))
        if result is None:
            result = y.new_empty(x.shape)
        target = axis.view(result[:, rows])
        (target.copy_ if total is None else target.add_)(y.view(target.shape))
    return result


class Mixing(nn.Linear):
    """Linear layer along the positions of (positions, groups, C), plus an offset."""

    def __init__(self, positions: int, offset: float = 0) -> None:
        super().__init__(positions, positions)
        self.offset = offset

    def forward(self, t: Tensor) -> Tensor:
        mixed = torch.mm(self.weight, t.flatten(1)).view_as(t)
        return mixed.add_((self.bias + self.offset).to(mixed.dtype)[:, None, None])


class GatedMlp(nn.Module):
    """gMLP layer on (positions, groups, C): half of the features, mixed along the positions, gates the other half."""

    def __init__(self, channels: int, positions: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.in_project = nn.Linear(channels, 2 * channels)
        self.gate_norm = LayerNorm(channels)
        self.mixing = Mixing(positions, offset=1)
        self.out_project = nn.Linear(channels, channels)

    def forward(self, t: Tensor) -> Tensor:
        a, b = gelu(self.in_project(self.norm(t))).chunk(2, dim=-1)
        return t + self.out_project(a * self.mixing(self.gate_norm(b)))


class TwoAxes(nn.Module):
    """Half of a map's projected features goes along a grid, half along blocks; both are projected back together.

    Args:
        channels: Of the map.
        block, grid: Height and width of a block in pixels, of the grid in cells.
        layer: Makes what acts along an axis, from the number of positions on it.
    """

    def __init__(self, channels: int, block: Sequence[int], grid: Sequence[int], layer: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.axes = Axis(*grid, is_grid=True), Axis(*block, is_grid=False)
        self.norm = LayerNorm(channels)
        self.in_project = nn.Linear(channels, 2 * channels)
        self.grid = layer(grid[0] * grid[1])
        self.block = layer(block[0] * block[1])
        self.out_project = nn.Linear(2 * channels, channels)

    def along_grid(self, t: Tensor) -> Tensor:
        """The share of the grid's half, and the bias, on (positions, groups, C)."""
        (w_in, _), (b_in, _) = self.in_project.weight.chunk(2), self.in_project.bias.chunk(2)
        w_out, _ = self.out_project.weight.chunk(2, dim=1)
        return F.linear(self.grid(gelu(F.linear(self.norm(t), w_in, b_in))), w_out, self.out_project.bias)

    def along_blocks(self, t: Tensor) -> Tensor:
        """The share of the blocks' half, on (positions, groups, C)."""
        (_, w_in), (_, b_in) = self.in_project.weight.chunk(2), self.in_project.bias.chunk(2)
        _, w_out = self.out_project.weight.chunk(2, dim=1)
        return F.linear(self.block(gelu(F.linear(self.norm(t), w_in, b_in))), w_out)

    def forward(self, x: Tensor) -> Tensor:
        grid, blocks = self.axes
        return along(blocks, self.along_blocks, x, along(grid, self.along_grid, x))


class MultiAxisMlp(TwoAxes):
    """Multi-axis gMLP layer: gMLP layers along grid and blocks, and the input added."""

    def __init__(self, channels: int, block: Sequence[int], grid: Sequence[int]) -> None:
        super().__init__(channels, block, grid, lambda positions: GatedMlp(channels, positions))

    def along_grid(self, t: Tensor) -> Tensor:
        return t + super().along_grid(t)


class SpatialGate(TwoAxes):
    """Weights by which another map is multiplied: mixing along grid and blocks."""

    def __init__(self, channels: int, block: Sequence[int], grid: Sequence[int]) -> None:
        super().__init__(channels, block, grid, Mixing)


class CrossGating(nn.Module):
    """Cross-gating block: two maps, each of which gates the other one.

    Args:
        x_channels, y_channels: Of the maps.
        channels: Of the results.
        block, grid: Height and width of a block in pixels, of the grid in cells.
        doubles: Whether y comes at half the size.
    """

    def __init__(self, x_channels: int, y_channels: int, channels: int, block: Sequence[int], grid: Sequence[int],
                 doubles: bool = False) -> None:
        super().__init__()
        self.up = Doubling(y_channels, channels) if doubles else nn.Identity()
        self.enter_x = JoiningLinear(x_channels, channels)
        self.enter_y = nn.Linear(channels if doubles else y_channels, channels)
        for name in ('x', 'y'):
            self.add_module(f'norm_{name}', LayerNorm(channels))
            self.add_module(f'in_project_{name}', nn.Linear(channels, channels))
            self.add_module(f'gate_{name}', SpatialGate(channels, block, grid))
            self.add_module(f'out_project_{name}', nn.Linear(channels, channels))

    def forward(self, x: Sequence[Tensor], y: Tensor) -> tuple[Tensor, Tensor]:
        """The new x and y, y in float32; x is given in parts whose channels are to be joined."""
        x = self.enter_x(*x)
        # With published weights these two norms see variances near their epsilon, at up to 200 times as large a mean
        with without_autocast(x):
            y = self.enter_y(self.up(y.float()))
            inner_y = gelu(self.in_project_y(self.norm_y(y)))
        inner_x = gelu(self.in_project_x(self.norm_x(x)))
        y = y + self.out_project_y(inner_y * self.gate_x(inner_x))
        x = x + self.out_project_x(inner_x * self.gate_y(inner_y))
        return x.add_(y), y


class ChannelAttention(nn.Module):
    """A factor in (0, 1) for each channel of a map, from the means of all: (B, 1, 1, C)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // reduction)
        self.excite = nn.Linear(channels // reduction, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(x.mean((1, 2), keepdim=True)))).sigmoid().to(x.dtype)


class ConvAttention(nn.Module):
    """Residual channel attention block: norm, convolution, LeakyReLU, convolution, channel attention; plus the input."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.conv1 = Conv(channels, channels)
        self.conv2 = Conv(channels, channels)
        self.attention = ChannelAttention(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.leaky_relu(self.conv1(self.norm(x)), 0.2))
        return torch.addcmul(x, y, self.attention(y))


class LinearAttention(nn.Module):
    """Residual dense channel attention block: norm, two linear layers with GELU, channel attention; plus the input."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.norm = LayerNorm(channels)
        self.linear1 = nn.Linear(channels, channels)
        self.linear2 = nn.Linear(channels, channels)
        self.attention = ChannelAttention(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear2(gelu(self.linear1(self.norm(x))))
        return torch.addcmul(x, y, self.attention(y))


class Groups(nn.Module):
    """A multi-axis gMLP layer and an attention block in each of several groups in a row; plus the input."""

    def __init__(self, channels: int, num_groups: int, attention: Callable[[int, int], nn.Module], reduction: int,
                 block: Sequence[int], grid: Sequence[int]) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(MultiAxisMlp(channels, block, grid) for _ in range(num_groups))
        self.attentions = nn.ModuleList(attention(channels, reduction) for _ in range(num_groups))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for mlp, attention in zip(self.mlps, self.attentions):
            y = attention(mlp(y))
        return x + y


class SupervisedAttention(nn.Module):
    """Supervised attention module: an image at this map's size, and the map weighted by what it shows."""

    def __init__(self, channels: int, image_channels: int) -> None:
        super().__init__()
        self.features = Conv(channels, channels)
        self.to_image = Conv(channels, image_channels)
        self.weigh = Conv(image_channels, channels)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        restored = self.to_image(x) + image
        return restored, x + self.features(x) * self.weigh(restored).sigmoid()
