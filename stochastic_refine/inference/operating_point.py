"""Operating points: where on the perception-distortion curve a checkpoint is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..diffusion import SAMPLERS, TAKE_ETA, NoiseSchedule
from ..errors import InputError
from ..values import nearest, refuse_unknown, shortened

#: Keys of a ``val:`` block that are BasicSR's or our models'; the others describe an operating point.
VALIDATION_KEYS = {'val_freq', 'save_img', 'metrics', 'pbar', 'suffix', 'precision', 'tile', 'score_input', 'operating_points',
                   'grids', 'crop_size'}
#: More steps or samples than anyone has a use for: a slip of the pen, or a trap in a checkpoint.
_MOST = 100_000
#: What a network's own ``sampling`` may say.
_SAMPLING_KEYS = ('sampler', 'steps', 'final_variance', 'seed', 'clamp', 'eta')


def check_tiles_and_windows(val: Mapping[str, Any]) -> None:
    """Check the keys of a ``val:`` block that say in which pieces an image is restored.

    Raises:
        InputError: Naming the first wrong one.
    """
    tile, crop_size = val.get('tile', 'auto'), val.get('crop_size')
    if tile not in (None, 'auto') and (not _is_int(tile) or tile < 1):
        raise InputError(f"val: tile must be auto, ~ or a number of pixels, got '{tile}'.")
    if not isinstance(val.get('grids', False), bool):
        raise InputError(f"val: grids must be true or false, got '{val['grids']}'.")
    if val.get('grids') and (not _is_int(crop_size) or crop_size < 16):
        raise InputError(f"val: grids needs crop_size, a whole number of pixels from 16, got '{crop_size}'.")


@dataclass(frozen=True)
class OperatingPoint:
    """Inference settings of a predict-and-refine network (Sec. 4.1).

    Args:
        sampler: ``ancestral`` (Algorithm 1), ``ddim`` or ``dpmpp_2m``.
        steps: T, network calls per sample.
        final_variance: 1 - alpha_T of the linear schedule.
        num_samples: Samples drawn per image.
        average: Whether the result is the mean of the samples (the paper's "Ours-SA") or the first of them.
        seed: Seed of the first sample; sample i has seed + i.
        eta: Share of fresh noise in ``ddim`` and ``dpmpp_2m``, 0 to 1.
        clamp: Keep each step's estimate in the valid range; off reproduces the paper.
        grid_steps: Steps of the linear schedule if it has more than ``steps``, a multiple of them: every
            ``grid_steps / steps``-th of its levels is visited, the noisiest one first. So are distilled networks sampled.
    """

    sampler: str = 'ancestral'
    steps: int = 50
    final_variance: float = 0.1
    num_samples: int = 1
    average: bool = False
    seed: int = 0
    eta: float = 0.0
    clamp: bool = False
    grid_steps: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.sampler, str) or self.sampler not in SAMPLERS:
            raise InputError(f'Unknown sampler {shortened(self.sampler)}; {nearest(str(self.sampler)[:80], SAMPLERS)}')
        for key, ok, expected in (
            ('steps', _is_int(self.steps) and 1 <= self.steps <= _MOST, f'a whole number from 1 to {_MOST}'),
            ('num_samples', _is_int(self.num_samples) and 1 <= self.num_samples <= _MOST, f'a whole number from 1 to {_MOST}'),
            ('seed', _is_int(self.seed) and 0 <= self.seed < 2**62, 'a whole number from 0, below 2^62'),
            ('final_variance', _is_number(self.final_variance) and 1e-6 <= self.final_variance < 1, 'at least 1e-6, below 1'),
            ('eta', _is_number(self.eta) and 0 <= self.eta <= 1, 'between 0 and 1'),
            ('average', isinstance(self.average, bool), 'true or false'),
            ('clamp', isinstance(self.clamp, bool), 'true or false'),
        ):
            if not ok:
                raise InputError(f'{key} must be {expected}, got {shortened(getattr(self, key))}.')
        grid = self.grid_steps
        if grid is not None and (not _is_int(grid) or not 1 <= grid <= _MOST or grid % self.steps):
            raise InputError(f'grid_steps must be a multiple of steps up to {_MOST}; got {shortened(grid)} and {self.steps}.')

    @classmethod
    def from_options(cls, options: Mapping[str, Any], where: str = 'operating point') -> OperatingPoint:
        """Build one from option keys; an unknown key is an InputError that names the nearest known ones."""
        refuse_unknown(options, [field.name for field in dataclasses.fields(cls)], where)
        try:
            return cls(**options)
        except InputError as error:
            raise InputError(f'{where}: {error}') from None

    @property
    def schedule(self) -> NoiseSchedule:
        """Its inference schedule."""
        grid = NoiseSchedule.linear(self.grid_steps or self.steps, final_variance=self.final_variance)
        return grid if self.grid_steps is None else grid.every(self.grid_steps // self.steps)

    @property
    def seeds(self) -> range:
        """One seed per sample."""
        return range(self.seed, self.seed + self.num_samples)

    @property
    def sampler_options(self) -> dict[str, float]:
        """Arguments that not every sampler takes."""
        return {'eta': self.eta} if self.sampler in TAKE_ETA else {}

    def as_options(self) -> dict[str, Any]:
        """The plain dict that :meth:`from_options` takes; without what is not set."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}


def check_sampling(network: Mapping[str, Any], where: str) -> None:
    """Check the block ``sampling`` of a network's options, if there is one: how ``net(lq)`` samples.

    Raises:
        InputError: Naming the wrong key or value.
    """
    sampling = network.get('sampling') or {}
    refuse_unknown(sampling, _SAMPLING_KEYS, f'{where}: sampling')
    OperatingPoint.from_options(sampling, f'{where}: sampling')


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or isinstance(value, float)
