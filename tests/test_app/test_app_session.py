"""What the page computes, without gradio: the knob over samples, what is drawn anew, downloads, and sentences."""

from __future__ import annotations

import errno
import io
import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image

from stochastic_refine import Deblurrer, InputError
from stochastic_refine.app import check_port, ended_by_signals, serve
from stochastic_refine.app import session as session_module
from stochastic_refine.app.fields import KNOB, SAMPLES, SEED
from stochastic_refine.app.knob import PATH, Settings
from stochastic_refine.app.machine import Machine
from stochastic_refine.app.pictures import png, shown_size, with_doubt
from stochastic_refine.app.session import Session
from stochastic_refine.inference.photos import Photo, read_photo, write_photo

FAST = Settings('small', 'fast', samples=3, seed=5)


@pytest.fixture(scope='module')
def machine() -> Machine:
    return Machine('cpu')


@pytest.fixture
def session(machine, tmp_path) -> Session:
    folder = tmp_path / 'files'
    folder.mkdir()
    return Session(machine, folder)


@pytest.fixture
def photo(tmp_path) -> Path:
    """A blurred photo with EXIF and a profile."""
    from PIL import ImageCms
    path = tmp_path / 'photo.png'
    exif = Image.Exif()
    exif[0x010F] = 'Maker'
    blurred = Image.open(Path(__file__).parents[2] / 'stochastic_refine/weights/check/blurred.png').crop((0, 0, 40, 32))
    blurred.save(path, exif=exif, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes())
    return path


def calls_of(session: Session, settings: Settings, knob: float) -> int:
    calls: list[int] = []
    session.begin()
    session.restore(settings, knob, lambda done, left, words: calls.append(left))
    assert not calls or calls[-1] == 0
    assert calls == sorted(calls, reverse=True)
    return len(calls)


def test_the_knob_goes_from_the_mean_to_one_sample_and_restores_nothing(session, photo):
    assert session.set_photos([photo]) == []
    assert session.view('photo.png', FAST, 0).image is None
    assert calls_of(session, FAST, 0) == 3 * 9
    expected = Deblurrer.from_pretrained('small', device='cpu', keep_sharp=True)(photo, samples=3, seed=5, point='fast')
    faithful, half, vivid = (session.view('photo.png', FAST, knob, chosen=1).image for knob in (0, 0.5, 1))
    np.testing.assert_allclose(faithful, expected.samples.mean(0), atol=1e-5)
    np.testing.assert_allclose(vivid, expected.samples[1], atol=1e-5)
    np.testing.assert_allclose(half, (faithful + vivid) / 2, atol=1e-6)
    np.testing.assert_allclose(session.view('photo.png', FAST, 0).std, expected.std, atol=1e-5)
    assert np.array_equal(session.view('photo.png', FAST, 0, chosen=1).image, faithful)
    assert calls_of(session, FAST, 1) == 0


def test_only_missing_samples_are_drawn(session, photo):
    session.set_photos([photo])
    calls_of(session, FAST, 0)
    before = session.view('photo.png', FAST, 1).image
    more = Settings('small', 'fast', samples=4, seed=4)  # seeds 4 to 7, of which 5 to 7 are there
    assert calls_of(session, more, 0) == 9
    assert np.array_equal(session.view('photo.png', more, 1, chosen=1).image, before)
    assert session.set_photos([photo, photo]) == [] and calls_of(session, more, 0) == 0


def test_the_path_is_that_of_restore_tradeoff(session, photo):
    session.set_photos([photo])
    path = Settings('small', PATH, seed=2)
    assert calls_of(session, path, 0) == 4 * 10
    expected = Deblurrer.from_pretrained('small', device='cpu', keep_sharp=True)(photo, tradeoff=0.0, seed=2)
    np.testing.assert_allclose(session.view('photo.png', path, 0).image, expected.image, atol=1e-5)
    assert 'draws 1 sample of 100 calls' in session.view('photo.png', path, 1).words


