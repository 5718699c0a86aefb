"""What one visitor has: photos, the samples that were drawn of them, and the pictures that the knob makes of these."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...archs.sampling import SamplingNetwork
from ...data.image_files import FORMATS
from ...errors import InputError
from ...files import make_folder
from ...inference.deblurrer import Deblurrer
from ...inference.folder import std_picture
from ...inference.operating_point import OperatingPoint
from ...inference.photos import Photo, not_kept, read_photo, write_photo
from ...inference.restorer import Restorer
from ...inference.sharpness import blur_weight
from .machine import Identity, Machine

#: In place of an operating point's name: the knob walks the weights' path, as ``restore --tradeoff`` does.
PATH = '(path)'
#: What a visitor's photos and samples may take; the oldest samples are given up first.
MOST_BYTES = 4 * 2**30
_BYTES_PER_PIXEL = 12  # three floats


@dataclass(frozen=True)
class Settings:
    """What is chosen on the page beside the knob.

    Args:
        weights: Name or file.
        point: Name of an operating point of theirs; PATH for the path; '' for their first, and of a deterministic network.
        samples: How many are drawn; the path has numbers of its own.
        seed: Of the first sample.
    """

    weights: str
    point: str = ''
    samples: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Wanted:
    """What a picture is made of.

    Args:
        weights: Which ones.
        drawing: The operating point less what does not change a sample: number, mean, seed.
        seeds: Of its samples.
        vividness: Where the picture lies, from 0 (their mean) to 1 (one of them).
    """

    weights: Identity
    drawing: OperatingPoint
    seeds: tuple[int, ...]
    vividness: float


@dataclass
class View:
    """A photo at a position of the knob.

    Args:
        photo: The photo.
        image: The picture, (H, W, 3); None where no sample is there.
        samples: Those that are there, by seed.
        std: Their standard deviation, (H, W, 3); None with fewer than two.
        words: What is shown, for people.
    """

    photo: Photo
    image: NDArray[np.float32] | None
    samples: dict[int, NDArray[np.float32]]
    std: NDArray[np.float32] | None
    words: str


@dataclass
class _Item:
    path: Path
    photo: Photo
    samples: dict[tuple[Identity, OperatingPoint], dict[int, NDArray[np.float32]]] = field(default_factory=dict)
    initial: dict[Identity, Tensor | None] = field(default_factory=dict)  # the last weights' alone


class Stopped(Exception):
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
        self._stop = threading.Event()

    @property
    def names(self) -> list[str]:
        """The photos, each by a name of its own."""
        return list(self._items)

    def set_photos(self, paths: Sequence[str | Path]) -> list[str]:
        """Have these photos and no others; what was drawn of those that stay is kept.

        Returns:
            A sentence for each file that is left out, and for what of a photo its result will not keep.
        """
        here = {item.path: item for item in self._items.values()}
        self._items = {}
        said = []
        for path in dict.fromkeys(map(Path, paths)):
            try:
                item = here.get(path) or _Item(path, read_photo(path, self.max_megapixels))
                self._check_memory([*self._items.values(), item], 0)
            except InputError as error:
                said.append(_with_advice(str(error).replace(str(path), path.name)))
                continue
            name = _free_name(path, self._items)
            self._items[name] = item
            if lost := not_kept(item.photo, name):
                said.append(f'{name}: its result does not keep {", ".join(lost)}.')
        return said

    # ------------------------------------------------------------------------------------------------------ the knob

    def wanted(self, settings: Settings, knob: float) -> Wanted:
        """What the picture at a position of the knob, 0 (faithful) to 1 (vivid), is made of.

        Raises:
            InputError: If weights or a setting cannot be used.
        """
        identity, deblurrer = self.machine.load(settings.weights)
        if not isinstance(deblurrer.net, SamplingNetwork):
            return Wanted(identity, deblurrer.operating_point(), (0, ), 1.0)
        if settings.point == PATH:
            point = deblurrer.operating_point(tradeoff=knob, seed=settings.seed)
            vividness = 0.0 if point.average else 1.0
        else:
            point = deblurrer.operating_point(settings.point or None, num_samples=settings.samples, seed=settings.seed)
            vividness = float(knob)
        drawing = dataclasses.replace(point, num_samples=1, average=False, seed=0)
        return Wanted(identity, drawing, tuple(point.seeds), vividness)

    def view(self, name: str, settings: Settings, knob: float, chosen: int = 0) -> View:
        """A photo at a position of the knob, from the samples that are there: nothing is restored.

        From faithful to vivid the picture goes straight from the samples' mean to one of them, ``(1 - v) mean + v sample``, as
        the estimators between the least distortion and the best perception do (Freirich et al., "A Theory of the
        Distortion-Perception Tradeoff in Wasserstein Space", NeurIPS 2021).

        Args:
            name: Of the photo.
            settings: What is chosen.
            knob: 0 (faithful) to 1 (vivid).
            chosen: Which of the samples is the vivid end.

        Raises:
            InputError: If the photo is gone, or weights or a setting cannot be used.
        """
        item = self._item(name)
        wanted = self.wanted(settings, knob)
        there = self._there(item, wanted)
        if not there:
            return View(item.photo, None, {}, None, f'Not restored at these settings yet; Restore draws '
                        f'{_count(len(wanted.seeds), "sample")} of {_count(wanted.drawing.calls, "call")}.')
        stack = list(there.values())
        sample = stack[min(chosen, len(stack) - 1)]
        if len(stack) == 1:
            image, std, words = sample, None, 'one picture, so that the knob changes nothing'
        else:
            mean = sum(stack[1:], stack[0]) / np.float32(len(stack))
            std = np.sqrt(sum((each - mean)**2 for each in stack) / np.float32(len(stack) - 1))
            share = np.float32(wanted.vividness)
            image = (1 - share) * mean + share * sample  # exactly the mean, and exactly the sample, at the ends
            number = f'sample {min(chosen, len(stack) - 1) + 1} of {len(stack)}'
            words = {0.0: f'mean of {len(stack)} samples', 1.0: number}.get(
                wanted.vividness, f'{wanted.vividness:.0%} of the way from the mean to {number}')
        missing = len(wanted.seeds) - len(stack)
        words += f'; {_count(missing, "sample")} not drawn yet' if missing else ''
        return View(item.photo, np.asarray(image), there, std, f'{name}: {words}.')

    # ---------------------------------------------------------------------------------------------------- restoring

    def begin(self) -> None:
        """Forget an earlier :meth:`stop`; called when a restoration is asked for, before it waits for its turn."""
        self._stop.clear()

    def stop(self) -> None:
        """Let the restoration, running or waiting, end after its present network call; samples that are whole stay."""
        self._stop.set()

    def restore(self, settings: Settings, knob: float, on_call: Callable[[int, int, str], object] | None = None) -> str:
        """Draw what is missing of every photo for a position of the knob, once it is this visitor's turn.

        Args:
            settings: What is chosen.
            knob: 0 (faithful) to 1 (vivid).
            on_call: Called as ``on_call(done, left, words)`` after each network call, with numbers of calls.

        Returns:
            What happened, in sentences.

        Raises:
            InputError: If there are no photos, weights or settings cannot be used, or memory would not hold the samples.
        """
        if not self._items:
            raise InputError('There is no photo yet; drop one first.')
        with self.machine.turn:
            wanted = self.wanted(settings, knob)
            _, deblurrer = self.machine.load(settings.weights)
            items = dict(self._items)
            self._check_memory(list(items.values()), len(wanted.seeds))
            self._make_room(wanted)
            jobs = [(name, seeds) for name, item in items.items() for seeds in self._missing(item, wanted, deblurrer)]
            tilings = []
            done = 0
            for number, (name, seeds) in enumerate(jobs):

                def count(now: int, total: int, name: str = name, number: int = number, done: int = done) -> None:
                    if self._stop.is_set():
                        raise Stopped
                    if on_call is not None:
                        left = total - now + total * (len(jobs) - number - 1)
                        on_call(done + now, left, f'{name}, {number + 1} of {len(jobs)}')

                try:
                    if self._stop.is_set():
                        raise Stopped
                    calls, tiling = self._draw(items[name], wanted, seeds, deblurrer, count)
                except Stopped:
                    return f'Stopped; {number} of {len(jobs)} were drawn and stay.'
                done += calls
                tilings += [f'{name}: {tiling}.'] if tiling else []
        return ' '.join([f'Restored {_count(len(items), "photo")}: {_count(done, "network call")}.' if jobs else
                         'Everything was drawn already.', *dict.fromkeys(tilings)])

    def _missing(self, item: _Item, wanted: Wanted, deblurrer: Deblurrer) -> Iterator[range]:
        """Seeds to draw, in ranges drawn at once: one by one where batches gain nothing, so that stopping keeps most."""
        there = self._there(item, wanted)
        missing = [seed for seed in wanted.seeds if seed not in there]
        most = 1 if deblurrer.device.type == 'cpu' else 8
        while missing:
            count = next((i for i in range(1, min(len(missing), most)) if missing[i] != missing[0] + i),
                         min(len(missing), most))
            yield range(missing[0], missing[0] + count)
            missing = missing[count:]

    def _draw(self, item: _Item, wanted: Wanted, seeds: range, deblurrer: Deblurrer,
              count: Callable[[int, int], None]) -> tuple[int, str | None]:
        """Draw samples of one photo and keep them; how many calls that took, and what was tiled.

        What is sharp already stays as it is, as ``restore`` leaves it.
        """
        lq = torch.from_numpy(np.require(item.photo.pixels, requirements=['C', 'W'])).permute(2, 0, 1)  # no copy
        restorer = Restorer(deblurrer.net, deblurrer.precision, deblurrer.tile, None, deblurrer.window)
        if wanted.weights not in item.initial:
            item.initial = {wanted.weights: restorer.predict(lq)}
        calls = 0

        def on_call(now: int, total: int) -> None:
            nonlocal calls
            calls = now
            count(now, total)

        restorer.on_call = on_call
        point = dataclasses.replace(wanted.drawing, num_samples=len(seeds), seed=seeds[0])
        try:
            restored = restorer.restore(lq, point, keep_samples=True, initial=item.initial[wanted.weights])
        except (MemoryError, RuntimeError) as error:
            if 'memory' not in f'{type(error).__name__} {error}'.lower():
                raise
            raise InputError(_with_advice(f'{item.path.name} does not fit into memory.')) from error
        samples = restored.image[None] if restored.samples is None else restored.samples
        lq = lq.to(samples.device)
        weight = blur_weight(lq)
        drawn = item.samples.setdefault((wanted.weights, wanted.drawing), {})
        for seed, sample in zip(seeds, samples):
            drawn[seed] = np.ascontiguousarray((lq + weight * (sample - lq)).movedim(0, -1).cpu().numpy())
        return calls, restored.tiling

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
        for name in self.names:
            view = self.view(name, settings, knob, chosen)
            if view.image is None:
                said.append(f'{name}: {view.words}')
                continue
            target = self.folder / name
            pictures = {target.with_stem(f'{target.stem}_restored'): view.image}
            if everything:
                pictures |= {target.with_stem(f'{target.stem}_sample{i + 1}'): sample
                             for i, sample in enumerate(view.samples.values())}
            for file, pixels in pictures.items():
                write_photo(file, pixels, like=view.photo)
            files += pictures
            if everything and view.std is not None:
                files.append(target.with_name(f'{target.stem}_std.png'))
                write_photo(files[-1], std_picture(view.std))
        if not files:
            raise InputError(' '.join(said) or 'There is no photo yet; drop one first.')
        return files, said

    def shown(self, name: str, content: bytes) -> str:
        """The file of a picture that the browser is shown, which takes the place of the one before."""
        folder = self.folder / 'shown'
        make_folder(folder)
        file = folder / f'{name}.png'
        file.write_bytes(content)
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
    stem, suffix = (path.stem, path.suffix) if path.suffix.lower() in FORMATS else (path.name, '.png')
    names = (f'{stem}{number}{suffix}' for number in ('', *(f' ({i})' for i in range(2, len(taken) + 3))))
    return next(name for name in names if name not in taken)


def _with_advice(sentence: str) -> str:
    """A sentence on what the page does not take, with the way that does."""
    large = 'above the limit' in sentence or 'memory' in sentence
    return f'{sentence} The command line restores larger ones: stochastic-refine restore PHOTO -o OUT' if large else sentence


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}{"" if number == 1 else "s"}'
