"""Validation that scores several named results per image, on all processes at once."""

from __future__ import annotations

import inspect
import os
from typing import Any

import torch
import torch.distributed as dist
from basicsr.metrics import calculate_metric
from basicsr.utils import get_root_logger, imwrite, tensor2img
from basicsr.utils.registry import METRIC_REGISTRY
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm


class ShardedValidation:
    """Mixin for BasicSR models: ``restorations()`` gives named results, every process takes its share of the images.

    BasicSR's own validation keeps all processes but the first waiting. Here image ``i`` belongs to process ``i mod n``, and
    the scores are gathered and averaged in the order of the images, so that the figures do not depend on ``n``. With
    ``val: score_input: true`` the degraded input is scored too, as ``input``.
    """

    def dist_validation(self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        self.nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def nondist_validation(self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        rank, world_size = self.opt['rank'], self.opt['world_size']
        dataset = dataloader.dataset
        name = dataset.opt['name']
        metrics = self.opt['val'].get('metrics') or {}
        indices = range(rank, len(dataset), world_size)
        scores = {}
        for index in tqdm(indices, unit='image', desc=name, disable=rank > 0 or not self.opt['val'].get('pbar', False)):
            self.before_validating_image(current_iter)
            data = dataset[index]
            self.feed_data({key: value[None] if isinstance(value, Tensor) else [value] for key, value in data.items()})
            image_name = os.path.splitext(os.path.basename(data['lq_path']))[0]
            gt = tensor2img([data['gt']]) if 'gt' in data else None
            scores[index] = {}
            results = {'input': self.lq} if self.opt['val'].get('score_input') else {}
            for result, image in {**results, **self.restorations()}.items():
                image = tensor2img([image])
                if save_img:
                    imwrite(image, self._image_path(name, image_name, result, current_iter))
                for metric, options in metrics.items():
                    if gt is not None or not _needs_reference(options['type']):
                        pair = {'img': image} if gt is None else {'img': image, 'img2': gt}
                        key = f'{result}/{metric}' if result else metric
                        scores[index][key] = float(calculate_metric(pair, options))
            self.lq = self.gt = None
        scores = _gather(scores, world_size)
        if rank == 0 and scores:
            self._record(name, [scores[index] for index in sorted(scores)], current_iter, tb_logger)

    def before_validating_image(self, current_iter: int | str) -> None:
        """Hook: called before each image, for example to stop there."""

    def _record(self, name: str, scores: list[dict[str, float]], current_iter: int | str, tb_logger: Any) -> None:
        """Average over the images, keep the best, log."""
        self.metric_results = {key: sum(s[key] for s in scores) / len(scores) for key in scores[0]}
        best = self.__dict__.setdefault('best_metric_results', {}).setdefault(name, {})
        for key, value in self.metric_results.items():
            better = self.opt['val']['metrics'][key.rsplit('/', 1)[-1]].get('better', 'higher')
            best.setdefault(key, {'better': better, 'val': float('-inf' if better == 'higher' else 'inf'), 'iter': -1})
            self._update_best_metric_result(name, key, value, current_iter)
        if self.metric_results:
            self._log_validation_metric_values(current_iter, name, tb_logger)
        else:
            get_root_logger().info(f'Validation {name}: no score, as no metric is asked for that works without ground truth.')

    def _image_path(self, dataset: str, image: str, result: str, current_iter: int | str) -> str:
        """Where BasicSR would save it, with the result's name added."""
        stem = f'{image}_{result}' if result else image
        root = self.opt['path']['visualization']
        if self.opt['is_train']:
            return os.path.join(root, image, f'{stem}_{current_iter}.png')
        return os.path.join(root, dataset, f"{stem}_{self.opt['val'].get('suffix') or self.opt['name']}.png")


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
