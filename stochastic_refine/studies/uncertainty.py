"""Where is the model unsure, and is it right to be? Calibration of the standard deviation, and Fig. 5's finding measured.

Two parts. *Calibration* on pairs of images: see :mod:`stochastic_refine.studies.calibration`. *Rising blur*: the same sharp
photos, each blurred by one camera-shake path of its own (or straight horizontal motion) that is scaled to rising lengths, with
one noise of its own; all that changes along a photo's row is the strength of the blur. The paper shows two crops, the blurrier
of which has the larger standard deviation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..comparison.pairs import ImagePair, pairs_of_options
from ..comparison.protocols import spread_evenly
from ..comparison.systems import Network
from ..errors import InputError
from ..files import write_atomically
from ..inference.operating_point import OperatingPoint
from ..inference.restorer import Restorer
from .calibration import LEVELS, Calibration, CalibrationReport
from .inputs import each_image, provenance, sampling_restorer
from .report import COLOURS, MARKERS, StudyReport, check_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Side of the part of a photo that the maps show, pixels.
SHOWN = 128


@dataclasses.dataclass(frozen=True)
class RisingBlur:
    """The second part's settings.

    Args:
        lengths: Of the camera's path, pixels; rising.
        photos: How many of the sharp images, spread evenly.
        size: Side of the central crop of each, pixels.
        samples: Of each blurred photo, at least 2.
        noise_sigma: Standard deviation of the noise, 8-bit grey values.
        seed: Of paths and noise.
        straight: Horizontal motion instead of camera shake.
    """

    lengths: Sequence[float] = (2, 4, 6, 8, 10, 12)
    photos: int = 4
    size: int = 256
    samples: int = 8
    noise_sigma: float = 0.5
    seed: int = 0
    straight: bool = False


def uncertainty_study(images: Sequence[ImagePair], network: Network, point: OperatingPoint, output: Path, device: torch.device,
                      max_images: int | None = None, blur: RisingBlur | None = None) -> StudyReport:
    """Write ``uncertainty.csv|json|png``, and with ``blur`` its part of them and ``uncertainty_maps.png``.

    Args:
        images, max_images: Pairs, and how many to use, spread evenly.
        network: A predict-and-refine network.
        point: How samples are drawn; its ``num_samples``, at least 2, are behind every mean and standard deviation.
        output, device: Where to write, where to run.
        blur: None leaves the second part out.

    Raises:
        InputError: If the network is deterministic, or there are too few samples or lengths.
    """
    check_matplotlib()
    if blur is not None and (len(set(blur.lengths)) < 2 or min(blur.lengths) < 0):
        raise InputError(f'Rising blur needs at least two different lengths from 0, got {list(blur.lengths)}.')
    point = dataclasses.replace(point, average=True)
    calibration = Calibration(point.num_samples)
    restorer = sampling_restorer(network, device)
    chosen = spread_evenly(images, max_images)
    rows: list[dict[str, Any]] = []

    identity = {'study': 'calibration', 'levels': LEVELS, 'network': network.fingerprint, 'device': device.type,
                'point': point.as_options()}
    found = each_image(chosen, output / 'cache', identity,
                       _calibrate(restorer, point), 'Calibration')
    for image, pair in zip(found, chosen):  # in this order the progress bar gets to its end
        calibration.merge(image)
        rows.append({'part': 'image', 'image': pair.name, 'std': float(image['std']), 'rmse': float(image['rmse'])})
    summary = calibration.report()
    rows = _rows(summary) + rows
    words = _words(summary)

    figures: dict[str, Callable[[Figure], None]] = {}
    blurred: list[list[dict[str, Any]]] = []
    if blur is not None:
        of_blur = dataclasses.replace(point, num_samples=blur.samples)
        identity = {'study': 'rising blur', 'network': network.fingerprint, 'device': device.type,
                    'point': of_blur.as_options()}
        sharp = _write_sharp(images, blur, output / 'blur' / 'sharp')
        data = [_blurred_images(sharp, length, blur) for length in blur.lengths]
        for length, of_length in zip(blur.lengths, data):
            found = each_image(of_length, output / 'cache', identity, _map_std(restorer, of_blur), f'Blur of {length:g} pixels')
            blurred.append(list(found))
        rows += _blur_rows(blur.lengths, blurred)
        by_photo = [[float(photo['std']) for photo in photos] for photos in zip(*blurred)]
        rising = np.mean([_rank_correlation(blur.lengths, values) for values in by_photo])
        words.append('std by length of the blur: ' + ', '.join(
            f"{row['length']:g} px {row['std']:.4f}" for row in rows if row['part'] == 'blur')
            + f'; rank correlation of length and std within a photo, mean of {len(by_photo)}: {rising:.2f}')
        figures['_maps'] = lambda figure: _draw_maps(figure, blur.lengths, data, blurred)
    settings = {**provenance(chosen, images, device), 'network': network.record, 'point': point.as_options(),
                'interval': 'mean +- t_{n-1} std sqrt(1 + 1/n), clipped to [0, 1]',
                'blur': None if blur is None else dataclasses.asdict(blur)}
    report = StudyReport('uncertainty', rows, settings, words)
    report.write(output, {'': lambda figure: _draw(figure, summary, rows), **figures})
    return report


def _calibrate(restorer: Restorer, point: OperatingPoint) -> Callable[[Tensor, NDArray[np.uint8]], dict[str, Any]]:
    def compute(lq: Tensor, gt: NDArray[np.uint8]) -> dict[str, Any]:
        restored = restorer.restore(lq, point)
        mean, std = (part.double().cpu().numpy() for part in (restored.image, restored.std))
        truth = gt[..., ::-1].transpose(2, 0, 1) / 255
        calibration = Calibration(point.num_samples)
        calibration.add(mean, std, truth)
        return {**calibration.state(), 'std': std.mean(), 'rmse': np.sqrt(np.mean((mean - truth)**2))}

    return compute


def _map_std(restorer: Restorer, point: OperatingPoint) -> Callable[[Tensor, NDArray[np.uint8]], dict[str, Any]]:
    def compute(lq: Tensor, gt: NDArray[np.uint8]) -> dict[str, Any]:
        restored = restorer.restore(lq, point)
        truth = torch.from_numpy(gt[..., ::-1].transpose(2, 0, 1) / 255)
        std = restored.std.mean(0).cpu().numpy()
        return {'std': std.mean(), 'std_map': std.astype(np.float16),
                'rmse': (restored.image.cpu() - truth).square().mean().sqrt().item(),
                'input_rmse': (lq - truth).square().mean().sqrt().item()}

    return compute


def _write_sharp(images: Sequence[ImagePair], blur: RisingBlur, folder: Path) -> Path:
    """The central crops of some sharp images as PNG files, which the synthetic data set blurs."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = set()
    for number, pair in enumerate(spread_evenly(images, blur.photos)):
        sharp = pair.load()[1][..., ::-1]
        height, width = (min(side, blur.size) for side in sharp.shape[:2])
        top, left = (sharp.shape[0] - height) // 2, (sharp.shape[1] - width) // 2
        crop = np.ascontiguousarray(sharp[top:top + height, left:left + width])
        wanted.add(folder / f'{number:04d}.png')
        write_atomically(folder / f'{number:04d}.png', lambda path, crop=crop: Image.fromarray(crop).save(path))
    for path in set(folder.glob('*.png')) - wanted:  # of a run with more photos
        path.unlink()
    return folder


