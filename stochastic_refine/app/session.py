"""What one visitor has: photos, the samples that were drawn of them, and the pictures that the knob makes of these."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data.image_files import FORMATS
from ..errors import InputError
from ..files import make_folder, write_atomically
from ..inference.deblurrer import Deblurrer
from ..inference.operating_point import OperatingPoint
from ..inference.photos import Photo, not_kept, read_photo
from .drawing import batches, draw, predict
from .knob import Settings, Wanted, mixed, wanted_at
from .machine import Identity, Machine
from .views import View, free_name, write_view

#: What a visitor's photos and samples may take; the oldest samples are given up first.
MOST_BYTES = 4 * 2**30


@dataclass
class _Item:
    path: Path
    photo: Photo
    samples: dict[tuple[Identity, OperatingPoint], dict[int, NDArray[np.float32]]] = field(default_factory=dict)
    initial: dict[Identity, Tensor | None] = field(default_factory=dict)  # the last weights' alone


class _Stopped(Exception):
    """The visitor stopped the restoration, or went away."""


class Session:
    """Photos and samples of one visitor.

    Args:
        machine: Shared by all.
        folder: For files to download.
        max_megapixels: Larger photos are refused.
        most_bytes: That photos and samples may take.
    """

    def __init__(self, machine: Machine, folder: Path, max_megapixels: float = 24.0, most_bytes: int = MOST_BYTES) -> None:
        self.machine = machine
        self.folder = folder
        self.max_megapixels = max_megapixels
        self.most_bytes = most_bytes
        self._items: dict[str, _Item] = {}
        self._said: list[str] = []
        self._reading = threading.Lock()
        self._stop = threading.Event()
        self._is_asked = False

    @property
    def names(self) -> list[str]:
        """The photos, each by a name of its own."""
        return list(self._items)

    def set_photos(self, paths: Sequence[str | Path]) -> list[str]:
        """Have these photos and no others; what was drawn of those that stay is kept. One call waits for the other.

        Returns:
            A sentence for each file that is left out, and for what of a photo its result will not keep.
        """
        with self._reading:
            here = {item.path: item for item in self._items.values()}
            items: dict[str, _Item] = {}
            said = []
            for path in dict.fromkeys(map(Path, paths)):
                try:
                    item = here.get(path) or _Item(path, read_photo(path, self.max_megapixels))
                    self._check_memory([*items.values(), item], 0)
                except InputError as error:
                    said.append(_with_advice(str(error).replace(str(path), path.name)))
                    continue
                name = _free_name(path, items)
                items[name] = item
                if lost := not_kept(item.photo, name):
                    said.append(f'{name}: its result does not keep {", ".join(lost)}.')
            self._items, self._said = items, said
        return said

    # ------------------------------------------------------------------------------------------------------ the knob

    def view(self, name: str, settings: Settings, knob: float, chosen: int = 0) -> View:
        """A photo at a position of the knob, from the samples that are there: nothing is restored.

        Args:
            name: Of the photo.
            settings: What is chosen.
            knob: 0 (faithful) to 1 (vivid).
            chosen: Which of the samples is the vivid end.

        Raises:
            InputError: If the photo is gone, or weights or a setting cannot be used.
        """
        item = self._item(name)
        wanted = wanted_at(self.machine, settings, knob)
        there = self._there(item, wanted)
        if not there:
            return View(item.photo, None, {}, None, f'Not restored at these settings yet; Restore draws '
                        f'{_count(len(wanted.seeds), "sample")} of {_count(wanted.drawing.calls, "call")}.')
        image, std, words = mixed(list(there.values()), wanted.vividness, chosen)
        missing = len(wanted.seeds) - len(there)
        words += f'; {_count(missing, "sample")} not drawn yet' if missing else ''
        return View(item.photo, image, there, std, f'{name}: {words}.')

    # ---------------------------------------------------------------------------------------------------- restoring

    def begin(self) -> None:
        """Forget an earlier :meth:`stop`; called when a restoration is asked for, before it waits for its turn."""
        self._stop.clear()
        self._is_asked = True

    def end(self) -> None:
        """What was asked for is done, or has failed."""
        self._is_asked = False

    def stop(self) -> bool:
        """Let the restoration, running or waiting, end after its present network call; samples that are whole stay.

        Returns:
            Whether there is one.
        """
        self._stop.set()
        return self._is_asked

    def restore(self, settings: Settings, knob: float, on_call: Callable[[int, int, str], object] | None = None) -> str:
        """Draw what is missing of every photo for a position of the knob, once it is this visitor's turn.

        Args:
            settings: What is chosen.
            knob: 0 (faithful) to 1 (vivid).
            on_call: Called as ``on_call(done, left, words)`` after each network call, with numbers of calls.

        Returns:
            What happened, in sentences, with those of :meth:`set_photos`.

        Raises:
            InputError: If there are no photos, weights or settings cannot be used, or memory would not hold the samples.
        """
        if not self._items:
            raise InputError(' '.join(self._said) or 'There is no photo yet; drop one first.')
        with self.machine.turn:
            wanted = wanted_at(self.machine, settings, knob)
            _, deblurrer = self.machine.load(settings.weights)
            items = dict(self._items)
            self._check_memory(list(items.values()), len(wanted.seeds))
            self._make_room(wanted)
            jobs = [(name, seeds) for name, item in items.items() for seeds in batches(self._missing(item, wanted), deblurrer)]
            tilings: list[str] = []
            done = 0
            for number, (name, seeds) in enumerate(jobs):
                calls = 0

                def count(now: int, total: int, before: int = done, name: str = name, number: int = number) -> None:
                    nonlocal calls
                    calls = now
                    self._check_stop()
                    if on_call is not None:
                        left = total - now + total * (len(jobs) - number - 1)
                        on_call(before + now, left, f'{name}, {number + 1} of {len(jobs)}')

                try:
                    self._check_stop()
                    tiling = self._draw(items[name], deblurrer, wanted, seeds, count)
                except _Stopped:
                    return f'Stopped; {number} of {len(jobs)} were drawn and stay.'
                except InputError as error:
                    raise InputError(f'{name}: {error}') from error
                done += calls
                tilings += [f'{name}: {tiling}.'] if tiling else []
        return ' '.join([f'Restored {_count(len(items), "photo")}: {_count(done, "network call")}.' if jobs else
                         'Everything was drawn already.', *dict.fromkeys(tilings), *self._said])

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _missing(self, item: _Item, wanted: Wanted) -> list[int]:
        there = self._there(item, wanted)
        return [seed for seed in wanted.seeds if seed not in there]

    @staticmethod
    def _draw(item: _Item, deblurrer: Deblurrer, wanted: Wanted, seeds: range, count: Callable[[int, int], None]) -> str | None:
        """Draw samples of one photo and keep them; what was tiled, in words."""
        if wanted.weights not in item.initial:
            item.initial = {wanted.weights: predict(item.photo, deblurrer)}
        samples, tiling = draw(item.photo, deblurrer, wanted.drawing, seeds, item.initial[wanted.weights], count)
        item.samples.setdefault((wanted.weights, wanted.drawing), {}).update(zip(seeds, samples))
        return tiling

    # ----------------------------------------------------------------------------------------------------- downloads

    def write(self, settings: Settings, knob: float, chosen: int = 0, everything: bool = False) -> tuple[list[Path], list[str]]:
        """Write the pictures of all photos at a position of the knob, each as much like its photo as its format can.

        Args:
            settings: What is chosen.
            knob: 0 (faithful) to 1 (vivid).
            chosen: Which of the samples is the vivid end.
            everything: The samples and the map of doubt too.

        Returns:
            The files, and a sentence for each photo of which there is none.

        Raises:
            InputError: If there is nothing to write, or it cannot be written.
        """
        files: list[Path] = []
        said = []
        folder = Path(tempfile.mkdtemp(dir=self.folder))  # the address of an earlier file must not give another content
        for name in self.names:
            view = self.view(name, settings, knob, chosen)
            if view.image is None:
                said.append(f'{name}: {view.words}')
            else:
                files += write_view(view, name, folder, everything, files)
        if not files:
            raise InputError(' '.join(said) or 'There is no photo yet; drop one first.')
        return files, said

    def shown(self, name: str, content: bytes) -> str:
        """The file of a picture that the browser is shown; another content has another address.

        Raises:
            InputError: If it cannot be written.
        """
        file = self.folder / 'shown' / hashlib.sha256(content).hexdigest()[:16] / f'{name}.png'
        try:
            os.utime(file)  # gradio removes what was not touched for an hour
        except FileNotFoundError:
            make_folder(file.parent)
            write_atomically(file, lambda temporary: Path(temporary).write_bytes(content))
        return str(file)

    # -------------------------------------------------------------------------------------------------------- inside

    def _item(self, name: str) -> _Item:
        if name not in self._items:
            raise InputError(f"There is no photo '{name}' here; drop it first.")
        return self._items[name]

    @staticmethod
    def _there(item: _Item, wanted: Wanted) -> dict[int, NDArray[np.float32]]:
        drawn = item.samples.get((wanted.weights, wanted.drawing), {})
        return {seed: drawn[seed] for seed in wanted.seeds if seed in drawn}

    def _check_memory(self, items: Sequence[_Item], samples: int) -> None:
        needed = sum(item.photo.pixels.nbytes * (1 + samples) for item in items)
        if needed > self.most_bytes:
            drawn = f'{_count(samples, "sample")} of ' if samples else ''
            raise InputError(_with_advice(f'{items[-1].path.name} is one too many: {drawn}{_count(len(items), "photo")} would '
                                          f'take {needed / 2**30:.1f} GiB, where a visitor has '
                                          f'{self.most_bytes / 2**30:.1f} GiB; leave some out.'))

    def _make_room(self, wanted: Wanted) -> None:
        """Give up the oldest drawings of other settings until what is to be drawn fits."""
        items = list(self._items.values())
        room = self.most_bytes - sum(item.photo.pixels.nbytes * (1 + len(wanted.seeds)) for item in items)
        others = [(item, key) for item in items for key in item.samples if key != (wanted.weights, wanted.drawing)]
        for item, key in reversed(others):
            room -= sum(sample.nbytes for sample in item.samples[key].values())
            if room < 0:
                del item.samples[key]


def _free_name(path: Path, taken: dict[str, _Item]) -> str:
    """A photo's name, with a suffix that its result can be written with, and told apart from others."""
    return free_name(path.name if path.suffix.lower() in FORMATS else f'{path.name}.png', taken)


def _with_advice(sentence: str) -> str:
    """A sentence on what the page does not take, with the way that does."""
    large = 'above the limit' in sentence or 'memory' in sentence
    return f'{sentence} The command line restores larger ones: stochastic-refine restore PHOTO -o OUT' if large else sentence


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}{"" if number == 1 else "s"}'
