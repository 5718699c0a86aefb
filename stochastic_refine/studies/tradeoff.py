"""The knob's curve: scores along the path that a checkpoint stores for ``tradeoff``, on photos that did not choose the path.

Turned from 0 to 1, distortion should only get worse and perceptual quality only better. Neighbours are compared image by image:
``KEY_step`` is the mean change from the position before, ``KEY_step_se`` its standard error over the images, and a step in the
wrong direction by more than two standard errors is called a reversal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoints import read_checkpoint
from ..comparison.columns import COLUMNS
from ..comparison.systems import Network
from ..inference.tradeoff import point_at, tradeoff_path
from .frame import Study, means_of, standard_error
from .inputs import sampling_restorer
from .report import COLOURS, MARKERS, StudyReport, axis_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Metrics of distortion, which get worse as the knob is turned; all others get better.
DISTORTION = ('psnr', 'ssim', 'ssim3d')


def tradeoff_study(study: Study, network: Network, positions: Sequence[float]) -> StudyReport:
    """Write ``tradeoff.csv|json|png``; one row per position of the knob, rising.

    Raises:
        InputError: If the network is deterministic, its checkpoint stores no path, or a position is not in [0, 1].
    """
    path = tradeoff_path(read_checkpoint(network.checkpoint).metadata, str(network.checkpoint))
    points = {position: point_at(path, position) for position in sorted(set(positions))}
    restorer = sampling_restorer(network, study.device)
    keys = study.keys
    rows: list[dict[str, Any]] = []
    before = None
    for position, point in points.items():
        found = list(study.each_image(network, study.scoring(restorer, point), f'Knob at {position:g}',
                                      point=point.as_options()))
        values = {key: np.array([float(image[key]) for image in found]) for key in keys}
        row = {'tradeoff': position, **point.as_options(), **means_of(found, keys)}
        for key in keys if before else ():
            both = np.isfinite(values[key]) & np.isfinite(before[key])  # an exact image has an infinite PSNR
            change = (values[key][both] - before[key][both]) if both.any() else np.array([math.nan])
            row |= {f'{key}_step': float(change.mean()), f'{key}_step_se': standard_error(change)}
        rows.append(row)
        before = values
        study.words.append(
            f'knob {position:g}: {study.in_words(row)} ({point.steps} steps, '
            + ('' if point.variance is None else f'final variance {point.variance:.3g}, ')
            + (f'mean of {point.num_samples})' if point.average and point.num_samples > 1 else 'one sample)'))
    for key in keys:
        wrong = [f"{row['tradeoff']:g}" for row in rows[1:] if _reversal(key, row)]
        study.words.append(f'{COLUMNS[key].title}: ' + (f"reversed at {', '.join(wrong)}" if wrong else 'monotone up to noise'))
    settings = {'network': network.record, 'path': [point.as_options() for point in path]}
    return study.write(rows, settings, lambda figure: _draw(figure, rows, keys))


def _reversal(key: str, row: dict[str, Any]) -> bool:
    """Whether the last turn of the knob moved a metric the wrong way by more than chance."""
    wanted = -1 if key in DISTORTION else 1
    direction = 1 if COLUMNS[key].better == 'higher' else -1
    return wanted * direction * row[f'{key}_step'] < -2 * row[f'{key}_step_se']


def _draw(figure: Figure, rows: list[dict[str, Any]], keys: list[str]) -> None:
    figure.set_size_inches(0.6 + 3 * len(keys), 3)
    panels = figure.subplots(1, len(keys), squeeze=False)[0]
    for i, (panel, key) in enumerate(zip(panels, keys)):
        errors = [0, *(row[f'{key}_step_se'] for row in rows[1:])]
        panel.errorbar([row['tradeoff'] for row in rows], [row[key] for row in rows], errors, color=COLOURS[i],
                       marker=MARKERS[i], capsize=3)
        panel.set(xlabel='tradeoff: 0 faithful, 1 vivid', ylabel=axis_label(key))
    figure.suptitle('One knob (bars: standard error of the step from the position before)', fontsize=10)
