"""``stochastic-refine sweep``, whole: scores of cells, going on where it stopped, elimination, and the path that is stored."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import python_environment, unet, write_yaml
from PIL import Image

from stochastic_refine import files
from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import METADATA_KEY, read_checkpoint, save_safetensors
from stochastic_refine.cli import main
from stochastic_refine.comparison import provenance, scoring
from stochastic_refine.errors import InputError
from stochastic_refine.inference.deblurrer import Deblurrer
from stochastic_refine.inference.operating_point import OperatingPoint
from stochastic_refine.inference.restorer import Restorer
from stochastic_refine.sweep import units as sweep_units
from stochastic_refine.sweep.halving import halve
from stochastic_refine.sweep.pareto import front
from stochastic_refine.sweep.result import SweepResult
from stochastic_refine.sweep.search import sweep
from stochastic_refine.sweep.setup import FINAL_VARIANCES, STEPS, grid, source_of

NETWORK = {'type': 'PredictRefineNet', 'predictor': unet(), 'denoiser': unet(in_channels=6, noise_conditioned=True)}
CELLS = grid(steps=(1, 3), final_variances=(0.1, 0.5), counts=(1, 3))
PAIR = ('ssim3d', 'psnr')


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An untrained network, with a tensor that BasicSR's trainings would leave beside the weights."""
    torch.manual_seed(0)
    path, params = tmp_path / 'pair.pth', build_arch(NETWORK).state_dict()
    torch.save({'params': params, 'params_ema': params, METADATA_KEY: {'network': NETWORK, 'iteration': 7}}, path)
    return path


