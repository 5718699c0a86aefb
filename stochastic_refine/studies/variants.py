"""The variants that a network's paper compares it with, trained anew at a budget that the user gives.

A network names them itself: ``variants``, by name the options that differ, and ``published_variants``, the table with their
published scores. All else is the options file's, but for what another type of network does not know.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..archs.build import arch_class, check_arch_options
from ..archs.sampling import rules_of
from ..comparison.columns import COLUMNS
from ..comparison.complexity import parameters_of
from ..comparison.pairs import ImagePair
from ..comparison.protocols import spread_evenly
from ..comparison.published import published_table
from ..comparison.systems import Network
from ..errors import InputError
from ..inference.operating_point import OperatingPoint, operating_points_of
from ..settings.options_file import read_options_file
from .ablation import Train, shortened, train_by_options, trained
from .inputs import each_image, known_metrics, means_of, provenance, restorer_of, scores_of
from .report import COLOURS, StudyReport, check_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def variants_study(options: Path,
                   images: Sequence[ImagePair],
                   iterations: int,
                   output: Path,
                   device: torch.device,
                   metrics: str = 'lpips,stlpips,psnr',
                   max_images: int | None = None,
                   train: Train | None = None) -> StudyReport:
    """Train what is not trained yet, score, and write ``variants.csv|json|png``.

    The options files of the trainings are written to ``output/options``; the trainings themselves are in ``experiments/`` of
    the current folder. Stopped, the study goes on from the last checkpoint.

    Args:
        options: Of a training of a network that names variants, e.g. options/latent/train_deblurdiff.yml.
        images: Pairs to score on.
        iterations: Of each training.
        output: Folder.
        device: Where scoring runs; training chooses by its options.
        metrics: Keys joined by commas.
        max_images: Score so many pairs only.
        train: Trains by an options file and returns an exit code; ``stochastic-refine train`` by default.

    Raises:
        InputError: If the options do not fit, or a training fails.
    """
    check_matplotlib()
    base = read_options_file(options)
    trainings = variants_of(base, options, iterations)
    words: list[str] = []
    keys = known_metrics(metrics, words)
    chosen = spread_evenly(images, max_images)
    published = published_table(arch_class(base['network_g']['type']).published_variants)['rows']
    val = base.get('val') or {}
    rows = []
    for name, opt in trainings.items():
        file = output / 'options' / f"{opt['name']}.yml"
        weights = trained(opt, file, train or train_by_options)
        network = Network(name, file, weights, opt['network_g'], 'params_ema' if opt['train'].get('ema_decay') else 'params',
                          precision=val.get('precision', 'float32'), tile=val.get('tile'))
        rules = rules_of(opt['network_g'])
        point = OperatingPoint() if rules is None else next(iter(operating_points_of(val, rules).values()))
        restorer = restorer_of(network, device)

        def compute(lq: Tensor, gt: NDArray[np.uint8], restorer: Any = restorer, point: Any = point) -> dict[str, float]:
            return scores_of(restorer.restore(lq, point).image, gt, keys)

        identity = {'study': 'variants', 'network': network.fingerprint, 'device': device.type, 'metrics': keys,
                    'point': point.as_options()}
        found = list(each_image(chosen, output / 'cache', identity, compute, name))
        params = sum(parameter.numel() for parameter in parameters_of(restorer.net, point))
        rows.append({'variant': name, 'iterations': iterations, **means_of(found, keys), 'params': params / 1e6,
                     **{f'published_{key}': published.get(name, {}).get(key, math.nan) for key in keys}})
        words.append(f'{name}: ' + ', '.join(f'{COLUMNS[key].title} {rows[-1][key]:.4f}' for key in keys))
    settings = {**provenance(chosen, images, device), 'options': str(options), 'iterations': iterations,
                'train': base['train'], 'published': published}
    report = StudyReport('variants', rows, settings, words)
    report.write(output, {'': lambda figure: _draw(figure, rows, keys)})
    return report


def variants_of(base: dict[str, Any], path: Path, iterations: int) -> dict[str, dict[str, Any]]:
    """The options of each variant's training, by its name.

    Raises:
        InputError: If the options are of no training, or their network names no variants.
    """
    if iterations < 1:
        raise InputError(f'--iterations must be a whole number from 1, got {iterations}.')
    if 'total_iter' not in (base.get('train') or {}) or 'train' not in (base.get('datasets') or {}):
        raise InputError(f'{path} is no options file of a training (train: total_iter, datasets: train); give one such as '
                         'options/latent/train_deblurdiff.yml.')
    check_arch_options(base.get('network_g') or {}, f'{path}: network_g')
    variants = getattr(arch_class(base['network_g']['type']), 'variants', None)
    if not variants:
        raise InputError(f"{path}: {base['network_g']['type']} names no variants of itself; give a training of one that does, "
                         'such as options/latent/train_deblurdiff.yml.')
    found = {}
    for name, changes in variants.items():
        word = ''.join(letter if letter.isalnum() else '_' for letter in name)
        opt = shortened(base, f"variants_{base['name']}_{word}_i{iterations}", iterations)
        network = {**opt['network_g'], **changes}
        if 'type' in changes:  # which does not know all, and has losses of its own
            known = inspect.signature(arch_class(network['type']).__init__).parameters
            network = {key: value for key, value in network.items() if key in known or key == 'type'}
            opt['train'] = {key: value for key, value in opt['train'].items() if not key.endswith('_opt')}
        found[name] = {**opt, 'network_g': network}
    return found


def _draw(figure: Figure, rows: list[dict[str, Any]], keys: list[str]) -> None:
    figure.set_size_inches(1.6 + 2.6 * len(keys), 0.8 + 0.5 * len(rows))
    panels = figure.subplots(1, len(keys), squeeze=False, sharey=True)[0]
    for panel, key in zip(panels, keys):
        panel.plot([row[key] for row in rows], range(len(rows)), 'o', color=COLOURS[0], markersize=7)
        for i, row in enumerate(rows):
            panel.annotate(f'{row[key]:.{COLUMNS[key].decimals}f}', (row[key], i), (0, 7), textcoords='offset points',
                           ha='center', fontsize=7)
        panel.set(xlabel=COLUMNS[key].heading + (' (dB)' if key == 'psnr' else ''), yticks=range(len(rows)),
                  yticklabels=[row['variant'] for row in rows])
        panel.margins(x=0.2, y=0.15)
    panels[0].invert_yaxis()
    figure.suptitle(f"{rows[0]['iterations']} iterations each", fontsize=10)
