"""Scores of images as mmengine's metrics, under MMagic's names; the functions are those of BasicSR's options files."""

from __future__ import annotations

import importlib
import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from numpy.typing import NDArray
from torch import Tensor

from ... import registration
from ...errors import MetricUnavailable
from .registry import METRICS

_FUNCTIONS = {'PSNR': 'calculate_psnr', 'SSIM': 'calculate_ssim', 'SSIM3D': 'calculate_ssim3d', 'LPIPS': 'calculate_lpips',
              'STLPIPS': 'calculate_stlpips', 'NIQE': 'calculate_niqe_or_nan', 'MUSIQ': 'calculate_musiq',
              'MANIQA': 'calculate_maniqa', 'CLIPIQA': 'calculate_clipiqa'}
#: What BasicSR's functions want to be told.
_GIVEN = {'PSNR': {'test_y_channel': False}, 'SSIM': {'test_y_channel': False}}


class ImageMetric(BaseMetric):
    """The average of a score over the images that have a finite one, under the metric's name.

    A metric whose package or weights cannot be had is left out, with one warning.

    Args:
        crop_border: Pixels left out at each edge.
        gt_key, pred_key: Where samples have the sharp image, and their ``output`` the restored one: (3, H, W), in 0..255, or
            in 0 to the ``data_range`` that the output tells.
        bgr: Whether their channels are in BGR order.
        collect_device, prefix: mmengine's.
        options: The function's other arguments.
    """

    def __init__(self, crop_border: int = 0, gt_key: str = 'gt_img', pred_key: str = 'pred_img', bgr: bool = False,
                 collect_device: str = 'cpu', prefix: str | None = None, **options: Any) -> None:
        super().__init__(collect_device, prefix)
        self.gt_key, self.pred_key, self.bgr = gt_key, pred_key, bgr
        self.function = _function(_FUNCTIONS[type(self).__name__])
        self.options = {'crop_border': crop_border, **_GIVEN.get(type(self).__name__, {}), **options}
        self.left_out = False

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        for sample in data_samples if not self.left_out else ():
            highest = sample['output'].get('data_range', 255)
            images = {'img': sample['output'][self.pred_key]}
            if 'img2' in inspect.signature(self.function).parameters:
                images['img2'] = sample[self.gt_key]
            arrays = {name: self._array(image, highest) for name, image in images.items()}
            try:
                self.results.append(float(self.function(**arrays, **self.options)))
            except MetricUnavailable as error:
                self.left_out = True
                print_log(f'{error} {type(self).__name__} is left out for the rest of this run.', 'current', logging.WARNING)
                break

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        name, finite = type(self).__name__, [value for value in results if math.isfinite(value)]
        if len(finite) < len(results):
            print_log(f'{name} has no finite value for {len(results) - len(finite)} of {len(results)} images; the average is '
                      'that over the others.', 'current')
        return {name: sum(finite) / len(finite) if finite else math.nan} if results else {}

    def _array(self, image: Any, highest: float) -> NDArray[np.uint8]:
        """(H, W, 3) BGR uint8."""
        image = image if isinstance(image, Tensor) else image.data
        image = (image.float() * (255 / highest)).round().clamp(0, 255).byte().cpu().numpy().transpose(1, 2, 0)
        return np.ascontiguousarray(image if self.bgr else image[..., ::-1])


def _function(name: str) -> Callable[..., float]:
    """Ours, or BasicSR's."""
    if name in registration.METRICS and name != 'calculate_niqe_or_nan':  # which is BasicSR's with a check before it
        return getattr(importlib.import_module(registration.METRICS[name], registration.__package__), name)
    registration.register_all()
    from basicsr.utils.registry import METRIC_REGISTRY
    return METRIC_REGISTRY.get(name)


for _name in _FUNCTIONS:
    METRICS.register_module(module=type(_name, (ImageMetric, ), {'__doc__': f'{_name}; see :class:`ImageMetric`.'}))
