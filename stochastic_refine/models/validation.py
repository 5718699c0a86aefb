"""Validation that scores several named results per image, on all processes at once."""

from __future__ import annotations

import inspect
import math
import os
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from basicsr.metrics import calculate_metric
from basicsr.utils import get_root_logger, imwrite, tensor2img
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..errors import InputError, MetricUnavailable


class ShardedValidation:
    """Mixin for BasicSR models: ``restorations()`` gives named results, every process takes its share of the images.

    BasicSR's own validation keeps all processes but the first waiting. Here image ``i`` belongs to process ``i mod n``, and
    the scores are gathered and averaged in the order of the images, so that the figures do not depend on ``n``. With
    ``val: score_input: true`` the degraded input is scored too, as ``input``.

    A metric whose package or weights cannot be had is left out for the rest of the run, after one warning. An average is that
    over the images that have a finite score, as some metrics are NaN for images they cannot judge, and PSNR is infinite for an
    image that is exactly the truth.
    """

    #: Why this process cannot go on: an image, or the next training batch, cannot be read.
    data_error: InputError | None = None

    def dist_validation(self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        self.nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def nondist_validation(self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        rank, world_size = self.opt['rank'], self.opt['world_size']
        if reached := getattr(self, 'finished_iter', 0) or getattr(self, 'resumed_iter', 0):
            current_iter = min(current_iter, reached)  # BasicSR's last call, after the training, has counted one too many
        dataset = dataloader.dataset
        name = dataset.opt['name']
        metrics = self.opt['val'].get('metrics') or {}
        indices = range(rank, len(dataset), world_size)
        scores = {}
        for index in tqdm(indices, unit='image', desc=name, disable=rank > 0 or not self.opt['val'].get('pbar', False)):
            self.before_validating_image(current_iter)
            try:
                data = dataset[index]
            except InputError as error:
                self.data_error = error
                break
            self.feed_data({key: value[None] if isinstance(value, Tensor) else [value] for key, value in data.items()})
            image_name = os.path.splitext(os.path.basename(data['lq_path']))[0]
            gt = tensor2img([data['gt']]) if 'gt' in data else None
            scores[index] = {}
            results = {'input': self.lq} if self.opt['val'].get('score_input') else {}
            for result, image in {**results, **self.restorations()}.items():
                image = tensor2img([image])
                if save_img:
                    _save_image(image, self._image_path(name, image_name, result, current_iter))
                for metric, options in metrics.items():
                    needs_reference = _needs_reference(options['type'])
                    if metric in self._left_out() or (needs_reference and gt is None):
                        continue
                    try:
                        reference = {'img2': gt} if needs_reference else {}
                        score = float(calculate_metric({'img': image, **reference}, options))
                    except MetricUnavailable as error:
                        self._leave_out(metric, str(error))
                    else:
                        scores[index][f'{result}/{metric}' if result else metric] = score
            self.lq = self.gt = None
        self.stop_if_agreed()
        scores = _gather(scores, world_size)
        if rank == 0 and scores:
            self._record(name, [scores[index] for index in sorted(scores)], current_iter, tb_logger)

    def before_validating_image(self, current_iter: int | str) -> None:
        """Hook: called before each image, for example to stop there."""

    def stop_if_agreed(self) -> None:
        """Hook: called by all processes when their images are done, before they exchange scores; a model for several processes
        must end them all if one of them has a ``data_error``, since the others would wait for it."""
        if self.data_error is not None:
            raise self.data_error

    def _record(self, name: str, scores: list[dict[str, float]], current_iter: int | str, tb_logger: Any) -> None:
        """Average over the images, keep the best, log."""
        self.metric_results = self._averages(name, scores)
        best = self.__dict__.setdefault('best_metric_results', {}).setdefault(name, {})
        for key, value in self.metric_results.items():
            better = self.opt['val']['metrics'][_metric(key)].get('better', 'higher')
            best.setdefault(key, {'better': better, 'val': float('-inf' if better == 'higher' else 'inf'), 'iter': -1})
            self._update_best_metric_result(name, key, value, current_iter)
        if self.metric_results:
            self._log_validation_metric_values(current_iter, name, tb_logger)
        else:
            get_root_logger().info(f'Validation {name}: no score, as every metric was left out or needs ground truth.')

    def _averages(self, name: str, scores: list[dict[str, float]]) -> dict[str, float]:
        """Of each key over the images; NaN where none has a score."""
        for metric in self.opt['val'].get('metrics') or {}:
            keys = [{key for key in score if _metric(key) == metric} for score in scores]
            if any(each != keys[0] for each in keys):  # a process, this one or another, left it out on the way
                self._leave_out(metric, f'Not every process can compute the metric {metric}.')
        averages = {}
        for key in (key for key in scores[0] if _metric(key) not in self._left_out()):
            values = [score[key] for score in scores if not math.isnan(score[key])]
            finite = [value for value in values if math.isfinite(value)]
            averages[key] = sum(finite) / len(finite) if finite else next(iter(values), math.nan)
            if 0 < len(finite) < len(values):
                get_root_logger().info(f'Validation {name}: {key} is infinite for {len(values) - len(finite)} of {len(scores)} '
                                       'images, which are exactly the truth; the average is that over the others.')
            if len(values) < len(scores):
                get_root_logger().info(f'Validation {name}: {key} has no value for {len(scores) - len(values)} of '
                                       f'{len(scores)} images; the average is that over the others.')
        return averages

    def _left_out(self) -> set[str]:
        """Metrics that turned out not to be had in this run."""
        return self.__dict__.setdefault('left_out_metrics', set())

    def _leave_out(self, metric: str, reason: str) -> None:
        if metric not in self._left_out():
            self._left_out().add(metric)
            get_root_logger().warning(f"{reason} '{metric}' is left out for the rest of this run.")

    def _image_path(self, dataset: str, image: str, result: str, current_iter: int | str) -> str:
        """Where BasicSR would save it, with the result's name added."""
        stem = f'{image}_{result}' if result else image
        root = self.opt['path']['visualization']
        if self.opt['is_train']:
            return os.path.join(root, image, f'{stem}_{current_iter}.png')
        return os.path.join(root, dataset, f"{stem}_{self.opt['val'].get('suffix') or self.opt['name']}.png")


def _save_image(image: NDArray[np.uint8], path: str) -> None:
    try:
        imwrite(image, path)
    except OSError as error:
        raise InputError(f'{path} could not be written ({error.strerror or error}); free some space, choose another folder or '
                         'set val: save_img to false.') from error


def _metric(key: str) -> str:
    """The metric's name in a key ``result/metric``."""
    return key.rsplit('/', 1)[-1]


def _needs_reference(metric: str) -> bool:
    return 'img2' in inspect.signature(METRIC_REGISTRY.get(metric)).parameters


def _gather(scores: dict[int, dict[str, float]], world_size: int) -> dict[int, dict[str, float]]:
    """The scores of all processes."""
    if world_size == 1:
        return scores
    parts: list[Any] = [None] * world_size
    dist.all_gather_object(parts, scores)
    torch.cuda.empty_cache()
    return {index: score for part in parts for index, score in part.items()}
