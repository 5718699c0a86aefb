"""A predictor by name: its weights tell type and settings, to the check, to the model and to the checkpoint that it writes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.checkpoints.weights_folder import WEIGHTS_VARIABLE
from stochastic_refine.errors import InputError
from stochastic_refine.settings.check import check_options

NAFNET = {'type': 'NAFNetLocal', 'img_channel': 3, 'width': 4, 'middle_blk_num': 1, 'enc_blk_nums': [1], 'dec_blk_nums': [1]}


@pytest.fixture
def options(refine_options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path))
    torch.manual_seed(9)
    save_safetensors(tmp_path / 'mine.safetensors', build_arch(NAFNET).state_dict(), {'network': NAFNET})
    refine_options['network_g']['predictor'] = {'pretrained': 'mine', 'frozen': True}
    del refine_options['train']['initial_opt']
    return refine_options


def test_name_is_enough(options: dict[str, Any], parsed, build_model, tmp_path: Path) -> None:
    opt = parsed(options)
    check_options(opt)
    assert opt['network_g']['predictor'] == {**NAFNET, 'pretrained': 'mine', 'frozen': True}
    model = build_model(options)
    torch.manual_seed(9)
    expected = build_arch(NAFNET).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.net_g.predictor.state_dict().items())
    assert model.checkpoint_metadata()['network']['predictor'] == {**NAFNET, 'frozen': True}


def test_pretrained_network_by_name(options: dict[str, Any], parsed, build_model, tmp_path: Path) -> None:
    options['path']['pretrain_network_g'] = 'whole'
    donor = build_arch(options['network_g'])
    save_safetensors(tmp_path / 'whole.safetensors', donor.state_dict(), {})
    check_options(parsed(options))
    model = build_model(options, seed=1)
    assert all(torch.equal(value, donor.state_dict()[name]) for name, value in model.net_g.state_dict().items())


@pytest.mark.parametrize('predictor, words', [
    ({'pretrained': 'min'}, 'did you mean mine'),
    ({'pretrained': 'maxim-reds', 'type': 'MAXIM'}, 'weights get maxim-reds'),
    ({'pretrained': 'mine', 'type': 'NAFNet', 'width': 8}, "another network .*'width': 4"),
    ({'pretrained': 'mine', 'type': 'HINet'}, "another network .*'NAFNetLocal'"),
])
def test_wrong_names_and_settings(predictor: dict, words: str, options: dict[str, Any], parsed) -> None:
    changed = copy.deepcopy(options)
    changed['network_g']['predictor'] = predictor
    with pytest.raises(InputError, match=words):
        check_options(parsed(changed))
