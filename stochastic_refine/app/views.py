"""A photo at a position of the knob, and the files that are made of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..inference.folder import std_picture
from ..inference.photos import Photo, write_photo


@dataclass
class View:
    """A photo at a position of the knob.

    Args:
        photo: The photo.
        image: The picture, (H, W, 3); None where no sample is there.
        samples: Those that are there, by seed.
        std: Their standard deviation, (H, W, 3); None with fewer than two.
        words: What is shown, for people.
    """

    photo: Photo
    image: NDArray[np.float32] | None
    samples: dict[int, NDArray[np.float32]]
    std: NDArray[np.float32] | None
    words: str


def write_view(view: View, name: str, folder: Path, everything: bool, taken: Iterable[Path]) -> list[Path]:
    """Write a photo's picture as much like the photo as its format can.

    Args:
        view: Which has a picture.
        name: Of the photo.
        folder: For the files.
        everything: The samples and the map of doubt too.
        taken: Files whose names are not to be used again.

    Returns:
        The files.

    Raises:
        InputError: If one cannot be written.
    """
    assert view.image is not None
    stem, suffix = Path(name).stem, Path(name).suffix
    pictures: list[tuple[str, NDArray[np.float32], Photo | None]] = [(f'{stem}_restored{suffix}', view.image, view.photo)]
    if everything:
        pictures += [(f'{stem}_sample{i + 1}{suffix}', sample, view.photo) for i, sample in enumerate(view.samples.values())]
        pictures += [] if view.std is None else [(f'{stem}_std.png', std_picture(view.std), None)]
    files: list[Path] = []
    for wanted, pixels, like in pictures:
        files.append(folder / free_name(wanted, [file.name for file in (*taken, *files)]))
        write_photo(files[-1], pixels, like)
    return files


def free_name(name: str, taken: Iterable[str]) -> str:
    """A file's name, numbered if it is taken; large and small letters do not tell names apart, as on some systems."""
    folded = {other.casefold() for other in taken}
    names = (f'{Path(name).stem}{number}{Path(name).suffix}'
             for number in itertools.chain([''], (f' ({i})' for i in itertools.count(2))))
    return next(free for free in names if free.casefold() not in folded)
