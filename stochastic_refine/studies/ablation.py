"""Channels, batch and averaging (Table 4) of a restoration network, trained anew at a budget that the user gives.

As in the table the options are enabled one after the other: first the widths at the smallest batch, then the batches at the
largest width, then exponential moving averages (EMA) of the weights. Averaging does not change a training, so the last two rows
are one training's own and averaged weights, where the paper may have trained twice.

Everything else is the options file's: data, loss, optimizer, precision. Whatever counts its iterations (milestones, warm-up,
the horizon of the averages) keeps its share of the training when the budget shortens it.
"""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..comparison.columns import COLUMNS
from ..comparison.complexity import complexity
from ..comparison.pairs import ImagePair
from ..comparison.protocols import spread_evenly
from ..comparison.published import published_table
from ..comparison.systems import Network
from ..errors import InputError
from ..files import write_text
from ..inference.operating_point import OperatingPoint
from ..settings.options_file import read_options_file
from .inputs import each_image, known_metrics, means_of, provenance, restorer_of, scores_of
from .report import COLOURS, StudyReport, check_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Train = Callable[[Path], int]


@dataclass(frozen=True)
class Setting:
    """One row: a training, and which of its weights."""

    channels: int
    batch: int
    ema: bool

    @property
    def words(self) -> str:
        return f"{self.channels} channels, batch {self.batch}, {'EMA' if self.ema else 'no EMA'}"


def settings_of(channels: Sequence[int], batches: Sequence[int]) -> list[Setting]:
    """The rows in the order of Table 4.

    Raises:
        InputError: If a number is below 1.
    """
    channels, batches = sorted(set(channels)), sorted(set(batches))
    if not channels or not batches or min(*channels, *batches) < 1:
        raise InputError('An ablation needs widths and batch sizes from 1; give some with --channels and --batches.')
    rows = [Setting(width, batches[0], False) for width in channels]
    rows += [Setting(channels[-1], batch, False) for batch in batches[1:]]
    return [*rows, Setting(channels[-1], batches[-1], True)]


def ablation_study(options: Path,
                   images: Sequence[ImagePair],
                   iterations: int,
                   output: Path,
                   device: torch.device,
                   channels: Sequence[int] = (16, 32, 64),
                   batches: Sequence[int] = (32, 64, 128, 256),
                   metrics: str = 'lpips,stlpips,psnr',
                   max_images: int | None = None,
                   train: Train | None = None) -> StudyReport:
    """Train what is not trained yet, score, and write ``ablation.csv|json|png``.

    The options files of the trainings are written to ``output/options``; the trainings themselves are in ``experiments/`` of
    the current folder. Stopped, the study goes on from the last checkpoint.

    Args:
        options: Of a training of a network with ``base_channels``, e.g. options/baselines/train_gopro_regression.yml.
        images: Pairs to score on.
        iterations: Of each training; the paper's are 1 000 000.
        output: Folder.
        device: Where scoring runs; training chooses by its options.
        channels, batches: To try.
        metrics: Keys joined by commas.
        max_images: Score so many pairs only.
        train: Trains by an options file and returns an exit code; ``stochastic-refine train`` by default.

    Raises:
        InputError: If the options do not fit, or a training fails.
    """
    check_matplotlib()
    base = read_options_file(options)
    rows_of_table = settings_of(channels, batches)
    _check(base, options, iterations)
    words: list[str] = []
    keys = known_metrics(metrics, words)
    chosen = spread_evenly(images, max_images)
    rows = []
    for setting in rows_of_table:
        opt = training_options(base, setting, iterations)
        file = output / 'options' / f"{opt['name']}.yml"
        weights = trained(opt, file, train or train_by_options)
        network = Network(setting.words, file, weights, opt['network_g'], 'params_ema' if setting.ema else 'params',
                          precision=(base.get('val') or {}).get('precision', 'float32'))
        restorer = restorer_of(network, device)

        def compute(lq: Tensor, gt: NDArray[np.uint8], restorer: Any = restorer) -> dict[str, float]:
            return scores_of(restorer.restore(lq, OperatingPoint()).image, gt, keys)

        identity = {'study': 'ablation', 'network': network.fingerprint, 'device': device.type, 'metrics': keys}
        found = list(each_image(chosen, output / 'cache', identity, compute, setting.words))
        cost = complexity(restorer.net)
        rows.append({
            'channels': setting.channels, 'batch': setting.batch, 'ema': setting.ema, 'iterations': iterations,
            **means_of(found, keys),
            'params': cost.million_params, 'gflops': float('nan') if cost.gflops is None else cost.gflops,
        })
        words.append(f'{setting.words}: ' + ', '.join(f'{COLUMNS[key].title} {rows[-1][key]:.4f}' for key in keys))
    last = training_options(base, rows_of_table[-1], iterations)
    settings = {**provenance(chosen, images, device), 'options': str(options), 'iterations': iterations, 'train': last['train'],
                'data': last['datasets']['train'], 'published': published_table('predictor_ablation')['rows']}
    report = StudyReport('ablation', rows, settings, words)
    report.write(output, {'': lambda figure: _draw(figure, rows, keys)})
    return report


