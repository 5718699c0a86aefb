"""CheckedDataset: any BasicSR dataset with errors that name the file, and an order that does not depend on the disk.

DrawnDataset: the same, with random numbers of its own for each item of a training.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import cv2
from torch.utils import data

from ..errors import InputError
from .even_crops import EvenCrops
from .image_files import check_whole, open_image
from .random_streams import Draw, seed_item

#: Data sets of pairs from two folders.
PAIRED = ('PairedImageDataset', 'PredictedImageDataset')


class CheckedDataset(data.Dataset):
    """Wraps a dataset built from options.

    An item that cannot be read raises an InputError that names its files, or with ``skip_corrupt: true`` in the dataset's
    options is replaced by the next one that can. BasicSR lists folders in the disk's order; here items are sorted by path.
    ``max_images: n`` uses n items only, spread evenly over the whole, for quick validation during training.

    Args:
        dataset: A dataset with BasicSR's ``opt``; its ``paths`` are sorted if they are a list.
    """

    def __init__(self, dataset: data.Dataset) -> None:
        self.dataset = dataset
        self.opt: dict[str, Any] = dataset.opt
        self.reads_files = self.opt.get('io_backend', {}).get('type') == 'disk'  # BasicSR removes it with the first item
        self.paths = getattr(dataset, 'paths', None)
        if isinstance(self.paths, list):
            self.paths.sort(key=lambda item: str(item.get('lq_path', item.get('gt_path')) if isinstance(item, dict) else item))
        if len(self) == 0:
            raise InputError(f"Dataset {self.opt['name']} is empty; check its dataroot_gt and dataroot_lq.")

    def __len__(self) -> int:
        return min(len(self.dataset), self.opt.get('max_images') or len(self.dataset))

    def __getitem__(self, index: int) -> Any:
        for attempt in range(len(self)):
            i = (index + attempt) % len(self) * len(self.dataset) // len(self)
            try:
                self._check_files(i)
                item = self.dataset[i]
                if self.opt.get('type') in PAIRED and self.opt.get('phase') != 'train':
                    _check_sizes(item, self.opt.get('scale', 1))
                return item
            except InputError as error:
                self._check_folders(error)
                raise
            except MemoryError:
                raise InputError(f"Dataset {self.opt['name']}: {self._files(i)} does not fit into memory; make it smaller."
                                 ) from None
            except Exception as error:  # for damaged files, or such that do not pair up, BasicSR raises almost anything
                self._check_folders(error)
                message = f"Dataset {self.opt['name']}: {self._files(i)} cannot be used ({_first_line(error)})."
                if not self.opt.get('skip_corrupt'):
                    raise InputError(f'{message} Mend or remove it, or set skip_corrupt: true in this dataset to go on without '
                                     'it.') from error
                logging.getLogger('basicsr').warning('%s Skipped.', message)
        raise InputError(f"Dataset {self.opt['name']}: not one item can be read; check its folders.")

    def _check_folders(self, error: Exception) -> None:
        """Raise an InputError if not an image but its whole folder is lost, such as a disk that is no longer mounted."""
        for key in ('dataroot_gt', 'dataroot_lq'):
            folder = self.opt.get(key)
            if isinstance(folder, str) and not _holds_files(Path(folder).expanduser()):
                raise InputError(f"Dataset {self.opt['name']}: {key} {folder} is there no longer, or is empty; mount or "
                                 'restore it.') from error

    def _files(self, index: int) -> str:
        if not isinstance(self.paths, list):
            return f'item {index}'
        item = self.paths[index]
        return ' / '.join(item[key] for key in ('lq_path', 'gt_path') if key in item) if isinstance(item, dict) else str(item)

    def _check_files(self, index: int) -> None:
        """Raise a ValueError if an image that BasicSR would read by OpenCV is damaged; our own data sets read by Pillow."""
        if not self.reads_files or not isinstance(self.paths, list):
            return
        item = self.paths[index]
        for file in item.values() if isinstance(item, dict) else [item]:
            try:
                check_whole(file)
            except InputError as error:
                raise ValueError(str(error).partition(';')[0]) from error


class DrawnDataset(CheckedDataset):
    """Gives each item of a training random numbers of its own, which do not depend on the process that loads it, where it is
    asked for by a :class:`~.random_streams.Draw`; overlapping crops are drawn such that windows lie evenly over photos.
    """

    def __init__(self, dataset: data.Dataset) -> None:
        super().__init__(dataset)
        self.even_crops = EvenCrops.of_dataset(self.paths, self.opt)

    def __getitem__(self, index: int | Draw) -> Any:
        if isinstance(index, Draw):
            index, seed = index
            seed_item(seed)
            if self.even_crops is not None:
                index = self.even_crops.choose(index)
        return super().__getitem__(index)


def _holds_files(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def _check_sizes(item: dict[str, Any], scale: int) -> None:
    """Raise a ValueError unless gt is ``scale`` times lq; BasicSR cuts a larger gt down to that in silence in validation."""
    height, width = (scale * side for side in item['lq'].shape[-2:])
    size = decoded = tuple(item['gt'].shape[:0:-1])
    if Path(item['gt_path']).is_file():  # in an LMDB it is a key
        with open_image(item['gt_path']) as image:
            size = image.size
    # The header's width and height are exchanged in photos that EXIF turns.
    if decoded != (width, height) or sorted(size) != sorted((width, height)):
        raise ValueError(f'gt is {size[0]}x{size[1]} pixels where {width}x{height} are expected')


def _first_line(error: Exception) -> str:
    if isinstance(error, cv2.error) and 'buf.empty()' in str(error):
        return 'empty file'
    if isinstance(error, AttributeError) and 'NoneType' in str(error):
        return 'damaged or no image'  # OpenCV returned no pixels
    text = ' '.join(str(part) for part in error.args) or type(error).__name__
    return text.splitlines()[0].rstrip('. ')
