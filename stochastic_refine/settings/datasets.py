"""Check a data set's block of an options file, and that what it names is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.archives import first_few, leaves_its_folder
from ..data.checked_dataset import PAIRED
from ..data.image_files import FORMATS, SYSTEM_FILES, open_image, upright_size
from ..data.predictions import origin_in
from ..data.synthetic_blur_dataset import camera_blur, find_images
from ..errors import InputError
from ..values import (
    BLOCK,
    COLOUR,
    COUNT,
    FLAG,
    NAME,
    TEXT,
    attempt,
    check_kinds,
    either,
    known_type,
    number,
    one_of,
    optional,
    refuse_slips,
    refuse_unknown,
    require,
    span,
)

#: Data sets whose keys are all known: what each needs always, and in training besides.
_DATASETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'SyntheticBlurDataset': (('dataroot_gt', ), ('gt_size', )),
    'PairedImageDataset': (('dataroot_gt', 'dataroot_lq', 'io_backend'), ('gt_size', 'use_hflip', 'use_rot')),
    'PredictedImageDataset': (('dataroot_gt', 'dataroot_lq', 'dataroot_initial', 'io_backend'),
                              ('gt_size', 'use_hflip', 'use_rot')),
    'SingleImageDataset': (('dataroot_lq', 'io_backend'), ()),
}
#: Keys of every data set, read by BasicSR's loaders and by :class:`CheckedDataset`.
_ANY_DATASET = {'name': NAME, 'type': TEXT, 'num_worker_per_gpu': number(0, 1000, whole=True), 'batch_size_per_gpu': COUNT,
                'dataset_enlarge_ratio': number(1, 10**6), 'persistent_workers': FLAG, 'pin_memory': FLAG,
                'prefetch_mode': one_of(None, 'cpu', 'cuda'), 'num_prefetch_queue': COUNT, 'skip_corrupt': FLAG,
                'max_images': optional(COUNT), 'scale': COUNT}
_DATASET = {**_ANY_DATASET, 'dataroot_gt': TEXT, 'dataroot_lq': TEXT, 'dataroot_initial': TEXT, 'io_backend': BLOCK,
            'meta_info_file': optional(TEXT),
            'filename_tmpl': TEXT, 'gt_size': optional(COUNT), 'use_hflip': FLAG, 'use_rot': FLAG, 'mean': optional(COLOUR),
            'std': optional(COLOUR), 'color': optional(TEXT), 'trajectory_length': span(512), 'noise_sigma': span(256),
            'trajectory': optional(BLOCK), 'blur': optional(either(TEXT, BLOCK)), 'linear_light': FLAG,
            'seed': number(0, 2**62, whole=True), 'cache': FLAG}
#: Keys of its block ``trajectory``, of :func:`~stochastic_refine.blur.camera_shake_trajectory`.
_TRAJECTORY = {'turn': number(0, 10), 'impulse_rate': number(0, 127), 'direction': optional(number(-10, 10))}
_DATASET_KEYS = {*_DATASET, 'phase', 'gt_sizes', 'mini_batch_sizes', 'iters'}


def check_dataset(name: str, dataset: dict[str, Any], known: Any, is_train: bool) -> None:
    """Check the block ``datasets: name``; ``known`` is BasicSR's registry of data sets.

    Raises:
        InputError: At the first thing that would fail, or be ignored, later.
    """
    from ..models.progressive import ProgressivePatches  # imports BasicSR, which needs the compatibility layer first
    where = f'datasets: {name}'
    phase = name.split('_')[0]
    phases = ('train', 'val') if is_train else ('test', 'val')
    if phase not in phases or (phase == 'train' != name):
        run = 'training' if is_train else 'a test'
        raise InputError(f"{where}: a data set's block is called {' or '.join(phases)} in {run} "
                         f"({phases[1]}_2 and so on for more), not '{name}'.")
    require(dataset, ('name', 'type'), where)
    check_kinds(dataset, _DATASET if dataset['type'] in [*_DATASETS] else _ANY_DATASET, where)
    known_type(dataset['type'], known, f'{where}: type')
    if dataset.get('prefetch_mode') == 'cpu':
        raise InputError(f"{where}: prefetch_mode cpu hangs for ever, in BasicSR, once an image cannot be read; write ~ "
                         'or cuda.')
    if dataset['type'] in _DATASETS:
        refuse_slips(dataset, _DATASET_KEYS, where)
        always, in_training = _DATASETS[dataset['type']]
        require(dataset, (*always, *(in_training if phase == 'train' else ())), where)
        _check_trajectory(dataset.get('trajectory') or {}, f'{where}: trajectory')
        camera_blur({**dataset, 'name': name})
    if phase == 'train':
        require(dataset, ('batch_size_per_gpu', 'num_worker_per_gpu'), where)
        ProgressivePatches.from_options(dataset, where)
    if dataset.get('persistent_workers') and not (phase == 'train' and dataset['num_worker_per_gpu'] > 0):
        raise InputError(f'{where}: persistent_workers needs num_worker_per_gpu above 0, which only the block train can have; '
                         'remove persistent_workers.')
    for key in (key for key in dataset if key.startswith('dataroot')):
        if not Path(dataset[key]).expanduser().exists():
            raise InputError(f'{where}: {key} {dataset[key]} does not exist; correct the path, or lay the data out with '
                             'stochastic-refine prepare.')
    if 'io_backend' in dataset:
        require(dataset['io_backend'], ('type', ), f'{where}: io_backend')
        check_kinds(dataset['io_backend'], {'type': TEXT}, f'{where}: io_backend')
    _check_images(where, dataset, phase)


def unused_dataset_keys(dataset: Mapping[str, Any]) -> list[str]:
    """Its keys that have no meaning, if it is one whose keys are all known."""
    return [key for key in dataset if key not in _DATASET_KEYS] if dataset['type'] in _DATASETS else []


def _check_trajectory(trajectory: Mapping[str, Any], where: str) -> None:
    refuse_unknown(trajectory, _TRAJECTORY, where)
    check_kinds(trajectory, _TRAJECTORY, where)


def _check_images(where: str, dataset: Mapping[str, Any], phase: str) -> None:
    """Check that a folder or LMDB holds images, and that two folders hold pairs."""
    if dataset['type'] == 'SyntheticBlurDataset':
        find_images(dataset['dataroot_gt'])
    if dataset['type'] == 'SingleImageDataset' and dataset['io_backend']['type'] == 'disk':
        _check_strangers(Path(dataset['dataroot_lq']).expanduser(), dataset, where)
    if dataset['type'] not in PAIRED:
        return
    if dataset['type'] == 'PredictedImageDataset':
        _check_predictions(where, dataset)
    lq, gt = (Path(dataset[key]).expanduser() for key in ('dataroot_lq', 'dataroot_gt'))
    if dataset['io_backend']['type'] == 'lmdb':
        for root in (lq, gt):
            _check_lmdb(root, where)
    if dataset['io_backend']['type'] != 'disk':
        return
    template = dataset.get('filename_tmpl', '{}')

    def partner(name: str) -> str:
        return attempt(f'{where}: filename_tmpl {template}', template.format, Path(name).stem) + Path(name).suffix

    lq_names, gt_names = (_check_strangers(root, dataset, where) for root in (lq, gt))
    if dataset.get('meta_info_file'):
        listed = {line.split(' ')[0] for line in _lines(Path(dataset['meta_info_file']), where)}
        outside = sorted(filter(leaves_its_folder, listed))
        if outside:
            raise InputError(f"{where}: meta_info_file {dataset['meta_info_file']} lists {outside[0]}, which is outside the "
                             'data folder; correct it.')
        expected = {partner(Path(name).name): name for name in listed}
        absent = [gt / name for name in listed if not (gt / name).is_file()]
        absent += [lq / name for name in expected if not (lq / name).is_file()]
        if absent or not listed:
            raise InputError(f"{where}: meta_info_file {dataset['meta_info_file']} lists {len(listed)} images, of which "
                             f"{len(absent)} files do not exist{f' (first: {min(absent)})' if absent else ''}; correct it or "
                             'remove the key.')
    else:
        expected = {partner(name): name for name in gt_names}
    if not dataset.get('meta_info_file') and lq_names != expected.keys():
        only_lq, only_gt = sorted(lq_names - expected.keys()), sorted(expected[name] for name in expected.keys() - lq_names)
        stems = {Path(name).stem: name for name in expected}
        alike = next((name for name in only_lq if Path(name).stem in stems), None)
        if alike is not None:
            other = gt / expected[stems[Path(alike).stem]]
            raise InputError(f'{where}: {lq / alike} and {other} have one name but two suffixes, and BasicSR pairs images of '
                             'equal suffixes only; save those of one folder in the format of the other.')
        lone = [f'{len(names)} only in {folder} (first: {names[0]})'
                for names, folder in ((only_lq, lq), (only_gt, gt)) if names]
        raise InputError(f'{where}: images do not pair up by name: {"; ".join(lone)}. Remove or add the missing ones.')
    if phase != 'train' and dataset.get('scale', 1) == 1:  # in training they differ in a crop at the latest, which names them
        for name in sorted(expected):
            _check_sizes(lq / name, gt / expected[name], where)


def _check_predictions(where: str, dataset: Mapping[str, Any]) -> None:
    """Refuse settings of BasicSR's pairs that have no meaning beside predictions, and a folder that holds none."""
    if dataset['io_backend']['type'] != 'disk':
        raise InputError(f"{where}: PredictedImageDataset reads files; set io_backend: {{type: disk}}.")
    for key in ('mean', 'std', 'color', 'scale'):
        if dataset.get(key, 1) not in (1, None):
            raise InputError(f'{where}: {key} has no meaning for PredictedImageDataset; remove it.')
    attempt(where, origin_in, dataset['dataroot_initial'])


