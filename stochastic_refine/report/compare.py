"""``restore --compare``: photos before and after, on the report's page without its scores."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..inference.photos import read_photo
from .page import LOSSLESS, LOSSY, about_scenes, embed, write_linked, write_page

#: WebP's longest side: photos are shown in full, as far as that goes.
_MAX_SIDE = 16383
_ROWS = {'image': 'restored', 'initial': 'initial prediction', 'samples': 'samples'}


def write_comparison(written: Mapping[Path, Mapping[str, Sequence[Path]]], output: str | Path, workers: int = 1) -> str:
    """Write ``compare.html`` into a folder of restored photos, or ``NAME_compare.html`` beside a restored photo.

    The images are in the page, or, where those of all photos are too large for one, in a folder beside it.

    Args:
        written: For each photo its files, by what they show.
        output: The folder, or the photo's result.
        workers: Processes that encode images.

    Returns:
        A sentence about what was written.

    Raises:
        InputError: If the page cannot be written.
    """
    output = Path(output)
    page = output / 'compare.html' if output.is_dir() else output.with_name(f'{output.stem}_compare.html')
    root, names, scenes = page.parent, [], []
    kinds = [what for what in _ROWS if all(what in files for files in written.values())]
    for photo, files in written.items():
        try:
            sizes = {read_photo(path).pixels.shape for path in (photo, *(file for kind in kinds for file in files[kind]))}
        except InputError as error:
            print(f'Note: {error} It is not on the page.', file=sys.stderr)
            continue
        if len(sizes) > 1:
            print(f'Note: {photo} and its results are of different sizes, so that they are not on the page; restore it again '
                  'with --overwrite.', file=sys.stderr)
            continue
        names.append(files['image'][0].relative_to(root).as_posix() if 'image' in files else photo.name)
        scenes.append(((photo, ), *(tuple(files[kind]) for kind in kinds)))
    if not scenes or not kinds:
        return f'{page} was not written, as no photo and its result are both there.'
    folder = None
    try:
        quality, encoded = embed(scenes, [LOSSLESS, LOSSY], _MAX_SIDE, workers, _upright)
    except InputError:
        quality, folder = LOSSY, page.with_name(f'{page.stem}_images')
        encoded = write_linked(scenes, folder, quality, _MAX_SIDE, workers, _upright)
    rows = [{'name': name, 'published': False, 'role': role, 'picture': index, 'samples': len(scenes[0][index]), 'scores': {},
             'perImage': {}}
            for index, (name, role) in enumerate([('photo', 'input'), *((_ROWS[kind], None) for kind in kinds)])]
    data = {'title': 'Before and after', 'notes': [], 'settings': {}, 'columns': [], 'rows': rows, 'cells': [],
            **about_scenes(names, encoded, quality, folder)}
    write_page(page, data, encoded)
    beside = f' with {folder}, which belongs beside it' if folder else ''
    return f'{page}{beside}: {len(scenes)} photo{"" if len(scenes) == 1 else "s"} before and after.'


def _upright(path: Path) -> NDArray[np.uint8]:
    """A photo as it was restored, (H, W, 3): upright, without transparency."""
    return np.rint(read_photo(path).pixels * 255).astype(np.uint8)
