"""``stochastic-refine sweep``: every cell of a grid of operating points scored on the same images, and what is best of them."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..archs.build import arch_class
from ..comparison.columns import COLUMNS
from ..comparison.pairs import ImagePair
from ..comparison.protocols import spread_evenly
from ..comparison.provenance import commit, machine, timing_setup
from ..comparison.restoring import load_once
from ..comparison.scoring import METRIC_NOTES, cache_key, exact_among, mean_score
from ..comparison.systems import Network
from ..data.archives import first_few
from ..errors import InputError
from ..inference.devices import process_device
from ..inference.operating_point import OperatingPoint
from ..processes import my_share, rank, run_parallel, wait_for_all, world_size
from .halving import Round, halve
from .pareto import front, pick, thin
from .result import OURS, OURS_SA, Row, SweepResult
from .units import Bench, counts_of, read_unit, run_of, units_of, weights_fingerprint, work


def sweep(network: Network,
          images: Sequence[ImagePair],
          cells: Sequence[OperatingPoint],
          metrics: Sequence[str],
          pair: tuple[str, str],
          output: Path,
          device: str = 'auto',
          halving: bool = False,
          first_images: int = 4,
          max_images: int | None = None,
          save: bool = False,
          workers: int = 1,
          path_points: int = 9) -> SweepResult:
    """Score every cell on the same images; under torchrun all processes share the work.

    Writes below ``output``: ``cells.csv``, ``cells.jsonl``, ``sweep.json``, and ``units/``, one file per image and run, so
    that what is there already is not done again.

    Args:
        network: A predict-and-refine network.
        images: The pairs.
        cells: Operating points, see :func:`~stochastic_refine.sweep.setup.grid`.
        metrics, pair: See :func:`~stochastic_refine.sweep.setup.choose_metrics`.
        output: Folder for everything written.
        device: ``auto``, ``cpu``, ``cuda``, ...
        halving: Leave cells early that are far from best, see :mod:`~stochastic_refine.sweep.halving`.
        first_images: Images of the first round of halving.
        max_images: Use so many pairs only, spread evenly.
        save: Keep the restored images under ``output/images``.
        workers: Processes on this machine.
        path_points: Most points of the path for the tradeoff knob.

    Returns:
        The outcome; equal in all processes.

    Raises:
        InputError: If the network is deterministic, or an image cannot be used.
    """
    if not cells:
        raise InputError('The grid is empty; give at least one value on each axis.')
    if not images:
        raise InputError('There are no images to sweep over; check the folders.')
    everything = len(images)
    images = spread_evenly(images, max_images)
    fingerprint = _check_network(network)
    place = process_device(device)
    bench = Bench(network, fingerprint, tuple(metrics), str(place), output / 'units', timing_setup(place, workers),
                  output / 'images' if save else None)
    net = load_once(network, fingerprint, str(place))
    for cell in cells:
        net.rules.check(cell, network.name)
    predicts = net.has_initial
    better = (COLUMNS[pair[0]].better, COLUMNS[pair[1]].better)
    rows: dict[OperatingPoint, Row] = {}

    def score(alive: Sequence[OperatingPoint], used: Sequence[ImagePair]) -> list[tuple[float, float]]:
        units = units_of(bench, used, alive)
        missing = [unit for unit in units if not unit.is_done(read_unit(unit))]
        wait_for_all()  # so that no process sees another's new results as done, which would give them other shares
        run_parallel(work, my_share(missing), workers, f'{len(alive)} cells on {len(used)} images', unit='run')
        wait_for_all()
        records: dict[OperatingPoint, list[dict[str, Any]]] = {}
        for unit in units:
            record = read_unit(unit)
            if not unit.is_done(record):  # another process did it, under another name
                raise InputError(f'The scores of {unit.pair.name} are not there: the package was changed while it swept; run '
                                 'the same command again.')
            records.setdefault(unit.run, []).append(record)
        for cell in alive:
            rows[cell] = _row(cell, records[run_of(cell)], metrics, predicts, bench.setup)
        return [(rows[cell].scores[pair[0]], rows[cell].scores[pair[1]]) for cell in alive]

    # Nested sets that stand for the whole from the first: neighbours in a folder are often frames of one scene.
    shuffled = random.Random(0).sample(list(images), len(images))
    survivors, rounds = halve(cells, shuffled, score, better, first_images if halving else len(images))
    table = [rows[cell] for cell in cells]
    for number, each in enumerate(rounds, start=1):
        for i in each.eliminated:
            table[i].eliminated = number
    complete = [table[i] for i in survivors]
    pairs = [(row.scores[pair[0]], row.scores[pair[1]]) for row in complete]
    for i in front(pairs, better):
        complete[i].on_front = True
    for axis, name in enumerate((OURS, OURS_SA)):
        best = pick(pairs, better, axis)
        if best is None:
            raise InputError(f'No cell has both scores {pair[0]} and {pair[1]}; the images are too small for one of them.')
        complete[best].picks.append(name)
    settings = {
        'network': network.record,
        'images': f'{len(images)} of {everything}: {first_few([image.name for image in images])}',
        'metrics': list(metrics),
        'notes': [METRIC_NOTES[metric] for metric in metrics if metric in METRIC_NOTES],
        'seconds': f'mean wall-clock time per image in one of {workers * world_size()} processes, without reading and scoring; '
                   'empty where all times were taken under another setup',
        'calls': 'of the network per image: steps x samples, and one for the initial prediction',
        'machine': f'{machine(place)}, {torch.get_num_threads()} threads per process with one worker',
        'commit': commit(),
    }
    path = [complete[i].cell for i in thin(pairs, better, path_points)]
    result = SweepResult(table, pair, path, _calls_made(cells, rounds, predicts),
                         _calls_of(cells) * len(images) + predicts * len(images), rounds, settings)
    if rank() == 0:
        result.write(output)
    wait_for_all()
    return result


def _check_network(network: Network) -> str:
    """The network's fingerprint; an InputError unless it has operating points."""
    kind = network.network['type']
    if not hasattr(arch_class(kind), 'begin'):
        raise InputError(f'{network.source} is a {kind}, a deterministic network without operating points; a sweep needs a '
                         'network that samples, such as a PredictRefineNet.')
    return weights_fingerprint(network)


def _row(cell: OperatingPoint, records: list[dict[str, Any]], metrics: Sequence[str], predicts: bool,
         setup: str) -> Row:
    count = str(cell.num_samples)
    values = {metric: [record['scores'][count][cache_key(metric)] for record in records] for metric in metrics}
    scores = {metric: mean_score(of_it) for metric, of_it in values.items()}
    exact = max(map(exact_among, values.values()))
    times = [record['seconds'][count] for record in records if record['setup'][count] == setup]
    seconds = statistics.fmean(times) if times else math.nan
    return Row(cell, scores, len(records), cell.calls * cell.num_samples + predicts, seconds, exact)


def _calls_of(cells: Sequence[OperatingPoint]) -> int:
    """Calls of the denoiser per image that give the scores of all these cells."""
    return sum(run.calls * max(counts) for run, counts in counts_of(cells).items())


def _calls_made(cells: Sequence[OperatingPoint], rounds: Sequence[Round], predicts: bool) -> int:
    alive, total, before = set(range(len(cells))), 0, 0
    for each in rounds:
        new = each.images - before
        total += new * (_calls_of([cells[i] for i in sorted(alive)]) + predicts)
        alive -= set(each.eliminated)
        before = each.images
    return total
