"""Deblurrer: photos in, sharp photos out, in three lines of Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..archs.memory_format import placed
from ..checkpoints.weights_folder import find_weights
from ..errors import InputError
from ..values import nearest
from .devices import choose_device, choose_precision
from .operating_point import OperatingPoint, default_point
from .photos import Photo, read_photo, write_photo
from .restorer import Restoration, Restorer
from .sharpness import blur_weight
from .tradeoff import check_alone, point_at, tradeoff_path
from .weights import load_network


@dataclass
class Result:
    """A restored photo. Arrays are float32, RGB, [0, 1].

    Args:
        image: The result, (H, W, 3).
        initial: The initial prediction, (H, W, 3); None for networks without one.
        samples: Every sample, (n, H, W, 3); None unless asked for.
        std: Standard deviation over the samples per pixel and channel, (H, W, 3): where the model is unsure. None with one.
        source: The photo as read, whose depth, transparency and metadata :meth:`save` keeps.
        tiling: See :class:`~stochastic_refine.inference.restorer.Restoration`; None where it is that of the whole photo.
    """

    image: NDArray[np.float32]
    initial: NDArray[np.float32] | None
    samples: NDArray[np.float32] | None
    std: NDArray[np.float32] | None
    source: Photo
    tiling: str | None = None

    def save(self, path: str | Path) -> None:
        """Write the result with the source's depth, transparency, colour profile and EXIF data."""
        write_photo(path, self.image, like=self.source)


