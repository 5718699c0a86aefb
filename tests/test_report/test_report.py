"""``stochastic-refine report``: what the page holds, and how it works in a browser where there is one."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stochastic_refine.cli import main
from stochastic_refine.comparison.columns import COLUMNS, Score
from stochastic_refine.comparison.tables import Row, Table
from stochastic_refine.errors import InputError
from stochastic_refine.report import page as report
from stochastic_refine.report.page import write_report

EVIL = '</script><img src=x onerror="document.title=\'hacked\'">'
ROWS = {'Ground Truth': 1, 'input': 1, 'net (initial)': 1, 'net (vivid)': 3}
#: Row -> mean PSNR; of images each one differs by its number.
PSNR = {'Ground Truth': float('inf'), 'input': 25.0, 'net (initial)': 28.0, 'net (vivid)': 26.0, 'b': 27.0}


def make_run(folder: Path, names=('one', 'two', 'three'), rows=ROWS, size=(48, 32), protocol='folder', changed=(),
             files=10) -> Path:
    """An evaluation's output: noise, the same in every run but for the rows in ``changed``; ``files`` images are distinct."""
    images, lines = {}, []
    for row, seeds in rows.items():
        images[row] = [{} for _ in range(seeds)]
        for seed in range(seeds):
            for i, name in enumerate(names):
                path = folder / 'restored' / str(len(images)) / f'seed{seed}' / f'{i % files}.png'
                if i < files:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    random = np.random.default_rng([len(images), seed, i, row in changed])
                    Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
                images[row][seed][name] = str(path.relative_to(folder))
                lines += [(row, seed, name, 'psnr', PSNR.get(row, 24.0) - i + seed / 10),
                          (row, seed, name, 'lpips', 0.1 * (i + 1))]
    with (folder / 'scores.csv').open('w', newline='') as file:
        csv.writer(file).writerows([('row', 'seed', 'image', 'metric', 'score'), *lines])
    (folder / 'images.json').write_text(json.dumps(images))
    measured = [Row(row, {'psnr': Score(PSNR.get(row, 24.0), 0.1 if seeds > 1 else None), 'lpips': Score(0.3 - 0.01 * i)})
                for i, (row, seeds) in enumerate(rows.items())]
    published = [Row('Paper', {'psnr': Score(30.1, decimals=1), 'lpips': Score(0.11)}, published=True)]
    Table(f'{protocol}, {len(names)} images', [COLUMNS['lpips'], COLUMNS['psnr']], measured + published, {'protocol': protocol},
          ['A note.']).write(folder)
    return folder


def data_of(page: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(encoding='utf-8'), re.S).group(1))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / 'run')


def test_embeds_every_image_without_loss(run: Path, tmp_path: Path) -> None:
    import base64
    import io
    said = write_report([run], tmp_path / 'page.html')
    page, data = (tmp_path / 'page.html').read_text(), data_of(tmp_path / 'page.html')
    blocks = [json.loads(text) for text in re.findall(r'<script type="text/plain" id="scene-\d+">(.*?)</script>', page)]
    assert '3 images, 4 rows' in said and len(blocks) == 3
    assert [len(samples) for samples in blocks[0]] == [row['samples'] for row in data['rows'][:4]] == [1, 1, 1, 3]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(blocks[1][3][2]))))
    assert (shown == np.asarray(Image.open(run / 'restored' / '4' / 'seed2' / '1.png'))).all() and data['lossless']
    vivid = data['rows'][3]
    assert vivid['perImage']['psnr'] == [[26, 25, 24], [26.1, 25.1, 24.1], [26.2, 25.2, 24.2]]
    assert vivid['scores']['psnr']['text'] == '26.00 ± 0.10' and data['rows'][0]['scores']['psnr']['value'] == 'inf'
    paper = data['rows'][4]
    assert paper['published'] and paper['picture'] is None and paper['scores']['psnr']['text'] == '30.1'
    assert 'http' not in re.sub(r'http://www.w3.org/2000/svg|http-equiv', '', page), 'the page must not refer to a network'


def test_reads_what_evaluate_wrote(pairs: Path, tmp_path: Path) -> None:
    from stochastic_refine.comparison.evaluate import evaluate
    evaluate([f'copy={pairs / "lq"},{pairs / "lq"}'], pairs / 'gt', pairs / 'lq', metrics=('psnr', ), output=tmp_path / 'run',
             device='cpu')
    (tmp_path / 'run').rename(tmp_path / 'moved')
    write_report([tmp_path / 'moved'], tmp_path / 'page.html')
    blurred, copy = data_of(tmp_path / 'page.html')['rows'][1:]
    assert (copy['name'], copy['samples']) == ('copy', 2) and copy['perImage']['psnr'] == blurred['perImage']['psnr'] * 2


