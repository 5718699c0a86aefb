"""How the deblurring archives are laid out and which pairs they hold; nothing is decoded or written here."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

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

_LAYOUTS = {
    'gopro': 'train|test/GOPRxxxx_xx_xx/{blur,sharp}/*.png or train|test/{input,target}/*.png',
    'hide': 'test/{test-close-ups,test-long-shot}/*.png with GT/*.png, or test/{input,target}/*.png',
    'realblur': 'RealBlur_J|R_train|test_list.txt beside the image folders they name',
}
#: "<folder>/<scene>/gt/gt_<N>.png <folder>/<scene>/blur/blur_<N>.png"
_REALBLUR_LINE = re.compile(r'(?P<gt>(?:\S+/)?(?P<scene>[^/\s]+)/gt/gt_(?P<number>\w+)\.\w+)\s+'
                            r'(?P<lq>(?:\S+/)?(?P=scene)/blur/blur_(?P=number)\.\w+)')


class Part(NamedTuple):
    """One split of an archive: blurry (``lq``) and sharp (``gt``) images by the name they get.

    A name that is in one of the two only is an image without a partner.
    """

    dataset: str
    split: str
    lq: dict[str, Path]
    gt: dict[str, Path]

    @property
    def label(self) -> str:
        return f'{self.dataset} {self.split}'

    @property
    def pairs(self) -> list[str]:
        """Names of the images that have a partner, sorted."""
        return sorted(self.lq.keys() & self.gt.keys())

    @property
    def unmatched(self) -> list[str]:
        """Names of the images that have none, sorted."""
        return sorted(self.lq.keys() ^ self.gt.keys())


def read_archive(dataset: str, source: Path, variant: str, allow_incomplete: bool) -> list[Part]:
    """Find the images of an archive that lies in ``source`` or, archives often having a folder around everything, one below.

    Args:
        dataset: One of ``DATASETS``; ``realblur`` takes J and R, whichever of them is there.
        source: Folder to look in.
        variant: Which blurry frames of GoPro's original layout: one of ``VARIANTS``.
        allow_incomplete: Accept images without a partner, and another number of pairs than the complete archive has.

    Raises:
        InputError: If an argument is unknown, the archive is not there or incomplete, two images have one name, or a list of
            RealBlur is damaged.
    """
    if dataset not in DATASETS:
        raise InputError(f"Dataset {dataset!r} is not known; choose one of {', '.join(DATASETS)}.")
    if variant not in VARIANTS or (variant != 'blur' and dataset != 'gopro'):
        raise InputError(f'variant {variant!r} does not exist for {dataset}; only gopro has {" and ".join(VARIANTS)}.')
    if not source.is_dir():
        raise InputError(f'{source} is no folder; give the folder of the unpacked {dataset} archive.')
    parts: list[Part] = []
    for kind in ('realblur_j', 'realblur_r') if dataset == 'realblur' else (dataset,):
        for root in (source, *_folders(source)):
            found = _read(kind, root, variant)
            if any(part.lq or part.gt for part in found):
                parts += found
                break
    if not allow_incomplete:
        for part in parts:
            _check_complete(part)
    if not any(part.pairs for part in parts):
        layout = _LAYOUTS[dataset.split('_')[0]]
        raise InputError(f'{source} holds no image pair of {dataset}; expected {layout} in it or one folder below.')
    return parts


def first_few(items: list[str], separator: str = ', ', count: int = 3) -> str:
    """The first ``count`` items for a message, and how many more there are."""
    more = f' and {len(items) - count} more' if len(items) > count else ''
    return separator.join(items[:count]) + more


def _check_complete(part: Part) -> None:
    if unmatched := part.unmatched:
        named = [f'{part.lq[name]} (no sharp one)' if name in part.lq else f'{part.gt[name]} (no blurry one)'
                 for name in unmatched]
        raise InputError(f'{part.label}: {len(named)} images have no partner of the same name: {first_few(named)}; '
                         'download the archive again, or leave them out with --allow-incomplete.')
    found, expected = len(part.pairs), EXPECTED_PAIRS[part.dataset][part.split]
    if found != expected:
        raise InputError(f'{part.label}: found {found} pairs but the complete archive has {expected}; download it again, or '
                         'go on with what is there by --allow-incomplete.')


def _read(dataset: str, root: Path, variant: str) -> list[Part]:
    """All parts of an archive, empty ones where ``root`` is not its root."""
    if dataset == 'gopro':
        return [_read_gopro(root / split, split, variant) for split in ('train', 'test')]
    if dataset == 'hide':
        return [_read_hide(root)]
    return [_read_realblur(root, dataset, split) for split in ('train', 'test')]


def _read_gopro(folder: Path, split: str, variant: str) -> Part:
    sequences = [path for path in _folders(folder) if (path / variant).is_dir() or (path / 'sharp').is_dir()]
    if not sequences:
        flat = _read_flat('gopro', split, folder, folder / 'GoPro')
        if flat.lq and variant != 'blur':
            raise InputError(f'{folder} has one kind of blurry frames; leave variant out or give the original archive.')
        return flat
    part = Part('gopro', split, {}, {})
    for sequence in sequences:
        part.lq.update(_images(sequence / variant, prefix=f'{sequence.name}-'))
        part.gt.update(_images(sequence / 'sharp', prefix=f'{sequence.name}-'))
    return part


def _read_hide(root: Path) -> Part:
    lq = _images(root / 'test' / 'test-close-ups', root / 'test' / 'test-long-shot')
    if not lq:
        return _read_flat('hide', 'test', root, root / 'test', root / 'test' / 'HIDE')
    # GT also holds the sharp frames of the training images
    return Part('hide', 'test', lq, {name: path for name, path in _images(root / 'GT').items() if name in lq})


def _read_flat(dataset: str, split: str, *folders: Path) -> Part:
    """Images of the first of ``folders`` that has ``input`` or ``target``, the layout of the repackaged archives."""
    folder = next((folder for folder in folders if (folder / 'input').is_dir() or (folder / 'target').is_dir()), folders[0])
    return Part(dataset, split, _images(folder / 'input'), _images(folder / 'target'))


def _read_realblur(root: Path, dataset: str, split: str) -> Part:
    path = root / f'RealBlur_{dataset[-1].upper()}_{split}_list.txt'
    part = Part(dataset, split, {}, {})
    lines = path.read_text(encoding='utf-8', errors='replace').splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = _REALBLUR_LINE.fullmatch(line.strip())
        name = f"{match['scene']}_{match['number']}" if match else ''
        if not match or name in part.lq or name in part.gt:
            raise InputError(f'{path}, line {number}: {line.strip()!r} is not one new pair "<scene>/gt/gt_N.png '
                             '<scene>/blur/blur_N.png"; download the list again.')
        for side, images in (('lq', part.lq), ('gt', part.gt)):
            if leaves_its_folder(match[side]):
                raise InputError(f'{path}, line {number}: {match[side]} names a file outside the archive; download the list '
                                 'again.')
            if (image := root / match[side]).is_file():
                images[name] = image
    return part


def leaves_its_folder(name: str) -> bool:
    """Whether a relative name, on any system, leads out of the folder it is relative to."""
    return any(kind(name).is_absolute() or kind(name).drive or '..' in kind(name).parts
               for kind in (PurePosixPath, PureWindowsPath))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _images(*folders: Path, prefix: str = '') -> dict[str, Path]:
    """Images of some folders by prefix + name without suffix; hidden files (macOS leaves ``._x.png``) are none."""
    # not at the top: worker processes import this module too and do without torch and OpenCV
    from .synthetic_blur_dataset import IMAGE_SUFFIXES
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith('.'):
                continue
            name = prefix + path.stem
            if name in found:
                raise InputError(f'{found[name]} and {path} have the same name {name!r}; remove or rename one of them.')
            found[name] = path
    return found
