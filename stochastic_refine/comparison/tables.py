"""Tables of scores: which row is best, and the same table for a terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, words_of
from ..files import make_folder, to_json, write_text
from .columns import MISSING, UNRANKED_ROWS, Column, Score


@dataclass
class Row:
    """One system; ``published`` rows hold figures from a paper instead of measured ones."""

    name: str
    scores: dict[str, Score] = field(default_factory=dict)
    published: bool = False


@dataclass
class Table:
    """A table of scores.

    Args:
        title: What was evaluated on what.
        columns: What is shown, in this order, also where no row has a value.
        rows: Measured and published rows; they are printed in this order, measured ones first.
        settings: What the figures depend on: commit, protocol, checkpoints, seeds, machine; plain values.
        notes: Sentences below the table, e.g. which metric was left out and why.
    """

    title: str
    columns: list[Column]
    rows: list[Row]
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def ranks(self) -> dict[tuple[int, str], int]:
        """Best (1) and second best (2) by (index of the row, key of the column).

        Measured and published rows are ranked apart. Ranked is the value as printed; equal ones share a rank and the next
        value is the next rank. Ground truth, blurred input, missing values and columns without a better side have no rank,
        and neither has a row without competitors.
        """
        ranks = {}
        for column in self.columns:
            if column.better is None:
                continue
            for published in (False, True):
                values = {
                    index: score.rounded(column)
                    for index, row in enumerate(self.rows)
                    if row.published is published and row.name.lower() not in UNRANKED_ROWS
                    and (score := row.scores.get(column.key)) is not None and not score.missing
                }
                if len(values) < 2:
                    continue
                best = sorted(set(values.values()), reverse=column.better == 'higher')[:2]
                ranks.update({(index, column.key): best.index(value) + 1 for index, value in values.items() if value in best})
        return ranks

    def to_text(self) -> str:
        """Aligned text for a terminal, without the settings; ``*`` marks the best and ``'`` the second best of each column."""
        ranks = self.ranks()
        heading = ['', *(f'{column.heading} ' for column in self.columns)]
        blocks = {
            published: [[row.name, *(self._cell(row, column) + {1: '*', 2: "'"}.get(ranks.get((index, column.key)), ' ')
                                     for column in self.columns)] for index, row in self._block(published)]
            for published in (False, True)
        }
        widths = [max(map(_width, cells)) for cells in zip(heading, *blocks[False], *blocks[True])]

        def line(cells: list[str]) -> str:
            padding = [' ' * (width - _width(cell)) for cell, width in zip(cells, widths)]
            numbers = (pad + cell for cell, pad in zip(cells[1:], padding[1:]))
            return '  '.join([cells[0] + padding[0], *numbers]).rstrip()

        rule = '-' * (sum(widths) + 2 * len(self.columns))
        lines = [self.title, '', line(heading), rule, *map(line, blocks[False])]
        if blocks[True]:
            lines += [rule, 'published:', *map(line, blocks[True])]
        lines.append(rule)
        if ranks:
            lines.append("* best, ' second best, measured and published rows apart; ↑ higher is better, ↓ lower is better")
        return '\n'.join([*lines, *self.notes]) + '\n'

    def to_markdown(self) -> str:
        """GitHub's Markdown: best bold, second best underlined, published rows with a dagger."""
        ranks = self.ranks()
        marks = {None: '{}', 1: '**{}**', 2: '<ins>{}</ins>'}  # GitHub strips <u> and renders <ins> underlined
        lines = [f'**{_markdown(self.title)}**', '']
        lines.append('| | ' + ' | '.join(_markdown(column.heading) for column in self.columns) + ' |')
        lines.append('|:--|' + '--:|' * len(self.columns))
        for published in (False, True):
            for index, row in self._block(published):
                cells = [marks[ranks.get((index, column.key))].format(self._cell(row, column)) for column in self.columns]
                lines.append(f"| {_markdown(row.name)}{' †' if published else ''} | {' | '.join(cells)} |")
        legend = ['**best**, <ins>second best</ins>'] if ranks else []
        dagger = ['† published figures'] if self._has_published else []
        below = [*legend, *dagger, *map(_markdown, self.notes)]
        settings = [f'- {_markdown(line)}' for line in self._setting_lines()]
        if settings:
            settings = ['', '<details><summary>Settings</summary>', '', *settings, '', '</details>']
        return '\n'.join([*lines, '', *(f'{text}  ' for text in below), *settings]).rstrip() + '\n'

    def to_latex(self) -> str:
        r"""A ``table`` that needs the package booktabs: best ``\textbf``, second best ``\underline``, published rows last."""
        ranks = self.ranks()
        marks = {None: '%s', 1: r'\textbf{%s}', 2: r'\underline{%s}'}
        lines = [r'% needs \usepackage{booktabs}', r'\begin{table}', r'\centering', rf'\caption{{{_latex(self.title)}}}',
                 rf"\begin{{tabular}}{{l{'r' * len(self.columns)}}}", r'\toprule',
                 ' & '.join(['', *(_latex(column.heading) for column in self.columns)]) + r' \\', r'\midrule']
        for published in (False, True):
            if published and self._has_published:
                lines += [r'\midrule', rf'\multicolumn{{{len(self.columns) + 1}}}{{l}}{{\emph{{published:}}}} \\']
            for index, row in self._block(published):
                cells = [marks[ranks.get((index, column.key))] % _latex(self._cell(row, column)) for column in self.columns]
                lines.append(' & '.join([_latex(row.name), *cells]) + r' \\')
        lines += [r'\bottomrule', r'\end{tabular}']
        lines += [rf'\par{{\footnotesize {_latex(text)}\par}}' for text in self.notes]
        lines += [f'% {line}' for line in self._setting_lines()]
        return '\n'.join([*lines, r'\end{table}']) + '\n'

    def to_csv(self) -> str:
        """One line per row at full precision: name, published, and each column with its ``_spread``; missing ones empty."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator='\n')
        writer.writerow(['name', 'published', *(name for c in self.columns for name in (c.key, f'{c.key}_spread'))])
        for row in self.rows:
            scores = [row.scores.get(column.key, Score(math.nan)) for column in self.columns]
            writer.writerow([row.name, int(row.published), *(_csv(v) for score in scores for v in (score.mean, score.spread))])
        return stream.getvalue()

    def to_json(self) -> str:
        """Everything, as strict JSON: NaN is null, infinities are ``"inf"`` and ``"-inf"``."""
        return to_json(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Table:
        """The table that :meth:`to_json` wrote.

        Raises:
            InputError: If the text is no such table.
        """
        try:
            content = json.loads(text)
            rows = [
                Row(row['name'], {key: _score(values) for key, values in row['scores'].items()}, row['published'])
                for row in content['rows']
            ]
            columns = [Column(**column) for column in content['columns']]
            table = cls(content['title'], columns, rows, content['settings'], content['notes'])
            for part in (table, *columns, *rows, *(score for row in rows for score in row.scores.values())):
                _check(part)
            return table
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise InputError(f'This is no table in the JSON that stochastic-refine evaluate writes ({words_of(error)}); '
                             'give the table.json of an evaluation.') from error

    def write(self, folder: Path, stem: str = 'table') -> list[Path]:
        """Write ``stem``.md, .tex, .csv and .json into ``folder``, which is made if need be; returns the files.

        Raises:
            InputError: If the folder cannot be made or written.
        """
        folder = Path(folder)
        make_folder(folder)
        texts = {'.md': self.to_markdown(), '.tex': self.to_latex(), '.csv': self.to_csv(), '.json': self.to_json()}
        paths = []
        for suffix, text in texts.items():
            path = folder / f'{stem}{suffix}'
            write_text(path, text)
            paths.append(path)
        return paths

    @property
    def _has_published(self) -> bool:
        return any(row.published for row in self.rows)

    def _block(self, published: bool) -> list[tuple[int, Row]]:
        return [(index, row) for index, row in enumerate(self.rows) if row.published is published]

    def _cell(self, row: Row, column: Column) -> str:
        score = row.scores.get(column.key)
        return MISSING if score is None else score.printed(column)

    def _setting_lines(self) -> list[str]:
        return [f'{key}: {" ".join(_plain(value).split())}' for key, value in self.settings.items()]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ', '.join(f'{key} {_plain(item)}' for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ', '.join(map(_plain, value))
    return str(value)


def _width(text: str) -> int:
    """Columns that the text takes in a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in 'WF' else 1 for c in text)


