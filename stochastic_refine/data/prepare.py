"""Lay a downloaded deblurring archive out in the folders that BasicSR's ``PairedImageDataset`` reads.

::

    DEST/train/blur_crops, sharp_crops    GOPR0372_07_00-000047_s001.png ...: overlapping crops, as NAFNet's options expect them
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
import signal
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from ..errors import InputError

#: Pairs in the complete archives, as their authors publish them.
EXPECTED_PAIRS = {
    'gopro': {'train': 2103, 'test': 1111},
    'hide': {'test': 2025},
    'realblur_j': {'train': 3758, 'test': 980},
    'realblur_r': {'train': 3758, 'test': 980},
}
DATASETS = (*EXPECTED_PAIRS, 'realblur')
VARIANTS = ('blur', 'blur_gamma')
RECORD_NAME = 'prepare.json'

_EXPECTED_LAYOUT = {
    'gopro': 'train|test/GOPRxxxx_xx_xx/{blur,sharp}/*.png or train|test/{input,target}/*.png',
    'hide': 'test/{test-close-ups,test-long-shot}/*.png with GT/*.png, or test/{input,target}/*.png',
    'realblur_j': 'RealBlur_J_train_list.txt and RealBlur_J_test_list.txt beside the image folders they name',
    'realblur_r': 'RealBlur_R_train_list.txt and RealBlur_R_test_list.txt beside the image folders they name',
}
_IMAGE_SUFFIXES = {'.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp'}
_PNG_START, _PNG_END = b'\x89PNG\r\n\x1a\n', b'\x00\x00\x00\x00IEND\xaeB`\x82'


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


class _Part(NamedTuple):
    """Images of one split as found, by the name they get; a name in one of the two dicts only has no partner."""

    dataset: str
    split: str
    lq: dict[str, Path]
    gt: dict[str, Path]


@dataclass(frozen=True)
class _Job:
    """One pair and where it goes; ``crop`` is (size, step) in pixels, None keeps the frame whole."""

    name: str
    lq: Path
    gt: Path
    lq_folder: Path
    gt_folder: Path
    crop: tuple[int, int] | None

    def boxes(self, size: tuple[int, int]) -> dict[str, tuple[int, int, int, int] | None]:
        """File names with their (left, upper, right, lower) box in a frame of (width, height); None is the whole frame."""
        if self.crop is None:
            return {f'{self.name}.png': None}
        width, height = size
        edge, step = self.crop
        corners = [(left, upper) for upper in crop_starts(height, edge, step) for left in crop_starts(width, edge, step)]
        return {f'{self.name}_s{number:03d}.png': (left, upper, min(left + edge, width), min(upper + edge, height))
                for number, (left, upper) in enumerate(corners, start=1)}

    def outstanding(self, size: tuple[int, int]) -> list[tuple[Path, Path, tuple[int, int, int, int] | None]]:
        """(source, output, box) of the outputs that are not there or not whole."""
        return [(source, folder / file, box) for source, folder in ((self.lq, self.lq_folder), (self.gt, self.gt_folder))
                for file, box in self.boxes(size).items() if not _is_done(source, folder / file, box, size)]


class _Checked(NamedTuple):
    """Outcome of checking one job: frame size (width, height), number of outputs yet to write, what is wrong or ''."""

    size: tuple[int, int]
    outstanding: int
    problem: str


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
        lmdb: Also make ``blur_crops.lmdb`` and ``sharp_crops.lmdb`` of the training crops (needs BasicSR).
        workers: Processes; None takes one for each CPU, 1 starts none. More than 1 needs the usual
            ``if __name__ == '__main__':`` in a script.
        allow_incomplete: Take fewer or more pairs than the complete archive has and leave out images without a partner.

    Raises:
        InputError: If pairs are missing, images cannot be read or differ in size within a pair, or ``destination`` holds other
            files. Nothing has been written then. Also if writing fails; running again goes on from there.
    """
    dataset = dataset.lower().replace('-', '_')
    source, destination = Path(source), Path(destination)
    _check_arguments(dataset, source, destination, variant, crop_size, crop_step, lmdb, workers)
    if lmdb:
        from ..registration import prepare_basicsr
        prepare_basicsr()
    workers = min(workers or os.cpu_count() or 1, 61)  # Windows waits on 61 processes at most

    report = PrepareReport(destination)
    jobs: list[_Job] = []
    for part in _find_parts(dataset, source, variant):
        report.left_out += _check_part(part, allow_incomplete)
        folder = destination / (f'RealBlur_{part.dataset[-1].upper()}' if dataset == 'realblur' else '') / part.split
        is_train = part.split == 'train'
        lq_folder, gt_folder = (folder / side for side in (('blur_crops', 'sharp_crops') if is_train else ('input', 'target')))
        crop = (crop_size, crop_step) if is_train else None
        names = sorted(part.lq.keys() & part.gt.keys())
        report.pairs[f'{part.dataset} {part.split}'] = len(names)
        jobs += [_Job(name, part.lq[name], part.gt[name], lq_folder, gt_folder, crop) for name in names]
    if not jobs:
        raise InputError(f'{source} holds no image pair of {dataset}; expected {_layouts(dataset)}.')
    settings = {'dataset': dataset, 'variant': variant}
    if any(job.crop for job in jobs):
        settings |= {'crop_size': crop_size, 'crop_step': crop_step}
    has_record = _check_record(destination, settings)

    checked = _run(_check_job, jobs, workers, f'Checking {dataset}')
    if problems := [result.problem for result in checked if result.problem]:
        raise InputError(f"{_first_few(problems, '; ')}; download what is named here again.")
    outputs = _outputs(jobs, checked)
    source_folders = {folder.resolve() for folder in {path.parent for job in jobs for path in (job.lq, job.gt)}}
    for folder, files in outputs.items():
        _check_folder(folder, files, lmdb, is_ours=has_record or folder.resolve() in source_folders)

    _make_folders(destination, outputs, settings)
    unfinished = [job for job, result in zip(jobs, checked) if result.outstanding]
    report.written = sum(_run(_write_job, unfinished, workers, f'Writing {dataset}'))
    report.kept = sum(len(files) for files in outputs.values()) - report.written
    crop_folders = [folder for folder in outputs if folder.name.endswith('_crops')]
    report.crops = sum(len(outputs[folder]) for folder in crop_folders) // 2
    if lmdb:
        report.lmdbs = [_make_lmdb(folder, outputs[folder]) for folder in crop_folders]
    return report


