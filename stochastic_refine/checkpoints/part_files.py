"""Networks that are published as a file, or a folder, for each of their parts: the folder with them is one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from .files import Checkpoint, read_checkpoint

#: The parts, by whose names their files begin, of each such network; by the part that no other folder has a file of.
_PARTS = {'net_le_dm': ('net_g', 'net_le_dm', 'net_d')}
#: Parts that are folders with a ``config.json``, as diffusers saves networks; and the files that their weights may be in.
_FOLDERS = ('unet', 'controlnet')
_IN_FOLDERS = ('diffusion_pytorch_model.safetensors', 'diffusion_pytorch_model.bin')


def _files(folder: Path, part: str) -> list[Path]:
    return sorted(folder.glob(f'{part}_*.pth')) if part in _PARTS else sorted(
        file for file in folder.glob(f'{part}_*.pth') if not any(file.name.startswith(f'{mark}_') for mark in _PARTS))


def has_parts(path: Path) -> bool:
    """Whether ``path`` is a folder of parts' files or folders."""
    return path.is_dir() and (_has_folders(path) or any(_files(path, mark) for mark in _PARTS))


def _has_folders(path: Path) -> bool:
    return all((path / part / 'config.json').is_file() for part in _FOLDERS)


def read_parts(folder: Path, prefer: str = 'params_ema') -> Checkpoint:
    """Read a folder of parts' files or folders; what a part holds is named ``PART.NAME``.

    Raises:
        InputError: If a part has no file, or several, or one cannot be read.
    """
    params: dict[str, Any] = {}
    for part in _FOLDERS if _has_folders(folder) else ():
        file = next((folder / part / name for name in _IN_FOLDERS if (folder / part / name).is_file()), None)
        if file is None:
            raise InputError(f"{folder / part} has no weights ({' or '.join(_IN_FOLDERS)}); copy or download it again.")
        params.update((f'{part}.{name}', value) for name, value in read_checkpoint(file, prefer).params.items())
    if params:
        return Checkpoint(params)
    for part in next(parts for mark, parts in _PARTS.items() if _files(folder, mark)):
        files = _files(folder, part)
        if len(files) != 1:
            found = f'has {len(files)} ({files[0].name}, {files[1].name})' if files else 'has none'
            raise InputError(f'{folder} holds a network in parts, and of {part}_*.pth it {found}; put one file of each part '
                             'there.')
        params.update((f'{part}.{name}', value) for name, value in read_checkpoint(files[0], prefer).params.items())
    return Checkpoint(params)
