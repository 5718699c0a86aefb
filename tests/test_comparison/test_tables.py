"""Tables of scores: ranks, and what each format shows of them."""

from __future__ import annotations

import csv
import io
import json
import math
import re

import pytest

from stochastic_refine.comparison.columns import COLUMNS, Column, Score
from stochastic_refine.comparison.tables import Row, Table
from stochastic_refine.errors import InputError

INF, NAN = math.inf, math.nan


def table_of(*values: float, better: str | None = 'higher', names: str = 'abcdefgh', published: bool = False) -> Table:
    rows = [Row(name, {'psnr': Score(value)}, published) for name, value in zip(names, values)]
    return Table('t', [Column('psnr', 'PSNR', better, 2)], rows)


@pytest.fixture
def table() -> Table:
    measured = [
        Row('Ground Truth', {'psnr': Score(INF), 'lpips': Score(0.0)}),
        Row('input', {'psnr': Score(25.6), 'lpips': Score(0.2)}),
        Row('ours_sa 100% & |x|', {'psnr': Score(26.214, 0.021, 3), 'lpips': Score(0.12), 'params': Score(33.0)}),
        Row('ours', {'psnr': Score(25.0, 0.5, 3), 'lpips': Score(0.1)}),
        Row('NAFNet', {'psnr': Score(26.0), 'lpips': Score(NAN)}),
    ]
    published = [Row('Ours', {'psnr': Score(31.66), 'lpips': Score(0.059, decimals=3)}, True),
                 Row('HINet', {'psnr': Score(32.77), 'lpips': Score(0.088, decimals=3)}, True)]
    columns = [COLUMNS[key] for key in ('lpips', 'psnr', 'fid', 'params')]
    return Table('GoPro_test', columns, measured + published, {'commit': 'abc', 'seeds': [0, 1, 2]}, ['FID was left out.'])


@pytest.mark.parametrize(('values', 'better', 'expected'), [
    ((1.0, 3.0, 2.0), 'higher', {1: 1, 2: 2}),
    ((1.0, 3.0, 2.0), 'lower', {0: 1, 2: 2}),
    ((3.001, 3.004, 2.0, 1.0), 'higher', {0: 1, 1: 1, 2: 2}),  # equal as printed
    ((3.001, 3.006), 'higher', {1: 1, 0: 2}),
    ((3.0, 2.0, 2.0, 1.0), 'higher', {0: 1, 1: 2, 2: 2}),
    ((NAN, 3.0, INF), 'higher', {2: 1, 1: 2}),
    ((1.0, 3.0), None, {}),
    ((1.0, NAN), 'higher', {}),  # no competitor
])
def test_ranks(values, better, expected):
    assert table_of(*values, better=better).ranks() == {(row, 'psnr'): rank for row, rank in expected.items()}


def test_ranks_leave_out_ground_truth_and_input_and_keep_published_apart(table):
    psnr = {row: rank for (row, key), rank in table.ranks().items() if key == 'psnr'}
    assert psnr == {2: 1, 4: 2, 6: 1, 5: 2}
    assert {key for _, key in table.ranks()} == {'psnr', 'lpips'}


def test_text(table):
    lines = table.to_text().splitlines()
    body = {line.split('  ')[0]: line for line in lines}
    assert re.search(r'0\.1200\' +26\.21 ± 0\.02\* +– +33\.00', body['ours_sa 100% & |x|'])
    assert '∞ ' in body['Ground Truth'] and '*' not in body['Ground Truth'] + body['input']
    assert re.search(r'– +26\.00\'', body['NAFNet'])
    assert re.search(r"0\.059\* +31\.66'", body['Ours'])  # as many decimals as published
    assert lines.index('published:') == lines.index(body['NAFNet']) + 2
    assert lines[-1] == 'FID was left out.'
    numbers = [line[20:] for line in lines if line.startswith(('ours', 'input', 'Ours', 'HINet'))]
    ends = {re.search(r'\d(?=[*\' ])', line).start() for line in numbers}
    assert len(ends) == 1, 'the last digits of the first column are not aligned'


def test_markdown(table):
    text = table.to_markdown()
    rows = [line for line in text.splitlines() if line.startswith('|')]
    assert {len(re.findall(r'(?<!\\)\|', row)) for row in rows} == {len(table.columns) + 2}
    assert r'| ours\_sa 100% & \|x\| | <ins>0.1200</ins> | **26.21 ± 0.02** | – | 33.00 |' in rows
    assert '| HINet † | <ins>0.088</ins> | **32.77** | – | – |' in rows
    assert {'- commit: abc', '- seeds: 0, 1, 2'} <= set(text.splitlines())


def test_latex(table):
    text = table.to_latex()
    assert r'ours\_sa 100\% \& |x| & \underline{0.1200} & \textbf{26.21 $\pm$ 0.02} & -- & 33.00 \\' in text
    assert r'Ground Truth & 0.0000 & $\infty$ & -- & -- \\' in text
    body = '\n'.join(line for line in text.splitlines() if not line.startswith('%'))
    unescaped = re.sub(r'\\[{}$&#_%\\]', '', body)
    depth = 0
    for character in unescaped:
        depth += {'{': 1, '}': -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0 and unescaped.count('$') % 2 == 0 and body.isascii()
    assert body.count(r'\begin{') == body.count(r'\end{') == 2


def test_latex_escapes_every_special_character():
    text = table_of(1.0, names=['\\ { } $ & # ^ _ ~ %\n[*']).to_latex()
    assert r'\textbackslash{} \{ \} \$ \& \# \textasciicircum{} \_ \textasciitilde{} \% {[}{*} & 1.00 \\' in text


def test_csv_has_full_precision(table):
    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [line['name'] for line in lines] == [row.name for row in table.rows]
    assert (lines[2]['psnr'], lines[2]['psnr_spread'], lines[2]['fid'], lines[2]['published']) == ('26.214', '0.021', '', '0')
    assert (lines[0]['psnr'], lines[4]['lpips'], lines[5]['published']) == ('inf', '', '1')


def test_json_is_strict_and_round_trips(table):
    def refuse(constant):
        raise AssertionError(f'{constant} is no JSON')

    content = json.loads(table.to_json(), parse_constant=refuse)
    assert content['rows'][0]['scores']['psnr']['mean'] == 'inf'
    assert content['rows'][4]['scores']['lpips']['mean'] is None
    again = Table.from_json(table.to_json())
    assert math.isnan(again.rows[4].scores.pop('lpips').mean)  # NaN differs from itself
    del table.rows[4].scores['lpips']
    assert again == table


@pytest.mark.parametrize('text', ['', '[]', '{"rows": 3}', '{"rows": [{"name": "a"}]}'])
def test_foreign_json_is_refused(text):
    with pytest.raises(InputError, match='no table'):
        Table.from_json(text)


def test_write(table, tmp_path):
    paths = table.write(tmp_path / 'new' / 'folder', 'gopro')
    assert [path.name for path in paths] == ['gopro.md', 'gopro.tex', 'gopro.csv', 'gopro.json']
    assert sorted(paths) == sorted((tmp_path / 'new' / 'folder').iterdir())
    assert paths[1].read_text(encoding='utf-8') == table.to_latex()
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='cannot be made'):
        table.write(tmp_path / 'file')


def test_costs_are_not_ranked_and_the_two_ssims_differ():
    assert [key for key, column in COLUMNS.items() if column.better is None] == ['params', 'gflops', 'seconds']
    assert len({column.title for column in COLUMNS.values()}) == len(COLUMNS) == 14
    assert 'alex' in COLUMNS['lpips'].title
