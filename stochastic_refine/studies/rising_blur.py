"""The same sharp photos, blurred more and more.

Each is blurred by one camera-shake path of its own (or straight horizontal motion) that is scaled to rising lengths, with one
noise of its own; all that changes along a photo's row is the strength of the blur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..comparison.pairs import ImagePair, pairs_of_options
from ..comparison.protocols import spread_evenly
from ..errors import InputError
from ..files import write_atomically


@dataclass(frozen=True)
class RisingBlur:
    """The settings.

    Args:
        lengths: Of the camera's path, pixels; rising.
        photos: How many of the sharp images, spread evenly.
        size: Side of the central crop of each, pixels.
        samples: Of each blurred photo, at least 2.
        noise_sigma: Standard deviation of the noise, 8-bit grey values.
        seed: Of paths and noise.
        straight: Horizontal motion instead of camera shake.

    Raises:
        InputError: If there are too few lengths.
    """

    lengths: Sequence[float] = (2, 4, 6, 8, 10, 12)
    photos: int = 4
    size: int = 256
    samples: int = 8
    noise_sigma: float = 0.5
    seed: int = 0
    straight: bool = False

    def __post_init__(self) -> None:
        if len(set(self.lengths)) < 2 or min(self.lengths) < 0:
            raise InputError(f'Rising blur needs at least two different lengths from 0, got {list(self.lengths)}.')

    def pairs(self, images: Sequence[ImagePair], folder: Path) -> list[list[ImagePair]]:
        """The blurred photos, per length and in it per photo.

        Args:
            images: Whose sharp images are blurred.
            folder: Gets their crops as PNG files.
        """
        self._write_sharp(images, folder)
        return [self.pairs_of_length(folder, length) for length in self.lengths]

    def pairs_of_length(self, sharp: Path, length: float) -> list[ImagePair]:
        """The photos of a folder, blurred by paths of one length."""
        # With equal ends both draws of the data set are constants, so that paths and noise are the same for every length.
        block = {'type': 'SyntheticBlurDataset', 'dataroot_gt': str(sharp), 'seed': self.seed,
                 'trajectory_length': [length, length], 'noise_sigma': [self.noise_sigma, self.noise_sigma],
                 'trajectory': {'turn': 0, 'impulse_rate': 0, 'direction': 0} if self.straight else None}
        return pairs_of_options({'datasets': {'rising blur': block}}, sharp)

    def _write_sharp(self, images: Sequence[ImagePair], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        wanted = set()
        for number, pair in enumerate(spread_evenly(images, self.photos)):
            crop = np.ascontiguousarray(center(pair.load()[1][..., ::-1], self.size))
            wanted.add(folder / f'{number:04d}.png')
            write_atomically(folder / f'{number:04d}.png', lambda path, crop=crop: Image.fromarray(crop).save(path))
        for path in set(folder.glob('*.png')) - wanted:  # of a run with more photos
            path.unlink()


def center(picture: NDArray[Any], side: int) -> NDArray[Any]:
    """The middle of a picture, (H, W, ...), at most ``side`` high and wide."""
    top, left = (max(length - side, 0) // 2 for length in picture.shape[:2])
    return picture[top:top + side, left:left + side]
