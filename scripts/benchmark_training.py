"""Speed and memory of training, against BasicSR's SRModel over the same network, as Markdown tables.

Every run is a training by BasicSR's own loop in a fresh process: its timers give the seconds per iteration and the share that
waits for data (one loading worker, which decodes and blurs the photos), the process's high-water mark (VmHWM, so Linux only) or
PyTorch's count on a GPU the memory. Variants alternate; figures are medians over the rounds, ratios taken within each. The
network is the predictor of the paper's shape (``--channels 64`` for its width), the pair that one with a denoiser of as many
channels.

    python scripts/benchmark_training.py
    python scripts/benchmark_training.py --data datasets/BSDS500/train --channels 64 --crop 128 --batch 256   # a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

#: Iterations at the start of each run that do not count: worker, memory pools and libraries are warming up.
WARM_UP = 3
RECOMPUTED = {'precision': 'bfloat16', 'activation_checkpointing': True}
#: Model type and keys of ``train:``; the first of each group is what the others are compared with.
NETWORK = {
    'BasicSR SRModel, float32': ('SRModel', {}),
    'ours, float32': ('RestorationModel', {}),
    'ours, bfloat16': ('RestorationModel', {'precision': 'bfloat16'}),
    'ours, bfloat16, activation checkpointing': ('RestorationModel', RECOMPUTED),
}
PAIR = {
    'pair, float32': ('StochasticRefineModel', {}),
    'pair, bfloat16': ('StochasticRefineModel', {'precision': 'bfloat16'}),
    'pair, bfloat16, activation checkpointing': ('StochasticRefineModel', RECOMPUTED),
}
PROCESSES = 'ours, bfloat16'


def options(args: argparse.Namespace, variant: str) -> dict[str, Any]:
    """The options file of a training."""
    model, settings = {**NETWORK, **PAIR}[variant]
    network = {'type': 'RefineUNet', 'base_channels': args.channels}
    if variant in PAIR:
        denoiser = {**network, 'in_channels': 6, 'noise_conditioned': True}
        network = {'type': 'PredictRefineNet', 'predictor': network, 'denoiser': denoiser}
    loss = {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'}
    iterations = args.iterations + WARM_UP
    return {
        'name': 'benchmark',
        'model_type': model,
        'num_gpu': min(args.gpus, 1),
        'manual_seed': 0,
        'datasets': {'train': {
            'name': 'photos', 'type': 'SyntheticBlurDataset', 'dataroot_gt': str(args.data), 'gt_size': args.crop,
            'num_worker_per_gpu': 1, 'batch_size_per_gpu': args.batch,
            'dataset_enlarge_ratio': 2 * (iterations + 2) * args.batch,  # one epoch, in two processes too
        }},
        'network_g': network,
        'path': {'pretrain_network_g': None, 'resume_state': None},
        'train': {
            'ema_decay': 0.999,
            'optim_g': {'type': 'Adam', 'lr': 0.0001, 'weight_decay': 0, 'betas': [0.9, 0.99]},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [10**6], 'gamma': 0.5},
            'total_iter': iterations,
            'initial_opt' if variant in PAIR else 'pixel_opt': loss,
            **settings,
        },
        'logger': {'print_freq': 10**6, 'save_checkpoint_freq': 10**6, 'use_tb_logger': False},
    }


# -------------------------------------------------------------------- one run, in a process of its own


def train(file: str, threads: int, result: str) -> int:
    """Run the training of an options file; the first process writes ``{'seconds', 'waiting', 'mib'}`` to ``result``."""
    import torch

    from stochastic_refine.integrations.basicsr.launch import main
    from stochastic_refine.registration import register_all
    register_all()
    import basicsr.train as pipeline
    timers: list[list[float]] = []

    class Recorded(pipeline.AvgTimer):

        def __init__(self) -> None:
            super().__init__()
            timers.append([])
            self.times = timers[-1]

        def record(self) -> None:
            super().record()
            self.times.append(self.current_time)

    pipeline.AvgTimer = Recorded
    torch.set_num_threads(threads)
    imported = high_water_mark()
    sys.argv = ['train.py', '-opt', file, *(['--launcher', 'pytorch'] if 'RANK' in os.environ else [])]
    code = main('train', str(Path(file).parent))
    if code == 0 and os.environ.get('RANK', '0') == '0':
        # the loop has one more batch loaded than it trains on
        waiting, whole = timers[0][WARM_UP:len(timers[1])], timers[1][WARM_UP:]
        mib = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else high_water_mark() - imported
        figures = {'seconds': statistics.median(whole), 'waiting': sum(waiting) / sum(whole), 'mib': mib}
        Path(result).write_text(json.dumps(figures))
    return code


def high_water_mark() -> float:
    """Peak memory of this process so far, MiB."""
    return int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1]) / 2**10


def measure(args: argparse.Namespace, variant: str, threads: int, processes: int | None = None) -> dict[str, float]:
    """Train in a fresh process, or in several under torchrun."""
    with tempfile.TemporaryDirectory() as folder:
        file, result = Path(folder) / 'options.yml', Path(folder) / 'result.json'
        file.write_text(yaml.safe_dump(options(args, variant)))
        torchrun = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}'] if processes else []
        command = [sys.executable, *torchrun, __file__, '--train', str(file), str(threads), str(result)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            sys.exit(f'{variant}: {run.stderr}')
        return json.loads(result.read_text())


# -------------------------------------------------------------------- tables


def table(args: argparse.Namespace, title: str, runs: list[dict[str, dict[str, float]]]) -> list[str]:
    """Rows for the variants of one group; a run has a result for each."""
    base = next(iter(runs[0]))
    rows = [f'| {title} | images/s | ratio | peak MiB | ratio | waits for data |', '|:--|--:|--:|--:|--:|--:|']
    for name in runs[0]:
        seconds, mib, waiting = (statistics.median(run[name][key] for run in runs) for key in ('seconds', 'mib', 'waiting'))
        faster = statistics.median(run[base]['seconds'] / run[name]['seconds'] for run in runs)
        larger = statistics.median(run[name]['mib'] / run[base]['mib'] for run in runs)
        rows.append(f'| {name} | {args.batch / seconds:.2f} | {faster:.2f} | {mib:.0f} | {larger:.2f} | {waiting:.1%} |')
    return rows


def crops_per_second(args: argparse.Namespace, cache: bool, count: int = 100) -> float:
    """What one loading worker makes, median over the photos."""
    from stochastic_refine.data.synthetic_blur_dataset import SyntheticBlurDataset
    dataset = SyntheticBlurDataset({**options(args, PROCESSES)['datasets']['train'], 'phase': 'train', 'cache': cache})
    seconds = []
    for i in range(count):
        if cache:
            dataset._load(i % len(dataset))
        start = time.perf_counter()
        dataset[i % len(dataset)]
        seconds.append(time.perf_counter() - start)
    return 1 / statistics.median(seconds)


def embedded_photos(folder: Path) -> Path:
    """The demo's photos, which scikit-image brings along."""
    from PIL import Image
    from skimage import data
    for name in ('astronaut', 'coffee', 'chelsea', 'rocket'):
        Image.fromarray(getattr(data, name)()).save(folder / f'{name}.png')
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help="folder of sharp photos (default: the demo's four)")
    parser.add_argument('--iterations', type=int, default=10, help=f'counted in each run, after {WARM_UP} others (default: 10)')
    parser.add_argument('--rounds', type=int, default=3, help='default: 3')
    parser.add_argument('--crop', type=int, default=64)
    parser.add_argument('--batch', type=int, default=16)
    parser.add_argument('--channels', type=int, default=16, help='base channels, even (default: 16)')
    parser.add_argument('--threads', type=int, default=1, help='of PyTorch in each process (default: 1)')
    args = parser.parse_args()
    import torch

    from stochastic_refine.comparison.provenance import commit, machine
    args.gpus = torch.cuda.device_count()
    distributed = args.gpus != 1  # NCCL wants a GPU for each process
    with tempfile.TemporaryDirectory() as folder, \
            tqdm(total=args.rounds * (len(NETWORK) + len(PAIR) + 2 * distributed), unit='run') as bar:
        args.data = (args.data or embedded_photos(Path(folder))).resolve()

        def run(variant: str, threads: int = args.threads, processes: int | None = None) -> dict[str, float]:
            result = measure(args, variant, threads, processes)
            bar.update()
            return result

        networks, pairs, alone, together = [], [], [], []
        for _ in range(args.rounds):
            networks.append({name: run(name) for name in NETWORK})
            pairs.append({name: run(name) for name in PAIR})
            if distributed:
                alone.append(run(PROCESSES, 1)['seconds'])
                together.append(run(PROCESSES, 1, 2)['seconds'])
        crops = [crops_per_second(args, cache) for cache in (False, True)]

    print('\n'.join([*table(args, 'U-Net', networks), '', *table(args, 'U-Net and denoiser', pairs), '']))
    if distributed:
        ratio = statistics.median(one / two for one, two in zip(alone, together))
        one, two = (args.batch / statistics.median(seconds) for seconds in (alone, together))
        print(f'Two processes ({PROCESSES}, one thread each): {two:.2f} images/s per process; one alone: {one:.2f}; '
              f'ratio {ratio:.2f}.')
    else:
        print('Two processes: not measured, there is one GPU.')
    print(f'Data: one worker makes {crops[0]:.0f} crops/s, {crops[1]:.0f} with cache: true.')
    device = torch.device('cuda' if args.gpus else 'cpu')
    print(f'\n{args.channels} channels, {args.batch} crops of {args.crop}x{args.crop}, threads: {args.threads}, {args.rounds} '
          f'rounds of {args.iterations} iterations; peak above the imports. PyTorch {torch.__version__}. Machine: '
          f'{machine(device)}. Commit: {commit()}.')


if __name__ == '__main__':
    if sys.argv[1:2] == ['--train']:
        sys.exit(train(sys.argv[2], int(sys.argv[3]), sys.argv[4]))
    main()
