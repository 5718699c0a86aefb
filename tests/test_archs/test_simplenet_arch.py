"""SimpleNet: its size, any image size, and what sets its two modules apart."""

from __future__ import annotations

import pytest
import torch

from stochastic_refine.archs import SimpleNet
from stochastic_refine.archs.simplenet_arch import LightGlobalContextRefinement, PerceptualVariousnessBlock

TINY = {'width': 8, 'num_blocks': 1, 'num_groups': 2, 'group_blocks': 1, 'num_descriptors': 4}


def test_parameter_count() -> None:
    with torch.device('meta'):
        assert sum(p.numel() for p in SimpleNet().parameters()) == 12_509_059


@pytest.mark.parametrize('size', [(37, 50), (1, 1)], ids=str)
def test_any_size_comes_back_and_every_parameter_learns(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = SimpleNet(**TINY)
    x = torch.rand(2, 3, *size)
    out = net(x)
    assert out.shape == x.shape
    if size != (1, 1):  # on a map of one pixel a softmax over the positions has nothing to choose
        out.square().sum().backward()
        assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_descriptors_are_averages_of_the_map() -> None:
    torch.manual_seed(0)
    net = LightGlobalContextRefinement(8, 4)
    constant = torch.randn(1, 8, 1, 1)
    descriptors = net.descriptors(constant.expand(1, 8, 5, 6))
    torch.testing.assert_close(descriptors, net.value(constant).view(1, 1, 2).expand(1, 4, 2))


def test_a_far_corner_reaches_every_pixel_through_the_global_context() -> None:
    torch.manual_seed(0)
    net = LightGlobalContextRefinement(8, 4)
    x = torch.randn(1, 8, 9, 9)
    changed = x.clone()
    changed[..., -1, -1] += 3
    with torch.no_grad():
        assert (net(x) != net(changed)).any(1).all()


def test_a_block_looks_at_the_distances_of_its_dilations() -> None:
    torch.manual_seed(0)
    net = PerceptualVariousnessBlock(16, (1, 4))
    x = torch.randn(1, 16, 11, 11)
    changed = x.clone()
    changed[..., 5, 5] += 3
    with torch.no_grad():
        reached = (net(x) != net(changed)).any(1)[0]
    offsets = {abs(int(i) - 5) for i in reached.nonzero().flatten()}
    assert offsets == {0, 1, 4}
    assert int(reached.sum()) == 9 + 8
