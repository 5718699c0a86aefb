"""Uncertainty, diversity, latency and entropy of tiny untrained networks, against the same figures had directly."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import unet
from PIL import Image

from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import METADATA_KEY
from stochastic_refine.cli import main
from stochastic_refine.comparison import provenance
from stochastic_refine.comparison.protocols import spread_evenly
from stochastic_refine.inference.operating_point import OperatingPoint
from stochastic_refine.inference.restorer import Restorer
from stochastic_refine.studies import tradeoff, uncertainty
from stochastic_refine.studies.calibration import Calibration
from stochastic_refine.studies.entropy import entropy, png_bytes
from stochastic_refine.studies.frame import scores_of, to_bgr
from stochastic_refine.studies.inputs import parse_schedule, sampling_restorer, study_images, study_network
from stochastic_refine.studies.rising_blur import RisingBlur

CPU = torch.device('cpu')
PAIR = {'type': 'PredictRefineNet', 'predictor': unet(global_skip=True),
        'denoiser': unet(in_channels=6, noise_conditioned=True)}

pytest.importorskip('matplotlib', reason='studies draw figures')


def save(path: Path, network: dict) -> Path:
    torch.manual_seed(0)
    content = {'params': build_arch(network).state_dict(), METADATA_KEY: {'network': network, 'operating_points': {}}}
    torch.save(content, path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    return save(tmp_path / 'pair.pth', PAIR)


@pytest.fixture
def run(pairs: Path, tmp_path: Path):
    """``study NAME`` on two of the tiny pairs; gives the rows of its CSV."""

    def run(name: str, *flags: str) -> list[dict[str, str]]:
        out = tmp_path / 'out'
        code = main(['study', name, '--gt', str(pairs / 'gt'), '--lq', str(pairs / 'lq'), '--max-images', '2', '--device',
                     'cpu', '-o', str(out), *map(str, flags)])
        assert code == 0
        with Image.open(out / f'{name}.png') as figure:
            assert figure.width > 300
        with (out / f'{name}.csv').open(newline='') as file:
            rows = list(csv.DictReader(file))
        assert len(json.loads((out / f'{name}.json').read_text())['rows']) == len(rows)
        return rows

    return run


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Grows by one entry with each image that is restored."""
    counted: list[int] = []
    restore = Restorer.restore

    def counting(self, *args, **kwargs):
        counted.append(1)
        return restore(self, *args, **kwargs)

    monkeypatch.setattr(Restorer, 'restore', counting)
    return counted


def test_uncertainty_is_that_of_the_samples_and_goes_on_where_it_stopped(run, pair, pairs, calls, monkeypatch):
    flags = ('-w', pair, '--samples', 3, '--schedule', '2:0.5', '--blur-photos', 0)
    compute = uncertainty._calibrate
    with monkeypatch.context() as patch:  # stopped at the second image

        def stopping(*args):
            inner, done = compute(*args), []

            def stop(lq, gt):
                if done:
                    raise KeyboardInterrupt
                done.append(1)
                return inner(lq, gt)

            return stop

        patch.setattr(uncertainty, '_calibrate', stopping)
        with pytest.raises(AssertionError):
            run('uncertainty', *flags)
    assert len(calls) == 1
    rows = run('uncertainty', *flags)
    assert len(calls) == 2

    direct = Calibration(3)
    restorer = sampling_restorer(study_network(weights=str(pair)), CPU)
    images = study_images(gt=pairs / 'gt', lq=pairs / 'lq')
    for chosen in (images[0], images[2]):
        lq, gt = chosen.load()
        point = OperatingPoint(steps=2, final_variance=0.5, clamp=True, num_samples=3)
        samples = restorer.restore(lq, point, keep_samples=True).samples
        direct.add(samples.mean(0), samples.std(0), gt[..., ::-1].transpose(2, 0, 1) / 255)
    expected = direct.report()
    coverage = {float(row['nominal']): float(row['coverage']) for row in rows if row['part'] == 'coverage'}
    assert coverage == pytest.approx(expected.coverage, abs=2e-4)
    summary = next(row for row in rows if row['part'] == 'summary')
    assert float(summary['rmse']) == pytest.approx(expected.rmse, rel=1e-4)
    assert float(summary['spearman']) == pytest.approx(expected.spearman, abs=2e-3)
    run('uncertainty', *flags)
    assert len(calls) == 4  # two directly above; nothing was restored anew


