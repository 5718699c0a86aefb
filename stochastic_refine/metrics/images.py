"""Images as BasicSR hands them to metrics, (H, W, 3) BGR uint8: borders, sizes, and what networks take."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError


def without_border(image: NDArray[np.uint8], border: int) -> NDArray[np.uint8]:
    """``image`` without ``border`` pixels at each edge."""
    return image[border:image.shape[0] - border, border:image.shape[1] - border]


def check_same_size(image: NDArray[np.uint8], image2: NDArray[np.uint8], metric: str) -> None:
    """Raise InputError unless both images have one shape."""
    if image.shape != image2.shape:
        sizes = [f'{each.shape[1]}x{each.shape[0]}' for each in (image, image2)]
        raise InputError(f'{metric} compares images of one size, got {sizes[0]} and {sizes[1]}; crop or resize one of them.')


def rgb_tensor(image: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) BGR uint8 to (1, 3, H, W) RGB float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))[None].float() / 255