def _escaped(text: str, table: Mapping[str, str]) -> str:
    return ' '.join(''.join(table.get(c, c) for c in text).split())  # a line break would end a row


_MARKDOWN = {c: f'\\{c}' for c in '\\|*_`<>[]'}
_LATEX = {
    **{c: f'\\{c}' for c in '{}$&#_%'}, '\\': r'\textbackslash{}', '^': r'\textasciicircum{}', '~': r'\textasciitilde{}',
    '<': r'\textless{}', '>': r'\textgreater{}', '∞': r'$\infty$', '±': r'$\pm$', '×': r'$\times$', '↑': r'$\uparrow$',
    '↓': r'$\downarrow$', MISSING: '--',
    '[': '{[}', ']': '{]}', '*': '{*}',  # at the start of a row, a bare one would be an argument of the \\ before it
}


def _markdown(text: str) -> str:
    return _escaped(text, _MARKDOWN)


def _latex(text: str) -> str:
    return _escaped(text, _LATEX)


def _csv(value: float | None) -> str:
    return '' if value is None or math.isnan(value) else repr(float(value))


def _check(part: Table | Column | Row | Score) -> None:
    """Raise a ValueError if a part of a table from JSON has values of a wrong type."""
    values = vars(part)
    wrong = [key for key in {'name', 'key', 'title'} & values.keys() if not isinstance(values[key], str)]
    for key, most in {'count': 10**9, 'decimals': 20, 'exact': 10**9}.items():
        if values.get(key) is not None and not (type(values[key]) is int and 0 <= values[key] <= most):
            wrong.append(key)
    if isinstance(part, Column) and (part.better not in (None, 'higher', 'lower') or part.decimals is None):
        wrong.append('better or decimals')
    if isinstance(part, Row) and not isinstance(part.published, bool):
        wrong.append('published')
    if isinstance(part, Table) and not (isinstance(part.settings, dict) and isinstance(part.notes, list)
                                        and all(isinstance(note, str) for note in part.notes)):
        wrong.append('settings or notes')
    if wrong:
        raise ValueError(f'{wrong[0]} of a {type(part).__name__.lower()} is of a wrong type')


def _score(values: Mapping[str, Any]) -> Score:
    numbers = {key: None if values[key] is None else float(values[key]) for key in ('mean', 'spread')}
    mean = math.nan if numbers['mean'] is None else numbers['mean']
    return Score(mean, numbers['spread'], values['count'], values['decimals'], values.get('exact') or 0)
