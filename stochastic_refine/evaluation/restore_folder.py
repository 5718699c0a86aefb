"""Restore files and folders of photos: what ``stochastic-refine restore`` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..archs.build import nearest
from ..errors import InputError
from ..inference.deblurrer import Deblurrer, Result
from ..inference.photos import FORMATS, find_photos, write_photo
from ..inference.restorer import Restorer

WHAT = ('image', 'initial', 'samples', 'std')
#: A standard deviation this large, in [0, 1], is drawn white in a std map.
STD_WHITE = 0.1


def restore_photos(inputs: Sequence[str],
                   output: Path,
                   weights: str = 'small',
                   save: Sequence[str] = ('image', ),
                   overwrite: bool = False,
                   recursive: bool = False,
                   device: str = 'auto',
                   precision: str = 'auto',
                   tile: int | str | None = 'auto',
                   **settings: Any) -> int:
    """Restore photos into a folder, or one photo into a file, with a progress bar for each.

    Writes ``NAME.EXT`` for each photo, and beside it ``NAME_initial``, ``NAME_sample1``, ... and ``NAME_std.png`` as asked for
    by ``save``. A photo whose results are all there is skipped. One that cannot be read is reported, and the others go on.

    Args:
        inputs: Files, folders or patterns.
        output: Folder, or for one photo a file with an image's suffix.
        weights, device, precision, tile: See :class:`~stochastic_refine.inference.deblurrer.Deblurrer`.
        save: Any of ``image``, ``initial``, ``samples``, ``std``.
        overwrite: Restore again what is there.
        recursive: Search folders with their subfolders.
        **settings: Passed to the deblurrer: ``point``, ``samples``, ``average``, ``seed``, ``steps``, ...

    Returns:
        Exit code: 0, or 2 if photos were left out.

    Raises:
        InputError: Before any work, if inputs, output or settings cannot be used.
    """
    for what in save:
        if what not in WHAT:
            raise InputError(f"--save knows no '{what}'; {nearest(what, WHAT)}")
    photos = find_photos(inputs, recursive=recursive)
    targets = _targets(photos, output)
    deblurrer = Deblurrer.from_pretrained(weights, device=device, precision=precision, tile=tile)
    changes = {key: value for key, value in settings.items() if key not in ('point', 'samples')}
    point = deblurrer.operating_point(settings.get('point'), num_samples=settings.get('samples'), **changes)
    if 'std' in save and point.num_samples < 2:
        raise InputError('A std map needs at least two samples; add --samples 8, for example.')
    if tile is not None and not Restorer(deblurrer.net).tiles_exactly:
        print('Note: this network sees the whole image, so tiling, used if a photo does not fit into memory, can change its '
              'result; --tile none prevents it.', file=sys.stderr)
    _make_folder(next(iter(targets.values())).parent)

    failures = 0
    for number, (photo, target) in enumerate(targets.items(), start=1):
        files = _files(target, save, point.num_samples)
        if not overwrite and all(file.exists() for file in files):
            print(f'{photo.name}: {target} is there already, skipped (--overwrite restores it again).')
            continue
        try:
            with tqdm(desc=f'{photo.name} ({number}/{len(targets)})', unit='call', leave=True) as bar:
                result = deblurrer(photo, keep_samples='samples' in save, on_call=lambda done, total: _show(bar, done, total),
                                   **settings)
            _write(result, target, save)
        except InputError as error:
            failures += 1
            print(f'Error: {error}', file=sys.stderr)
    if failures:
        print(f'{failures} of {len(targets)} photos were left out.', file=sys.stderr)
    return 2 if failures else 0


def _targets(photos: list[Path], output: Path) -> dict[Path, Path]:
    """The result's file for each photo."""
    if output.suffix and not output.is_dir():
        if output.suffix.lower() not in FORMATS:
            raise InputError(f"Output {output} has the unknown suffix '{output.suffix}'; use one of {', '.join(FORMATS)}, or a folder.")
        if len(photos) > 1:
            raise InputError(f'{len(photos)} photos cannot all be written to the file {output}; give a folder.')
        targets = {photos[0]: output}
    else:
        targets = {photo: output / photo.name for photo in photos}
    stems: dict[str, Path] = {}
    for photo, target in targets.items():
        if target.exists() and os.path.samefile(photo, target):
            raise InputError(f'{photo} would be overwritten by its own result; choose another output folder.')
        other = stems.setdefault(str(target.with_suffix('')), photo)
        if other is not photo:
            raise InputError(f'{other} and {photo} would get results of the same name; restore them into different folders.')
    return targets


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'Output folder {folder} cannot be made ({error.strerror}); choose another one.') from error
    if not os.access(folder, os.W_OK):
        raise InputError(f'Output folder {folder} cannot be written; choose another one.')


def _files(target: Path, save: Sequence[str], num_samples: int) -> list[Path]:
    """Every file that a photo's restoration writes."""
    files = {
        'image': [target],
        'initial': [target.with_stem(f'{target.stem}_initial')],
        'samples': [target.with_stem(f'{target.stem}_sample{i + 1}') for i in range(num_samples)],
        'std': [target.with_name(f'{target.stem}_std.png')],
    }
    return [file for what in save for file in files[what]]


def _write(result: Result, target: Path, save: Sequence[str]) -> None:
    samples = [] if result.samples is None else list(result.samples)
    if 'initial' in save and result.initial is None:
        raise InputError('These weights have no initial prediction; leave initial out of --save.')
    pictures = {'image': [result.image], 'initial': [result.initial], 'samples': samples}
    for what in save:
        if what == 'std':
            write_photo(_files(target, ['std'], 0)[0], std_picture(result.std))
        else:
            for file, pixels in zip(_files(target, [what], len(samples)), pictures[what]):
                write_photo(file, pixels, like=result.source)


def std_picture(std: NDArray[np.float32]) -> NDArray[np.float32]:
    """A std map (H, W, 3) as a grey picture (H, W, 3): mean over the channels, black 0, white ``STD_WHITE`` and above."""
    grey = np.clip(std.mean(axis=2, keepdims=True) / STD_WHITE, 0, 1)
    return np.repeat(grey, 3, axis=2).astype(np.float32)


def _show(bar: tqdm, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)
