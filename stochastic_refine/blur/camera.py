"""Blur as cameras make it: motion that varies over the frame, moving objects, defocus, lights that clip, noise and JPEG.

During the exposure the camera shifts, rolls and tilts a little, and objects move on their own. The picture is the mean light of
M moments, each of which shows the sharp photo from where the camera was then:

    light(p) = 1/M sum_m L(H_m p),    picture = JPEG(curve(clip(defocus * light) + noise))

with L the photo in linear light and H_m the homography from a pixel of the picture to its place in the photo. Motion has mean
displacement 0, so the picture is not shifted against the photo. Positions are (x, y) in pixels from the frame's centre.

:class:`CameraBlur` says how such exposures are drawn, :class:`Exposure` is one of them, :func:`expose` and :func:`develop` make
the picture of it; these work on batches and on any device.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .jpeg import jpeg_artefacts
from .kernels import camera_shake_trajectory

#: How a path turns: settings of :func:`camera_shake_trajectory`.
PATHS = {
    'straight': {'turn': 0.005, 'impulse_rate': 0.0},
    'curved': {'turn': 0.06, 'impulse_rate': 0.2},
    'jerky': {'turn': 0.2, 'impulse_rate': 3.0},
}
#: Corners of an object's outline: waves of its radius around the centre.
_WAVES = 4
#: Moments that are computed together.
_AT_ONCE = 8
Range = tuple[float, float]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_range(value: Any, least: float, most: float) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(map(_is_number, value)) and \
        least <= value[0] <= value[1] <= most


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


@dataclass(frozen=True)
class CameraBlur:
    """How exposures are drawn. Each pair is [lowest, highest], drawn from uniformly.

    Args:
        length: Path of the camera's shift, in pixels of a frame of ``lines`` lines.
        paths: Shares of straight, curved and jerky paths.
        roll: Path that rolling the camera moves the frame's corners, in the same unit.
        tilt: Path that tilting (perspective) moves them.
        objects: Number of moving objects, whole numbers.
        object_length: Path of an object against the scene, in the same unit.
        object_size: Radius of an object as a share of the frame's shorter side.
        defocus: Radius of the blur disc, in the same unit.
        highlights: Factor on the light of pixels at the photo's white: bright lights draw streaks.
        shot_noise: Variance of the photons' noise per unit of light.
        read_noise: Standard deviation of the sensor's own noise, in units of light.
        jpeg: Quality of the stored picture, whole numbers; None for none.
        jpeg_share: Share of the pictures that are stored as JPEG.
        lines: Lines of the frame whose pixels are the unit of lengths: a photo of twice as many lines gets paths twice as long.
            None: pixels of the photo as it is.

    Raises:
        ValueError: If a setting is out of range or contradicts another.
    """

    length: Range = (0, 40)
    paths: Mapping[str, float] = dataclasses.field(default_factory=lambda: {'straight': 1, 'curved': 1, 'jerky': 1})
    roll: Range = (0, 8)
    tilt: Range = (0, 4)
    objects: Range = (0, 0)
    object_length: Range = (0, 40)
    object_size: Range = (0.1, 0.35)
    defocus: Range = (0, 0.8)
    highlights: Range = (1, 4)
    shot_noise: Range = (0, 4e-4)
    read_noise: Range = (0, 6e-4)
    jpeg: Range | None = (75, 98)
    jpeg_share: float = 0.4
    lines: float | None = 720

    def __post_init__(self) -> None:
        limits = {'length': (0, 400), 'roll': (0, 400), 'tilt': (0, 400), 'objects': (0, 8), 'object_length': (0, 400),
                  'object_size': (0.01, 1), 'defocus': (0, 10), 'highlights': (1, 100), 'shot_noise': (0, 1),
                  'read_noise': (0, 1), 'jpeg': (1, 100)}
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if name == 'jpeg' and value is None:
                continue
            if not _is_range(value, least, most):
                raise ValueError(f'{name} must be [lowest, highest] within {least} and {most}, got {value}.')
            object.__setattr__(self, name, tuple(value))
        if not isinstance(self.paths, Mapping) or not self.paths or not self.paths.keys() <= PATHS.keys() or not all(
                _is_number(share) and share >= 0 for share in self.paths.values()) or not sum(self.paths.values()) > 0:
            raise ValueError(f'paths must give shares of {", ".join(PATHS)}, e.g. {{straight: 1, curved: 2}}, '
                             f'got {self.paths}.')
        if not (_is_number(self.jpeg_share) and 0 <= self.jpeg_share <= 1):
            raise ValueError(f'jpeg_share must be between 0 and 1, got {self.jpeg_share}.')
        if self.lines is not None and not (_is_number(self.lines) and self.lines >= 1):
            raise ValueError(f'lines must be a number of lines from 1, or ~ for none, got {self.lines}.')

    @classmethod
    def from_options(cls, options: str | Mapping[str, Any]) -> CameraBlur:
        """One by the name of a preset, or ``{preset: NAME, SETTING: VALUE, ...}``; the preset is ``camera`` if not named.

        Raises:
            ValueError: If a name is unknown, a value wrong, or two settings contradict each other.
        """
        options = {'preset': options} if isinstance(options, str) else dict(options)
        preset = options.pop('preset', 'camera')
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ValueError(f"there is no preset '{preset}'; known: {', '.join(PRESETS)}.")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                raise ValueError(f"there is no setting '{name}'; known: preset, {', '.join(known)}.")
        drawn = dataclasses.replace(PRESETS[preset], **options)
        for name in ('object_length', 'object_size'):
            if name in options and drawn.objects[1] == 0:
                raise ValueError(f'{name} says how objects move, and there are none (objects: {list(drawn.objects)} with the '
                                 f'preset {preset}); give objects too, e.g. [1, 3].')
        if 'jpeg_share' in options and drawn.jpeg is None and drawn.jpeg_share > 0:
            raise ValueError('jpeg_share needs jpeg, the lowest and highest quality, e.g. [75, 95].')
        return drawn

    def scaled(self, factor: float) -> CameraBlur:
        """The same with all lengths times ``factor``."""
        scaled = {name: tuple(factor * value for value in getattr(self, name))
                  for name in ('length', 'roll', 'tilt', 'object_length', 'defocus')}
        return dataclasses.replace(self, **scaled)

    def draw(self, rng: np.random.Generator, height: int, width: int, moments: int | None = None) -> Exposure:
        """Draw an exposure of a frame of that size; None takes as many moments as the motion needs, about one per pixel."""
        unit = 1.0 if self.lines is None else height / self.lines
        corner = math.hypot(height, width) / 2
        shift, roll, tilt = (unit * rng.uniform(*bounds) for bounds in (self.length, self.roll, self.tilt))
        things = [unit * rng.uniform(*self.object_length) for _ in range(rng.integers(self.objects[0], self.objects[1] + 1))]
        moments = moments or math.ceil(shift + roll + tilt + max(things, default=0)) + 2
        motion = np.tile(np.eye(3), (moments, 1, 1))
        angle = self._path(rng, roll, moments)[:, 0] / corner
        motion[:, 0, 0] = motion[:, 1, 1] = np.cos(angle)
        motion[:, 0, 1], motion[:, 1, 0] = -np.sin(angle), np.sin(angle)
        motion[:, :2, 2] = self._path(rng, shift, moments)[:, ::-1]
        motion[:, 2, :2] = self._path(rng, tilt, moments) / corner**2
        shorter = min(height, width)
        objects = tuple(
            MovingObject(
                centre=(rng.uniform(-width / 2, width / 2), rng.uniform(-height / 2, height / 2)),
                radius=shorter * rng.uniform(*self.object_size),
                softness=unit * rng.uniform(0.5, 2),
                waves=np.stack([rng.uniform(0, 0.2, _WAVES), rng.uniform(0, 2 * np.pi, _WAVES)]),
                path=self._path(rng, length, moments)[:, ::-1]) for length in things)
        stored = self.jpeg is not None and rng.random() < self.jpeg_share
        return Exposure(
            motion, objects,
            defocus=unit * rng.uniform(*self.defocus),
            highlight_gain=rng.uniform(*self.highlights),
            shot_noise=rng.uniform(*self.shot_noise),
            read_noise=rng.uniform(*self.read_noise),
            jpeg=int(rng.integers(int(self.jpeg[0]), int(self.jpeg[1]) + 1)) if stored else None)

    def _path(self, rng: np.random.Generator, length: float, moments: int) -> NDArray[np.float64]:
        """(M, 2), (y, x)."""
        shares = np.array([self.paths.get(name, 0.0) for name in PATHS], float)
        kind = list(PATHS)[rng.choice(len(PATHS), p=shares / shares.sum())]
        path = camera_shake_trajectory(length, rng, **PATHS[kind])
        at = np.linspace(0, len(path) - 1, moments)
        path = np.stack([np.interp(at, np.arange(len(path)), axis) for axis in path.T], axis=1)
        return path - path.mean(axis=0)


#: mild: a steady hand. camera: hand-held in poor light. street: the same with traffic and people, lamps and more noise.
PRESETS = {
    'mild': CameraBlur(length=(0, 12), roll=(0, 3), tilt=(0, 1.5), defocus=(0, 0.5), highlights=(1, 2), shot_noise=(0, 1e-4),
                       read_noise=(0, 2e-4), jpeg=(85, 98)),
    'camera': CameraBlur(),
    'street': CameraBlur(objects=(1, 3), highlights=(1, 8), shot_noise=(0, 8e-4), read_noise=(0, 1e-3), jpeg=(60, 95),
                         jpeg_share=0.6),
}


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
    for thing in _stacked(exposures, light):
        cover = _cover(thing, _positions(light, starts))
        if bool((cover > 1e-3).any()):
            path = thing['path'] * 2 / light.new_tensor([max(width - 1, 1), max(height - 1, 1)])
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
    nothing = MovingObject((0, 0), 0.0, 1.0, np.zeros((2, _WAVES)), still)
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
    outline = 1 + sum(amplitudes[:, k] * torch.cos((k + 1) * angle + phases[:, k]) for k in range(_WAVES))
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
