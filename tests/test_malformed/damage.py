"""What happens to files: cut short, bits flipped, overwritten; and values of a wrong type."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any


def damaged(content: bytes, rng: random.Random, cuts: int = 3,
            flips: tuple[int, ...] = (1, 8, 64)) -> Iterator[tuple[str, bytes]]:
    """Damaged versions of a file with words for what was done; each has changed."""
    for _ in range(cuts):
        length = rng.randrange(1, max(2, len(content) - 20))  # a PNG's last 20 bytes are checksums and the end mark: no pixels
        yield f'cut to {length} of {len(content)} bytes', content[:length]
    for count in flips:
        changed = bytearray(content)
        for position in rng.sample(range(8 * len(content)), count):
            changed[position // 8] ^= 1 << position % 8
        yield f'{count} bits flipped', bytes(changed)
    start = rng.randrange(len(content) // 2)
    yield f'zeros from {start}', content[:start] + bytes(len(content) - start)
    yield f'noise from {start}', content[:start] + rng.randbytes(len(content) - start)
    yield 'overwritten head', rng.randbytes(16) + content[16:]


def leaves(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """(path, leaf) of everything in nested mappings and lists; a list is a leaf too."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    else:
        yield path, value
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from leaves(item, (*path, index))


def replaced(value: Any, path: tuple, new: Any) -> Any:
    """A copy with the entry at ``path`` replaced."""
    if not path:
        return new
    copied = value.copy()
    copied[path[0]] = replaced(value[path[0]], path[1:], new)
    return copied
