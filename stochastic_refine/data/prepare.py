"""Lay a downloaded deblurring archive out in the folders that BasicSR's ``PairedImageDataset`` reads.

::

    DEST/train/blur_crops, sharp_crops    GOPR0372_07_00-000047_s001.png ...: overlapping crops, as NAFNet's options expect them
    DEST/train/crops.csv                  where each crop lies in its frame, so that training windows are drawn evenly over
                                          the frame although crops overlap
    DEST/test/input, target               GOPR0384_11_00-000001.png ...: whole frames, linked or copied if they are PNG

Images are paired by name. Everything is checked before the first file is written; every file appears whole or not at all, so
running the same command again goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..errors import InputError
from ..processes import run_parallel
from .archives import DATASETS, EXPECTED_PAIRS, VARIANTS, first_few, read_archive
from .even_crops import TABLE_NAME, write_table
from .image_files import is_system_file
from .prepare_job import Job, check_job, crop_starts, replace_file, write_job

__all__ = ['DATASETS', 'EXPECTED_PAIRS', 'VARIANTS', 'PrepareReport', 'crop_starts', 'prepare']

RECORD_NAME = 'prepare.json'


@dataclass
class PrepareReport:
    """What :func:`prepare` found and did.

    ``pairs`` counts image pairs per part (``'gopro train'``), ``crops`` the training crops per side, ``written`` and ``kept``
    the files made now and those already there, ``left_out`` the images without a partner (only with ``allow_incomplete``).
    """

    destination: Path
    pairs: dict[str, int] = field(default_factory=dict)
    crops: int = 0
    written: int = 0
    kept: int = 0
    left_out: int = 0
    lmdbs: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        parts = ', '.join(f'{count} {part} pairs' for part, count in self.pairs.items())
        crops = f' ({self.crops} crops for training)' if self.crops else ''
        left_out = f' {self.left_out} images without a partner were left out.' if self.left_out else ''
        lmdbs = f" LMDBs: {', '.join(str(path) for path in self.lmdbs)}." if self.lmdbs else ''
        return (f'{self.destination} holds {parts}{crops}: {self.written} files written now, {self.kept} were there already.'
                f'{left_out}{lmdbs}')


def prepare(dataset: str, source: str | Path, destination: str | Path, *, variant: str = 'blur', crop_size: int = 512,
            crop_step: int = 256, lmdb: bool = False, workers: int | None = None,
            allow_incomplete: bool = False) -> PrepareReport:
    """Check a downloaded archive and lay it out for training and testing (see the head of this module).

    Args:
        dataset: One of ``DATASETS``; ``realblur`` takes J and R, whichever of them is there, into a folder each.
        source: The unpacked archive, or the folder that holds it.
        destination: Where to write. ``source`` itself is allowed: what lies in place already stays as it is.
        variant: Which blurry frames of GoPro's original layout: ``blur`` or ``blur_gamma``.
        crop_size, crop_step: Edge and distance of the training crops in pixels; the last crop of a row or column ends at the
            frame's border, and a frame smaller than a crop gives one smaller crop.
        lmdb: Also make ``blur_crops.lmdb`` and ``sharp_crops.lmdb`` of the training crops. This imports BasicSR, so call
            ``stochastic_refine.registration.prepare_basicsr()`` first, as the command line does.
        workers: Processes; None takes one for each CPU, 1 starts none. More than 1 needs the usual
            ``if __name__ == '__main__':`` in a script.
        allow_incomplete: Take fewer or more pairs than the complete archive has and leave out images without a partner.

    Raises:
        InputError: If pairs are missing, images cannot be read or differ in size within a pair, or ``destination`` holds other
            files. Nothing has been written then. Also if writing fails; running again goes on from there.
    """
    dataset = dataset.lower().replace('-', '_')
    source, destination = Path(source), Path(destination)
    if crop_size < 1 or crop_step < 1 or (workers is not None and workers < 1):
        raise InputError(f'crop_size ({crop_size}), crop_step ({crop_step}) and workers ({workers}) must be 1 or more.')
    if lmdb and dataset == 'hide':
        raise InputError('hide is used for testing only, so there are no training crops to make an LMDB of; leave lmdb out.')
    if destination.exists() and not destination.is_dir():
        raise InputError(f'{destination} is a file; give a folder to write to.')
    workers = min(workers or os.cpu_count() or 1, 61)  # Windows waits on 61 processes at most

    report = PrepareReport(destination)
    jobs: list[Job] = []
    for part in read_archive(dataset, source, variant, allow_incomplete):
        report.pairs[part.label] = len(part.pairs)
        report.left_out += len(part.unmatched)
        folder = destination / (f'RealBlur_{part.dataset[-1].upper()}' if dataset == 'realblur' else '') / part.split
        is_train = part.split == 'train'
        lq_folder, gt_folder = (folder / side for side in (('blur_crops', 'sharp_crops') if is_train else ('input', 'target')))
        crop = (crop_size, crop_step) if is_train else None
        jobs += [Job(name, part.lq[name], part.gt[name], lq_folder, gt_folder, crop) for name in part.pairs]
    settings = {'dataset': dataset, 'variant': variant}
    if any(job.crop for job in jobs):
        settings |= {'crop_size': crop_size, 'crop_step': crop_step}
    record = json.dumps(settings)
    has_record = _check_record(destination, record)

    checked = run_parallel(check_job, jobs, workers, f'Checking {dataset}', 'pair')
    if problems := [problem for _, problem in checked if problem]:
        raise InputError(f"{first_few(problems, '; ')}; download what is named here again.")
    outputs: dict[Path, dict[str, tuple[int, int]]] = defaultdict(dict)  # size of each file by folder and name
    for job, (size, _) in zip(jobs, checked):
        for output in job.outputs(size):
            outputs[output.path.parent][output.path.name] = output.size
    source_folders = {folder.resolve() for folder in {path.parent for job in jobs for path in (job.lq, job.gt)}}
    for folder, files in outputs.items():
        _check_folder(folder, files, lmdb, is_ours=has_record or folder.resolve() in source_folders)

    replace_file(destination / RECORD_NAME, lambda temporary: temporary.write_text(record, encoding='utf-8'))
    tables: dict[Path, list[tuple[str, str, int, int, int, int]]] = defaultdict(list)
    for job, (size, _) in zip(jobs, checked):
        if job.crop:
            tables[job.gt_folder.parent] += [(output.path.stem, job.name, *output.box[:2], *output.size)
                                             for output in job.outputs(size) if output.path.parent == job.gt_folder]
    for folder, crops in tables.items():
        replace_file(folder / TABLE_NAME, partial(write_table, crops=crops))
    report.written = sum(run_parallel(write_job, jobs, workers, f'Writing {dataset}', 'pair'))
    report.kept = sum(len(files) for files in outputs.values()) - report.written
    crop_folders = [folder for folder in outputs if folder.name.endswith('_crops')]
    report.crops = sum(len(outputs[folder]) for folder in crop_folders) // 2
    if lmdb:
        report.lmdbs = [_make_lmdb(folder, outputs[folder]) for folder in crop_folders]
    return report


def _check_record(destination: Path, record: str) -> bool:
    """Whether an earlier run left its record; outputs made with other settings would be taken for finished."""
    path = destination / RECORD_NAME
    if not path.is_file():
        return False
    if (before := path.read_text(encoding='utf-8', errors='replace')) != record:
        raise InputError(f'{destination} was prepared with other settings ({path} says {before}, now {record}); choose '
                         'another folder, or delete this one first.')
    return True


def _check_folder(folder: Path, files: Iterable[str], lmdb: bool, is_ours: bool) -> None:
    """PairedImageDataset takes every file of a folder, so nothing else may lie there."""
    present = {path.name for path in folder.iterdir() if not is_system_file(path)} if folder.is_dir() else set()
    foreign = sorted(present - set(files) if is_ours else present)
    if foreign:
        raise InputError(f'{folder} already holds {len(foreign)} other files ({first_few(foreign)}); choose another '
                         'folder, or delete them first.')
    if lmdb and (other := sorted(file for file in files if not file.isascii() or '.' in Path(file).stem)):
        raise InputError(f"{first_few(other)} cannot be LMDB keys, which are ASCII and end, for BasicSR, at the first dot; "
                         'rename the images or leave lmdb out.')


def _make_lmdb(folder: Path, files: dict[str, tuple[int, int]]) -> Path:
    """Make ``<folder>.lmdb`` with BasicSR's helper unless it is there with exactly these files."""
    import lmdb
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs
    path, temporary = folder.with_name(f'{folder.name}.lmdb'), folder.with_name(f'.{folder.name}.part.lmdb')
    meta = path / 'meta_info.txt'
    if meta.is_file() and {line.split(' ')[0] for line in meta.read_text(encoding='utf-8').splitlines()} == files.keys():
        return path
    # the helper reckons ten times the first image, which is too little when that one is flat; this holds them uncompressed
    map_size = 2 ** 20 + sum(int(width * height * 3 * 1.1) + 2 ** 14 for width, height in files.values())
    names = sorted(files)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            make_lmdb_from_imgs(str(folder), str(temporary), names, [name[:-len('.png')] for name in names], map_size=map_size)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    except (OSError, lmdb.Error) as error:
        raise InputError(f'{path} could not be written ({error}); free some space and run the same command again.') from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path
