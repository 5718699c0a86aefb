"""Kill a training with SIGKILL again and again, resume it each time, and compare it with a training that was left alone.

python scripts/kill_training.py --kills 50

A tiny predict-and-refine network learns on a few made-up photos with all that a long training has: averaged weights, warm-up,
accumulated gradients, several loading workers, validation, checkpoints. Of the moments of the kills about 20 % lie anywhere
from the command's start on, 40 % in the iterations, and 40 % around the writing of a checkpoint. Weights, averaged weights and
the training state must be equal at the end, bit for bit; the exit code is 1 if they are not. The training runs on the CPU.

Each start is a new process that runs the whole of ``stochastic-refine train -opt FILE --auto_resume``, forked from this one
after its imports, which would else take most of the time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stochastic_refine.checkpoints.sharded import read_sharded  # noqa: E402
from stochastic_refine.cli import main as stochastic_refine  # noqa: E402
from stochastic_refine.registration import register_all  # noqa: E402

register_all()
import basicsr.train  # noqa: E402, F401  (for the processes forked from here)

NAME = 'killed'
tqdm.monitor_interval = 0  # no thread, for the sake of fork
CHECKPOINT_EVERY = 4
PHASES = ('start-up', 'training', 'writing a file', 'between the files of a checkpoint')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--iterations', type=int, help='default: 8 for each kill')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--sharded', action='store_true', help='save sharded checkpoints')
    args = parser.parse_args()
    iterations = args.iterations or 8 * args.kills
    with tempfile.TemporaryDirectory() as folder:
        hits, equal = compare(Path(folder), args.kills, iterations, args.seed, args.sharded)
    print('\n| killed during | times |\n|---|---|')
    for phase in PHASES:
        print(f'| {phase} | {hits[phase]} |')
    print(f"\n{hits.total()} kills, {iterations} iterations: the parameters are {'' if equal else 'NOT '}equal bit for bit.")
    if hits.total() < args.kills:
        print('The training ended before the last kills; give more --iterations.')
    return 0 if equal and hits.total() == args.kills else 1


def compare(folder: Path, kills: int, iterations: int, seed: int, sharded: bool = False) -> tuple[Counter[str], bool]:
    """Train undisturbed and disturbed.

    Returns:
        How many kills hit each phase, and whether both ended with the same bits.
    """
    options = write_options(folder, iterations, sharded)
    left_alone, killed = Training(folder / 'left_alone', options), Training(folder / 'killed', options)
    rng, hits = random.Random(seed), Counter()
    try:
        left_alone.start()
        start_up = left_alone.wait_for(left_alone.is_iterating)
        left_alone.wait_for(lambda: False)
        seconds = left_alone.seconds_per_iteration()
        for _ in tqdm(range(kills), desc='Killing', unit='kill'):
            phase = killed.start_and_kill(rng, start_up, seconds)
            if phase is None:
                break
            hits[phase] += 1
        else:
            killed.start()
            killed.wait_for(lambda: False)
    finally:  # Ctrl-C
        left_alone.kill()
        killed.kill()
    files = [f'models/net_g_{iterations}.pth', 'models/net_g_latest.pth', f'training_states/{iterations}.state']
    return hits, all(is_equal(left_alone.read(file), killed.read(file)) for file in files)


class Training:
    """A training in a folder of its own, which is started again and again."""

    def __init__(self, folder: Path, options: Path) -> None:
        folder.mkdir()
        self.folder, self.options, self.log = folder, options, folder / 'log.txt'
        self.experiment = folder / 'experiments' / NAME
        self.process: Any = None

    def start(self) -> None:
        self.log.write_text('')
        self.process = multiprocessing.get_context('fork').Process(target=self._run)
        self.process.start()
        os.setpgid(self.process.pid, self.process.pid)

    def kill(self) -> None:
        """Kill it with its loading workers, if it is running."""
        if self.process is not None and self.process.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.join()

    def _run(self) -> None:
        os.chdir(self.folder)
        log = os.open(self.log, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log, stream.fileno())
        sys.exit(stochastic_refine(['train', '-opt', str(self.options), '--auto_resume']))

    def wait_for(self, condition: Callable[[], Any], seconds: float = float('inf')) -> float:
        """Wait until ``condition()``, the training's end or ``seconds``; how long that took.

        Raises:
            RuntimeError: If the training failed.
        """
        start = time.monotonic()
        while self.process.is_alive() and not condition() and time.monotonic() < start + seconds:
            time.sleep(0.002)
        if self.process.exitcode:
            raise RuntimeError(f'The training ended with exit code {self.process.exitcode}:\n{self.log.read_text()}')
        return time.monotonic() - start

    def start_and_kill(self, rng: random.Random, start_up: float, seconds: float) -> str | None:
        """Start, and kill at a random moment; the phase that was hit, None if the training ended before."""
        started = time.time()
        self.start()
        aim = rng.choices(('anywhere', 'training', 'writing'), (1, 2, 2))[0]
        if aim == 'anywhere':
            self.wait_for(lambda: False, rng.uniform(0, 1.2 * start_up))
        elif aim == 'training':
            count = rng.randint(1, 2 * CHECKPOINT_EVERY)  # counted, as other work on the machine changes how long they take
            self.wait_for(lambda: self.log.read_text().count('lr:(') >= count)
            self.wait_for(lambda: False, rng.uniform(0, seconds))
        else:
            self.wait_for(self.is_iterating)
            for _ in range(rng.randint(1, 4)):  # each checkpoint is a network's file and the training state
                self.wait_for(lambda: not self.temporaries())
                self.wait_for(self.temporaries)
            if rng.random() < 0.3:
                self.wait_for(lambda: not self.temporaries())
            else:
                self.wait_for(lambda: False, rng.uniform(0, 0.01))
        if not self.process.is_alive():
            return None
        self.kill()
        if not self.is_iterating():
            return 'start-up'
        if self.temporaries():
            return 'writing a file'
        networks, states = ([path for path in self.experiment.glob(pattern) if path.stat().st_mtime >= started]
                            for pattern in ('models/net_g_*.pth', 'training_states/*.state'))
        return 'training' if len(networks) == len(states) else 'between the files of a checkpoint'

    def temporaries(self) -> list[str]:
        """Files that are being written."""
        return [name for place in ('models', 'training_states') if (self.experiment / place).is_dir()
                for name in os.listdir(self.experiment / place) if name.startswith('.')]

    def is_iterating(self) -> bool:
        return 'lr:(' in self.log.read_text()

    def seconds_per_iteration(self) -> float:
        """As the log has it, on average."""
        times = [float(value) for value in re.findall(r'time \(data\): ([\d.]+)', self.log.read_text())]
        return sum(times) / len(times)

    def read(self, file: str) -> Any:
        path = self.experiment / file
        return read_sharded(path) if path.is_dir() else torch.load(path, weights_only=True)


def write_options(folder: Path, iterations: int, sharded: bool) -> Path:
    """An options file, and the photos that it wants."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 7), ('val', 1)):
        (folder / split).mkdir()
        for i in range(count):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(folder / split / f'{i}.png')
    unet = {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1}
    data = {'name': 'made-up', 'type': 'SyntheticBlurDataset', 'trajectory_length': [2, 5]}
    options = {
        'name': NAME,
        'model_type': 'StochasticRefineModel',
        'num_gpu': 0,
        'manual_seed': 0,
        'datasets': {
            'train': {**data, 'dataroot_gt': str(folder / 'train'), 'gt_size': 32, 'num_worker_per_gpu': 2,
                      'batch_size_per_gpu': 4, 'dataset_enlarge_ratio': 3, 'persistent_workers': True},
            'val': {**data, 'dataroot_gt': str(folder / 'val')},
        },
        'network_g': {'type': 'PredictRefineNet', 'predictor': {**unet, 'global_skip': True},
                      'denoiser': {**unet, 'in_channels': 6, 'noise_conditioned': True}},
        'path': {'pretrain_network_g': None, 'resume_state': None},
        'train': {
            'ema_decay': 0.99,
            'accumulate': 2,
            'grad_clip': 1.0,
            'warmup_iter': iterations // 4,
            'optim_g': {'type': 'AdamW', 'lr': 0.001},
            'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [iterations], 'restart_weights': [1]},
            'total_iter': iterations,
            'initial_opt': {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'},
        },
        'val': {'val_freq': 10, 'save_img': False, 'steps': 1,
                'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0, 'test_y_channel': False}}},
        'logger': {'print_freq': 1, 'save_checkpoint_freq': CHECKPOINT_EVERY, 'use_tb_logger': False,
                   'sharded_checkpoints': sharded},
    }
    path = folder / 'options.yml'
    path.write_text(yaml.safe_dump(options, sort_keys=False))
    return path


def is_equal(a: Any, b: Any) -> bool:
    """Whether nested dicts and lists of tensors and plain values are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(is_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(is_equal, a, b))
    return a == b


if __name__ == '__main__':
    sys.exit(main())
