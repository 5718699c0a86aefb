"""Where is the model unsure, and is it right to be? Calibration of the standard deviation, and Fig. 5's finding measured.

Two parts: the calibration on pairs of images (:mod:`~stochastic_refine.studies.calibration`), and whether the standard
deviation rises with the blur (:mod:`~stochastic_refine.studies.std_by_blur`).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..comparison.systems import Network
from ..inference.operating_point import OperatingPoint
from ..inference.restorer import Restorer
from .calibration import LEVELS, Calibration, CalibrationReport
from .frame import Compute, Study
from .inputs import sampling_restorer
from .report import COLOURS, MARKERS, StudyReport
from .rising_blur import RisingBlur
from .std_by_blur import StdByBlur, std_by_blur

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def uncertainty_study(study: Study, network: Network, point: OperatingPoint, blur: RisingBlur | None = None) -> StudyReport:
    """Write ``uncertainty.csv|json|png``, and with ``blur`` its part of them and ``uncertainty_maps.png``.

    Args:
        study: The frame.
        network: A predict-and-refine network.
        point: How samples are drawn; its ``num_samples``, at least 2, are behind every mean and standard deviation.
        blur: None leaves the second part out.

    Raises:
        InputError: If the network is deterministic, or there are too few samples.
    """
    point = dataclasses.replace(point, average=True)
    calibration = Calibration(point.num_samples)
    restorer = sampling_restorer(network, study.device)
    images: list[dict[str, Any]] = []
    found = dataclasses.replace(study, name='calibration').each_image(
        network, _calibrate(restorer, point), 'Calibration', levels=LEVELS, point=point.as_options())
    for image, pair in zip(found, study.chosen):  # in this order the progress bar gets to its end
        calibration.merge(image)
        images.append({'part': 'image', 'image': pair.name, 'std': float(image['std']), 'rmse': float(image['rmse'])})
    summary = calibration.report()
    rows = _rows(summary) + images
    study.words += _words(summary)
    blurred = None if blur is None else std_by_blur(study, network, restorer, point, blur)
    figures = {}
    if blurred is not None:
        rows += blurred.of_lengths() + blurred.of_photos()
        study.words.append(blurred.words())
        figures = {'maps': blurred.draw_maps}
    settings = {'network': network.record, 'point': point.as_options(),
                'interval': 'mean +- t_{n-1} std sqrt(1 + 1/n), clipped to [0, 1]',
                'blur': None if blur is None else dataclasses.asdict(blur)}
    return study.write(rows, settings, lambda figure: _draw(figure, summary, blurred), **figures)


def _calibrate(restorer: Restorer, point: OperatingPoint) -> Compute:
    def compute(lq: Tensor, gt: NDArray[np.uint8]) -> dict[str, Any]:
        restored = restorer.restore(lq, point)
        mean, std = (part.double().cpu().numpy() for part in (restored.image, restored.std))
        truth = gt[..., ::-1].transpose(2, 0, 1) / 255
        calibration = Calibration(point.num_samples)
        calibration.add(mean, std, truth)
        return {**calibration.state(), 'std': std.mean(), 'rmse': np.sqrt(np.mean((mean - truth)**2))}

    return compute


def _rows(summary: CalibrationReport) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{
        'part': 'summary', 'values': summary.values, 'samples': summary.samples, 'std': summary.sharpness, 'rmse': summary.rmse,
        'predicted_rmse': summary.predicted, 'scale': summary.scale, 'calibration_error': summary.calibration_error,
        'pearson': summary.pearson, 'spearman': summary.spearman, 'block_pearson': summary.block_pearson,
        'block_spearman': summary.block_spearman,
    }]
    rows += [{'part': 'coverage', 'nominal': level, 'coverage': share, 'width': summary.width[level]}
             for level, share in summary.coverage.items()]
    rows += [{'part': 'reliability', 'values': each.count, 'std': each.std, 'predicted_rmse': each.predicted, 'rmse': each.rmse}
             for each in summary.reliability]
    return rows


def _words(summary: CalibrationReport) -> list[str]:
    return [
        f'{summary.values} values, {summary.samples} samples: mean std {summary.sharpness:.4f}, RMSE of the mean '
        f'{summary.rmse:.4f}, expected from std {summary.predicted:.4f} (factor {summary.scale:.2f})',
        f'correlation of std and error: Pearson {summary.pearson:.2f}, Spearman {summary.spearman:.2f}; over 8x8 blocks '
        f'{summary.block_pearson:.2f} and {summary.block_spearman:.2f}',
        'coverage: ' + ', '.join(f'{100 * level:.0f} % -> {100 * share:.1f} %' for level, share in summary.coverage.items()),
    ]


def _draw(figure: Figure, summary: CalibrationReport, blurred: StdByBlur | None) -> None:
    panels = figure.subplots(1, 2 if blurred is None else 3)
    figure.set_size_inches(7 if blurred is None else 9.5, 3.3)
    _draw_coverage(panels[0], summary)
    _draw_reliability(panels[1], summary)
    if blurred is not None:
        blurred.draw_curve(panels[2])


def _draw_coverage(panel: Axes, summary: CalibrationReport) -> None:
    nominal = [100 * level for level in summary.coverage]
    panel.plot([0, 100], [0, 100], color='black', linestyle='--', linewidth=1, label='calibrated')
    measured = [100 * share for share in summary.coverage.values()]
    panel.plot(nominal, measured, color=COLOURS[0], marker=MARKERS[0], label='measured')
    panel.set(xlabel='nominal coverage (%)', ylabel='truth inside the interval (%)', title='Coverage', xlim=(0, 100),
              ylim=(0, 100))
    panel.legend(fontsize=7)


def _draw_reliability(panel: Axes, summary: CalibrationReport) -> None:
    bins = [each for each in summary.reliability if each.predicted > 0]
    values = [value for each in bins for value in (each.predicted, each.rmse) if value > 0]
    ends = [min(values, default=0.01) / 1.3, max(values, default=0.1) * 1.3]
    panel.loglog(ends, ends, color='black', linestyle='--', linewidth=1, label='calibrated')
    panel.loglog([each.predicted for each in bins], [each.rmse for each in bins], color=COLOURS[1], marker=MARKERS[1],
                 label=f'{len(bins)} bins of equal size')
    panel.set(xlabel='error expected from std (RMSE)', ylabel='error of the mean (RMSE)', title='Reliability')
    panel.legend(fontsize=7, loc='lower right')
    panel.text(0.03, 0.97, f'Spearman {summary.spearman:.2f}\n8x8 blocks {summary.block_spearman:.2f}',
               transform=panel.transAxes, va='top', fontsize=8)
