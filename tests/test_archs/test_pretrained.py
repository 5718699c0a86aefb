"""Weights in every format and wrapper, and parts of networks that take type and settings from their weights."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from stochastic_refine.archs import PredictRefineNet, build_arch
from stochastic_refine.archs.maxim_weights import published_name
from stochastic_refine.archs.pretrained import complete_options, read_weights, require_network
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.checkpoints.weights_folder import WEIGHTS_VARIABLE
from stochastic_refine.errors import InputError

NAFNET = {'type': 'NAFNetLocal', 'img_channel': 3, 'width': 4, 'middle_blk_num': 1, 'enc_blk_nums': [1, 1],
          'dec_blk_nums': [1, 1]}
DENOISER = {'type': 'RefineUNet', 'in_channels': 6, 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1,
            'noise_conditioned': True}


@pytest.fixture(scope='module')
def params() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn_like(value) for name, value in build_arch(NAFNET).state_dict().items()}


@pytest.mark.parametrize('wrap', [
    lambda sd: sd,
    lambda sd: {'params': sd},
    lambda sd: {'params_ema': sd, 'params': {'other': torch.zeros(1)}},
    lambda sd: {'state_dict': {f'module.{name}': value for name, value in sd.items()}, 'epoch': 3},
    lambda sd: {'model': {'net': sd}},
    lambda sd: {'generator': sd},
    lambda sd: {'state_dict': {f'generator.{name}': value for name, value in sd.items()}},
], ids=['bare', 'params', 'params_ema', 'state_dict+module', 'nested', 'generator', 'generator.'])
def test_wrappers(wrap, params: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(wrap(params), tmp_path / 'x.pth')
    found = read_weights(tmp_path / 'x.pth')
    assert found.metadata['network'] == NAFNET
    assert found.params.keys() == params.keys()
    assert all(torch.equal(found.params[name], value) for name, value in params.items())


def test_formats(params: dict[str, Tensor], tmp_path: Path) -> None:
    save_safetensors(tmp_path / 'x.safetensors', params, {})
    np.savez(tmp_path / 'x.npz', **{name: value.numpy() for name, value in params.items()})
    for name in ('x.safetensors', 'x.npz'):
        found = read_weights(tmp_path / name)
        assert found.metadata['network'] == NAFNET
        assert all(torch.equal(found.params[key], value) for key, value in params.items())


def test_flax_names_are_converted(tmp_path: Path) -> None:
    options = {'type': 'MAXIM', 'features': 8, 'num_stages': 2, 'num_groups': 1, 'num_bottleneck_blocks': 1,
               'block_size_hr': [4, 4], 'grid_size_hr': [4, 4], 'block_size_lr': [2, 2]}
    net = build_arch(options)
    arrays = {}
    for name, value in net.state_dict().items():
        flax = published_name(name)
        if not flax.endswith('/kernel'):
            arrays[flax] = value
        elif 'ConvTranspose' in flax:
            arrays[flax] = value.permute(2, 3, 0, 1).flip(0, 1)
        else:
            arrays[flax] = value.t() if value.dim() == 2 else value.permute(2, 3, 1, 0)
    np.savez(tmp_path / 'checkpoint.npz', **{f'opt/target/{name}': value.numpy() for name, value in arrays.items()},
             **{'opt/state/step': np.zeros(())})
    found = read_weights(tmp_path / 'checkpoint.npz')
    assert {**found.metadata['network'], **options} == found.metadata['network']
    assert all(torch.equal(found.params[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize('kind, words', [
    ('objects', 'objects'), ('cut', 'damaged'), ('text', 'which no weights are'), ('gone', 'does not exist'),
    ('huge', 'do not fit into memory|times its own size|damaged')])
def test_bad_npz_is_one_sentence(kind: str, words: str, params: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / 'x.npz'
    arrays = {name: value.numpy() for name, value in params.items()}
    if kind == 'objects':
        np.savez(path, **arrays, x=np.array([{'a': print}], dtype=object))
    elif kind == 'text':
        np.savez(path, **arrays, x=np.array(['a']))
    elif kind == 'huge':
        import zipfile
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {'descr': '<f4', 'fortran_order': False, 'shape': (2**45, )})
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('x.npy', header.getvalue())
    elif kind != 'gone':
        np.savez(path, **arrays)
        path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match=words):
        read_weights(path)


@pytest.mark.parametrize('change, words', [
    (lambda folder: (folder / 'b.bin').unlink(), 'b.bin'),
    (lambda folder: (folder / 'a.bin').write_bytes(bytes(3)), '7 bytes'),
    (lambda folder: (folder / 'model.json').write_text('{'), 'model.json'),
], ids=['missing shard', 'another size', 'damaged list'])
def test_bad_tfjs_folder_is_one_sentence(change, words: str, tmp_path: Path) -> None:
    weights = [{'name': 'w', 'shape': [2], 'dtype': 'float32'}]
    (tmp_path / 'model.json').write_text(json.dumps({'weightsManifest': [{'paths': ['a.bin', 'b.bin'], 'weights': weights}]}))
    for name in ('a.bin', 'b.bin'):
        (tmp_path / name).write_bytes(bytes(4))
    change(tmp_path)
    with pytest.raises(InputError, match=words):
        read_weights(tmp_path)


def test_unknown_network_is_one_sentence(tmp_path: Path) -> None:
    torch.save({'a': torch.zeros(2)}, tmp_path / 'x.pth')
    words = r'x\.pth does not say which network .* nearest is \w+, from which it differs: .*first: a'
    with pytest.raises(InputError, match=words):
        require_network(read_weights(tmp_path / 'x.pth'), str(tmp_path / 'x.pth'))


def test_part_takes_type_and_settings_from_its_weights(params: dict[str, Tensor], tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path))
    save_safetensors(tmp_path / 'mine.safetensors', params, {'network': NAFNET})
    torch.save({'params': params}, tmp_path / 'authors.pt')
    for predictor in ({'pretrained': 'mine', 'frozen': True}, {'type': 'NAFNet', 'pretrained': str(tmp_path / 'authors.pt')}):
        net = PredictRefineNet(predictor, DENOISER)
        assert type(net.predictor).__name__ == predictor.get('type', 'NAFNetLocal')
        assert all(torch.equal(net.predictor.state_dict()[name], value) for name, value in params.items())
    completed = complete_options({'type': 'PredictRefineNet', 'predictor': {'pretrained': 'mine'}, 'denoiser': DENOISER})
    assert completed['predictor'] == {**NAFNET, 'pretrained': 'mine'} and completed['denoiser'] == DENOISER


def test_weights_of_other_settings_name_both(params: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(params, tmp_path / 'x.pth')
    with pytest.raises(InputError, match=r"predictor: .*x\.pth holds weights of another network.*'width': 4"):
        PredictRefineNet({'type': 'NAFNet', 'width': 8, 'pretrained': str(tmp_path / 'x.pth')}, DENOISER)
    with pytest.raises(InputError, match='predictor: .*gone'):
        PredictRefineNet({'pretrained': 'gone'}, DENOISER)
