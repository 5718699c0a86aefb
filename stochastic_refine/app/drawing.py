"""Drawing samples of one photo, seed by seed, so that what is there already need not be drawn again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError, is_out_of_memory
from ..inference.deblurrer import Deblurrer, as_tensor, keep_sharp_parts
from ..inference.operating_point import OperatingPoint
from ..inference.photos import Photo

#: Samples that a GPU draws at once at most, so that stopping and progress come in between.
_AT_ONCE = 8


def batches(seeds: Sequence[int], deblurrer: Deblurrer) -> Iterator[range]:
    """Rising seeds in ranges drawn at once: one by one on a CPU, where batches gain nothing and stopping keeps most."""
    most = 1 if deblurrer.device.type == 'cpu' else _AT_ONCE
    start = 0
    while start < len(seeds):
        stop = start + 1
        while stop < min(len(seeds), start + most) and seeds[stop] == seeds[stop - 1] + 1:
            stop += 1
        yield range(seeds[start], seeds[stop - 1] + 1)
        start = stop


def predict(photo: Photo, deblurrer: Deblurrer) -> Tensor | None:
    """The initial prediction that all samples of a photo share, (3, H, W); None of networks without one."""
    return deblurrer.restorer().predict(as_tensor(photo))


def draw(photo: Photo, deblurrer: Deblurrer, drawing: OperatingPoint, seeds: range, initial: Tensor | None,
         on_call: Callable[[int, int], object]) -> tuple[list[NDArray[np.float32]], str | None]:
    """Draw the samples of some seeds; what is sharp already stays as it is, as ``restore`` leaves it.

    Args:
        photo: The photo.
        deblurrer: Which has loaded the weights.
        drawing: The operating point; its number of samples and seed do not matter.
        seeds: One for each sample.
        initial: Of :func:`predict`.
        on_call: Called as ``on_call(done, total)`` after each network call; what it raises ends the drawing.

    Returns:
        The samples, (H, W, 3), and what was cut into blended tiles, in words, or None.

    Raises:
        InputError: If the photo does not fit into memory, or the weights are broken.
    """
    lq = as_tensor(photo)
    point = dataclasses.replace(drawing, num_samples=len(seeds), seed=seeds[0])
    try:
        restored = deblurrer.restorer(on_call).restore(lq, point, keep_samples=True, initial=initial)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError('it does not fit into memory beside what is open; give fewer samples or a smaller photo.') from error
    keep_sharp_parts(restored, lq.to(deblurrer.device))
    samples = restored.image[None] if restored.samples is None else restored.samples
    return [np.ascontiguousarray(sample.movedim(0, -1).cpu().numpy()) for sample in samples], restored.tiling
