"""``stochastic-refine evaluate``: systems compared like for like in one table."""

from __future__ import annotations

import csv
import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..archs.sampling import SamplingNetwork
from ..data.archives import first_few
from ..data.image_files import count_in_words, other_files
from ..errors import InputError
from ..files import make_folder, write_atomically, write_json
from ..inference.devices import process_device
from ..metrics.distribution import frechet_distance, kernel_distance
from ..processes import rank, world_size
from .columns import COLUMNS, Score
from .complexity import Complexity, complexity, operating_cost
from .pairs import Pair, check_kind, check_same_kind, match_names
from .protocols import Protocol, pairs_of_test_set, protocol_named, spread_evenly
from .provenance import commit, machine, timing_setup, version_of
from .published import published_rows
from .restoring import load_once, read_timed_record, restore_all
from .scoring import (
    DEFAULT_METRICS,
    IMAGE_METRICS,
    METRIC_NOTES,
    SET_METRICS,
    ImageScores,
    Job,
    exact_among,
    mean_score,
    score_all,
    unavailable_metrics,
)
from .systems import Folders, Network, System, parse_system
from .tables import Row, Table

GROUND_TRUTH, INPUT = 'Ground Truth', 'input'
COSTS = ('params', 'gflops', 'seconds')
#: Parts of the names of operators whose cost is more than some operations per element.
_HEAVY = ('fft', 'einsum', 'matmul', 'bmm', 'attention', 'cumsum')


@dataclass
class _Entry:
    """What becomes a row: the images of each seed by pair name, and the network behind them if there is one."""

    row: str
    images: list[dict[str, Path]]
    network: Network | None = None
    cost: Complexity | None = None


def evaluate(systems: Sequence[str],
             gt: Path,
             lq: Path | None = None,
             protocol: str = 'folder',
             metrics: Sequence[str] = DEFAULT_METRICS,
             output: Path = Path('results/evaluate'),
             seeds: int = 1,
             workers: int = 1,
             device: str = 'auto',
             precision: str | None = None,
             max_images: int | None = None,
             tile: int | None = None) -> Table:
    """Restore where needed, score, and make the table; under torchrun all processes share the work.

    Writes below ``output``: ``table.csv|json|md|tex``, ``scores.csv`` (one line per image, seed and metric), ``images.json``
    (where the image of each row and seed is), ``restored/`` and ``cache/``. What is there already is not done again.

    Args:
        systems: ``NAME=SOURCE`` each, see :func:`~stochastic_refine.comparison.systems.parse_system`.
        gt, lq: Folders of sharp and of blurred images; ``lq`` is needed if a system is a network.
        protocol: Name of a :class:`~stochastic_refine.comparison.protocols.Protocol`.
        metrics: Keys of metrics.
        output: Folder for everything written.
        seeds: Runs of each stochastic operating point; scores are their mean, the spread their standard deviation.
        workers: Processes on this machine.
        device: ``auto``, ``cpu``, ``cuda``, ...
        precision: ``float32`` or ``bfloat16`` for all networks; None takes each one's own (``val: precision``, else float32).
        max_images: Use so many pairs only, spread evenly.
        tile: Side of tiles, pixels, for all networks; None takes each one's own (``val: tile``, else whole images).

    Returns:
        The table; equal in all processes.

    Raises:
        InputError: If inputs cannot be used; before any work as far as that can be told.
    """
    rules = protocol_named(protocol)
    parsed = [parse_system(text) for text in systems]
    given = {key: value for key, value in (('precision', precision), ('tile', tile)) if value is not None}
    parsed = [dataclasses.replace(system, **given) if isinstance(system, Network) else system for system in parsed]
    _check_names(parsed)
    if lq is None and any(isinstance(system, Network) for system in parsed):
        raise InputError('A network needs blurred images to restore; give their folder with --lq.')
    everything = pairs_of_test_set(rules, gt, lq)
    pairs = spread_evenly(everything, max_images)
    for pair in pairs:
        check_kind(pair.gt)
        if pair.lq:
            check_same_kind(pair.lq, pair.gt)
    chosen = {pair.name for pair in pairs}
    entries = [_Entry(GROUND_TRUTH, [{pair.name: pair.gt for pair in pairs}])]
    if lq:
        entries.append(_Entry(INPUT, [{pair.name: pair.lq for pair in pairs}]))
    for system in parsed:
        if isinstance(system, Folders):
            images = [match_names([pair.name for pair in everything], folder) for folder in system.folders]
            entries.append(_Entry(system.name, [{name: path for name, path in found.items() if name in chosen}
                                                for found in images]))
            for pair in pairs:
                for found in images:
                    check_same_kind(found[pair.name], pair.gt)

    make_folder(output)
    notes = [f'{folder}: passed over {count_in_words(others)}, which are no images that can be read.'
             for folder in (gt, lq) if folder and (others := other_files(folder))]
    notes += [f'{system.name}: restored in tiles ({system.tile}), which are exact for networks that see a limited '
              'neighbourhood and blended for others.'
              for system in parsed if isinstance(system, Network) and system.tile is not None]
    reasons = unavailable_metrics(metrics)
    for reason in dict.fromkeys(reasons.values()):
        notes.append(reason)
        if rank() == 0:
            print(f'Left out: {reason}', flush=True)
    notes += [METRIC_NOTES[key] for key in metrics if key in METRIC_NOTES and key not in reasons]
    main_device = process_device(device)
    for system in parsed:
        if isinstance(system, Network):
            rows = restore_all(system, pairs, output / 'restored', seeds, workers, main_device)
            costs = _complexities(system)
            for (row, folders), cost in zip(rows.items(), costs):
                images = [{pair.name: folder / f'{pair.name}.png' for pair in pairs} for folder in folders]
                entries.append(_Entry(row, images, system, cost))

    table = _score_entries(entries, pairs, rules, [key for key in metrics if key not in reasons], output, workers, notes,
                           timing_setup(main_device, workers))
    table.columns = [column for key, column in COLUMNS.items() if key in {*metrics, *COSTS}]
    table.rows += published_rows(protocol)
    table.settings = _settings(rules, gt, lq, len(pairs), len(everything), parsed, metrics, seeds, workers, main_device)
    exact = {row.name: counts for row in table.rows
             if (counts := {key: score.exact for key, score in row.scores.items() if score.exact})}
    if exact:
        table.settings['exact images, not in the means'] = exact
    if rank() == 0:
        table.write(output)
    return table


