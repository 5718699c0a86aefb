"""NIQE (Mittal et al., IEEE SPL 2013) by BasicSR, with no score instead of a crash for images that it cannot judge."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from basicsr.metrics.niqe import calculate_niqe
from numpy.typing import NDArray

from .images import without_border

#: Side of the blocks that features are taken from; a covariance needs two of them.
_BLOCK = 96


def calculate_niqe_or_nan(img: NDArray[np.uint8], crop_border: int = 0, convert_to: str = 'y', **kwargs: Any) -> float:
    """BasicSR's ``calculate_niqe``; lower is better, NaN where it has no value. It needs no ground truth.

    There is none for an image with fewer than two whole 96x96 blocks, or fewer than two blocks that are not flat.

    It is up to 3.8 % off the values of the authors' MATLAB code on the same images.

    Args:
        img: Image, (H, W, 3), BGR uint8.
        crop_border: Pixels left out at each edge.
        convert_to: What is judged, ``'y'`` (of MATLAB's YCbCr, as published) or ``'gray'``.
        **kwargs: BasicSR passes keys such as ``better``; ignored.
    """
    img = without_border(img, crop_border)
    if (img.shape[0] // _BLOCK) * (img.shape[1] // _BLOCK) < 2:
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # of means over nothing, in flat blocks
        try:
            return calculate_niqe(img, 0, convert_to=convert_to)
        except np.linalg.LinAlgError:  # the covariance of fewer than two blocks is NaN
            return math.nan
