"""Folders as the Hugging Face hub holds them; nothing here needs a network."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.checkpoints.hub_folder import is_repository
from stochastic_refine.errors import InputError
from stochastic_refine.inference.deblurrer import Deblurrer

huggingface_hub = pytest.importorskip('huggingface_hub')

from stochastic_refine.integrations.hub import HubPredictRefineNet  # noqa: E402

UNET = {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1}
NETWORK = {'type': 'PredictRefineNet', 'predictor': {**UNET, 'frozen': True},
           'denoiser': {**UNET, 'in_channels': 6, 'noise_conditioned': True}, 'residual_scale': 3.0}
POINTS = {name: {'sampler': 'ddim', 'steps': steps, 'final_variance': 0.5} for name, steps in (('z', 2), ('a', 1), ('m', 3))}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_safetensors(tmp_path / 'net.safetensors', build_arch(NETWORK).state_dict(),
                     {'network': NETWORK, 'operating_points': POINTS, 'tradeoff': list(POINTS.values()), 'iteration': 7})
    return tmp_path / 'net.safetensors'


def test_a_folder_gives_the_same_bits_points_and_pictures(weights: Path, tmp_path: Path) -> None:
    saved = HubPredictRefineNet.from_weights(weights)
    saved.save_pretrained(tmp_path / 'hub')
    config = json.loads((tmp_path / 'hub' / 'config.json').read_text())
    (tmp_path / 'hub' / 'config.json').write_text(json.dumps(config, sort_keys=True))  # as the hub's tools write it
    net = HubPredictRefineNet.from_pretrained(tmp_path / 'hub')
    assert not net.training and net.frozen_predictor and net.residual_scale == 3
    assert all(torch.equal(a, b) for a, b in zip(saved.state_dict().values(), net.state_dict().values(), strict=True))
    assert list(net.metadata['operating_points']) == ['z', 'a', 'm']
    here, there = (Deblurrer.from_pretrained(path, device='cpu', precision='float32') for path in (weights, tmp_path / 'hub'))
    assert list(there.points.items()) == list(here.points.items()) and there.tradeoff_points == here.tradeoff_points
    photo = torch.rand(3, 21, 30)
    assert (there(photo).image == here(photo).image).all()


def test_what_weights_told_goes_along_and_their_path_does_not(weights: Path, tmp_path: Path) -> None:
    save_safetensors(tmp_path / 'g.safetensors', build_arch(UNET).state_dict(), {'network': UNET})
    net = HubPredictRefineNet({'pretrained': str(tmp_path / 'g.safetensors'), 'frozen': True}, NETWORK['denoiser'])
    net.save_pretrained(tmp_path / 'hub')
    (tmp_path / 'g.safetensors').unlink()
    assert str(tmp_path) not in (tmp_path / 'hub' / 'config.json').read_text()
    assert torch.equal(HubPredictRefineNet.from_pretrained(tmp_path / 'hub').predictor.conv_in.weight,
                       net.predictor.conv_in.weight)


def test_a_predictor_that_no_config_can_tell_is_refused(tmp_path: Path) -> None:
    net = HubPredictRefineNet(torch.nn.Conv2d(3, 3, 1), NETWORK['denoiser'])
    with pytest.raises(InputError, match='The predictor, Conv2d, was given as a network'):
        net.save_pretrained(tmp_path / 'hub')
    assert not list(tmp_path.glob('hub/*'))


@pytest.mark.parametrize('source', ['weights', 'small'])
def test_card_has_the_facts_and_no_blanks(source: str, weights: Path, tmp_path: Path) -> None:
    HubPredictRefineNet.from_weights(weights if source == 'weights' else source).save_pretrained(tmp_path / 'mine')
    card = huggingface_hub.ModelCard.load(tmp_path / 'mine' / 'README.md')
    assert card.data.library_name == 'stochastic_refine' and card.data.pipeline_tag == 'image-to-image'
    assert 'More Information' not in card.text and 'FOLDER' not in card.text and "from_pretrained('mine')" in card.text
    for fact in (['`z`', 'one sample of 2 calls', '7 iterations'] if source == 'weights' else ['27.21', 'BSDS500']):
        assert fact in card.text


def test_push_sends_the_folder_under_its_name(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = {}

    def upload(self: object, *, repo_id: str, folder_path: Path, **_: object) -> str:
        sent.update({file.name: file.read_bytes() for file in Path(folder_path).iterdir()})
        return repo_id

    monkeypatch.setattr(huggingface_hub.HfApi, 'upload_folder', upload)
    monkeypatch.setattr(huggingface_hub.HfApi, 'create_repo', lambda self, repo_id, **_: huggingface_hub.RepoUrl(
        f'https://huggingface.co/{repo_id}'))
    assert HubPredictRefineNet.from_weights(weights).push_to_hub('me/sharp') == 'me/sharp'
    assert sorted(sent) == ['README.md', 'config.json', 'model.safetensors']
    assert b"from_pretrained('me/sharp')" in sent['README.md']


def test_a_name_is_fetched_and_a_path_is_not(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    HubPredictRefineNet.from_weights(weights).save_pretrained(tmp_path / 'hub')
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', lambda name, file, **_: str(tmp_path / 'hub' / file))
    assert list(Deblurrer.from_pretrained('me/sharp', device='cpu').points) == ['z', 'a', 'm']
    monkeypatch.chdir(tmp_path)
    assert not any(map(is_repository, ('hub/sharp', 'me/sharp.pth', '../sharp', 'sharp', '/me/sharp', 'a/b/c')))


@pytest.mark.parametrize('config, words', [
    (None, 'no config.json'),
    ('{', 'damaged'),
    ('{"architectures": ["BertModel"]}', r"another library's network \(\['BertModel'\]\)"),
    (json.dumps({**NETWORK, 'operating_points': {'z': {}}}), 'list of pairs'),
    (json.dumps({**NETWORK, 'residual_scale': [1]}), 'residual_scale must be'),
    (json.dumps(UNET), 'is of the network RefineUNet'),
])
def test_other_folders_are_one_sentence(config: str | None, words: str, weights: Path, tmp_path: Path) -> None:
    (tmp_path / 'hub').mkdir()
    weights.rename(tmp_path / 'hub' / 'model.safetensors')
    if config is not None:
        (tmp_path / 'hub' / 'config.json').write_text(config)
    with pytest.raises(InputError, match=words):
        HubPredictRefineNet.from_pretrained(tmp_path / 'hub')


def test_without_huggingface_hub_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    monkeypatch.delitem(sys.modules, 'stochastic_refine.integrations.hub')
    with pytest.raises(InputError, match=r'pip install .stochastic_refine\[hub\]'):
        importlib.import_module('stochastic_refine.integrations.hub')


def test_without_a_network_a_name_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError('no network')
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', fails)
    with pytest.raises(InputError, match='me/sharp is no file or folder here, and cannot be had .*no network'):
        HubPredictRefineNet.from_pretrained('me/sharp')
