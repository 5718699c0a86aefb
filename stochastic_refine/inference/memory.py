"""How much memory a network needs, measured once on small images, and how much a machine has."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Sides of the images measured; what a network holds whatever the image's size is left out by the difference.
_SIDES = (64, 128)
#: What libraries take beside the tensors that can be seen: workspaces, packed weights.
_UNSEEN = 1.25
#: An image below this many pixels is never worth measuring for.
SMALL = 2**18

_measured: weakref.WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], float]] = weakref.WeakKeyDictionary()


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is entered, and the most that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                if id(storage) not in self.live:
                    self.live[id(storage)] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._free, id(storage))
        return result

    def _free(self, key: int) -> None:
        self.now -= self.live.pop(key, 0)


def bytes_per_pixel(net: nn.Module, channels: int = 3, noise_conditioned: bool = False,
                    inputs: Callable[[int, int, torch.device], tuple[Tensor, ...]] | None = None) -> float:
    """Peak memory of a call per pixel of a (1, channels, H, W) input, as the network computes here and now (autocast).

    Measured at the first call by running the network on two small images; kept with the network.

    Args:
        net: Maps (B, channels, H, W) to one image or several.
        channels: Channels of its input.
        noise_conditioned: Whether it is called as ``net(x, noise_level)``, with noise_level (B,).
        inputs: Of :class:`~stochastic_refine.archs.sampling.Part`.
    """
    device = next(net.parameters()).device
    precision = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32
    known = _measured.setdefault(net, {})
    key = (device, precision, channels)
    if key not in known:
        peaks = []
        for side in _SIDES:
            image = torch.zeros(1, channels, side, side, device=device)
            args = (image, torch.ones(1, device=device)) if noise_conditioned else (image, )
            if inputs is not None:
                args = inputs(side, side, device)
            peaks.append(_peak(partial(net, *args), device))
        growth = (peaks[1] - peaks[0]) / (_SIDES[1]**2 - _SIDES[0]**2)
        known[key] = _UNSEEN * max(growth, 4.0 * channels)
    return known[key]


def _peak(call: Callable[[], Any], device: torch.device) -> int:
    """The most bytes that a call holds at once, besides what was there before."""
    with torch.inference_mode():
        if device.type == 'cuda':
            call()  # the first call of a kernel loads it
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            call()
            return torch.cuda.max_memory_allocated(device) - before
        with LiveTensors() as tensors:
            call()
        return tensors.peak


def total_memory(device: torch.device) -> int:
    """Bytes of memory of the device; on a CPU the machine's, or less where the system holds this process to less.

    Not what is free at the moment, nor a share for each process: what a photo is cut into must not depend on who else computes.
    """
    if device.type == 'cuda':
        return torch.cuda.get_device_properties(device).total_memory
    try:
        machine = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (ValueError, OSError, AttributeError):  # not told on this system
        machine = 8 * 2**30
    try:
        limit = int(Path('/sys/fs/cgroup/memory.max').read_text())
    except (OSError, ValueError):  # none, or "max"
        limit = machine
    return min(machine, limit)
