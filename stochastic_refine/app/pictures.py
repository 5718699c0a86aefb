"""Pictures that a browser is shown: reduced where they are large, in the photo's colours, with doubt laid over them."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..inference.photos import Photo

#: Larger photos are shown reduced; what is downloaded never is.
SHOWN_MEGAPIXELS = 4.0
#: Longest side of a sample among others.
SAMPLE_SIDE = 480
#: The colour of doubt, which photos hardly have.
_DOUBT = np.array([1.0, 0.0, 0.7], np.float32)


def with_doubt(image: NDArray[np.float32], std: NDArray[np.float32], opacity: float) -> tuple[NDArray[np.float32], float]:
    """Lay the standard deviation of the samples over a picture as a colour.

    Args:
        image: (H, W, 3), [0, 1].
        std: (H, W, 3), in units of the image's range.
        opacity: Of the colour where it is densest, 0 to 1.

    Returns:
        The picture, and the standard deviation (mean of the channels) that has the full colour: the 99th percentile, since
        photos differ tenfold in it, but at least one level of 255.
    """
    doubt = std.mean(axis=2, keepdims=True)
    full = max(float(np.quantile(doubt, 0.99)), 1 / 255)
    weight = np.float32(opacity) * np.clip(doubt / np.float32(full), 0, 1)
    return (1 - weight) * image + weight * _DOUBT, full


def shown_size(height: int, width: int, megapixels: float = SHOWN_MEGAPIXELS) -> tuple[int, int]:
    """(height, width) that a photo is shown at."""
    share = min((megapixels * 1e6 / (height * width))**0.5, 1.0)
    return max(round(height * share), 1), max(round(width * share), 1)


def png(image: NDArray[np.float32], like: Photo, size: tuple[int, int]) -> bytes:
    """A picture as a browser shows it: 8-bit PNG of (height, width) ``size``, in the photo's colour profile, on white where the
    photo is transparent. The same picture gives the same bytes; EXIF and other metadata stay behind."""
    if like.alpha is not None:
        image = image * like.alpha[..., None] + (1 - like.alpha[..., None])
    shown = Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))
    if size != image.shape[:2]:
        shown = shown.resize(size[::-1], Image.Resampling.LANCZOS)
    profile = None if like.icc_profile is not None and like.icc_profile[16:20] == b'GRAY' else like.icc_profile
    buffer = io.BytesIO()
    shown.save(buffer, 'PNG', compress_level=1, icc_profile=profile)  # it goes to this machine's browser: speed counts
    return buffer.getvalue()
