"""Restoring a folder: over processes, with one of them killed, over a lost folder, and the same bytes in all cases."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import free_port, python_environment, unet
from PIL import Image

from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.cli import main
from stochastic_refine.inference import choice
from stochastic_refine.inference import folder as restore_folder

PAIR = {'type': 'PredictRefineNet', 'predictor': unet(), 'denoiser': unet(in_channels=6, noise_conditioned=True)}
#: The command line, in processes that note each photo they restore, one of which is killed at the photo ``KILL_AT``.
NOTING = '''
import os, signal, sys
from stochastic_refine.cli import main
from stochastic_refine.inference import choice
from stochastic_refine.inference import folder as restore_folder
restore = restore_folder._restore

def _restore(job, on_call=None):
    if job.photo.name == os.environ.get('KILL_AT'):
        os.kill(os.getpid(), signal.SIGKILL)
    with open(os.environ['NOTES'], 'a') as file:
        print(job.photo.name, file=file)
    return restore(job, on_call)

restore_folder._restore = _restore
if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
'''


def save_network(path: Path, network: dict) -> Path:
    torch.manual_seed(0)
    save_safetensors(path, build_arch(network).state_dict(), {'network': network, 'operating_points': {'vivid': {'steps': 2}}})
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_network(tmp_path / 'tiny.safetensors', PAIR)


@pytest.fixture
def blurred(pairs: Path, tmp_path: Path) -> Path:
    """Five photos of different sizes, an odd number, and one of them grey JPEG."""
    folder = tmp_path / 'blurred'
    shutil.copytree(pairs / 'lq', folder)
    with Image.open(folder / 'rocket.png') as image:
        image.resize((200, 64)).save(folder / 'rocket.png')  # too wide for one tile
    with Image.open(folder / 'coffee.png') as image:
        image.crop((0, 0, 50, 41)).save(folder / 'coffee.png')
        image.convert('L').save(folder / 'tea.jpg')
    return folder


@pytest.fixture
def command(blurred: Path, weights: Path):
    """A function that gives the arguments of ``restore`` into a folder."""
    return lambda out, *options: ['restore', str(blurred), '-o', str(out), '-w', str(weights), '--device', 'cpu',
                                  '--samples', '2', '--precision', 'float32', '--save', 'image,samples', *options]


@pytest.fixture
def noted(tmp_path: Path):
    """A function that runs the command line in a process of its own: what ended, and which photos it restored."""
    script, notes = tmp_path / 'noting.py', tmp_path / 'notes'
    script.write_text(NOTING)

    def run(arguments: list[str], *launcher: str, kill_at: str = '') -> tuple[subprocess.CompletedProcess, list[str]]:
        notes.write_text('')
        done = subprocess.run([sys.executable, *launcher, str(script), *arguments], capture_output=True, text=True, timeout=900,
                              env={**python_environment(), 'NOTES': str(notes), 'KILL_AT': kill_at})
        return done, sorted(notes.read_text().split())

    return run


def torchrun() -> tuple[str, ...]:
    return '-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={free_port()}'


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize('launch, options', [(tuple, ['--workers', '2']), pytest.param(torchrun, [], marks=pytest.mark.slow)])
def test_killing_a_process_loses_its_photo_alone(launch, options, noted, command, blurred, tmp_path, monkeypatch) -> None:
    """Repeated, the command does what is missing, and all has the bytes of one process."""
    assert main(command(tmp_path / 'one')) == 0
    photos, expected, out = sorted(path.name for path in blurred.iterdir()), contents(tmp_path / 'one'), tmp_path / 'out'
    run, restored = noted(command(out, *options), *launch(), kill_at=photos[3])
    assert run.returncode in (1, 2)
    if launch is tuple:  # torchrun itself ends all processes when one has died
        assert restored == [name for name in photos if name != photos[3]]
        assert run.stderr.splitlines()[-1].startswith('Error: 1 of 5 photos are not done') and 'Traceback' not in run.stderr
    done = {name: content for name, content in contents(out).items() if not name.startswith('.')}
    assert done.items() <= expected.items(), 'half-written'

    again, restore = [], restore_folder._restore
    monkeypatch.setattr(restore_folder, '_restore', lambda job, *rest: (again.append(job.photo.name), restore(job, *rest))[1])
    assert main(command(out)) == 0
    results = {name: {name, *(f'{Path(name).stem}_sample{i}{Path(name).suffix}' for i in (1, 2))} for name in photos}
    assert again == [name for name in photos if not results[name] <= done.keys()] and photos[3] in again
    assert {name: content for name, content in contents(out).items() if not name.startswith('.')} == expected


def test_processes_share_the_photos(ranks, command, blurred, tmp_path) -> None:
    assert main(command(tmp_path / 'one')) == 0
    (blurred / 'bad.png').write_bytes(b'')  # the process that it falls to waits for the other before it ends with an error
    _, two = ranks(2, *command(tmp_path / 'out'))
    assert sorted(two.codes) == [0, 2] and 'bad.png' in two.errors[two.codes.index(2)]
    assert [len(images) for images in two.images] == [3, 3]
    assert sorted(sum(two.images, [])) == sorted(path.name for path in blurred.iterdir())
    assert contents(tmp_path / 'out') == contents(tmp_path / 'one')


def test_a_sample_has_the_same_bytes_however_it_is_drawn(command, tmp_path) -> None:
    """Alone, beside others, again; in tiles up to float rounding, which the 8 bits of a file all but hide."""
    out = tmp_path / 'out'
    ways = {'two': [], 'again': [], 'one': ['--samples', '1'], 'tiles': ['--tile', '64'], 'tiles_again': ['--tile', '64'],
            'other': ['--seed', '5']}
    for name, options in ways.items():
        assert main(command(out / name, *options)) == 0
    assert contents(out / 'two') == contents(out / 'again')
    assert contents(out / 'tiles') == contents(out / 'tiles_again')
    two, one, tiles, other = (np.asarray(Image.open(out / name / 'rocket.png')).astype(int)
                              for name in ('two', 'one', 'tiles', 'other'))
    assert (two == one).all() and (two != other).any()
    assert np.abs(two - tiles).max() <= 1 and (two != tiles).mean() < 0.01


def test_a_folder_that_vanishes_ends_the_run(command, blurred, tmp_path, monkeypatch, capsys) -> None:
    write, restored = restore_folder._write, []

    def write_and_lose(result, target, save) -> None:
        write(result, target, save)
        restored.append(target.name)
        if len(restored) == 2:
            blurred.rename(tmp_path / 'away')

    monkeypatch.setattr(restore_folder, '_write', write_and_lose)
    assert main(command(tmp_path / 'out')) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if 'Error' in line]
    assert len(errors) == 1 and f'Folder {blurred} is there no longer' in errors[0]
    (tmp_path / 'away').rename(blurred)
    assert main(command(tmp_path / 'out')) == 0
    assert len(restored) == len(set(restored)) == 5


def test_what_does_not_fit_into_memory_is_left_out(command, tmp_path, monkeypatch, capsys) -> None:
    call = restore_folder.Deblurrer.__call__

    def large(self, photo, **options):
        if photo.name == 'coffee.png':
            torch.empty(2**60)
        return call(self, photo, **options)

    monkeypatch.setattr(restore_folder.Deblurrer, '__call__', large)
    assert main(command(tmp_path / 'out')) == 2
    error = capsys.readouterr().err
    assert 'coffee.png does not fit into memory' in error and '--tile 512' in error and '1 of 5 photos' in error
    assert len(contents(tmp_path / 'out')) == 4 * 3


def test_subfolders_suffixes_and_strangers(weights, photos, tmp_path, monkeypatch, capsys) -> None:
    """Camera folders repeat names, browsers save .jfif, phones .heic; an output folder may have a dot and lie inside."""
    monkeypatch.chdir(tmp_path)
    for name in ('card/100/IMG_1.jpg', 'card/101/IMG_1.jpg', 'card/101/IMG_1.png', 'card/b.jfif', 'card/c.heic', 'card/d.gif',
                 'card/e.gif', 'card/Thumbs.db', 'card/.hidden.gif'):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        with Image.open(photos / 'coffee.png') as image:
            image.resize((24, 16)).save(name, format='PNG' if name.endswith('png') else 'JPEG')
    expected = {'100/IMG_1.jpg', '101/IMG_1.jpg', '101/IMG_1.png', 'b.jfif'}
    command = ['restore', 'card', '--recursive', '-w', str(weights), '--device', 'cpu', '-o']
    for out in ('out.2026/', 'card/out'):
        assert main([*command, out]) == 0
        assert {path.relative_to(out).as_posix() for path in Path(out).rglob('*.*')} == expected
        error = capsys.readouterr().err
        assert 'Note: passed over 2 .gif, 1 .heic' in error and '.db' not in error
    assert main([*command, 'card/out']) == 0  # its results are not photos of a second run
    assert {path.relative_to('card/out').as_posix() for path in Path('card/out').rglob('*.*')} == expected
    assert main(['restore', 'card/10*/*.jpg', '-w', str(weights), '--device', 'cpu', '-o', 'pattern']) == 0
    assert {path.as_posix() for path in Path('pattern').rglob('*.*')} == {'pattern/100/IMG_1.jpg', 'pattern/101/IMG_1.jpg'}


def test_what_a_result_does_not_keep_is_told(weights, photos, tmp_path, capsys) -> None:
    with Image.open(photos / 'coffee.png') as image:
        small = image.resize((24, 16))
    for name in ('a.webp', 'b.tif'):
        small.save(tmp_path / name, save_all=True, append_images=[small.rotate(90), small.rotate(180)])
    small.save(tmp_path / 'c.png')
    command = ['restore', *(str(tmp_path / name) for name in ('a.webp', 'b.tif', 'c.png')), '-w', str(weights)]
    assert main([*command, '--device', 'cpu', '-o', str(tmp_path / 'out')]) == 0
    error = capsys.readouterr().err
    for name in ('a.webp', 'b.tif'):
        assert f'{name} does not keep 2 of its 3 frames or pages' in error
    assert 'c.png does not' not in error


@pytest.mark.parametrize('network, save, words', [
    (unet(), 'image,std', 'RefineUNet is deterministic'),
    ({'type': 'PredictRefineNet', 'denoiser': unet(in_channels=6, noise_conditioned=True), 'predictor': None},
     'initial', 'no initial'),
    (PAIR, 'std', 'at least two samples'),
])
def test_what_a_network_does_not_have_is_refused_before_any_work(network, save, words, blurred, tmp_path, capsys) -> None:
    path = save_network(tmp_path / 'net.safetensors', network)
    assert main(['restore', str(blurred), '-o', str(tmp_path / 'out'), '-w', str(path), '--save', save]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith('Error: ') and '\n' not in error and words in error
    assert not (tmp_path / 'out').exists()


def test_a_stopped_run_goes_on_with_the_weights_it_chose(blurred, weights, tmp_path, monkeypatch) -> None:
    """Though the machine is slower by then, and nothing is chosen or loaded where all is there."""
    user, used, out = tmp_path / 'user', [], tmp_path / 'out'
    user.mkdir()
    shutil.copy(weights, user / 'maxim-gopro.safetensors')
    monkeypatch.setenv('STOCHASTIC_REFINE_WEIGHTS', str(user))
    restore = restore_folder._restore

    def noting(job, *rest):
        if len(used) == 2:
            used.append('stopped')
            raise KeyboardInterrupt
        used.append(dict(job.loading)['weights'])
        return restore(job, *rest)

    monkeypatch.setattr(restore_folder, '_restore', noting)
    monkeypatch.setattr(choice, 'expected_seconds', lambda deblurrer, size: 1.0)
    command = ['restore', str(blurred), '-o', f'{out}/', '--device', 'cpu']
    assert main(command) == 130
    monkeypatch.setattr(choice, 'expected_seconds', lambda deblurrer, size: 1e6)
    assert main(command) == 0
    assert used == ['maxim-gopro'] * 2 + ['stopped'] + ['maxim-gopro'] * 3
    assert sorted(contents(out)) == sorted(path.name for path in blurred.iterdir())
    monkeypatch.setattr(restore_folder, 'choose', lambda *_: pytest.fail('chosen for nothing'))
    assert main(command) == 0
