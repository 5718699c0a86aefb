"""Files of results: written whole or not at all, strict JSON, and what tells one content from another."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import InputError

#: Characters of a file's name, and of its suffix, that a temporary name keeps: names end at 255 bytes.
_STEM, _SUFFIX = 24, 16
_SEAL = '# sha256 of the lines below, so that no file that you changed is removed: '


def write_atomically(path: str | Path, write: Callable[[str], object]) -> None:
    """Write ``path`` through a temporary file beside it, so that it is never half-written and the old one never lost.

    Args:
        path: Final file; its folder must exist.
        write: Called with the temporary file's name, which has the same suffix and is no longer than names may be.

    Raises:
        InputError: If the disk is full, the folder cannot be written or the name is too long, which lies at this file alone;
            nothing is left behind.
    """
    path = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f'.{path.stem[:_STEM]}.', suffix=path.suffix[:_SUFFIX], dir=path.parent)
        os.close(handle)
        write(temporary)
        with open(temporary, 'rb+') as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C leaves nothing behind either
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise InputError(f'{path} could not be written, as its name is too long; rename what it is made of.') from None
        # torch and safetensors wrap a failing write in errors of their own; torch's archive writer is inline_container
        if isinstance(error, OSError) or any(word in str(error).lower() for word in ('write', 'space', 'inline_container')):
            kept = ', the previous one is kept' if path.exists() else ''
            raise InputError(f'{path} could not be written ({error}){kept}; free some space or choose another '
                             'folder.') from error
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, UTF-8 with plain newlines on every system; see :func:`write_atomically`."""
    write_atomically(path, lambda temporary: Path(temporary).write_text(text, encoding='utf-8', newline='\n'))


def write_json(path: str | Path, content: Any, indent: int | None = 1) -> None:
    """Write :func:`to_json` atomically, into a folder that is made if need be; see :func:`write_atomically`."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_text(path, to_json(content, indent))


def to_json(content: Any, indent: int | None = 1) -> str:
    """Strict JSON of :func:`jsonable` values, with a newline at its end."""
    return json.dumps(jsonable(content), indent=indent, ensure_ascii=False, allow_nan=False) + '\n'


def sealed(opening: str, body: str) -> str:
    """A text file of ours for a place of others: the line ``opening``, a seal of what follows, and ``body``."""
    return f'{opening}\n{_SEAL}{_text_hash(body)}\n{body}'


def is_sealed(text: str) -> bool:
    """Whether :func:`sealed` made a text, in this version or another, and nobody changed it since: its seal still fits."""
    _, seal, body = (text + '\n\n').split('\n', 2)
    return seal == _SEAL + _text_hash(body[:-2])


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def jsonable(value: Any) -> Any:
    """Plain values for strict JSON: NaN becomes None, infinities become text, what is no number or container its text."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) and not hasattr(value, 'item'):
        return [jsonable(item) for item in value]
    if hasattr(value, 'item'):  # a number of numpy's or torch's
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def check_writable(path: str | Path, as_folder: bool = False) -> None:
    """Check that a file or folder can be made at ``path``, as far as can be told without making it.

    Raises:
        InputError: If one of the folders above it is a file or must not be written, or ``path`` is a file where a folder is
            wanted.
    """
    place = Path(path)
    while not os.path.exists(place) and place != place.parent:
        place = place.parent
    if (as_folder or place != Path(path)) and not place.is_dir():
        raise InputError(f'{path} cannot be made, as {place} is a file; choose another place.')
    folder = place if place.is_dir() else place.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f'{path} cannot be written, as {folder} is read-only for you; choose another place.')


def make_folder(folder: str | Path) -> None:
    """Make a folder for results, with those above it, before the work whose results it gets.

    Raises:
        InputError: If it cannot be made or written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'Output folder {folder} cannot be made ({error.strerror}); choose another one.') from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f'Output folder {folder} cannot be written; choose another one.')


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file; of a folder, such as a sharded checkpoint, that of its files' hashes in the order of their names.

    Raises:
        InputError: If it cannot be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            hashes = [sha256_of(file) for file in sorted(path.iterdir()) if file.is_file()]
            return hashlib.sha256(' '.join(hashes).encode()).hexdigest()
        with path.open('rb') as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
        raise InputError(f'{path} cannot be read ({error.strerror}); check its permissions.') from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
