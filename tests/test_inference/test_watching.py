"""A watched folder: photos are restored when they are whole, each once, and a broken one is told once."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import unet
from PIL import Image

from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.cli import main
from stochastic_refine.inference import watching


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that watches ``in`` while steps are done, one before each look, and gives the exit code.

    Returns also how often each photo was restored.
    """
    torch.manual_seed(0)
    net, file = unet(), tmp_path / 'net.safetensors'
    save_safetensors(file, build_arch(net).state_dict(), {'network': net})
    (tmp_path / 'in').mkdir()
    restored: list[str] = []
    restore = watching.restore_photos

    def noting(inputs, *args, **options) -> int:
        restored.extend(Path(given).name for given in inputs)
        return restore(inputs, *args, **options)

    def run(*steps, out: str = 'out', options=(), folders=('in', )) -> tuple[int, list[str]]:
        left = [*steps, None, None]

        def sleep(_: float) -> None:
            if not left:
                raise KeyboardInterrupt
            step = left.pop(0)
            if step:
                step()

        monkeypatch.setattr(watching.time, 'sleep', sleep)
        restored.clear()
        code = main(['restore', '--watch', *(str(tmp_path / folder) for folder in folders), '-o', str(tmp_path / out),
                     '-w', str(file), '--device', 'cpu', *options])
        return code, list(restored)

    monkeypatch.setattr(watching, 'restore_photos', noting)
    return run


def test_a_photo_is_restored_when_it_is_whole_and_once(watch, photos, tmp_path, capsys) -> None:
    """Also one whose copying pauses, one in a folder inside, and with the results inside the watched folder."""
    content, late = (photos / 'coffee.png').read_bytes(), tmp_path / 'in' / 'sub' / 'late.png'
    late.parent.mkdir()
    shutil.copy(photos / 'rocket.png', tmp_path / 'in')
    half = [lambda: late.write_bytes(content[:len(content) // 2]), None, None, None]
    code, restored = watch(*half, lambda: late.write_bytes(content), None, out='in/out', options=['--recursive'])
    assert code == 0 and restored == ['rocket.png', 'late.png']
    assert Image.open(tmp_path / 'in' / 'out' / 'sub' / 'late.png').size == (72, 64)
    said = capsys.readouterr()
    assert 'Error' not in said.err and '2 photos restored' in said.out
    code, restored = watch(out='in/out', options=['--recursive'])  # again: what is there is skipped
    assert code == 0 and 'are there already' in capsys.readouterr().out


def test_a_photo_written_anew_is_restored_anew(watch, photos, tmp_path) -> None:
    photo, result = tmp_path / 'in' / 'a.png', tmp_path / 'out' / 'a.png'
    shutil.copy(photos / 'coffee.png', photo)
    sizes = []

    def renew() -> None:
        sizes.append(Image.open(result).size)
        Image.open(photos / 'rocket.png').resize((40, 30)).save(photo)

    assert watch(None, None, renew, None) == (0, ['a.png', 'a.png'])
    assert [*sizes, Image.open(result).size] == [(72, 64), (40, 30)]


def test_a_photo_that_stays_broken_is_told_once(watch, photos, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / 'in' / 'broken.png').write_bytes((photos / 'coffee.png').read_bytes()[:500])
    monkeypatch.setattr(watching, 'Arrivals', partial(watching.Arrivals, patience=0.0))
    code, restored = watch(None, None, None, None)
    errors = [line for line in capsys.readouterr().err.splitlines() if 'Error' in line]
    assert code == 0 and restored == [] and len(errors) == 1 and 'broken.png' in errors[0]


def test_two_photos_of_one_result_are_told_apart(watch, photos, tmp_path, capsys) -> None:
    """Also when the second is written anew; a folder within a watched one gives no photo twice."""
    (tmp_path / 'in' / 'b').mkdir()
    first, second, result = tmp_path / 'in' / 'x.png', tmp_path / 'in' / 'b' / 'x.png', tmp_path / 'out' / 'x.png'
    shutil.copy(photos / 'coffee.png', first)
    shutil.copy(photos / 'coffee.png', second)

    def renew() -> None:
        Image.open(photos / 'rocket.png').resize((40, 30)).save(second)

    assert watch(None, None, renew, None, None, folders=('in', 'in/b')) == (0, ['x.png'])
    said = capsys.readouterr()
    assert said.err.count(f'{second} is left out') == 2 and f'{result}, which belongs to {first}' in said.err
    assert '1 photo restored or there already, 1 left out' in said.out and Image.open(result).size == (72, 64)
    result.unlink()
    assert watch(folders=('in', 'in/b', 'in'), options=['--recursive']) == (0, ['x.png', 'x.png'])
    assert 'Error' not in capsys.readouterr().err


def test_what_is_no_photo_is_told_once(watch, photos, tmp_path, capsys) -> None:
    (tmp_path / 'in' / 'a.heic').touch()
    shutil.copy(photos / 'coffee.png', tmp_path / 'in')
    assert watch(None, (tmp_path / 'in' / 'b.heic').touch, None, (tmp_path / 'in' / 'c.mp4').touch) == (0, ['coffee.png'])
    notes = [line.split(': ')[2] for line in capsys.readouterr().err.splitlines() if line.startswith('Note')]
    assert notes == ['passed over 1 .heic', 'passed over 1 .mp4']


def test_what_cannot_be_watched_is_refused_at_once(watch, tmp_path, capsys) -> None:
    assert watch(out='in')[0] == 2 and 'the watched folder itself' in capsys.readouterr().err
    assert watch(options=['--point', 'no such'])[0] == 2 and "no operating point 'no such'" in capsys.readouterr().err
    assert watch(options=['--save', 'foo'])[0] == 2 and "--save knows no 'foo'" in capsys.readouterr().err
    assert watch(options=['--save', 'std'])[0] == 2 and 'gives the image alone' in capsys.readouterr().err
    assert watch(options=['--compare'])[0] == 2 and '--compare' in capsys.readouterr().err
    assert watch(lambda: (tmp_path / 'in').rename(tmp_path / 'gone'))[0] == 2
    assert 'there no longer' in capsys.readouterr().err
    assert watch()[0] == 2 and 'no folder that could be watched' in capsys.readouterr().err