def crop_starts(length: int, size: int, step: int) -> list[int]:
    """Where crops of ``size`` begin along an edge of ``length`` pixels so that all of it is covered when ``step <= size``."""
    starts = list(range(0, length - size + 1, step)) or [0]
    if starts[-1] + size < length:
        starts.append(length - size)
    return starts


def _check_arguments(dataset: str, source: Path, destination: Path, variant: str, crop_size: int, crop_step: int, lmdb: bool,
                     workers: int | None) -> None:
    if dataset not in DATASETS:
        raise InputError(f"Dataset {dataset!r} is not known; choose one of {', '.join(DATASETS)}.")
    if variant not in VARIANTS or (variant != 'blur' and dataset != 'gopro'):
        raise InputError(f'variant {variant!r} does not exist for {dataset}; only gopro has {" and ".join(VARIANTS)}.')
    if crop_size < 1 or crop_step < 1 or (workers is not None and workers < 1):
        raise InputError(f'crop_size ({crop_size}), crop_step ({crop_step}) and workers ({workers}) must be 1 or more.')
    if lmdb and dataset == 'hide':
        raise InputError('hide is used for testing only, so there are no training crops to make an LMDB of; leave lmdb out.')
    if not source.is_dir():
        raise InputError(f'{source} is no folder; give the folder of the unpacked {dataset} archive.')
    if destination.exists() and not destination.is_dir():
        raise InputError(f'{destination} is a file; give a folder to write to.')


