"""Every options file parses, says how to run it, and builds what it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from stochastic_refine.archs import build_arch
from stochastic_refine.archs.build import check_arch_options
from stochastic_refine.registration import register_all
from stochastic_refine.settings.check import check_options

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
    distils = opt['model_type'] == 'ProgressiveDistillationModel'  # which needs weights; these are not read
    opt['path'] |= {'pretrain_network_g': str(file) if distils else None, 'strict_load_g': not distils}
    if 'pretrain_network_le' in opt['path']:
        opt['path'] |= {'pretrain_network_le': str(file), 'strict_load_le': False}
    if file.parent.name == 'latent':
        pytest.importorskip('diffusers')
    for named in ('pretrained', 'base', 'stage1'):  # weights that are not here
        opt['network_g'] = without(opt['network_g'], named)
    for name, dataset in opt['datasets'].items():
        dataset['phase'] = name.split('_')[0]
        paired = 'dataroot_lq' in dataset
        dataset['dataroot_gt'] = str(pairs / 'gt' if paired else photos)
        if paired:
            dataset['dataroot_lq'] = str(pairs / 'lq')
        if dataset.pop('dataroot_initial', None):  # predictions that are not here
            dataset['type'] = 'PairedImageDataset'
        if 'gt_size' in dataset:
            dataset['gt_size'] = 32  # the test's photos are small
        if 'gt_sizes' in dataset:
            dataset['gt_sizes'] = [32] * len(dataset['gt_sizes'])
    check_options(opt)
    with torch.device('meta'):
        for key in ('network_g', 'network_d'):
            assert key not in opt or sum(p.numel() for p in build_arch(opt[key]).parameters()) > 1e5
    for dataset in opt['datasets'].values():
        item = build_dataset(dataset)[0]
        assert item['lq'].shape == item['gt'].shape
    for key, options in opt.get('train', {}).items():
        if key.endswith('_opt') and key not in ('perceptual_opt', 'image_opt'):  # those would download VGG
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


BASELINES = sorted(file.stem.removeprefix('test_') for file in (ROOT / 'options/baselines').glob('test_*.yml'))


@pytest.mark.parametrize('name', BASELINES)
def test_baseline_is_scored_as_trained(name: str) -> None:
    train, test = (load(ROOT / f'options/baselines/{mode}_{name}.yml') for mode in ('train_gopro', 'test'))
    assert test['network_g'] == train['network_g']
    folders = [data['dataroot_lq'] for data in test['datasets'].values()]
    assert folders == ['datasets/GoPro/test/input', 'datasets/HIDE/test/input']
    assert test['path']['pretrain_network_g'] and test['path']['strict_load_g']
    assert {'psnr', 'ssim', 'ssim3d'} <= test['val']['metrics'].keys()
    for key in ('grids', 'crop_size'):
        assert test['val'].get(key) == train['val'].get(key)


#: Folder in tests/data/parity that has the layout of the released checkpoint.
LAYOUTS = {
    'dbgan': 'DBGAN',
    'deblurganv2_inception': 'DeblurGANv2-FPNInception',
    'deblurganv2_mobilenet': 'DeblurGANv2-FPNMobileNet',
    'evssm': 'EVSSM',
    'fftformer': 'FFTformer',
    'hinet': 'HINet',
    'mimo_unet': 'MIMO-UNet',
    'mimo_unet_plus': 'MIMO-UNetPlus',
    'mprnet': 'MPRNet',
    'nafnet_width32': 'NAFNet-GoPro-width32',
    'nafnet_width64': 'NAFNet-GoPro-width64',
    'restormer': 'Restormer-motion',
}


@pytest.mark.parametrize('name', LAYOUTS)
def test_baseline_takes_the_released_checkpoint(name: str) -> None:
    layout = json.loads((ROOT / 'tests/data/parity' / LAYOUTS[name] / 'layout.json').read_text())
    with torch.device('meta'):
        net = build_arch(load(ROOT / f'options/baselines/test_{name}.yml')['network_g'])
    assert ({key: list(value.shape) for key, value in net.state_dict().items()}
            == {key: shape for key, (shape, _) in layout['tensors'].items()})


@pytest.mark.parametrize('name', ['baselines/train_gopro_restormer', 'hidiff/train_gopro_stage1', 'hidiff/train_gopro_stage2'])
def test_progressive_stages_and_rates_are_the_published_ones(name: str) -> None:
    opt = load(ROOT / f'options/{name}.yml')
    data, scheduler = opt['datasets']['train'], opt['train']['scheduler']
    assert len(data['iters']) == len(data['gt_sizes']) == len(data['mini_batch_sizes'])
    assert sum(data['iters']) == sum(scheduler['periods']) == opt['train']['total_iter'] == 300_000
    assert scheduler['periods'][0] in (data['iters'][0], sum(data['iters'][:5]))
    assert scheduler['eta_mins'][0] == opt['train']['optim_g']['lr']


@pytest.mark.parametrize('name', ['deblurganv2_inception', 'deblurganv2_mobilenet'])
def test_adversarial_rate_is_constant_then_linear(name: str) -> None:
    from stochastic_refine.registration import prepare_basicsr
    prepare_basicsr()
    from stochastic_refine.models.lr_scheduler import build_schedulers
    train = load(ROOT / f'options/baselines/train_gopro_{name}.yml')['train']
    options = train['scheduler'] | {'total_steps': train['scheduler']['total_steps'] // 1000}  # in thousands: 50, then 150
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=train['optim_g']['lr'])
    scheduler, = build_schedulers(options, [optimizer])
    rates = [scheduler.get_last_lr()[0]]
    for _ in range(options['total_steps'] - 1):
        optimizer.step()
        scheduler.step()
        rates += scheduler.get_last_lr()
    assert rates[:50] == pytest.approx([1e-4] * 50)
    assert rates[124] == pytest.approx(0.5e-4, rel=0.01) and rates[-1] == pytest.approx(1e-7)


@pytest.mark.parametrize('backbone', ['inception', 'mobilenet'])
def test_deblurganv2s_pixel_loss_is_that_of_images_normalised_for_vgg19(backbone: str) -> None:
    """As published: half the MSE after the mean and standard deviation of ImageNet, channel by channel."""
    loss = load(ROOT / f'options/baselines/train_gopro_deblurganv2_{backbone}.yml')['train']['pixel_opt']
    x, y = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    assert loss['type'] == 'MSELoss'
    assert loss['loss_weight'] * (x - y).square().mean() == pytest.approx(
        0.5 * ((x - y) / deviation).square().mean().item(), rel=0.02)
