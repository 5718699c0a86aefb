"""The unit of a sweep's work: one image restored and scored along one run; and the store that has each unit once.

A run is an operating point whatever its number of samples: the means of 1, 2, 4, ... samples come from one pass over the
largest number. A unit's scores are one small file, written as a whole and named by what they depend on, so that a sweep that
was killed at any moment goes on with the units that are missing, and never takes another network's scores for its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..archs.build import without_pretrained
from ..comparison.caches import are_numbers, as_numbers, read_json
from ..comparison.pairs import ImagePair
from ..comparison.provenance import code_identity
from ..comparison.restoring import load_once
from ..comparison.scoring import cache_key, metric_function
from ..comparison.systems import Network, tile_key
from ..data.recorded_png import to_pixels
from ..diffusion import TAKE_ETA
from ..errors import InputError
from ..files import write_atomically, write_json
from ..inference.operating_point import OperatingPoint
from ..inference.restorer import Restorer

#: Bytes of initial predictions that a process keeps.
INITIALS_BYTES = 2**29
_initials: dict[tuple[str, str, str], tuple[Tensor | None, float]] = {}


@dataclass(frozen=True)
class Bench:
    """What all units of a sweep share.

    Args:
        network: What restores.
        fingerprint: Its :func:`weights_fingerprint`.
        metrics: Keys of image metrics.
        device: Where the network runs.
        store: Folder of the units' files.
        setup: What times depend on, see :func:`~stochastic_refine.comparison.provenance.timing_setup`.
        saved: Folder for restored images; None to keep none.
    """

    network: Network
    fingerprint: str
    metrics: tuple[str, ...]
    device: str
    store: Path
    setup: str
    saved: Path | None = None


@dataclass(frozen=True)
class Unit:
    """One image along one run.

    Args:
        bench: What it shares with others.
        pair: Where the image is.
        key: Hash of its contents.
        run: The operating point, for one sample.
        counts: Numbers of samples whose mean is scored, rising.
    """

    bench: Bench
    pair: ImagePair
    key: str
    run: OperatingPoint
    counts: tuple[int, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What the scores depend on."""
        return {**code_identity(), 'network': self.bench.fingerprint, 'device': torch.device(self.bench.device).type,
                'image': self.key, 'run': self.run.as_options()}

    @property
    def file(self) -> Path:
        """Its file in the store."""
        name = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:32]
        return self.bench.store / name[:2] / f'{name}.json'

    def saved_image(self, count: int) -> Path:
        """Where the mean of ``count`` samples is saved."""
        return self.bench.saved / self.bench.fingerprint[:8] / cell_name(cell_of(self.run, count)) / f'{self.pair.name}.png'

    def is_done(self, record: dict[str, Any] | None) -> bool:
        """Whether a record of the store, or None, has all that is asked of this unit."""
        if record is None:
            return False
        scores = record['scores']
        if any(cache_key(metric) not in scores.get(str(count), {}) for count in self.counts for metric in self.bench.metrics):
            return False
        return self.bench.saved is None or all(self.saved_image(count).is_file() for count in self.counts)


def run_of(cell: OperatingPoint) -> OperatingPoint:
    """The run that a cell belongs to."""
    return dataclasses.replace(cell, num_samples=1, average=False)


def cell_of(run: OperatingPoint, count: int) -> OperatingPoint:
    """The cell of a run: the mean of ``count`` samples."""
    return dataclasses.replace(run, num_samples=count, average=count > 1)


def cell_name(cell: OperatingPoint) -> str:
    """A cell's name in tables and as a folder, for example ``ancestral-T10-v0.5-n8``."""
    eta = f'-eta{cell.eta:g}' if cell.sampler in TAKE_ETA else ''
    clamp = '-clamp' if cell.clamp else ''
    start = '' if cell.variance is None else f'-v{cell.final_variance:g}'
    last = '' if cell.last_time is None else f'-t{cell.last_time:g}'
    guidance = '' if cell.guidance_scale is None else f'-g{cell.guidance_scale:g}'
    return f'{cell.sampler}-T{cell.steps}{start}{last}{eta}{guidance}{clamp}-n{cell.num_samples}'


def read_unit(unit: Unit) -> dict[str, Any] | None:
    """A unit's record: ``scores[count][cache_key(metric)]``, ``seconds[count]`` and the ``setup[count]`` of these; None if
    there is none yet."""
    def fits(content: Any) -> bool:
        return (isinstance(content, dict) and isinstance(content.get('scores'), dict)
                and all(map(are_numbers, content['scores'].values())) and are_numbers(content.get('seconds'))
                and isinstance(content.get('setup'), dict)
                and content['scores'].keys() <= content['seconds'].keys() & content['setup'].keys())

    record = read_json(unit.file, fits)
    if record is not None:
        record['scores'] = {count: as_numbers(scores) for count, scores in record['scores'].items()}
    return record


