"""Pairs of blurred and sharp images: of two folders, by name, or of the data set of an options file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.archives import first_few
from ..data.checked_dataset import CheckedDataset
from ..data.image_files import open_image, upright_size
from ..data.recorded_png import to_pixels
from ..data.synthetic_blur_dataset import IMAGE_SUFFIXES, read_rgb
from ..errors import InputError
from ..registration import register_all
from ..settings.datasets import check_dataset
from ..values import BLOCK, check_kinds, optional


@dataclass(frozen=True)
class Pair:
    """A ground truth, its blurred image if there is one, and the name that both share (the path without suffix)."""

    name: str
    gt: Path
    lq: Path | None = None

    def key(self) -> str:
        """A hash of its contents."""
        return _hash(*(path.read_bytes() for path in (self.lq, self.gt) if path is not None))

    def load(self) -> tuple[Tensor, NDArray[np.uint8]]:
        """Blurred image, (3, H, W) in [0, 1], and ground truth, (H, W, 3) BGR uint8."""
        check_same_kind(self.lq, self.gt)
        lq = torch.tensor(read_rgb(self.lq)).permute(2, 0, 1).float() / 255
        return lq, np.ascontiguousarray(read_rgb(self.gt)[..., ::-1])


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
        return item['lq'], np.ascontiguousarray(to_pixels(item['gt'].clamp(0, 1))[..., ::-1])


ImagePair = Pair | DatasetItem


def find_pairs(gt: Path, lq: Path | None = None) -> list[Pair]:
    """The pairs of two folders, or sharp images alone, searched with their subfolders; sorted by name.

    Raises:
        InputError: If a folder has no images, or they do not pair up by name.
    """
    sharp = named_images(gt)
    blurred = match_names(sharp, lq) if lq else {}
    return [Pair(name, sharp[name], blurred.get(name)) for name in sharp]


def named_images(folder: Path) -> dict[str, Path]:
    """Images below ``folder`` by their path without suffix, sorted.

    Raises:
        InputError: If there are none, or two of one name.
    """
    if not folder.is_dir():
        raise InputError(f'Folder {folder} does not exist; check the path.')
    images: dict[str, Path] = {}
    for path in sorted(folder.rglob('*')):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.'):
            name = path.relative_to(folder).with_suffix('').as_posix()
            if name in images:
                raise InputError(f'{images[name]} and {path} have the same name; remove one of them.')
            images[name] = path
    if not images:
        raise InputError(f'Folder {folder} holds no image ({", ".join(sorted(IMAGE_SUFFIXES))}); check the path.')
    return images


def match_names(names: Iterable[str], folder: Path) -> dict[str, Path]:
    """The image of ``folder`` for each name; never by position.

    What ``stochastic-refine test`` or BasicSR saved has one ending on every name (``000001_NAFNet.png``): it is passed over.

    Raises:
        InputError: If they do not pair up one to one, listing what is left.
    """
    images, names = named_images(folder), sorted(names)
    if images.keys() != set(names):
        # Endings that the first image could have; one of them must fit all.
        first = next(iter(images))
        for ending in sorted({first.removeprefix(name) for name in names if first.startswith(f'{name}_')}, key=len):
            if images.keys() == {f'{name}{ending}' for name in names}:
                return {name: images[f'{name}{ending}'] for name in names}
        missing, extra = sorted(set(names) - images.keys()), sorted(images.keys() - set(names))
        lone = [f'{words} {first_few(found, count=10)}'
                for words, found in (('nothing there for', missing), ('no ground truth for', extra)) if found]
        raise InputError(f'The images in {folder} do not pair up with the ground truth by name: {"; ".join(lone)}. Add or '
                         'remove the images named.')
    return {name: images[name] for name in names}


def check_kind(path: Path) -> tuple[int, int]:
    """(width, height) of an 8-bit RGB image as it is shown, by its header.

    Raises:
        InputError: If it is no image, grey, deep or has transparency.
    """
    with open_image(path) as image:
        mode, size = image.mode, upright_size(image)
    if mode not in ('RGB', 'P'):
        kind = {'L': 'grey', '1': 'black and white', 'RGBA': 'RGB with transparency'}.get(mode, f'of mode {mode}')
        raise InputError(f'Image {path} is {kind}, but scores are defined on 8-bit RGB; save it as RGB.')
    return size


def check_same_kind(path: Path, gt: Path) -> None:
    """Raise an InputError unless ``path`` has the size and channels of its ground truth."""
    size, expected = check_kind(path), check_kind(gt)
    if size != expected:
        raise InputError(f'{path} is {size[0]}x{size[1]} pixels but its ground truth {gt} {expected[0]}x{expected[1]}; mend or '
                         'remove the pair.')


def pairs_of_folders(gt: Path, lq: Path) -> list[ImagePair]:
    """The pairs of two folders.

    Raises:
        InputError: If they do not pair up, or an image cannot be scored.
    """
    pairs = find_pairs(gt, lq)
    for pair in pairs:
        check_kind(pair.gt)
        check_same_kind(pair.lq, pair.gt)
    return list(pairs)


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
