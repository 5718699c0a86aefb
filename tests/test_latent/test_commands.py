"""Every command on a system that diffuses latents, which none knows by name: seeds, averages, std, resuming, figures."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.cli import main
from stochastic_refine.inference.restorer import Restorer

from .tiny_diffusion import SIZE, SMALL


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DeblurDiff with a base of its own, and two operating points."""
    torch.manual_seed(0)
    options = {**SMALL, 'base_size': SIZE}
    points = {'one': {'sampler': 'native', 'steps': 2},
              'mean': {'sampler': 'native', 'steps': 2, 'num_samples': 2, 'average': True}}
    file = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    save_safetensors(file, build_arch(options).state_dict(), {'network': options, 'operating_points': points})
    return file


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory, pairs: Path) -> Path:
    """Two pairs of 64x64."""
    folder = tmp_path_factory.mktemp('data')
    for side, name in (('gt', 'target'), ('lq', 'input')):
        (folder / name).mkdir()
        for path in sorted((pairs / side).iterdir())[:2]:
            Image.open(path).crop((0, 0, 64, 64)).save(folder / name / path.name)
    return folder


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The points at which images were restored."""
    points = []
    true = Restorer._drawing
    monkeypatch.setattr(Restorer, '_drawing',
                        lambda self, lq, point, *rest: (points.append(point), true(self, lq, point, *rest))[1])
    return points


def run(*args: Any) -> None:
    assert main([str(arg) for arg in args]) == 0, args


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_evaluate_goes_on_and_report_shows_it(weights: Path, data: Path, tmp_path: Path, restored: list[Any]) -> None:
    command = ('evaluate', '--gt', data / 'target', '--lq', data / 'input', f'Tiny={weights}', '--seeds', 2, '--metrics',
               'psnr,ssim3d', '-o', tmp_path / 'table', '--device', 'cpu')
    run(*command)
    assert len(restored) == 2 * 2 * 2  # images, points, seeds
    table = (tmp_path / 'table' / 'table.md').read_text()
    assert 'Tiny (one)' in table and 'Tiny (mean)' in table and '±' in table
    run(*command)
    assert len(restored) == 8
    run('report', tmp_path / 'table', '-o', tmp_path / 'page.html')
    assert 'Tiny (mean)' in (tmp_path / 'page.html').read_text()


def test_sweep(weights: Path, data: Path, tmp_path: Path, restored: list[Any]) -> None:
    command = ('sweep', '-w', weights, '--data', data, '--samplers', 'native', '--steps', '1,2', '--counts', '1,2', '--metrics',
               'stlpips,psnr', '--perceptual', 'stlpips', '-o', tmp_path, '--device', 'cpu')
    run(*command)
    cells = rows_of(tmp_path / 'cells.csv')
    assert len(cells) == 4 and len({row['psnr'] for row in cells}) == 4
    done = len(restored)
    run(*command)
    assert len(restored) == done


@pytest.mark.parametrize('study, flags, columns', [
    ('uncertainty', ('--samples', 2, '--schedule', 2, '--blur-photos', 1, '--blur-size', 48, '--lengths', 2, 8),
     ('std', 'coverage', 'length')),
    ('diversity', ('--samples', 2, '--metrics', 'psnr', '--schedules', 1, 2), ('among', 'to_truth')),
    ('latency', ('--metrics', 'psnr', '--schedules', 1, 2), ('seconds', 'calls')),
])
def test_studies(study: str, flags: tuple, columns: tuple[str, ...], weights: Path, data: Path, tmp_path: Path,
                 restored: list[Any]) -> None:
    pytest.importorskip('matplotlib', reason='studies draw figures')
    system = (f'Tiny={weights}', ) if study == 'latency' else ('-w', weights)
    run('study', study, *system, '--data', data, '-o', tmp_path, '--device', 'cpu', *flags)
    rows = rows_of(tmp_path / f'{study}.csv')
    assert rows and set(columns) <= rows[0].keys()
    assert {point.sampler for point in restored} == {'native'}
    assert all(np.isfinite(float(row[columns[0]])) for row in rows if row[columns[0]])
    done = len(restored)
    run('study', study, *system, '--data', data, '-o', tmp_path, '--device', 'cpu', *flags)
    assert len(restored) == done


def test_restore_writes_samples_and_std(weights: Path, data: Path, tmp_path: Path) -> None:
    photo = sorted((data / 'input').iterdir())[0]
    flags = ('-w', weights, '--point', 'mean', '--device', 'cpu', '--save', 'image,samples,std')
    run('restore', photo, '-o', tmp_path / 'a', *flags)
    run('restore', photo, '-o', tmp_path / 'b', *flags)
    names = sorted(path.name for path in (tmp_path / 'a').iterdir())
    assert len(names) == 4  # mean, two samples, std
    assert all((tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes() for name in names)


def test_a_training_resumes_bit_for_bit(base: Path, build_model: Any, parsed: Any, restoration_options: dict[str, Any]) -> None:
    from test_resume import assert_equal, interrupted, state_of
    restoration_options |= {'model_type': 'LatentModel', 'network_g': {**SMALL, 'base': str(base)}}
    restoration_options['train'] = {
        'ema_decay': 0.5, 'optim_g': {'type': 'AdamW', 'lr': 0.001}, 'total_iter': 6,
        'scheduler': {'type': 'MultiStepLR', 'milestones': [4], 'gamma': 0.5}}
    restoration_options['val'] = {}
    whole, resumed = interrupted(build_model, parsed, restoration_options)
    assert_equal(state_of(whole), state_of(resumed))
    assert_equal(whole.training_state(0, 6), resumed.training_state(0, 6))
