"""Padding to the sizes that a network's pooling needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch.nn.functional as F
from torch import Tensor, nn


def reflect_pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (B, C, H, W) at the right and bottom by reflection to multiples of ``multiple``; any H, W >= 1.

    A side too short to be reflected at once is reflected again and again; a side of one pixel is repeated.
    """
    for dim in (-2, -1):
        missing = -x.shape[dim] % multiple
        while missing > 0:
            if x.shape[dim] == 1:
                x = x.repeat_interleave(missing + 1, dim)
                break
            step = min(missing, x.shape[dim] - 1)
            x = F.pad(x, (0, step, 0, 0) if dim == -1 else (0, 0, 0, step), mode='reflect')
            missing -= step
    return x


def any_size(multiple: int) -> Callable:
    """Decorator of a network's ``forward(x)``: pad x by reflection to a multiple, and crop every output back.

    Outputs at a fraction of the size (multi-scale networks) are cropped to the same fraction, rounded up.
    """

    def decorate(forward: Callable[[nn.Module, Tensor], Tensor | list[Tensor]]) -> Callable:

        @wraps(forward)
        def padded_forward(self: nn.Module, x: Tensor) -> Tensor | list[Tensor]:
            height, width = x.shape[-2:]
            padded = reflect_pad_to_multiple(x, multiple)

            def crop(output: Tensor) -> Tensor:
                scale = padded.shape[-2] // output.shape[-2]
                return output[..., :-(-height // scale), :-(-width // scale)]

            output = forward(self, padded)
            return crop(output) if isinstance(output, Tensor) else [crop(part) for part in output]

        return padded_forward

    return decorate
