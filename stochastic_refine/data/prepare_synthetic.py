"""A test set on disk from any folder of sharp photos: fixed pairs of :class:`SyntheticBlurDataset`, for comparing folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ..errors import InputError
from ..files import make_folder, write_atomically, write_text
from ..values import check_kinds, span
from .image_files import is_system_file
from .recorded_png import to_pixels
from .synthetic_blur_dataset import SyntheticBlurDataset

RECORD_NAME = 'synthetic.json'


def prepare_synthetic(source: Path, destination: Path, crop_size: int | None = None,
                      trajectory_length: Sequence[float] | None = None, noise_sigma: Sequence[float] | None = None,
                      seed: int = 0, blur: str | None = None) -> str:
    """Write blurred photos to ``destination/input`` and sharp ones to ``destination/target``, as PNG; what is there is kept.

    Args:
        source: Folder of sharp photos, searched with its subfolders.
        destination: Folder of the pairs.
        crop_size: Side of the central crop, pixels; None keeps whole photos.
        trajectory_length, noise_sigma, seed, blur: See :class:`SyntheticBlurDataset`; without ``blur``, 3 to 10 pixels and 0
            to 1 grey value where not given.

    Returns:
        A sentence that says what was done.

    Raises:
        InputError: If photos cannot be read, are too small or share a name, or the folder was made with other settings.
    """
    kernel = {'trajectory_length': trajectory_length or (None if blur else (3, 10)),
              'noise_sigma': noise_sigma or (None if blur else (0, 1))}
    settings = {'type': 'SyntheticBlurDataset', 'gt_size': crop_size, **({'blur': blur} if blur else {}),
                **{key: list(value) for key, value in kernel.items() if value}, 'seed': seed}
    check_kinds({f"--{key.replace('_', '-')}": list(value) for key, value in kernel.items() if value},
                {'--trajectory-length': span(512), '--noise-sigma': span(256)}, 'prepare synthetic')
    dataset = SyntheticBlurDataset({**settings, 'name': 'synthetic', 'phase': 'val', 'dataroot_gt': str(source)})
    names = [path.stem for path in dataset.paths]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f'Two photos below {source} are called {twice}; rename one, since pairs are found by name.')
    record, content = destination / RECORD_NAME, json.dumps({**settings, 'photos': len(dataset)})
    if record.is_file() and (before := record.read_text(encoding='utf-8')) != content:
        raise InputError(f'{destination} was made with other settings ({before}, now {content}); choose another folder, or '
                         'delete this one first.')
    folders = {'lq': destination / 'input', 'gt': destination / 'target'}
    known = {f'{name}.png' for name in names} if record.is_file() else set()
    strangers = [path for folder in folders.values() if folder.is_dir() for path in folder.iterdir()
                 if path.name not in known and not is_system_file(path)]
    if strangers:
        raise InputError(f'{strangers[0]} is there already and is not of these pairs, among which it would be taken for one; '
                         'choose an empty folder.')
    for folder in folders.values():
        make_folder(folder)
    write_text(record, content)
    written = 0
    for index, name in enumerate(tqdm(names, desc='Writing pairs', unit='pair')):
        paths = {key: folder / f'{name}.png' for key, folder in folders.items()}
        if all(path.is_file() for path in paths.values()):
            continue
        item = dataset[index]
        for key, path in paths.items():
            write_atomically(path, partial(Image.fromarray(to_pixels(item[key])).save, compress_level=3))
        written += 1
    return (f'{destination} holds {len(names)} pairs (input, target): {written} written now, {len(names) - written} were there '
            'already.')