def test_rising_blur_changes_nothing_but_the_length(run, pair, tmp_path):
    rows = run('uncertainty', '-w', pair, '--samples', 2, '--schedule', '1:0.5', '--blur-photos', 2, '--lengths', 0, 9,
               '--blur-size', 48)
    of_blur = [row for row in rows if row['part'] == 'blur']
    assert [float(row['length']) for row in of_blur] == [0, 9]
    assert float(of_blur[0]['input_rmse']) < 0.005 < float(of_blur[1]['input_rmse'])  # without blur half a grey value of noise
    assert (tmp_path / 'out' / 'uncertainty_maps.png').is_file()
    blur = RisingBlur((4, 8), photos=2, noise_sigma=0)
    sharp = tmp_path / 'out' / 'blur' / 'sharp'
    short, long = (blur.pairs_of_length(sharp, length) for length in blur.lengths)
    for a, b in zip(short, long):
        (blurry, gt), (blurrier, same) = a.load(), b.load()
        assert np.array_equal(gt, same) and gt.shape == (48, 48, 3)
        assert blurrier.diff().abs().mean() < blurry.diff().abs().mean()


def test_straight_blur_is_horizontal(tmp_path):
    stripes = np.repeat(np.arange(64, dtype=np.uint8)[:, None] * 37, 64, axis=1)  # every row of one grey value
    Image.fromarray(np.stack([stripes] * 3, axis=-1)).save(tmp_path / 'stripes.png')
    for straight in (True, False):
        blur = RisingBlur(noise_sigma=0, straight=straight)
        blurry, gt = blur.pairs_of_length(tmp_path, 9)[0].load()
        assert (np.abs(to_bgr(blurry).astype(int) - gt).max() <= 1) == straight


def test_diversity_is_the_mean_over_pairs_of_samples(run, pair, pairs, calls):
    flags = ('-w', pair, '--samples', 3, '--schedules', '1:0.5', '2:0.5', '--metrics', 'psnr')
    rows = run('diversity', *flags)
    assert len(calls) == 4
    assert run('diversity', *flags) == rows and len(calls) == 4
    restorer = sampling_restorer(study_network(weights=str(pair)), CPU)
    distances, to_truth = [], []
    images = study_images(gt=pairs / 'gt', lq=pairs / 'lq')
    for chosen in (images[0], images[2]):
        lq, gt = chosen.load()
        point = parse_schedule('2:0.5', clamp=True, num_samples=3)
        samples = [to_bgr(sample).astype(float) for sample in restorer.restore(lq, point, keep_samples=True).samples]
        distances += [np.sqrt(np.mean((a - b)**2)) / 255 for a, b in itertools.combinations(samples, 2)]
        to_truth += [np.sqrt(np.mean((sample - gt)**2)) / 255 for sample in samples]
    row = next(row for row in rows if row['quantity'] == 'rmse' and row['steps'] == '2')
    assert float(row['among']) == pytest.approx(np.mean(distances), rel=1e-4)
    assert float(row['to_truth']) == pytest.approx(np.mean(to_truth), rel=1e-4)


def test_latency_of_refining_and_of_deterministic_networks(run, pair, calls, tmp_path, monkeypatch):
    plain = save(tmp_path / 'plain.pth', unet())
    image_model = save(tmp_path / 'image.pth', {**PAIR, 'predictor': None})
    flags = (f'residual={pair}', f'whole={image_model}', f'plain={plain}', '--schedules', '1:0.5', '3:0.2', '--metrics', 'psnr')
    rows = run('latency', *flags)
    assert [(row['system'], row['steps'], row['calls']) for row in rows] == [
        ('residual', '1', '2'), ('residual', '3', '4'), ('whole', '1', '1'), ('whole', '3', '3'), ('plain', '', '1')]
    assert all(float(row['seconds']) > 0 and float(row['psnr']) > 3 for row in rows)
    if rows[0]['gflops']:
        first, third = (float(row['gflops']) for row in rows[:2])
        denoiser = (third - first) / 2
        assert 0 < float(rows[2]['gflops']) == pytest.approx(denoiser, rel=1e-6)
    done = len(calls)
    assert run('latency', *flags) == rows and len(calls) == done
    flags = (f'plain={plain}', '--metrics', 'psnr')
    for name, value in (('machine', lambda device: 'Another Machine'), ('source_hash', lambda: 'edited')):
        monkeypatch.setattr(provenance, name, value)
        done = len(calls)
        run('latency', *flags)
        assert len(calls) > done  # timed again
        done = len(calls)
        run('latency', *flags)
        assert len(calls) == done


