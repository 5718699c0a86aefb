"""Initial predictions on disk, so that a slow predictor predicts each image of a training once.

``initial/`` lies beside ``input/`` and ``target/`` and holds a PNG of 8 bits for each blurred image; rounding is far below the
noise that a refiner starts with. Each file says in its own text of which weights and of which blurred image it is, so that what
is copied, left out or made anew is never taken for something else.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import InputError
from ..files import write_atomically

#: Name of the folder of predictions.
FOLDER = 'initial'
_KEYS = ('predictor_sha256', 'input_sha256')


class Origin(NamedTuple):
    """What a prediction is of: the SHA-256 of the file of the predictor's weights, and of the blurred image's file."""

    weights: str
    lq: str


def write_prediction(path: Path, pixels: NDArray[np.uint8], origin: Origin) -> None:
    """Write a prediction, (H, W, 3), RGB, whole or not at all.

    Raises:
        InputError: If it cannot be written.
    """
    text = PngInfo()
    for key, value in zip(_KEYS, origin):
        text.add_text(key, value)
    write_atomically(path, lambda temporary: Image.fromarray(pixels).save(temporary, compress_level=3, pnginfo=text))


def origin_of(content: bytes, name: str | Path) -> Origin:
    """What the PNG ``content`` of the file ``name`` is a prediction of.

    Raises:
        InputError: If it does not say, or is no PNG.
    """
    try:
        with Image.open(BytesIO(content), formats=('PNG', )) as image:
            return Origin(*(str(image.info[key]) for key in _KEYS))
    except (OSError, KeyError, ValueError, SyntaxError) as error:
        raise InputError(f'{name} is no prediction of stochastic-refine prepare predictions; remove it, and run that again.'
                         ) from error


def origin_in(folder: str | Path) -> Origin:
    """That of the first prediction in a folder.

    Raises:
        InputError: If there is none.
    """
    folder = Path(folder).expanduser()
    path = min(folder.glob('*.png'), default=None)
    if path is None:
        raise InputError(f'{folder} holds no prediction; make them with stochastic-refine prepare predictions.')
    return origin_of(path.read_bytes(), path)
