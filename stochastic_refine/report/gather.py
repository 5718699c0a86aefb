"""What a report shows, gathered from the folders that ``stochastic-refine evaluate`` wrote."""

from __future__ import annotations

import csv
import filecmp
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..comparison.columns import COLUMNS, UNRANKED_ROWS
from ..comparison.protocols import spread_evenly
from ..comparison.tables import Row, Table
from ..data.archives import first_few
from ..errors import InputError, words_of

#: Per row one entry per seed: image name -> file.
Images = dict[str, list[dict[str, Path]]]
#: Per row and metric one entry per seed: image name -> score.
Scores = dict[str, dict[str, list[dict[str, float]]]]


@dataclass
class Evaluation:
    """One run, or several merged ones.

    Attributes:
        table: Its table.
        names: Images in order.
        images: Where they are; the ground truth's row is the first.
        scores: Of single images.
        cells: Points of a sweep, ``{'name': ..., 'scores': {metric: mean}}``.
        folder: Of a single run.
    """

    table: Table
    names: list[str]
    images: Images
    scores: Scores
    cells: list[dict[str, Any]] = field(default_factory=list)
    folder: Path | None = None


def read_run(folder: Path) -> Evaluation:
    """One output folder of ``stochastic-refine evaluate``.

    Raises:
        InputError: If it is none, a file of it is damaged, or images are missing.
    """
    for name in ('table.json', 'scores.csv', 'images.json'):
        if not (folder / name).is_file():
            raise InputError(f'{folder} has no {name}, so it is no finished output of stochastic-refine evaluate; run that '
                             '(again) with -o naming this folder: what is there already is not computed anew.')
    try:
        table = Table.from_json(_text(folder / 'table.json'))
    except InputError as error:
        raise InputError(f'{folder / "table.json"}: {error}') from None
    try:
        found = json.loads(_text(folder / 'images.json'))
        images = {row: [{name: folder / path for name, path in seed.items()} for seed in seeds] for row, seeds in found.items()}
        images = _truth_first(images)
        names = list(next(iter(images.values()))[0])
        unequal = [row for row, seeds in images.items() if any(seed.keys() != set(names) for seed in seeds)]
    except (ValueError, AttributeError, TypeError, StopIteration, IndexError, RecursionError) as error:
        raise InputError(f'{folder / "images.json"} is damaged ({words_of(error)}); run stochastic-refine evaluate again.'
                         ) from error
    if unequal or next(iter(images)).lower() != UNRANKED_ROWS[0]:
        raise InputError(f'{folder / "images.json"} does not name every image of {first_few(unequal) or "the ground truth"}; '
                         'run stochastic-refine evaluate again.')
    missing = [str(path) for seeds in images.values() for seed in seeds for path in seed.values() if not path.is_file()]
    if missing:
        raise InputError(f'{len(missing)} images of {folder} are missing: {first_few(missing)}; put them back or run '
                         'stochastic-refine evaluate again.')
    return Evaluation(table, names, images, _read_scores(folder / 'scores.csv'), _read_cells(folder / 'cells.jsonl'), folder)


def gather(folders: Sequence[Path], max_images: int | None = None) -> Evaluation:
    """Output folders of ``evaluate`` merged; those of ``stochastic-refine sweep`` add their cells.

    Raises:
        InputError: As of :func:`read_run` and :func:`merge_runs`.
    """
    sweeps = [folder for folder in folders if (folder / 'cells.jsonl').is_file() and not (folder / 'table.json').exists()]
    runs = [read_run(folder) for folder in folders if folder not in sweeps]
    if not runs:
        raise InputError(f'{first_few([str(folder) for folder in sweeps])} is the output of a sweep, which has no images; name '
                         'an output folder of stochastic-refine evaluate, too.')
    merged = merge_runs(runs, max_images)
    for folder in sweeps:
        merged.cells += _read_cells(folder / 'cells.jsonl')
    return merged