def test_names_are_no_markup(tmp_path: Path) -> None:
    run = make_run(tmp_path / 'run', names=(EVIL, 'plain'), rows={'Ground Truth': 1, EVIL: 1})
    write_report([run], tmp_path / 'page.html', title=EVIL)
    page = (tmp_path / 'page.html').read_text()
    assert '<img src=x' not in page
    assert data_of(tmp_path / 'page.html')['scenes'][0]['name'] == EVIL


def test_merges_runs_of_the_same_images(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / 'other', rows={'Ground Truth': 1, 'input': 1, 'b': 1, 'net (vivid)': 3})
    (other / 'cells.jsonl').write_text(
        '{"cell": "ddim 5", "images": 3, "psnr": 27.5, "lpips": null, "eliminated": null}\n'
        '{"cell": "ddim 2", "images": 1, "psnr": 20.5, "lpips": 0.5, "eliminated": 1}\n')
    write_report([run, other], tmp_path / 'page.html', max_images=2)
    data = data_of(tmp_path / 'page.html')
    assert [row['name'] for row in data['rows'] if not row['published']] == [*ROWS, 'b', 'net (vivid) [other]']
    assert [row['name'] for row in data['rows'] if row['published']] == ['Paper']
    assert [scene['name'] for scene in data['scenes']] == ['one', 'two'] and any('2 of 3' in note for note in data['notes'])
    assert data['cells'] == [{'name': 'ddim 5, 3 images', 'scores': {'psnr': 27.5}}]
    assert set(data['settings']) == {'run', 'other'}


