"""The perception-distortion plot's points."""

from __future__ import annotations

import csv
import json
import math

import pytest

from stochastic_refine.cli import main
from stochastic_refine.comparison.columns import COLUMNS, Score
from stochastic_refine.comparison.tables import Row, Table
from stochastic_refine.studies.perception_distortion import perception_distortion_study

#: name: (LPIPS, PSNR, published)
SYSTEMS = {'Ground Truth': (0, math.inf, False), 'input': (0.3, 25, False), 'vivid': (0.1, 27, False),
           'faithful': (0.2, 29, False), 'worse': (0.25, 28, False), 'no score': (math.nan, 30, False),
           'HINet': (0.12, 30.33, True)}

pytest.importorskip('matplotlib', reason='studies draw figures')


@pytest.fixture
def table(tmp_path):
    rows = [Row(name, {'lpips': Score(lpips), 'psnr': Score(psnr)}, published)
            for name, (lpips, psnr, published) in SYSTEMS.items()]
    Table('two images', [COLUMNS['lpips'], COLUMNS['psnr']], rows).write(tmp_path)
    return tmp_path / 'table.json'


def test_points_and_fronts_of_their_kinds(table, tmp_path):
    cells = tmp_path / 'cells.csv'
    with cells.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['cell', 'lpips', 'psnr', 'pick', 'eliminated'])
        writer.writerows([['T10', 0.15, 28, 'Ours-SA', ''], ['T50', 0.09, 26, 'Ours', ''], ['T20', 0.16, 27, '', ''],
                          ['T500', 0.01, 40, '', 1], ['none', '', 28, '', '']])
    out = tmp_path / 'out'
    assert main(['study', 'perception-distortion', '--tables', str(table), '--cells', str(cells), '-o', str(out)]) == 0
    rows = {row['name']: row for row in json.loads((out / 'perception_distortion.json').read_text())['rows']}
    assert rows.keys() == {'input', 'vivid', 'faithful', 'worse', 'HINet', 'T10 Ours-SA', 'T50 Ours', 'T20'}
    assert {name for name, row in rows.items() if row['pareto']} == {'vivid', 'faithful', 'HINet', 'T10 Ours-SA', 'T50 Ours'}
    assert rows['HINet']['kind'] == 'published' and rows['T20']['kind'] == 'cell' and rows['vivid']['lpips'] == 0.1
    assert (out / 'perception_distortion.png').is_file()


def test_unusable_tables(table, tmp_path, capsys):
    for path, flags, words in ((tmp_path / 'absent', (), 'cannot be read'),
                               (table, ('--perception', 'lpip'), 'did you mean lpips'),
                               (table, ('--perception', 'niqe'), "no scores 'niqe'")):
        assert main(['study', 'perception-distortion', '--tables', str(path), '-o', str(tmp_path / 'o'), *flags]) == 2
        assert words in capsys.readouterr().err
    (tmp_path / 'other.json').write_text('{}')
    assert main(['study', 'perception-distortion', '--tables', str(tmp_path / 'other.json'), '-o', str(tmp_path / 'o')]) == 2
    assert 'other.json' in capsys.readouterr().err


def test_a_folder_stands_for_its_table(table, tmp_path):
    report = perception_distortion_study([table.parent], tmp_path / 'out')
    assert report.settings['perception'] == 'lpips' and len(report.rows) == 5
