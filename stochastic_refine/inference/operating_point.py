"""Operating points: where on the perception-distortion curve a checkpoint is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..archs.sampling import NATIVE, Rules, SamplingNetwork, rules_of
from ..diffusion import DIFFUSION_SAMPLERS, FLOW_SAMPLERS, TAKE_ETA, FlowSchedule, NoiseSchedule
from ..errors import InputError
from ..values import NAME, nearest, refuse_unknown, shortened

#: Keys of a ``val:`` block that are BasicSR's or our models'; the others describe an operating point.
VALIDATION_KEYS = {'val_freq', 'save_img', 'metrics', 'pbar', 'suffix', 'precision', 'tile', 'score_input', 'operating_points',
                   'grids', 'crop_size'}
#: More steps or samples than anyone has a use for: a slip of the pen, or a trap in a checkpoint.
_MOST = 100_000
#: Of a prompt; networks read the first 77 tokens or so.
_LONGEST = 2000
#: The least alpha-bar that samplers can compute with: they divide by its root, in float32.
_LEAST_SIGNAL = 1e-72
#: What a network's own ``sampling`` may say.
_SAMPLING_KEYS = ('sampler', 'steps', 'final_variance', 'last_time', 'seed', 'clamp', 'eta')
#: Settings that mean something to some samplers only, and to which; the others mean something to all.
_OWN = {**dict.fromkeys(DIFFUSION_SAMPLERS, ('final_variance', 'eta', 'grid_steps', 'clamp')),
        **dict.fromkeys(FLOW_SAMPLERS, ('last_time', 'clamp')),
        NATIVE: ('guidance_scale', 'prompt', 'negative_prompt', 'start')}
_OF_SOME = tuple(dict.fromkeys(key for keys in _OWN.values() for key in keys))


def check_tiles_and_windows(val: Mapping[str, Any]) -> None:
    """Check the keys of a ``val:`` block that say in which pieces an image is restored.

    Raises:
        InputError: Naming the first wrong one.
    """
    tile, crop_size = val.get('tile'), val.get('crop_size')
    if tile not in (None, 'auto') and (not _is_int(tile) or tile < 1):
        raise InputError(f"val: tile must be auto, ~ or a number of pixels, got '{tile}'.")
    if not isinstance(val.get('grids', False), bool):
        raise InputError(f"val: grids must be true or false, got '{val['grids']}'.")
    if val.get('grids') and not (isinstance(crop_size, int) and crop_size >= 16):
        raise InputError(f"val: grids needs crop_size, a whole number of pixels from 16, got '{crop_size}'.")


@dataclass(frozen=True)
class OperatingPoint:
    """Inference settings of a network that samples (Sec. 4.1).

    Args:
        sampler: ``ancestral`` (Algorithm 1), ``ddim`` or ``dpmpp_2m``; of a flow ``flow_euler`` or ``flow_heun``; ``native`` of
            a network that brings its own.
        steps: T, a flow's K; network calls per sample (``flow_heun`` takes 2 K - 1).
        final_variance: 1 - alpha_T of the linear schedule.
        num_samples: Samples drawn per image.
        average: Whether the result is the mean of the samples (the paper's "Ours-SA") or the first of them.
        seed: Seed of the first sample; sample i has seed + i.
        eta: Share of fresh noise in ``ddim`` and ``dpmpp_2m``, 0 to 1.
        clamp: Keep each step's estimate in the valid range; off reproduces the paper.
        grid_steps: Steps of the linear schedule if it has more than ``steps``, a multiple of them: every
            ``grid_steps / steps``-th of its levels is visited, the noisiest one first. So are distilled networks sampled.
        last_time: The time of a flow's last call, from 0 (never so many steps) to below 1; None for K even steps.
        guidance_scale: How far a network that is told what the image shows goes from what it would do untold to what it does
            so (classifier-free guidance); 1 leaves it at the latter and costs one call a step, anything else two.
        prompt, negative_prompt: What such a network is told, and what it is to keep away from; '' unless given.
        start: What a network that has the choice starts with.
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
    last_time: float | None = None
    guidance_scale: float | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    start: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.sampler, str) or self.sampler not in _OWN:
            raise InputError(f'Unknown sampler {shortened(self.sampler)}; {nearest(str(self.sampler)[:80], _OWN)}')
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
        if self.leftover_signal is not None and not self.leftover_signal >= _LEAST_SIGNAL:
            raise InputError(f'final_variance {self.final_variance} over {grid or self.steps} steps leaves a signal of '
                             f'{self.leftover_signal:.0e}, too little to compute with; lower final_variance or the steps.')
        last = self.last_time
        if last is not None and not (_is_number(last) and 0 < last < 1):
            raise InputError(f'last_time must lie between 0 and 1, both excluded, got {shortened(last)}.')
        scale = self.guidance_scale
        if scale is not None and not (_is_number(scale) and 0 <= scale <= 1000):
            raise InputError(f'guidance_scale must be a number from 0 to 1000, got {shortened(scale)}.')
        for key in ('prompt', 'negative_prompt', 'start'):
            if not (getattr(self, key) is None or isinstance(getattr(self, key), str) and len(getattr(self, key)) <= _LONGEST):
                raise InputError(f'{key} must be text of up to {_LONGEST} characters, got {shortened(getattr(self, key))}.')
        for key in ('grid_steps', 'last_time', *_OWN[NATIVE]):
            if getattr(self, key) is not None:
                self._check_meaning([key])

    @classmethod
    def from_options(cls, options: Mapping[str, Any], where: str = 'operating point') -> OperatingPoint:
        """Build one from option keys; an unknown key is an InputError that names the nearest known ones."""
        refuse_unknown(options, [field.name for field in dataclasses.fields(cls)], where)
        try:
            point = cls(**options)
            point._check_meaning(options)
            return point
        except InputError as error:
            raise InputError(f'{where}: {error}') from None

    @property
    def is_flow(self) -> bool:
        """Whether it is a flow refiner's."""
        return self.sampler in FLOW_SAMPLERS

    def _check_meaning(self, keys: Iterable[str]) -> None:
        """Raise an InputError at the first of the keys that means nothing to the sampler."""
        own = _OWN[self.sampler]
        for key in keys:
            if key in _OF_SOME and key not in own:
                raise InputError(f'{key} means nothing to the sampler {self.sampler}; leave it out (its own settings: '
                                 f'{", ".join(own)}).')

    @property
    def calls(self) -> int:
        """Calls of the denoiser per sample."""
        if self.is_guided:
            return 2 * self.steps
        return 2 * self.steps - 1 if self.sampler == 'flow_heun' else self.steps

    @property
    def is_guided(self) -> bool:
        """Whether each step takes two calls: with the prompt, and with the negative one."""
        return self.guidance_scale not in (None, 1)

    @property
    def schedule(self) -> NoiseSchedule | FlowSchedule:
        """Its inference schedule; a native sampler has one of its own."""
        if self.is_flow:
            return FlowSchedule.even(self.steps, self.last_time)
        return self._grid if self.grid_steps is None else self._grid.every(self.grid_steps // self.steps)

    @property
    def _grid(self) -> NoiseSchedule:
        return NoiseSchedule.linear(self.grid_steps or self.steps, final_variance=self.final_variance)

    @property
    def variance(self) -> float | None:
        """``final_variance`` for a table; None where it means nothing."""
        return self.final_variance if self.sampler in DIFFUSION_SAMPLERS else None

    @property
    def leftover_signal(self) -> float | None:
        """alpha-bar at T: the share of the signal that the schedule leaves there, although sampling starts from pure noise.

        None for a flow, which starts at the initial prediction, and for native samplers.
        """
        return None if self.variance is None else self._grid.alpha_bars[-1].item()

    @property
    def words(self) -> str:
        """What is done, for people."""
        drawn = f'mean of {self.num_samples} samples' if self.average and self.num_samples > 1 else 'one sample'
        return f"{drawn} of {self.calls} call{'s' if self.calls > 1 else ''}"

    @property
    def seeds(self) -> range:
        """One seed per sample."""
        return range(self.seed, self.seed + self.num_samples)

    @property
    def sampler_options(self) -> dict[str, float]:
        """Arguments that not every sampler takes."""
        return {'eta': self.eta} if self.sampler in TAKE_ETA else {}

    def changed(self, **changes: Any) -> OperatingPoint:
        """The point with some settings changed; None leaves one as it is.

        Raises:
            InputError: If a value is out of range, or means nothing to the sampler.
        """
        given = {key: value for key, value in changes.items() if value is not None}
        point = dataclasses.replace(self, **given)
        point._check_meaning(given)
        return point

    def as_options(self) -> dict[str, Any]:
        """The plain dict that :meth:`from_options` takes; without what is not set or means nothing."""
        return {key: value for key, value in dataclasses.asdict(self).items()
                if value is not None and not (key in _OF_SOME and key not in _OWN[self.sampler])}


def default_point(net: nn.Module) -> OperatingPoint:
    """Where a network is run whose checkpoint says nothing of it."""
    return OperatingPoint(**net.rules.default) if isinstance(net, SamplingNetwork) else OperatingPoint()


def operating_points_of(val: Mapping[str, Any], rules: Rules) -> dict[str, OperatingPoint]:
    """The named operating points of a ``val:`` block, for a network with these rules.

    Raises:
        InputError: If a key or a value is wrong, naming it.
    """
    named = val.get('operating_points')
    single = {key: value for key, value in val.items() if key not in VALIDATION_KEYS}
    if named is None:
        return {'sample': OperatingPoint.from_options({**rules.default, **single}, 'val')}
    if single:
        raise InputError(f"val: '{next(iter(single))}' belongs into one of the operating_points, since there are some.")
    if not isinstance(named, Mapping) or not all(isinstance(options, Mapping) for options in named.values()):
        raise InputError('val: operating_points must hold named blocks, for example {ours: {sampler: ancestral, steps: 50}}.')
    for name in named:
        if not NAME.fits(name):  # of saved images
            raise InputError(f'val: operating_points: a name must be {NAME.words}, got {shortened(name)}.')
    for name in ('initial', 'input'):
        if name in named:
            raise InputError(f"val: operating_points: '{name}' is the name of the {name}'s own scores; choose another one.")
    return {name: OperatingPoint.from_options({**rules.default, **options}, f'val: operating_points: {name}')
            for name, options in named.items()}


def check_sampling(network: Mapping[str, Any], where: str) -> None:
    """Check the block ``sampling`` of a network's options, if there is one: how ``net(lq)`` samples.

    Raises:
        InputError: Naming the wrong key or value.
    """
    if not network.get('sampling'):
        return
    sampling, rules = dict(network['sampling']), rules_of(network)
    if rules is None:  # the word means something else there
        return
    refuse_unknown(sampling, _SAMPLING_KEYS, f'{where}: sampling')
    rules.check(OperatingPoint.from_options({**rules.default, **sampling}, f'{where}: sampling'), f'{where}: sampling')


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or isinstance(value, float)
