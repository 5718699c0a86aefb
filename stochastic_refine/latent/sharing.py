"""Networks that work with frozen ones that others use at the same time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def is_planned() -> bool:
    """Whether what is built now is on the meta device: named and measured, without weights."""
    # torch.get_default_device does not see ``with torch.device`` before PyTorch 2.7.
    return torch.empty(0).device.type == 'meta'


class SharingNet(nn.Module):
    """A network that has other networks beside its parts: they are in no checkpoint of its, and its copies have the same."""

    def __init__(self) -> None:
        super().__init__()
        self.__dict__['shared'] = []

    def share(self, **networks: nn.Module) -> None:
        """Set attributes to frozen networks that are no parts of this one."""
        self.__dict__.update(networks)
        self.shared.extend(networks.values())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SharingNet:
        """What is shared follows the network to its device; it keeps its precision."""
        for network in self.shared:
            network.to(fn(torch.empty(0, device='cpu')).device)
        return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict[int, Any]) -> SharingNet:
        for network in self.shared:
            memo.update({id(module): module for module in network.modules()})
        clone = type(self).__new__(type(self))
        memo[id(self)] = clone
        clone.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return clone
