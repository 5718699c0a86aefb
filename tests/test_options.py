"""Every options file parses, says how to run it, and builds what it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from stochastic_refine.archs import build_arch
from stochastic_refine.archs.build import check_arch_options
from stochastic_refine.option_check import check_options
from stochastic_refine.registration import register_all

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / 'options').rglob('*.yml'))


def load(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())


def without(options: Any, key: str) -> Any:
    """The options without every ``key`` in them."""
    return {k: without(v, key) for k, v in options.items() if k != key} if isinstance(options, dict) else options


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(ROOT / 'options')))
def test_file_builds_what_it_names(file: Path, photos: Path, pairs: Path) -> None:
    register_all()
    from basicsr.data import build_dataset
    from basicsr.losses import build_loss
    relative = file.relative_to(ROOT).as_posix()
    first = file.read_text().splitlines()[0]
    mode = 'test' if file.name.startswith('test') else 'train'
    assert first.startswith('# ') and first.endswith(f'python basicsr/{mode}.py -opt {relative}')

    opt = load(file)
    opt |= {'is_train': mode == 'train', 'num_gpu': 0}  # BasicSR's parser has resolved 'auto' by then
    opt['path']['pretrain_network_g'] = None
    opt['network_g'] = without(opt['network_g'], 'pretrained')
    for phase, dataset in opt['datasets'].items():
        dataset['phase'] = phase
        paired = 'dataroot_lq' in dataset
        dataset['dataroot_gt'] = str(pairs / 'gt' if paired else photos)
        if paired:
            dataset['dataroot_lq'] = str(pairs / 'lq')
        if 'gt_size' in dataset:
            dataset['gt_size'] = 32  # the test's photos are small
    check_options(opt)
    with torch.device('meta'):
        assert sum(p.numel() for p in build_arch(opt['network_g']).parameters()) > 1e5
    for dataset in opt['datasets'].values():
        item = build_dataset(dataset)[0]
        assert item['lq'].shape == item['gt'].shape
    for key, options in opt.get('train', {}).items():
        if key.endswith('_opt'):
            build_loss(options)


def test_gopro_is_the_papers_recipe() -> None:
    opt = load(ROOT / 'options/train_gopro.yml')
    assert opt['datasets']['train']['gt_size'] == 128
    assert opt['datasets']['train']['batch_size_per_gpu'] == 256
    assert opt['train']['total_iter'] == 1_000_000
    assert opt['train']['ema_decay'] > 0
    assert 'initial_opt' not in opt['train']
    with torch.device('meta'):
        net = build_arch(opt['network_g'])
    assert sum(p.numel() for p in net.parameters()) == 26_065_027 + 6_926_403
    for name in ('regression', 'nonresidual'):
        check_arch_options(load(ROOT / f'options/baselines/train_gopro_{name}.yml')['network_g'])


@pytest.mark.parametrize('name', ['test_gopro.yml', 'test_hide.yml'])
def test_operating_points_are_the_papers(name: str) -> None:
    opt = load(ROOT / 'options' / name)
    points = opt['val']['operating_points']
    assert points['ours']['steps'] == 500 and not points['ours'].get('average')
    assert points['ours_sa']['steps'] == 10 and points['ours_sa']['average']
    assert opt['network_g'] == load(ROOT / 'options/train_gopro.yml')['network_g']
