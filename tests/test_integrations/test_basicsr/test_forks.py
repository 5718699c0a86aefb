"""StochasticRefineModel in forks without registries, and in a clone of BasicSR: trained by the clone's own train.py."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, unet, write_yaml
from fork_trees import KINDS, write_fork
from test_install_into import needs_basicsr, snapshot

from stochastic_refine import Deblurrer
from stochastic_refine.errors import InputError
from stochastic_refine.integrations.basicsr.install_into import install_into

DENOISER = unet(in_channels=6, noise_conditioned=True)
NET = {'type': 'PredictRefineNet', 'predictor': unet(global_skip=True), 'denoiser': DENOISER, 'sampling': {'steps': 2}}


def train(root: Path, options: dict) -> subprocess.CompletedProcess:
    """The clone's own train.py, as its user would call it; an installed BasicSR is on the path too."""
    write_yaml(root / 'train.yml', options)
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(root), str(REPOSITORY)]), 'OMP_NUM_THREADS': '1'}
    return subprocess.run([sys.executable, 'basicsr/train.py', '-opt', 'train.yml'], cwd=root, env=environment,
                          capture_output=True, text=True, timeout=600)


def fork_options(kind: str, pairs: Path) -> dict:
    data = {'type': 'Dataset_PairedImage' if kind == 'Restormer' else 'PairedImageDataset', 'dataroot_gt': str(pairs / 'gt'),
            'dataroot_lq': str(pairs / 'lq')}
    return {
        'name': 'tiny', 'model_type': 'StochasticRefineModel', 'scale': 1, 'num_gpu': 0, 'manual_seed': 0,
        'datasets': {'train': {**data, 'gt_size': 32, 'num_worker_per_gpu': 1, 'batch_size_per_gpu': 2}, 'val': dict(data)},
        'network_g': NET, 'path': {'pretrain_network_g': None},
        'train': {'total_iter': 5, 'ema_decay': 0.5, 'use_grad_clip': True, 'optim_g': {'type': 'Adam', 'lr': 1.0e-3},
                  'initial_opt': {'type': 'L1Loss', 'loss_weight': 0.5}},
        'val': {'val_freq': 5}, 'logger': {'save_checkpoint_freq': 5},
    }


@pytest.mark.parametrize('kind', KINDS)
def test_a_fork_trains_by_the_noise_loss_validates_saves_and_resumes(tmp_path, pairs, kind):
    """In one jointly with a predictor of ours, in the others over the fork's own network, frozen."""
    root = write_fork(tmp_path / 'clone', kind)
    before = snapshot(root)
    report = install_into(root)
    assert 'PYTHONPATH=' in report and ('averages no weights' in report) == (kind != 'Restormer')
    assert ('num_worker_per_gpu of at least 1' in report) == (kind == 'NAFNet') and 'calls CUDA when it resumes' in report
    state = snapshot(root)
    assert 'already' in install_into(root) and snapshot(root) == state

    if kind == 'Restormer':
        pytest.importorskip('einops')  # which its own networks import
    options = fork_options(kind, pairs)
    if kind != 'NAFNet':
        options['network_g'] = {**NET, 'predictor': {'type': kind, 'frozen': True}}
    done = train(root, options)
    assert done.returncode == 0, done.stderr
    log = (root / 'experiments/tiny/train.log').read_text()
    assert [float(value) > 0.3 for value in re.findall(r'l_noise: (\S+) l_initial: \d', log)] == [True] * 5
    assert 'l_pix' not in log and re.search(r'Validation 5 psnr: \d', log)
    checkpoint = root / 'experiments/tiny/models/net_g_5.pth'
    content = torch.load(checkpoint, weights_only=True)
    own, averaged = content['params'], content['params_ema']
    assert any(not torch.equal(own[name], averaged[name]) for name in own)
    if kind == 'NAFNet':
        deblurrer = Deblurrer.from_pretrained(checkpoint)
        assert deblurrer(pairs / 'lq' / 'coffee.png').image.shape == (64, 72, 3)
    else:
        assert {name for name in own if name.startswith('predictor')} == {'predictor.body.weight', 'predictor.body.bias'}

    options['train']['total_iter'] = 6
    resumed = train(root, options)
    assert resumed.returncode == 0, resumed.stderr
    assert re.findall(r'\[iter: (\d)\]', (root / 'experiments/tiny/train.log').read_text()) == list('123456')
    shutil.rmtree(root / 'experiments')

    if kind == 'HINet':  # the fork's own model would train by a pixel loss on samples
        options.update(model_type='ImageRestorationModel', network_g=NET)
        options['train']['pixel_opt'] = {'type': 'L1Loss'}
        done = train(root, options)
        assert done.returncode != 0 and 'InputError' in done.stderr and 'model_type: StochasticRefineModel' in done.stderr
        shutil.rmtree(root / 'experiments')

    (root / 'train.yml').unlink()
    install_into(root, uninstall=True)
    assert snapshot(root) == before


@needs_basicsr
def test_a_clone_of_basicsr_trains_by_its_own_train_py(tmp_path, refine_options):
    root = tmp_path / 'clone'
    spec = importlib.util.find_spec('basicsr')
    shutil.copytree(Path(spec.origin).parent, root / 'basicsr', ignore=shutil.ignore_patterns('__pycache__'))
    (root / 'basicsr' / 'version.py').unlink()  # a fresh clone has none
    install_into(root)
    refine_options['train']['total_iter'] = 5
    for dataset in refine_options['datasets'].values():
        dataset['scale'] = 1
    done = train(root, refine_options)
    assert done.returncode == 0, done.stderr
    log = next((root / 'experiments/tiny').glob('train_*.log')).read_text()
    assert len(re.findall('l_noise', log)) == 5 and 'psnr' in log
    assert Deblurrer.from_pretrained(root / 'experiments/tiny/models/net_g_latest.pth')


def test_a_fork_whose_model_class_is_unknown_is_refused_untouched(tmp_path):
    root = write_fork(tmp_path / 'clone', 'HINet')
    model = root / 'basicsr/models/image_restoration_model.py'
    model.write_text(model.read_text().replace('class ImageRestorationModel', 'class DeblurModel'))
    before = snapshot(root)
    with pytest.raises(InputError, match='wrong loss there; train it by stochastic-refine train'):
        install_into(root)
    assert snapshot(root) == before


def test_what_a_fork_imports_and_is_not_installed_is_told(tmp_path):
    root = write_fork(tmp_path / 'clone', 'NAFNet')
    arch = root / 'basicsr/models/archs/own_arch.py'
    arch.write_text('import einoops_not_here\n' + arch.read_text())
    assert 'pip install einoops_not_here' in install_into(root)
