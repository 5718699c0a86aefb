"""Tally of a human preference study: percentages, a Bradley-Terry ranking, and how far the raters can be trusted."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..comparison.columns import Column, Score
from ..comparison.published import published_table
from ..comparison.tables import Row, Table
from ..errors import InputError
from ..files import make_folder, to_json, write_text
from .files import Rater, read_answers, read_key

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Share:
    """A count out of a total with Wilson's interval for the proportion behind it; NaN without ratings."""

    count: int
    total: int

    @property
    def percent(self) -> float:
        return 100 * self.count / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Percent, at 95 % confidence, ratings taken as independent."""
        if not self.total:
            return math.nan, math.nan
        from scipy.stats import binomtest
        interval = binomtest(self.count, self.total).proportion_ci(CONFIDENCE, method='wilson')
        return 100 * interval.low, 100 * interval.high

    @property
    def words(self) -> str:
        low, high = self.interval
        return f'{self.percent:.1f} % [{low:.1f}, {high:.1f}] of {self.total}' if self.total else 'none'


@dataclass
class Tally:
    """The result of a study.

    Attributes:
        percentages: Row over column, in percent; the paper's Table 3 below, marked as published.
        pairs: Each pair of methods with its confidence interval and number of ratings.
        ranking: Bradley-Terry strengths (natural logarithm, mean zero), best first.
        notes: What was used, rejected and left out, and why.
        record: Counts behind the tables, for JSON.
    """

    percentages: Table
    pairs: Table
    ranking: Table
    notes: list[str]
    record: dict[str, Any] = field(default_factory=dict)

    def to_text(self) -> str:
        return '\n'.join([*(table.to_text() for table in (self.percentages, self.pairs, self.ranking)), *self.notes]) + '\n'

    def write(self, folder: Path) -> list[Path]:
        """Write preference.md, .csv (pairs at full precision) and .json; returns the files."""
        make_folder(folder)
        tables = {'percentages': self.percentages, 'pairs': self.pairs, 'ranking': self.ranking}
        record = {**self.record, 'notes': self.notes, **{name: json.loads(table.to_json()) for name, table in tables.items()}}
        texts = {
            'preference.md': '\n'.join([*(table.to_markdown() for table in tables.values()),
                                        *(f'- {note}' for note in self.notes), '']),
            'preference.csv': self.pairs.to_csv(),
            'preference.json': to_json(record, indent=2),
        }
        for name, text in texts.items():
            write_text(folder / name, text)
        return [folder / name for name in texts]


def tally(files: Sequence[Path], key_path: Path, max_wrong: int = 1, resamples: int = 1000, seed: int = 0) -> Tally:
    """Count the answers of a study.

    Args:
        files: Answers as raters' browsers saved them.
        key_path: The key written beside the page.
        max_wrong: Raters with more wrong checks than this are rejected.
        resamples: Bootstrap draws of raters for the ranking's intervals.
        seed: Of the bootstrap.

    Raises:
        InputError: If a file is damaged or of another study, or nobody is left.
    """
    key = read_key(key_path)
    raters: dict[str, Rater] = {}
    rejected: list[str] = []
    for path in files:
        rater = read_answers(path, key)
        if rater.name in raters:
            rejected.append(f'{path.name}: the answers of rater {rater.name} again (first in {raters[rater.name].path.name})')
        else:
            raters[rater.name] = rater
    checks = max(sum(key['questions'][code]['kind'] == 'check' for code in sheet) for sheet in key['sheets'])
    for name, rater in list(raters.items()):
        asked = [(code, chosen) for code, _, chosen in rater.choices if key['questions'][code]['kind'] == 'check']
        wrong = sum(chosen != key['questions'][code]['answer'] for code, chosen in asked)
        if wrong > max_wrong:
            rejected.append(f'{rater.path.name}: {wrong} of {len(asked)} attention checks wrong')
            del raters[name]
    if not raters:
        raise InputError(f'No rater is left ({"; ".join(rejected)}); collect more answers, or allow more wrong checks with '
                         '--max-wrong.')

    used = list(raters.values())
    wins = np.stack([_wins(rater, key) for rater in used])
    total = wins.sum(0)
    methods = key['methods']
    pairs = [(a, b) for a, b in itertools.combinations(range(len(methods)), 2)]
    notes = [f'Used: {int(total.sum())} ratings of {len(used)} raters; {len(rejected)} of {len(files)} files rejected'
             + (f' ({"; ".join(rejected)}).' if rejected else '.')]
    notes.append(_checks_note(checks, max_wrong))
    left, agreed = _position(used, key), _agreement(used, key)
    notes.append(f'First place (left, or above) chosen in {left.words} ratings; a repeated question with swapped sides '
                 f'answered alike in {agreed.words}.')
    seconds = [value for rater in used for value in rater.seconds]
    notes.append(f'Median time per answer {statistics.median(seconds):.1f} s; {sum(rater.shrunk for rater in used)} of '
                 f'{len(seconds)} answers on crops shown smaller than they are.')
    lone = [f'{methods[a]} and {methods[b]}' for a, b in pairs if not total[a, b] + total[b, a]]
    if lone:
        notes.append(f'Never compared: {", ".join(lone)}.')

    ranking = _ranking(wins, methods, resamples, seed, notes)
    notes.append('Intervals of percentages are Wilson\'s at 95 %, ratings taken as independent; those of strengths come from '
                 f'{resamples} bootstrap draws of raters.')
    percentages, published = _percentages(total, methods, key['settings']['photos'])
    notes += published
    return Tally(percentages, _pairs(total, methods, pairs), ranking, notes, {
        'study': key['study'],
        'settings': key['settings'],
        'max_wrong': max_wrong,
        'raters': [rater.name for rater in used],
        'rejected': rejected,
        'ratings': int(total.sum()),
        'methods': methods,
        'wins': total.astype(int).tolist(),
        'first_place': [left.count, left.total],
        'repeats_alike': [agreed.count, agreed.total],
    })


def strengths(wins: np.ndarray) -> np.ndarray:
    """Bradley-Terry maximum-likelihood log-strengths with mean zero.

    Where a method, or a group of them, always or never won against the others, the likelihood has no maximum: then half a win
    is added each way to every pair that was compared.

    Args:
        wins: (methods, methods), wins of the row over the column.

    Returns:
        (methods,); NaN if the methods fall into groups that were never compared.
    """
    from scipy.sparse.csgraph import connected_components
    choix = _choix()
    if connected_components(wins + wins.T, directed=False)[0] > 1:
        return np.full(len(wins), np.nan)
    if not decided(wins):
        wins = wins + 0.5 * ((wins + wins.T) > 0)
    return choix.ilsr_pairwise_dense(wins.astype(float), max_iter=10_000).round(9) + 0.0  # without -0.0


def decided(wins: np.ndarray) -> bool:
    """Whether every method can be reached from every other one through wins, so that the likelihood has a maximum."""
    from scipy.sparse.csgraph import connected_components
    return connected_components(wins, directed=True, connection='strong')[0] == 1


def _choix():
    try:
        import choix
    except ImportError as error:
        raise InputError('Ranking needs the package choix, which is not installed; run: '
                         "pip install 'stochastic_refine[preference]'.") from error
    return choix


def _pair_choices(rater: Rater, key: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [choice for choice in rater.choices if key['questions'][choice[0]]['kind'] == 'pair']


def _wins(rater: Rater, key: dict[str, Any]) -> np.ndarray:
    """(methods, methods): wins of the row over the column; checks and repeats do not count."""
    index = {method: number for number, method in enumerate(key['methods'])}
    wins = np.zeros((len(index), len(index)))
    for code, _, chosen in _pair_choices(rater, key):
        question = key['questions'][code]
        other = question['right'] if chosen == question['left'] else question['left']
        wins[tuple(index[key['images'][image]['method']] for image in (chosen, other))] += 1
    return wins


def _position(raters: list[Rater], key: dict[str, Any]) -> Share:
    choices = [choice for rater in raters for choice in _pair_choices(rater, key)]
    return Share(sum(chosen == left for _, left, chosen in choices), len(choices))


def _agreement(raters: list[Rater], key: dict[str, Any]) -> Share:
    alike = []
    for rater in raters:
        chosen = {code: image for code, _, image in rater.choices}
        alike += [chosen[code] == chosen[key['questions'][code]['repeats']] for code in chosen
                  if key['questions'][code]['kind'] == 'repeat']
    return Share(sum(alike), len(alike))


def _checks_note(checks: int, max_wrong: int) -> str:
    if not checks:
        return 'The study has no attention checks: careless raters cannot be told.'
    from scipy.stats import binom
    return (f'A rater was rejected for more than {max_wrong} wrong of {checks} attention checks; one who guesses passes with '
            f'{100 * binom.cdf(max_wrong, checks, 0.5):.1f} % probability.')


def _percentages(wins: np.ndarray, methods: list[str], photos: int) -> tuple[Table, list[str]]:
    """Row over column, the published table's rows and columns after the measured ones."""
    try:
        published = published_table('human_preference')
    except InputError as error:  # no PyYAML
        published, notes = {'rows': {}, 'decimals': {'percent': 1}}, [f'Published figures are left out: {error}']
    else:
        source = published['source']
        notes = [f"Published rows: {source['title']}, {source['venue']}, Table {source['table']}: GoPro, "
                 f"{published['protocol']['ratings_per_pair']} ratings per pair; other raters, photos and crops than here."]
    columns = [Column(name, name, None, 1) for name in dict.fromkeys([*methods, *published['rows']])]
    share = [[Share(int(wins[a, b]), int(wins[a, b] + wins[b, a])) for b in range(len(methods))] for a in range(len(methods))]
    rows = [Row(name, {other: Score(share[a][b].percent, count=share[a][b].total) for b, other in enumerate(methods) if b != a})
            for a, name in enumerate(methods)]
    decimals = published['decimals']['percent']
    rows += [Row(name, {other: Score(value, decimals=decimals) for other, value in values.items()}, published=True)
             for name, values in published['rows'].items()]
    return Table(f'Percent of ratings that chose the row over the column, {photos} photos', columns, rows), notes