def test_stopping_keeps_whole_samples_and_going_on_draws_the_rest(session, photo):
    session.set_photos([photo])
    calls: list[int] = []

    def on_call(done: int, left: int, words: str) -> None:
        calls.append(left)
        if len(calls) == 13:
            session.stop()

    session.begin()
    assert session.restore(FAST, 0, on_call).startswith('Stopped; 1 of 3')
    view = session.view('photo.png', FAST, 0)
    assert list(view.samples) == [5] and view.std is None and '2 samples not drawn yet' in view.words
    assert session.restore(FAST, 0).startswith('Stopped; 0 of 2')  # asked to stop while it waited
    assert calls_of(session, FAST, 0) == 2 * 9


def test_a_download_keeps_what_the_photo_had(session, photo, tmp_path):
    deep = tmp_path / 'deep.tif'
    source = read_photo(photo)
    source.bits = 16
    write_photo(deep, source.pixels, like=source)
    session.set_photos([photo, deep])
    calls_of(session, FAST, 0)
    files, said = session.write(FAST, 0.25, chosen=2, everything=True)
    assert said == []
    assert {'photo_restored.png', 'photo_sample3.png', 'photo_std.png', 'deep_restored.tif'} <= {file.name for file in files}
    for name, bits, original in (('photo_restored.png', 8, photo), ('deep_restored.tif', 16, deep)):
        written, read = read_photo(files[0].parent / name), read_photo(original)
        assert (written.bits, written.icc_profile, written.exif) == (bits, read.icc_profile, read.exif)
        assert written.exif is not None and written.icc_profile is not None
        view = session.view(original.name, FAST, 0.25, chosen=2)
        assert np.abs(written.pixels - view.image).max() <= 0.51 / (2**bits - 1)


def test_two_photos_of_one_stem_have_two_maps_of_doubt(session, photo, tmp_path):
    with Image.open(photo) as image:
        image.convert('L').save(tmp_path / 'photo.tif')
        image.save(tmp_path / 'Photo.png')
    session.set_photos([photo, tmp_path / 'photo.tif', tmp_path / 'Photo.png'])
    assert session.names == ['photo.png', 'photo.tif', 'Photo (2).png']  # apart where letters' size does not count, too
    calls_of(session, FAST, 0)
    files, _ = session.write(FAST, 0, everything=True)
    assert len({file.name.casefold() for file in files}) == len(files) == 3 * 5 and all(file.exists() for file in files)
    assert session.write(FAST, 1)[0][0] != files[0]  # a browser may keep what it got from an address


def test_photos_are_read_before_what_waits_for_them(session, photo, monkeypatch):
    """Restore is pressed while photos are read: it has them all."""
    started, go_on = threading.Event(), threading.Event()

    def reading(path, *args):
        started.set()
        assert go_on.wait(60)
        return read_photo(path, *args)

    monkeypatch.setattr(session_module, 'read_photo', reading)
    with ThreadPoolExecutor(2) as pool:
        dropped = pool.submit(session.set_photos, [photo])
        assert started.wait(60)
        asked = pool.submit(lambda: session.set_photos([photo]) + session.names)
        assert not asked.done()
        go_on.set()
        assert (dropped.result(), asked.result()) == ([], ['photo.png'])


def test_stopping_tells_whether_there_is_something(session, photo):
    session.set_photos([photo])
    assert not session.stop()
    session.begin()
    assert session.stop()
    session.end()
    assert not session.stop()


def test_a_full_disk_is_told_and_a_picture_keeps_its_address(session, monkeypatch):
    first, again, other = (session.shown('before', content) for content in (b'1', b'1', b'2'))
    assert first == again != other and Path(first).read_bytes() == b'1'
    monkeypatch.setattr(Path, 'write_bytes', MagicMock(side_effect=OSError(errno.ENOSPC, 'No space left on device')))
    with pytest.raises(InputError, match='No space left'):
        session.shown('before', b'3')


@pytest.mark.parametrize('value', [None, -1, 17, 2.5, float('nan'), '3', True])
def test_what_is_no_number_of_samples_gets_a_sentence(value):
    with pytest.raises(InputError, match='Samples must be a whole number from 1 to 16, got'):
        SAMPLES.number(value)
    assert (SAMPLES.number(16.0), SEED.number(0), KNOB.number(0.05)) == (16, 0, 0.05)


