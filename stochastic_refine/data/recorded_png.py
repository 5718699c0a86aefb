"""PNG files of 8 bits that say in a text of their own how they were made, so that what is there is known for what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from torch import Tensor

from ..errors import InputError
from ..files import write_atomically
from .image_files import open_image

#: Name of the text.
_TEXT = 'stochastic_refine'


def to_pixels(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) in [0, 1] to (H, W, 3) RGB uint8."""
    return np.ascontiguousarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def write_recorded(path: Path, image: Tensor, record: Mapping[str, Any]) -> None:
    """Write (3, H, W) in [0, 1] with what is to be known of it, whole or not at all.

    Raises:
        InputError: If it cannot be written.
    """
    text = PngImagePlugin.PngInfo()
    text.add_text(_TEXT, json.dumps(record, allow_nan=False))
    write_atomically(path, lambda temporary: Image.fromarray(to_pixels(image)).save(
        temporary, pnginfo=text, compress_level=3))


def read_record(path: Path) -> dict[str, Any] | None:
    """What a whole file says of its making, without decoding it; None for other files, damaged and missing ones."""
    try:
        with open_image(path) as image:
            record = json.loads(image.info[_TEXT])
            image.verify()  # by its checksums; what was cut short is made again
    except InputError:
        return None
    return record if isinstance(record, dict) else None