# Reading the archives' layouts


def _find_parts(dataset: str, source: Path, variant: str) -> list[_Part]:
    kinds = ('realblur_j', 'realblur_r') if dataset == 'realblur' else (dataset,)
    parts = [part for kind in kinds for part in _search(source, lambda root: _READERS[kind](root, variant))]
    if not parts:
        raise InputError(f'{source} does not look like {dataset}; expected {_layouts(dataset)} in it or one folder below.')
    return parts


def _layouts(dataset: str) -> str:
    return _EXPECTED_LAYOUT['realblur_j' if dataset == 'realblur' else dataset]


def _search(source: Path, read: Callable[[Path], list[_Part]]) -> list[_Part]:
    """What ``read`` finds in ``source`` or, archives often having a folder around everything, in a folder of it."""
    return next((parts for root in (source, *_folders(source)) if (parts := read(root))), [])


def _read_gopro(root: Path, variant: str) -> list[_Part]:
    parts = []
    for split in ('train', 'test'):
        sequences = [folder for folder in _folders(root / split) if (folder / variant).is_dir() or (folder / 'sharp').is_dir()]
        flat = _flat_folder(root / split, root / split / 'GoPro')
        lq: dict[str, Path] = {}
        gt: dict[str, Path] = {}
        if sequences:
            for folder in sequences:
                lq |= _images(folder / variant, prefix=f'{folder.name}-')
                gt |= _images(folder / 'sharp', prefix=f'{folder.name}-')
        elif flat:
            if variant != 'blur':
                raise InputError(f'{flat} has one kind of blurry frames; leave variant out or give the original archive.')
            lq, gt = _images(flat / 'input'), _images(flat / 'target')
        parts.append(_Part('gopro', split, lq, gt))
    return parts if any(part.lq or part.gt for part in parts) else []


def _read_hide(root: Path, variant: str) -> list[_Part]:
    original = [root / 'test' / 'test-close-ups', root / 'test' / 'test-long-shot']
    flat = _flat_folder(root, root / 'test', root / 'test' / 'HIDE')
    if any(folder.is_dir() for folder in original):
        lq = _images(*original)
        # GT also holds the sharp frames of the training images
        gt = {name: path for name, path in _images(root / 'GT').items() if name in lq}
    elif flat:
        lq, gt = _images(flat / 'input'), _images(flat / 'target')
    else:
        return []
    return [_Part('hide', 'test', lq, gt)]


def _read_realblur(root: Path, kind: str) -> list[_Part]:
    lists = {split: root / f'RealBlur_{kind}_{split}_list.txt' for split in ('train', 'test')}
    if not any(path.is_file() for path in lists.values()):
        return []
    parts = []
    for split, path in lists.items():
        part = _Part(f'realblur_{kind.lower()}', split, {}, {})
        lines = path.read_text(encoding='utf-8', errors='replace').splitlines() if path.is_file() else []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            files = [root / entry for entry in line.split()]
            names = [f"{file.parent.parent.name}_{file.stem.removeprefix(f'{file.parent.name}_')}" for file in files]
            if [file.parent.name for file in files] != ['gt', 'blur'] or names[0] != names[1] or names[0] in part.gt | part.lq:
                raise InputError(f'{path}, line {number}: {line.strip()!r} is not one new pair "<scene>/gt/gt_N.png '
                                 '<scene>/blur/blur_N.png"; download the list again.')
            for side, file in ((part.gt, files[0]), (part.lq, files[1])):
                if file.is_file():
                    side[names[0]] = file
        parts.append(part)
    return parts


_READERS: dict[str, Callable[[Path, str], list[_Part]]] = {
    'gopro': _read_gopro,
    'hide': _read_hide,
    'realblur_j': lambda root, variant: _read_realblur(root, 'J'),
    'realblur_r': lambda root, variant: _read_realblur(root, 'R'),
}


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _flat_folder(*folders: Path) -> Path | None:
    return next((folder for folder in folders if (folder / 'input').is_dir() or (folder / 'target').is_dir()), None)


