"""Restore the blurred images of a test set with a network: each image and operating point once, over any number of processes.

A result is a PNG file that carries what it was made from, how long it took and under which setup, so that a stopped run goes on
with what is missing and never takes the result of another network or of other code for its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.recorded_png import read_record, write_recorded
from ..data.synthetic_blur_dataset import read_rgb
from ..inference.operating_point import OperatingPoint
from ..inference.restorer import Restorer
from ..processes import my_share, run_parallel, wait_for_all
from .caches import is_number
from .pairs import Pair
from .provenance import code_identity, timing_setup
from .systems import Network

#: The initial prediction's name among the results.
INITIAL = 'initial'


@dataclass(frozen=True)
class Target:
    """One result for one image: a file, and the operating point that makes it (None: initial or deterministic output)."""

    path: Path
    point: OperatingPoint | None


@dataclass(frozen=True)
class _Job:
    """Everything that one blurred image is to be restored to."""

    network: Network
    fingerprint: str
    lq: Path
    targets: tuple[Target, ...]
    device: str
    setup: str


def result_folders(network: Network, root: Path, seeds: int) -> dict[str, list[Path]]:
    """The folders of a network's results by row name: one folder per seed, a single one where nothing is random."""
    folder = root / _safe(network.name)
    if not network.points:
        return {network.name: [folder]}
    rows = {f'{network.name} ({INITIAL})': [folder / INITIAL]}
    for name in network.points:
        rows[f'{network.name} ({name})'] = [folder / _safe(name) / f'seed{k}' for k in range(seeds)]
    return rows


def restore_all(network: Network, pairs: Sequence[Pair], root: Path, seeds: int, workers: int,
                device: torch.device) -> dict[str, list[Path]]:
    """Restore every pair's blurred image; what is there already is kept.

    Args:
        network: What restores.
        pairs: The images.
        root: Folder for the results.
        seeds: Runs per operating point, with seeds of their own.
        workers: Processes on this machine.
        device: Where the network runs.

    Returns:
        The folders that :func:`result_folders` names, all of them filled by all processes.
    """
    rows = result_folders(network, root, seeds)
    with_initial = network.points and _has_predictor(network)
    if network.points and not with_initial:
        rows.pop(f'{network.name} ({INITIAL})')
    points: dict[Path, OperatingPoint | None] = {folder: None for folders in rows.values() for folder in folders}
    for name, point in network.points.items():
        for k, folder in enumerate(rows[f'{network.name} ({name})']):
            points[folder] = dataclasses.replace(point, seed=point.seed + k * point.num_samples)
    setup = timing_setup(device, workers)
    jobs = [
        _Job(network, network.fingerprint, pair.lq,
             tuple(Target(folder / f'{pair.name}.png', point) for folder, point in points.items()), str(device),
             setup)
        for pair in pairs
    ]
    run_parallel(_restore, my_share(jobs), workers, f'Restoring with {network.name}')
    wait_for_all()
    return rows


def _has_predictor(network: Network) -> bool:
    return getattr(load_once(network, network.fingerprint, 'cpu'), 'predictor', None) is not None


@lru_cache(maxsize=1)
def load_once(network: Network, fingerprint: str, device: str) -> nn.Module:
    """The network, kept from image to image."""
    return network.load(torch.device(device))


def _restore(job: _Job) -> None:
    lq_hash = hashlib.sha256(job.lq.read_bytes()).hexdigest()[:16]
    identity = {target: _identity(job, lq_hash, target) for target in job.targets}
    missing = [target for target in job.targets if not _is_done(target.path, identity[target])]
    if not missing:
        return
    restorer = Restorer(load_once(job.network, job.fingerprint, job.device), precision=job.network.precision,
                        tile=job.network.tile, window=job.network.window)
    lq = torch.tensor(read_rgb(job.lq)).permute(2, 0, 1).float() / 255
    initial, initial_seconds = _timed(restorer, lambda: restorer.predict(lq))
    for target in missing:
        if target.point is None and initial is not None:
            image, seconds = initial.clamp(0, 1), 0.0
        else:
            point = target.point or OperatingPoint()
            image, seconds = _timed(restorer, lambda point=point: restorer.restore(lq, point, initial=initial).image)
        target.path.parent.mkdir(parents=True, exist_ok=True)
        timing = {'seconds': round(initial_seconds + seconds, 4), 'setup': job.setup}
        write_recorded(target.path, image, {**identity[target], **timing})


def _timed(restorer: Restorer, call: Any) -> tuple[Any, float]:
    """A call's result and its wall-clock seconds, all work on a GPU included."""
    start = time.perf_counter()
    result = call()
    if restorer.device.type == 'cuda':
        torch.cuda.synchronize(restorer.device)
    return result, time.perf_counter() - start


def _identity(job: _Job, lq_hash: str, target: Target) -> dict[str, Any]:
    return {**code_identity(), 'network': job.fingerprint, 'device': torch.device(job.device).type, 'lq': lq_hash,
            'point': target.point.as_options() if target.point else None}


def _is_done(path: Path, identity: dict[str, Any]) -> bool:
    record = read_timed_record(path)
    return record is not None and {key: record.get(key) for key in identity} == identity


def read_timed_record(path: Path) -> dict[str, Any] | None:
    """What a restored image says of its making, with ``seconds`` under ``setup``; None for other files and missing ones."""
    record = read_record(path)
    return record if record is not None and is_number(record.get('seconds')) else None


def _safe(name: str) -> str:
    """A name as a folder's name: readable, inside its folder, and another one for each name."""
    plain = ''.join(c if c.isalnum() or c in '+-_.' else '_' for c in name)
    if plain == name and plain == plain.strip('.'):
        return plain
    return f"{plain.strip('.')}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"
