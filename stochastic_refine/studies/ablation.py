"""Channels, batch and averaging (Table 4) of a restoration network, trained anew at a budget that the user gives.

As in the table the options are enabled one after the other: first the widths at the smallest batch, then the batches at the
largest width, then exponential moving averages (EMA) of the weights. Averaging does not change a training, so the last two rows
are one training's own and averaged weights, where the paper may have trained twice.

Everything else is the options file's: data, loss, optimizer, and by ``val:`` the precision and tiles that scored images are
restored with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..comparison.complexity import complexity
from ..comparison.published import published_table
from ..errors import InputError
from ..inference.operating_point import OperatingPoint
from ..settings.options_file import read_options_file
from .frame import Study, means_of
from .inputs import restorer_of
from .report import StudyReport
from .trainings import Train, averaged_over, check_training, draw_scores, shortened, trained_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


def ablation_study(study: Study, options: Path, iterations: int, channels: Sequence[int] = (16, 32, 64),
                   batches: Sequence[int] = (32, 64, 128, 256), train: Train | None = None) -> StudyReport:
    """Train what is not trained yet, score, and write ``ablation.csv|json|png``.

    Args:
        study: The frame.
        options: Of a training of a network with ``base_channels``, e.g. options/baselines/train_gopro_regression.yml.
        iterations: Of each training; the paper's are 1 000 000.
        channels, batches: To try.
        train: Trains by an options file and returns an exit code; ``stochastic-refine train`` by default.

    Raises:
        InputError: If the options do not fit, or a training fails.
    """
    base = read_options_file(options)
    settings = settings_of(channels, batches)
    check_training(base, options, iterations, ('train: total_iter', 'datasets: train: batch_size_per_gpu'),
                   'options/baselines/train_gopro_regression.yml')
    if 'base_channels' not in (base.get('network_g') or {}):
        raise InputError(f'{options}: network_g has no base_channels, the width that the ablation changes; give a training of '
                         'RefineUNet.')
    keys = study.keys
    rows = []
    for setting in settings:
        opt = training_options(base, setting, iterations)
        network = trained_network(study, setting.words, opt, setting.ema, base.get('val') or {}, train)
        restorer = restorer_of(network, study.device)
        found = list(study.each_image(network, study.scoring(restorer, OperatingPoint()), setting.words))
        cost = complexity(restorer.net)
        rows.append({'channels': setting.channels, 'batch': setting.batch, 'ema': setting.ema, 'iterations': iterations,
                     **means_of(found, keys), 'params': cost.million_params,
                     'gflops': math.nan if cost.gflops is None else cost.gflops})
        study.words.append(f'{setting.words}: {study.in_words(rows[-1])}')
    last = {'options': str(options), 'iterations': iterations, 'train': opt['train'], 'data': opt['datasets']['train'],
            'published': published_table('predictor_ablation')['rows']}
    return study.write(rows, last, lambda figure: _draw(figure, rows, keys))


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


def _draw(figure: Figure, rows: list[dict[str, Any]], keys: list[str]) -> None:
    figure.set_size_inches(1.2 + 2.6 * len(keys), 3.4)
    labels = [f"{row['channels']} ch., batch {row['batch']}{', EMA' if row['ema'] else ''}" for row in rows]
    # What a row adds to the one before: width, batch or averaging.
    stages = [2 if row['ema'] else 1 if row['batch'] > rows[0]['batch'] else 0 for row in rows]
    for panel, key in zip(draw_scores(figure, rows, keys, labels, stages), keys):
        panel.plot([row[key] for row in rows], range(len(rows)), color='0.6', linewidth=1, zorder=1)
        panel.margins(y=0.12)
    figure.suptitle(f"Wider, larger batches, averaged weights: {rows[0]['iterations']} iterations each", fontsize=10)