def _complexities(network: Network) -> list[Complexity]:
    """What each row of a network costs per image, in the order of its rows."""
    net = load_once(network, network.fingerprint, 'cpu')
    if not isinstance(net, SamplingNetwork):
        return [complexity(net)]
    points = list(network.points.values())
    initial = [complexity(net.parts(points[0])[0].net)] if net.has_initial else []
    return [*initial, *(operating_cost(net, point) for point in points)]


def _check_names(systems: Sequence[System]) -> None:
    names = [system.name for system in systems]
    twice = sorted({name for name in names if names.count(name) > 1 or name in (GROUND_TRUTH, INPUT)})
    if twice:
        raise InputError(f"The name '{twice[0]}' is given to more than one row; write NAME=SOURCE with names of their own.")


def _score_entries(entries: list[_Entry], pairs: list[Pair], rules: Protocol, metrics: list[str], output: Path, workers: int,
                   notes: list[str], setup: str) -> Table:
    per_image = tuple(key for key in metrics if key in IMAGE_METRICS)
    set_metrics = [key for key in metrics if key in SET_METRICS]
    lines: list[dict[str, Any]] = []
    rows, reference = [], None
    for entry in entries:
        by_seed: list[dict[str, float]] = []
        values: dict[str, list[float]] = {key: [] for key in per_image}  # of all images and seeds
        for seed, images in enumerate(entry.images):
            aligned = rules.aligned and entry.row != GROUND_TRUTH
            jobs = [Job(images[pair.name], pair.gt, per_image, bool(set_metrics), aligned, output / 'cache') for pair in pairs]
            scored = score_all(jobs, workers, f'Scoring {entry.row}')
            lines += [{'row': entry.row, 'seed': seed, 'image': pair.name, 'metric': key, 'score': value}
                      for pair, image in zip(pairs, scored) for key, value in image.scores.items()]
            means = {key: mean_score([image.scores[key] for image in scored]) for key in per_image}
            for key in per_image:
                values[key] += [image.scores[key] for image in scored]
            failed = [pair.name for pair, image in zip(pairs, scored) if image.aligned is False]
            if failed:
                notes.append(f'{entry.row}: the alignment did not converge for {len(failed)} images, scored as they are '
                             f'({first_few(failed)}).')
            if entry.row == GROUND_TRUTH:
                reference = scored
            elif set_metrics:
                means |= _set_scores(scored, reference, set_metrics, notes)
            by_seed.append(means)
        exact = {key: count for key in per_image if (count := exact_among(values[key]))}
        notes += [f'{entry.row}: {count} of {len(values[key])} images are exactly the truth, where {COLUMNS[key].title} is '
                  'infinite; its mean is over the others.' for key, count in exact.items()]
        scores = {key: _over_seeds([means[key] for means in by_seed], exact.get(key, 0)) for key in by_seed[0]}
        rows.append(Row(entry.row, {**scores, **_costs(entry, notes, setup)}))
    missing = sum(line['score'] != line['score'] for line in lines)
    if missing:
        notes.append(f'{missing} of {len(lines)} scores of single images could not be had (images too small for the metric) '
                     'and are not in the means.')
    if rank() == 0:
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(output / 'scores.csv', lambda temporary: _write_lines(temporary, lines))
        found = {entry.row: [{name: _from_run(path, output) for name, path in images.items()} for images in entry.images]
                 for entry in entries}
        write_json(output / 'images.json', found)
    return Table(f'{rules.name}, {len(pairs)} images', [], rows, {}, list(dict.fromkeys(notes)))


