"""How much samples of one photo differ: per-pixel standard deviation, and distances between pairs of them, along schedules.

The paper shows diverse samples (Figs. 3 and 5) without a figure for it. Beside the distances between samples stand their
distances to the truth: samples of the true posterior are on average as far from each other as from the truth.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..comparison.columns import COLUMNS
from ..comparison.scoring import mean_score, metric_function
from ..comparison.systems import Network
from ..errors import InputError
from ..inference.operating_point import OperatingPoint
from ..inference.restorer import Restorer
from .frame import Compute, Study, means_of, standard_error, to_bgr
from .inputs import sampling_restorer
from .report import COLOURS, MARKERS, StudyReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def diversity_study(study: Study, network: Network, points: Sequence[OperatingPoint], samples: int = 4) -> StudyReport:
    """Write ``diversity.csv|json|png``; one row per operating point and quantity.

    A row's ``among`` is the mean over all pairs of samples of a photo, ``to_truth`` the mean over its samples of the distance
    to the sharp image, each averaged over photos; ``..._se`` are the standard errors over photos. The quantity ``rmse`` is the
    root mean square difference in [0, 1], ``std`` the mean standard deviation per pixel, which has no distance to the truth.
    ``alpha_bar_T`` is the share of signal that the schedule assumes where sampling starts from pure noise.

    Raises:
        InputError: If the network is deterministic or there is less than a pair of samples.
    """
    if samples < 2:
        raise InputError(f'Diversity needs at least two samples, got {samples}; raise --samples.')
    restorer = sampling_restorer(network, study.device)
    keys = study.keys
    points = [dataclasses.replace(point, num_samples=samples, average=False) for point in points]
    rows = []
    for point in points:
        found = list(study.each_image(network, _distances(restorer, point, keys), f'{point.steps} steps',
                                      point=point.as_options()))
        for name in ('std', 'rmse', *keys):
            row: dict[str, Any] = {'steps': point.steps, 'final_variance': point.variance,
                                   'alpha_bar_T': point.leftover_signal, 'samples': samples, 'quantity': name}
            for column in ('among', ) if name == 'std' else ('among', 'to_truth'):
                values = np.array([image[f'{name}_{column}'] for image in found])
                row |= means_of([{column: value} for value in values], [column])
                row[f'{column}_se'] = standard_error(values[np.isfinite(values)])
            rows.append(row)
            study.words.append(f"{point.steps} steps, {name}: {row['among']:.4f} among samples"
                               + (f", {row['to_truth']:.4f} to the truth" if 'to_truth' in row else ''))
    shared = points[0].as_options()
    settings = {'network': network.record,
                'sampling': {key: value for key, value in shared.items() if key not in ('steps', 'final_variance', 'average')}}
    return study.write(rows, settings, lambda figure: _draw(figure, rows, keys))


def _distances(restorer: Restorer, point: OperatingPoint, keys: Sequence[str]) -> Compute:
    def compute(lq: Tensor, gt: NDArray[np.uint8]) -> dict[str, float]:
        restored = restorer.restore(lq, point, keep_samples=True)
        drawn = [to_bgr(sample) for sample in restored.samples]
        result = {'std_among': restored.std.mean().item()}
        for name, distance in {'rmse': rmse, **{key: metric_function(key) for key in keys}}.items():
            result[f'{name}_among'] = mean_score([distance(a, b) for a, b in itertools.combinations(drawn, 2)])
            result[f'{name}_to_truth'] = mean_score([distance(sample, gt) for sample in drawn])
        return result

    return compute


def rmse(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Root mean square difference of two 8-bit images, in [0, 1]."""
    return float(np.sqrt(np.mean((a.astype(np.float64) - b)**2)) / 255)


def _draw(figure: Figure, rows: list[dict[str, Any]], keys: list[str]) -> None:
    panels = figure.subplots(1, 1 + len(keys), squeeze=False)[0]
    titles = {'rmse': 'RMSE, grey values of [0, 1]', **{key: COLUMNS[key].title for key in keys}}
    for panel, name in zip(panels, ('rmse', *keys)):
        of_it = [row for row in rows if row['quantity'] == name]
        ticks = [f"{row['steps']}" + ('' if row['final_variance'] is None else f"\n{row['final_variance']:g}") for row in of_it]
        for i, (column, label) in enumerate((('among', 'between two samples'), ('to_truth', 'sample to truth'))):
            panel.errorbar(ticks, [row[column] for row in of_it], [row[f'{column}_se'] for row in of_it], color=COLOURS[i],
                           marker=MARKERS[i], linestyle=('-', '--')[i], capsize=3, label=label)
        if name == 'rmse':
            std = [row for row in rows if row['quantity'] == 'std']
            panel.errorbar(ticks, [row['among'] for row in std], [row['among_se'] for row in std], color=COLOURS[2],
                           marker=MARKERS[2], linestyle=':', capsize=3, label='std over samples, mean')
        panel.set(xlabel='steps\nfinal variance', ylabel=titles[name])
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=7)
    figure.suptitle(f"Diversity of {rows[0]['samples']} samples per photo (bars: standard error over photos)", fontsize=10)