@pytest.mark.skipif(os.name != 'posix', reason='signals')
@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP'])
def test_signals_to_end_are_ctrl_c(name):
    number = getattr(signal, name)
    before = signal.signal(number, lambda *_: None)  # the tests themselves may run under nohup
    try:
        with pytest.raises(KeyboardInterrupt), ended_by_signals():
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), number)  # another one while it is cleaned up
        assert signal.getsignal(number).__name__ == '<lambda>'
    finally:
        signal.signal(number, before)


def test_what_is_no_photo_gets_a_sentence_and_the_others_stay(session, photo, tmp_path):
    text, large, moving = tmp_path / 'notes.txt', tmp_path / 'large.png', tmp_path / 'moving.gif'
    text.write_text('no photo')
    Image.new('L', (8660, 5774)).save(large)
    frames = [Image.new('L', (8, 8), level) for level in (0, 255)]
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / 'moving.webp', save_all=True, append_images=frames[1:], lossless=True)
    said = session.set_photos([text, large, moving, tmp_path / 'moving.webp', photo])
    assert [sentence.split()[0] for sentence in said] == ['notes.txt', 'large.png', 'moving.gif', 'moving.webp:']
    assert 'above the limit of 24 megapixels' in said[1] and 'stochastic-refine restore' in said[1]
    assert '1 of its 2 frames' in said[3]
    assert session.names == ['moving.webp', 'photo.png'] and not any(str(tmp_path) in sentence for sentence in said)


def test_unusable_choices_are_refused_before_any_work(session, photo, machine, tmp_path):
    with pytest.raises(InputError, match='no photo yet'):
        session.restore(FAST, 0)
    session.set_photos([photo])
    gone = tmp_path / 'gone.safetensors'
    gone.write_bytes((Path(__file__).parents[2] / 'stochastic_refine/weights/small.safetensors').read_bytes())
    settings = Settings(str(gone), 'fast', 1, 0)
    session.restore(settings, 0)
    gone.unlink()  # while the page runs
    with pytest.raises(InputError, match='gone.safetensors do not exist'):
        session.restore(settings, 0)
    with pytest.raises(InputError, match='not on this machine'):
        session.restore(Settings('nafnet-gopro'), 0)
    tight = Session(machine, session.folder, most_bytes=photo.stat().st_size + 40 * 32 * 12)
    tight.set_photos([photo])
    with pytest.raises(InputError, match='GiB'):
        tight.restore(Settings('small', 'fast', 16), 0)


def test_older_drawings_give_way_to_new_ones(machine, photo, tmp_path):
    session = Session(machine, tmp_path, most_bytes=4 * 40 * 32 * 12)
    session.set_photos([photo])
    one = Settings('small', 'fast', 2, 0)
    calls_of(session, one, 0)
    calls_of(session, Settings('small', 'default', 2, 0), 0)
    assert session.view('photo.png', one, 0).image is None


def test_doubt_is_laid_over_where_samples_differ():
    image, std = np.full((10, 20, 3), 0.5, np.float32), np.zeros((10, 20, 3), np.float32)
    std[:, 10:] = 0.02
    shown, full = with_doubt(image, std, 0.5)
    assert full == pytest.approx(0.02)
    assert np.array_equal(shown[:, :10], image[:, :10])
    np.testing.assert_allclose(shown[:, 10:], 0.5 * image[:, 10:] + 0.5 * np.array([1, 0, 0.7]), atol=1e-6)
    assert np.array_equal(with_doubt(image, std, 0)[0], image)


def test_a_large_photo_is_shown_reduced():
    assert shown_size(300, 400) == (300, 400)
    height, width = shown_size(4000, 6000)
    assert height * width == pytest.approx(4e6, rel=0.01) and width / height == pytest.approx(1.5, rel=0.01)
    pixels = np.ones((40, 60, 3), np.float32)
    with Image.open(io.BytesIO(png(pixels * 0, Photo(pixels, alpha=pixels[..., 0] * 0), (20, 30)))) as shown:
        assert shown.size == (30, 20) and shown.getextrema() == ((255, 255), ) * 3  # white behind what is transparent


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f'Port {port} .*--port'):
            check_port(port)
    with pytest.raises(InputError, match='--port must be'):
        check_port(0)


def test_without_gradio_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'stochastic_refine\[app\]'"):
        serve()