def _set_scores(scored: list[ImageScores], reference: list[ImageScores], metrics: list[str],
                notes: list[str]) -> dict[str, float]:
    """FID and KID between the patches of restored images and those of the ground truth."""
    ours, theirs = (np.concatenate([image.features for image in images]) for images in (scored, reference))
    if len(ours) < 2:
        notes.append(f'FID and KID need two patches of 256x240 pixels or more; there are {len(ours)}.')
        return {key: float('nan') for key in metrics}
    result = {}
    notes.append(f'FID and KID over {len(ours)} patches of 256x240 pixels (width x height), as many whole ones as fit.')
    if 'fid' in metrics:
        result['fid'] = frechet_distance(ours, theirs)
        if len(ours) < 2048:
            notes.append(f'FID from {len(ours)} patches, fewer than its 2048 features: biased upwards; compare it within this '
                         'table only.')
    if 'kid' in metrics:
        kid = kernel_distance(ours, theirs)
        result['kid'] = kid.value
        if kid.subsets == 1:
            notes.append(f'KID from one subset of all {kid.subset_size} patches, since there are fewer than 1000.')
    return result


def _over_seeds(values: list[float], exact: int) -> Score:
    spread = statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None
    return Score(mean_score(values), spread, len(values), exact=exact)


def _costs(entry: _Entry, notes: list[str], setup: str) -> dict[str, Score]:
    """Parameters, GFLOPs and seconds per image of a network's row."""
    if entry.network is None:
        return {}
    records = [read_timed_record(path) for images in entry.images for path in images.values()]
    times = [record['seconds'] for record in records if record and record.get('setup') == setup]
    if not times:
        others = dict.fromkeys(str(record.get('setup')) for record in records if record)
        notes.append(f'{entry.row}: restored before under another setup ({first_few(list(others))}), so there are no times for '
                     f'this one ({setup}); remove its folder below restored/ to measure them.')
    cost = entry.cost
    if cost.note:
        notes.append(cost.note)
    heavy = [operator for operator in cost.uncounted if any(part in operator for part in _HEAVY)]
    if heavy:
        notes.append(f'GFLOPs of {entry.network.name} leave out {", ".join(heavy)}, which mmengine does not count.')
    gflops = {} if cost.gflops is None else {'gflops': Score(cost.gflops)}
    return {'params': Score(cost.million_params), **gflops, **({'seconds': Score(statistics.median(times))} if times else {})}


def _write_lines(path: str, lines: list[dict[str, Any]]) -> None:
    with open(path, 'w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, ['row', 'seed', 'image', 'metric', 'score'])
        writer.writeheader()
        writer.writerows(lines)


def _from_run(path: Path, output: Path) -> str:
    """A path relative to the run if it is inside, so that the run can be moved; else absolute."""
    path, output = path.absolute(), output.absolute()
    return path.relative_to(output).as_posix() if path.is_relative_to(output) else str(path)


def _settings(rules: Protocol, gt: Path, lq: Path | None, used: int, there: int, systems: list[System], metrics: Sequence[str],
              seeds: int, workers: int, device: torch.device) -> dict[str, Any]:
    """Everything that the scores depend on."""
    packages = {IMAGE_METRICS[key].package for key in metrics if key in IMAGE_METRICS} | {'torch', 'basicsr', 'torch-fidelity'}
    return {
        'protocol': rules.words,
        'images': used if used == there else f'{used} of {there}, spread evenly',
        'gt': str(gt),
        'lq': str(lq) if lq else None,
        'seeds': seeds,
        'systems': {system.name: system.record for system in systems},
        'gflops': '2 x multiply-adds at 1280x720, as mmengine counts them; a sampler\'s includes every network call',
        'seconds': f'median wall-clock time per image in one of {workers * world_size()} processes, reading and writing left '
        'out',
        'machine': f'{machine(device)}, {torch.get_num_threads()} threads per process with one worker',
        'versions': {name: version_of(name) for name in sorted(packages)},
        'commit': commit(),
    }