def _check_strangers(folder: Path, dataset: Mapping[str, Any], where: str) -> set[str]:
    """The names of the images in a folder, all of whose files BasicSR takes for some.

    Raises:
        InputError: If there is none, or files that are no images.
    """
    names = {path.name for path in folder.iterdir()
             if path.is_file() and path.name[0] != '.' and path.name.lower() not in SYSTEM_FILES}
    if not names:
        raise InputError(f'{where}: {folder} holds no image; check the path.')
    if not dataset.get('meta_info_file') and not dataset.get('skip_corrupt'):
        strangers = [name for name in sorted(names)
                     if Path(name).suffix.lower() not in FORMATS and not _is_image(folder / name)]
        if strangers:
            raise InputError(f'{where}: {folder} holds {len(strangers)} files that are no images ({first_few(strangers)}), but '
                             'BasicSR draws every file; remove them.')
    return names


def _is_image(path: Path) -> bool:
    try:
        with open_image(path):
            return True
    except InputError:
        return False


def _check_sizes(lq: Path, gt: Path, where: str) -> None:
    """Refuse a pair of different sizes, whose sharp image BasicSR would crop in silence; only the headers are read."""
    try:
        with open_image(lq) as blurred, open_image(gt) as sharp:
            sizes = upright_size(blurred), upright_size(sharp)
    except InputError:  # named when it is read, or skipped with skip_corrupt
        return
    if sizes[0] != sizes[1]:
        raise InputError(f'{where}: {lq} and {gt} differ in size, {sizes[0][0]}x{sizes[0][1]} and {sizes[1][0]}x{sizes[1][1]}; '
                         'mend or remove the pair.')


