"""Where a sweep's pairs of blurred and sharp images come from: two folders, or the data set of an options file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.checked_dataset import CheckedDataset
from ..data.synthetic_blur_dataset import read_rgb
from ..errors import InputError
from ..registration import register_all
from ..settings.datasets import check_dataset
from ..values import BLOCK, check_kinds, optional
from .protocols import Pair, check_kind, check_same_kind, find_pairs, protocol_named


@dataclass(frozen=True)
class FilePair:
    """A pair of image files."""

    pair: Pair

    @property
    def name(self) -> str:
        """Its name; it may hold slashes."""
        return self.pair.name

    def key(self) -> str:
        """A hash of its contents."""
        return _hash(self.pair.lq.read_bytes(), self.pair.gt.read_bytes())

    def load(self) -> tuple[Tensor, NDArray[np.uint8]]:
        """Blurred image, (3, H, W) in [0, 1], and ground truth, (H, W, 3) BGR uint8."""
        check_same_kind(self.pair.lq, self.pair.gt)
        lq = torch.tensor(read_rgb(self.pair.lq)).permute(2, 0, 1).float() / 255
        return lq, np.ascontiguousarray(read_rgb(self.pair.gt)[..., ::-1])


@dataclass(frozen=True)
class DatasetItem:
    """A pair that a data set makes; ``options`` is the data set's block as JSON."""

    options: str
    index: int
    name: str

    def key(self) -> str:
        """A hash of its contents; where it is made from files, of those and of how it is made from them."""
        data = _dataset(self.options)
        paths = _files(data, self.index)
        if paths and all(path.is_file() for path in paths):
            return _hash(f'{self.options} {self.index}'.encode(), *(path.read_bytes() for path in paths))
        item = data[self.index]
        return _hash(*(item[side].numpy().tobytes() for side in ('lq', 'gt')))

    def load(self) -> tuple[Tensor, NDArray[np.uint8]]:
        """Blurred image, (3, H, W) in [0, 1], and ground truth, (H, W, 3) BGR uint8."""
        item = _dataset(self.options)[self.index]
        gt = (item['gt'] * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
        return item['lq'], np.ascontiguousarray(gt[..., ::-1])


ImagePair = FilePair | DatasetItem


def pairs_of_folders(gt: Path, lq: Path) -> list[ImagePair]:
    """The pairs of two folders.

    Raises:
        InputError: If they do not pair up, or an image cannot be scored.
    """
    pairs = find_pairs(protocol_named('folder'), gt, lq)
    for pair in pairs:
        check_kind(pair.gt)
        check_same_kind(pair.lq, pair.gt)
    return [FilePair(pair) for pair in pairs]


def pairs_of_data_folder(folder: Path) -> list[ImagePair]:
    """The pairs of a folder as ``stochastic-refine prepare`` lays it out: sharp ones in target/, blurred ones in input/.

    Raises:
        InputError: As :func:`pairs_of_folders`, or if there are no such folders.
    """
    for root in (folder, folder / 'test'):
        if (root / 'target').is_dir() and (root / 'input').is_dir():
            return pairs_of_folders(root / 'target', root / 'input')
    raise InputError(f'{folder} has no folders target (sharp) and input (blurred); give folders of other names with --gt and '
                     '--lq.')


def pairs_of_options(opt: dict[str, Any], path: Path) -> list[ImagePair]:
    """The pairs of the one data set of an options file that is not for training.

    Raises:
        InputError: If there is not one, or it lacks blurred or sharp images.
    """
    check_kinds(opt, {'datasets': optional(BLOCK)}, str(path))
    blocks = {name: block for name, block in (opt.get('datasets') or {}).items() if not name.startswith('train')}
    if len(blocks) != 1:
        raise InputError(f'{path} has {len(blocks) or "no"} data sets for validation or test where a sweep needs one; give the '
                         'folders of images with --gt and --lq.')
    name, block = next(iter(blocks.items()))
    check_kinds(opt['datasets'], {name: BLOCK}, f'{path}: datasets')
    if 'dataroot_gt' not in block:
        raise InputError(f'{path}: datasets: {name} has no dataroot_gt, and without sharp images nothing can be scored.')
    register_all()
    from basicsr.utils import registry
    check_dataset('val', {'name': name, **block}, registry.DATASET_REGISTRY, is_train=False)
    options = json.dumps({'name': name, 'scale': 1, **block, 'phase': 'val'}, sort_keys=True)
    data = _dataset(options)
    return [DatasetItem(options, i, _name(_files(data, i), block['dataroot_gt'], i)) for i in range(len(data))]


@lru_cache(maxsize=1)
def _dataset(options: str) -> CheckedDataset:
    register_all()
    from basicsr.data import build_dataset
    opt = json.loads(options)
    try:
        return CheckedDataset(build_dataset(opt))
    except InputError:
        raise
    except (KeyError, ValueError, TypeError, AssertionError, OSError) as error:
        raise InputError(f"datasets: {opt['name']} cannot be made from its options ({type(error).__name__}: "
                         f'{" ".join(str(error).split())}); correct them.') from error


def _files(data: CheckedDataset, index: int) -> list[Path]:
    """The files that a pair is made from, the sharp one last; empty if the data set does not tell."""
    if not isinstance(data.paths, list):
        return []
    item = data.paths[index * len(data.dataset) // len(data)]  # as ``max_images`` of the data set spreads its items
    return [Path(item[key]) for key in ('lq_path', 'gt_path') if key in item] if isinstance(item, dict) else [Path(str(item))]


def _name(files: list[Path], root: str, index: int) -> str:
    if not files:
        return f'{index:06d}'
    path, folder = files[-1], Path(root).expanduser()
    return (path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)).with_suffix('').as_posix()


def _hash(*contents: bytes) -> str:
    total = hashlib.sha256()
    for content in contents:
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()[:24]
