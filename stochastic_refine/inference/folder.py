"""Restore files and folders of photos, over any number of processes: what ``stochastic-refine restore`` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from ..archs.sampling import SamplingNetwork
from ..checkpoints.weights_folder import available_weights
from ..data.image_files import count_in_words
from ..errors import InputError, is_of_the_system, is_out_of_memory
from ..files import make_folder, write_text
from ..processes import my_share, rank, run_parallel, wait_for_all, world_size
from ..values import nearest
from .choice import BUNDLED_PAIR, Choice, bundled_for, choose, photo_size
from .deblurrer import Deblurrer, Result
from .devices import process_device
from .photos import FORMATS, not_kept, search_photos, write_photo

WHAT = ('image', 'initial', 'samples', 'std')
#: In the output folder while photos are restored: the weights that were chosen, by which a stopped run goes on.
_CHOICE = '.restoring-with'
#: A standard deviation this large, in [0, 1], is drawn white in a std map.
STD_WHITE = 0.1


@dataclass(frozen=True)
class _Job:
    """One photo and all that a process needs to restore it; ``loading`` is the deblurrer's, ``settings`` the call's."""

    photo: Path
    target: Path
    save: tuple[str, ...]
    loading: tuple[tuple[str, Any], ...]
    settings: tuple[tuple[str, Any], ...]


def restore_photos(inputs: Sequence[str],
                   output: str | Path,
                   weights: str | None = None,
                   save: Sequence[str] = ('image', ),
                   overwrite: bool = False,
                   recursive: bool = False,
                   device: str = 'auto',
                   precision: str = 'auto',
                   tile: int | str | None = 'auto',
                   keep_sharp: bool = False,
                   speed: str = 'auto',
                   workers: int = 1,
                   written: dict[Path, Mapping[str, Sequence[Path]]] | None = None,
                   **settings: Any) -> int:
    """Restore photos into a folder, or one photo into a file, with a progress bar.

    Writes ``NAME.EXT`` for each photo, and beside it ``NAME_initial``, ``NAME_sample1``, ... and ``NAME_std.png`` as asked for
    by ``save``. A photo whose results are all there is skipped. One that cannot be read is reported at the end, and the others
    go on; so they do if a worker is killed. Under torchrun the processes share the photos.

    Args:
        inputs: Files, folders or patterns.
        output: Folder, or for one photo a file with a photo's suffix; a name that ends in ``/`` is a folder. Photos from
            subfolders go into subfolders of it.
        weights: Name or file; None for the best that are here, as :func:`~stochastic_refine.inference.choice.choose` says for
            the first photo, or the bundled pair where settings are given that mean something to samples only.
        device, precision, tile, keep_sharp: See :class:`~stochastic_refine.inference.deblurrer.Deblurrer`.
        save: Any of ``image``, ``initial``, ``samples``, ``std``.
        overwrite: Restore again what is there.
        recursive: Search folders with their subfolders.
        speed: ``'fast'``, ``'auto'`` or ``'best'``, where ``weights`` are not named.
        workers: Processes on this machine; several GPUs are dealt out to them.
        written: Gets, for each photo whose results are all there at the end, their files by what they show.
        **settings: Passed to the deblurrer: ``point``, ``samples``, ``average``, ``seed``, ``steps``, ...

    Returns:
        Exit code: 0, or 2 if photos were left out.

    Raises:
        InputError: Before any work, if inputs, output or settings cannot be used. Later, if nothing more can be written, a
            folder of photos has vanished, or a worker was killed.
    """
    for what in save:
        if what not in WHAT:
            raise InputError(f"--save knows no '{what}'; {nearest(what, WHAT)}")
    found = search_photos(inputs, recursive, results=Path(output))
    targets = _targets(found.places, output)
    if found.passed_over and rank() == 0:
        print(f'Note: passed over {count_in_words(found.passed_over)}: photos are JPEG, PNG, WebP, TIFF and BMP.',
              file=sys.stderr)
    machine = (('device', device), ('precision', precision), ('tile', tile), ('keep_sharp', keep_sharp))
    chosen = note = None
    if weights is None:
        bundled = bundled_for(settings, save)
        missing = next((photo for photo, target in targets.items() if overwrite or not target.exists()), None)
        note = Path(output) / _CHOICE if speed == 'auto' and Path(output) not in targets.values() else None
        chosen = None if bundled == BUNDLED_PAIR or missing is None else _choose(speed, missing, machine, note)
        weights = chosen.name if chosen else bundled
    loading = (('weights', weights), *machine)
    deblurrer = loaded_deblurrer(loading)
    point = deblurrer.point_of(settings)
    if chosen and rank() == 0:
        print(chosen.words(point.words if isinstance(deblurrer.net, SamplingNetwork) else 'one pass'))
    _check_save(save, deblurrer.net, point.num_samples)
    _check_apart(targets, save, point.num_samples)
    for folder in dict.fromkeys(target.parent for target in targets.values()):
        make_folder(folder)
    if chosen and note and rank() == 0:
        write_text(note, chosen.name)

    jobs = [_Job(photo, target, tuple(save), loading, tuple(settings.items())) for photo, target in targets.items()
            if overwrite or not all(file.exists() for file in result_files(target, save, point.num_samples))]
    if rank() == 0 and len(jobs) < len(targets):
        print(f'{len(targets) - len(jobs)} of {len(targets)} photos are there already, skipped (--overwrite restores them '
              'again).')
    wait_for_all()  # else one process could take another's first results for old ones, and share out what is left differently
    share = my_share(jobs)
    if workers > 1 and len(share) > 1:
        loaded_deblurrer.cache_clear()  # each worker has its own
        faults = run_parallel(_restore, share, workers, 'Restoring', 'photo')
    else:
        faults = _restore_here(share)
    faults = [fault for fault in faults if fault]
    for fault in faults:
        print(f'Error: {fault}', file=sys.stderr)
    if faults:
        print(f'{len(faults)} of {len(share)} photos were left out.', file=sys.stderr)
    wait_for_all()  # torchrun ends the others as soon as one process has ended with an error
    if written is not None:
        for photo, target in targets.items():
            files = {what: result_files(target, [what], point.num_samples) for what in save}
            if all(file.exists() for one in files.values() for file in one):
                written[photo] = files
    if note and rank() == 0:
        note.unlink(missing_ok=True)
    return 2 if faults else 0


def _check_save(save: Sequence[str], net: nn.Module, num_samples: int) -> None:
    """Raise an InputError, before any work, if the network has not what is to be saved."""
    if not isinstance(net, SamplingNetwork) and set(save) - {'image'}:
        raise InputError(f'{type(net).__name__} is deterministic and gives the image alone; leave the rest out of --save.')
    if 'initial' in save and not net.has_initial:
        raise InputError('These weights have no initial prediction; leave initial out of --save.')
    if 'std' in save and num_samples < 2:
        raise InputError('A std map needs at least two samples; add --samples 8, for example.')


def _choose(speed: str, photo: Path, machine: tuple[tuple[str, Any], ...], note: Path | None) -> Choice:
    """The weights for a photo: those that a stopped run noted, whose results are there already, or the best."""
    kept = note.read_text(encoding='utf-8').strip() if note and note.is_file() else None
    kept = kept if kept in available_weights() else None
    # Processes that share the work must agree, so that they time nothing.
    speed = 'best' if speed == 'auto' and world_size() > 1 else speed
    return choose(speed, photo_size(photo), lambda name: loaded_deblurrer((('weights', name), *machine)), kept)


@lru_cache(maxsize=1)
def loaded_deblurrer(loading: tuple[tuple[str, Any], ...]) -> Deblurrer:
    """The deblurrer, kept from photo to photo, on the GPU of this process."""
    options = dict(loading)
    return Deblurrer.from_pretrained(**{**options, 'device': str(process_device(options['device']))})


def _restore_here(jobs: Sequence[_Job]) -> list[str | None]:
    """Restore in this process, with a bar that moves at each network call."""
    faults: list[str | None] = []
    with tqdm(total=len(jobs), desc='Restoring', disable=not jobs or rank() > 0,
              bar_format='{l_bar}{bar}| {n:.1f}/{total_fmt} [{elapsed}<{remaining}{postfix}]') as bar:
        for job in jobs:
            bar.set_postfix_str(job.photo.name)
            faults.append(_restore(job, lambda done, total: bar.update(len(faults) + done / total - bar.n)))
            bar.update(len(faults) - bar.n)
    return faults


def _restore(job: _Job, on_call: Callable[[int, int], object] | None = None) -> str | None:
    """Restore a photo; None, or why it was left out. What would befall all other photos too is raised."""
    try:
        deblurrer = loaded_deblurrer(job.loading)
        result = deblurrer(job.photo, keep_samples='samples' in job.save, on_call=on_call, **dict(job.settings))
    except InputError as error:
        if not job.photo.parent.is_dir():
            raise InputError(f'Folder {job.photo.parent} is there no longer; when it is back, run the same command again, '
                             'which does what is missing.') from error
        return str(error) if job.photo.name in str(error) else f'{job.photo}: {error}'
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return f'{job.photo} does not fit into memory; restore it with smaller tiles, for example --tile 512, or fewer workers.'
    if result.tiling:
        tqdm.write(f'Note: {job.photo}: {result.tiling}.', file=sys.stderr)
    if lost := not_kept(result.source, job.target):
        tqdm.write(f'Note: {job.photo}: {job.target.name} does not keep {", ".join(lost)}.', file=sys.stderr)
    try:
        _write(result, job.target, job.save)
    except InputError as error:
        if is_of_the_system(error):
            raise
        return str(error)
    return None


def _targets(places: Mapping[Path, Path], output: str | Path) -> dict[Path, Path]:
    """The result's file for each photo, whose place below the output folder is given."""
    is_folder, output = str(output).endswith(('/', os.sep)) or Path(output).is_dir(), Path(output)
    known = output.suffix.lower() in FORMATS
    if known and len(places) == 1 and not is_folder:
        return dict.fromkeys(places, output)
    if output.suffix and not is_folder and (known or len(places) == 1):
        fault = f'is a file for {len(places)} photos' if known else f"has the unknown suffix '{output.suffix}'"
        raise InputError(f'Output {output} {fault}; give a folder, whose name may end in / to tell it from a file'
                         f"{'' if known else ', or one of ' + ', '.join(FORMATS)}.")
    for photo in places:
        if photo.suffix.lower() not in FORMATS:
            raise InputError(f"{photo} has no suffix that its result could be written with; rename it to one of "
                             f"{', '.join(FORMATS)}, or restore it alone with -o NAME.png.")
    return {photo: output / place for photo, place in places.items()}