def work(unit: Unit) -> None:
    """Restore and score a unit unless the store has it."""
    record = read_unit(unit)
    if unit.is_done(record):
        return
    bench = unit.bench
    restorer = Restorer(load_once(bench.network, bench.fingerprint, bench.device), precision=bench.network.precision,
                        tile=bench.network.tile, window=bench.network.window)
    lq, gt = _loaded(unit.pair)
    if gt.shape[:2] != tuple(lq.shape[-2:]):
        raise InputError(f'{unit.pair.name}: the blurred image is {lq.shape[2]}x{lq.shape[1]} pixels but its ground truth '
                         f'{gt.shape[1]}x{gt.shape[0]}; mend or remove the pair.')
    initial, initial_seconds = _initial(restorer, unit, lq)
    functions = {metric: metric_function(metric) for metric in bench.metrics}
    record = record or {**unit.identity, 'name': unit.pair.name, 'scores': {}, 'seconds': {}, 'setup': {}}
    seconds, start = initial_seconds, time.perf_counter()
    for count, image in restorer.running_means(lq, unit.run, unit.counts, initial):
        pixels = to_pixels(image)  # waits for the GPU
        seconds += time.perf_counter() - start
        restored = np.ascontiguousarray(pixels[..., ::-1])
        scores = {cache_key(metric): float(function(restored, gt)) for metric, function in functions.items()}
        record['scores'].setdefault(str(count), {}).update(scores)
        record['seconds'][str(count)], record['setup'][str(count)] = round(seconds, 4), bench.setup
        if bench.saved is not None:
            _save(unit.saved_image(count), pixels)
        start = time.perf_counter()
    write_json(unit.file, record, indent=None)


def _initial(restorer: Restorer, unit: Unit, lq: Tensor) -> tuple[Tensor | None, float]:
    """The initial prediction of an image, (3, H, W) or None, and how long it took; kept for the image's other runs."""
    key = (unit.bench.fingerprint, unit.bench.device, unit.key)
    if key not in _initials:
        start = time.perf_counter()
        initial = restorer.predict(lq)
        _initials[key] = (None if initial is None else initial.cpu(), time.perf_counter() - start)
        sizes = [0 if kept is None else kept.nbytes for kept, _ in _initials.values()]
        while sum(sizes) > INITIALS_BYTES and len(sizes) > 1:  # the oldest go first
            sizes.pop(0)
            _initials.pop(next(iter(_initials)))
    initial, seconds = _initials[key]
    return None if initial is None else initial.to(restorer.device), seconds


@lru_cache(maxsize=2)
def _loaded(pair: ImagePair) -> tuple[Tensor, NDArray[np.uint8]]:
    return pair.load()


@cache
def _key(pair: ImagePair) -> str:
    return pair.key()


def units_of(bench: Bench, pairs: Sequence[ImagePair], cells: Sequence[OperatingPoint]) -> list[Unit]:
    """The units that give the scores of these cells on these images, the cheapest runs first, an image's side by side."""
    counts = counts_of(cells)
    units = [Unit(bench, pair, _key(pair), run, tuple(sorted(counts[run]))) for pair in pairs for run in counts]
    return sorted(units, key=lambda unit: unit.run.calls * unit.counts[-1])


def counts_of(cells: Sequence[OperatingPoint]) -> dict[OperatingPoint, list[int]]:
    """The runs that these cells belong to, with the numbers of samples of each."""
    counts: dict[OperatingPoint, list[int]] = {}
    for cell in cells:
        counts.setdefault(run_of(cell), []).append(cell.num_samples)
    return counts


def weights_fingerprint(network: Network) -> str:
    """A hash of weights and options; unlike the file's hash it stays when metadata is stored in the checkpoint."""
    settings = json.dumps([without_pretrained(network.network), network.precision, tile_key(network.tile), network.window],
                          sort_keys=True)
    total = hashlib.sha256(settings.encode())
    for name, value in sorted(network.load(torch.device('cpu')).state_dict().items()):
        total.update(name.encode())
        total.update(value.contiguous().numpy().tobytes())
    return total.hexdigest()[:24]


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: Image.fromarray(pixels).save(temporary, compress_level=3))
