"""Files, folders and patterns as a list of photos."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ...data.image_files import FORMATS
from ...errors import InputError


def find_photos(inputs: Sequence[str | os.PathLike], recursive: bool = False) -> list[Path]:
    """Files, folders and patterns as photos: in the order given, each once; within a folder ``2.png`` comes before ``10.png``.

    Folders and patterns give files with a suffix of ``FORMATS`` that are not hidden; a file given by name is taken whatever its
    suffix. ``recursive`` looks into folders inside folders; ``**`` in a pattern always does.

    Raises:
        InputError: If an input does not exist or matches no photo, or a folder holds none.
    """
    found: dict[Path, Path] = {}
    for given in [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs:
        path = Path(given)
        try:
            if path.is_file():
                photos = [path]
            else:
                matches = [path] if path.is_dir() else sorted(map(Path, glob.glob(str(given), recursive=True)), key=_natural)
                photos = [photo for match in matches for photo in _photos_at(match, recursive)]
        except OSError as error:
            raise InputError(f'{given} cannot be searched ({error.strerror}); check the name and its permissions.') from error
        if not photos:
            fault = 'is a folder that holds' if path.is_dir() else 'does not exist or matches'
            raise InputError(f"{given} {fault} no photo ({', '.join(FORMATS)}); give photos, folders of photos "
                             '(folders inside them count only if recursive) or a pattern like "in/*.jpg".')
        for photo in photos:
            found.setdefault(photo.resolve(), photo)
    return list(found.values())


def _photos_at(path: Path, recursive: bool) -> list[Path]:
    """``path`` or those in it, without hidden ones: half-written files, thumbnails, macOS's notes beside a photo (._a.jpg)."""
    paths = (path.rglob('*') if recursive else path.iterdir()) if path.is_dir() else [path]
    return sorted((found for found in paths if found.suffix.lower() in FORMATS and found.is_file()
                   and not any(part.startswith('.') for part in (found.name, *found.relative_to(path).parts))), key=_natural)


def _natural(path: Path) -> tuple[list[list[str | int]], str]:
    """Sort key under which numbers inside names count as numbers; the plain name breaks ties."""
    parts = [re.split(r'(\d+)', part.casefold()) for part in path.parts]
    return [[int(piece) if index % 2 else piece for index, piece in enumerate(pieces)] for pieces in parts], str(path)
