"""Systems from files as their authors release them, and from weights by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import unet, write_yaml

from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.checkpoints.weights_folder import WEIGHTS_VARIABLE
from stochastic_refine.comparison.systems import Folders, parse_system
from stochastic_refine.errors import InputError

HINET = {'type': 'HINet', 'wf': 4, 'depth': 3, 'hin_position_left': 1, 'hin_position_right': 2}


@pytest.fixture
def params() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: torch.rand_like(value) for name, value in build_arch(HINET).state_dict().items()}


def test_authors_file_and_name(params: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path))
    torch.save({'state_dict': {f'module.{name}': value for name, value in params.items()}}, tmp_path / 'authors.pt')
    save_safetensors(tmp_path / 'mine.safetensors', params, {'network': HINET, 'window': 256})
    by_file, by_name = parse_system(f'HINet={tmp_path / "authors.pt"}'), parse_system('HINet=mine')
    for network in (by_file, by_name):
        net = network.load(torch.device('cpu'))
        assert all(torch.equal(net.state_dict()[name], value) for name, value in params.items())
        assert network.window == 256 and network.points == {}  # scored in windows, as published
    assert by_file.fingerprint != by_name.fingerprint


def test_spandrels_networks(tmp_path: Path) -> None:
    pytest.importorskip('spandrel')
    from spandrel.architectures.KBNet import KBNet_s
    net = KBNet_s(width=8, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1])
    torch.save(net.state_dict(), tmp_path / 'kb.pth')
    loaded = parse_system(f'KBNet={tmp_path / "kb.pth"}').load(torch.device('cpu'))
    assert all(torch.equal(loaded.net.state_dict()[name], value) for name, value in net.state_dict().items())


def test_options_file_with_names(params: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path))
    save_safetensors(tmp_path / 'mine.safetensors', params, {'network': HINET})
    pair = {'type': 'PredictRefineNet', 'predictor': {'pretrained': 'mine', 'frozen': True},
            'denoiser': unet(in_channels=6, noise_conditioned=True)}
    save_safetensors(tmp_path / 'pair.safetensors', build_arch(pair).state_dict(), {})
    system = parse_system(str(write_yaml(tmp_path / 'test.yml', {'network_g': pair, 'path': {'pretrain_network_g': 'pair'}})))
    assert system.network['predictor']['wf'] == 4
    assert torch.equal(system.load(torch.device('cpu')).predictor.state_dict()['last.bias'], params['last.bias'])


def test_what_is_no_system(tmp_path: Path) -> None:
    assert isinstance(parse_system(f'x={tmp_path}'), Folders)
    with pytest.raises(InputError, match='weights get maxim-reds'):
        parse_system('MAXIM=maxim-reds')
    with pytest.raises(InputError, match=r"'maxim-redz' is no folder, .*maxim-reds"):
        parse_system('MAXIM=maxim-redz')
