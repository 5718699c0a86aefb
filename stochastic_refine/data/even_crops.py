"""Training windows drawn evenly over photos that are stored as overlapping crops.

Large photos are cut into overlapping crops once, since decoding a whole photo for one small window is slow. A window drawn
evenly from a crop drawn evenly lies twice as often where two crops overlap, four times as often where four do. Here a window is
taken with a probability of one over the number of crops that hold it, else drawn again: then each position of the photo has the
same chance.
"""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError

#: Beside the folders of crops: where each crop lies in its photo, pixels.
TABLE_NAME = 'crops.csv'
COLUMNS = ('crop', 'photo', 'left', 'top', 'width', 'height')


class Crop(NamedTuple):
    """Item ``index`` of a data set, and the part of its photo that it is, pixels."""

    index: int
    left: int
    top: int
    width: int
    height: int

    def positions(self, size: int) -> int:
        """How many windows of that side it holds."""
        return max(self.width - size + 1, 0) * max(self.height - size + 1, 0)

    def holds(self, left: int, top: int, size: int) -> bool:
        """Whether it holds a window, given by its place in the photo."""
        return (self.left <= left <= self.left + self.width - size) and (self.top <= top <= self.top + self.height - size)


class EvenCrops:
    """Chooses crops so that the windows which BasicSR then draws lie evenly over each photo.

    Args:
        photos: For each item of a data set the crops of its photo; items that are missing stay as they are.
        size: Side of the windows, pixels.
    """

    def __init__(self, photos: Mapping[int, Sequence[Crop]], size: int) -> None:
        self.photos = photos
        self.size = size

    @classmethod
    def of_dataset(cls, paths: Any, options: Mapping[str, Any]) -> EvenCrops | None:
        """For a ``PairedImageDataset`` in training beside whose folder there is a table of crops; None for all others.

        Raises:
            InputError: If the table is damaged.
        """
        size, table = options.get('gt_size'), Path(str(options.get('dataroot_gt'))).expanduser().parent / TABLE_NAME
        if (options.get('type'), options.get('phase')) != ('PairedImageDataset', 'train') or not isinstance(paths, list) \
                or options.get('scale', 1) != 1 or options.get('max_images') or not size or not table.is_file():
            return None
        places = read_table(table)
        in_lmdb = options['io_backend']['type'] == 'lmdb'  # whose keys have no suffix
        photos: dict[str, list[Crop]] = defaultdict(list)
        photo_of: dict[int, str] = {}
        for index, item in enumerate(paths):
            name = item['gt_path'] if in_lmdb else Path(item['gt_path']).stem
            if name in places:
                photo, *place = places[name]
                photos[photo].append(Crop(index, *place))
                photo_of[index] = photo
        return cls({index: photos[photo] for index, photo in photo_of.items()}, size)

    def choose(self, index: int) -> int:
        """The item to load in place of item ``index``: a crop of the same photo.

        Python's generator is left such that its next two whole numbers, which BasicSR asks for first, give the window.
        """
        crops = self.photos.get(index, ())
        weights = [crop.positions(self.size) for crop in crops]
        if not any(weights):
            return index  # smaller than a window, which BasicSR refuses by name
        own = random.Random(random.getrandbits(64))  # what is drawn after the window must not depend on the window
        while True:
            crop, = own.choices(crops, weights)
            state = random.getstate()
            top = crop.top + random.randint(0, crop.height - self.size)
            left = crop.left + random.randint(0, crop.width - self.size)
            if own.random() * sum(other.holds(left, top, self.size) for other in crops) < 1:
                random.setstate(state)
                return crop.index


def read_table(path: Path) -> dict[str, tuple[str, int, int, int, int]]:
    """Photo, left, top, width and height of each crop by its name.

    Raises:
        InputError: If the file is damaged.
    """
    try:
        with path.open(encoding='utf-8', newline='') as file:
            return {line['crop']: (line['photo'], *(int(line[key]) for key in COLUMNS[2:])) for line in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f'{path} is no table of crops as stochastic-refine prepare writes it; run that again, or delete the '
                         'file to draw windows evenly from each crop instead of each photo.') from error


def write_table(path: Path, crops: Sequence[tuple[str, str, int, int, int, int]]) -> None:
    """Write such a table; each crop as ``COLUMNS`` say."""
    with path.open('w', encoding='utf-8', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(crops)
