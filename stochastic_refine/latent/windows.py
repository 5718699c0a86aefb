"""Attention within windows of a feature map, where a diffusers network attends over the whole of it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .extra import require


def attend_in_windows(net: nn.Module, window: int) -> nn.Module:
    """Let every spatial transformer of ``net`` see a map larger than ``window`` in windows, as DeblurDiff does.

    The windows, of that many of the map's own pixels, lie evenly; what they give is averaged where they overlap. Each is
    normalised by its own statistics. Up to that size nothing changes. They are computed one by one, so that memory does not
    grow with the square of the number of pixels. Names and copies stay as they are.

    Args:
        net: With ``diffusers.Transformer2DModel``s in it; changed in place.
        window: Side of a window.
    """
    transformer = require('diffusers').Transformer2DModel
    for module in net.modules():
        if isinstance(module, transformer):
            module.attention_window = window
            if not isinstance(module, _Windowed):
                # a class of its own, since an attribute `forward` would not follow copies
                module.__class__ = type(transformer.__name__, (_Windowed, transformer), {'__module__': transformer.__module__})
    return net


class _Windowed:
    """Mixed in before a transformer's class."""

    attention_window: int

    def forward(self, hidden_states: Tensor, *args: Any, return_dict: bool = True, **kwargs: Any) -> Any:
        if max(hidden_states.shape[-2:]) <= self.attention_window:
            return super().forward(hidden_states, *args, return_dict=return_dict, **kwargs)
        from ..inference.tiling import WindowedNet
        whole = super().forward  # not to be had within the lambda
        windows = WindowedNet(lambda part: whole(part, *args, return_dict=False, **kwargs)[0], self.attention_window)
        output = windows(hidden_states).to(hidden_states.dtype)
        return require('diffusers').models.modeling_outputs.Transformer2DModelOutput(output) if return_dict else (output, )
