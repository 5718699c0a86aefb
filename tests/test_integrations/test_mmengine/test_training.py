"""Training by mmengine's runner: the losses of BasicSR's loop, resuming, and checkpoints that open on either side."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, python_environment, unet

pytest.importorskip('mmengine')
from mmengine.config import Config  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from stochastic_refine import Deblurrer  # noqa: E402
from stochastic_refine.archs import build_arch  # noqa: E402
from stochastic_refine.archs.pretrained import read_weights  # noqa: E402
from stochastic_refine.errors import InputError  # noqa: E402
from stochastic_refine.integrations.mmengine import HOOKS, MODELS, command  # noqa: E402

CONFIGS = REPOSITORY / 'options' / 'mmengine'
NET = {'type': 'PredictRefineNet', 'predictor': unet(global_skip=True), 'denoiser': unet(in_channels=6, noise_conditioned=True)}
POINTS = [{'name': 'quick', 'steps': 2}, {'name': 'faithful', 'steps': 2, 'num_samples': 2, 'average': True}]


def tiny(photos: Path, folder: Path, iterations: int) -> dict[str, Any]:
    """Changes of ``train_demo.py`` by which it trains a tiny network on the tests' photos."""
    small = {'dataroot_gt': str(photos), 'cache': False, 'trajectory_length': [3, 10], 'noise_sigma': [0, 2]}
    return {
        'randomness.seed': 3, 'work_dir': str(folder), 'experiment_name': folder.name, 'train_cfg.max_iters': iterations,
        'train_cfg.val_interval': 4, 'default_hooks.checkpoint.interval': 2, 'default_hooks.logger.interval': 1,
        'model.net': {'_delete_': True, **NET}, 'model.operating_points': POINTS,
        'model.pretrained': None, 'model.precision': 'float32', 'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False, 'train_dataloader.sampler.ratio': 1,
        'optim_wrapper.optimizer.lr': 1e-3,
        **{f'train_dataloader.dataset.{key}': value for key, value in {**small, 'gt_size': 32}.items()},
        **{f'val_dataloader.dataset.{key}': value for key, value in small.items() if key != 'cache'},
    }


def tiny_config(photos: Path, folder: Path, iterations: int) -> Path:
    cfg = Config.fromfile(CONFIGS / 'train_demo.py')
    cfg.merge_from_dict(tiny(photos, folder, iterations))
    path = folder.parent / f'{folder.name}_{iterations}.py'
    cfg.dump(path)
    return path


