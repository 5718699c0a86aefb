"""The paper's recipe and every baseline's train as their options files say: five iterations on tiny photos."""

from __future__ import annotations

import math
import random
import re
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parents[1]
FILES = [ROOT / 'options/train_gopro.yml', *sorted((ROOT / 'options/baselines').glob('train_gopro_*.yml'))]
ITERATIONS = 5
#: Iterations, images and side of the shrunken stages of a progressive training.
STAGES = ((2, 2, 1), (2, 2, 1), (24, 32, 48))
#: Biases of DeblurGAN-v2 whose gradient is zero but for rounding: a norm follows that takes them away again, or, after the
#: discriminators' last convolution, a loss that knows only differences of scores.
WITHOUT_GRADIENT = re.compile(r'net_g\.(fpn\.td\d|smooth2?)\.0\.bias|net_d\.(patch|full)\.model\.(?!0\.)\d+\.bias')


@pytest.fixture
def untrained_vgg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A narrow VGG19 without the trained weights, which would be downloaded."""
    from basicsr.archs import vgg_arch
    widths = [8, 8, 'M', 8, 8, 'M', 8, 8, 8, 8, 'M', 8, 8, 8, 8, 'M', 8, 8, 8, 8, 'M']
    monkeypatch.setattr(vgg_arch, 'VGG_PRETRAIN_PATH', str(tmp_path / 'none.pth'))
    monkeypatch.setattr(vgg_arch.vgg, 'vgg19', lambda pretrained: SimpleNamespace(features=vgg_arch.vgg.make_layers(widths)))


def shrunk(file: Path, pairs: Path) -> dict[str, Any]:
    """The file's options, with its network, losses, optimizers and schedule, for a short training on tiny photos."""
    opt = yaml.safe_load(file.read_text())
    opt |= {'num_gpu': 0}
    data = opt['datasets']['train']
    data |= {'dataroot_gt': str(pairs / 'gt'), 'dataroot_lq': str(pairs / 'lq'), 'gt_size': 32, 'batch_size_per_gpu': 1,
             'num_worker_per_gpu': 0, 'persistent_workers': False}
    if 'iters' in data:
        data['iters'], data['mini_batch_sizes'], data['gt_sizes'] = (list(stages) for stages in STAGES)
        data |= {'gt_size': max(data['gt_sizes']), 'batch_size_per_gpu': max(data['mini_batch_sizes'])}
    del opt['datasets']['val']
    opt['train']['total_iter'] = ITERATIONS
    opt['train']['warmup_iter'] = min(opt['train'].get('warmup_iter', -1), 2)
    return opt


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem.removeprefix('train_gopro').lstrip('_') or 'ours')
def test_five_iterations(file: Path, pairs: Path, build_model: Any, untrained_vgg: None) -> None:
    from basicsr.data import build_dataset
    opt = shrunk(file, pairs)
    model = build_model(opt)
    parameters = {f'{net}.{name}': parameter for net in ('net_g', 'net_d') if hasattr(model, net)
                  for name, parameter in getattr(model, net).named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    random.seed(0)  # BasicSR's crops, flips and rotations
    data = opt['datasets']['train']
    loader = DataLoader(build_dataset(model.opt['datasets']['train']), data['batch_size_per_gpu'], shuffle=True)

    shapes, reached = [], set()
    for iteration, batch in enumerate(islice(cycle(loader), ITERATIONS), 1):
        model.update_learning_rate(iteration, opt['train']['warmup_iter'])
        model.feed_data(batch)
        model.optimize_parameters(iteration)
        shapes.append(tuple(model.gt.shape))
        assert model.log_dict and all(math.isfinite(loss) for loss in model.log_dict.values()), model.log_dict
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all(), name
                if parameter.grad.any():
                    reached.add(name)

    assert not [name for name in parameters.keys() - reached if not WITHOUT_GRADIENT.fullmatch(name)]
    assert not {name for name in reached if torch.equal(before[name], parameters[name])}
    if 'iters' in data:
        expected = [(count, 3, side, side) for iters, count, side in zip(*STAGES) for _ in range(iters)]
    else:
        expected = [(1, 3, 32, 32)] * ITERATIONS
    assert shapes == expected
