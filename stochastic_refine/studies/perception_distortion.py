"""The perception-distortion plot (Fig. 1): systems as points, one checkpoint's operating points as a curve.

Distortion (PSNR) runs to the right, perceptual quality upwards: what lies farther up and right is better in both. Points come
from ``stochastic-refine evaluate`` (measured and, where the protocol has them, published), the curve from a sweep's cells.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..comparison.columns import COLUMNS, UNRANKED_ROWS
from ..comparison.tables import Table
from ..errors import InputError, words_of
from ..sweep.pareto import front
from ..values import nearest
from .report import COLOURS, MARKERS, StudyReport, axis_label, check_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Perceptual metrics, the first of which that the table has is taken if none is asked for.
PERCEPTUAL = ('lpips', 'kid', 'fid', 'stlpips', 'niqe')
KINDS = ('measured', 'published', 'cell')


def perception_distortion_study(tables: Sequence[Path], output: Path, cells: Path | None = None, perception: str | None = None,
                                distortion: str = 'psnr') -> StudyReport:
    """Write ``perception_distortion.csv|json|png``; one row per point, ``pareto`` if no other of its kind beats it in both.

    Args:
        tables: Files ``table.json`` of evaluations, or their folders. All must be over the same images.
        output: Folder.
        cells: ``cells.csv`` of a sweep: one line per cell, with columns named like the metrics.
        perception, distortion: Metrics by key; by default the first perceptual metric that the tables have, and PSNR.

    Raises:
        InputError: If a file cannot be used or nothing has both metrics.
    """
    check_matplotlib()
    read = [_read_table(path) for path in tables]
    there = {key for table in read for row in table.rows for key, score in row.scores.items() if not score.missing}
    lines = _read_cells(cells) if cells else []
    there |= {key for line in lines for key in line if key in COLUMNS}
    if perception is None:
        perception = next((key for key in PERCEPTUAL if key in there), None)
    for key in (perception, distortion):
        if key not in there or key not in COLUMNS or COLUMNS[key].better is None:
            ranked = sorted(name for name in there if name in COLUMNS and COLUMNS[name].better)
            raise InputError(f"There are no scores '{key}' to plot; {nearest(str(key), ranked)}" if ranked else
                             'There are no scores to plot; give the table.json of an evaluation with --tables.')
    rows = []
    for table in read:
        for row in table.rows:
            pair = [row.scores.get(key) for key in (perception, distortion)]
            if row.name.lower() != UNRANKED_ROWS[0] and all(score is not None and math.isfinite(score.mean) for score in pair):
                rows.append({'name': row.name, 'kind': 'published' if row.published else 'measured', perception: pair[0].mean,
                             distortion: pair[1].mean})
    rows += [{'name': line['name'], 'kind': 'cell', perception: line[perception], distortion: line[distortion]}
             for line in lines if all(math.isfinite(line.get(key, math.nan)) for key in (perception, distortion))]
    if not rows:
        raise InputError(f'No system has both {perception} and {distortion}; evaluate with --metrics '
                         f'{perception},{distortion}.')
    better = (COLUMNS[perception].better, COLUMNS[distortion].better)
    for kind in KINDS:
        of_kind = [row for row in rows if row['kind'] == kind]
        along = front([(row[perception], row[distortion]) for row in of_kind], better)
        for i, row in enumerate(of_kind):
            row['pareto'] = i in along
    settings = {'tables': [str(path) for path in tables], 'cells': str(cells) if cells else None, 'perception': perception,
                'distortion': distortion, 'evaluations': [table.settings for table in read],
                'titles': [table.title for table in read]}
    words = [f"{row['name']}: {COLUMNS[distortion].title} {row[distortion]:.2f}, {COLUMNS[perception].title} "
             f"{row[perception]:.4f}{', on the front' if row['pareto'] else ''}"
             for row in rows if row['kind'] != 'cell' or row['pareto']]
    report = StudyReport('perception_distortion', rows, settings, words)
    title = ' · '.join(dict.fromkeys(table.title for table in read))
    report.write(output, {'': lambda figure: _draw(figure, rows, perception, distortion, title)})
    return report


def _read_table(path: Path) -> Table:
    file = path / 'table.json' if path.is_dir() else path
    try:
        return Table.from_json(file.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'Table {file} cannot be read ({words_of(error)}); give the table.json that stochastic-refine '
                         'evaluate writes, or its folder.') from None
    except InputError as error:
        raise InputError(f'{file}: {error}') from None


def _read_cells(path: Path) -> list[dict[str, Any]]:
    """A sweep's cells that are scored on all its images, numbers as floats; each has a name."""
    try:
        with path.open(encoding='utf-8', newline='') as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f'Cells {path} cannot be read ({words_of(error)}); give the cells.csv that stochastic-refine sweep '
                         'writes.') from None
    cells = []
    for line in lines:
        cell: dict[str, Any] = {}
        for key, value in line.items():
            try:
                cell[key] = float(value)
            except (TypeError, ValueError):
                cell[key] = value
        if line.get('eliminated'):  # scored on some of the images only
            continue
        cell['name'] = ' '.join(filter(None, (line.get('cell') or f'cell {len(cells)}', line.get('pick'))))
        cells.append({key: value for key, value in cell.items() if key not in COLUMNS or isinstance(value, float)})
    return cells


def _draw(figure: Figure, rows: list[dict[str, Any]], perception: str, distortion: str, title: str) -> None:
    figure.set_size_inches(8, 4.2)
    panel = figure.subplots()
    cells = [row for row in rows if row['kind'] == 'cell']
    if cells:
        panel.plot([row[distortion] for row in cells], [row[perception] for row in cells], '.', color='0.7',
                   label='cells of the sweep')
        along = sorted((row for row in cells if row['pareto']), key=lambda row: row[distortion])
        panel.plot([row[distortion] for row in along], [row[perception] for row in along], '-', color=COLOURS[0],
                   label='their front')
    # Names in a legend beside the panel: systems of one table often lie too close together for names at the points.
    # Later ones are smaller: a predictor frozen inside another system lies on itself.
    points = [row for row in rows if row['kind'] != 'cell']
    for i, row in enumerate(points):
        published = row['kind'] == 'published'
        colour = COLOURS[i % len(COLOURS)]
        panel.plot(row[distortion], row[perception], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)], color=colour,
                   markersize=11 - 5 * i / len(points), markerfacecolor='none' if published else colour,
                   label=row['name'] + (' (published)' if published else ''))
    for key, axis in ((perception, 'y'), (distortion, 'x')):
        if COLUMNS[key].better == 'lower':
            getattr(panel, f'invert_{axis}axis')()
    panel.margins(0.12)
    panel.set(xlabel=f'{axis_label(distortion)}: farther right is less distortion',
              ylabel=f'{axis_label(perception)}: farther up is better', title=title)
    figure.legend(loc='outside right upper', fontsize=8)
