"""Networks as ONNX files, which run without PyTorch and without this package (an extra: ``.[export]``).

A file explains itself: its metadata say what goes in and comes out, where the sampler goes, and how a seed becomes noise.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .. import __version__
from ..archs import PredictRefineNet
from ..archs.predict_refine_arch import final_output
from ..archs.sampling import SamplingNetwork
from ..diffusion import FlowSchedule
from ..errors import InputError, words_of
from ..files import check_writable, make_folder, to_json, write_atomically
from ..inference.deblurrer import Deblurrer
from ..inference.operating_point import OperatingPoint, default_point

PARTS = ('predictor', 'denoiser', 'restore')
#: Of an example image, which no network's grid divides, so that a traced graph pads.
_EXAMPLE = (67, 91)
#: Steps beyond which an unrolled sampler is a graph that takes minutes to make and to load.
_MANY_STEPS = 20
#: What cannot be written at all, and what only for one size, with the reason.
_NEVER = {'EVSSM': 'its selective scan is an operator that ONNX has not'}
_FIXED = {'MAXIM': 'its blocks and cells are counted while it is traced'}
_IMAGE = 'RGB, [0, 1], float32, (batch, 3, height, width)'
_SEEDS = ('sample i of seed s has noise[k, i] = the k-th draw of torch.empty(3, height, width).normal_(generator=g), '
          'g = torch.Generator().manual_seed(s + i), on the CPU')


class _Predictor(nn.Module):
    """(B, 3, H, W) to the initial prediction, or to a deterministic network's result."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, lq: Tensor) -> Tensor:
        return final_output(self.net, self.net(lq))


class _Denoiser(nn.Module):
    """One call of :meth:`PredictRefineNet.denoise`."""

    def __init__(self, net: PredictRefineNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, r_t: Tensor, condition: Tensor, noise_level: Tensor) -> Tensor:
        return self.net.denoise(r_t, condition, noise_level)


class _Restore(nn.Module):
    """The whole sampler, unrolled; its schedule is made here, since a graph cannot."""

    def __init__(self, net: PredictRefineNet, point: OperatingPoint, clamped: bool) -> None:
        super().__init__()
        self.net = net
        self.clamped = clamped
        self.schedule = point.schedule
        self.options = {'sampler': point.sampler, 'clamp': point.clamp, **point.sampler_options}

    def forward(self, lq: Tensor, noise: Tensor) -> Tensor:
        draws = iter(noise.unbind(0))
        image = self.net.sample(lq, self.net.predict(lq), self.schedule, lambda: next(draws), **self.options)
        return image.clamp(0, 1) if self.clamped else image


