"""The trainings of a study: an options file varied, each variant trained once at a budget that the user gives.

Whatever counts its iterations (milestones, warm-up, the horizon of the averages) keeps its share of the training when the
budget shortens it. The options files are written to ``options/`` of the study's folder; the trainings themselves are in
``experiments/`` of the current folder. A stopped study goes on from the last checkpoint.
"""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..comparison.columns import COLUMNS
from ..comparison.systems import Network
from ..errors import InputError
from ..files import write_text
from ..inference.operating_point import check_tiles_and_windows
from .frame import Study
from .report import COLOURS, axis_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Trains by an options file; its exit code.
Train = Callable[[Path], int]


def check_training(base: dict[str, Any], path: Path, iterations: int, needed: Sequence[str], example: str) -> None:
    """Raise an InputError if trainings of so many iterations cannot be made of an options file.

    Args:
        base: What it holds.
        path: The file.
        iterations: Of each training.
        needed: The keys that it must have, as ``block: key``.
        example: A file that has them.
    """
    if iterations < 1:
        raise InputError(f'--iterations must be a whole number from 1, got {iterations}.')
    for keys in needed:
        if functools.reduce(lambda block, key: (block or {}).get(key), keys.split(': '), base) is None:
            raise InputError(f"{path} is no options file of a training ({', '.join(needed)}); give one such as {example}.")
    check_tiles_and_windows(base.get('val') or {})


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


def averaged_over(decay: float, share: float) -> float:
    """A decay that averages over that share of the iterations."""
    return max(0.0, 1 - (1 - decay) / share)


def trained_network(study: Study, name: str, opt: dict[str, Any], averaged: bool, val: dict[str, Any],
                    train: Train | None) -> Network:
    """The network of a training, which is begun or gone on with if need be.

    Args:
        study: Whose folder gets the options file.
        name: What the network is called.
        opt: Options of the training.
        averaged: Its averaged weights instead of the last ones.
        val: How the images of validation are restored, and so the study's; ``opt`` has no validation.
        train: None for ``stochastic-refine train``.

    Raises:
        InputError: If the training fails, or was begun by other options.
    """
    file = study.output / 'options' / f"{opt['name']}.yml"
    weights = _trained(opt, file, train or _train_by_options)
    return Network(name, file, weights, opt['network_g'], 'params_ema' if averaged else 'params',
                   precision=val.get('precision', 'float32'), tile=val.get('tile'),
                   window=val['crop_size'] if val.get('grids') else None)


def _trained(opt: dict[str, Any], file: Path, train: Train) -> Path:
    """The final weights of a training."""
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


def _train_by_options(file: Path) -> int:
    """Train in a process of its own."""
    code = subprocess.call([sys.executable, '-m', 'stochastic_refine.cli', 'train', '-opt', str(file), '--auto_resume'])
    if code == 130:  # Ctrl-C reached the training too, which has saved
        raise KeyboardInterrupt
    return code


def draw_scores(figure: Figure, rows: Sequence[dict[str, Any]], keys: Sequence[str], labels: Sequence[str],
                stages: Sequence[int]) -> list[Axes]:
    """A panel per metric with the rows from top to bottom, each marked as one of the stages 0, 1 and 2."""
    panels = figure.subplots(1, len(keys), squeeze=False, sharey=True)[0]
    for panel, key in zip(panels, keys):
        for i, (row, stage) in enumerate(zip(rows, stages)):
            panel.plot(row[key], i, 'os^'[stage], color=COLOURS[stage], markersize=7)
            panel.annotate(f'{row[key]:.{COLUMNS[key].decimals}f}', (row[key], i), (0, 7), textcoords='offset points',
                           ha='center', fontsize=7)
        panel.set(xlabel=axis_label(key), yticks=range(len(rows)), yticklabels=labels)
        panel.margins(x=0.2, y=0.15)
    panels[0].invert_yaxis()
    return panels