def _images(*folders: Path, prefix: str = '') -> dict[str, Path]:
    """Images of some folders by prefix + name without suffix; hidden files (macOS leaves ``._x.png``) are none."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix.lower() not in _IMAGE_SUFFIXES or path.name.startswith('.'):
                continue
            name = prefix + path.stem
            if name in found:
                raise InputError(f'{found[name]} and {path} have the same name {name!r}; remove or rename one of them.')
            found[name] = path
    return found


# Checking before anything is written


def _check_part(part: _Part, allow_incomplete: bool) -> int:
    """Number of images without a partner, which ``allow_incomplete`` leaves out."""
    label = f'{part.dataset} {part.split}'
    unmatched = [f"{part.lq.get(name) or part.gt.get(name)} (no {'sharp' if name in part.lq else 'blurry'} one)"
                 for name in sorted(part.lq.keys() ^ part.gt.keys())]
    if unmatched and not allow_incomplete:
        raise InputError(f'{label}: {len(unmatched)} images have no partner of the same name: {_first_few(unmatched)}; '
                         'download the archive again, or leave them out with --allow-incomplete.')
    found, expected = len(part.lq.keys() & part.gt.keys()), EXPECTED_PAIRS[part.dataset][part.split]
    if found != expected and not allow_incomplete:
        raise InputError(f'{label}: found {found} pairs but the complete archive has {expected}; download it again, or go on '
                         'with what is there by --allow-incomplete.')
    return len(unmatched)


def _check_job(job: _Job) -> _Checked:
    """Decode a pair fully unless all its outputs are done; Pillow raises errors of many kinds on damaged files."""
    sizes = []
    for path in (job.lq, job.gt):
        try:
            with Image.open(path) as image:
                sizes.append(image.size)
        except Exception as error:
            return _Checked((0, 0), 0, f'{path} cannot be read ({error})')
    if sizes[0] != sizes[1]:
        return _Checked((0, 0), 0, '{} is {}x{} but {} is {}x{}'.format(job.lq, *sizes[0], job.gt, *sizes[1]))
    outstanding = job.outstanding(sizes[0])
    for path in sorted({source for source, _, _ in outstanding}):
        try:
            with Image.open(path) as image:
                image.load()
        except Exception as error:
            return _Checked((0, 0), 0, f'{path} is damaged ({error})')
    return _Checked(sizes[0], len(outstanding), '')


def _outputs(jobs: list[_Job], checked: list[_Checked]) -> dict[Path, dict[str, tuple[int, int]]]:
    """Per folder to write, the size (width, height) of each file."""
    outputs: dict[Path, dict[str, tuple[int, int]]] = {}
    for job, result in zip(jobs, checked):
        files = {file: _box_size(box, result.size) for file, box in job.boxes(result.size).items()}
        for folder in (job.lq_folder, job.gt_folder):
            outputs.setdefault(folder, {}).update(files)
    return outputs


def _check_record(destination: Path, settings: dict[str, Any]) -> bool:
    """Whether an earlier run left its record; outputs made with other settings would be taken for finished."""
    path = destination / RECORD_NAME
    if not path.is_file():
        return False
    try:
        before = json.loads(path.read_text(encoding='utf-8'))
    except ValueError:
        before = None
    if before != settings:
        raise InputError(f'{destination} was prepared with other settings ({path} says {before}, now {settings}); choose '
                         'another folder, or delete this one first.')
    return True


def _check_folder(folder: Path, files: Iterable[str], lmdb: bool, is_ours: bool) -> None:
    """PairedImageDataset takes every file of a folder, so nothing else may lie there."""
    present = {path.name for path in folder.iterdir() if not path.name.startswith('.')} if folder.is_dir() else set()
    foreign = sorted(present - set(files) if is_ours else present)
    if foreign:
        raise InputError(f'{folder} already holds {len(foreign)} other files ({_first_few(foreign)}); choose another '
                         'folder, or delete them first.')
    if lmdb and (other := sorted(file for file in files if not file.isascii())):
        raise InputError(f'{_first_few(other)} cannot be LMDB keys; rename the images to plain ASCII or leave lmdb out.')


def _first_few(items: list[str], separator: str = ', ', count: int = 3) -> str:
    more = f' and {len(items) - count} more' if len(items) > count else ''
    return separator.join(items[:count]) + more


# Writing


def _make_folders(destination: Path, folders: Iterable[Path], settings: dict[str, Any]) -> None:
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob('.*.part'):
                leftover.unlink()
    except OSError as error:
        raise InputError(f'{destination} cannot be written to ({error}); choose another folder.') from error
    _replace(destination / RECORD_NAME, lambda temporary: temporary.write_text(json.dumps(settings), encoding='utf-8'))


def _write_job(job: _Job) -> int:
    """Write what is outstanding of a pair; returns the number of files."""
    frames: dict[Path, Image.Image] = {}
    with Image.open(job.lq) as image:
        outstanding = job.outstanding(image.size)
    for source, output, box in outstanding:
        if box is None and _is_png(source):
            _replace(output, lambda temporary: _link_or_copy(source, temporary))
            continue
        if source not in frames:
            with Image.open(source) as image:
                frames[source] = image.convert('RGB')
        frame = frames[source].crop(box) if box else frames[source]
        _replace(output, lambda temporary: frame.save(temporary, format='PNG', compress_level=3))
    return len(outstanding)


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write through a temporary file beside ``path``.

    Without the fsync of checkpoints: it would take long for tens of thousands of files, and a later run sees shortened ones.
    """
    temporary = path.with_name(f'.{path.name}.part')
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f'{path} could not be written ({error}); free some space or check its permissions, and run the same '
                         'command again to go on.') from error
    finally:
        temporary.unlink(missing_ok=True)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _is_png(path: Path) -> bool:
    with path.open('rb') as file:
        return file.read(len(_PNG_START)) == _PNG_START


