"""Checkpoint files: what is in them, how they are read safely and written atomically.

A checkpoint is BasicSR's ``.pth`` (``{'params': ..., 'params_ema': ...}``) or a ``.safetensors`` file. Ours also carries, under
``stochastic_refine``, what is needed to restore with it and no YAML: the network's options and its operating points.
"""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InputError

METADATA_KEY = 'stochastic_refine'
#: Keys under which projects of this field wrap a state dict; the first one present is taken.
_WRAPPERS = ('params_ema', 'params', 'state_dict', 'model', 'net')


@dataclass
class Checkpoint:
    """Weights as read from a file: ``params`` maps parameter names to tensors, ``metadata`` is {} in foreign files."""

    params: dict[str, Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: str | Path, prefer: str = 'params_ema') -> Checkpoint:
    """Read a ``.pth`` or ``.safetensors`` checkpoint onto the CPU; code in a file is never run.

    Args:
        path: The file.
        prefer: Which weights to take where a file wraps several; others are taken where it has none under this key.

    Raises:
        InputError: If the file is missing, damaged, holds objects other than tensors and plain values, or no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'Checkpoint {path} does not exist; check the path.')
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except OSError as error:
        raise InputError(f'Checkpoint {path} cannot be read ({error.strerror or error}); check its permissions.') from error
    except Exception as error:  # on a foreign or damaged file the unpickler can fail with any exception there is
        if path.stat().st_size > 0 and not _looks_like_pickle(path):
            raise InputError(f'{path} is not a checkpoint; give a .pth or .safetensors file.') from error
        if isinstance(error, pickle.UnpicklingError):
            raise InputError(f'Checkpoint {path} holds Python objects besides tensors and was not loaded, because they could '
                             'run code; save only its state dict with torch.save and use that file.') from error
        raise InputError(f'Checkpoint {path} is damaged or cut short and cannot be read; copy or download it again.') from error
    metadata = {}
    if isinstance(content, Mapping):
        metadata = content.get(METADATA_KEY, {})
        key = next((key for key in (prefer, *_WRAPPERS) if isinstance(content.get(key), Mapping)), None)
        content = content[key] if key else content
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f'Checkpoint {path} holds no weights; a state dict, bare or under one of '
                         f'{", ".join(_WRAPPERS)}, is expected.')
    return Checkpoint({key.removeprefix('module.'): value for key, value in content.items()}, metadata)


def _looks_like_pickle(path: Path) -> bool:
    """Whether the file is a PyTorch archive or a bare pickle, so that a failure means refused content, not a wrong file."""
    with path.open('rb') as file:
        start = file.read(2)
    return start in (b'PK', b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05')


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(path, framework='pt') as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, '{}'))
            return Checkpoint({key: file.get_tensor(key) for key in file.keys()}, metadata)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f'Checkpoint {path} is damaged or no safetensors file; copy or download it again.') from error


def save_safetensors(path: str | Path, params: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write weights and metadata atomically; tensors keep their dtype."""
    from safetensors.torch import save_file
    tensors = {key: value.detach().cpu().contiguous() for key, value in params.items()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, {METADATA_KEY: json.dumps(metadata)}))


def write_metadata(source: str | Path, target: str | Path, key: str, value: Any) -> None:
    """Write ``target`` atomically: the checkpoint ``source`` with one entry of its metadata set, all else as it is.

    Args:
        source: A checkpoint of ours.
        target: The file to write, with the same suffix; it may be ``source`` itself.
        key, value: The entry; plain values that JSON has too.

    Raises:
        InputError: If the source cannot be used, is not ours, or the target cannot be written.
    """
    source, target = Path(source), Path(target)
    metadata = {**read_checkpoint(source).metadata, key: value}
    if 'network' not in metadata:
        raise InputError(f'{source} does not say which network it belongs to, since it was not saved by stochastic_refine; '
                         'nothing can be stored in it.')
    if source.suffix != target.suffix:
        raise InputError(f'{target} would be a copy of {source}, so its suffix must be {source.suffix}.')
    if source.suffix == '.safetensors':
        from safetensors import safe_open
        from safetensors.torch import save_file
        with safe_open(source, framework='pt') as file:
            texts = {**file.metadata(), METADATA_KEY: json.dumps(metadata)}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        write_atomically(target, lambda temporary: save_file(tensors, temporary, texts))
        return
    content = torch.load(source, map_location='cpu', weights_only=True)
    write_atomically(target, lambda temporary: torch.save({**content, METADATA_KEY: metadata}, temporary))


def write_atomically(path: str | Path, write: Callable[[str], None]) -> None:
    """Write ``path`` through a temporary file beside it, so that it is never half-written and the old one never lost.

    Args:
        path: Final file; its folder must exist.
        write: Called with the temporary file's name, which has the same suffix.

    Raises:
        InputError: If the disk is full or the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f'.{path.stem}.', suffix=path.suffix, dir=path.parent)
        os.close(handle)
        write(temporary)
        with open(temporary, 'rb+') as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C leaves nothing behind either
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        # torch and safetensors wrap a failing write in errors of their own; torch's archive writer is inline_container
        if isinstance(error, OSError) or any(word in str(error).lower() for word in ('write', 'space', 'inline_container')):
            kept = ', the previous one is kept' if path.exists() else ''
            raise InputError(f'{path} could not be written ({error}){kept}; free some space or choose another folder.') from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_weights(net: nn.Module, params: Mapping[str, Tensor], where: str) -> None:
    """Load ``params`` strictly into ``net``, casting to its dtype.

    Raises:
        InputError: If names or shapes do not fit; the message tells how many and shows the first of each.
    """
    own = net.state_dict()
    missing, unexpected = sorted(own.keys() - params.keys()), sorted(params.keys() - own.keys())
    shapes = [f'{key} is {tuple(params[key].shape)}, not {tuple(own[key].shape)}'
              for key in own.keys() & params.keys() if own[key].shape != params[key].shape]
    problems = [f'{len(found)} {what} (first: {found[0]})'
                for what, found in (('missing', missing), ('unexpected', unexpected), ('of another shape', sorted(shapes))) if found]
    if problems:
        raise InputError(f"{where} holds weights of another network than {type(net).__name__} with these options: "
                         f"{'; '.join(problems)}. Choose the checkpoint or the options that belong together.")
    net.load_state_dict(params)