def _check_lmdb(folder: Path, where: str) -> None:
    """Check that an LMDB of BasicSR's kind can be opened and has the images that its list names, by the keys that BasicSR asks
    for."""
    import lmdb
    if folder.suffix != '.lmdb':
        raise InputError(f'{where}: {folder} is no LMDB, whose name ends in .lmdb; correct the path, or set io_backend: '
                         '{type: disk}.')
    lines = _lines(folder / 'meta_info.txt', where)
    if not lines:
        raise InputError(f'{where}: {folder / "meta_info.txt"} lists no image; make the LMDB again.')
    keys = [line.split(' (')[0].rsplit('.', 1)[0] for line in lines]  # of "NAME.png (height,width,channels) compression"
    dotted = [key for key in keys if '.' in key]
    if dotted:
        raise InputError(f'{where}: {folder} lists {len(dotted)} images with a dot within their names ({dotted[0]}), but '
                         "BasicSR ends an LMDB's keys at the first dot; rename the images and make the LMDB again.")
    try:
        with lmdb.open(str(folder), readonly=True, lock=False, readahead=False) as base:
            pages = base.info()['last_pgno'] + 1
            if (folder / 'data.mdb').stat().st_size < pages * base.stat()['psize']:  # reading what is missing ends the process
                raise InputError(f'{where}: {folder} is cut short; copy it again, or make it again.')
            with base.begin() as content, content.cursor() as cursor:
                absent = [key for key in keys if not cursor.set_key(key.encode())]
    except (lmdb.Error, OSError) as error:
        raise InputError(f'{where}: {folder} is damaged ({error}); make the LMDB again.') from error
    if absent:
        raise InputError(f'{where}: {folder} lacks {len(absent)} of {len(keys)} images that its meta_info.txt lists, the first '
                         f'by the key {absent[0]}; make the LMDB again.')


def _lines(path: Path, where: str) -> list[str]:
    """The lines of a list of images, without empty ones."""
    try:
        return [line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'it is no text'
        raise InputError(f'{where}: {path} cannot be read ({reason}); correct it.') from error
