"""One exposure, and the picture of it: the mean light of many moments, and what a camera makes of that light.

    light(p) = 1/M sum_m L(H_m p),    picture = JPEG(curve(clip(defocus * light) + noise))

with L the photo in linear light and H_m the homography from a pixel of the picture to its place in the photo at moment m.
Positions are (x, y) in pixels from the frame's centre. Works on batches and on any device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .jpeg import jpeg_artefacts

#: Waves of an object's outline around its mean radius.
WAVES = 4
#: Moments that are computed together.
_AT_ONCE = 8


@dataclass(frozen=True)
class MovingObject:
    """A soft blob of the photo that moves on its own.

    Its outline is ``radius (1 + sum_k a_k cos(k angle + phase_k))`` around ``centre``, blurred over ``softness`` pixels.

    Args:
        centre: (x, y), pixels from the frame's centre.
        radius, softness: Pixels.
        waves: (2, 4), amplitudes a_k and phases, k = 1 to 4.
        path: (M, 2), its displacement (x, y) against the scene at each moment, pixels, mean 0.
    """

    centre: tuple[float, float]
    radius: float
    softness: float
    waves: NDArray[np.float64]
    path: NDArray[np.float64]


@dataclass(frozen=True)
class Exposure:
    """One exposure of one frame.

    Args:
        motion: (M, 3, 3), the homography H_m of each moment.
        objects: What moves besides.
        defocus: Radius of the blur disc, pixels.
        highlight_gain: How many times brighter than stored a pixel at the photo's white was.
        shot_noise: Variance of the photons' noise per unit of light.
        read_noise: Standard deviation of the sensor's own noise, in units of light.
        jpeg: Quality, 1 to 100; None for none.
    """

    motion: NDArray[np.float64]
    objects: tuple[MovingObject, ...] = ()
    defocus: float = 0.0
    highlight_gain: float = 1.0
    shot_noise: float = 0.0
    read_noise: float = 0.0
    jpeg: int | None = None

    def reach(self, left: float, top: float, right: float, bottom: float) -> int:
        """How many pixels beyond a window, given from the frame's centre, its picture sees; without the defocus."""
        corners = np.array([[x, y, 1.0] for x in (left, right) for y in (top, bottom)])
        moved = np.einsum('mij,nj->mni', self.motion, corners)
        far = np.abs(moved[..., :2] / moved[..., 2:] - corners[:, :2]).max()
        return math.ceil(far + max((np.abs(thing.path).max() for thing in self.objects), default=0))


def expose(light: Tensor, exposures: Sequence[Exposure], origins: Sequence[tuple[float, float]], margin: int) -> Tensor:
    """The light that falls on the sensor in each exposure, moved, and out of focus.

    Args:
        light: Windows of photos, linear, (B, C, h, w).
        exposures: One per window; of a batch's, each has the same number of moments.
        origins: (x, y) of each window's first pixel, from its frame's centre.
        margin: Pixels on each side that are seen but not shown; at least the exposures' ``reach``, else the window's edge
            goes on beyond it.

    Returns:
        (B, C, h - 2 margin, w - 2 margin), not clipped.
    """
    batch, _, height, width = light.shape
    gains = light.new_tensor([exposure.highlight_gain for exposure in exposures])
    if bool((gains > 1).any()):
        white = light.amax(1, keepdim=True).sub(0.8).div(0.2).clamp(0, 1)
        light = light * (1 + (gains - 1)[:, None, None, None] * white**2)
    radii = [exposure.defocus for exposure in exposures]
    rim = math.ceil(max(radii)) if max(radii) > 0 else 0
    inner = margin - rim
    x = torch.arange(inner, width - inner, device=light.device)
    y = torch.arange(inner, height - inner, device=light.device)
    shown = (len(y), len(x))
    starts = np.asarray(origins, float)
    # From a pixel of the window, (x, y, 1), to grid_sample's coordinates, -1 to 1 over the window, in double precision.
    to_frame, to_grid = np.tile(np.eye(3), (2, batch, 1, 1))
    to_frame[:, :2, 2] = starts
    to_grid[:, :2, 2] = -starts
    scale = np.diag([2 / max(width - 1, 1), 2 / max(height - 1, 1), 1.0])
    scale[:2, 2] = -1
    motion = np.stack([exposure.motion for exposure in exposures])
    to_grid = light.new_tensor(scale @ to_grid[:, None] @ motion @ to_frame[:, None], dtype=torch.float32)  # (B, M, 3, 3)
    pixels = torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x)), torch.ones(len(x) * len(y), device=light.device)])

    things = []  # what moves, with its outline as one channel more, and where to at each moment
    for named in _stacked(exposures, light):
        cover = _cover(named, _positions(light, starts))
        if bool((cover > 1e-3).any()):
            path = named['path'] * 2 / light.new_tensor([max(width - 1, 1), max(height - 1, 1)])
            things.append((torch.cat([light, cover], 1), path))

    def seen(of: Tensor, grid: Tensor) -> Tensor:
        """At each place of the grid, (B, m, h', w', 2), what lies there: (B, m, C, h', w')."""
        moments = grid.shape[1]
        of = of[:, None].expand(-1, moments, -1, -1, -1).reshape(batch * moments, *of.shape[1:])
        return F.grid_sample(of, grid.flatten(0, 1), 'bilinear', 'border', align_corners=True).unflatten(0, (batch, moments))

    total = torch.zeros(batch, light.shape[1], *shown, device=light.device, dtype=light.dtype)
    for first in range(0, motion.shape[1], _AT_ONCE):
        at = to_grid[:, first:first + _AT_ONCE] @ pixels  # (B, m, 3, h' w')
        grid = (at[:, :, :2] / at[:, :, 2:]).transpose(2, 3).unflatten(2, shown)
        moments = seen(light, grid)
        for thing, path in things:
            moved = seen(thing, grid - path[:, first:first + _AT_ONCE, None, None])
            moments = torch.lerp(moments, moved[:, :, :-1], moved[:, :, -1:])
        total += moments.sum(1)
    total /= motion.shape[1]
    return _defocused(total, radii, rim) if rim else total