@pytest.fixture
def run(pairs: Path, tmp_path: Path, checkpoint: Path):
    """``sweep`` on the tiny pairs."""

    def run(cells=CELLS, output: str = 'out', source: dict | None = None, **options) -> SweepResult:
        source = source or {'weights': str(checkpoint), 'gt': pairs / 'gt', 'lq': pairs / 'lq'}
        return sweep(*source_of(**source), cells, PAIR, PAIR, tmp_path / output, 'cpu', **options)

    return run


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many initial predictions and passes over samples are made from here on."""
    made = {'initial': 0, 'passes': 0}
    predict, running_means = Restorer.predict, Restorer.running_means

    def counted_predict(self, lq):
        made['initial'] += 1
        return predict(self, lq)

    def counted_means(self, *args):
        made['passes'] += 1
        if made['passes'] == made.get('stop_at'):
            raise KeyboardInterrupt
        return running_means(self, *args)

    monkeypatch.setattr(Restorer, 'predict', counted_predict)
    monkeypatch.setattr(Restorer, 'running_means', counted_means)
    monkeypatch.setattr(sweep_units, '_initials', {})
    return made


def scores(result: SweepResult) -> dict[OperatingPoint, dict[str, float]]:
    return {row.cell: row.scores for row in result.rows}


def test_default_grid_is_the_papers() -> None:
    cells = grid()
    assert {(cell.steps, cell.final_variance) for cell in cells} == {(T, v) for T in STEPS for v in FINAL_VARIANCES}
    assert len(cells) == 48 and all(cell.sampler == 'ancestral' and not cell.average and not cell.clamp for cell in cells)
    with pytest.raises(InputError, match='--clamp means nothing to the sampler native'):
        grid(samplers=('native', ), clamp=True)
    both = grid(samplers=('ancestral', 'ddim'), etas=(0.0, 1.0), counts=(1, 4))
    assert len(both) == 48 * 3 * 2 and sum(cell.average for cell in both) == 48 * 3


def test_cells_are_scored_as_the_deblurrer_restores(run, calls, checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    result = run(save=True)
    from basicsr.metrics import calculate_psnr
    assert calls == {'initial': 4, 'passes': 16}  # the four runs share an image's prediction, the counts of a run one pass
    deblurrer = Deblurrer.from_pretrained(checkpoint, device='cpu', precision='float32')
    for settings, name in (({'steps': 3, 'final_variance': 0.1}, 'ancestral-T3-v0.1-n1'),
                           ({'steps': 1, 'final_variance': 0.5, 'samples': 3, 'average': True}, 'ancestral-T1-v0.5-n3')):
        expected = []
        for path in sorted((pairs / 'gt').iterdir()):
            image = np.rint(deblurrer(pairs / 'lq' / path.name, **settings).image * 255).astype(np.uint8)
            kept = np.asarray(Image.open(next((tmp_path / 'out/images').glob(f'*/{name}/{path.name}'))))
            assert np.abs(kept.astype(int) - image).max() <= ('n3' in name)  # the batch may differ in the last bit
            expected.append(calculate_psnr(kept, np.asarray(Image.open(path)), crop_border=0))
        with (tmp_path / 'out/cells.csv').open() as file:
            row = next(line for line in csv.DictReader(file) if line['cell'] == name)
        assert float(row['psnr']) == pytest.approx(np.mean(expected), abs=1e-9) and row['images'] == '4'
    lines = [json.loads(line) for line in (tmp_path / 'out/cells.jsonl').read_text().splitlines()]
    by_name = {line['cell']: line for line in lines}
    assert len(lines) == len(CELLS)
    assert by_name['ancestral-T3-v0.1-n3']['calls'] == 3 * 3 + 1
    assert by_name['ancestral-T1-v0.5-n1']['alpha_bar_T'] == pytest.approx(0.5)
    assert by_name['ancestral-T3-v0.1-n1']['alpha_bar_T'] == pytest.approx((1 - 1e-6) * (1 - 0.0500005) * 0.9)
    on_front = {line['cell'] for line in lines if line['on_front']}
    points = [(line['ssim3d'], line['psnr']) for line in lines]
    assert on_front == {lines[i]['cell'] for i in front(points, ('higher', 'higher'))}
    record = json.loads((tmp_path / 'out/sweep.json').read_text())
    assert record['picks']['Ours-SA']['psnr'] == max(line['psnr'] for line in lines)
    assert record['picks']['Ours']['ssim3d'] == max(line['ssim3d'] for line in lines)
    assert set(record['fronts']['ssim3d/psnr']) == on_front and record['settings']['network']['checkpoint_sha256']
    assert result.calls == result.full_calls == 4 * (2 * (1 + 3) * 3 + 1)


def test_stopped_sweep_goes_on_and_does_nothing_twice(run, calls, checkpoint: Path, monkeypatch) -> None:
    calls['stop_at'] = 7
    with pytest.raises(KeyboardInterrupt):
        run()
    calls.update(passes=0, stop_at=0)
    resumed = run()
    assert calls['passes'] == 16 - 6
    again = run()
    assert calls['passes'] == 16 - 6 and again.rows == resumed.rows
    assert scores(run(output='fresh')) == scores(resumed)

    calls.update(passes=0)
    with monkeypatch.context() as changed:
        changed.setattr(provenance, 'source_hash', lambda: 'edited')
        assert scores(run()) == scores(resumed) and calls['passes'] == 16
        changed.setattr(scoring, 'version_of', lambda package: '9.9')
        assert scores(run()) == scores(resumed) and calls['passes'] == 32
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(provenance, 'machine', lambda device: 'Another Machine')
        assert all(math.isnan(row.seconds) for row in run().rows) and calls['passes'] == 32

    calls.update(passes=0)
    wider = run(cells=[*CELLS, *grid(steps=(2, ), final_variances=(0.1, ))])
    assert calls['passes'] == 4 and scores(wider).items() >= scores(resumed).items()
    torch.manual_seed(1)
    content = torch.load(checkpoint)
    torch.save({**content, 'params_ema': build_arch(NETWORK).state_dict()}, checkpoint)
    calls.update(passes=0)
    assert scores(run()) != scores(resumed) and calls['passes'] == 16


def test_worker_processes_and_torchrun_give_the_same(run, checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    expected = run(cells=CELLS[:4], max_images=3)
    assert scores(run(cells=CELLS[:4], max_images=3, output='two', workers=2)) == scores(expected)
    command = ['torch.distributed.run', '--nproc_per_node=2', '--master_port=29732', '-m', 'stochastic_refine.cli', 'sweep',
               '-w', str(checkpoint), '--data', str(tmp_path / 'data'), '--steps', '1', '--final-variances', '0.1,0.5',
               '--counts', '1,3', '--max-images', '3', '--metrics', ','.join(PAIR), '--perceptual', PAIR[0],
               '-o', str(tmp_path / 'ranks')]
    (tmp_path / 'data').mkdir()
    for ours, theirs in (('target', 'gt'), ('input', 'lq')):
        (tmp_path / 'data' / ours).symlink_to(pairs / theirs)
    subprocess.run([sys.executable, '-m', *command], check=True, timeout=900, env=python_environment(), cwd=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / 'ranks/cells.jsonl').read_text().splitlines()]
    assert [{key: line[key] for key in PAIR} for line in lines] == list(scores(expected).values())
    assert len(list((tmp_path / 'ranks/units').rglob('*.json'))) == 3 * 2


def test_data_of_an_options_file(run, checkpoint: Path, pairs: Path, photos: Path, tmp_path: Path) -> None:
    block = {'name': 'tiny', 'type': 'PairedImageDataset', 'dataroot_gt': str(pairs / 'gt'), 'dataroot_lq': str(pairs / 'lq'),
             'io_backend': {'type': 'disk'}}
    options = {'name': 'test', 'network_g': NETWORK, 'path': {'pretrain_network_g': str(checkpoint)},
               'datasets': {'test': block}}
    paired = run(CELLS[:2], 'paired', {'options': write_yaml(tmp_path / 'paired.yml', options)})
    assert scores(paired) == scores(run(CELLS[:2]))
    synthetic = {'name': 'made', 'type': 'SyntheticBlurDataset', 'dataroot_gt': str(photos), 'gt_size': 48, 'max_images': 2}
    file = write_yaml(tmp_path / 'made.yml', {**options, 'datasets': {'val': synthetic}})
    made = run(CELLS[:2], 'made', {'options': file})
    assert made.rows[0].images == 2 and scores(made) != scores(paired)


def constructed(cells: list[OperatingPoint], images: range) -> list[tuple[float, float]]:
    """Scores with a trade-off over the cells, and noise of each image that is large beside the steps between neighbours."""
    rng = np.random.default_rng(0)
    noise = {cell: rng.normal(0, 1, (64, 2)) for cell in grid()}
    shift = rng.normal(0, 5, (64, 1))  # some images are harder, for all cells alike
    pairs = []
    for cell in cells:
        vivid = np.log(cell.steps) - abs(np.log(cell.final_variance / 0.02))
        faithful = -abs(np.log(cell.steps / 20)) - abs(np.log(cell.final_variance / 0.2))
        values = np.array([vivid, faithful]) + 0.2 * noise[cell] + shift
        pairs.append(tuple(values[list(images)].mean(0)))
    return pairs


def test_halving_finds_the_same_picks_at_a_fraction() -> None:
    cells, scored = grid(), []

    def score(alive, images):
        scored.append(len(alive))
        return constructed(alive, images)

    better = ('higher', 'higher')
    survivors, rounds = halve(cells, range(64), score, better)
    whole = np.array(constructed(cells, range(64)))
    assert set(whole.argmax(0)) <= set(survivors)
    assert [each.images for each in rounds] == [4, 8, 16, 32, 64] and [each.cells for each in rounds] == scored
    eliminated = [i for each in rounds for i in each.eliminated]
    assert sorted([*eliminated, *survivors]) == list(range(48))
    new = np.diff([0, *(each.images for each in rounds)])
    assert np.dot(new, scored) < 0.35 * 48 * 64
    assert halve(cells, range(3), constructed, better, first=4)[0] == list(range(48))  # no more images than the first round


def test_halving_works_fewer_units_and_records_who_left(run, calls, tmp_path: Path) -> None:
    cells = grid(steps=(1, 2, 3), final_variances=(0.1, 0.5))
    whole = run(cells, output='whole')
    calls.update(passes=0)
    halved = run(cells, halving=True, first_images=1)
    assert calls['passes'] <= 6 + 6 + 2 * 4 and halved.calls < halved.full_calls == whole.calls
    left = [row for row in halved.rows if row.eliminated]
    assert left and all(row.images < 4 and not row.on_front and not row.picks for row in left)
    assert all(row.scores == scores(whole)[row.cell] for row in halved.rows if not row.eliminated)
    rounds = json.loads((tmp_path / 'out/sweep.json').read_text())['rounds']
    assert [each['images'] for each in rounds] == [1, 2, 4] and sum(len(each['eliminated']) for each in rounds) == len(left)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('in_place', [True, False])
def test_path_is_stored_and_nothing_else_changes(suffix: str, in_place: bool, checkpoint, pairs, tmp_path, calls) -> None:
    if suffix == '.safetensors':
        params = {key: value.half() for key, value in read_checkpoint(checkpoint).params.items()}
        checkpoint = tmp_path / 'pair.safetensors'
        save_safetensors(checkpoint, params, {'network': NETWORK, 'iteration': 7})
    before, raw = read_checkpoint(checkpoint), checkpoint.read_bytes()
    target = checkpoint if in_place else tmp_path / f'copy{suffix}'
    command = ['sweep', '-w', str(checkpoint), '--gt', str(pairs / 'gt'), '--lq', str(pairs / 'lq'), '--metrics', 'psnr',
               '--steps', '1,2,3', '--final-variances', '0.1,0.5', '--perceptual', 'ssim3d', '--max-images', '2',
               '--device', 'cpu', '-o', str(tmp_path / 'out')]
    assert main([*command, '--store', str(target)]) == 0
    after = read_checkpoint(target)
    path = after.metadata.pop('tradeoff')
    assert path == json.loads((tmp_path / 'out/sweep.json').read_text())['path'] and path
    assert after.metadata == before.metadata and after.params.keys() == before.params.keys()
    for key, value in before.params.items():
        assert after.params[key].dtype == value.dtype and torch.equal(after.params[key], value)
    if suffix == '.pth':
        assert torch.load(target).keys() == {'params', 'params_ema', METADATA_KEY}
    assert in_place or checkpoint.read_bytes() == raw
    assert [point.as_options() for point in Deblurrer.from_pretrained(target, device='cpu').tradeoff_points] == path
    calls.update(passes=0)
    assert main(command) == 0 and calls['passes'] == 0  # the weights are the same, so nothing is done again


@pytest.mark.parametrize('arguments, words', [
    (['--gt', '{gt}', '--lq', '{lq}'], 'either -opt FILE or --weights NAME'),
    (['-w', '{net}'], '--data FOLDER, or --gt FOLDER and --lq'),
    (['-w', '{net}', '--gt', '{gt}'], 'both --gt FOLDER and --lq'),
    (['-w', '{net}', '--data', '{gt}'], 'no folders target'),
    (['-w', '{gt}', '--gt', '{gt}', '--lq', '{lq}'], 'is a folder'),
    (['-w', '{net}', '--gt', '{gt}', '--lq', '{lq}', '--steps', '1,x'],
     "--steps must be whole numbers joined by commas, got '1,x'"),
    (['-w', '{net}', '--gt', '{gt}', '--lq', '{lq}', '--final-variances', '2'], 'final_variance must be'),
    (['-w', '{net}', '--gt', '{gt}', '--lq', '{lq}', '--samplers', 'dimm'], 'ddim'),
    (['-w', '{net}', '--gt', '{gt}', '--lq', '{lq}', '--counts', '0'], 'num_samples must be'),
    (['-w', '{net}', '--gt', '{gt}', '--lq', '{lq}', '--perceptual', 'fid'], "cannot score by 'fid'"),
    (['-w', '{net}', '--gt', '{gt}', '--lq', '{lq}', '--perceptual', 'psnr'], 'both psnr'),
    (['-w', '{net}', '--gt', '{gt}', '--lq', '{lq}', '--max-images', '0'], '--max-images'),
    (['-w', '{net}', '--gt', '{gt}', '--lq', '{lq}', '--store', 'x.safetensors'], 'suffix must be .pth'),
    (['-w', '{net}', '--gt', '{gt}', '--lq', '{lq}', '--store', 'no/x.pth'], '--store does not exist'),
    (['-w', '{other}', '--gt', '{gt}', '--lq', '{lq}'], 'deterministic network'),
    (['-w', '{net}', '--gt', '{gt}', '--lq', '{lq}', '--store', '{other}'], 'holds another network'),
    (['-opt', '{opt}'], 'has no data sets'),
])
def test_bad_input_ends_with_a_sentence(arguments, words, checkpoint, pairs, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / 'other.pth'
    torch.save({'params': build_arch(unet()).state_dict(), METADATA_KEY: {'network': unet()}}, other)
    opt = write_yaml(tmp_path / 'opt.yml', {'name': 'x', 'network_g': NETWORK, 'path': {'pretrain_network_g': str(checkpoint)}})
    places = {'gt': pairs / 'gt', 'lq': pairs / 'lq', 'net': checkpoint, 'other': other, 'opt': opt}
    arguments = [argument.format(**places) for argument in arguments]
    arguments += [] if '--perceptual' in arguments else ['--perceptual', 'ssim3d', '--metrics', 'psnr']
    assert main(['sweep', '--device', 'cpu', '-o', str(tmp_path / 'out'), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith('Error: ') and '\n' not in error and words in error, error
    assert not (tmp_path / 'out').exists()


def test_interrupted_write_leaves_no_unit(run, calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it writes a unit's file, a sweep has no half of it: the unit is simply missing."""
    write, written = files.write_atomically, []

    def dies(path, function):
        written.append(path)
        if len(written) == 3:
            write(path, lambda temporary: (Path(temporary).write_text('{"scores'), (_ for _ in ()).throw(KeyboardInterrupt)))
        write(path, function)

    monkeypatch.setattr(files, 'write_atomically', dies)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(list((tmp_path / 'out/units').rglob('*.json'))) == 2
    monkeypatch.setattr(files, 'write_atomically', write)
    calls.update(passes=0)
    run()
    assert calls['passes'] == 14


def test_an_exact_image_is_counted_and_not_in_the_mean(run, monkeypatch, tmp_path: Path) -> None:
    """PSNR of images identical to their truth is infinite; here the first photo's are made so."""
    known, asked = sweep_units.metric_function, []

    def first_exact(key: str):
        def function(restored, gt):
            if key == 'psnr' and not any(np.array_equal(gt, seen) for seen in asked):
                asked.append(gt)
            return math.inf if key == 'psnr' and np.array_equal(gt, asked[0]) else known(key)(restored, gt)
        return function

    cells = grid(steps=(1, ), final_variances=(0.5, ))
    plain = run(cells, output='plain')
    monkeypatch.setattr(sweep_units, 'metric_function', first_exact)
    row, = run(cells).rows
    assert row.exact == 1 and math.isfinite(row.scores['psnr']) and row.scores['psnr'] != plain.rows[0].scores['psnr']
    assert '1 of 4 images exact' in run(cells).to_text()
    texts = [(tmp_path / 'out' / name).read_text() for name in ('cells.jsonl', 'sweep.json')]
    texts += [file.read_text() for file in (tmp_path / 'out/units').rglob('*.json')]
    assert len(texts) == 6 and not any('Infinity' in text or 'NaN' in text for text in texts)
