"""The crops that raters see: where each is cut, and how it is stored in the page."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from ..data.image_files import open_image
from ..errors import InputError

REFERENCE = 'Reference'
#: Browsers limit the length of a string to some 512 MiB.
LARGEST_PAGE = 400 * 2**20
CROP_CHOICES = ('texture', 'random')
Box = tuple[int, int, int, int]
_CANDIDATES = 16


class Album:
    """The crops of a page under opaque codes."""

    def __init__(self, codes: Iterator[str], quality: int | None) -> None:
        self.codes = codes
        self.quality = quality
        self.meanings: dict[str, dict[str, str]] = {}
        self.embedded: dict[str, str] = {}
        self._size = 0

    def add(self, crop: Image.Image, **meaning: str) -> str:
        """Embed a crop; returns its code."""
        code = next(self.codes)
        self.meanings[code] = meaning
        self.embedded[code] = _webp(crop, self.quality)
        self._size += len(self.embedded[code])
        if self._size > LARGEST_PAGE:
            raise InputError(f'The page would be larger than {LARGEST_PAGE >> 20} MiB, too large for a browser; use fewer '
                             'photos (--max-images), smaller crops or --quality 95.')
        return code


def choose_box(paths: dict[str, Path], size: int, generator: random.Random, crops: str) -> tuple[Box, float]:
    """Where the photo is cropped, and the mean absolute gradient there.

    Detail is measured on the reference, or else on the mean of all methods, so that none has a say of its own.
    """
    sources = [paths[REFERENCE]] if REFERENCE in paths else list(paths.values())
    grey = np.mean([np.asarray(_open(path).convert('L'), np.float32) for path in sources], axis=0)
    height, width = grey.shape
    wide, high = min(size, width), min(size, height)
    boxes = []
    for _ in range(_CANDIDATES if crops == 'texture' else 1):
        x, y = generator.randint(0, width - wide), generator.randint(0, height - high)
        boxes.append((x, y, x + wide, y + high))

    def detail(box: Box) -> float:
        part = grey[box[1]:box[3], box[0]:box[2]]
        return float(sum(np.abs(np.diff(part, axis=axis)).sum() for axis in (0, 1)) / part.size)

    best = max(boxes, key=detail)
    return best, detail(best)


def _open(path: Path) -> Image.Image:
    with open_image(path) as image:
        return ImageOps.exif_transpose(image).convert('RGB')


def cut(path: Path, box: Box) -> Image.Image:
    return _open(path).crop(box)


def blurred_more(crop: Image.Image) -> Image.Image:
    """A copy with a Gaussian blur that nobody can miss: 1/48 of the shorter side, 11 pixels at 512."""
    return crop.filter(ImageFilter.GaussianBlur(max(2.0, min(crop.size) / 48)))


def _webp(crop: Image.Image, quality: int | None) -> str:
    buffer = io.BytesIO()
    crop.save(buffer, 'webp', **({'lossless': True, 'quality': 50} if quality is None else {'quality': quality}))
    return base64.b64encode(buffer.getvalue()).decode()


def codes(generator: random.Random) -> Iterator[str]:
    """Ten hexadecimal digits at a time, never the same twice."""
    given = set()
    while True:
        code = f'{generator.getrandbits(40):010x}'
        if code not in given:
            given.add(code)
            yield code
