"""Initial predictions on disk, so that a slow predictor predicts each image of a training once.

``initial/`` lies beside ``input/`` and ``target/`` and holds a PNG of 8 bits for each blurred image; rounding is far below the
noise that a refiner starts with. Each file says in its own text of which weights and of which blurred image it is, so that what
is copied, left out or made anew is never taken for something else.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..errors import InputError
from .recorded_png import read_record, write_recorded

#: Name of the folder of predictions.
FOLDER = 'initial'


class Origin(NamedTuple):
    """What a prediction is of: the SHA-256 of the file of the predictor's weights, and of the blurred image's file."""

    predictor_sha256: str
    input_sha256: str


def write_prediction(path: Path, image: Tensor, origin: Origin) -> None:
    """Write a prediction, (3, H, W) in [0, 1] up to overshoot, whole or not at all.

    Raises:
        InputError: If it cannot be written.
    """
    write_recorded(path, image.clamp(0, 1), origin._asdict())


def origin_of(path: Path) -> Origin:
    """What a file is a prediction of.

    Raises:
        InputError: If it does not say, or is not whole.
    """
    try:
        return Origin(**(read_record(path) or {}))
    except TypeError as error:
        raise InputError(f'{path} is no prediction of stochastic-refine prepare predictions, or damaged; remove it, and run '
                         'that again.') from error


def origin_in(folder: str | Path) -> Origin:
    """That of the first prediction in a folder.

    Raises:
        InputError: If there is none.
    """
    folder = Path(folder).expanduser()
    path = min(folder.glob('*.png'), default=None)
    if path is None:
        raise InputError(f'{folder} holds no prediction; make them with stochastic-refine prepare predictions.')
    return origin_of(path)
