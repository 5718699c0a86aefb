"""Files of a study, and what it needs."""

from __future__ import annotations

import csv
import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from stochastic_refine.comparison import provenance, scoring
from stochastic_refine.errors import InputError
from stochastic_refine.settings.options_file import read_options_file
from stochastic_refine.studies.frame import Study, means_of
from stochastic_refine.studies.report import StudyReport, check_matplotlib, save_figure

pytest.importorskip('matplotlib', reason='studies draw figures')


def test_rows_with_different_columns_and_missing_values(tmp_path):
    rows = [{'part': 'a', 'n': 1}, {'part': 'b', 'score': float('nan'), 'n': np.int64(2)}]
    report = StudyReport('x', rows, {'k': np.float32(0.5)})
    drawn = []
    files = report.write(tmp_path / 'deep' / 'out', {'': lambda figure: drawn.append(figure.subplots())})
    assert [file.name for file in files] == ['x.csv', 'x.json', 'x.png'] and drawn
    with files[0].open(newline='') as file:
        assert list(csv.DictReader(file)) == [{'part': 'a', 'n': '1', 'score': ''}, {'part': 'b', 'n': '2', 'score': ''}]
    content = json.loads(files[1].read_text())
    assert content['rows'][1] == {'part': 'b', 'score': None, 'n': 2} and content['settings'] == {'k': 0.5}


def test_figures_are_the_same_each_time_and_small(tmp_path):
    def draw(figure):
        figure.subplots().plot(range(5))

    for name in 'ab':
        save_figure(tmp_path / f'{name}.png', draw)
    assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'b.png').read_bytes()
    assert Image.open(tmp_path / 'a.png').mode == 'P'


def test_missing_matplotlib_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    with pytest.raises(InputError, match=r'pip install .stochastic_refine\[figures\]'):
        check_matplotlib()


class Pair:
    name = 'one'

    def __init__(self, key: str) -> None:
        self.content = key

    def key(self) -> str:
        return self.content

    def load(self):
        return None, None


def test_an_image_is_computed_again_if_it_or_its_settings_or_its_file_or_the_code_changed(tmp_path, monkeypatch):
    computed = []

    def get(key: str = 'a', metrics: str | None = None, network: str = 'net', **settings) -> list:
        def compute(lq, gt):
            computed.append(1)
            return {'n': len(computed)}

        study = Study('test', [Pair(key)], tmp_path, torch.device('cpu'), metrics)
        return list(study.each_image(SimpleNamespace(fingerprint=network), compute, 'test', **settings))

    assert get(x=1)[0]['n'] == 1 and get(x=1)[0]['n'] == 1
    assert get(x=2)[0]['n'] == 2 and get('b', x=1)[0]['n'] == 3
    for file in tmp_path.rglob('*.npz'):
        file.write_bytes(file.read_bytes()[:20])
    assert get(x=1)[0]['n'] == 4
    assert get(metrics='psnr')[0]['n'] == 5 and get(metrics='psnr')[0]['n'] == 5
    assert get(x=1, network='other')[0]['n'] == 6
    monkeypatch.setattr(scoring, 'version_of', lambda package: '9.9')
    assert get(metrics='psnr')[0]['n'] == 7 and get(x=1)[0]['n'] == 4
    monkeypatch.setattr(provenance, 'source_hash', lambda: 'edited')
    assert get(x=1)[0]['n'] == 8 and get(x=1)[0]['n'] == 8


def test_means_leave_out_exact_images_and_count_them():
    found = [{'psnr': np.array(value), 'niqe': np.array(math.nan)} for value in (20.0, math.inf, 30.0, math.nan)]
    columns = means_of(found, ['psnr', 'niqe'])
    assert math.isnan(columns.pop('niqe')) and columns == {'psnr': 25.0, 'psnr_exact': 1}
    assert means_of(found[1:2], ['psnr']) == {'psnr': math.inf}  # nothing is left out where all are exact


def test_unusable_options_files(tmp_path):
    (tmp_path / 'a.yml').write_text('a: [')
    (tmp_path / 'b.yml').write_text('just words')
    for name, words in (('a', 'not valid YAML'), ('b', 'holds no keys'), ('c', 'cannot be read')):
        with pytest.raises(InputError, match=words):
            read_options_file(tmp_path / f'{name}.yml')
