"""Reading files of ``torch.save`` that may be hostile: no code of theirs runs, and memory stays in proportion to their size."""

from __future__ import annotations

import mmap
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError

_PLAIN = (torch.Tensor, dict, list, tuple, set, str, bytes, int, float, complex, type(None), torch.dtype, torch.device)


def read_torch_file(path: str | Path, name: str = 'Checkpoint') -> Any:
    """What was saved, if it consists of tensors and plain values; onto the CPU.

    Args:
        path: The file.
        name: What it is, for messages.

    Raises:
        InputError: If it is missing, damaged, no file of ``torch.save``, holds other objects, or would take more memory than it
            has bytes.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'{name} {path} does not exist; check the path.')
    damaged = f'{name} {path} is damaged or cut short and cannot be read; copy or download it again.'
    try:
        _refuse_bombs(path, name)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            content = torch.load(path, map_location='cpu', weights_only=True)
        if not _is_plain(content):  # what PyTorch takes for harmless grows from version to version
            raise pickle.UnpicklingError('objects')
        return content
    except InputError:
        raise
    except OSError as error:
        raise InputError(f'{name} {path} cannot be read ({error.strerror or error}); check its permissions.') from error
    except Exception as error:  # on a foreign or damaged file the unpickler can fail with any exception there is
        if path.stat().st_size > 0 and not _looks_like_pickle(path):
            raise InputError(f'{path} is not a checkpoint; give a .pth or .safetensors file.') from error
        if isinstance(error, pickle.UnpicklingError):
            raise InputError(f'{name} {path} holds Python objects besides tensors and was not loaded, because they could '
                             'run code; save only its state dict with torch.save and use that file.') from error
        raise InputError(damaged) from error


def _is_plain(content: Any) -> bool:
    """Whether it consists of tensors and plain values, in the containers that state dicts are made of."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if not isinstance(value, _PLAIN):
            return False
        if isinstance(value, (Mapping, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))
            waiting += [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
    return True


def _refuse_bombs(path: Path, name: str) -> None:
    """Refuse what PyTorch's reader would inflate: packed or overlapping records, and byte arrays of any length."""
    size = path.stat().st_size
    if not size:
        return
    with path.open('rb') as file:
        if file.read(2) == b'PK':
            with zipfile.ZipFile(file) as archive:  # PyTorch stores records as they are
                records = archive.infolist()
            packed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
            if packed or sum(record.file_size for record in records) > size:
                raise InputError(f'{name} {path} is packed, which torch.save never does and traps do; save it anew with '
                                 'torch.save.')
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b'builtins\nbytearray') >= 0 or content.find(b'__builtin__\nbytearray') >= 0:
                raise InputError(f'{name} {path} holds byte arrays, whose length has no limit, besides tensors; save only its '
                                 'state dict with torch.save.')


def _looks_like_pickle(path: Path) -> bool:
    """Whether the file is a PyTorch archive or a bare pickle, so that a failure means refused content, not a wrong file."""
    with path.open('rb') as file:
        start = file.read(2)
    return start in (b'PK', b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05')
