"""How blurred a photo is, so that what is sharp already can be left alone.

Blurring a sharp photo once more takes much of its gradients away, blurring a blurred one takes little (Crete et al., "The blur
effect", 2007). Motion blurs along one direction, so the measure is taken per direction, and the most blurred one counts:

    blur = max over directions d of  |d . grad(G * y)| / |d . grad y|     (root mean squares; G a Gaussian of 1.5 pixels)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: Measured on 25 photos of BSDS500, quantiles of 5 % and 95 %: sharp 0.32 to 0.56, with strokes of 3 pixels 0.50 to 0.69, of 12
#: pixels 0.63 to 0.80. Below the first a photo counts as sharp, above the second as blurred.
SHARP, BLURRED = 0.47, 0.58
_DIRECTIONS = 8
_REBLUR = 1.5  # pixels
_NEIGHBOURHOOD, _CELL = 24.0, 8  # pixels
#: Gradients weaker than this, of images in [0, 1], tell nothing about a place.
_FLAT = 0.01


def blur_measure(image: Tensor) -> float:
    """The measure over the whole image, (3, H, W), [0, 1]: near 0.4 for sharp photos, near 1 for wholly blurred ones."""
    once, twice = _directional_energies(image)
    return float((twice.mean((1, 2)) / once.mean((1, 2)).clamp(min=1e-12)).max().sqrt())


def blur_weight(image: Tensor) -> Tensor:
    """Where an image, (3, H, W), [0, 1], should be restored: (1, H, W), 0 where it is sharp to 1 where it is blurred.

    The larger of two answers: the whole image's, and that of a neighbourhood of some 24 pixels, so that an object which moved
    in front of a sharp background is restored too.
    """
    once, twice = _directional_energies(image)
    cells = [max(side // _CELL, 1) for side in once.shape[-2:]]  # a neighbourhood is smooth, so a coarse map of it will do
    near = [_blurred(F.adaptive_avg_pool2d(energies[:, None], cells), _NEIGHBOURHOOD / _CELL)[:, 0]
            for energies in (once, twice)]
    local = (near[1] / near[0].clamp(min=1e-12)).sqrt().amax(0)
    local = torch.where(near[0].mean(0) > _FLAT**2, _ramp(local), 0.0)
    whole = _ramp((twice.mean((1, 2)) / once.mean((1, 2)).clamp(min=1e-12)).max().sqrt())
    weight = torch.maximum(local, whole)[None, None]
    return F.interpolate(weight, size=image.shape[-2:], mode='bilinear', align_corners=False)[0]


def _ramp(measure: Tensor) -> Tensor:
    return ((measure - SHARP) / (BLURRED - SHARP)).clamp(0, 1)


def _directional_energies(image: Tensor) -> tuple[Tensor, Tensor]:
    """Squared gradients along each direction before and after blurring once more, (directions, H - 2, W - 2)."""
    grey = image.mean(0)[None, None]
    if min(grey.shape[-2:]) < 3:  # no gradient inside: nothing is known to be sharp
        grey = F.interpolate(grey, size=[max(side, 3) for side in grey.shape[-2:]])
    return tuple(_energies(each[0, 0]) for each in (grey, _blurred(grey, _REBLUR)))


def _energies(grey: Tensor) -> Tensor:
    x = (grey[1:-1, 2:] - grey[1:-1, :-2]) / 2
    y = (grey[2:, 1:-1] - grey[:-2, 1:-1]) / 2
    angles = [math.pi * k / _DIRECTIONS for k in range(_DIRECTIONS)]
    return torch.stack([(math.cos(angle) * x + math.sin(angle) * y)**2 for angle in angles])


def _blurred(maps: Tensor, sigma: float) -> Tensor:
    """Each of (B, 1, H, W) by a Gaussian, the edges going on beyond the image."""
    radius = max(math.ceil(3 * sigma), 1)
    at = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-at**2 / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    maps = F.conv2d(F.pad(maps, (radius, radius, 0, 0), mode='replicate'), kernel.view(1, 1, 1, -1))
    return F.conv2d(F.pad(maps, (0, 0, radius, radius), mode='replicate'), kernel.view(1, 1, -1, 1))
