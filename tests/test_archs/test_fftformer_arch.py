"""FFTformer's two type names; the published layout and output are in test_parity.py."""

from __future__ import annotations

import torch

from stochastic_refine.archs import ARCHS, FFTformer, build_arch


def test_the_authors_lower_case_type_builds_the_same_network() -> None:
    sizes = {'inp_channels': 3, 'out_channels': 3, 'dim': 4, 'num_blocks': [1, 1, 1], 'num_refinement_blocks': 1}
    net, same = build_arch({'type': 'fftformer', **sizes}), FFTformer(**sizes)
    assert isinstance(net, FFTformer)
    same.load_state_dict(net.state_dict())
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(net(x), same(x))
    assert ARCHS['fftformer'].__name__ == 'fftformer'  # BasicSR's registry files a class under its own name
