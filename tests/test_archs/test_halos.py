"""The halo that a network declares is what it sees: tiles with it are exact, and it is not much too wide."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stochastic_refine.archs.dbgan_arch import DBGAN
from stochastic_refine.archs.mimo_unet_arch import MIMOUNet
from stochastic_refine.archs.predict_refine_arch import final_output
from stochastic_refine.archs.refine_unet_arch import RefineUNet
from stochastic_refine.inference.tiling import TiledNet, halo_of


def tiny_unet(**options) -> RefineUNet:
    return RefineUNet(**{'base_channels': 4, 'channel_mults': (1, 1, 2, 2), **options})


def reach(net: nn.Module) -> int:
    """How many pixels beyond a cell of the grid an input column can lie that changes the cell's output."""
    cell = getattr(net, 'size_multiple', 1)
    margin = -(-(halo_of(net) + 4 * cell) // cell) * cell
    x = torch.zeros(1, 3, cell, 2 * margin + cell, dtype=torch.float64).uniform_().requires_grad_()
    output = final_output(net, net(x))[..., margin:margin + cell]
    (gradient, ) = torch.autograd.grad((output * torch.rand_like(output)).sum(), x)
    columns = gradient.abs().sum((0, 1, 2)).nonzero()
    assert 0 < columns.min() and columns.max() < x.shape[-1] - 1, 'the image is too small to tell'
    return int(max(margin - columns.min(), columns.max() - (margin + cell - 1)))


@pytest.mark.parametrize('options', [
    {'num_res_blocks': 3},  # the paper's
    {'num_res_blocks': 1, 'patch_size': 2},  # the small option files'
    {'num_res_blocks': 1},
    {'num_res_blocks': 2, 'channel_mults': (1, 1, 2)},
], ids=str)
def test_a_refine_unet_reaches_the_declared_radius(options):
    net = tiny_unet(**options).double()
    assert net.receptive_radius <= reach(net) <= halo_of(net)


@pytest.mark.parametrize('net, halo', [(MIMOUNet(1, 4), 48), (MIMOUNet(3, 4), 104), (DBGAN(nf=4, nb=2, gc=2), 34)],
                         ids=['MIMO-UNet 1', 'MIMO-UNet 3', 'DBGAN'])
def test_baselines_reach_their_halo(net, halo):
    torch.manual_seed(0)
    net = net.double().eval()
    for parameter in net.parameters():  # what is seen is not to vanish among small weights
        nn.init.normal_(parameter, std=0.2)
    assert halo_of(net) == halo and halo - 2 * getattr(net, 'size_multiple', 1) <= reach(net) <= halo


@pytest.mark.parametrize('net', [MIMOUNet(1, 4), DBGAN(nf=4, nb=1, gc=2)], ids=['MIMO-UNet', 'DBGAN'])
def test_tiles_of_baselines_are_exact(net):
    net = net.double().eval()
    lq = torch.rand(1, 3, 141, 131, dtype=torch.float64)
    with torch.inference_mode():
        assert (TiledNet(net, 32)(lq) - final_output(net, net(lq))).abs().max() < 1e-12