def to_onnx(net_or_deblurrer: nn.Module | Deblurrer,
            path: str | Path,
            part: Literal['predictor', 'denoiser', 'restore'] = 'predictor',
            dynamic: bool = True,
            size: tuple[int, int] | None = None,
            point: str | OperatingPoint | None = None,
            **changes: Any) -> dict[str, str]:
    """Write one ONNX file, with its weights inside; float32.

    ``predictor`` maps ``lq`` to the initial prediction, or of a deterministic network to its result; ``denoiser`` maps ``r_t``,
    ``condition`` and ``noise_level`` as :meth:`PredictRefineNet.denoise` does; ``restore`` maps ``lq`` and ``noise``, (draws,
    batch, 3, height, width), to samples, with T calls of the denoiser unrolled. The output is ``image``, or ``noise`` of a
    denoiser. As in Python, a Deblurrer's samples end in [0, 1], and those of a bare network may overshoot.

    Args:
        net_or_deblurrer: Our pair, or any network that maps (B, 3, H, W) in [0, 1] to the same. It stays as it is.
        path: File to write.
        part: See above.
        dynamic: Whether batch, height and width are free; a fixed graph is of batch 1.
        size: (height, width) of the only images that a fixed graph takes.
        point: Operating point of ``restore``: a name of the Deblurrer's, or one that is made; by default the Deblurrer's first,
            or what the network's ``sampling`` says.
        **changes: Settings of the operating point to change, such as ``steps``.

    Returns:
        The metadata that stand in the file: texts by name.

    Raises:
        InputError: If a package is missing, the network has no such part, or it cannot be traced.
    """
    _require()
    if part not in PARTS:
        raise InputError(f"part must be {', '.join(PARTS)}, got '{part}'.")
    if dynamic and size is not None:
        raise InputError('A size is that of the only images that a graph takes; give dynamic=False with it.')
    check_writable(path)
    net = net_or_deblurrer.net if isinstance(net_or_deblurrer, Deblurrer) else net_or_deblurrer
    kind, samples = type(net).__name__, isinstance(net, SamplingNetwork)
    if samples and not isinstance(net, PredictRefineNet):
        raise InputError(f'{kind} has a sampler of its own, which cannot be unrolled into a graph; restore with it here.')
    if part == 'denoiser' and not samples or part == 'predictor' and samples and not net.has_initial:
        raise InputError(f'{kind} has no {part} here; export its part {"restore" if samples else "predictor"}.')
    _refuse_untraceable(net, dynamic)
    least = max(getattr(each, 'size_multiple', 1) for each in ([net.predictor, net.denoiser] if samples else [net]))
    height, width = size or (max(least + 3, _EXAMPLE[0]), max(least + 27, _EXAMPLE[1]))
    if min(height, width) < least:
        raise InputError(f'{kind} cannot be traced for {width}x{height}: its graph takes sides from {least} pixels, so pad '
                         'smaller images by reflection.')
    metadata = {'made_by': f'stochastic_refine {__version__}', 'part': part, 'network': kind, 'least_side': str(least)}
    if not dynamic:
        metadata['size'] = to_json([height, width], None).strip()
    lq = torch.rand(2 if dynamic else 1, 3, height, width)
    at = None
    if samples and part != 'predictor':
        at = _point(net_or_deblurrer, point, changes)
        metadata |= _words_of(net, at)
    elif point is not None or any(value is not None for value in changes.values()):
        raise InputError(f'A point and its settings mean nothing to the part {part} of {kind}; leave them out, or export the '
                         'part restore of a network that samples.')
    net = copy.deepcopy(net).eval().requires_grad_(False).cpu()
    if part == 'denoiser':
        module, inputs = _Denoiser(net), {'r_t': lq, 'condition': net.conditioning(lq, lq), 'noise_level': torch.rand(len(lq))}
        metadata['condition'] = (f'{net.condition}, in [-1, 1]: 2 * lq - 1, and for lq+initial 2 * initial - 1 after it along '
                                 'the channels; for none 2 * initial - 1')
    elif at is not None:
        if at.calls > _MANY_STEPS:
            warnings.warn(f'{at.calls} calls of the denoiser become a graph {at.calls} times as large as it, which takes long '
                          'to make and to load; take fewer steps, such as an operating point with dpmpp_2m, or export the '
                          "part 'denoiser' and loop over its schedule yourself.", stacklevel=2)
        module = _Restore(net, at, clamped=isinstance(net_or_deblurrer, Deblurrer))
        inputs = {'lq': lq, 'noise': torch.randn(int(metadata['draws']), *lq.shape)}
    else:
        module, inputs = _Predictor(net.predictor if samples else net), {'lq': lq}
    if 'lq' in inputs:
        metadata['lq'] = _IMAGE
    _write(module, inputs, dynamic, Path(path), metadata)
    return metadata


def _require() -> None:
    """Check that what writes ONNX files is there."""
    missing = [name for name in ('onnx', 'onnxscript') if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX files need the package {missing[0]}, which is not installed; run: pip install "
                         "'stochastic_refine[export]'.")
    if not hasattr(torch.export, 'Dim') or not hasattr(torch.export.Dim, 'DYNAMIC'):
        raise InputError(f'ONNX files with free sides need PyTorch 2.6 or later; this is {torch.__version__}.')


