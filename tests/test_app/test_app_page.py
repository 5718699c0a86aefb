"""The page in a browser: photos are dropped, restored, looked at and downloaded, by two visitors at once."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import free_port, python_environment

from stochastic_refine.inference.photos import read_photo

pytest.importorskip('gradio')
WAIT = 120_000  # milliseconds, against hanging; a busy machine takes its time
BLURRED = Path(__file__).parents[2] / 'stochastic_refine/weights/check/blurred.png'


@contextmanager
def serving(folder, end=signal.SIGINT):
    """Address of a page that is served by the command, and the folder with what it keeps meanwhile; ended by a signal."""
    port = free_port()
    with (folder / 'out').open('w') as out:
        command = [sys.executable, '-m', 'stochastic_refine.cli', 'app', '--port', str(port), '--device', 'cpu']
        process = subprocess.Popen(command, cwd=folder, env={**python_environment(), 'TMPDIR': str(folder)}, stdout=out,
                                   stderr=subprocess.STDOUT)
        while 'The page is at' not in (folder / 'out').read_text():
            assert process.poll() is None, (folder / 'out').read_text()
            time.sleep(0.2)
        yield f'http://127.0.0.1:{port}', folder
        process.send_signal(end)
        assert process.wait(60) == 0, (folder / 'out').read_text()
    assert 'Traceback' not in (folder / 'out').read_text()
    assert not list(folder.glob('stochastic-refine-*'))  # no photo is left behind


@pytest.fixture(scope='module')
def served(tmp_path_factory):
    with serving(tmp_path_factory.mktemp('app'), signal.SIGTERM) as served:
        yield served


@pytest.fixture
def tab(chromium, served):
    """A function that opens a tab; none of its requests may leave the machine."""
    pages, outside, address = [], [], served[0]

    def opened():
        page = chromium.new_page(viewport={'width': 1280, 'height': 1000})
        page.on('request', lambda request: None if request.url.startswith((address, 'data:', 'blob:')) else
                outside.append(request.url))
        page.set_default_timeout(WAIT)
        page.goto(address)
        page.wait_for_selector('#photos input[type=file]', state='attached')
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert outside == []


def drop(page, *files: Path) -> None:
    page.set_input_files('#photos input[type=file]', [str(file) for file in files])


def value(page, part: str) -> str:
    return page.locator(f'#{part} textarea, #{part} input').first.input_value()


def wait_for_words(page, part: str, words: str) -> None:
    page.wait_for_function('([where, words]) => document.querySelector(where)?.value.includes(words)',
                           arg=[f'#{part} textarea, #{part} input', words])


def turn(page, part: str, position: float) -> None:
    field = page.locator(f'#{part} input[type=number]')
    field.fill(str(position))
    field.press('Enter')
    field.blur()


def pictures(page) -> list[bytes]:
    """Before and after, as the browser was given them."""
    sources = page.locator('#slider img').evaluate_all('images => images.map(image => image.src)')
    return [page.request.get(source).body() for source in sources]


def wait_for_restored(page, words: str = 'mean of 4 samples.') -> None:
    page.click('#restore')
    wait_for_words(page, 'caption', words)


def test_a_photo_is_restored_the_knob_turns_and_the_result_is_downloaded(tab, tmp_path):
    page = tab()
    drop(page, BLURRED)
    wait_for_words(page, 'caption', 'Not restored')
    wait_for_restored(page)
    faithful = pictures(page)
    assert len(faithful) == 2 and faithful[0] != faithful[1]
    assert page.locator('#samples-shown img').count() == 4

    turn(page, 'knob', 1)
    wait_for_words(page, 'caption', 'sample 1 of 4.')
    vivid = pictures(page)
    assert vivid[0] == faithful[0] and vivid[1] != faithful[1]
    page.locator('#samples-shown button.thumbnail-item').nth(2).click()
    wait_for_words(page, 'caption', 'sample 3 of 4.')
    assert pictures(page)[1] not in (vivid[1], faithful[1])
    turn(page, 'doubt', 0.5)
    wait_for_words(page, 'caption', 'of 255 levels')
    turn(page, 'doubt', 0)
    turn(page, 'knob', 0)
    wait_for_words(page, 'caption', 'mean of 4 samples.')
    assert pictures(page) == faithful  # bit for bit

    page.click('#download')
    with page.expect_download() as download:
        page.locator('#files a').first.click()
    assert download.value.suggested_filename == 'blurred_restored.png'
    download.value.save_as(tmp_path / 'sharp.png')
    (tmp_path / 'shown.png').write_bytes(faithful[1])
    assert np.array_equal(read_photo(tmp_path / 'sharp.png').pixels, read_photo(tmp_path / 'shown.png').pixels)


def test_restore_pressed_at_once_waits_and_bad_numbers_are_told(tab):
    page = tab()
    page.click('#stop')
    wait_for_words(page, 'status', 'nothing to stop')
    network = page.context.new_cdp_session(page)
    network.send('Network.enable')
    network.send('Network.emulateNetworkConditions',
                 {'offline': False, 'latency': 0, 'downloadThroughput': -1, 'uploadThroughput': 5_000})
    turn(page, 'samples', 2)
    drop(page, BLURRED)
    page.wait_for_selector('#photos .uploading')
    page.click('#restore')
    wait_for_words(page, 'caption', 'mean of 2 samples.')
    wait_for_words(page, 'status', 'Restored 1 photo')
    page.locator('#seed input').fill('-5')
    page.click('#restore')
    wait_for_words(page, 'status', 'Seed of the first sample must be a whole number')
    page.locator('#seed input').fill('0')
    for part, name in (('knob', 'Knob'), ('doubt', 'Where the model is unsure'), ('samples', 'Samples')):
        page.locator(f'#{part} input[type=number]').fill('')
        wait_for_words(page, 'caption', f'{name} must be a')  # and no traceback, which the end looks for
        turn(page, part, 1)


def test_two_visitors_have_their_own_photos_and_wait_for_each_other(tab, tmp_path):
    first, second = tab(), tab()
    from PIL import Image
    with Image.open(BLURRED) as image:
        image.rotate(180).save(tmp_path / 'turned.png')
    drop(first, BLURRED)
    drop(second, tmp_path / 'turned.png')
    for page in (first, second):
        wait_for_words(page, 'caption', 'Not restored')
    for page in (first, second):
        page.click('#restore')
    for page, name in ((second, 'turned.png'), (first, 'blurred.png')):
        wait_for_words(page, 'caption', f'{name}: mean of 4 samples.')
    assert pictures(first)[1] != pictures(second)[1]


def test_stopping_works_and_what_is_no_photo_gets_a_sentence(tab, tmp_path):
    page = tab()
    (tmp_path / 'notes.txt').write_text('no photo')
    from PIL import Image
    with Image.open(BLURRED) as image:
        image.resize((384, 384)).save(tmp_path / 'larger.png')
    drop(page, tmp_path / 'notes.txt', tmp_path / 'larger.png')
    wait_for_words(page, 'status', 'notes.txt is no JPEG, PNG')
    wait_for_words(page, 'caption', 'Not restored')
    page.click('#restore')
    page.wait_for_function('() => /calls left/.test(document.querySelector("#status").innerText)')
    page.click('#stop')
    page.wait_for_function('() => /^Stopped; [0-3] of 4/.test(document.querySelector("#status textarea").value)')
    assert re.search('Not restored|not drawn yet', value(page, 'caption'))


def test_a_visitor_who_goes_away_stops_what_runs_for_him(tab, served, tmp_path):
    pattern = 'stochastic-refine-*/*/shown'
    others = set(served[1].glob(pattern))
    page = tab()
    from PIL import Image
    with Image.open(BLURRED) as image:
        image.resize((768, 768)).save(tmp_path / 'large.png')
    drop(page, tmp_path / 'large.png')
    wait_for_words(page, 'caption', 'Not restored')
    page.click('#restore')
    page.wait_for_function('() => /calls left/.test(document.querySelector("#status").innerText)')
    new = set(served[1].glob(pattern)) - others  # his, and perhaps one of a tab that was closed as it opened
    assert new
    page.close()
    while any(folder.exists() for folder in new):
        time.sleep(0.1)
    other = tab()
    drop(other, BLURRED)
    wait_for_words(other, 'caption', 'Not restored')
    wait_for_restored(other)


def test_weights_that_are_missing_are_one_click_away_and_the_path_tells_what_it_draws(tab):
    page = tab()
    drop(page, BLURRED)
    wait_for_words(page, 'caption', 'Not restored')
    page.click('#point input')
    page.get_by_role('option', name='the path of --tradeoff').click()
    page.wait_for_selector('#point:has-text("The knob chooses")')  # the answer sets the knob, also one turned before it comes
    turn(page, 'knob', 1)
    wait_for_words(page, 'caption', 'draws 1 sample of 100 calls')
    page.click('#weights input')
    page.get_by_role('option', name='dbgan (not here yet)').click()
    wait_for_words(page, 'status', 'dbgan is not on this machine')
    page.wait_for_selector('#restore:disabled')
    page.click('#get')
    wait_for_words(page, 'status', 'No address of dbgan is known')  # what weights get says of it
    page.click('#weights input')
    page.get_by_role('option', name='small', exact=True).click()
    wait_for_words(page, 'caption', 'draws 4 samples of 10 calls')
    page.wait_for_selector('#restore:enabled')


def test_ctrl_c_while_it_restores_ends_it_in_order(chromium, tmp_path):
    from PIL import Image
    with Image.open(BLURRED) as image:
        image.resize((2048, 2048)).save(tmp_path / 'large.png')
    with serving(tmp_path) as (address, _):
        page = chromium.new_page()
        page.goto(address)
        page.wait_for_selector('#photos input[type=file]', state='attached')
        drop(page, tmp_path / 'large.png')
        wait_for_words(page, 'caption', 'Not restored')
        page.click('#restore')
        page.wait_for_function('() => /calls left/.test(document.querySelector("#status").innerText)')
    page.close()