def _positions(light: Tensor, starts: NDArray[np.float64]) -> Tensor:
    """(x, y) of the windows' pixels from their frames' centres, (B, 2, h, w)."""
    height, width = light.shape[-2:]
    at = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')[::-1]).to(light)
    return at + light.new_tensor(starts)[..., None, None]


def _stacked(exposures: Sequence[Exposure], like: Tensor) -> list[dict[str, Tensor]]:
    """The i-th objects of all exposures together; one that has fewer gets an object of no size."""
    count = max(len(exposure.objects) for exposure in exposures)
    still = np.zeros((len(exposures[0].motion), 2))
    nothing = MovingObject((0, 0), 0.0, 1.0, np.zeros((2, WAVES)), still)
    stacked = []
    for i in range(count):
        things = [exposure.objects[i] if i < len(exposure.objects) else nothing for exposure in exposures]
        stacked.append({
            name: like.new_tensor(np.stack([np.asarray(getattr(thing, name)) for thing in things]), dtype=torch.float32)
            for name in ('centre', 'radius', 'softness', 'waves', 'path')})
    return stacked


def _cover(thing: Mapping[str, Tensor], at: Tensor) -> Tensor:
    """How much of each place the object covers, (B, 1, H, W), 0 to 1."""
    dx, dy = (at - thing['centre'][..., None, None]).unbind(1)
    angle = torch.atan2(dy, dx)
    amplitudes, phases = thing['waves'][..., None, None].unbind(1)  # each (B, 4, 1, 1)
    outline = 1 + sum(amplitudes[:, k] * torch.cos((k + 1) * angle + phases[:, k]) for k in range(WAVES))
    radius, softness = thing['radius'][:, None, None], thing['softness'][:, None, None]
    cover = torch.sigmoid((radius * outline - torch.hypot(dx, dy)) / softness)
    return torch.where(radius > 0, cover, 0.0)[:, None]


def _defocused(light: Tensor, radii: Sequence[float], rim: int) -> Tensor:
    """Each image convolved with a disc of its radius whose edge covers pixels in part; ``rim`` pixels are lost on each side."""
    at = torch.arange(-rim, rim + 1, device=light.device, dtype=light.dtype)
    distance = torch.hypot(at[None, :], at[:, None])
    discs = (light.new_tensor(radii)[:, None, None] + 0.5 - distance).clamp(0, 1)
    discs = discs / discs.sum((1, 2), keepdim=True)
    batch, channels = light.shape[:2]
    kernels = discs.repeat_interleave(channels, 0)[:, None]
    return F.conv2d(light.reshape(1, batch * channels, *light.shape[-2:]), kernels, groups=batch * channels).reshape(
        batch, channels, light.shape[-2] - 2 * rim, light.shape[-1] - 2 * rim)


def develop(light: Tensor, exposures: Sequence[Exposure], noise: Tensor) -> Tensor:
    """The stored picture of the light on the sensor: noise, clipping, the sRGB curve, 8 bits, JPEG.

    Args:
        light: (B, 3, H, W), linear.
        exposures: One per image.
        noise: Standard normal like ``light``.

    Returns:
        (B, 3, H, W) in [0, 1], whole 8-bit values.
    """
    shot = light.new_tensor([exposure.shot_noise for exposure in exposures])[:, None, None, None]
    read = light.new_tensor([exposure.read_noise for exposure in exposures])[:, None, None, None]
    light = light.clamp(0, 1)
    light = light + (shot * light + read**2).sqrt() * noise
    stored = (linear_to_srgb_tensor(light) * 255).round() / 255
    for i, exposure in enumerate(exposures):
        if exposure.jpeg is not None:
            stored[i:i + 1] = jpeg_artefacts(stored[i:i + 1], exposure.jpeg)
    return stored


def srgb_to_linear_tensor(image: Tensor) -> Tensor:
    """:func:`~stochastic_refine.blur.operators.srgb_to_linear` for tensors."""
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055)**2.4)


def linear_to_srgb_tensor(light: Tensor) -> Tensor:
    """Inverse of :func:`srgb_to_linear_tensor`; clips to [0, 1]."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light**(1 / 2.4) - 0.055)
