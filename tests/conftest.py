"""Tiny photos, tiny networks, and two ways to run: models in this process, launchers in one of their own."""

from __future__ import annotations

import copy
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
# What the user of this machine has fetched is none of the tests' business; their own processes inherit this.
os.environ['STOCHASTIC_REFINE_WEIGHTS'] = str(REPOSITORY / 'tests' / 'no weights here')


def pytest_configure(config: pytest.Config) -> None:
    """Have yapf, which MMEngine imports, write its cache of the grammar before the workers start: it does so in place, and a
    worker that reads what another has begun to write fails over it."""
    if not hasattr(config, 'workerinput'):
        with suppress(ImportError):
            importlib.import_module('yapf.pytree.pytree_utils')


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
    """A folder of four sharp photos, 72x64."""
    import skimage.data
    from PIL import Image
    folder = tmp_path_factory.mktemp('photos')
    for name in ('astronaut', 'chelsea', 'coffee', 'rocket'):
        Image.fromarray(getattr(skimage.data, name)()).resize((72, 64)).save(folder / f'{name}.png')
    return folder


@pytest.fixture(scope='session')
def pairs(tmp_path_factory, photos):
    """A folder with the photos in ``gt/`` and blurred ones of the same names in ``lq/``."""
    from PIL import Image, ImageFilter
    folder = tmp_path_factory.mktemp('pairs')
    for side, blur in (('gt', 0), ('lq', 2)):
        (folder / side).mkdir()
        for path in photos.iterdir():
            Image.open(path).filter(ImageFilter.BoxBlur(blur)).save(folder / side / path.name)
    return folder


def unet(**options: Any) -> dict[str, Any]:
    """Options of a network of some 20 thousand parameters."""
    return {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1, **options}


PSNR = {'type': 'calculate_psnr', 'crop_border': 0, 'test_y_channel': False}


def _common(photos: Path) -> dict[str, Any]:
    return {
        'name': 'tiny',
        'num_gpu': 0,
        'manual_seed': 3,
        'datasets': {
            'train': {'name': 'photos', 'type': 'SyntheticBlurDataset', 'dataroot_gt': str(photos), 'gt_size': 32,
                      'num_worker_per_gpu': 0, 'batch_size_per_gpu': 2},
            'val': {'name': 'photos', 'type': 'SyntheticBlurDataset', 'dataroot_gt': str(photos)},
        },
        'path': {'pretrain_network_g': None, 'resume_state': None},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False},
    }


@pytest.fixture
def refine_options(photos) -> dict[str, Any]:
    """A whole training of a predict-and-refine network with everything switched on, four iterations."""
    return {
        **_common(photos),
        'model_type': 'StochasticRefineModel',
        'network_g': {
            'type': 'PredictRefineNet',
            'predictor': unet(global_skip=True),
            'denoiser': unet(in_channels=6, noise_conditioned=True),
        },
        'train': {
            'ema_decay': 0.5,
            'precision': 'bfloat16',
            'accumulate': 2,
            'grad_clip': 1.0,
            'optim_g': {'type': 'AdamW', 'lr': 0.001},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [3], 'gamma': 0.5},
            'total_iter': 4,
            'initial_opt': {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'},
        },
        'val': {
            'val_freq': 4,
            'save_img': False,
            'operating_points': {
                'vivid': {'sampler': 'ddim', 'steps': 2, 'eta': 0.5},
                'faithful': {'steps': 2, 'final_variance': 0.5, 'num_samples': 3, 'average': True, 'clamp': True},
            },
            'metrics': {'psnr': dict(PSNR)},
        },
    }


@pytest.fixture
def restoration_options(photos, pairs) -> dict[str, Any]:
    """Two iterations of a deterministic network on BasicSR's paired data, in float32."""
    paired = {'name': 'pairs', 'type': 'PairedImageDataset', 'dataroot_gt': str(pairs / 'gt'), 'dataroot_lq': str(pairs / 'lq'),
              'io_backend': {'type': 'disk'}}
    training = {'gt_size': 32, 'use_hflip': True, 'use_rot': True, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 2}
    return {
        **_common(photos),
        'model_type': 'RestorationModel',
        'datasets': {'train': {**paired, **training}, 'val': dict(paired)},
        'network_g': unet(),
        'train': {
            'optim_g': {'type': 'SGD', 'lr': 0.1},
            'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [10], 'restart_weights': [1]},
            'total_iter': 2,
            'pixel_opt': {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'},
        },
        'val': {'val_freq': 2, 'save_img': False, 'metrics': {'psnr': dict(PSNR)}},
    }


def for_test(options: dict[str, Any], checkpoint: Path | None = None) -> dict[str, Any]:
    """The options of a test that validates as the training of ``options`` does."""
    kept = {key: value for key, value in copy.deepcopy(options).items() if key not in ('train', 'logger')}
    kept['datasets'] = {'test': kept['datasets']['val']}
    kept['path'] = {'pretrain_network_g': None if checkpoint is None else str(checkpoint), 'param_key_g': 'params_ema'}
    return kept


@pytest.fixture
def parsed(tmp_path):
    """A function that gives options what BasicSR's parser adds, in a copy; experiments/ is in the test's folder."""
    from stochastic_refine.registration import register_all
    register_all()

    def parse(options: dict[str, Any]) -> dict[str, Any]:
        is_train = 'train' in options
        opt = {**copy.deepcopy(options), 'dist': False, 'rank': 0, 'world_size': 1, 'is_train': is_train, 'auto_resume': False}
        for name, dataset in opt['datasets'].items():
            dataset.setdefault('scale', 1)
            dataset['phase'] = name.split('_')[0]
        root = tmp_path / 'experiments' / opt['name']
        names = ('models', 'training_states', 'visualization') if is_train else ('visualization', )
        opt['path'].update({name: str(root / name) for name in names})
        return opt

    return parse


@pytest.fixture
def build_model(parsed):
    """A function that builds a model from options in this process; its first weights depend on ``seed`` alone."""
    handler = signal.getsignal(signal.SIGINT)

    def build(options: dict[str, Any], seed: int = 0) -> Any:
        import torch
        from basicsr.models import build_model
        opt = parsed(options)
        for key in ('models', 'training_states'):
            if key in opt['path']:
                os.makedirs(opt['path'][key], exist_ok=True)
        torch.manual_seed(seed)
        return build_model(opt)

    yield build
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(scope='module')
def chromium():
    """A headless browser: the one in the environment's CHROMIUM, the system's, or playwright's own."""
    sync_api = pytest.importorskip('playwright.sync_api')
    names = ('chromium', 'chromium-browser', 'google-chrome')
    path = os.environ.get('CHROMIUM') or next(filter(None, map(shutil.which, names)), None)
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=['--no-sandbox'])
        except sync_api.Error as error:
            pytest.skip(f'no Chromium: {error.message.splitlines()[0]}')
        yield browser
        browser.close()


