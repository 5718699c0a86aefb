"""Evaluation protocols: which pairs of images are compared, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ..data.archives import EXPECTED_PAIRS
from ..errors import InputError
from ..values import nearest
from .pairs import Pair, find_pairs

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


def protocol_named(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        InputError: If there is none; the message names the nearest ones.
    """
    if name not in PROTOCOLS:
        raise InputError(f"Unknown protocol '{name}'; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def pairs_of_test_set(protocol: Protocol, gt: Path, lq: Path | None = None) -> list[Pair]:
    """The pairs of a test set, sorted by name.

    Args:
        protocol: Says how many pairs there must be.
        gt, lq: Folders of sharp and of blurred images, searched with their subfolders.

    Raises:
        InputError: As :func:`~stochastic_refine.comparison.pairs.find_pairs`, or if their number is not the protocol's.
    """
    pairs = find_pairs(gt, lq)
    if protocol.pairs not in (None, len(pairs)):
        raise InputError(f'{gt} holds {len(pairs)} images but the protocol {protocol.name} has {protocol.pairs} pairs; '
                         'complete the folder, or use --protocol folder.')
    return pairs


def spread_evenly(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most ``limit`` of the items, spread evenly."""
    kept = len(items) if limit is None else min(len(items), limit)
    return [items[i * len(items) // kept] for i in range(kept)]
