"""Padding to the sizes that a network's pooling needs, and windows that cover any size."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def reflect_pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the right and bottom by reflection to multiples of ``multiple``; any H, W >= 1.

    A side too short to be reflected at once is reflected again and again; a side of one pixel is repeated. From ``multiple`` on
    a side is no matter of choice, so that one traced graph holds for all sizes.
    """
    bottom, right = (missing_to_multiple(side, multiple) for side in x.shape[-2:])
    if min(x.shape[-2:]) >= multiple:
        if torch.compiler.is_compiling() or bottom or right:
            x = F.pad(x, (0, right, 0, bottom), mode='reflect')
        return x
    for dim, missing in ((-2, bottom), (-1, right)):
        while missing > 0:
            if x.shape[dim] == 1:
                x = x.repeat_interleave(missing + 1, dim)
                break
            step = min(missing, x.shape[dim] - 1)
            x = F.pad(x, (0, step, 0, 0) if dim == -1 else (0, 0, 0, step), mode='reflect')
            missing -= step
    return x


def missing_to_multiple(side: int, multiple: int) -> int:
    """How much a side lacks to the next multiple: ``-side % multiple``, in words that hold in every graph.

    ONNX divides integers towards zero, and inductor knows no modulus of a negative symbol.
    """
    return (side + multiple - 1) // multiple * multiple - side


def cropped(x: Tensor, height: int, width: int) -> Tensor:
    """The first rows and columns of (..., H, W).

    Where a graph is traced they are selected, not sliced: of a slice the graph would keep whether it is contiguous, and so
    refuse sizes that are multiples after one that was none.
    """
    if not torch.compiler.is_compiling():
        return x[..., :height, :width]
    rows, columns = (torch.arange(side, device=x.device) for side in (height, width))
    return x.index_select(-2, rows).index_select(-1, columns)


def reflect_pad_around(x: Tensor, multiple: int) -> tuple[Tensor, tuple[int, int]]:
    """Pad (B, C, H, W) by reflection to multiples of the even ``multiple``, as much before as after; any H, W >= 1.

    An odd side first gets one more row or column after it. A pad longer than the side is reflected again and again, as numpy
    does it; a side of one pixel is repeated.

    Returns:
        The padded map, and its rows and columns before the first of ``x``.
    """
    before = []
    for dim in (-2, -1):
        side = x.shape[dim]
        even = side + side % 2
        pad = -even % multiple // 2
        index = _reflected(_reflected(torch.arange(-pad, even + pad, device=x.device), even), side)
        x = x if even + 2 * pad == side else x.index_select(dim, index)
        before.append(pad)
    return x, (before[0], before[1])


def _reflected(index: Tensor, side: int) -> Tensor:
    """Where in 0 ... side - 1 an index beyond it is found when the side is reflected at both of its ends."""
    period = max(2 * (side - 1), 1)
    index = index % period
    return torch.minimum(index, period - index) if side > 1 else torch.zeros_like(index)


def even_starts(side: int, window: int) -> list[int]:
    """Where windows begin along a side: as few as cover it, evenly, the first at 0, the last at the end."""
    count, room = math.ceil(side / window), max(side - window, 0)
    step = math.ceil(room / (count - 1)) if count > 1 else 0  # rounded up, as published
    return sorted({min(i * step, room) for i in range(count)})


def any_size(multiple: int) -> Callable:
    """Decorator of a network's ``forward(x, ...)``: pad x by reflection to a multiple, and crop every output back.

    Outputs at a fraction of the size (multi-scale networks) are cropped to the same fraction, rounded up.
    """

    def decorate(forward: Callable[..., Tensor | list[Tensor]]) -> Callable:

        @wraps(forward)
        def padded_forward(self: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor | list[Tensor]:
            height, width = x.shape[-2:]
            padded = reflect_pad_to_multiple(x, multiple)

            def crop(output: Tensor) -> Tensor:
                scale = padded.shape[-2] // output.shape[-2]
                return cropped(output, (height + scale - 1) // scale, (width + scale - 1) // scale)

            output = forward(self, padded, *args, **kwargs)
            return crop(output) if isinstance(output, Tensor) else [crop(part) for part in output]

        return padded_forward

    return decorate
