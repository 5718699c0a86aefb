"""The memory of a network's call, against what its tensors must take."""

from __future__ import annotations

import torch
from torch import nn

from stochastic_refine.archs import NAFNet
from stochastic_refine.inference import memory
from stochastic_refine.inference.memory import bytes_per_pixel


class Chain(nn.Module):
    """Holds at most its input, a map of 40 channels and one of 20 at once; and a buffer whatever the size."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 40, 1), nn.Conv2d(40, 20, 1), nn.Conv2d(20, 3, 1)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        ballast = torch.zeros(10**6)  # is not counted
        return self.last(self.second(self.first(x))) + 0 * ballast[0]


def test_bytes_of_a_chain_of_maps() -> None:
    net = Chain()
    measured = bytes_per_pixel(net) / memory._UNSEEN
    assert 4 * 59 <= measured <= 4 * 66  # 40 + 20 channels, and what Python still holds
    assert bytes_per_pixel(net) == measured * memory._UNSEEN and net.calls == 2  # measured once
    with torch.autocast('cpu', torch.bfloat16):
        assert 2 * 59 <= bytes_per_pixel(net) / memory._UNSEEN <= 2 * 66 + 12


def test_freed_tensors_are_not_counted() -> None:
    """A deep network without skips needs no more than a shallow one."""
    deep = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(30)))
    assert bytes_per_pixel(deep) <= memory._UNSEEN * 4 * 3 * 3


def test_real_networks_are_measured() -> None:
    net = NAFNet(width=8, enc_blk_nums=[1, 1], middle_blk_num=1, dec_blk_nums=[1, 1]).eval()
    assert 4 * 8 * 4 < bytes_per_pixel(net) < 4 * 8 * 40


def test_total_memory_is_told() -> None:
    assert 2**28 < memory.total_memory(torch.device('cpu')) < 2**45