def _refuse_untraceable(net: nn.Module, dynamic: bool) -> None:
    """Say at once of what would fail after minutes."""
    for name in {type(module).__name__ for module in net.modules()}:
        if name in _NEVER:
            raise InputError(f'{name} cannot be written as ONNX, since {_NEVER[name]}; restore with it here.')
        if dynamic and name in _FIXED:
            raise InputError(f'{name} cannot be written as ONNX for free sides, since {_FIXED[name]}; give dynamic=False and a '
                             'size (of the command: --size).')


def _point(source: nn.Module | Deblurrer, point: str | OperatingPoint | None, changes: dict[str, Any]) -> OperatingPoint:
    if isinstance(point, OperatingPoint):
        chosen = point.changed(**changes)
    elif isinstance(source, Deblurrer):
        chosen = source.operating_point(point, **changes)
    elif point is not None:
        raise InputError(f"A bare network has no operating point '{point}'; give an OperatingPoint, or a Deblurrer.")
    else:
        chosen = OperatingPoint(**{**default_point(source).as_options(), **source.sampling}).changed(**changes)
    (source.net if isinstance(source, Deblurrer) else source).rules.check(chosen, 'ONNX')
    return chosen


def _words_of(net: PredictRefineNet, point: OperatingPoint) -> dict[str, str]:
    """Metadata of a sampler: what a host needs to walk the denoiser itself, or to make the noise of ``restore``."""
    schedule, fresh = point.schedule, point.sampler == 'ancestral' or point.eta > 0
    draws = point.steps if fresh and not isinstance(schedule, FlowSchedule) else 1
    flow = {} if net.flow is None else {'start_noise': str(net.flow.start_noise)}
    return {
        'sampler': point.sampler, 'steps': str(point.steps), 'schedule': to_json(schedule.levels, None).strip(),
        'schedule_is': 'noise_level of each step, ' + (
            'the time from 0 to 1, in the order of the calls' if flow else
            'sqrt(alpha_bar), from the last call (t = 1) to the first (t = T); alpha_bar_0 = 1'),
        'operating_point': to_json(point.as_options(), None).strip(), 'residual_scale': str(net.residual_scale), **flow,
        'noise': 'standard normal, (draws, batch, 3, height, width), float32; noise[0] is the start', 'draws': str(draws),
        'seed': str(point.seed), 'seed_rule': _SEEDS, 'samples': str(point.num_samples), 'average': str(point.average).lower(),
    }


def _write(module: nn.Module, inputs: dict[str, Tensor], dynamic: bool, path: Path, metadata: dict[str, str]) -> None:
    output = 'noise' if metadata['part'] == 'denoiser' else 'image'
    free = {1: (0, ), 4: (0, 2, 3), 5: (1, 3, 4)}  # of noise levels, images, and draws of noise
    axes = {name: dict.fromkeys(free[value.dim()], torch.export.Dim.DYNAMIC) for name, value in inputs.items()}
    try:
        with torch.no_grad(), _quiet():
            graph = torch.export.export(module, (), dict(inputs), dynamic_shapes=axes if dynamic else None, strict=False)
            # Its optimiser fails over MPRNet, and onnxruntime has one of its own
            program = torch.onnx.export(graph, (), optimize=False, verbose=False, output_names=[output])
    except Exception as error:  # the tracer's are of all kinds
        remedy = '; try a fixed size (dynamic=False)' if dynamic else ''
        words = words_of(error.__cause__ or error)
        raise InputError(f"{metadata['network']} cannot be written as ONNX: {words}{remedy}.") from error
    program.model.metadata_props.update(metadata)
    make_folder(path.parent)
    write_atomically(path, lambda temporary: program.save(temporary, external_data=False))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracer's tracebacks over inequalities that it gives up and does not need."""
    logger = logging.getLogger('torch.fx.experimental.symbolic_shapes')
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)
