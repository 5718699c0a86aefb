"""MAXIM beside its published outputs (test_parity.py): gradients, strips, sizes, half precision, fresh weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stochastic_refine.archs import MAXIM, maxim_blocks
from stochastic_refine.archs.maxim_arch import shrink
from stochastic_refine.archs.maxim_blocks import CrossGating, MultiAxisMlp
from stochastic_refine.archs.padding import reflect_pad_around
from stochastic_refine.losses.multi_scale_loss import MultiScaleLoss

SMALL = {'features': 4, 'num_stages': 2, 'num_groups': 1, 'num_bottleneck_blocks': 1, 'block_size_hr': [4, 8],
         'grid_size_hr': [2, 4], 'block_size_lr': [2, 2], 'channels_reduction': 1}


@pytest.fixture
def net() -> MAXIM:
    torch.manual_seed(0)
    return MAXIM(**SMALL).eval()


def test_gradients_reach_every_parameter(net: MAXIM) -> None:
    outputs = net(torch.rand(2, 3, 32, 32))
    assert [tuple(output.shape[-2:]) for output in outputs] == [(8, 8), (16, 16), (32, 32)] * 2
    MultiScaleLoss()(outputs, torch.rand(2, 3, 32, 32)).backward()
    without = [name for name, value in net.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert without == []


def test_strips_change_nothing(net: MAXIM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maxim_blocks, 'STRIP_SIZE', 2 * 8 * 16 * 4)  # two rows of blocks
    mlp, x = net.stages['0'].encoders[0].groups.mlps[0], torch.randn(2, 32, 16, 4)
    assert [len(axis.strips(x)) for axis in mlp.axes] == [4, 4]
    whole = mlp(x)  # with gradients nothing is cut
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), whole)


def test_mixing_stays_within_block_and_grid() -> None:
    torch.manual_seed(0)
    mlp, x = MultiAxisMlp(4, block=[4, 8], grid=[2, 4]), torch.randn(1, 16, 32, 4)
    changed = x.clone()
    changed[0, 5, 9, 0] += 1
    difference = (mlp(changed) - mlp(x)).abs().sum(-1)[0] > 1e-7
    expected = torch.zeros(16, 32, dtype=torch.bool)
    expected[4:8, 8:16] = True  # the block around row 5, column 9
    expected[5::8, 1::8] = True  # and its place in each of 2 x 4 cells of 8 x 8 pixels
    assert torch.equal(difference, expected)


@pytest.mark.parametrize('height, width', [(1, 2), (5, 7), (31, 64), (63, 65), (128, 90)])
def test_padding_is_numpys_reflection(height: int, width: int) -> None:
    x = torch.rand(2, 3, height, width)
    even = np.pad(x.numpy(), ((0, 0), (0, 0), (0, height % 2), (0, width % 2)), mode='reflect')
    before = [-side % 64 // 2 for side in even.shape[-2:]]
    expected = np.pad(even, ((0, 0), (0, 0), *((pad, pad) for pad in before)), mode='reflect')
    padded, start = reflect_pad_around(x, 64)
    assert start == tuple(before)
    assert np.array_equal(padded.numpy(), expected)


@pytest.mark.parametrize('height, width', [(3, 5), (45, 64), (49, 34)])
def test_any_size_is_the_crop_of_the_padded(net: MAXIM, height: int, width: int) -> None:
    x = torch.rand(1, 3, height, width)
    padded, (top, left) = reflect_pad_around(x, net.size_multiple)
    with torch.no_grad():
        outputs, whole = net(x), net(padded)
    assert [output.shape[-1] for output in outputs[:3]] == [-(-width // 4), -(-width // 2), width]
    torch.testing.assert_close(outputs[-1], whole[-1][..., top:top + height, left:left + width])


@pytest.mark.parametrize('factor', [2, 4])
@pytest.mark.parametrize('height, width', [(4, 12), (24, 16)])
def test_shrinking_is_antialiased_bilinear(factor: int, height: int, width: int) -> None:
    x = torch.randn(2, 5, height, width)
    expected = F.interpolate(x, scale_factor=1 / factor, mode='bilinear', antialias=True)
    torch.testing.assert_close(shrink(x, factor), expected)


def test_cross_gating_keeps_what_hides_behind_a_large_mean() -> None:
    """Published weights make maps whose mean is 200 times their deviation, at a variance near the norm's epsilon."""
    torch.manual_seed(0)
    layer, x = CrossGating(8, 8, 8, block=[2, 2], grid=[2, 2]), torch.randn(1, 8, 8, 8)
    torch.nn.init.eye_(layer.enter_y.weight)
    torch.nn.init.zeros_(layer.enter_y.bias)
    torch.nn.init.normal_(layer.gate_y.grid.weight)
    y = 0.3 + 1.5e-3 * torch.randn(1, 8, 8, 8)
    with torch.no_grad():
        expected, _ = layer([x], y)
        with torch.autocast('cpu', torch.bfloat16):
            half, _ = layer([x], y)
    assert (half - expected).square().mean().sqrt() < 0.02 * expected.std()


def test_fresh_weights_are_drawn_as_published(net: MAXIM) -> None:
    gate = net.stages['1'].fusions[0].gate_x
    assert (gate.grid.bias == 1).all() and (gate.out_project.bias == 0).all()
    mixing = torch.cat([layer.weight.detach().flatten() for layer in net.modules() if type(layer).__name__ == 'Mixing'])
    assert mixing.std() == pytest.approx(0.02, rel=0.05)
    down = net.stages['0'].encoders[2].down.weight.detach()  # 16 channels, 4x4
    assert down.std() == pytest.approx(256**-0.5, rel=0.05) and down.abs().max() < 2.3 * 256**-0.5
