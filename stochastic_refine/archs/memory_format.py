"""The memory layout and the precision in which convolutions are fastest."""

from __future__ import annotations

import torch
from torch import nn


def channels_last(net: nn.Module) -> nn.Module:
    """Lay the weights of ``net`` out channels last, in place; its activations follow.

    ``net.to(memory_format=...)`` does so too, but fails over networks with parameters of five dimensions (FFTformer's filters).
    """
    for parameter in net.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return net


def placed(net: nn.Module, device: torch.device | str) -> nn.Module:
    """``net`` on a device, in the layout in which every network computes: trained, averaged, validated, tested or restoring.

    Two layouts give results that differ in the last digits, so a network has the same one wherever it is scored.
    """
    return channels_last(net.to(device))


def converted(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of ``net`` for inference, its parameters in ``dtype`` and everything else shared.

    Once per image this is cheap enough, and never stale; ``copy.deepcopy(net).to(dtype)`` takes four times as long.
    """
    clone = object.__new__(type(net))
    clone.__dict__.update(net.__getstate__())
    clone._parameters = {name: value if value is None else nn.Parameter(value.to(dtype), requires_grad=False)
                         for name, value in net._parameters.items()}
    clone._modules = {name: child if child is None else converted(child, dtype) for name, child in net._modules.items()}
    return clone
