"""What studies of images start from: pairs of images, networks, and operating points from schedules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..archs.sampling import NATIVE, SamplingNetwork, rules_of
from ..comparison.pairs import ImagePair, pairs_of_data_folder, pairs_of_folders, pairs_of_options
from ..comparison.systems import Folders, Network, parse_system
from ..diffusion import DIFFUSION_SAMPLERS, FLOW_SAMPLERS
from ..errors import InputError
from ..inference.operating_point import OperatingPoint
from ..inference.restorer import Restorer
from ..settings.options_file import read_options_file

#: Of a schedule's text by sampler: what its second number is, and how it is written.
_FORMS = {**dict.fromkeys(DIFFUSION_SAMPLERS, ('final_variance', 'STEPS:FINAL_VARIANCE, for example 20:0.2')),
          **dict.fromkeys(FLOW_SAMPLERS, ('last_time', 'STEPS or STEPS:LAST_TIME, for example 2 or 3:0.5')),
          NATIVE: ('', 'STEPS, for example 50')}


def study_images(options: Path | None = None, data: Path | None = None, gt: Path | None = None,
                 lq: Path | None = None) -> list[ImagePair]:
    """Pairs from folders, else from the one validation or test data set of an options file.

    Args:
        options: The options file.
        data: Folder with ``target/`` (sharp) and ``input/`` (blurred).
        gt, lq: Folders of sharp and of blurred images.

    Raises:
        InputError: If nothing is given whole, or what is given cannot be used.
    """
    if data is not None:
        return pairs_of_data_folder(data)
    if gt is not None and lq is not None:
        return pairs_of_folders(gt, lq)
    if gt is not None or lq is not None or options is None:
        raise InputError('A study needs pairs of images: give --data FOLDER, --gt (sharp) and --lq (blurred), or an options '
                         'file with -opt.')
    return pairs_of_options(read_options_file(options), options)


def study_network(options: Path | None = None, weights: str | None = None, precision: str | None = None) -> Network:
    """The network of ``weights`` (``NAME=SOURCE`` or SOURCE), else that of the options file, else the bundled one.

    Raises:
        InputError: If it cannot be had, or is a folder of images.
    """
    system = parse_system(weights or (str(options) if options else 'small'))
    if isinstance(system, Folders):
        raise InputError(f"'{weights}' is a folder of images, but this study restores itself; give an options file or a "
                         'checkpoint.')
    return system if precision is None else dataclasses.replace(system, precision=precision)


def sampling_restorer(network: Network, device: torch.device) -> Restorer:
    """What draws samples with a network.

    Raises:
        InputError: If it is deterministic.
    """
    restorer = restorer_of(network, device)
    if not isinstance(restorer.net, SamplingNetwork):
        raise InputError(f'{network.name} is deterministic and draws no samples; give a predict-and-refine network with '
                         '--weights.')
    return restorer


def restorer_of(network: Network, device: torch.device) -> Restorer:
    """What restores with a network as its options say."""
    return Restorer(network.load(device), precision=network.precision, tile=network.tile, window=network.window)


def study_points(network: Network, schedules: Sequence[str] | None, usual: Sequence[str], sampler: str | None = None,
                 clamp: bool | None = None, **settings: Any) -> list[OperatingPoint]:
    """The operating points that a study asks of a network.

    Args:
        network: Whose samples are drawn; of a deterministic one, points mean nothing.
        schedules: As :func:`parse_schedule` reads them; None for ``usual`` ones, which are a diffusion's: a flow, or a network
            with a sampler of its own, has the one point that it is made for.
        sampler: None for the network's own: ``ancestral`` for a diffusion.
        clamp: None for yes, where the sampler has the choice.
        **settings: Others of :class:`~stochastic_refine.inference.operating_point.OperatingPoint`.

    Raises:
        InputError: If a schedule is none, or a setting means nothing to the network.
    """
    rules = rules_of(network.network)
    sampler = sampler or (rules.samplers[0] if rules else 'ancestral')
    if clamp is not None or sampler != NATIVE:
        settings['clamp'] = clamp is not False
    if schedules is None and sampler not in DIFFUSION_SAMPLERS:
        own = {**(rules.default if rules else {}), 'sampler': sampler, **settings}
        points = [OperatingPoint.from_options(own, network.name)]
    else:
        points = [parse_schedule(text, sampler=sampler, **settings) for text in schedules or usual]
    for point in points if rules else ():
        rules.check(point, network.name)
    return points


def parse_schedule(text: str, **settings: Any) -> OperatingPoint:
    """An operating point from ``STEPS:FINAL_VARIANCE``, e.g. ``20:0.2``, a flow's ``STEPS[:LAST_TIME]``, or ``STEPS`` of a
    network's own sampler; further settings.

    Raises:
        InputError: If the text is not of that form, a number is out of range, or a setting means nothing to the sampler.
    """
    steps, colon, value = text.partition(':')
    second, form = _FORMS.get(str(settings.get('sampler', 'ancestral')), _FORMS['ancestral'])
    try:
        numbers: dict[str, Any] = {'steps': int(steps)}
        if colon and second:
            numbers[second] = float(value)
        elif bool(colon) != (second == 'final_variance'):
            raise ValueError
    except ValueError:
        raise InputError(f"'{text}' is no schedule; write {form}.") from None
    return OperatingPoint.from_options({**numbers, **settings}, f'schedule {text}')
