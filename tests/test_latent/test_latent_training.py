"""The trainings of the options files, five iterations at a tiny width: what is trained, and what stays as it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from stochastic_refine.errors import InputError

from .tiny_diffusion import SMALL

ROOT = Path(__file__).resolve().parents[2]


def first_stage(file: Path) -> str:
    from stochastic_refine.archs import build_arch
    from stochastic_refine.checkpoints import save_safetensors
    options = {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1}
    save_safetensors(file, build_arch(options).state_dict(), {'network': options})
    return str(file)


@pytest.mark.parametrize('name, kind, changes, iterations', [
    ('deblurdiff', 'SD21', SMALL, 5),
    ('controlnet', 'SD21', {}, 5),
    ('diffbir', 'SD21', {}, 5),
    ('diffbir', 'SD21_V', {'type': 'DiffBIRv21', 'noise_augmentation': 200}, 3),
    ('pasd', 'SD15', {}, 5),
    ('pasd', 'SD15', {'light': True, 'rrdb': True}, 3),
])
def test_few_iterations(name: str, kind: str, changes: dict[str, Any], iterations: int, bases: dict[str, Path], pairs: Path,
                        build_model: Any, tmp_path: Path) -> None:
    from stochastic_refine.archs.pretrained import read_weights
    base = bases[kind]
    opt = yaml.safe_load((ROOT / f'options/latent/train_{name}.yml').read_text())
    opt |= {'num_gpu': 0}
    opt['network_g'] = {**opt['network_g'], **changes, 'base': str(base)}
    if name == 'diffbir':
        opt['network_g']['stage1'] = first_stage(tmp_path / 'first.safetensors')
        if kind == 'SD21_V':
            opt['train']['velocity_opt'] = opt['train'].pop('noise_opt')
    opt['datasets'] = {'train': {**opt['datasets']['train'], 'dataroot_gt': str(pairs / 'gt'), 'dataroot_lq': str(pairs / 'lq'),
                                 'gt_size': 32, 'batch_size_per_gpu': 2, 'num_worker_per_gpu': 0}}
    opt['train'] |= {'total_iter': 5, 'accumulate': 1 + (name == 'deblurdiff'), 'ema_decay': 0.5}
    model = build_model(opt)
    net = model.net_g
    assert net.base is model.net_g_ema.base
    assert net.first is model.net_g_ema.first
    frozen = {key: value.clone() for part in net.shared for key, value in part.state_dict().items()}
    assert frozen['unet.conv_in.weight'].dtype == torch.bfloat16 and len(net.shared) == 1 + (name == 'diffbir')

    before = {key: value.detach().clone() for key, value in net.named_parameters()}
    reached = set()
    torch.manual_seed(0)
    for iteration in range(1, iterations + 1):
        model.feed_data({'lq': torch.rand(2, 3, 32, 32), 'gt': torch.rand(2, 3, 32, 32)})
        model.optimize_parameters(iteration)
        assert set(model.log_dict) == {f'l_{loss}' for loss in net.losses}
        assert all(math.isfinite(loss) for loss in model.log_dict.values())
        reached |= {key for key, value in net.named_parameters() if value.grad is not None and value.grad.any()}
    assert before.keys() - reached == set()
    assert not [key for key, value in net.named_parameters() if torch.equal(before[key], value)]
    for part in net.shared:
        assert not part.training and all(parameter.grad is None for parameter in part.parameters())
        assert all(torch.equal(value, frozen[key]) for key, value in part.state_dict().items())

    model.opt['path']['models'] = str(tmp_path)
    model.save_network([net, model.net_g_ema], 'net_g', 5, ['params', 'params_ema'])
    saved = read_weights(tmp_path / 'net_g_5.pth')
    assert saved.params.keys() == before.keys() and saved.metadata['network']['base'] == str(base)


def test_first_stage_of_diffbir_trains(pairs: Path, build_model: Any) -> None:
    pytest.importorskip('spandrel')
    opt = yaml.safe_load((ROOT / 'options/latent/train_diffbir_stage1.yml').read_text())
    opt |= {'num_gpu': 0}
    opt['network_g']['settings'] |= {'img_size': 16, 'embed_dim': 12, 'depths': [2], 'num_heads': [2]}
    opt['datasets'] = {'train': {**opt['datasets']['train'], 'dataroot_gt': str(pairs / 'gt'), 'dataroot_lq': str(pairs / 'lq'),
                                 'gt_size': 64, 'batch_size_per_gpu': 2, 'num_worker_per_gpu': 0}}
    opt['train'] |= {'total_iter': 5, 'accumulate': 1}
    model = build_model(opt)
    before = {key: value.detach().clone() for key, value in model.net_g.named_parameters()}
    for iteration in range(1, 6):
        model.feed_data({'lq': torch.rand(2, 3, 64, 64), 'gt': torch.rand(2, 3, 64, 64)})
        model.optimize_parameters(iteration)
        assert all(math.isfinite(loss) for loss in model.log_dict.values())
    assert not [key for key, value in model.net_g.named_parameters() if value.grad is None or torch.equal(before[key], value)]


@pytest.mark.parametrize('block, change, words', [
    ('train', {'flow_opt': {'type': 'L1Loss'}}, 'no meaning for DeblurDiff, whose losses are noise_opt, latent_opt'),
    ('val', {'grids': True, 'crop_size': 256}, 'grids has no meaning.*attention_window'),
    ('val', {'final_variance': 0.1}, 'final_variance means nothing to the sampler native'),
    ('val', {'guidance_scale': 2.0}, 'give a prompt'),
])
def test_options_without_meaning(parsed: Any, block: str, change: dict, words: str) -> None:
    from stochastic_refine.latent.model import LatentModel
    opt = parsed(yaml.safe_load((ROOT / 'options/latent/train_deblurdiff.yml').read_text()))
    opt[block] |= change
    with pytest.raises(InputError, match=words):
        LatentModel.check_options(opt)