def test_latency_of_a_flow_beside_a_deterministic_network(run, tmp_path):
    flow = save(tmp_path / 'flow.pth', {**PAIR, 'refiner': 'flow'})
    plain = save(tmp_path / 'plain.pth', unet())
    rows = run('latency', f'flow={flow}', f'plain={plain}', '--sampler', 'flow_euler', '--schedules', '2', '--metrics', 'psnr')
    assert [(row['system'], row['calls']) for row in rows] == [('flow', '3'), ('plain', '1')]


def test_entropy_of_known_distributions_and_of_a_predictors_residual(run, pair, pairs):
    assert entropy(np.array([5, 5, 0, 5, 5])) == 2 and entropy(np.array([0, 7])) == 0
    assert png_bytes(np.zeros((32, 32, 3), np.uint8)) < 100
    rows = run('entropy', '-w', pair)
    restorer = sampling_restorer(study_network(weights=str(pair)), CPU)
    images = study_images(gt=pairs / 'gt', lq=pairs / 'lq')
    residuals = []
    for chosen in (images[0], images[2]):
        lq, gt = chosen.load()
        residuals.append(gt.astype(int) - to_bgr(restorer.predict(lq)))
    share = np.unique(np.stack(residuals), return_counts=True)[1] / np.stack(residuals).size
    assert [row['quantity'] for row in rows] == ['reference', 'residual']
    assert float(rows[1]['entropy_bits']) == pytest.approx(-(share * np.log2(share)).sum())
    assert float(rows[1]['published_entropy_bits']) == 3.91


@pytest.mark.parametrize('flags, words', [
    (('uncertainty', '--gt', 'GT', '--lq', 'LQ', '-w', 'PLAIN'), 'deterministic and draws no samples'),
    (('uncertainty', '--gt', 'GT', '--lq', 'LQ', '--samples', '1'), '--samples must be a whole number from 2'),
    (('uncertainty', '--gt', 'GT', '--lq', 'LQ', '--lengths', '4'), 'two different lengths'),
    (('uncertainty', '--gt', 'GT'), 'needs pairs of images'),
    (('diversity', '--gt', 'GT', '--lq', 'LQ', '--schedules', '20'), 'STEPS:FINAL_VARIANCE'),
    (('diversity', '--gt', 'GT', '--lq', 'LQ', '--metrics', 'psnr,fid'), 'whole sets'),
    (('latency', '--gt', 'GT', '--lq', 'LQ', 'GT'), 'is a folder of images'),
])
def test_unusable_input_is_told_in_a_sentence(flags, words, pairs, tmp_path, capsys):
    paths = {'GT': pairs / 'gt', 'LQ': pairs / 'lq', 'PLAIN': save(tmp_path / 'plain.pth', unet())}
    assert main(['study', *(str(paths.get(flag, flag)) for flag in flags), '-o', str(tmp_path / 'out')]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count('\n') == 1


def test_the_knob_is_scored_along_its_path(run, pair, pairs, tmp_path):
    path = [OperatingPoint(steps=2, num_samples=2, average=True), OperatingPoint(steps=4)]
    content = torch.load(pair, weights_only=True)
    content[METADATA_KEY]['tradeoff'] = [point.as_options() for point in path]
    torch.save(content, pair)
    rows = run('tradeoff', '-w', pair, '--metrics', 'psnr', '--positions', 1, 0)
    assert [(row['tradeoff'], row['steps'], row['num_samples']) for row in rows] == [('0.0', '2', '2'), ('1.0', '4', '1')]
    restorer = sampling_restorer(study_network(weights=str(pair)), CPU)
    images = spread_evenly(study_images(gt=pairs / 'gt', lq=pairs / 'lq'), 2)
    psnr = np.array([[scores_of(restorer.restore(lq, point).image, gt, ['psnr'])['psnr'] for point in path]
                     for lq, gt in (image.load() for image in images)])
    assert [float(row['psnr']) for row in rows] == pytest.approx(psnr.mean(0))
    steps = psnr[:, 1] - psnr[:, 0]
    assert float(rows[1]['psnr_step']) == pytest.approx(steps.mean())
    assert float(rows[1]['psnr_step_se']) == pytest.approx(abs(steps[0] - steps[1]) / 2)


def test_a_step_the_wrong_way_is_a_reversal_beyond_two_errors_only():
    for key, step, reversed_ in (('psnr', 0.3, True), ('psnr', 0.1, False), ('psnr', -1, False), ('lpips', 0.3, True),
                                 ('lpips', -0.3, False), ('musiq', -0.3, True)):
        assert tradeoff._reversal(key, {f'{key}_step': step, f'{key}_step_se': 0.1}) is reversed_
