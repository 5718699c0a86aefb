"""Data sets as mmengine wants them: ours and BasicSR's of pairs, whose items become ``inputs`` and ``data_samples``."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.structures import BaseDataElement
from torch.utils.data import Dataset, Sampler

from ...data.checked_dataset import DrawnDataset
from ...data.random_streams import Draw, epoch_draws
from ...data.synthetic_blur_dataset import SyntheticBlurDataset as _SyntheticBlurDataset
from ...registration import prepare_basicsr
from .registry import DATA_SAMPLERS, DATASETS


class _Pairs(DrawnDataset):
    """A data set by the keys that it has in BasicSR's options files.

    Items: ``inputs``, the blurred image, and ``data_samples`` with ``gt_img``, the sharp one: (3, H, W), RGB in [0, 1]. Workers
    that are spawned, not forked, as with several processes, must find BasicSR's compatibility layer in place first.
    """

    metainfo: dict[str, Any] = {}  # mmengine wants one

    def __init__(self, phase: str = 'train', **options: Any) -> None:
        options = {'name': phase, 'scale': 1, **options, 'phase': phase, 'type': type(self).__name__}
        super().__init__(self.build(options))

    @staticmethod
    def build(options: dict[str, Any]) -> Dataset:
        """The data set itself."""
        raise NotImplementedError

    def __getitem__(self, index: int | Draw) -> dict[str, Any]:
        item = super().__getitem__(index)
        paths = {'img_path': item['lq_path'], 'gt_path': item['gt_path']}
        return {'inputs': item['lq'], 'data_samples': BaseDataElement(gt_img=item['gt'], metainfo=paths)}

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[type, bytes]]:
        return _unpickled, (type(self), pickle.dumps(self.__dict__))


def _unpickled(cls: type, state: bytes) -> _Pairs:
    if cls is PairedImageDataset:
        prepare_basicsr()
    dataset = object.__new__(cls)
    dataset.__dict__.update(pickle.loads(state))
    return dataset


@DATASETS.register_module()
class SyntheticBlurDataset(_Pairs):
    """Any folder of sharp photos, blurred on the fly; see :mod:`stochastic_refine.data.synthetic_blur_dataset`."""

    @staticmethod
    def build(options: dict[str, Any]) -> Dataset:
        return _SyntheticBlurDataset(options)


@DATASETS.register_module()
class PairedImageDataset(_Pairs):
    """Two folders of images, ``dataroot_lq`` and ``dataroot_gt``, or two LMDBs; needs BasicSR, whose data set it is."""

    @staticmethod
    def build(options: dict[str, Any]) -> Dataset:
        prepare_basicsr()
        from basicsr.data.paired_image_dataset import PairedImageDataset as paired
        options['io_backend'] = dict(options.get('io_backend') or {'type': 'disk'})
        return paired({'use_hflip': True, 'use_rot': True, **options})


@DATA_SAMPLERS.register_module()
class DrawSampler(Sampler):
    """Draws for a training as BasicSR's loop draws here: equal seeds give equal items and equal random numbers for each.

    Use it with ``drop_last=True``: an epoch's last batch would be smaller.

    Args:
        dataset: The data set.
        seed: Of the training; one for all processes.
        ratio: How often each item comes in an epoch, as ``dataset_enlarge_ratio``: a new epoch restarts workers that do not
            persist.
    """

    def __init__(self, dataset: Dataset, seed: int | None = None, ratio: int = 1) -> None:
        self.rank, self.processes = get_dist_info()
        self.items = len(dataset)
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        self.length = -(-self.items * ratio // self.processes)

    def set_epoch(self, epoch: int) -> None:
        """The epoch to draw next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        return epoch_draws(self.seed, self.epoch, self.items, self.length * self.processes, self.rank, self.processes)

    def __len__(self) -> int:
        return self.length
