"""DeblurGAN-v2's pair of discriminators; the layouts and outputs of its parts are in test_parity.py."""

from __future__ import annotations

import torch

from stochastic_refine.archs import DoubleScaleDiscriminator


def test_the_pair_takes_images_from_0_to_1() -> None:
    torch.manual_seed(0)
    net = DoubleScaleDiscriminator(ndf=4)
    x = torch.rand(2, 3, 64, 48)
    patch, full = net(x)
    assert (patch.shape, full.shape) == ((2, 1, 11, 9), (2, 1, 5, 5))
    assert torch.equal(patch, net.patch(x * 2 - 1))
    assert torch.equal(full, net.full(x * 2 - 1))
