"""SAPHNet: its size, any image size, and its three mechanisms against their definitions written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stochastic_refine.archs import SAPHNet
from stochastic_refine.archs.saphnet_arch import PixelDependentFilter, efficient_attention


def test_parameters_are_the_23_million_that_mprnet_reports() -> None:
    with torch.device('meta'):
        count = sum(p.numel() for p in SAPHNet().parameters())
    assert count == 23_013_789


@pytest.mark.parametrize('size', [(37, 50), (1, 1)], ids=str)
def test_any_size_comes_back_and_every_parameter_learns(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = SAPHNet(width=8, num_blocks=1)
    x = torch.rand(2, 3, *size)
    out = net(x)
    assert out.shape == x.shape
    if size != (1, 1):  # the attention of a constant map is the same for any keys
        out.square().sum().backward()
        assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_attention_is_dense_attention_with_rows_that_sum_to_one() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 6, 7), torch.randn(2, 8, 6, 7)
    weights = q.flatten(2).softmax(1).transpose(1, 2) @ k.flatten(2).softmax(2)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 20))
    dense = (weights @ v.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (4, 5))
    torch.testing.assert_close(efficient_attention(q, k, v), dense)


def test_each_pixel_is_filtered_by_the_kernel_predicted_for_it() -> None:
    torch.manual_seed(0)
    net = PixelDependentFilter(4, kernel_size=3)
    torch.nn.init.normal_(net.bias)
    x = torch.randn(1, 4, 6, 5)
    y, x0, kernels = 0, 3, net.kernels(x)
    patch = F.pad(x, (1, 1, 1, 1))[0, :, y:y + 3, x0:x0 + 3]
    expected = (patch * net.weight * kernels[0, :, y, x0].view(3, 3)).sum((1, 2)) + net.bias
    torch.testing.assert_close(net(x)[0, :, y, x0], expected)


def test_the_lowest_level_sees_each_quarter_by_itself() -> None:
    torch.manual_seed(0)
    net = SAPHNet(width=4, num_blocks=1).eval()
    seen = []
    net.encoders[0].register_forward_hook(lambda module, args, features: seen.append(features[-1]))
    x = torch.rand(1, 3, 16, 24)
    changed = x.clone()
    changed[..., 2, 20] = 1 - changed[..., 2, 20]  # in the quarter at the top right
    with torch.no_grad():
        net(x), net(changed)
    top_left, bottom_left, top_right, bottom_right = (seen[0] != seen[1]).flatten(1).any(1)
    assert top_right and not (top_left or bottom_left or bottom_right)