class Deblurrer:
    """Restores photos with a trained network.

    >>> deblurrer = Deblurrer.from_pretrained('small')       # doctest: +SKIP
    >>> deblurrer('photo.jpg', samples=4).save('sharp.jpg')  # doctest: +SKIP

    Args:
        net: The network, e.g. :class:`~stochastic_refine.archs.PredictRefineNet`.
        points: Named operating points; the first is the default.
        device: ``'auto'`` (a GPU if there is one), ``'cpu'``, ``'cuda'``, ``'cuda:1'``, ``'mps'``.
        precision: ``'auto'`` (bfloat16 where the hardware computes in it), ``'float32'`` or ``'bfloat16'``.
        tile: ``'auto'`` (where a photo does not fit into the device's memory), None (never) or a tile's side in pixels. Tiling
            does not change the result of networks that see a limited neighbourhood, as ours do.
        tradeoff_points: Operating points from most faithful to most vivid, for the setting ``tradeoff``.
        window: Side of the windows that a deterministic network restores one by one, in pixels; see :class:`Restorer`.
        keep_sharp: Leave what is sharp already as it is: image and samples are blended with the photo by its
            :func:`~stochastic_refine.inference.sharpness.blur_weight`.
    """

    def __init__(self,
                 net: nn.Module,
                 points: Mapping[str, OperatingPoint] | None = None,
                 device: str = 'auto',
                 precision: str = 'auto',
                 tile: int | str | None = 'auto',
                 tradeoff_points: Sequence[OperatingPoint] = (),
                 window: int | None = None,
                 keep_sharp: bool = False) -> None:
        self.device = choose_device(device)
        self.points = dict(points or {}) or {'default': default_point(net)}
        self.precision = choose_precision(precision, self.device)
        self.tile = tile
        self.tradeoff_points = list(tradeoff_points)
        self.window = window
        self.keep_sharp = keep_sharp
        self.net = placed(net, self.device).eval()

    @classmethod
    def from_pretrained(cls, weights: str | Path = 'small', **options: Any) -> Deblurrer:
        """Load weights by name, bundled or the user's own, any file of weights whose network is known or recognised, or a
        repository or folder of the Hugging Face hub's kind; ``options`` go to the constructor.

        Raises:
            InputError: If there are no such weights, or the file cannot be used.
        """
        file = find_weights(weights)
        net, points, metadata = load_network(file)
        told = {'tradeoff_points': tradeoff_path(metadata, str(file)), 'window': metadata.get('window')}
        return cls(net, points, **{**told, **options})

    def operating_point(self, name: str | None = None, tradeoff: float | None = None, **changes: Any) -> OperatingPoint:
        """A named operating point (the first by default) with some settings changed; None leaves a setting as it is.

        Raises:
            InputError: If there is no such point, a setting is out of range, or ``tradeoff``, the knob of
                :func:`~stochastic_refine.inference.tradeoff.point_at`, comes with settings that it chooses itself.
        """
        if tradeoff is not None:
            point = point_at(self.tradeoff_points, tradeoff)
            check_alone(tradeoff, point, {'point': name, **changes})
            return point.changed(**changes)
        if name is not None and name not in self.points:
            raise InputError(f"These weights have no operating point '{name}'; {nearest(name, self.points)}")
        point = self.points[name] if name else next(iter(self.points.values()))
        return point.changed(**changes)

    def point_of(self, settings: Mapping[str, Any]) -> OperatingPoint:
        """The operating point at which a call with these settings restores: ``point``, ``samples``, ``seed``, ``steps``, ...

        Raises:
            InputError: See :meth:`operating_point`.
        """
        changes = {key: value for key, value in settings.items() if key not in ('point', 'samples')}
        return self.operating_point(settings.get('point'), num_samples=settings.get('samples'), **changes)

    def restorer(self, on_call: Callable[[int, int], object] | None = None) -> Restorer:
        """What restores tensors as this deblurrer restores photos, but for :func:`keep_sharp_parts`."""
        return Restorer(self.net, self.precision, self.tile, on_call, self.window)

    def __call__(self,
                 image: Any,
                 samples: int | None = None,
                 average: bool | None = None,
                 seed: int | None = None,
                 point: str | None = None,
                 keep_samples: bool = True,
                 on_call: Callable[[int, int], object] | None = None,
                 tradeoff: float | None = None,
                 **changes: Any) -> Result:
        """Restore one photo.

        Args:
            image: Path, PIL image, array (H, W[, C]) of uint8, uint16 or float in [0, 1], or tensor (C, H, W).
            samples: How many samples to draw; the point's number by default.
            average: Return their mean (faithful) instead of the first (vivid).
            seed: Seed of the first sample; the same seed gives the same sample.
            point: Name of an operating point of the weights.
            keep_samples: Whether the result holds every sample; without it memory does not grow with their number.
            on_call: Called as ``on_call(done, total)`` after each network call.
            tradeoff: One knob instead of a point: 0 most faithful (averaged, few steps) to 1 most vivid, along the path that
                ``stochastic-refine sweep --store`` has put into the checkpoint.
            **changes: ``sampler``, ``steps``, ``final_variance``, ``last_time``, ``eta``, ``clamp``.

        Raises:
            InputError: If the photo cannot be read or a setting is out of range.
        """
        settings = self.operating_point(point, tradeoff, num_samples=samples, average=average, seed=seed, **changes)
        photo = read_photo(image)
        lq = as_tensor(photo)
        restored = self.restorer(on_call).restore(lq, settings, keep_samples=keep_samples)
        if self.keep_sharp:
            keep_sharp_parts(restored, lq.to(self.device))
        image, initial, sampled, std = (_take_array(restored, name) for name in ('image', 'initial', 'samples', 'std'))
        return Result(image, initial, sampled, std, photo, restored.tiling)


def as_tensor(photo: Photo) -> Tensor:
    """The photo's pixels as (3, H, W), without a copy."""
    return torch.from_numpy(np.require(photo.pixels, requirements=['C', 'W'])).permute(2, 0, 1)


def keep_sharp_parts(restored: Restoration, lq: Tensor) -> None:
    """Blend image and samples with the photo, (3, H, W), where that is sharp."""
    weight = blur_weight(lq)
    for name in ('image', 'samples'):
        image = getattr(restored, name)
        if image is not None:
            setattr(restored, name, lq + weight * (image - lq))
    if restored.std is not None:
        restored.std = weight * restored.std


def _take_array(restored: Restoration, name: str) -> NDArray[np.float32] | None:
    """(..., H, W, 3) of a tensor that is dropped: a large photo is never there twice for longer than it takes to copy it."""
    image: Tensor | None = getattr(restored, name)
    setattr(restored, name, None)
    return None if image is None else np.ascontiguousarray(image.movedim(-3, -1).cpu().numpy())
