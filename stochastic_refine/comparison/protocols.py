"""Evaluation protocols: which pairs of images are compared, and how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..data.archives import EXPECTED_PAIRS, first_few
from ..data.image_files import open_image, upright_size
from ..data.synthetic_blur_dataset import IMAGE_SUFFIXES
from ..errors import InputError
from ..values import nearest

Item = TypeVar('Item')


@dataclass(frozen=True)
class Protocol:
    """How a test set is scored.

    Attributes:
        name: What the command line calls it.
        pairs: Number of pairs in the whole set; None if any number will do.
        aligned: Whether restored images are aligned to their ground truth first, as published for RealBlur, whose pairs come
            from two cameras.
    """

    name: str
    pairs: int | None = None
    aligned: bool = False

    @property
    def words(self) -> str:
        """What the protocol does, for the record beside the scores."""
        count = f'all {self.pairs} test pairs' if self.pairs else 'every pair'
        alignment = ('; brightness matched and aligned to the ground truth by a homography (ECC), PSNR and SSIM over the '
                     'overlap' if self.aligned else '')
        return f'{self.name}: {count}, paired by name, whole images, no border crop, 8-bit RGB{alignment}'


PROTOCOLS = {protocol.name: protocol for protocol in (
    Protocol('folder'),
    *(Protocol(name, splits['test'], aligned=name.startswith('realblur')) for name, splits in EXPECTED_PAIRS.items()),
)}


@dataclass(frozen=True)
class Pair:
    """A ground truth, its blurred image if there is one, and the name that both share (the path without suffix)."""

    name: str
    gt: Path
    lq: Path | None = None


def protocol_named(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        InputError: If there is none; the message names the nearest ones.
    """
    if name not in PROTOCOLS:
        raise InputError(f"Unknown protocol '{name}'; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def find_pairs(protocol: Protocol, gt: Path, lq: Path | None = None) -> list[Pair]:
    """The pairs of a test set, sorted by name.

    Args:
        protocol: Says how many pairs there must be.
        gt, lq: Folders of sharp and of blurred images, searched with their subfolders.

    Raises:
        InputError: If a folder has no images, they do not pair up by name, or their number is not the protocol's.
    """
    sharp = named_images(gt)
    blurred = match_names(sharp, lq) if lq else {}
    if protocol.pairs not in (None, len(sharp)):
        raise InputError(f'{gt} holds {len(sharp)} images but the protocol {protocol.name} has {protocol.pairs} pairs; '
                         'complete the folder, or use --protocol folder.')
    return [Pair(name, sharp[name], blurred.get(name)) for name in sharp]


def spread_evenly(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most ``limit`` of the items, spread evenly."""
    kept = len(items) if limit is None else min(len(items), limit)
    return [items[i * len(items) // kept] for i in range(kept)]


def named_images(folder: Path) -> dict[str, Path]:
    """Images below ``folder`` by their path without suffix, sorted.

    Raises:
        InputError: If there are none, or two of one name.
    """
    if not folder.is_dir():
        raise InputError(f'Folder {folder} does not exist; check the path.')
    images: dict[str, Path] = {}
    for path in sorted(folder.rglob('*')):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.'):
            name = path.relative_to(folder).with_suffix('').as_posix()
            if name in images:
                raise InputError(f'{images[name]} and {path} have the same name; remove one of them.')
            images[name] = path
    if not images:
        raise InputError(f'Folder {folder} holds no image ({", ".join(sorted(IMAGE_SUFFIXES))}); check the path.')
    return images


def match_names(names: Iterable[str], folder: Path) -> dict[str, Path]:
    """The image of ``folder`` for each name; never by position.

    What ``stochastic-refine test`` or BasicSR saved has one ending on every name (``000001_NAFNet.png``): it is passed over.

    Raises:
        InputError: If they do not pair up one to one, listing what is left.
    """
    images, names = named_images(folder), sorted(names)
    if images.keys() != set(names):
        # Endings that the first image could have; one of them must fit all.
        first = next(iter(images))
        for ending in sorted({first.removeprefix(name) for name in names if first.startswith(f'{name}_')}, key=len):
            if images.keys() == {f'{name}{ending}' for name in names}:
                return {name: images[f'{name}{ending}'] for name in names}
        missing, extra = sorted(set(names) - images.keys()), sorted(images.keys() - set(names))
        lone = [f'{words} {first_few(found, count=10)}'
                for words, found in (('nothing there for', missing), ('no ground truth for', extra)) if found]
        raise InputError(f'The images in {folder} do not pair up with the ground truth by name: {"; ".join(lone)}. Add or '
                         'remove the images named.')
    return {name: images[name] for name in names}


def check_kind(path: Path) -> tuple[int, int]:
    """(width, height) of an 8-bit RGB image as it is shown, by its header.

    Raises:
        InputError: If it is no image, grey, deep or has transparency.
    """
    with open_image(path) as image:
        mode, size = image.mode, upright_size(image)
    if mode not in ('RGB', 'P'):
        kind = {'L': 'grey', '1': 'black and white', 'RGBA': 'RGB with transparency'}.get(mode, f'of mode {mode}')
        raise InputError(f'Image {path} is {kind}, but scores are defined on 8-bit RGB; save it as RGB.')
    return size


def check_same_kind(path: Path, gt: Path) -> None:
    """Raise an InputError unless ``path`` has the size and channels of its ground truth."""
    size, expected = check_kind(path), check_kind(gt)
    if size != expected:
        raise InputError(f'{path} is {size[0]}x{size[1]} pixels but its ground truth {gt} {expected[0]}x{expected[1]}; mend or '
                         'remove the pair.')
