"""Does stronger blur make the model less sure? The second part of the study of uncertainty (Fig. 5's finding).

The paper shows two crops, the blurrier of which has the larger standard deviation. Here the same photos are blurred more and
more (:mod:`~stochastic_refine.studies.rising_blur`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..comparison.pairs import ImagePair
from ..comparison.systems import Network
from ..inference.operating_point import OperatingPoint
from ..inference.restorer import Restorer
from .frame import Compute, Study, standard_error
from .report import COLOURS, MARKERS
from .rising_blur import RisingBlur, center

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Side of the part of a photo that the maps show, pixels.
SHOWN = 128


def std_by_blur(study: Study, network: Network, restorer: Restorer, point: OperatingPoint, blur: RisingBlur) -> StdByBlur:
    """Blur some of the study's sharp images and restore them; of ``point`` all but the number of samples counts."""
    point = dataclasses.replace(point, num_samples=blur.samples)
    pairs = blur.pairs(study.images, study.output / 'blur' / 'sharp')
    found = []
    for length, of_length in zip(blur.lengths, pairs):
        part = dataclasses.replace(study, name='rising blur', images=of_length, max_images=None)
        found.append(list(part.each_image(network, _map_std(restorer, point), f'Blur of {length:g} pixels',
                                          point=point.as_options())))
    return StdByBlur(blur.lengths, pairs, found)


def _map_std(restorer: Restorer, point: OperatingPoint) -> Compute:
    def compute(lq: Tensor, gt: NDArray[np.uint8]) -> dict[str, Any]:
        restored = restorer.restore(lq, point)
        truth = torch.from_numpy(gt[..., ::-1].transpose(2, 0, 1) / 255)
        std = restored.std.mean(0).cpu().numpy()
        return {'std': std.mean(), 'std_map': std.astype(np.float16),
                'rmse': (restored.image.cpu() - truth).square().mean().sqrt().item(),
                'input_rmse': (lq - truth).square().mean().sqrt().item()}

    return compute


@dataclasses.dataclass(frozen=True)
class StdByBlur:
    """What became of the photos: per length, and in it per photo, the pair and what :func:`_map_std` found."""

    lengths: Sequence[float]
    pairs: list[list[ImagePair]]
    found: list[list[dict[str, NDArray[Any]]]]

    def of_lengths(self) -> list[dict[str, Any]]:
        """The part ``blur`` of the table: a row per length, means over the photos."""
        rows = []
        for length, photos in zip(self.lengths, self.found):
            std = np.array([float(photo['std']) for photo in photos])
            rows.append({'part': 'blur', 'length': length, 'std': float(std.mean()), 'std_se': standard_error(std),
                         **{key: float(np.mean([photo[key] for photo in photos])) for key in ('rmse', 'input_rmse')}})
        return rows

    def of_photos(self) -> list[dict[str, Any]]:
        """The part ``blur photo``: a row per length and photo."""
        return [{'part': 'blur photo', 'length': length, 'image': k, 'std': float(photo['std']), 'rmse': float(photo['rmse'])}
                for length, photos in zip(self.lengths, self.found) for k, photo in enumerate(photos)]

    def words(self) -> str:
        """Std by length, and how well the two agree in rank within a photo."""
        from scipy.stats import spearmanr
        by_photo = [[float(photo['std']) for photo in photos] for photos in zip(*self.found)]
        rising = np.mean([float(spearmanr(self.lengths, values).statistic) for values in by_photo])
        return ('std by length of the blur: '
                + ', '.join(f"{row['length']:g} px {row['std']:.4f}" for row in self.of_lengths())
                + f'; rank correlation of length and std within a photo, mean of {len(by_photo)}: {rising:.2f}')

    def draw_curve(self, panel: Axes) -> None:
        """Std and error on one axis from 0: a std that rises less than the error is seen to."""
        for k, photo in enumerate(zip(*self.found)):
            panel.plot(self.lengths, [float(blurred['std']) for blurred in photo], color=COLOURS[5], linewidth=0.8,
                       label='std of one photo' if k == 0 else None)
        of_blur = self.of_lengths()
        panel.errorbar(self.lengths, [row['std'] for row in of_blur], [row['std_se'] for row in of_blur], color=COLOURS[0],
                       marker=MARKERS[0], capsize=3, label='std, mean and standard error')
        panel.plot(self.lengths, [row['rmse'] for row in of_blur], color=COLOURS[1], marker=MARKERS[1], linestyle='--',
                   label='error of the mean (RMSE)')
        panel.set(xlabel='length of the blur path (pixels)', ylabel='grey values of [0, 1]', title='Std against blur')
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=7)

    def draw_maps(self, figure: Figure) -> None:
        """Blurred inputs over std maps of the photo in the middle of the order of std, for up to four lengths."""
        last = [float(photo['std']) for photo in self.found[-1]]
        middle = int(np.argsort(last)[len(last) // 2])
        count = len(self.lengths)
        shown = [i * (count - 1) // 3 for i in range(4)] if count > 4 else list(range(count))
        maps = [center(self.found[i][middle]['std_map'].astype(np.float64), SHOWN) for i in shown]
        white = max(float(np.quantile(maps, 0.99)), 1e-6)
        figure.set_size_inches(1.75 * len(shown) + 0.9, 3.7)
        panels = figure.subplots(2, len(shown))
        for column, (i, std) in enumerate(zip(shown, maps)):
            blurry = self.pairs[i][middle].load()[0].permute(1, 2, 0).numpy()
            panels[0, column].imshow(center(blurry, SHOWN), interpolation='nearest')
            panels[0, column].set_title(f'path of {self.lengths[i]:g} pixels')
            drawn = panels[1, column].imshow(std, cmap='cividis', vmin=0, vmax=white, interpolation='nearest')
            panels[1, column].set_title(f"mean {float(self.found[i][middle]['std']):.4f}", fontsize=8)
        for panel in panels.flat:
            panel.set(xticks=[], yticks=[])
        panels[0, 0].set_ylabel('blurred input')
        panels[1, 0].set_ylabel('std over samples')
        figure.colorbar(drawn, ax=panels[1, :].tolist(), label='std, grey values of [0, 1]', shrink=0.9)