def _blurred_images(sharp: Path, length: float, blur: RisingBlur) -> list[ImagePair]:
    # With equal ends both draws of the data set are constants, so that paths and noise are the same for every length.
    block = {'type': 'SyntheticBlurDataset', 'dataroot_gt': str(sharp), 'seed': blur.seed,
             'trajectory_length': [length, length], 'noise_sigma': [blur.noise_sigma, blur.noise_sigma],
             'trajectory': {'turn': 0, 'impulse_rate': 0, 'direction': 0} if blur.straight else None}
    return pairs_of_options({'datasets': {'rising blur': block}}, sharp)


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


def _blur_rows(lengths: Sequence[float], blurred: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    rows = []
    for length, photos in zip(lengths, blurred):
        std = np.array([float(photo['std']) for photo in photos])
        rows.append({'part': 'blur', 'length': length, 'std': float(std.mean()),
                     'std_se': float(std.std(ddof=1) / len(std)**0.5) if len(std) > 1 else float('nan'),
                     **{key: float(np.mean([photo[key] for photo in photos])) for key in ('rmse', 'input_rmse')}})
    rows += [{'part': 'blur photo', 'length': length, 'image': k, 'std': float(photo['std']), 'rmse': float(photo['rmse'])}
             for length, photos in zip(lengths, blurred) for k, photo in enumerate(photos)]
    return rows


def _rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    from scipy.stats import spearmanr
    return float(spearmanr(x, y).statistic)


def _words(summary: CalibrationReport) -> list[str]:
    return [
        f'{summary.values} values, {summary.samples} samples: mean std {summary.sharpness:.4f}, RMSE of the mean '
        f'{summary.rmse:.4f}, expected from std {summary.predicted:.4f} (factor {summary.scale:.2f})',
        f'correlation of std and error: Pearson {summary.pearson:.2f}, Spearman {summary.spearman:.2f}; over 8x8 blocks '
        f'{summary.block_pearson:.2f} and {summary.block_spearman:.2f}',
        'coverage: ' + ', '.join(f'{100 * level:.0f} % -> {100 * share:.1f} %' for level, share in summary.coverage.items()),
    ]


def _draw(figure: Figure, summary: CalibrationReport, rows: list[dict[str, Any]]) -> None:
    of_blur = [row for row in rows if row['part'] == 'blur']
    panels = figure.subplots(1, 3 if of_blur else 2)
    figure.set_size_inches(9.5 if of_blur else 7, 3.3)
    _draw_coverage(panels[0], summary)
    _draw_reliability(panels[1], summary)
    if of_blur:
        _draw_rising_blur(panels[2], of_blur, [row for row in rows if row['part'] == 'blur photo'])


def _draw_rising_blur(panel: Axes, of_blur: list[dict[str, Any]], of_photos: list[dict[str, Any]]) -> None:
    """Std and error on one axis from 0: a std that rises less than the error is seen to."""
    for k in sorted({row['image'] for row in of_photos}):
        photo = [row for row in of_photos if row['image'] == k]
        panel.plot([row['length'] for row in photo], [row['std'] for row in photo], color=COLOURS[5], linewidth=0.8,
                   label='std of one photo' if k == 0 else None)
    lengths = [row['length'] for row in of_blur]
    panel.errorbar(lengths, [row['std'] for row in of_blur], [row['std_se'] for row in of_blur], color=COLOURS[0],
                   marker=MARKERS[0], capsize=3, label='std, mean and standard error')
    panel.plot(lengths, [row['rmse'] for row in of_blur], color=COLOURS[1], marker=MARKERS[1], linestyle='--',
               label='error of the mean (RMSE)')
    panel.set(xlabel='length of the blur path (pixels)', ylabel='grey values of [0, 1]', title='Std against blur')
    panel.set_ylim(bottom=0)
    panel.legend(fontsize=7)


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


def _draw_maps(figure: Figure, lengths: Sequence[float], data: Sequence[list[ImagePair]],
               blurred: list[list[dict[str, Any]]]) -> None:
    """Blurred inputs over std maps of the photo in the middle of the order of std, for up to four lengths."""
    middle = int(np.argsort([float(photo['std']) for photo in blurred[-1]])[len(blurred[-1]) // 2])
    shown = [i * (len(lengths) - 1) // 3 for i in range(4)] if len(lengths) > 4 else list(range(len(lengths)))
    maps = [_center(blurred[i][middle]['std_map'].astype(np.float64)) for i in shown]
    white = max(float(np.quantile(maps, 0.99)), 1e-6)
    figure.set_size_inches(1.75 * len(shown) + 0.9, 3.7)
    panels = figure.subplots(2, len(shown))
    for column, (i, std) in enumerate(zip(shown, maps)):
        blurry = data[i][middle].load()[0].permute(1, 2, 0).numpy()
        panels[0, column].imshow(_center(blurry), interpolation='nearest')
        panels[0, column].set_title(f'path of {lengths[i]:g} pixels')
        drawn = panels[1, column].imshow(std, cmap='cividis', vmin=0, vmax=white, interpolation='nearest')
        panels[1, column].set_title(f"mean {float(blurred[i][middle]['std']):.4f}", fontsize=8)
    for panel in panels.flat:
        panel.set(xticks=[], yticks=[])
    panels[0, 0].set_ylabel('blurred input')
    panels[1, 0].set_ylabel('std over samples')
    figure.colorbar(drawn, ax=panels[1, :].tolist(), label='std, grey values of [0, 1]', shrink=0.9)


def _center(picture: NDArray[Any]) -> NDArray[Any]:
    height, width = picture.shape[:2]
    top, left = max(height - SHOWN, 0) // 2, max(width - SHOWN, 0) // 2
    return picture[top:top + SHOWN, left:left + SHOWN]
