"""``stochastic-refine evaluate``, whole: restoring, scoring, the table, and going on where it stopped."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import python_environment, unet, write_yaml
from PIL import Image

from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import METADATA_KEY
from stochastic_refine.cli import main
from stochastic_refine.comparison import provenance, restoring, scoring, systems
from stochastic_refine.comparison.complexity import Complexity
from stochastic_refine.comparison.evaluate import evaluate
from stochastic_refine.comparison.scoring import METRIC_NOTES
from stochastic_refine.comparison.tables import Table
from stochastic_refine.inference.deblurrer import Deblurrer
from stochastic_refine.sweep.units import weights_fingerprint

METRICS = ('psnr', 'ssim3d')
PAIR = {'type': 'PredictRefineNet', 'predictor': unet(), 'denoiser': unet(in_channels=6, noise_conditioned=True)}
POINTS = {'vivid': {'steps': 2, 'seed': 5}, 'faithful': {'steps': 2, 'num_samples': 3, 'average': True}}


def save_network(path: Path, network: dict, points: dict | None = None, seed: int = 0) -> Path:
    """A checkpoint of an untrained network, as training would write it."""
    torch.manual_seed(seed)
    content = {'params': build_arch(network).state_dict(), METADATA_KEY: {'network': network, 'operating_points': points or {}}}
    torch.save(content, path)
    return path


@pytest.fixture
def pair_checkpoint(tmp_path: Path) -> Path:
    return save_network(tmp_path / 'pair.pth', PAIR, POINTS)


@pytest.fixture
def run(pairs: Path, tmp_path: Path):
    """``evaluate`` on the tiny pairs."""

    def run(*systems: str, **options) -> Table:
        options = {'metrics': METRICS, 'output': tmp_path / 'out', 'device': 'cpu', **options}
        return evaluate(systems, pairs / 'gt', pairs / 'lq', **options)

    return run


def score(table: Table, row: str, key: str):
    return next(r for r in table.rows if r.name == row).scores[key]


def test_folder_scores_are_basicsrs_own(run, pairs: Path, tmp_path: Path) -> None:
    from stochastic_refine.registration import register_all
    register_all()
    import cv2
    from basicsr.metrics import calculate_psnr
    table = run(f'blurred={pairs / "lq"}', metrics=('psnr', 'ssim', 'ssim3d', 'niqe'))
    names = sorted(path.name for path in (pairs / 'gt').iterdir())
    expected = [calculate_psnr(cv2.imread(str(pairs / 'lq' / name)), cv2.imread(str(pairs / 'gt' / name)), crop_border=0)
                for name in names]
    assert score(table, 'blurred', 'psnr').mean == pytest.approx(statistics.fmean(expected), abs=1e-9)
    assert score(table, 'blurred', 'psnr') == score(table, 'input', 'psnr')
    assert score(table, 'Ground Truth', 'psnr').mean == float('inf') and score(table, 'Ground Truth', 'ssim3d').mean == 1
    assert score(table, 'blurred', 'niqe').missing  # 72x64 pixels have no two blocks of 96x96
    assert any('too small' in note for note in table.notes)
    assert METRIC_NOTES['niqe'] in table.notes and METRIC_NOTES['niqe'] not in run(f'blurred={pairs / "lq"}').notes
    with (tmp_path / 'out' / 'scores.csv').open() as file:
        lines = list(csv.DictReader(file))
    of_one = [float(line['score']) for line in lines if (line['row'], line['metric']) == ('blurred', 'psnr')]
    assert of_one == pytest.approx(expected)


def strict_json(path: Path) -> object:
    """The content of a file that any parser of JSON reads: no NaN and no Infinity."""
    def refuse(constant: str) -> None:
        raise AssertionError(f'{path} has {constant}')

    return json.loads(path.read_text(), parse_constant=refuse)


def test_exact_images_are_counted_and_not_in_the_mean(run, pairs: Path, tmp_path: Path) -> None:
    shutil.copytree(pairs / 'lq', tmp_path / 'x')
    shutil.copy(pairs / 'gt' / 'coffee.png', tmp_path / 'x' / 'coffee.png')
    table = run(f'x={tmp_path / "x"}', f'truth={pairs / "gt"}')
    with (tmp_path / 'out' / 'scores.csv').open() as file:
        others = [float(line['score']) for line in csv.DictReader(file)
                  if (line['row'], line['metric']) == ('x', 'psnr') and line['image'] != 'coffee']
    found = score(table, 'x', 'psnr')
    assert found.mean == pytest.approx(statistics.fmean(others)) and found.exact == 1 and len(others) == 3
    assert f'{found.mean:.2f} (+1 exact)' in (tmp_path / 'out/table.md').read_text()
    assert any(note.startswith('x: 1 of 4 images are exactly the truth') for note in table.notes)
    assert table.settings['exact images, not in the means'] == {'x': {'psnr': 1}}
    assert score(table, 'x', 'ssim3d').exact == 0 and score(table, 'truth', 'psnr').mean == float('inf')
    files = list((tmp_path / 'out').rglob('*.json'))
    assert len(files) > 4 and all(strict_json(file) for file in files)
    assert Table.from_json((tmp_path / 'out/table.json').read_text()).rows == table.rows
    assert run(f'x={tmp_path / "x"}', f'truth={pairs / "gt"}').rows == table.rows  # from the cache


def test_folders_are_seeds_and_one_may_be_perfect(run, pairs: Path) -> None:
    table = run(f'x={pairs / "lq"},{pairs / "gt"}')
    assert score(table, 'x', 'psnr').mean == pytest.approx(score(table, 'input', 'psnr').mean)
    assert score(table, 'x', 'psnr').exact == 4 and score(table, 'x', 'psnr').spread is None
    mean = (1 + score(table, 'input', 'ssim3d').mean) / 2
    assert score(table, 'x', 'ssim3d').mean == pytest.approx(mean) and score(table, 'x', 'ssim3d').spread > 0


def test_network_is_restored_as_the_deblurrer_does(run, pair_checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    table = run(f'ours={pair_checkpoint}', seeds=2)
    assert [row.name for row in table.rows] == ['Ground Truth', 'input', 'ours (initial)', 'ours (vivid)', 'ours (faithful)']
    lq = pairs / 'lq' / 'coffee.png'
    deblurrer = Deblurrer.from_pretrained(pair_checkpoint, device='cpu', precision='float32')
    folder = tmp_path / 'out/restored/ours'
    cases = {'initial/coffee.png': deblurrer(lq).initial, 'vivid/seed0/coffee.png': deblurrer(lq, point='vivid').image,
             'vivid/seed1/coffee.png': deblurrer(lq, point='vivid', seed=6).image,
             'faithful/seed1/coffee.png': deblurrer(lq, point='faithful', seed=3).image}
    for file, expected in cases.items():
        assert np.array_equal(np.asarray(Image.open(folder / file)), np.rint(expected * 255).astype(np.uint8)), file
    vivid = score(table, 'ours (vivid)', 'psnr')
    by_seed: dict[str, list[float]] = {'0': [], '1': []}
    with (tmp_path / 'out/scores.csv').open() as file:
        for line in csv.DictReader(file):
            if (line['row'], line['metric']) == ('ours (vivid)', 'psnr'):
                by_seed[line['seed']].append(float(line['score']))
    means = [statistics.fmean(values) for values in by_seed.values()]
    assert vivid.mean == pytest.approx(statistics.fmean(means))
    assert vivid.spread == pytest.approx(statistics.stdev(means)) and vivid.spread > 0
    assert score(table, 'ours (initial)', 'psnr').spread is None


def test_costs_and_settings_stand_beside_the_scores(run, pair_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip('mmengine')  # counts the operations
    table = run(f'ours={pair_checkpoint}', metrics=('psnr', ))
    params = [sum(p.numel() for p in build_arch(PAIR[part]).parameters()) / 1e6 for part in ('predictor', 'denoiser')]
    assert score(table, 'ours (initial)', 'params').mean == pytest.approx(params[0])
    assert score(table, 'ours (vivid)', 'params').mean == pytest.approx(sum(params))
    initial, vivid, faithful = (score(table, f'ours ({name})', 'gflops').mean for name in ('initial', 'vivid', 'faithful'))
    assert faithful - initial == pytest.approx(3 * (vivid - initial))  # six calls of the denoiser against two
    assert score(table, 'ours (vivid)', 'seconds').mean > score(table, 'ours (initial)', 'seconds').mean > 0
    record = json.loads((tmp_path / 'out/table.json').read_text())['settings']
    assert record['systems']['ours']['operating_points']['vivid']['seed'] == 5
    assert record['systems']['ours']['checkpoint_sha256'] and record['machine']
    assert torch.__version__.startswith(record['versions']['torch'])
    for suffix in ('csv', 'md', 'tex'):
        assert 'ours (vivid)' in (tmp_path / f'out/table.{suffix}').read_text()


def test_stopped_run_goes_on_and_changed_contents_are_done_again(run, pair_checkpoint, pairs, tmp_path, monkeypatch) -> None:
    first = run(f'ours={pair_checkpoint}')
    restored, scored = [], []
    write, decode = restoring.write_recorded, scoring.read_rgb
    monkeypatch.setattr(restoring, 'write_recorded', lambda path, *rest: (restored.append(path), write(path, *rest)))
    monkeypatch.setattr(scoring, 'read_rgb', lambda path: (scored.append(path), decode(path))[1])
    again = run(f'ours={pair_checkpoint}')
    assert not restored and not scored and again.rows == first.rows

    (tmp_path / 'out/restored/ours/vivid/seed0/coffee.png').unlink()
    Image.new('RGB', (72, 64)).save(tmp_path / 'out/restored/ours/initial/rocket.png')  # not what the network made
    assert [row.scores['psnr'] for row in run(f'ours={pair_checkpoint}').rows] == [row.scores['psnr'] for row in first.rows]
    assert {path.name for path in restored} == {'coffee.png', 'rocket.png'}
    assert {path.name for path in scored} <= {'coffee.png', 'rocket.png'}  # less if a file is the same again to the byte

    save_network(pair_checkpoint, PAIR, POINTS, seed=1)
    other = run(f'ours={pair_checkpoint}')
    assert score(other, 'ours (initial)', 'psnr') != score(first, 'ours (initial)', 'psnr')


def test_other_code_versions_tiles_and_precisions_make_results_anew(run, pair_checkpoint, monkeypatch) -> None:
    restored, scored = [], []
    write, decode = restoring.write_recorded, scoring.read_rgb
    monkeypatch.setattr(restoring, 'write_recorded', lambda path, *rest: (restored.append(path), write(path, *rest)))
    monkeypatch.setattr(scoring, 'read_rgb', lambda path: (scored.append(path), decode(path))[1])
    monkeypatch.setattr(sys.modules[evaluate.__module__], '_complexities', lambda network: [Complexity(1)] * 3)
    images = 2 * 3  # of the initial prediction and two points

    def done(**options) -> tuple[int, bool]:
        restored.clear()
        scored.clear()
        run(f'ours={pair_checkpoint}', metrics=('psnr', ), max_images=2, **options)
        return len(restored), bool(scored)

    assert done() == (images, True) and done() == (0, False)
    assert done(precision='bfloat16') == (images, True) and done(precision='bfloat16') == (0, False)
    monkeypatch.setattr(provenance, 'source_hash', lambda: 'edited')
    assert done(precision='bfloat16') == (images, True) and done(precision='bfloat16') == (0, False)
    monkeypatch.setattr(provenance.torch, '__version__', '9.9')
    assert done(precision='bfloat16') == (images, True)
    monkeypatch.setattr(scoring, 'version_of', lambda package: '9.9')
    assert done(precision='bfloat16') == (0, True) and done(precision='bfloat16') == (0, False)
    network = systems.parse_system(f'ours={pair_checkpoint}')
    changes = ({}, {'tile': 32}, {'window': 32}, {'precision': 'bfloat16'})
    others = [dataclasses.replace(network, **change) for change in changes]
    assert len({other.fingerprint for other in others}) == len({weights_fingerprint(other) for other in others}) == 4
    auto = dataclasses.replace(network, tile='auto')
    before = auto.fingerprint
    monkeypatch.setattr(systems, 'total_memory', lambda device: 2**30)
    assert auto.fingerprint != before and network.fingerprint == others[0].fingerprint


def test_images_are_whole_unless_told_and_the_table_says(run, pair_checkpoint, monkeypatch) -> None:
    from stochastic_refine.inference import restorer
    tiles = []
    tiled = restorer.TiledNet
    monkeypatch.setattr(restorer, 'TiledNet', lambda net, tile, on_call: tiles.append(tile) or tiled(net, tile, on_call))
    assert not any('tiles' in note for note in run(f'pair={pair_checkpoint}', max_images=1).notes) and set(tiles) == {None}
    notes = run(f'pair={pair_checkpoint}', max_images=1, tile=64).notes
    assert 'pair: restored in tiles (64)' in ' '.join(notes) and tiles[-1] == 64


def test_the_source_hash_is_of_contents_and_names(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(provenance, '_PACKAGE', tmp_path)
    seen = []
    for name, text in (('a.py', 'x = 1'), ('a.py', 'x = 2'), ('b.py', ''), ('notes.txt', 'x')):
        (tmp_path / name).write_text(text)
        seen.append(provenance.source_hash.__wrapped__())
    assert len(set(seen)) == 3 and seen[2] == seen[3]


def test_times_of_another_setup_are_not_shown(run, pair_checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules[evaluate.__module__], '_complexities', lambda network: [Complexity(1)] * 3)
    here = score(run(f'ours={pair_checkpoint}'), 'ours (vivid)', 'seconds')
    assert not here.missing and score(run(f'ours={pair_checkpoint}'), 'ours (vivid)', 'seconds') == here
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(provenance, 'machine', lambda device: 'Another Machine')
        moved = run(f'ours={pair_checkpoint}')
        assert 'seconds' not in next(row for row in moved.rows if row.name == 'ours (vivid)').scores
        assert any('ours (vivid): restored before under another setup' in note for note in moved.notes)
        shutil.rmtree(tmp_path / 'out/restored/ours/vivid')
        assert not score(run(f'ours={pair_checkpoint}'), 'ours (vivid)', 'seconds').missing
    assert 'seconds' not in next(row for row in run(f'ours={pair_checkpoint}').rows if row.name == 'ours (vivid)').scores


def test_worker_processes_and_torchrun_give_the_same(run, pair_checkpoint: Path, pairs: Path, tmp_path: Path) -> None:
    expected = [row.scores['psnr'] for row in run(f'ours={pair_checkpoint}').rows]
    assert [row.scores['psnr'] for row in run(f'ours={pair_checkpoint}', output=tmp_path / 'two', workers=2).rows] == expected
    command = ['torch.distributed.run', '--nproc_per_node=2', '--master_port=29731', '-m', 'stochastic_refine.cli', 'evaluate',
               f'ours={pair_checkpoint}', '--gt', str(pairs / 'gt'), '--lq', str(pairs / 'lq'), '--metrics', 'psnr,ssim3d',
               '-o', str(tmp_path / 'ranks')]
    subprocess.run([sys.executable, '-m', *command], check=True, timeout=900, env=python_environment(), cwd=tmp_path)
    table = Table.from_json((tmp_path / 'ranks/table.json').read_text())
    assert [row.scores['psnr'] for row in table.rows] == expected


def test_options_files_of_training_and_test(run, pairs: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = tmp_path / 'experiments/tiny/models'
    models.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save({'params': build_arch(unet()).state_dict()}, models / 'net_g_latest.pth')
    train = write_yaml(tmp_path / 'train.yml', {'name': 'tiny', 'network_g': unet(), 'train': {}})
    test = write_yaml(tmp_path / 'test.yml', {'name': 'other', 'network_g': unet(), 'val': {'grids': True, 'crop_size': 32},
                                              'path': {'pretrain_network_g': str(models / 'net_g_latest.pth')}})
    table = run(f'trained={train}', f'windows={test}')
    assert score(table, 'trained', 'psnr').mean != score(table, 'windows', 'psnr').mean
    shutil.rmtree(models)
    with pytest.raises(Exception, match='net_g_latest.pth that .*train.yml names do not exist'):
        run(f'trained={train}')


@pytest.mark.parametrize('arguments, named', [
    (['x={out}'], "'{out}' is no folder"),
    (['x={gt}', 'x={lq}'], "'x' is given to more than one row"),
    (['=y'], 'NAME=FOLDER'),
    (['x={lq}', '--metrics', 'psnr,lpipz'], 'did you mean lpips'),
    (['x={lq}', '--metrics', ','], 'No metric'),
    (['x={lq}', '--seeds', '0'], '--seeds'),
    (['x={lq}', '--protocol', 'gopor'], 'gopro'),
    (['x={missing}'], 'missing.yml cannot be read'),
])
def test_bad_input_ends_with_a_sentence(arguments, named, pairs, tmp_path, capsys) -> None:
    places = {'gt': pairs / 'gt', 'lq': pairs / 'lq', 'out': tmp_path / 'out', 'missing': tmp_path / 'missing.yml'}
    arguments = [argument.format(**places) for argument in arguments]
    assert main(['evaluate', '--gt', str(pairs / 'gt'), '-o', str(tmp_path / 'results'), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith('Error: ') and error.count('\n') == 1 and named.format(**places) in error
    assert not (tmp_path / 'results').exists()


def test_network_without_blurred_images_and_damaged_images(pair_checkpoint, pairs, tmp_path, capsys) -> None:
    command = ['evaluate', '--gt', str(pairs / 'gt'), '-o', str(tmp_path / 'out'), '--metrics', 'psnr']
    assert main([*command, f'ours={pair_checkpoint}']) == 2
    assert '--lq' in capsys.readouterr().err
    damaged = tmp_path / 'damaged'
    shutil.copytree(pairs / 'lq', damaged)
    os.truncate(damaged / 'coffee.png', 3000)  # the header is whole
    assert main([*command, f'x={damaged}']) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('Error: ')]
    assert len(errors) == 1 and 'coffee.png' in errors[0]


def test_unavailable_metric_is_left_out_with_one_line(run, pairs, monkeypatch, capsys) -> None:
    from stochastic_refine.errors import MetricUnavailable
    known = scoring.metric_function

    def without_lpips(key: str):
        if key == 'lpips':
            raise MetricUnavailable('The metric LPIPS needs weights.')
        return known(key)

    monkeypatch.setattr(scoring, 'metric_function', without_lpips)
    table = run(f'x={pairs / "lq"}', metrics=('psnr', 'lpips'))
    assert capsys.readouterr().out.count('Left out: The metric LPIPS') == 1
    assert [column.key for column in table.columns][:2] == ['lpips', 'psnr']  # the column stays, with dashes
    assert 'lpips' not in table.rows[-1].scores and '–' in table.to_text() and 'The metric LPIPS needs weights.' in table.notes


def test_fid_and_kid_compare_patches(tmp_path, monkeypatch) -> None:
    """Features stand in for Inception's; what is tested is which patches are compared, and the notes."""
    pytest.importorskip('torch_fidelity')
    rng = np.random.default_rng(0)
    for side in ('gt', 'x'):
        (tmp_path / side).mkdir()
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (480, 256, 3), dtype=np.uint8)).save(tmp_path / side / f'{i}.png')
    seen = []

    def features(images):
        images = list(images)
        seen.extend(image.shape for image in images)
        return np.array([[image[..., c].mean() for c in range(3)] for image in images], dtype=np.float32)

    monkeypatch.setattr(scoring, 'inception_features', features)
    table = evaluate([f'x={tmp_path / "x"}'], tmp_path / 'gt', metrics=('fid', 'kid'), output=tmp_path / 'out', device='cpu')
    assert seen[1:] == [(240, 256, 3)] * 12  # two patches of each image; the first is the probe
    assert score(table, 'x', 'fid').mean > 0 and 'fid' not in table.rows[0].scores
    assert any('6 patches' in note and 'fewer than 1000' in note for note in table.notes)


def test_realblur_pairs_are_aligned_first(tmp_path, monkeypatch) -> None:
    import skimage.data

    from stochastic_refine.comparison import protocols
    photo = Image.fromarray(skimage.data.astronaut()).resize((260, 260))
    for side, box in (('gt', (20, 20, 220, 220)), ('x', (22, 21, 222, 221))):
        (tmp_path / side).mkdir()
        photo.crop(box).save(tmp_path / side / 'a.png')
    systems, options = [f'x={tmp_path / "x"}'], {'metrics': ('psnr', 'ssim'), 'device': 'cpu'}
    plain = evaluate(systems, tmp_path / 'gt', output=tmp_path / 'out', **options)
    monkeypatch.setitem(protocols.PROTOCOLS, 'realblur_j', protocols.Protocol('realblur_j', 1, aligned=True))
    aligned = evaluate(systems, tmp_path / 'gt', protocol='realblur_j', output=tmp_path / 'out', **options)
    assert score(plain, 'x', 'psnr').mean < 25 < 35 < score(aligned, 'x', 'psnr').mean
    assert score(aligned, 'x', 'ssim').mean > 0.98 > score(plain, 'x', 'ssim').mean
