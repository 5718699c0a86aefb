"""Networks that are published as a file for each of their parts: a folder of such files is one checkpoint."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .files import Checkpoint, read_checkpoint

#: The parts, by whose names their files begin, of each such network; by the part that no other folder has a file of.
_PARTS = {'net_le_dm': ('net_g', 'net_le_dm', 'net_d')}


def _files(folder: Path, part: str) -> list[Path]:
    return sorted(folder.glob(f'{part}_*.pth')) if part in _PARTS else sorted(
        file for file in folder.glob(f'{part}_*.pth') if not any(file.name.startswith(f'{mark}_') for mark in _PARTS))


def has_parts(path: Path) -> bool:
    """Whether ``path`` is a folder of parts' files."""
    return path.is_dir() and any(_files(path, mark) for mark in _PARTS)


def read_parts(folder: Path, prefer: str = 'params_ema') -> Checkpoint:
    """Read a folder of parts' files; what a part holds is named ``PART.NAME``.

    Raises:
        InputError: If a part has no file, or several, or one cannot be read.
    """
    params = {}
    for part in next(parts for mark, parts in _PARTS.items() if _files(folder, mark)):
        files = _files(folder, part)
        if len(files) != 1:
            found = f'has {len(files)} ({files[0].name}, {files[1].name})' if files else 'has none'
            raise InputError(f'{folder} holds a network in parts, and of {part}_*.pth it {found}; put one file of each part '
                             'there.')
        params.update((f'{part}.{name}', value) for name, value in read_checkpoint(files[0], prefer).params.items())
    return Checkpoint(params)