def _check_apart(targets: Mapping[Path, Path], save: Sequence[str], num_samples: int) -> None:
    """Raise an InputError if two photos would be written to one file, or one of them over a photo."""
    photos = {photo.resolve(): photo for photo in targets}
    written: dict[str, Path] = {}
    for photo, target in targets.items():
        if target.exists() and os.path.samefile(photo, target):
            raise InputError(f'{photo} would be overwritten by its own result; choose another output folder.')
        for file in result_files(target, save, num_samples):
            if file.resolve() in photos:
                raise InputError(f'{photos[file.resolve()]} would be overwritten by what is made of {photo}; choose another '
                                 'output folder.')
            other = written.setdefault(os.path.normcase(file), photo)
            if other is not photo:
                raise InputError(f'{other} and {photo} would both be written to {file}; rename one, restore them into '
                                 'different folders, or keep their subfolders by giving the folder around them with '
                                 '--recursive.')


def result_files(target: Path, save: Sequence[str], num_samples: int) -> list[Path]:
    """Every file that a photo's restoration writes."""
    files = {
        'image': [target],
        'initial': [target.with_stem(f'{target.stem}_initial')],
        'samples': [target.with_stem(f'{target.stem}_sample{i + 1}') for i in range(num_samples)],
        'std': [target.with_name(f'{target.stem}_std.png')],
    }
    return [file for what in save for file in files[what]]


def _write(result: Result, target: Path, save: Sequence[str]) -> None:
    pictures: dict[str, Sequence[Any]] = {
        'image': [result.image], 'initial': [result.initial], 'samples': [] if result.samples is None else [*result.samples]}
    for what in save:
        if what == 'std':
            assert result.std is not None  # checked before any work
            write_photo(result_files(target, ['std'], 0)[0], std_picture(result.std))
        else:
            for file, pixels in zip(result_files(target, [what], len(pictures['samples'])), pictures[what]):
                write_photo(file, pixels, like=result.source)


def std_picture(std: NDArray[np.float32]) -> NDArray[np.float32]:
    """A std map (H, W, 3) as a grey picture (H, W, 3): mean over the channels, black 0, white ``STD_WHITE`` and above."""
    grey = np.clip(std.mean(axis=2, keepdims=True) / STD_WHITE, 0, 1)
    return np.repeat(grey, 3, axis=2).astype(np.float32)
