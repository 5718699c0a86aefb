"""What studies start from: pairs of images, networks and schedules; and a cache that lets a stopped study go on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from .. import __version__
from ..archs.sampling import NATIVE, SamplingNetwork, rules_of
from ..comparison.caches import read_arrays
from ..comparison.pairs import ImagePair, pairs_of_data_folder, pairs_of_folders, pairs_of_options
from ..comparison.provenance import code_identity, commit, machine
from ..comparison.scoring import (
    METRIC_NOTES,
    SET_METRICS,
    cache_key,
    exact_among,
    mean_score,
    metric_function,
    parse_metrics,
    unavailable_metrics,
)
from ..comparison.systems import Folders, Network, parse_system
from ..data.recorded_png import to_pixels
from ..diffusion import DIFFUSION_SAMPLERS, FLOW_SAMPLERS
from ..errors import InputError
from ..files import write_atomically
from ..inference.operating_point import OperatingPoint
from ..inference.restorer import Restorer
from ..settings.options_file import read_options_file

#: Of a schedule's text by sampler: what its second number is, and how it is written.
_FORMS = {**dict.fromkeys(DIFFUSION_SAMPLERS, ('final_variance', 'STEPS:FINAL_VARIANCE, for example 20:0.2')),
          **dict.fromkeys(FLOW_SAMPLERS, ('last_time', 'STEPS or STEPS:LAST_TIME, for example 2 or 3:0.5')),
          NATIVE: ('', 'STEPS, for example 50')}
#: What is computed from one pair: blurred (3, H, W) in [0, 1] and sharp (H, W, 3) BGR uint8 give named numbers and arrays.
Compute = Callable[[Tensor, NDArray[np.uint8]], Mapping[str, Any]]


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


def provenance(chosen: Sequence[ImagePair], pairs: Sequence[ImagePair], device: torch.device) -> dict[str, Any]:
    """What every study writes down beside its own settings."""
    return {'images': len(chosen) if len(chosen) == len(pairs) else f'{len(chosen)} of {len(pairs)}, spread evenly',
            'version': __version__, 'commit': commit(), 'machine': machine(device)}


def known_metrics(metrics: str, words: list[str]) -> list[str]:
    """The metrics of a list joined by commas that can be had here; why another one cannot, and what must be said
    beside one's values, is added to ``words``.

    Raises:
        InputError: If one is unknown or needs a whole set of images, or none can be had.
    """
    keys = parse_metrics(metrics)
    for key in keys:
        if key in SET_METRICS:
            raise InputError(f"'{key}' is a score of whole sets of images, and a study scores single ones; leave it out of "
                             '--metrics.')
    reasons = unavailable_metrics(keys)
    words += dict.fromkeys(f'Left out: {reason}' for reason in reasons.values())
    if len(reasons) == len(keys):
        raise InputError(f'None of the metrics {metrics} can be had here: {next(iter(reasons.values()))}')
    words += [METRIC_NOTES[key] for key in keys if key in METRIC_NOTES and key not in reasons]
    return [key for key in keys if key not in reasons]


def to_bgr(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) RGB in [0, 1] as metrics take it, (H, W, 3) BGR uint8."""
    return np.ascontiguousarray(to_pixels(image.clamp(0, 1))[..., ::-1])


def scores_of(image: Tensor, gt: NDArray[np.uint8], metrics: Sequence[str]) -> dict[str, float]:
    """The scores of an image, (3, H, W) in [0, 1], by metric key."""
    restored = to_bgr(image)
    return {key: float(metric_function(key)(restored, gt)) for key in metrics}


def means_of(found: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, float]:
    """Columns of a row: each score's mean over images, and as ``..._exact`` how many infinite ones it leaves out, if any."""
    columns: dict[str, float] = {}
    for key in keys:
        values = [float(image[key]) for image in found]
        columns[key] = mean_score(values)
        if exact := exact_among(values):
            columns[f'{key}_exact'] = exact
    return columns


def each_image(pairs: Sequence[ImagePair], folder: Path, identity: Mapping[str, Any], compute: Compute,
               description: str) -> Iterator[dict[str, NDArray[Any]]]:
    """What ``compute`` gives for each pair, as arrays, from the cache where it is there already.

    Args:
        pairs: Of images.
        folder: The cache's.
        identity: Everything besides the pair, the code and the versions of packages that the result depends on; plain values,
            the keys of metrics as ``metrics``.
        compute: Called once per pair.
        description: For the progress bar.
    """
    with tqdm(pairs, desc=description, unit='image') as bar:
        for pair in bar:
            file = _cache_file(folder, pair.key(), identity)
            found = read_arrays(file)
            if found is None:
                found = {name: np.asarray(value) for name, value in compute(*pair.load()).items()}
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, lambda temporary, found=found: np.savez_compressed(temporary, **found))
            yield found


def _cache_file(folder: Path, key: str, identity: Mapping[str, Any]) -> Path:
    metrics = [cache_key(metric) for metric in identity.get('metrics', ())]
    text = json.dumps([code_identity(), key, identity, metrics], sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:32]
    return folder / name[:2] / f'{name}.npz'
