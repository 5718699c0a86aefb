"""Reading files of ``torch.save`` that may be hostile: no code of theirs runs, and memory stays in proportion to their size."""

from __future__ import annotations

import io
import mmap
import pickle
import pickletools
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
    objects = (f'{name} {path} holds Python objects besides tensors and was not loaded, because they could run code; save only '
               'its state dict with torch.save and use that file.')
    try:
        _refuse_bombs(path, name)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            content = torch.load(path, map_location='cpu', weights_only=True)
        if not _is_plain(content):  # what PyTorch takes for harmless grows from version to version
            raise InputError(objects)
        return content
    except InputError:
        raise
    except OSError as error:
        raise InputError(f'{name} {path} cannot be read ({error.strerror or error}); check its permissions.') from error
    except Exception as error:  # on a foreign or damaged file the unpickler can fail with any exception there is
        if path.stat().st_size > 0 and not _looks_like_pickle(path):
            raise InputError(f'{path} is not a checkpoint; give a .pth or .safetensors file.') from error
        if isinstance(error, pickle.UnpicklingError) and _names_objects(path):
            raise InputError(objects) from error
        raise InputError(damaged) from error


def _names_objects(path: Path) -> bool:
    """Whether the file's pickle names anything besides what tensors and state dicts are made of; nothing of it is run.

    PyTorch's error does not tell: some versions say the same of a file that is cut short.
    """
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                pickles = [io.BytesIO(archive.read(name)) for name in archive.namelist() if name.endswith('data.pkl')]
        except Exception:  # a damaged archive, at whichever of its records
            return False
        return any(_names_more(each, each.getbuffer().nbytes) for each in pickles)
    with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _names_more(content, len(content))


def _names_more(stream: Any, size: int) -> bool:
    """The same of the pickles that a stream begins with: before PyTorch 1.6 five, and the tensors' bytes behind them."""
    try:
        while stream.tell() < size:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name in ('INST', 'STACK_GLOBAL') or opcode.name == 'GLOBAL' and \
                        str(argument).split(' ')[0].split('.')[0] not in ('torch', 'collections'):
                    return True
    except Exception:  # no pickle from here on, or one that is cut short or damaged
        pass
    return False


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
