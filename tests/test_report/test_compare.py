"""``restore --compare``: what the page holds, and that its slider shows photo and result in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import unet
from PIL import Image

from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.cli import main
from stochastic_refine.report import page as report


@pytest.fixture
def restore(tmp_path: Path):
    """A function that restores ``in`` with the page, into ``out`` if not said otherwise; darker, so that a result is told."""
    torch.manual_seed(0)
    net, file = unet(), tmp_path / 'net.safetensors'
    save_safetensors(file, build_arch(net).state_dict(), {'network': net})
    (tmp_path / 'in').mkdir()
    for name, size in (('a.jpg', (60, 40)), ('b.png', (30, 50))):
        Image.new('RGB', size, (200, 100, 50)).save(tmp_path / 'in' / name)
    return lambda *options, source='in', out='out/': main(
        ['restore', str(tmp_path / source), '-o', f'{tmp_path}/{out}', '-w', str(file), '--device', 'cpu', '--compare',
         '--no-keep-sharp', *options])


def data_of(page: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding='utf-8'), re.S).group(1))


def test_every_photo_is_on_the_page(restore, tmp_path, monkeypatch, capsys) -> None:
    """Also those that were there before, and a broken one is not; one photo into a file has a page beside it."""
    (tmp_path / 'in' / 'broken.png').write_bytes(b'nothing')
    assert restore() == 2
    data = data_of(tmp_path / 'out' / 'compare.html')
    assert [scene['name'] for scene in data['scenes']] == ['a.jpg', 'b.png']
    assert [(row['name'], row['role']) for row in data['rows']] == [('photo', 'input'), ('restored', None)] and data['lossless']
    before = (tmp_path / 'out' / 'compare.html').read_text()
    (tmp_path / 'in' / 'broken.png').unlink()
    assert restore() == 0 and (tmp_path / 'out' / 'compare.html').read_text() == before
    monkeypatch.setattr(report, 'BUDGET', 10)  # too much for one page
    assert restore() == 0 and 'compare_images, which belongs beside it' in capsys.readouterr().out
    assert data_of(tmp_path / 'out' / 'compare.html')['folder'] == 'compare_images'
    assert sorted(path.name for path in (tmp_path / 'out' / 'compare_images').iterdir()) == ['0.js', '1.js']
    monkeypatch.undo()
    assert restore(source='in/a.jpg', out='sharp.png') == 0
    assert [scene['name'] for scene in data_of(tmp_path / 'sharp_compare.html')['scenes']] == ['sharp.png']


def test_results_may_be_links(restore, tmp_path) -> None:
    """A result, and a folder of them, that lie elsewhere."""
    (tmp_path / 'in' / 'sub').mkdir()
    (tmp_path / 'in' / 'b.png').rename(tmp_path / 'in' / 'sub' / 'b.png')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'out' / 'sub').symlink_to(tmp_path / 'elsewhere')
    assert restore('--recursive') == 0
    (tmp_path / 'out' / 'a.jpg').rename(tmp_path / 'elsewhere' / 'c.jpg')
    (tmp_path / 'out' / 'a.jpg').symlink_to(tmp_path / 'elsewhere' / 'c.jpg')
    assert restore('--recursive') == 0
    assert [scene['name'] for scene in data_of(tmp_path / 'out' / 'compare.html')['scenes']] == ['a.jpg', 'sub/b.png']


def test_the_slider_shows_photo_and_result(restore, tmp_path, chromium) -> None:
    assert restore() == 0
    page, faults = chromium.new_page(), []
    page.on('pageerror', lambda error: faults.append(str(error)))
    page.goto((tmp_path / 'out' / 'compare.html').as_uri())
    for number, name in enumerate(('a.jpg', 'b.png')):
        page.wait_for_function(f'byId("canvas-b").dataset.shown === "{number} images 1 0"')
        colours = [page.evaluate(f'[...byId("canvas-{side}").getContext("2d").getImageData(9, 9, 1, 1).data].slice(0, 3)')
                   for side in 'ab']
        for colour, folder in zip(colours, ('in', 'out')):
            assert colour == np.asarray(Image.open(tmp_path / folder / name))[9, 9].tolist()
        assert colours[0] != colours[1]
        page.click('#next')
    assert page.locator('#divider').is_visible() and page.text_content('#summary') == '2 photos'
    assert not page.locator('#scores').is_visible() and not page.locator('#plot').is_visible()
    page.locator('#divider').press('End')
    assert page.evaluate('getComputedStyle(byId("stage")).getPropertyValue("--split")') == '100%'
    assert faults == []
    page.close()
