"""Sampling cost against sample quality (Fig. 6): several networks, each along schedules of rising length.

The paper compares a non-residual diffusion model (28 M parameters, all in the denoiser) with predict-and-refine (33 M, 7 M of
them in the denoiser) and finds the latter up to 7 times faster for comparable quality. Any checkpoints can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..archs.sampling import SamplingNetwork
from ..comparison.columns import COLUMNS
from ..comparison.complexity import operating_cost
from ..comparison.provenance import timing_setup
from ..comparison.systems import Network
from ..inference.operating_point import OperatingPoint
from ..inference.restorer import Restorer
from .frame import Compute, Study, means_of, scores_of
from .inputs import restorer_of
from .report import COLOURS, MARKERS, StudyReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def latency_study(study: Study, networks: Sequence[Network], points: Sequence[Sequence[OperatingPoint]]) -> StudyReport:
    """Write ``latency.csv|json|png``; one row for each network at each of its ``points``, one for a deterministic network.

    ``seconds`` is the median wall-clock time of one image with one sample, initial prediction included, reading and scoring
    not; ``calls`` counts network calls per image without tiling; ``gflops`` is for 1280x720 (NaN where mmengine is missing);
    ``alpha_bar_T`` is the share of signal that the schedule assumes where sampling starts from pure noise.
    """
    keys = study.keys
    rows = []
    for network, of_network in zip(networks, points):
        restorer = restorer_of(network, study.device)
        samples = isinstance(restorer.net, SamplingNetwork)
        warmed = _Warmed(restorer)
        for point in of_network if samples else of_network[:1]:
            what = f'{network.name}, {point.steps} steps' if samples else network.name
            found = list(study.each_image(network, warmed.timing(point, keys), what, setup=timing_setup(study.device),
                                          point=point.as_options() if samples else None))
            cost = operating_cost(restorer.net, point)
            rows.append({
                'system': network.name,
                'steps': point.steps if samples else None,
                'final_variance': point.variance if samples else None,
                'alpha_bar_T': point.leftover_signal if samples else None,
                'calls': point.calls + restorer.net.has_initial if samples else 1,
                'seconds': float(np.median([image['seconds'] for image in found])),
                'params': cost.million_params,
                'gflops': math.nan if cost.gflops is None else cost.gflops,
                **means_of(found, keys),
            })
            study.words.append(f"{what}: {rows[-1]['seconds']:.3f} s, {study.in_words(rows[-1])}")
    settings = {'networks': {network.name: network.record for network in networks}, 'threads': torch.get_num_threads(),
                'points': {network.name: [point.as_options() for point in each] for network, each in zip(networks, points)}}
    return study.write(rows, settings, lambda figure: _draw(figure, rows, keys[0]))


class _Warmed:
    """Times a restorer, whose first call, with its allocations and choices of kernels, is made beforehand."""

    def __init__(self, restorer: Restorer) -> None:
        self.restorer = restorer
        self.sizes: set[torch.Size] = set()

    def timing(self, point: OperatingPoint, keys: Sequence[str]) -> Compute:
        """The formula of one row: seconds, all work on a GPU included, and scores."""

        def compute(lq: Tensor, gt: NDArray[np.uint8]) -> dict[str, float]:
            self._warm(lq, point)
            start = perf_counter()
            image = self.restorer.restore(lq, point).image
            self._wait()
            return {'seconds': perf_counter() - start, **scores_of(image, gt, keys)}

        return compute

    def _warm(self, lq: Tensor, point: OperatingPoint) -> None:
        if lq.shape not in self.sizes:
            self.sizes.add(lq.shape)
            rules = getattr(self.restorer.net, 'rules', None)
            only = rules.steps if rules else None
            self.restorer.restore(lq, replace(point, steps=only or 1, grid_steps=None))
        self._wait()

    def _wait(self) -> None:
        if self.restorer.device.type == 'cuda':
            torch.cuda.synchronize(self.restorer.device)


def _draw(figure: Figure, rows: list[dict[str, Any]], metric: str) -> None:
    columns = [('seconds', 'seconds per image'), ('gflops', 'GFLOPs per image at 1280x720')]
    columns = [column for column in columns if not any(np.isnan(row[column[0]]) for row in rows)]
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(row['system'] for row in rows))
    for panel, (column, label) in zip(panels, columns):
        for i, name in enumerate(names):
            of_it = [row for row in rows if row['system'] == name]
            panel.plot([row[column] for row in of_it], [row[metric] for row in of_it], color=COLOURS[i % len(COLOURS)],
                       marker=MARKERS[i % len(MARKERS)], label=f"{name} ({of_it[0]['params']:.1f} M)")
            for row in of_it:
                if row['steps'] is not None:
                    panel.annotate(f"{row['steps']}", (row[column], row[metric]), (4, 4), textcoords='offset points',
                                   fontsize=7)
        panel.set_xscale('log')
        panel.set_xlabel(label)
    panels[0].set_ylabel(COLUMNS[metric].heading)
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower center', ncols=min(len(names), 4), fontsize=8)
    figure.suptitle('Sampling cost against quality; numbers: steps; in brackets: parameters', fontsize=10)
