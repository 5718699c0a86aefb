"""``restore --watch``: photos that come into a folder are restored when they are whole, each once."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.image_files import count_in_words, other_files
from ..errors import InputError, is_of_the_system
from ..files import make_folder
from ..processes import world_size
from .choice import bundled_for
from .folder import loaded_deblurrer, restore_photos, result_files
from .photos import read_photo, search_photos

#: Seconds between two looks, and those after which a photo that does not change and cannot be read is reported.
INTERVAL, PATIENCE = 1.0, 10.0


@dataclass
class Arrivals:
    """Tells which photos of folders are new and whole.

    A photo is whole when its size and time of change are those of the look before and all of it can be decoded: a copy that
    pauses half-way changes no more for a while. One that is written anew is a new photo.

    Args:
        folders: That are watched.
        recursive: Also folders inside them.
        results: The output folder, whose files are no photos.
        patience: Seconds after which a photo that stays broken is reported, once.
    """

    folders: Sequence[Path]
    recursive: bool
    results: Path
    patience: float = PATIENCE
    _seen: dict[Path, tuple[tuple[int, int], float]] = field(default_factory=dict)
    _settled: dict[Path, tuple[int, int]] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def look(self) -> Iterator[tuple[Path, Path]]:
        """Each photo that became whole since the last look, with its place below its folder.

        What is no photo is told, each suffix once.

        Raises:
            InputError: If a folder is there no longer.
        """
        once = set[Path]()  # of folders within one another, whose photos have several places
        for folder in self.folders:
            if not folder.is_dir():
                raise InputError(f'Folder {folder} is there no longer; when it is back, run the same command again.')
            self._tell_others(folder)
            for photo, place in self._photos(folder):
                if (resolved := photo.resolve()) in once:
                    continue
                once.add(resolved)
                try:
                    status = photo.stat()
                except OSError:  # renamed or removed since
                    continue
                state, now = (status.st_size, status.st_mtime_ns), time.monotonic()
                before = self._seen.get(photo)
                if before is None or before[0] != state:
                    self._seen[photo] = state, now
                elif self._settled.get(photo) != state and self._whole(photo, now - before[1]):
                    self._settled[photo] = state
                    yield photo, place

    def _photos(self, folder: Path) -> Iterator[tuple[Path, Path]]:
        try:
            yield from search_photos([str(folder)], self.recursive, self.results).places.items()
        except InputError:  # none yet
            return

    def _tell_others(self, folder: Path) -> None:
        try:
            others = other_files(folder, self.recursive)
        except OSError:  # something was renamed or removed meanwhile; the next look tells
            return
        new = Counter({suffix: count for suffix, count in others.items() if suffix not in self._told})
        if new:
            self._told |= new.keys()
            print(f'Note: {folder}: passed over {count_in_words(new)}: photos are JPEG, PNG, WebP, TIFF and BMP.',
                  file=sys.stderr)

    def _whole(self, photo: Path, waited: float) -> bool:
        try:
            read_photo(photo)
        except InputError as error:
            if waited >= self.patience and photo.exists():
                self._settled[photo] = self._seen[photo][0]  # until it changes
                print(f'Error: {error}', file=sys.stderr)
            return False
        return True


def watch_folders(inputs: Sequence[str],
                  output: str | Path,
                  save: Sequence[str] = ('image', ),
                  recursive: bool = False,
                  interval: float = INTERVAL,
                  **options: Any) -> int:
    """Restore the photos of folders, and those that come, until Ctrl-C; each by
    :func:`~stochastic_refine.inference.folder.restore_photos`.

    Photos whose results are there are skipped; one that is written anew while it is watched is restored anew.

    Args:
        inputs: Folders.
        output: Another folder; it may lie inside.
        save, recursive: See ``restore_photos``, as ``options``.
        interval: Seconds between two looks.

    Returns:
        Exit code 0, after Ctrl-C.

    Raises:
        InputError: Before anything is waited for, if inputs, output, weights or settings cannot be used; later, if nothing more
            can be written or a folder has vanished.
    """
    if world_size() > 1:
        raise InputError('A folder is watched by one process; start it without torchrun.')
    folders, output = list({Path(given).resolve(): Path(given) for given in inputs}.values()), Path(output)
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f'{folder} is no folder that could be watched; name a folder that is there.')
        if output.resolve() == folder.resolve():
            raise InputError(f'{output} is the watched folder itself; choose another output folder, which may lie inside it.')
    make_folder(output)
    num_samples = _check(output, save, options)
    arrivals, done, owners = Arrivals(folders, recursive, output), dict[Path, int](), dict[str, Path]()
    print(f'Watching {", ".join(map(str, folders))} for new photos; Ctrl-C ends it.', flush=True)
    try:
        while True:
            for photo, place in arrivals.look():
                again = photo in done
                try:
                    _check_free(photo, result_files(output / place, save, num_samples), owners)
                    code = restore_photos([str(photo)], f'{output / place.parent}/', save=save,
                                          **{**options, 'overwrite': again})
                except InputError as error:
                    if is_of_the_system(error):
                        raise
                    if photo.exists():  # else it went while it was restored
                        print(f'Error: {error}', file=sys.stderr)
                    code = 2
                done[photo] = code
            time.sleep(interval)
    except KeyboardInterrupt:
        restored = sum(code == 0 for code in done.values())
        print(f'\nWatched until Ctrl-C: {restored} photo{"" if restored == 1 else "s"} restored or there already, '
              f'{len(done) - restored} left out.')
        return 0


def _check(output: Path, save: Sequence[str], options: dict[str, Any]) -> int:
    """How many samples a photo gets; an InputError if weights or settings cannot be used, before the first photo comes."""
    restore_photos([], f'{output}/', save=save, **options)  # what would stop every photo stops none at all, too
    loading = {key: options[key] for key in ('device', 'precision', 'tile', 'keep_sharp') if key in options}
    settings = {key: value for key, value in options.items() if key not in (*loading, 'weights', 'overwrite', 'speed')}
    weights = options.get('weights') or bundled_for(settings, save)
    return loaded_deblurrer((('weights', weights), *loading.items())).point_of(settings).num_samples


def _check_free(photo: Path, files: Sequence[Path], owners: dict[str, Path]) -> None:
    """Raise an InputError if another watched photo was to be written to one of the files of this one, else note them."""
    for file in files:
        other = owners.get(os.path.normcase(file), photo)
        if other != photo:
            raise InputError(f'{photo} is left out, as it would be written to {file}, which belongs to {other}; rename it, or '
                             'watch the two folders with different outputs.')
    owners.update((os.path.normcase(file), photo) for file in files)