@HOOKS.register_module()
class RecordLosses(Hook):
    """Keeps the losses of each iteration, unrounded."""

    seen: list[dict[str, float]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append({name: float(value) for name, value in outputs.items()})


@pytest.fixture(autouse=True)
def quick_epochs(monkeypatch):
    """mmengine sleeps for two seconds between epochs."""
    monkeypatch.setattr('mmengine.runner.loops.time.sleep', lambda seconds: None)


def test_first_losses_are_those_of_basicsrs_loop(tmp_path, photos, refine_options, launch):
    options = refine_options
    options['network_g'] = NET
    options['train'].update(precision='float32', accumulate=1, total_iter=20)
    del options['train']['grad_clip'], options['train']['scheduler']['gamma'], options['val']
    options['train']['scheduler']['milestones'] = [100]
    options['train']['optim_g'].update(weight_decay=0.0, betas=[0.9, 0.99])
    options['logger']['save_checkpoint_freq'] = 20
    done = launch('train', options)
    assert done.code == 0, done.err
    log = next((tmp_path / 'experiments' / 'tiny').glob('train_*.log')).read_text()
    theirs = [tuple(map(float, found)) for found in re.findall(r'l_noise: (\S+) l_initial: (\S+)', log)]
    assert len(theirs) == 20

    cfg = Config.fromfile(tiny_config(photos, tmp_path / 'equal', 20))
    cfg.custom_hooks.append({'type': 'RecordLosses'})
    cfg.pop('param_scheduler'), cfg.pop('val_cfg'), cfg.pop('val_dataloader'), cfg.pop('val_evaluator')
    RecordLosses.seen.clear()
    Runner.from_cfg(cfg).train()
    ours = [(losses['loss_noise'], losses['loss_initial']) for losses in RecordLosses.seen]
    assert torch.allclose(torch.tensor(ours), torch.tensor(theirs), rtol=0, atol=1e-5)

    # a checkpoint of either opens in the other
    basicsr_file = tmp_path / 'experiments' / 'tiny' / 'models' / 'net_g_20.pth'
    model = MODELS.build({'type': 'StochasticRefine', 'net': NET, 'pretrained': str(basicsr_file)})
    averaged = torch.load(basicsr_file, weights_only=True)['params_ema']
    assert all(torch.equal(value, averaged[name]) for name, value in model.net.state_dict().items())
    checkpoint = read_weights(tmp_path / 'equal' / 'iter_20.pth', prefer='params')
    build_arch(checkpoint.metadata['network']).load_state_dict(checkpoint.params)
    own = torch.load(basicsr_file, weights_only=True)['params']
    assert all(torch.allclose(value, own[name], atol=1e-5) for name, value in checkpoint.params.items())


def test_resumes_in_a_new_process_as_if_unbroken(tmp_path, photos):
    command.main([str(tiny_config(photos, tmp_path / 'whole', 6))])
    command.main([str(tiny_config(photos, tmp_path / 'broken', 4))])
    done = subprocess.run(
        [sys.executable, '-m', 'stochastic_refine.integrations.mmengine', str(tiny_config(photos, tmp_path / 'broken', 6)),
         '--resume'], env=python_environment(), cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert re.search(r'Iter\(val\).*PSNR: \d', done.stdout + done.stderr)
    whole, broken = (torch.load(tmp_path / name / 'iter_6.pth', weights_only=True) for name in ('whole', 'broken'))
    assert {int(state['step']) for state in broken['optimizer']['state'].values()} == {6}
    assert int(broken['ema_state_dict']['steps']) == 6
    for part in ('state_dict', 'ema_state_dict'):
        # another process may sum in another order; a step of the optimizer is a hundred times this tolerance
        assert all(torch.allclose(value, broken[part][name], atol=1e-5) for name, value in whole[part].items())
    deblurrer = Deblurrer.from_pretrained(tmp_path / 'broken' / 'iter_6.pth')
    assert deblurrer(photos / 'coffee.png').samples.shape[0] == 1  # at the first of its operating points


@pytest.mark.parametrize(('config', 'millions'), [('train_demo.py', None), ('train_gopro.py', 32.99)])
def test_configs_build_what_they_name(config, millions, photos, pairs):
    cfg = Config.fromfile(CONFIGS / config)
    assert f'options/mmengine/{config}' in (CONFIGS / config).read_text().splitlines()[0]
    with torch.device('meta' if millions else 'cpu'):
        model = MODELS.build(cfg.model)
    if millions:
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(millions * 1e6, abs=5e3)
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope('stochastic_refine'):
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.dataset.dataroot_gt = str(photos if config == 'train_demo.py' else pairs / 'gt')
            if 'dataroot_lq' in loader.dataset:
                loader.dataset.dataroot_lq = str(pairs / 'lq')
            if 'gt_size' in loader.dataset:
                loader.dataset.gt_size = 32
            loader.update(num_workers=0, persistent_workers=False, batch_size=2 if loader.batch_size > 1 else 1)
            batch = next(iter(Runner.build_dataloader(loader, seed=0)))
            assert batch['inputs'][0].shape == batch['data_samples'][0].gt_img.shape


def test_what_mmengine_cannot_resume_safely_is_refused_in_a_sentence(tmp_path, photos):
    from mmengine.logging import HistoryBuffer
    path = tmp_path / 'iter_2.pth'
    torch.save({'state_dict': {}, 'optimizer': {}, 'message_hub': {'log_scalars': {'loss': HistoryBuffer()}}}, path)
    config = str(tiny_config(photos, tmp_path / 'refused', 2))
    with pytest.raises(InputError, match='iter_2.pth holds Python objects.*PortableCheckpointHook'):
        command.main([config, '--resume', str(path)])
    torch.save({'params': {}}, path)
    with pytest.raises(InputError, match='model.pretrained='):
        command.main([config, '--cfg-options', f'load_from={path}'])