def merge_runs(runs: Sequence[Evaluation], max_images: int | None = None) -> Evaluation:
    """Runs over the same images as one; a row whose name is taken gets its run's name in brackets.

    Args:
        runs: At least one.
        max_images: Keep so many images, spread evenly; the table still covers all.

    Raises:
        InputError: If image sets, ground truths or protocols differ.
    """
    first = runs[0]
    merged = Evaluation(Table('', [], [], {}, []), first.names, {}, {})
    labels = _labels([run.folder for run in runs])
    for run, label in zip(runs, labels):
        _check_same_images(first, run)
        for row in run.table.rows:
            _add_row(merged, run, row, label)
        merged.cells += run.cells
    merged.images = _truth_first(merged.images)
    keys = {column.key: column for run in reversed(runs) for column in run.table.columns}
    order = list(COLUMNS)
    merged.table.columns = sorted(keys.values(), key=lambda c: order.index(c.key) if c.key in order else len(order))
    merged.table.title = ' · '.join(dict.fromkeys(run.table.title for run in runs))
    merged.table.notes = list(dict.fromkeys(note for run in runs for note in run.table.notes))
    settings = {label: run.table.settings for run, label in zip(runs, labels)}
    merged.table.settings = settings if len(runs) > 1 else first.table.settings
    if max_images is not None and max_images < len(first.names):
        merged.names = spread_evenly(first.names, max_images)
        merged.table.notes.append(f'The images shown are {max_images} of {len(first.names)}, spread evenly; the table is over '
                                  'all.')
    return merged


def _add_row(merged: Evaluation, run: Evaluation, row: Row, label: str) -> None:
    images, scores = (None, {}) if row.published else (run.images.get(row.name), run.scores.get(row.name, {}))
    there = next((other for other in merged.table.rows if other.name == row.name and other.published is row.published), None)
    if there is not None:
        if row.published and there.scores == row.scores:
            return
        if row.name.lower() in UNRANKED_ROWS and images and _same_files(images, merged.images[row.name]):
            there.scores = {**row.scores, **there.scores}
            merged.scores[row.name] = {**scores, **merged.scores[row.name]}
            return
    name = row.name if there is None else f'{row.name} [{label}]'
    merged.table.rows.append(Row(name, dict(row.scores), row.published))
    if images:
        merged.images[name], merged.scores[name] = images, scores


def _truth_first(images: Images) -> Images:
    return dict(sorted(images.items(), key=lambda item: item[0].lower() != UNRANKED_ROWS[0]))


def _check_same_images(first: Evaluation, run: Evaluation) -> None:
    if set(run.names) != set(first.names):
        apart = sorted(set(run.names) ^ set(first.names))
        raise InputError(f'{run.folder} and {first.folder} were evaluated on different images ({first_few(apart)} in one '
                         'only); report them apart, or evaluate both on the same folder.')
    protocols = [run.table.settings.get('protocol'), first.table.settings.get('protocol')]
    if protocols[0] != protocols[1]:
        raise InputError(f"{run.folder} and {first.folder} were evaluated by different protocols ('{protocols[0]}' and "
                         f"'{protocols[1]}'); report them apart.")
    truth, first_truth = next(iter(run.images.values())), next(iter(first.images.values()))
    if not _same_files(truth, first_truth):
        raise InputError(f'The ground truths of {run.folder} and {first.folder} have the same names but are different images; '
                         'report them apart, or evaluate both on the same folder.')


def _same_files(ours: list[dict[str, Path]], theirs: list[dict[str, Path]]) -> bool:
    return len(ours) == len(theirs) and all(
        one[name].samefile(other[name]) or filecmp.cmp(one[name], other[name], shallow=False)
        for one, other in zip(ours, theirs) for name in one)


def _labels(folders: Sequence[Path]) -> list[str]:
    """Short names of runs: their folders', or the whole paths where those are not distinct."""
    names = [folder.resolve().name for folder in folders]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError('A run is given twice; name each one once.')
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _read_scores(path: Path) -> Scores:
    scores: Scores = {}
    try:
        with path.open(encoding='utf-8', newline='') as file:
            for line in csv.DictReader(file):
                seeds = scores.setdefault(line['row'], {}).setdefault(line['metric'], [])
                number = int(line['seed'])
                if not 0 <= number < 10_000:
                    raise ValueError(f'seed {number}')
                seeds += [{} for _ in range(number + 1 - len(seeds))]
                seeds[number][line['image']] = float(line['score'])
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f'{path} is damaged ({words_of(error)}); run stochastic-refine evaluate again.') from error
    return scores


def _read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a sweep that were scored on all its images; [] if there was none."""
    if not path.is_file():
        return []
    try:
        lines = [json.loads(line) for line in _text(path).splitlines()]
        return [{'name': f'{line["cell"]}, {line["images"]} images',
                 'scores': {key: float(line[key]) for key in COLUMNS if line.get(key) is not None}}
                for line in lines if line['eliminated'] is None]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f'{path} is damaged ({words_of(error)}); run stochastic-refine sweep again.') from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8')
    except (OSError, ValueError) as error:
        raise InputError(f'{path} cannot be read ({words_of(error)}); run stochastic-refine evaluate again.') from error
