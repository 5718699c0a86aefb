"""Try weights on a small bundled photo, and compare with what they must make of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..checkpoints.catalogue import catalogue
from ..checkpoints.weights_folder import BUNDLED
from ..errors import InputError
from .deblurrer import Deblurrer

#: Bundled: a crop of a photo in the public domain, blurred and sharp, and results of weights of the catalogue.
FOLDER = BUNDLED / 'check'
#: PSNR to the stored result, dB, below which it is another: kernels differ in rounding, and results are stored in 8 bits.
AGREES = 45.0


@dataclass(frozen=True)
class Trial:
    """What weights made of the bundled photo. PSNR in dB, against the sharp crop if not said otherwise.

    Args:
        network: Type name of the network.
        million_params: Its parameters.
        seconds: Time of the restoration.
        before, after: PSNR of the blurred crop and of the result.
        agreement: PSNR of the result against the stored one; None where none is stored.
    """

    network: str
    million_params: float
    seconds: float
    before: float
    after: float
    agreement: float | None


def check_weights(name_or_path: str) -> Trial:
    """Load weights, restore the bundled photo in float32 on the CPU, and compare.

    Raises:
        InputError: If they cannot be used, or make something else of it than the catalogue has stored.
    """
    deblurrer = Deblurrer.from_pretrained(name_or_path, device='cpu', precision='float32', tile=None)
    blurred, sharp = (_pixels(FOLDER / f'{name}.png') for name in ('blurred', 'sharp'))
    start = time.perf_counter()
    result = deblurrer(blurred).image
    seconds = time.perf_counter() - start
    if not np.isfinite(result).all():
        raise InputError(f'{name_or_path} makes NaN or infinity of the bundled photo; get it again.')
    entry = catalogue().get(name_or_path)
    agreement = _psnr(result, _pixels(FOLDER / entry.check)) if entry and entry.check else None
    if agreement is not None and agreement < AGREES:
        raise InputError(f'{name_or_path} makes another picture of the bundled photo than it should: {agreement:.1f} dB to the '
                         f'stored result, where {AGREES:.0f} are needed; remove it and get it again.')
    params = sum(parameter.numel() for parameter in deblurrer.net.parameters()) / 1e6
    return Trial(type(deblurrer.net).__name__, params, seconds, _psnr(blurred, sharp), _psnr(result, sharp), agreement)


def _pixels(path: Path) -> NDArray[np.float32]:
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB'), np.float32) / np.float32(255)


def _psnr(image: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    error = float(np.mean((image.astype(np.float64) - reference)**2))
    return float('inf') if error == 0 else -10 * np.log10(error)
