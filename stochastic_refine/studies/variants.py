"""The variants that a network's paper compares it with, trained anew at a budget that the user gives.

A network names them itself: ``variants``, by name the options that differ, and ``published_variants``, the table with their
published scores. All else is the options file's, but for what another type of network does not know.
"""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..archs.build import arch_class, check_arch_options
from ..archs.sampling import rules_of
from ..comparison.complexity import parameters_of
from ..comparison.published import published_table
from ..errors import InputError
from ..inference.operating_point import OperatingPoint, operating_points_of
from ..settings.options_file import read_options_file
from .frame import Study, means_of
from .inputs import restorer_of
from .report import StudyReport
from .trainings import Train, check_training, draw_scores, shortened, trained_network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A training that names variants.
EXAMPLE = 'options/latent/train_deblurdiff.yml'


def variants_study(study: Study, options: Path, iterations: int, train: Train | None = None) -> StudyReport:
    """Train what is not trained yet, score, and write ``variants.csv|json|png``.

    Args:
        study: The frame.
        options: Of a training of a network that names variants, e.g. options/latent/train_deblurdiff.yml.
        iterations: Of each training.
        train: Trains by an options file and returns an exit code; ``stochastic-refine train`` by default.

    Raises:
        InputError: If the options do not fit, or a training fails.
    """
    base = read_options_file(options)
    trainings = variants_of(base, options, iterations)
    keys = study.keys
    published = published_table(arch_class(base['network_g']['type']).published_variants)['rows']
    val = base.get('val') or {}
    rows = []
    for name, opt in trainings.items():
        network = trained_network(study, name, opt, bool(opt['train'].get('ema_decay')), val, train)
        rules = rules_of(opt['network_g'])
        point = OperatingPoint() if rules is None else next(iter(operating_points_of(val, rules).values()))
        restorer = restorer_of(network, study.device)
        found = list(study.each_image(network, study.scoring(restorer, point), name, point=point.as_options()))
        params = sum(parameter.numel() for parameter in parameters_of(restorer.net, point))
        rows.append({'variant': name, 'iterations': iterations, **means_of(found, keys), 'params': params / 1e6,
                     **{f'published_{key}': published.get(name, {}).get(key, math.nan) for key in keys}})
        study.words.append(f'{name}: {study.in_words(rows[-1])}')
    settings = {'options': str(options), 'iterations': iterations, 'train': base['train'], 'published': published}
    return study.write(rows, settings, lambda figure: _draw(figure, rows, keys))


def variants_of(base: dict[str, Any], path: Path, iterations: int) -> dict[str, dict[str, Any]]:
    """The options of each variant's training, by its name.

    Raises:
        InputError: If the options are of no training, or their network names no variants.
    """
    check_training(base, path, iterations, ('train: total_iter', 'datasets: train'), EXAMPLE)
    check_arch_options(base.get('network_g') or {}, f'{path}: network_g')
    variants = getattr(arch_class(base['network_g']['type']), 'variants', None)
    if not variants:
        raise InputError(f"{path}: {base['network_g']['type']} names no variants of itself; give a training of one that does, "
                         f'such as {EXAMPLE}.')
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
    draw_scores(figure, rows, keys, [row['variant'] for row in rows], [0] * len(rows))
    figure.suptitle(f"{rows[0]['iterations']} iterations each", fontsize=10)
