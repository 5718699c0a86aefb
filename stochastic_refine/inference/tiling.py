"""Run a fully convolutional network over an image tile by tile, with the result of the whole image.

Each network call is tiled, not the sampling as a whole: every denoising step sees the complete noisy residual, so tiles never
drift apart and no seam can show. A tile carries a halo at least as wide as the network's receptive radius and starts at a
multiple of its pooling grid; what is kept of it then equals the untiled result up to float rounding.

Windows, on the other hand, are meant to change the result: HINet's published test protocol restores windows of the size that
the network was trained on, since its instance norm takes statistics over all that it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..archs.padding import even_starts
from ..archs.predict_refine_arch import final_output


def halo_of(net: nn.Module) -> int | None:
    """Pixels of context that make a tile exact; None if there are none, as with a network that sees the whole image.

    A network tells them as ``tile_halo``, for tiles aligned to its ``size_multiple``. Global pooling, normalisation by an
    image's own statistics, attention or a Fourier transform over the whole image leave it without.
    """
    return getattr(net, 'tile_halo', None)


class TiledNet:
    """Calls ``net(x, *args)`` over tiles of ``x``; extra arguments are passed on to every call.

    ``x`` may be a list of tensors, concatenated along the channels tile by tile, so that the image never is as a whole.

    Args:
        net: A network that maps (B, C, H, W) to (B, C', H, W); in tiles it must have a halo.
        tile: Side of a tile without its halo, pixels; None runs the whole image at once.
        on_call: Called after each network call, for progress.
    """

    def __init__(self, net: nn.Module, tile: int | None, on_call: Callable[[], None] = lambda: None) -> None:
        self.net = net
        self.multiple = getattr(net, 'size_multiple', 1)
        self.halo = halo_of(net) or 0
        self.tile = None if tile is None else max(self.multiple, tile // self.multiple * self.multiple)
        self.on_call = on_call

    def calls(self, height: int, width: int) -> int:
        """Network calls that an image of this size takes."""
        return len(self._tiles(height, width))

    def _tiles(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """(top, left, bottom, right) of each."""
        if self.tile is None or max(height, width) <= self.tile + 2 * self.halo:
            return [(0, 0, height, width)]
        return [(top, left, min(top + self.tile, height), min(left + self.tile, width))
                for top in range(0, height, self.tile) for left in range(0, width, self.tile)]

    def __call__(self, x: Tensor | Sequence[Tensor], *args: Any) -> Tensor:
        """The network's output for ``x``, (B, C', H, W)."""
        parts = [x] if isinstance(x, Tensor) else x
        height, width = parts[0].shape[-2:]
        tiles = self._tiles(height, width)
        if len(tiles) == 1:
            output = final_output(self.net, self.net(_concatenated(parts), *args))
            self.on_call()
            return output
        output = None
        for top, left, bottom, right in tiles:
            y0, x0 = max(top - self.halo, 0), max(left - self.halo, 0)
            # The image's end may lie inside a cell of the grid; the network's own padding completes it.
            y1, x1 = bottom + self.halo + self.multiple - 1, right + self.halo + self.multiple - 1
            window = _concatenated([part[..., y0:y1 - y1 % self.multiple, x0:x1 - x1 % self.multiple] for part in parts])
            part = final_output(self.net, self.net(window, *args))
            if output is None:
                output = torch.empty(*part.shape[:2], height, width, dtype=part.dtype, device=part.device)
            output[..., top:bottom, left:right] = part[..., top - y0:bottom - y0, left - x0:right - x0]
            self.on_call()
        return output


def _concatenated(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class _OverlappingNet:
    """Calls ``net(x, *args)`` on overlapping windows of ``x``, each as an image of its own, and averages where they overlap.

    An image smaller than a window is taken whole in that direction. ``args`` are passed on to every call.

    Args:
        net: A network that maps (B, C, H, W) to (B, C', H, W).
        window: Side of a window, pixels.
        on_call: Called after each network call, for progress.
    """

    def __init__(self, net: nn.Module, window: int, on_call: Callable[[], None] = lambda: None) -> None:
        self.net = net
        self.window = window
        self.on_call = on_call

    def calls(self, height: int, width: int) -> int:
        """Network calls that an image of this size takes."""
        return len(self.starts(height)) * len(self.starts(width))

    def starts(self, side: int) -> list[int]:
        """First rows, or columns, of the windows along a side."""
        raise NotImplementedError

    def weights(self, side: int, device: torch.device) -> Tensor:
        """Weights along a window's side in the average."""
        return torch.ones(side, device=device)

    def __call__(self, x: Tensor | Sequence[Tensor], *args: Any) -> Tensor:
        """The averaged output for ``x``, (B, C', H, W), float32."""
        parts = [x] if isinstance(x, Tensor) else x
        height, width = parts[0].shape[-2:]
        total: Any = None  # a tensor from the first window on, whose output tells the channels
        weights: Any = None
        for top in self.starts(height):
            for left in self.starts(width):
                at = (..., slice(top, top + self.window), slice(left, left + self.window))
                part = final_output(self.net, self.net(_concatenated([part[at] for part in parts]), *args)).float()
                if total is None:
                    total = part.new_zeros(*part.shape[:2], height, width)
                    weights = part.new_zeros(height, width)
                rows, columns = (self.weights(side, part.device) for side in part.shape[-2:])
                weight = rows[:, None] * columns
                total[at] += weight * part
                weights[at] += weight
                self.on_call()
        return total / weights


class BlendedNet(_OverlappingNet):
    """Tiles for networks that no halo makes exact.

    They are spread evenly, a quarter of each overlaps its neighbour's, and there the weights go linearly from one to the other,
    so that no seam shows.
    """

    def starts(self, side: int) -> list[int]:
        room = max(side - self.window, 0)
        count = math.ceil(room / (self.window - self.window // 4)) + 1
        return [round(i * room / (count - 1)) for i in range(count)] if count > 1 else [0]

    def weights(self, side: int, device: torch.device) -> Tensor:
        at = torch.arange(side, device=device) + 0.5
        return (torch.minimum(at, side - at) / max(self.window // 4, 1)).clamp(max=1)


class WindowedNet(_OverlappingNet):
    """Windows of a protocol of testing (HINet's): as few as cover the image, evenly, the first at 0, the last at the end."""

    def starts(self, side: int) -> list[int]:
        return even_starts(side, self.window)