def can_shard() -> bool:
    """Whether this PyTorch writes sharded checkpoints."""
    from torch.distributed import checkpoint
    return hasattr(checkpoint, 'HuggingFaceStorageWriter')


@dataclass
class Run:
    """A launcher's run, finished or not."""

    process: multiprocessing.process.BaseProcess
    out_path: Path
    err_path: Path

    @property
    def out(self) -> str:
        return self.out_path.read_text()

    @property
    def err(self) -> str:
        return self.err_path.read_text()

    def wait(self, seconds: float = 900) -> Run:
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            pytest.fail(f'The run did not end within {seconds} s:\n{self.err}')
        return self

    @property
    def code(self) -> int:
        return self.process.exitcode


@pytest.fixture(scope='session')
def _fork_server():
    os.environ['OMP_NUM_THREADS'] = '1'
    path = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / 'tests')])
    sys.path.insert(0, str(REPOSITORY / 'tests'))
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['forked_launch'])
    yield context
    sys.path.remove(str(REPOSITORY / 'tests'))
    if path is None:
        del os.environ['PYTHONPATH']
    else:
        os.environ['PYTHONPATH'] = path


@pytest.fixture
def start(tmp_path, _fork_server):
    """A function that starts ``stochastic-refine MODE -opt FILE FLAGS`` in the test's folder, without waiting for it."""
    import forked_launch
    processes = []

    def start(mode: str, options: dict[str, Any] | str | Path, *flags: str, cwd: Path = tmp_path) -> Run:
        number = len(processes)
        options = options if isinstance(options, (str, Path)) else write_yaml(cwd / f'{mode}_{number}.yml', options)
        out, err = tmp_path / f'{mode}_{number}.out', tmp_path / f'{mode}_{number}.err'
        process = _fork_server.Process(
            target=forked_launch.run, args=([mode, '-opt', str(options), *flags], str(cwd), str(out), str(err)))
        process.start()
        processes.append(process)
        return Run(process, out, err)

    yield start
    for process in processes:
        if process.is_alive():
            process.kill()


@pytest.fixture
def launch(start):
    """Like ``start``, but waits for the end."""
    return lambda *args, **kwargs: start(*args, **kwargs).wait()


@dataclass
class Ranks:
    """What the processes of one command left: exit codes, errors, the images that each did, and the first one's figures."""

    codes: list[int]
    errors: list[str]
    images: list[list[str]]
    figures: dict[str, str]


@pytest.fixture
def ranks(tmp_path, _fork_server):
    """A function that runs a command in so many processes, as torchrun would, in a new folder of the test's."""
    import forked_ranks

    def run(processes: int, *argv: str) -> tuple[Path, Ranks]:
        folder = tmp_path / f'ranks{processes}'
        folder.mkdir()
        port = free_port()
        running = [_fork_server.Process(target=forked_ranks.run, args=(list(argv), str(folder), rank, processes, port))
                   for rank in range(processes)]
        for process in running:
            process.start()
        for process in running:
            process.join(900)  # against hanging; a busy machine takes its time
            process.kill()
        texts = [[path.read_text() if path.exists() else '' for path in (folder / f'{name}{rank}' for rank in range(processes))]
                 for name in ('err', 'images', 'figures')]
        return folder, Ranks([process.exitcode for process in running], texts[0], [text.split() for text in texts[1]],
                             json.loads(texts[2][0] or '{}'))

    return run


def free_port() -> int:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def write_yaml(path: Path, options: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(options, sort_keys=False))
    return path


def python_environment() -> dict[str, str]:
    """Environment of a Python process that finds the repository."""
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(REPOSITORY)}


def run_python(*args: str, cwd: Path, seconds: float = 900) -> subprocess.CompletedProcess[str]:
    """``python ARGS`` in ``cwd``, as a user would run it."""
    return subprocess.run(
        [sys.executable, *args], cwd=cwd, env=python_environment(), capture_output=True, text=True, timeout=seconds)
