"""Any network as a frozen predictor, in plain PyTorch."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from conftest import REPOSITORY, run_python
from PIL import Image
from torch import nn

from stochastic_refine.archs import PredictRefineNet
from stochastic_refine.inference.deblurrer import Deblurrer

DENOISER = {'type': 'RefineUNet', 'in_channels': 6, 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1,
            'noise_conditioned': True}


class Foreign(nn.Module):
    """A network that no registry knows, with a layer that behaves otherwise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def test_a_foreign_network_stays_as_it_is_while_the_refiner_learns() -> None:
    foreign = Foreign()
    net = PredictRefineNet(foreign, DENOISER).train()
    before, first = copy.deepcopy(foreign.state_dict()), net.denoiser.conv_in.weight.clone()
    optimizer = torch.optim.Adam([parameter for parameter in net.parameters() if parameter.requires_grad], lr=0.01)
    terms = net(torch.rand(2, 3, 16, 24), gt=torch.rand(2, 3, 16, 24))
    (terms['noise_prediction'] - terms['noise']).abs().mean().backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in foreign.state_dict().items())
    assert not torch.equal(net.denoiser.conv_in.weight, first)
    photo = torch.rand(3, 19, 23)
    result = Deblurrer(net, device='cpu', precision='float32')(photo, steps=2)
    with torch.no_grad():
        expected = foreign.eval()(photo[None])[0].clamp(0, 1).permute(1, 2, 0)
    assert torch.allclose(torch.from_numpy(result.initial), expected, atol=1e-6)


def test_the_example_trains_and_restores(pairs: Path, tmp_path: Path) -> None:
    photo = next((pairs / 'lq').iterdir())
    done = run_python(str(REPOSITORY / 'scripts' / 'demos' / 'plain_pytorch.py'), str(pairs), str(photo), 'out.png', '2',
                      cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / 'out.png').size == Image.open(photo).size
