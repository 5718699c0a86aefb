"""Published figures as data."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from stochastic_refine.comparison.columns import COLUMNS
from stochastic_refine.comparison.published import published_rows, published_table
from stochastic_refine.comparison.tables import Table
from stochastic_refine.errors import InputError

#: Typed from the papers independently of the package's file; beside the repository where its maintainers work, else absent.
REFERENCE = Path(__file__).resolve().parents[2].parent / 'shared' / 'paper_tables.yml'
KEYS = {'LPIPS': 'lpips', 'NIQE': 'niqe', 'FID': 'fid', 'KID': 'kid', 'PSNR': 'psnr', 'SSIM': 'ssim3d', 'MParams': 'params',
        'GFLOPs': 'gflops', 'channels': 'base_channels', 'batch': 'batch_size'}


def test_spot_values():
    rows = {row.name: row for row in published_rows('gopro')}
    assert all(row.published for row in rows.values())
    assert (rows['Ours'].scores['kid'].mean, rows['HINet'].scores['ssim3d'].mean) == (0.98, 0.960)
    assert rows['Ground Truth'].scores['psnr'].mean == math.inf
    assert 'fid' not in rows['SimpleNet'].scores and 'ssim' not in rows['Ours'].scores
    assert {row.name: row.scores['lpips'].mean for row in published_rows('hide')}['Ours-SA'] == 0.092
    assert published_rows('realblur_j') == []


def test_a_figure_is_printed_with_its_published_decimals():
    row = next(row for row in published_rows('gopro') if row.name == 'HINet')
    assert {key: score.printed(COLUMNS[key]) for key, score in row.scores.items()} == {
        'lpips': '0.088', 'niqe': '4.01', 'fid': '17.91', 'kid': '8.15', 'psnr': '32.77', 'ssim3d': '0.960'}


@pytest.mark.parametrize(('metric', 'first', 'second'), [
    ('lpips', 'Ours', 'Ours-SA'), ('niqe', 'Ours', 'DeblurGANv2'), ('psnr', 'Ours-SA', 'HINet'), ('kid', 'Ours', 'DeblurGANv2'),
])
def test_ranks_are_the_papers(metric, first, second):
    rows = published_rows('gopro')
    ranks = Table('', list(COLUMNS.values()), rows).ranks()
    assert {rank: rows[index].name for (index, key), rank in ranks.items() if key == metric} == {1: first, 2: second}


def test_unknown_table():
    with pytest.raises(InputError, match='human_preference'):
        published_table('human_preferences')


def test_a_table_cannot_be_changed_by_its_reader():
    published_table('gopro')['rows'].clear()
    assert published_table('gopro')['rows']


@pytest.mark.skipif(not REFERENCE.is_file(), reason='the independent transcription is not here')
def test_all_figures_equal_an_independent_transcription():
    reference = yaml.safe_load(REFERENCE.read_text(encoding='utf-8'))

    def named(columns, rows, keys):
        return {name: {keys.get(column, column): value for column, value in zip(columns, values) if value is not None}
                for name, values in rows.items() if name != 'columns'}

    for name in ('gopro', 'hide'):
        assert published_table(name)['rows'] == named(reference['columns'], reference[name], KEYS)
    preference = reference['human_preference_gopro']
    assert published_table('human_preference')['rows'] == named(preference['columns'], preference, {})
    for ours, theirs in (('deblurdiff_ablation', 'deblurdiff_ablation_gopro'), ('deblurdiff_cost', 'deblurdiff_cost')):
        rows = reference[theirs]
        assert published_table(ours)['rows'] == named(rows['columns'], rows, {**KEYS, 'SSIM': 'ssim'})
    ablation = reference['ablation_gopro']
    columns = [KEYS.get(column, column) for column in ablation['columns']]
    assert published_table('predictor_ablation')['rows'] == [dict(zip(columns, row)) for row in ablation['rows']]
    entropy = {name.lower(): row['bits_per_dim'] for name, row in published_table('residual_entropy')['rows'].items()}
    assert entropy == reference['residual_entropy_bpd']
