"""Deblurrer and ``stochastic-refine restore`` on real small photos."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from stochastic_refine import Deblurrer, InputError
from stochastic_refine.archs import PredictRefineNet
from stochastic_refine.checkpoints import save_safetensors, write_metadata
from stochastic_refine.cli import main
from stochastic_refine.inference.operating_point import OperatingPoint

PART = {'type': 'RefineUNet', 'base_channels': 4, 'num_res_blocks': 1, 'channel_mults': [1, 2]}
OPTIONS = {'predictor': PART, 'denoiser': {**PART, 'in_channels': 6, 'noise_conditioned': True}}
POINTS = {'vivid': {'steps': 2, 'final_variance': 0.5}, 'faithful': {'steps': 2, 'num_samples': 2, 'average': True}}


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained tiny pair."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
    metadata = {'network': {'type': 'PredictRefineNet', **OPTIONS}, 'operating_points': POINTS}
    save_safetensors(path, PredictRefineNet(**OPTIONS).state_dict(), metadata)
    return path


@pytest.fixture(scope='module')
def photo() -> np.ndarray:
    """A real photo, (40, 60, 3) uint8."""
    return data.astronaut()[100:140, 200:260]


def run(*arguments: object) -> int:
    """Run the command line."""
    return main([str(argument) for argument in arguments])


def test_kinds_of_images_agree(weights: Path, photo: np.ndarray, tmp_path: Path) -> None:
    deblurrer = Deblurrer.from_pretrained(weights, device='cpu', precision='float32')
    Image.fromarray(photo).save(tmp_path / 'photo.png')
    kinds = [photo, photo / np.float32(255), Image.fromarray(photo), tmp_path / 'photo.png',
             torch.from_numpy(photo).permute(2, 0, 1) / 255]
    results = [deblurrer(kind).image for kind in kinds]
    assert results[0].shape == photo.shape and results[0].dtype == np.float32
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=1e-6)


def test_samples_points_and_settings(weights: Path, photo: np.ndarray) -> None:
    deblurrer = Deblurrer.from_pretrained(weights, device='cpu', precision='float32')
    result = deblurrer(photo, samples=4)
    assert result.samples.shape == (4, *photo.shape)
    np.testing.assert_array_equal(result.image, result.samples[0])
    np.testing.assert_allclose(result.std, result.samples.std(0, ddof=1), atol=1e-6)
    average = deblurrer(photo, point='faithful')
    np.testing.assert_allclose(average.image, average.samples.mean(0), atol=1e-6)
    assert deblurrer.operating_point(seed=7, steps=3) == OperatingPoint(steps=3, final_variance=0.5, seed=7)
    with pytest.raises(InputError, match='vivid'):
        deblurrer(photo, point='vivd')


def test_command_writes_everything_and_skips_what_is_there(
        weights: Path, photo: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, out = tmp_path / 'in', tmp_path / 'out'
    source.mkdir()
    Image.fromarray(photo).save(source / 'a.png')
    Image.fromarray(photo[..., 0]).save(source / 'grey.jpg')
    command = ('restore', source, '-o', out, '-w', weights, '--samples', 2, '--save', 'image,initial,samples,std',
               '--device', 'cpu')
    assert run(*command) == 0
    names = {f'{stem}{part}' for stem in ('a', 'grey') for part in ('', '_initial', '_sample1', '_sample2')}
    assert {path.name for path in out.iterdir()} == {
        *(f'{name}.png' if name.startswith('a') else f'{name}.jpg' for name in names), 'a_std.png', 'grey_std.png'}
    assert Image.open(out / 'grey.jpg').mode == 'L'
    before = (out / 'a.png').stat().st_mtime_ns
    (out / 'grey.jpg').unlink()
    assert run(*command) == 0
    assert (out / 'grey.jpg').exists() and (out / 'a.png').stat().st_mtime_ns == before
    assert 'skipped' in capsys.readouterr().out


def test_one_photo_to_a_file_same_seed_same_bytes(weights: Path, photo: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(photo).save(tmp_path / 'a.png')
    for name, seed in (('x', 3), ('y', 3), ('z', 4)):
        assert run('restore', tmp_path / 'a.png', '-o', tmp_path / f'{name}.png', '-w', weights, '--seed', seed) == 0
    x, y, z = ((tmp_path / f'{name}.png').read_bytes() for name in 'xyz')
    assert x == y != z


@pytest.mark.parametrize('size', [(1, 1), (3, 500)])
def test_extreme_sizes(weights: Path, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert Deblurrer.from_pretrained(weights)(image, steps=1).image.shape == (*size, 3)


def test_a_bad_photo_does_not_stop_the_others(
        weights: Path, photo: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'a.png').write_bytes(b'no image')
    Image.fromarray(photo).save(tmp_path / 'in' / 'b.png')
    assert run('restore', tmp_path / 'in', '-o', tmp_path / 'out', '-w', weights) == 2
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['b.png']
    assert 'a.png' in capsys.readouterr().err


@pytest.mark.parametrize('arguments, word', [
    (['missing.png', '-o', 'out'], 'missing.png'),
    (['a.png', '-o', 'out', '-w', 'smal'], 'smal'),
    (['a.png', '-o', 'out', '-w', 'nowhere/x.pth'], 'nowhere'),
    (['a.png', '-o', 'out', '--save', 'imag'], 'image'),
    (['a.png', '-o', 'out', '--save', 'std'], 'samples'),
    (['a.png', '-o', 'out', '--sampler', 'dimm'], 'ddim'),
    (['a.png', '-o', 'out', '--steps', '0'], 'steps'),
    (['a.png', '-o', 'out', '--device', 'tpu'], 'tpu'),
    (['a.png', '-o', 'out', '--tile', '3'], '--tile'),
    (['a.png', '-o', 'out.xyz'], '.xyz'),
    (['a.png', '-o', '.'], 'overwritten'),
    (['a.png', 'in/a.png', '-o', 'out'], 'a.png and in/a.png would both be written to out/a.png'),
    (['a.png', 'a_std.png', '-o', 'out', '--samples', '2', '--save', 'image,std'], 'a.png and a_std.png would both be'),
    (['a.png', 'in/a.png', '-o', 'in'], 'in/a.png would be overwritten by what is made of a.png'),
    (['a.dat', '-o', 'out'], 'a.dat has no suffix that its result could be written with'),
    (['a.png', 'a.jpg', '-o', 'out.png'], 'out.png is a file for 2 photos'),
    (['a.png', '-o', 'file/out'], 'file/out'),
])
def test_bad_input_is_one_sentence(arguments: list[str], word: str, weights: Path, photo: np.ndarray, tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo).save('a.png')
    Image.fromarray(photo).save('a.jpg')
    Path('in').mkdir()
    for name in ('in/a.png', 'a_std.png', 'a.dat'):
        shutil.copy('a.png', name)
    Path('file').write_text('')
    if '-w' not in arguments:
        arguments = [*arguments, '-w', str(weights)]
    before = {path: path.read_bytes() for path in Path('.').rglob('*') if path.is_file()}
    assert run('restore', *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith('Error: ') and '\n' not in error and word in error
    assert {path: path.read_bytes() for path in Path('.').rglob('*') if path.is_file()} == before


def test_a_checkpoint_does_not_name_other_files_to_open(weights: Path, photo: np.ndarray, tmp_path: Path) -> None:
    """Its metadata came from anywhere: where its parts once started from is neither opened nor missed."""
    trap = tmp_path / 'trap.pth'
    trap.write_bytes(b'not to be opened')
    network = {'type': 'PredictRefineNet', **OPTIONS, 'predictor': {**PART, 'pretrained': str(trap)}}
    write_metadata(weights, tmp_path / 'own.safetensors', 'network', network)
    result, expected = (Deblurrer.from_pretrained(path, device='cpu', precision='float32')(photo).image
                        for path in (tmp_path / 'own.safetensors', weights))
    np.testing.assert_array_equal(result, expected)


@pytest.fixture(scope='module')
def weights_with_path(weights: Path) -> Path:
    """The same checkpoint with a path for the knob."""
    path = weights.with_stem('tiny_path')
    vivid = {'steps': 4, 'final_variance': 0.1}
    faithful = {'steps': 1, 'final_variance': 0.4, 'num_samples': 4, 'average': True}
    write_metadata(weights, path, 'tradeoff', [faithful, vivid])
    return path


def test_one_knob_chooses_the_settings(weights_with_path: Path, photo: np.ndarray, tmp_path: Path) -> None:
    deblurrer = Deblurrer.from_pretrained(weights_with_path, device='cpu', precision='float32')
    same = {0: {'steps': 1, 'final_variance': 0.4, 'samples': 4, 'average': True},
            0.5: {'steps': 2, 'final_variance': 0.2, 'samples': 2, 'average': True},
            1: {'steps': 4, 'final_variance': 0.1}}
    for knob, settings in same.items():
        expected = deblurrer(photo, seed=3, **settings).image
        np.testing.assert_allclose(deblurrer(photo, tradeoff=knob, seed=3).image, expected, atol=1e-6)
    assert len(deblurrer(photo, tradeoff=1, samples=2).samples) == 2  # one sample of several is no contradiction

    Image.fromarray(photo).save(tmp_path / 'a.png')
    command = ('restore', tmp_path / 'a.png', '-w', weights_with_path, '--device', 'cpu', '--precision', 'float32')
    assert run(*command, '-o', tmp_path / 'knob.png', '--tradeoff', 1) == 0
    assert run(*command, '-o', tmp_path / 'settings.png', '--steps', 4, '--final-variance', 0.1) == 0
    assert (tmp_path / 'knob.png').read_bytes() == (tmp_path / 'settings.png').read_bytes()


@pytest.mark.parametrize('arguments, words', [
    (['--tradeoff', '1.5'], 'from 0 (most faithful) to 1 (most vivid), got 1.5'),
    (['--tradeoff', '0', '--steps', '3'], 'chooses steps itself'),
    (['--tradeoff', '0', '--point', 'vivid', '--no-average'], 'chooses point and average itself'),
    (['--tradeoff', '0', '--samples', '3'], 'chooses samples itself'),
])
def test_knob_refuses_what_contradicts_it(arguments, words, weights_with_path, photo, tmp_path, capsys) -> None:
    Image.fromarray(photo).save(tmp_path / 'a.png')
    assert run('restore', tmp_path / 'a.png', '-o', tmp_path / 'out', '-w', weights_with_path, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith('Error: ') and '\n' not in error and words in error


def test_knob_needs_a_path(weights: Path, photo: np.ndarray) -> None:
    with pytest.raises(InputError, match='sweep --weights FILE .* --store FILE'):
        Deblurrer.from_pretrained(weights)(photo, tradeoff=0.5)


def test_foreign_checkpoint_is_refused_with_a_remedy(tmp_path: Path) -> None:
    torch.save({'params': {'a': torch.zeros(1)}}, tmp_path / 'x.pth')
    with pytest.raises(InputError, match='which network'):
        Deblurrer.from_pretrained(tmp_path / 'x.pth')