def _pairs(wins: np.ndarray, methods: list[str], pairs: list[tuple[int, int]]) -> Table:
    rows = []
    for a, b in pairs:
        if wins[b, a] > wins[a, b]:
            a, b = b, a
        share = Share(int(wins[a, b]), int(wins[a, b] + wins[b, a]))
        values = (share.percent, *share.interval, share.count, share.total)
        scores = dict(zip(('percent', 'low', 'high', 'wins', 'ratings'), map(Score, values)))
        rows.append(Row(f'{methods[a]} over {methods[b]}', scores))
    return Table('Pairs, the preferred one first; 95 % confidence interval', [
        Column('percent', 'percent', None, 1), Column('low', 'from', None, 1), Column('high', 'to', None, 1),
        Column('wins', 'wins', None, 0), Column('ratings', 'ratings', None, 0)], rows)


def _ranking(wins: np.ndarray, methods: list[str], resamples: int, seed: int, notes: list[str]) -> Table:
    """Strengths with percentile intervals over draws of raters."""
    total = wins.sum(0)
    point = strengths(total)
    low = high = np.full(len(methods), np.nan)
    if np.isnan(point).any():
        notes.append('No ranking: the methods fall into groups that were never compared with each other.')
    elif len(wins) < 2:
        notes.append('The ranking has no confidence interval: there is one rater.')
    else:
        generator = np.random.default_rng(seed)
        draws = np.stack([strengths(wins[generator.integers(len(wins), size=len(wins))].sum(0)) for _ in range(resamples)])
        known = draws[~np.isnan(draws).any(1)]
        low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
        if len(wins) < 10:
            notes.append(f'The intervals of the strengths rest on {len(wins)} raters and are too narrow.')
        if len(known) < resamples:
            notes.append(f'{resamples - len(known)} of {resamples} bootstrap draws left a method uncompared and were passed '
                         'over.')
    if not np.isnan(point).any() and not decided(total):
        notes.append('A method always or never won against the others: the Bradley-Terry strengths have no finite maximum of '
                     'likelihood and are given with half a win added each way to each pair.')
    shares = [Share(int(total[a].sum()), int(total[a].sum() + total[:, a].sum())) for a in range(len(methods))]
    order = sorted(range(len(methods)), key=lambda a: -point[a]) if not np.isnan(point).any() else range(len(methods))
    rows = [Row(methods[a], {'strength': Score(float(point[a])), 'low': Score(float(low[a])), 'high': Score(float(high[a])),
                             'wins': Score(shares[a].percent), 'ratings': Score(shares[a].total)}) for a in order]
    return Table('Bradley-Terry ranking: log-strength s, P(a over b) = 1 / (1 + exp(s_b - s_a))', [
        Column('strength', 'strength', 'higher', 2), Column('low', 'from', None, 2), Column('high', 'to', None, 2),
        Column('wins', 'wins %', None, 1), Column('ratings', 'ratings', None, 0)], rows)
