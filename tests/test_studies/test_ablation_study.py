"""The ablation: its rows, the options of its trainings, and whole on a tiny budget."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import unet

from stochastic_refine.archs import build_arch
from stochastic_refine.cli import main
from stochastic_refine.comparison.published import published_table
from stochastic_refine.errors import InputError
from stochastic_refine.studies import ablation
from stochastic_refine.studies.ablation import Setting, ablation_study, settings_of, training_options
from stochastic_refine.studies.frame import Study
from stochastic_refine.studies.inputs import study_images

OPTIONS = Path(__file__).resolve().parents[2] / 'options' / 'baselines' / 'train_gopro_regression.yml'

pytest.importorskip('matplotlib', reason='studies draw figures')


def test_rows_are_those_of_table_4():
    published = published_table('predictor_ablation')['rows']
    expected = [Setting(row['base_channels'], row['batch_size'], row['ema']) for row in published]
    assert settings_of((64, 16, 32), (32, 64, 256, 128)) == expected
    with pytest.raises(InputError, match='from 1'):
        settings_of((0, 4), (2, ))


def test_what_counts_iterations_keeps_its_share_of_the_training():
    base = yaml.safe_load(OPTIONS.read_text())
    before = json.dumps(base)
    opt = training_options(base, Setting(16, 32, False), 1000)
    assert json.dumps(base) == before
    assert opt['network_g']['base_channels'] == 16 and opt['datasets'].keys() == {'train'} and 'val' not in opt
    assert (opt['datasets']['train']['batch_size_per_gpu'], opt['train']['accumulate']) == (32, 1)
    assert (opt['train']['total_iter'], opt['train']['warmup_iter']) == (1000, 10)
    assert opt['train']['scheduler']['milestones'] == [1000]
    assert opt['train']['ema_decay'] == pytest.approx(0.9)  # 10 of 1000 iterations, as 10 000 of a million
    full = training_options(base, Setting(64, 256, True), 1_000_000)
    assert full['train']['ema_decay'] == pytest.approx(0.9999) and full['train']['accumulate'] == 8
    assert full['name'] != opt['name'] == training_options(base, Setting(16, 32, True), 1000)['name']


@pytest.fixture
def options(restoration_options, tmp_path, monkeypatch) -> Path:
    """Options of a tiny training; experiments/ is in the test's folder."""
    monkeypatch.chdir(tmp_path)
    restoration_options['network_g'] = unet()
    (tmp_path / 'train.yml').write_text(yaml.safe_dump(restoration_options))
    return tmp_path / 'train.yml'


def fake_training(trained: list[str]):
    """Writes weights of zeros, whose averages are random."""

    def train(file: Path) -> int:
        opt = yaml.safe_load(file.read_text())
        trained.append(opt['name'])
        torch.manual_seed(0)
        net = build_arch(opt['network_g'])
        folder = Path('experiments') / opt['name'] / 'models'
        folder.mkdir(parents=True)
        torch.save({'params': {k: torch.zeros_like(v) for k, v in net.state_dict().items()}, 'params_ema': net.state_dict()},
                   folder / 'net_g_latest.pth')
        return 0

    return train


def test_each_training_is_done_once_and_scored_with_its_own_and_its_averaged_weights(options, tmp_path):
    trained: list[str] = []
    training = fake_training(trained)

    def study(iterations: int = 8, train=training):
        frame = Study('ablation', study_images(options), tmp_path / 'out', torch.device('cpu'), 'psnr', 2)
        return ablation_study(frame, options, iterations, channels=(4, 8), batches=(1, 2), train=train).rows

    rows = study()
    tried = [(row['channels'], row['batch'], row['ema']) for row in rows]
    assert tried == [(4, 1, False), (8, 1, False), (8, 2, False), (8, 2, True)]
    assert len(trained) == len(set(trained)) == 3
    zeros = [row['psnr'] for row in rows if not row['ema']]
    assert zeros == [zeros[0]] * 3 and rows[-1]['psnr'] != zeros[0]
    assert study() == rows and len(trained) == 3
    with pytest.raises(InputError, match='ended with an error'):
        study(iterations=9, train=lambda file: 1)
    file = next((tmp_path / 'out' / 'options').glob('*_c4_b1_i8.yml'))
    file.write_text(file.read_text().replace('lr: 0.1', 'lr: 0.2'))
    with pytest.raises(InputError, match='other options'):
        study()


def test_images_are_restored_as_in_the_validation_of_the_options(options, tmp_path, monkeypatch):
    opt = yaml.safe_load(options.read_text())
    opt['val'] |= {'tile': 32, 'precision': 'bfloat16'}
    options.write_text(yaml.safe_dump(opt))
    restorers, build = [], ablation.restorer_of
    monkeypatch.setattr(ablation, 'restorer_of', lambda *args: restorers.append(build(*args)) or restorers[-1])
    frame = Study('ablation', study_images(options), tmp_path / 'out', torch.device('cpu'), 'psnr', 1)
    ablation_study(frame, options, 8, channels=(4, ), batches=(1, ), train=fake_training([]))
    assert [(restorer.tile, restorer.precision, restorer.window) for restorer in restorers] == [(32, 'bfloat16', None)] * 2


@pytest.mark.parametrize('change, words', [
    (lambda opt: opt.pop('train'), 'no options file of a training'),
    (lambda opt: opt.update(network_g={'type': 'NAFNet'}), 'no base_channels'),
    (lambda opt: opt['val'].update(tile=-1), 'val: tile must be'),
])
def test_options_that_do_not_fit(options, tmp_path, capsys, change, words):
    opt = yaml.safe_load(options.read_text())
    change(opt)
    options.write_text(yaml.safe_dump(opt))
    assert main(['study', 'ablation', '-opt', str(options), '--iterations', '2', '-o', str(tmp_path / 'out')]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_whole_with_a_real_training(options, tmp_path, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    code = main(['study', 'ablation', '-opt', str(options), '--iterations', '2', '--channels', '4', '--batches', '2',
                 '--metrics', 'psnr', '--max-images', '1', '--device', 'cpu', '-o', str(tmp_path / 'out')])
    assert code == 0
    with (tmp_path / 'out' / 'ablation.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['ema'] for row in rows] == ['False', 'True'] and all(float(row['psnr']) > 3 for row in rows)
    assert list((tmp_path / 'experiments').glob('ablation_*/models/net_g_latest.pth'))
