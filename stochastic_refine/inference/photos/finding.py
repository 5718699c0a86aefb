"""Files, folders and patterns as a list of photos."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...data.image_files import FORMATS, SYSTEM_FILES, count_in_words
from ...errors import InputError


@dataclass
class FoundPhotos:
    """What a search for photos gave.

    Attributes:
        places: Each photo, in the order found, with its place below what was searched: ``100/a.jpg`` for ``card/100/a.jpg`` if
            the folder ``card`` or the pattern ``card/*/*.jpg`` was given; the bare name of a file given by name.
        passed_over: How many files in searched folders are no photos, by suffix.
    """

    places: dict[Path, Path] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)


def find_photos(inputs: Sequence[str | os.PathLike], recursive: bool = False) -> list[Path]:
    """The photos alone of :func:`search_photos`."""
    return list(search_photos(inputs, recursive).places)


def search_photos(inputs: Sequence[str | os.PathLike], recursive: bool = False, results: Path | None = None) -> FoundPhotos:
    """Files, folders and patterns as photos: in the order given, each once; within a folder ``2.png`` comes before ``10.png``.

    Folders and patterns give files with a suffix of ``FORMATS`` that are not hidden; a file given by name is taken whatever its
    suffix. ``recursive`` looks into folders inside folders; ``**`` in a pattern always does. The folder ``results`` inside a
    searched one is left out, so that the results of one run are not the photos of the next.

    Raises:
        InputError: If an input does not exist or matches no photo, or a folder holds none.
    """
    found = FoundPhotos()
    results = None if results is None else results.resolve()
    seen: set[Path] = set()
    for given in [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs:
        path = Path(given)
        passed_over: Counter[str] = Counter()
        try:
            if path.is_file():
                base, photos = path.parent, [path]
            else:
                base = path if path.is_dir() else _fixed_part(path)
                matches = [path] if path.is_dir() else sorted(map(Path, glob.glob(str(given), recursive=True)), key=_natural)
                inside = results is not None and base.resolve() in results.parents
                photos = [photo for match in matches
                          for photo in _photos_at(match, recursive, results if inside else None, passed_over)]
        except OSError as error:
            raise InputError(f'{given} cannot be searched ({error.strerror}); check the name and its permissions.') from error
        if not photos:
            fault = 'is a folder that holds' if path.is_dir() else 'does not exist or matches'
            others = f', only {count_in_words(passed_over)}' if passed_over else ''
            raise InputError(f"{given} {fault} no photo ({', '.join(FORMATS)}){others}; give photos, folders of photos "
                             '(folders inside them count only if recursive) or a pattern like "in/*.jpg".')
        found.passed_over += passed_over
        for photo in photos:
            if photo.resolve() not in seen:
                seen.add(photo.resolve())
                found.places[photo] = photo.relative_to(base)
    return found


def _fixed_part(pattern: Path) -> Path:
    """The folder above the first part of a pattern that has wildcards."""
    fixed = []
    for part in pattern.parts[:-1]:
        if re.search(r'[*?[]', part):
            break
        fixed.append(part)
    return Path(*fixed)


def _photos_at(path: Path, recursive: bool, results: Path | None, passed_over: Counter[str]) -> list[Path]:
    """``path`` or those in it, without hidden ones: half-written files, thumbnails, macOS's notes beside a photo (._a.jpg).

    Those in the folder ``results`` are left out; what is no photo is counted in ``passed_over``.
    """
    paths = (path.rglob('*') if recursive else path.iterdir()) if path.is_dir() else [path]
    files = [found for found in paths if found.name.lower() not in SYSTEM_FILES and found.is_file()
             and not any(part.startswith('.') for part in (found.name, *found.relative_to(path).parts))
             and not (results is not None and found.resolve().is_relative_to(results))]
    passed_over.update(found.suffix.lower() for found in files if found.suffix.lower() not in FORMATS)
    return sorted((found for found in files if found.suffix.lower() in FORMATS), key=_natural)


def _natural(path: Path) -> tuple[list[list[str | int]], str]:
    """Sort key under which numbers inside names count as numbers; the plain name breaks ties."""
    parts = [re.split(r'(\d+)', part.casefold()) for part in path.parts]
    return [[int(piece) if index % 2 else piece for index, piece in enumerate(pieces)] for pieces in parts], str(path)
