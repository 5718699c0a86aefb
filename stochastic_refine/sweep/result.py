"""The outcome of a sweep: one line per cell, the fronts, the picks, and what it cost."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..comparison.columns import COLUMNS
from ..diffusion import TAKE_ETA
from ..files import to_json, write_atomically, write_json, write_text
from ..inference.operating_point import OperatingPoint
from .halving import Round
from .pareto import front
from .units import cell_name

#: The paper's names for the cell with the best perceptual score, and for that with the best distortion.
OURS, OURS_SA = 'Ours', 'Ours-SA'


@dataclass
class Row:
    """A cell with its outcome.

    Args:
        cell: The operating point.
        scores: Means over the images, by metric.
        images: How many images they are over.
        calls: Network calls per image: steps x samples, and one for the initial prediction.
        seconds: Mean wall-clock seconds per image, the initial prediction included; NaN if none was timed under this setup.
        exact: Of the images, those identical to their truth, whose infinite scores are not in the means.
        on_front: Whether no other cell is at least as good in both scores of the pair and better in one.
        picks: Of ``Ours`` and ``Ours-SA`` what it was picked as.
        eliminated: The round after which it was left, None if it was scored on all images.
    """

    cell: OperatingPoint
    scores: dict[str, float]
    images: int
    calls: int
    seconds: float
    exact: int = 0
    on_front: bool = False
    picks: list[str] = field(default_factory=list)
    eliminated: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """One line of the table."""
        cell = self.cell
        return {
            'cell': cell_name(cell), 'sampler': cell.sampler, 'steps': cell.steps, 'final_variance': cell.variance,
            'last_time': cell.last_time, 'eta': cell.eta if cell.sampler in TAKE_ETA else None, 'clamp': cell.clamp,
            'samples': cell.num_samples, 'alpha_bar_T': cell.leftover_signal,
            **{key: None if math.isnan(score) else score for key, score in self.scores.items()},
            'images': self.images, 'exact': self.exact, 'calls': self.calls,
            'seconds': None if math.isnan(self.seconds) else round(self.seconds, 4),
            'on_front': self.on_front, 'pick': ' '.join(self.picks), 'eliminated': self.eliminated,
        }


@dataclass
class SweepResult:
    """What a sweep found.

    Args:
        rows: All cells, in the grid's order.
        pair: Keys of the perceptual and of the distortion score.
        path: The front thinned to a path, most faithful first.
        calls: Network calls of all cells and images scored, whenever that was.
        full_calls: What the whole grid on all images takes.
        rounds: Rounds of elimination; one without ``--halving``.
        settings: What the scores depend on.
    """

    rows: list[Row]
    pair: tuple[str, str]
    path: list[OperatingPoint]
    calls: int
    full_calls: int
    rounds: list[Round]
    settings: dict[str, Any]

    def picked(self, name: str) -> Row:
        """The row picked as ``Ours`` or ``Ours-SA``."""
        return next(row for row in self.rows if name in row.picks)

    def write(self, output: Path) -> None:
        """Write cells.csv, cells.jsonl and sweep.json."""
        lines = [row.as_dict() for row in self.rows]
        complete = [row for row in self.rows if row.eliminated is None]
        names = [cell_name(row.cell) for row in complete]
        fronts = {
            f'{first}/{second}': [names[i] for i in front([(row.scores[first], row.scores[second]) for row in complete],
                                                          (COLUMNS[first].better, COLUMNS[second].better))]
            for first, second in itertools.combinations(complete[0].scores, 2)
        }
        summary = {
            'settings': self.settings,
            'pair': {'perceptual': self.pair[0], 'distortion': self.pair[1]},
            'picks': {name: self.picked(name).as_dict() for name in (OURS, OURS_SA)},
            'fronts': fronts,
            'path': [point.as_options() for point in self.path],
            'network_calls': {'made': self.calls, 'full_grid': self.full_calls},
            'rounds': [{**dataclasses.asdict(each), 'eliminated': [cell_name(self.rows[i].cell) for i in each.eliminated]}
                       for each in self.rounds],
        }
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(output / 'cells.csv', lambda temporary: _write_csv(temporary, lines))
        write_text(output / 'cells.jsonl', ''.join(to_json(line, indent=None) for line in lines))
        write_json(output / 'sweep.json', summary)

    def to_text(self) -> str:
        """The picks, the front and what it cost, for people."""
        perceptual, distortion = self.pair
        titles = (COLUMNS[perceptual].title, COLUMNS[distortion].title)
        lines = [f'{"cell":<34}{titles[0]:>18}{titles[1]:>10}{"abar_T":>9}{"calls":>7}{"s/image":>9}']
        for row in sorted((row for row in self.rows if row.on_front or row.picks), key=lambda row: row.scores[perceptual]):
            lines.append(f'{cell_name(row.cell):<34}{row.scores[perceptual]:>18.{COLUMNS[perceptual].decimals}f}'
                         f'{row.scores[distortion]:>10.{COLUMNS[distortion].decimals}f}{_signal(row.cell):>9}'
                         f'{row.calls:>7}{_seconds(row.seconds):>9}  {", ".join(row.picks)}'.rstrip()
                         + (f'  ({row.exact} of {row.images} images exact, not in the means)' if row.exact else ''))
        lines += self.settings.get('notes', [])
        share = self.calls / self.full_calls
        lines.append(f'Front of {len(self.rows)} cells; {self.calls} network calls, {share:.0%} of all cells on all images.')
        return '\n'.join(lines)


def _seconds(seconds: float) -> str:
    return '-' if math.isnan(seconds) else f'{seconds:.2f}'


def _signal(cell: OperatingPoint) -> str:
    return '-' if cell.leftover_signal is None else f'{cell.leftover_signal:.2g}'


def _write_csv(path: str, lines: list[dict[str, Any]]) -> None:
    with open(path, 'w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
