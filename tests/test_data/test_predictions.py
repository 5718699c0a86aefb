"""Predictions made once: of the right weights and image, gone on with, cropped as their pair is, refused where stale."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import unet
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from stochastic_refine.checkpoints import METADATA_KEY
from stochastic_refine.errors import InputError
from stochastic_refine.inference import predictions
from stochastic_refine.inference.deblurrer import Deblurrer
from stochastic_refine.inference.predictions import prepare_predictions
from stochastic_refine.settings.check import check_options


@pytest.fixture
def folder(tmp_path, pairs):
    shutil.copytree(pairs / 'lq', tmp_path / 'pairs' / 'input')
    shutil.copytree(pairs / 'gt', tmp_path / 'pairs' / 'target')
    return tmp_path / 'pairs'


def weights(path, seed=0):
    from stochastic_refine.archs import build_arch
    torch.manual_seed(seed)
    net = build_arch(unet(global_skip=True), 'test')
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    save_file(net.state_dict(), path, {METADATA_KEY: json.dumps({'network': unet(global_skip=True)})})
    return path


def dataset(folder, phase='train', **changes):
    from stochastic_refine.registration import prepare_basicsr
    prepare_basicsr()
    from stochastic_refine.data.checked_dataset import DrawnDataset
    from stochastic_refine.data.predicted_image_dataset import PredictedImageDataset
    return DrawnDataset(PredictedImageDataset({
        'name': 'predicted', 'type': 'PredictedImageDataset', 'phase': phase, 'scale': 1, 'gt_size': 32, 'use_hflip': True,
        'use_rot': True, 'dataroot_gt': str(folder / 'target'), 'dataroot_lq': str(folder / 'input'),
        'dataroot_initial': str(folder / 'initial'), 'io_backend': {'type': 'disk'}, **changes}))


def test_a_run_goes_on_and_makes_anew_what_changed(folder, tmp_path, monkeypatch):
    net = weights(tmp_path / 'a.safetensors')
    assert '4 made now' in prepare_predictions(folder, net, precision='float32')
    names = sorted(path.name for path in (folder / 'input').iterdir())
    expected = Deblurrer.from_pretrained(net, precision='float32')(folder / 'input' / names[0]).image
    stored = np.asarray(Image.open(folder / 'initial' / names[0]), np.float32) / 255
    assert np.abs(stored - expected).max() <= 0.5 / 255 + 1e-6

    made = []
    true = predictions.write_prediction
    monkeypatch.setattr(predictions, 'write_prediction', lambda path, *rest: (made.append(path.name), true(path, *rest)))
    Image.fromarray(np.full((64, 72, 3), 90, np.uint8)).save(folder / 'input' / names[1])
    for name, kept in ((names[2], slice(30)), (names[3], slice(-20))):
        (folder / 'initial' / name).write_bytes((folder / 'initial' / name).read_bytes()[kept])
    assert '3 made now, 1 were there already' in prepare_predictions(folder, net)
    assert made == names[1:]
    prepare_predictions(folder, weights(tmp_path / 'b.safetensors', seed=1))
    assert made[3:] == names


def test_predictions_are_cropped_and_turned_with_their_pair(folder, tmp_path):
    for path in (folder / 'input').iterdir():  # a predictor that leaves all as it is: the same pixels must come out
        shutil.copy(path, folder / 'target' / path.name)
    net = tmp_path / 'identity.safetensors'
    weights(net)
    with safe_open(net, 'pt') as file:
        zeros = {key: torch.zeros_like(file.get_tensor(key)) for key in file.keys()}
        metadata = file.metadata()
    save_file(zeros, net, metadata)
    prepare_predictions(folder, net)
    items, seen = dataset(folder), set()
    for _ in range(8):
        item = items[0]
        assert item['lq'].shape == (3, 32, 32)
        assert torch.equal(item['lq'], item['initial']) and torch.equal(item['lq'], item['gt'])
        seen.add(item['lq'].numpy().tobytes())
    assert len(seen) > 1
    assert dataset(folder, 'val')[0]['initial'].shape == (3, 64, 72)


@pytest.mark.parametrize('damage, words', [('changed', 'another image'), ('missing', 'does not exist'),
                                           ('mixed', 'several weights'), ('strange', 'is no prediction'),
                                           ('cut', 'or damaged')])
def test_stale_predictions_are_refused(folder, tmp_path, damage, words):
    prepare_predictions(folder, weights(tmp_path / 'a.safetensors'))
    *_, name = sorted(path.name for path in (folder / 'input').iterdir())
    if damage == 'changed':
        Image.fromarray(np.full((64, 72, 3), 90, np.uint8)).save(folder / 'input' / name)
    elif damage == 'missing':
        (folder / 'initial' / name).unlink()
    elif damage == 'mixed':
        other = weights(tmp_path / 'b.safetensors', seed=1)
        prepare_predictions(folder, other, destination=tmp_path / 'other')
        shutil.copy(tmp_path / 'other' / name, folder / 'initial' / name)
    elif damage == 'cut':
        (folder / 'initial' / name).write_bytes((folder / 'initial' / name).read_bytes()[:-20])
    else:
        shutil.copy(folder / 'target' / name, folder / 'initial' / name)
    with pytest.raises(InputError, match=words) as caught:
        items = dataset(folder)
        [items[i] for i in range(len(items))]
    assert name in str(caught.value)


def test_training_on_predictions_calls_no_predictor(folder, tmp_path, refine_options, build_model, parsed):
    net = weights(tmp_path / 'a.safetensors')
    prepare_predictions(folder, net)
    paths = {f'dataroot_{key}': str(folder / name) for key, name in
             (('gt', 'target'), ('lq', 'input'), ('initial', 'initial'))}
    block = {'name': 'predicted', 'type': 'PredictedImageDataset', 'io_backend': {'type': 'disk'}, **paths}
    refine_options['datasets'] = {
        'train': {**block, 'gt_size': 32, 'use_hflip': True, 'use_rot': True, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 2},
        'val': block}
    refine_options['network_g']['predictor'] = {'pretrained': str(net), 'frozen': True}
    del refine_options['train']['initial_opt']
    model = build_model(refine_options)

    def called(*_):
        raise AssertionError('the predictor was called')

    model.net_g.predictor.forward = model.net_g_ema.predictor.forward = called
    items = dataset(folder)
    before = [parameter.clone() for parameter in model.net_g.denoiser.parameters()]
    model.feed_data(torch.utils.data.default_collate([items[0], items[1]]))
    model.optimize_parameters(1)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.net_g.denoiser.parameters()))
    model.feed_data(torch.utils.data.default_collate([dataset(folder, 'val')[0]]))
    assert torch.equal(model.restorations()['initial'], model.initial)

    plain = {**refine_options, 'model_type': 'RestorationModel', 'network_g': unet()}
    with pytest.raises(InputError, match='RestorationModel would pass over the predictions'):
        check_options(parsed(plain))
    refine_options['network_g']['predictor']['frozen'] = False
    with pytest.raises(InputError, match='frozen: true'):
        build_model(refine_options)
    other = weights(tmp_path / 'b.safetensors', seed=1)
    refine_options['network_g']['predictor'] = {'pretrained': str(other), 'frozen': True}
    with pytest.raises(InputError, match='made with other weights'):
        build_model(refine_options)
