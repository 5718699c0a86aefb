"""Blur as cameras make it: motion that varies over the frame, moving objects, defocus, lights that clip, noise and JPEG.

During the exposure the camera shifts, rolls and tilts a little, and objects move on their own. :class:`CameraBlur` says how
such exposures are drawn; :mod:`~stochastic_refine.blur.exposure` makes pictures of them. Motion has mean displacement 0, so
the picture is not shifted against the photo.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .exposure import WAVES, Exposure, MovingObject
from .kernels import camera_shake_trajectory

#: How a path turns: settings of :func:`camera_shake_trajectory`.
PATHS: dict[str, dict[str, Any]] = {
    'straight': {'turn': 0.005, 'impulse_rate': 0.0},
    'curved': {'turn': 0.06, 'impulse_rate': 0.2},
    'jerky': {'turn': 0.2, 'impulse_rate': 3.0},
}
Range = tuple[float, float]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_range(value: Any, least: float, most: float) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(map(_is_number, value)) and \
        least <= value[0] <= value[1] <= most


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
        scaled: dict[str, Any] = {name: tuple(factor * value for value in getattr(self, name))
                                  for name in ('length', 'roll', 'tilt', 'object_length', 'defocus')}
        return dataclasses.replace(self, **scaled)

    def draw(self, rng: np.random.Generator, height: int, width: int, moments: int | None = None) -> Exposure:
        """Draw an exposure of a frame of that size; None takes as many moments as the motion needs, about one per pixel."""
        unit = 1.0 if self.lines is None else height / self.lines
        corner = math.hypot(height, width) / 2
        shift, roll, tilt = (unit * rng.uniform(*bounds) for bounds in (self.length, self.roll, self.tilt))
        count = rng.integers(int(self.objects[0]), int(self.objects[1]) + 1)
        things = [unit * rng.uniform(*self.object_length) for _ in range(count)]
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
                waves=np.stack([rng.uniform(0, 0.2, WAVES), rng.uniform(0, 2 * np.pi, WAVES)]),
                path=self._path(rng, length, moments)[:, ::-1]) for length in things)
        stored = self.jpeg is not None and rng.random() < self.jpeg_share
        return Exposure(
            motion, objects,
            defocus=unit * rng.uniform(*self.defocus),
            highlight_gain=rng.uniform(*self.highlights),
            shot_noise=rng.uniform(*self.shot_noise),
            read_noise=rng.uniform(*self.read_noise),
            jpeg=int(rng.integers(int(self.jpeg[0]), int(self.jpeg[1]) + 1)) if self.jpeg and stored else None)

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