def _is_done(source: Path, output: Path, box: tuple[int, int, int, int] | None, size: tuple[int, int]) -> bool:
    """Whether an output is there and whole, by its length or its first and last bytes, without decoding it."""
    if not output.is_file():
        return False
    if box is None and _is_png(source):
        return output.stat().st_size == source.stat().st_size
    with output.open('rb') as file:
        head = file.read(24)  # signature, then the IHDR chunk with width and height
        file.seek(max(0, output.stat().st_size - len(_PNG_END)))
        tail = file.read()
    return head[:8] == _PNG_START and head[16:] == struct.pack('>II', *_box_size(box, size)) and tail == _PNG_END


def _box_size(box: tuple[int, int, int, int] | None, size: tuple[int, int]) -> tuple[int, int]:
    return size if box is None else (box[2] - box[0], box[3] - box[1])


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


# Worker processes


def _run(function: Callable[[_Job], Any], jobs: list[_Job], workers: int, description: str) -> list[Any]:
    """Results of ``function`` in the order of ``jobs``, with a progress bar; the first error or Ctrl-C stops the rest."""
    if workers == 1 or len(jobs) < 2:
        return [function(job) for job in tqdm(jobs, desc=description, unit='pair')]
    executor = ProcessPoolExecutor(min(workers, len(jobs)), get_context('spawn'), initializer=_leave_interrupts_to_parent)
    try:
        futures = [executor.submit(function, job) for job in jobs]
        for future in tqdm(as_completed(futures), total=len(futures), desc=description, unit='pair'):
            future.result()
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise InputError('A worker process ended unexpectedly, probably for want of memory; run the same command again with '
                         'fewer workers.') from error
    finally:
        executor.shutdown(cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    """On Ctrl-C every process of the terminal gets the signal; workers finish their pair, so that nothing is half-written."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