def _check(base: dict[str, Any], path: Path, iterations: int) -> None:
    if iterations < 1:
        raise InputError(f'--iterations must be a whole number from 1, got {iterations}.')
    train = (base.get('datasets') or {}).get('train') or {}
    if 'total_iter' not in (base.get('train') or {}) or 'batch_size_per_gpu' not in train:
        raise InputError(f'{path} is no options file of a training (train: total_iter, datasets: train: batch_size_per_gpu); '
                         'give one such as options/baselines/train_gopro_regression.yml.')
    if 'base_channels' not in (base.get('network_g') or {}):
        raise InputError(f'{path}: network_g has no base_channels, the width that the ablation changes; give a training of '
                         'RefineUNet.')


def training_options(base: dict[str, Any], setting: Setting, iterations: int) -> dict[str, Any]:
    """The options of one training; equal for its own and its averaged weights."""
    opt = shortened(base, f"ablation_{base['name']}_c{setting.channels}_b{setting.batch}_i{iterations}", iterations)
    opt['network_g']['base_channels'] = setting.channels
    data, train = opt['datasets']['train'], opt['train']
    if not base['train'].get('ema_decay'):  # its rows ask for averages
        train['ema_decay'] = averaged_over(0.9999, iterations / base['train']['total_iter'])
    # Parts of a batch keep their size, and with it the memory that a step takes.
    if train.get('accumulate', 1) > 1:
        train['accumulate'] = max(1, math.ceil(setting.batch * train['accumulate'] / data['batch_size_per_gpu']))
    data['batch_size_per_gpu'] = setting.batch
    return opt


def averaged_over(decay: float, share: float) -> float:
    """A decay that averages over that share of the iterations."""
    return max(0.0, 1 - (1 - decay) / share)


def shortened(base: dict[str, Any], name: str, iterations: int) -> dict[str, Any]:
    """The options of a training of fewer iterations, without validation."""
    opt = copy.deepcopy(base)
    opt['name'] = name
    train = opt['train']
    share = iterations / train['total_iter']
    train['total_iter'] = iterations
    if train.get('ema_decay'):
        train['ema_decay'] = averaged_over(train['ema_decay'], share)
    if train.get('warmup_iter', -1) > 0:
        train['warmup_iter'] = round(train['warmup_iter'] * share)
    scheduler = train.get('scheduler') or {}
    for key in ('milestones', 'periods', 'restarts'):
        if key in scheduler:
            scheduler[key] = [max(1, round(value * share)) for value in scheduler[key]]
    # The scores are the study's own, on the averaged weights and on the others.
    opt['datasets'] = {'train': opt['datasets']['train']}
    opt.pop('val', None)
    logger = opt.setdefault('logger', {})
    logger.update({'print_freq': min(logger.get('print_freq', 100), iterations), 'use_tb_logger': False,
                   'save_checkpoint_freq': max(1, min(logger.get('save_checkpoint_freq', 5000), iterations // 4))})
    return opt


def trained(opt: dict[str, Any], file: Path, train: Train) -> Path:
    """The final weights of a training, which is begun or gone on with if need be."""
    import yaml
    weights = Path('experiments') / opt['name'] / 'models' / 'net_g_latest.pth'
    file.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(opt, sort_keys=False)
    if file.is_file() and weights.parents[1].is_dir() and file.read_text(encoding='utf-8') != text:
        raise InputError(f'{weights.parents[1]} was trained by other options than {file} would now hold; move that folder '
                         'away to train anew.')
    write_text(file, text)
    if not weights.is_file() and train(file):
        raise InputError(f'The training by {file} ended with an error, told above; mend it and run the same command again, '
                         'which goes on where it stopped.')
    return weights


def train_by_options(file: Path) -> int:
    """Train by an options file in a process of its own; its exit code."""
    code = subprocess.call([sys.executable, '-m', 'stochastic_refine.cli', 'train', '-opt', str(file), '--auto_resume'])
    if code == 130:  # Ctrl-C reached the training too, which has saved
        raise KeyboardInterrupt
    return code


def _draw(figure: Figure, rows: list[dict[str, Any]], keys: list[str]) -> None:
    figure.set_size_inches(1.2 + 2.6 * len(keys), 3.4)
    panels = figure.subplots(1, len(keys), squeeze=False, sharey=True)[0]
    labels = [f"{row['channels']} ch., batch {row['batch']}{', EMA' if row['ema'] else ''}" for row in rows]
    for panel, key in zip(panels, keys):
        values = [row[key] for row in rows]
        # What a row adds to the one before: width, batch or averaging.
        stages = [2 if row['ema'] else 1 if row['batch'] > rows[0]['batch'] else 0 for row in rows]
        panel.plot(values, range(len(rows)), color='0.6', linewidth=1)
        for i, (value, stage) in enumerate(zip(values, stages)):
            panel.plot(value, i, 'os^'[stage], color=COLOURS[stage], markersize=7)
            panel.annotate(f'{value:.{COLUMNS[key].decimals}f}', (value, i), (0, 7), textcoords='offset points', ha='center',
                           fontsize=7)
        panel.set(xlabel=COLUMNS[key].heading + (' (dB)' if key == 'psnr' else ''), yticks=range(len(rows)), yticklabels=labels)
        panel.margins(x=0.2, y=0.12)
    panels[0].invert_yaxis()
    figure.suptitle(f"Wider, larger batches, averaged weights: {rows[0]['iterations']} iterations each", fontsize=10)