@pytest.mark.parametrize(('change', 'words'), [
    ({'names': ('one', 'two', 'four')}, 'different images (four, three in one only)'),
    ({'protocol': 'gopro'}, 'different protocols'),
    ({'changed': ('Ground Truth', )}, 'same names but are different images'),
])
def test_refuses_what_cannot_be_compared(run: Path, tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        write_report([run, make_run(tmp_path / 'other', **change)], tmp_path / 'page.html')
    assert not (tmp_path / 'page.html').exists()


def test_says_what_is_missing(run: Path, tmp_path: Path, capsys) -> None:
    def error(*flags: str) -> str:
        assert main(['report', str(run), '-o', str(tmp_path / 'page.html'), *flags]) == 2
        return capsys.readouterr().err

    assert 'at most 100' in error('--quality', '101') and '--max-images must' in error('--max-images', '0')
    (run / 'restored' / '2' / 'seed0' / '1.png').unlink()
    assert '1 images of' in (text := error()) and '1.png' in text
    (run / 'images.json').write_text('{"Ground Truth": [1]}')
    assert 'images.json is damaged' in error()
    (run / 'images.json').unlink()
    assert 'has no images.json' in error()


def test_size_is_bounded(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report([run], tmp_path / 'page.html', max_side=24)
    data = data_of(tmp_path / 'page.html')
    assert (data['scenes'][0]['width'], data['scenes'][0]['height'], data['reduced']) == (24, 16, 3)
    monkeypatch.setattr(report, 'BUDGET', 80_000)  # six lossless images of noise, 48x32, take some 35 kB per scene
    write_report([run], tmp_path / 'page.html')
    assert data_of(tmp_path / 'page.html')['quality'] == 90
    monkeypatch.setattr(report, 'BUDGET', 9_000)
    with pytest.raises(InputError, match='--images linked, --max-images 1'):
        write_report([run], tmp_path / 'page.html')


def test_linked_images_lie_beside_the_page(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'out' / 'page_images'
    for _ in range(2):  # the folder of a former report is replaced
        write_report([run], tmp_path / 'out' / 'page.html', images='linked')
    assert sorted(path.name for path in folder.iterdir()) == ['0.js', '1.js', '2.js']
    assert 'scene-0"' not in (tmp_path / 'out' / 'page.html').read_text()
    (folder / 'thesis.tex').touch()
    with pytest.raises(InputError, match='other things'):
        write_report([run], tmp_path / 'out' / 'page.html', images='linked')


# ---------------------------------------------------------------- in a browser


@pytest.fixture
def view(chromium, request):
    """A function that opens a page file; whatever the page complains of fails the test."""
    complaints, contexts = [], []

    def view(page: Path, address: str = '', **options):
        contexts.append(context := chromium.new_context(**{'viewport': {'width': 1200, 'height': 800}, **options}))
        tab = context.new_page()
        tab.set_default_timeout(60_000)
        tab.on('console', lambda message: complaints.append(message.text) if message.type == 'error' else None)
        tab.on('pageerror', lambda error: complaints.append(str(error)))
        tab.on('request', lambda sent: complaints.append(sent.url) if sent.url.startswith(('http', 'ws')) else None)
        tab.goto(f'{page.as_uri()}{address}', wait_until='commit')
        shown(tab)
        return tab

    yield view
    for context in contexts:
        context.close()
    assert complaints == []


def shown(tab, what: str = '') -> None:
    """Wait until the right picture is drawn, ``what``: scene, view, row, sample."""
    tab.wait_for_selector(f'#canvas-b[data-shown^="{what}"]' if what else '#canvas-b[data-shown]', state='attached')


def style(tab, selector: str, name: str) -> str:
    return tab.eval_on_selector(selector, f'element => getComputedStyle(element).{name}')


def pixel(tab, side: str, x: int, y: int) -> list[int]:
    return tab.eval_on_selector(
        f'#canvas-{side}', f'canvas => [...canvas.getContext("2d").getImageData({x}, {y}, 1, 1).data.slice(0, 3)]')


def stage_box(tab) -> dict:
    tab.locator('#stage').scroll_into_view_if_needed()
    return tab.locator('#stage').bounding_box()


def test_slider_moves_by_pointer_and_keys(run: Path, tmp_path: Path, view) -> None:
    write_report([run], tmp_path / 'page.html')
    tab = view(tmp_path / 'page.html')
    box = stage_box(tab)
    divider = tab.locator('#divider')
    assert divider.get_attribute('aria-valuenow') == '50'
    before = style(tab, '.pane.b', 'clipPath')
    tab.mouse.move(box['x'] + box['width'] / 2, box['y'] + box['height'] / 2)
    tab.mouse.down()
    tab.mouse.move(box['x'] + box['width'] * 0.25, box['y'] + box['height'] / 2, steps=3)
    tab.mouse.up()
    assert divider.get_attribute('aria-valuenow') == '25'
    assert style(tab, '.pane.b', 'clipPath') != before and '25%' in style(tab, '.pane.b', 'clipPath')
    divider.focus()
    tab.keyboard.press('ArrowRight')
    assert divider.get_attribute('aria-valuenow') == '27' and '27%' in style(tab, '.pane.b', 'clipPath')
    assert '73%' in style(tab, '.pane.a', 'clipPath')


def test_zoom_and_pan_stay_in_step(run: Path, tmp_path: Path, view) -> None:
    write_report([run], tmp_path / 'page.html')
    tab = view(tmp_path / 'page.html')

    def transform() -> str:
        both = [style(tab, f'#canvas-{side}', 'transform') for side in 'ab']
        assert both[0] == both[1]
        return both[0]

    for mode in ('split', 'side', 'flicker'):
        tab.locator(f'#modes input[value={mode}]').check(force=True)
        tab.locator('#zoom-fit').click()
        box = stage_box(tab)
        fit = transform()
        tab.mouse.move(box['x'] + box['width'] * 0.3, box['y'] + box['height'] * 0.3)
        tab.mouse.wheel(0, -300)
        tab.wait_for_selector('#stage.zoomed')
        zoomed = transform()
        assert zoomed != fit and style(tab, '#canvas-a', 'imageRendering') == 'pixelated'
        tab.mouse.down()
        tab.mouse.move(box['x'] + box['width'] * 0.3 - 30, box['y'] + box['height'] * 0.3 - 20, steps=2)
        tab.mouse.up()
        assert transform() != zoomed
    tab.keyboard.press('0')
    assert transform() == fit


def test_overlays_are_the_differences_of_the_files(run: Path, tmp_path: Path, view) -> None:
    write_report([run], tmp_path / 'page.html')
    tab = view(tmp_path / 'page.html', '#image=two&a=input&b=net+(vivid)/2&show=error&gain=0')
    shown(tab, '1 error 3 1')

    def file(row: int, seed: int) -> np.ndarray:
        return np.asarray(Image.open(run / 'restored' / str(row + 1) / f'seed{seed}' / '1.png')).astype(float)[20, 30]

    assert pixel(tab, 'a', 30, 20) == np.abs(file(1, 0) - file(0, 0)).tolist()
    assert pixel(tab, 'b', 30, 20) == np.abs(file(3, 1) - file(0, 0)).tolist()
    tab.locator('#show').select_option('difference')
    shown(tab, '1 difference')
    assert pixel(tab, 'a', 30, 20) == pixel(tab, 'b', 30, 20) == np.abs(file(1, 0) - file(3, 1)).tolist()
    tab.locator('#show').select_option('std')
    shown(tab, '1 std')
    level = 3 * np.std([file(3, seed) for seed in range(3)], axis=0, ddof=1).mean()
    assert pixel(tab, 'b', 30, 20) == pytest.approx(np.clip([level, level - 255, level - 510], 0, 255), abs=1)
    assert 'two samples' in tab.locator('.pane.a .message').inner_text()


def test_table_sorts_and_list_follows(run: Path, tmp_path: Path, view) -> None:
    write_report([run], tmp_path / 'page.html')
    tab = view(tmp_path / 'page.html')
    names = tab.locator('#scores tbody th')
    original = names.all_inner_texts()
    tab.locator('#scores button[data-key=psnr]').click()
    assert [name.split('\n')[0].removesuffix('published') for name in names.all_inner_texts()] == \
        ['Ground Truth', 'Paper', 'net (initial)', 'net (vivid)', 'input']
    assert tab.locator('#scores th[aria-sort=descending]').count() == 1
    tab.keyboard.press('Enter')  # the heading keeps the focus
    assert names.first.inner_text() == 'input'
    tab.keyboard.press('Enter')
    assert names.all_inner_texts() == original
    tab.locator('#sort-metric').select_option('psnr')
    tab.locator('#sort-row').select_option('a')
    assert tab.locator('#list .name').all_inner_texts() == ['three', 'two', 'one']
    assert tab.locator('#scene-name').inner_text() == 'one (3 of 3)'
    tab.locator('#search').fill('tw')
    assert tab.locator('#list .name').all_inner_texts() == ['two']
    assert tab.locator('#plot .point.published').count() == 1 and tab.locator('#plot .front').count() == 1


def test_keys_flicker_and_address(run: Path, tmp_path: Path, view) -> None:
    write_report([run], tmp_path / 'page.html')
    tab = view(tmp_path / 'page.html')

    def visible() -> list[str]:
        return [side for side in 'ab' if style(tab, f'.pane.{side}', 'visibility') == 'visible']

    assert visible() == ['a', 'b']
    tab.keyboard.press('Space')
    assert visible() == ['b']
    tab.keyboard.press('Space')
    assert visible() == ['a']
    tab.locator('#interval').evaluate('input => { input.value = 200; }')
    tab.keyboard.press('f')
    tab.wait_for_selector('.pane.b', state='visible')
    tab.wait_for_selector('.pane.b', state='hidden')
    tab.keyboard.press('s')
    tab.keyboard.press('n')
    shown(tab, '1 images 3 0')
    tab.locator('#samples .pick .b').nth(2).click()
    shown(tab, '1 images 3 2')
    tab.wait_for_url(re.compile('#image=two&.*%2F3'))
    tab.reload()
    shown(tab, '1 images 3 2')
    assert tab.locator('#choice-b').evaluate('select => select.selectedOptions[0].textContent') == 'net (vivid), sample 3'
    tab.keyboard.press('?')
    assert tab.locator('#help').is_visible()


def test_pinch_on_a_phone_and_nothing_too_wide(run: Path, tmp_path: Path, view) -> None:
    write_report([run], tmp_path / 'page.html')
    tab = view(tmp_path / 'page.html', viewport={'width': 375, 'height': 700}, has_touch=True, is_mobile=True)
    assert tab.evaluate('document.documentElement.scrollWidth') <= 375
    box = stage_box(tab)
    x, y = box['x'] + box['width'] / 4, box['y'] + box['height'] / 2
    cdp = tab.context.new_cdp_session(tab)
    for kind, apart in (('touchStart', 20), ('touchMove', 40), ('touchMove', 80)):
        cdp.send('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': [{'x': x - apart / 2, 'y': y, 'id': 0},
                                                                            {'x': x + apart / 2, 'y': y, 'id': 1}]})
    cdp.send('Input.dispatchTouchEvent', {'type': 'touchEnd', 'touchPoints': []})
    tab.wait_for_selector('#stage.zoomed')
    assert style(tab, '#canvas-a', 'transform') == style(tab, '#canvas-b', 'transform')


def test_evil_names_and_linked_images(tmp_path: Path, view) -> None:
    run = make_run(tmp_path / 'run', names=(EVIL, 'plain'), rows={'Ground Truth': 1, EVIL: 1})
    write_report([run], tmp_path / 'my page#1.html', images='linked', title=EVIL)
    tab = view(tmp_path / 'my page#1.html')
    assert tab.title() == EVIL and tab.locator('h1').inner_text() == EVIL
    assert tab.locator('#scene-name').inner_text().startswith(EVIL) and tab.locator('img[src=x]').count() == 0
    tab.locator('#next').click()
    shown(tab, '1 images')


@pytest.mark.slow
def test_thumbnails_of_a_large_report_are_lazy(tmp_path: Path, view) -> None:
    run = make_run(tmp_path / 'run', names=[f'photo {i:03d}' for i in range(200)],
                   rows={'Ground Truth': 1, 'input': 1, 'net': 1}, size=(64, 64))
    write_report([run], tmp_path / 'page.html')
    tab = view(tmp_path / 'page.html')
    tab.wait_for_load_state('domcontentloaded')
    assert tab.locator('#list .name').count() == 200
    tab.locator('#list').scroll_into_view_if_needed()
    tab.wait_for_selector('#list img[src]', state='attached')
    assert tab.locator('#list img[src]').count() < 200, 'thumbnails out of sight are not to be decoded'