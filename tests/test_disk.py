"""Full disks, read-only ones, and data that vanish meanwhile: one sentence, exit code 2, and nothing lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import unet, write_yaml
from launched import assert_refused, iterations, wait_for
from PIL import Image

from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.cli import main


@pytest.fixture
def mounted(tmp_path: Path):
    """A function that mounts a small disk, all of it free, or read-only."""
    disks = []

    def mount(options: str) -> Path:
        disk = tmp_path / f'disk{len(disks)}'
        disk.mkdir()
        if not hasattr(os, 'getuid') or os.getuid() or subprocess.run(
                ['mount', '-t', 'tmpfs', '-o', options, 'none', str(disk)], capture_output=True).returncode:
            pytest.skip('mounting is not allowed here')
        disks.append(disk)
        return disk

    yield mount
    for disk in disks:
        subprocess.run(['umount', '-l', str(disk)], check=True)


# ---------------------------------------------------------------- restoring


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    from stochastic_refine.archs import build_arch
    path = tmp_path / 'tiny.safetensors'
    save_safetensors(path, build_arch(unet()).state_dict(), {'network': unet(), 'operating_points': {}})
    return path


def restore(photos: Path, out: Path, weights: Path, *options: str) -> int:
    return main(['restore', str(photos), '-o', str(out), '-w', str(weights), '--device', 'cpu', *options])


@pytest.mark.parametrize('workers', ['1', pytest.param('2', marks=pytest.mark.slow)])
def test_restoring_to_a_full_disk(mounted, pairs, weights, tmp_path, capsys, workers) -> None:
    """What was written stays whole, nothing is half-written, and the repeated command does what is missing."""
    disk, photos = mounted('size=64k'), tmp_path / 'photos'
    photos.mkdir()
    for path in (pairs / 'lq').iterdir():
        Image.open(path).save(photos / f'{path.stem}.bmp')  # of 14 kB whatever is in it
    assert restore(photos, tmp_path / 'whole', weights) == 0
    expected = {path.name: path.read_bytes() for path in (tmp_path / 'whole').iterdir()}
    (disk / 'filler').write_bytes(bytes(24_000))  # leaves room for two
    capsys.readouterr()
    assert restore(photos, disk, weights, '--workers', workers) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('Error')]
    assert len(errors) == 1 and 'could not be written' in errors[0] and 'No space left' in errors[0]
    (disk / 'filler').unlink()
    written = {path.name: path.read_bytes() for path in disk.iterdir()}
    assert len(written) in ((2, ) if workers == '1' else (1, 2)) and written.items() <= expected.items()
    assert restore(photos, disk, weights) == 0
    assert {path.name: path.read_bytes() for path in disk.iterdir()} == expected


def test_a_read_only_disk(mounted, pairs, weights, launch, refine_options, tmp_path, capsys) -> None:
    disk = mounted('size=64k,ro')
    assert restore(pairs / 'lq', disk / 'out', weights) == 2
    assert restore(pairs / 'lq', disk, weights) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all(str(disk) in line and 'is read-only for you' in line for line in errors)
    options = write_yaml(tmp_path / 'options.yml', refine_options)
    run = launch('train', options, cwd=disk)
    assert run.code == 2 and 'Traceback' not in run.err
    assert len(run.err.splitlines()) == 1 and f'{disk}/experiments' in run.err and 'Read-only' in run.err


# ---------------------------------------------------------------- training


@pytest.fixture
def long_training(restoration_options, pairs, tmp_path):
    """Options of a training that does not end soon, on photos of its own."""
    data = tmp_path / 'data'
    shutil.copytree(pairs, data)
    train = restoration_options['datasets']['train']
    train.update(dataroot_gt=str(data / 'gt'), dataroot_lq=str(data / 'lq'), dataset_enlarge_ratio=2)
    restoration_options['train'].update(total_iter=100_000, scheduler={'type': 'MultiStepLR', 'milestones': [50_000]})
    restoration_options['val']['val_freq'] = 100_000
    restoration_options['logger']['save_checkpoint_freq'] = 100_000
    return restoration_options


def params(path: Path) -> list[torch.Tensor]:
    return list(torch.load(path, weights_only=True)['params'].values())


def test_training_on_a_full_disk(mounted, launch, long_training) -> None:
    disk = mounted('size=600k')
    long_training['logger']['save_checkpoint_freq'] = 1
    run = launch('train', long_training, cwd=disk)
    assert_refused(run, 'could not be written', 'free some space', started=True)
    folder = disk / 'experiments' / 'tiny'
    states = sorted(int(path.stem) for path in folder.glob('training_states/*'))
    assert states == list(range(1, len(states) + 1)) and states
    for path in folder.glob('*/*.[ps]*t*'):
        torch.load(path, weights_only=True)
    subprocess.run(['mount', '-o', 'remount,size=9m', str(disk)], check=True)
    long_training['train']['total_iter'] = states[-1] + 1
    run = launch('train', long_training, '--auto_resume', cwd=disk)
    assert run.code == 0 and iterations(run.err) == [states[-1] + 1], run.err


@pytest.mark.parametrize('workers', [0, 2])
def test_data_that_vanish_in_mid_epoch(start, launch, long_training, tmp_path, workers) -> None:
    """The training is saved as it is, and goes on like an unbroken one."""
    long_training['datasets']['train']['num_worker_per_gpu'] = workers
    run = start('train', long_training)
    wait_for(lambda: not run.process.is_alive() or (run.err_path.exists() and 'iter:       3,' in run.err))
    (tmp_path / 'data' / 'lq').rename(tmp_path / 'away')
    run.wait()
    assert_refused(run, f"dataroot_lq {tmp_path / 'data' / 'lq'} is there no longer", 'continue with --auto_resume',
                   started=True)
    stopped, = re.findall(r'saved at iteration (\d+)', run.err)
    # the next batch is loaded, in vain, before an iteration is logged
    assert int(stopped) - iterations(run.err)[-1] in (0, 1)
    (tmp_path / 'away').rename(tmp_path / 'data' / 'lq')
    long_training['train']['total_iter'] = int(stopped) + 2
    run = launch('train', long_training, '--auto_resume')
    assert run.code == 0 and iterations(run.err) == [int(stopped) + 1, int(stopped) + 2], run.err
    long_training['name'] = 'unbroken'
    assert launch('train', long_training).code == 0
    resumed, unbroken = (params(tmp_path / 'experiments' / name / 'models' / 'net_g_latest.pth')
                         for name in ('tiny', 'unbroken'))
    assert all(map(torch.equal, resumed, unbroken))


def test_validation_data_that_vanish(launch, long_training, tmp_path) -> None:
    long_training['val']['val_freq'] = 3
    long_training['datasets']['val'].update(dataroot_gt=str(tmp_path / 'val'), dataroot_lq=str(tmp_path / 'val'))
    shutil.copytree(tmp_path / 'data' / 'gt', tmp_path / 'val')
    (tmp_path / 'val' / 'rocket.png').write_bytes(b'')
    run = launch('train', long_training)
    assert_refused(run, 'rocket.png', 'saved at iteration 3', started=True)
