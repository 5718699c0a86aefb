"""Restore videos frame by frame, each with the same seeds, so that the noise of a sample stands still.

Restored frames wait in a hidden folder beside the result, lossless, until all are there and the video is encoded in one piece
beside them; so a stopped run goes on at its next frame, and no half video is ever seen.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ...checkpoints.weights_folder import find_weights
from ...errors import InputError, is_of_the_system
from ...files import make_folder, sha256_of, to_json, write_atomically, write_text
from ...processes import my_share, rank, wait_for_all
from ..choice import bundled_for, choose
from ..deblurrer import Deblurrer
from ..folder import loaded_deblurrer
from ..photos import Photo, read_photo, write_photo
from .reading import SUFFIXES, Video, frames, inspect, require_av
from .writing import check_encodable, write_video

#: In a folder of restored frames: what they were made of and how.
_MADE_WITH = 'made-with.json'


def is_video(path: str | Path) -> bool:
    """Whether a file is a video by its suffix."""
    return Path(path).suffix.lower() in SUFFIXES


def restore_videos(videos: Sequence[str | Path],
                   output: str | Path,
                   weights: str | None = None,
                   overwrite: bool = False,
                   device: str = 'auto',
                   precision: str = 'auto',
                   tile: int | str | None = 'auto',
                   keep_sharp: bool = False,
                   speed: str = 'auto',
                   **settings: Any) -> int:
    """Restore videos into a folder, or one into a file; times, turn, colours and sound stay as they are.

    A video whose result is there is skipped. One that cannot be restored is reported at the end, and the others go on. Under
    torchrun the processes share the videos.

    Args:
        videos: Files.
        output: Folder, or for one video a file with a video's suffix.
        weights: Name or file; None for the bundled pair, or with ``speed='best'`` for the best on this machine.
        overwrite: Restore again what is there.
        device, precision, tile, keep_sharp: See :class:`~stochastic_refine.inference.deblurrer.Deblurrer`.
        speed: ``'fast'``, ``'auto'`` or ``'best'``, where ``weights`` are not named.
        **settings: Passed to the deblurrer: ``point``, ``samples``, ``average``, ``seed``, ``steps``, ...

    Returns:
        Exit code: 0, or 2 if videos were left out.

    Raises:
        InputError: Before any work, if PyAV is missing or output or settings cannot be used; later, if nothing more can be
            written.
    """
    require_av()
    targets = _targets([Path(video) for video in videos], Path(output), str(output).endswith('/'))
    missing = {video: target for video, target in targets.items() if overwrite or not target.exists()}
    if rank() == 0 and len(missing) < len(targets):
        for target in set(targets.values()) - set(missing.values()):
            if (_frames_of(target) / _MADE_WITH).is_file():  # left by an --overwrite that was stopped
                shutil.rmtree(_frames_of(target), ignore_errors=True)
        print(f'{len(targets) - len(missing)} of {len(targets)} videos are there already, skipped (--overwrite restores them '
              'again).')
    wait_for_all()
    faults = []
    machine = (('device', device), ('precision', precision), ('tile', tile), ('keep_sharp', keep_sharp))
    deblurrer, told = None, {}
    try:
        for video in my_share(list(missing)):
            try:
                whole = inspect(video)
                lost = check_encodable(whole, missing[video])
            except InputError as error:
                faults.append(str(error))
                continue
            if lost:
                print(f'Note: {video}: {missing[video].name} does not keep {", ".join(lost)}.', file=sys.stderr)
            if deblurrer is None:
                if weights is None and speed == 'best':
                    weights = choose('best', (whole.height, whole.width),
                                     lambda name: loaded_deblurrer((('weights', name), *machine))).name
                weights = weights or bundled_for(settings)
                deblurrer = loaded_deblurrer((('weights', weights), *machine))
                told = {'weights': sha256_of(find_weights(weights)), 'point': vars(deblurrer.point_of(settings)),
                        'precision': deblurrer.precision, 'keep_sharp': keep_sharp}
            make_folder(missing[video].parent)
            try:
                _restore(whole, missing[video], deblurrer, settings, told)
            except InputError as error:
                if is_of_the_system(error):
                    raise
                faults.append(str(error))
    finally:  # also before the error that ends all
        for fault in faults:
            print(f'Error: {fault}', file=sys.stderr)
    wait_for_all()
    return 2 if faults else 0


def _restore(video: Video, target: Path, deblurrer: Deblurrer, settings: dict[str, Any], told: dict[str, Any]) -> None:
    """Restore the frames that are missing, then write the video and remove them."""
    folder = _frames_of(target)
    made_with = to_json({**told, 'video': sha256_of(video.path), 'frames': len(video.times)})
    note = folder / _MADE_WITH
    if not note.is_file() or note.read_text(encoding='utf-8') != made_with:  # frames of another video, or restored otherwise
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
        write_text(note, made_with)
    files = [folder / f'{number + 1:06}.png' for number in range(len(video.times))]
    first = next((number for number, file in enumerate(files) if not file.exists()), len(files))
    with tqdm(total=len(files), initial=first, desc=f'Restoring {video.path.name}', disable=rank() > 0, unit='frame',
              bar_format='{l_bar}{bar}| {n:.1f}/{total_fmt} frames [{elapsed}<{remaining}]') as bar:
        for number, frame in enumerate(frames(video, first) if first < len(files) else (), first):
            if number >= len(files):
                raise _changed(video)
            if not files[number].exists():
                result = deblurrer(frame, keep_samples=False, on_call=partial(_advance, bar, number), **settings)
                write_photo(files[number], result.image, like=Photo(result.image, bits=16 if video.deep else 8))
            bar.update(number + 1 - bar.n)
    if not all(file.exists() for file in files):
        raise _changed(video)
    for left in folder.glob('.*'):  # by a run that was killed while it wrote
        left.unlink()
    whole = folder / target.name  # encoded where a killed run leaves nothing for good
    write_atomically(whole, lambda temporary: write_video(video, Path(temporary), _pictures(files, video.deep), target))
    write_atomically(target, partial(os.replace, whole))
    shutil.rmtree(folder, ignore_errors=True)


def _frames_of(target: Path) -> Path:
    return target.with_name(f'.{target.name}.frames')


def _changed(video: Video) -> InputError:
    return InputError(f'{video.path} had {len(video.times)} frames at first and has another number now; it changed meanwhile, '
                      'so run the same command once more.')


def _advance(bar: tqdm, number: int, done: int, total: int) -> None:
    bar.update(number + done / total - bar.n)


def _pictures(files: Sequence[Path], deep: bool) -> Iterator[NDArray[Any]]:
    levels = 65535 if deep else 255
    for file in files:
        yield np.rint(read_photo(file).pixels * np.float32(levels)).astype(np.uint16 if deep else np.uint8)


def _targets(videos: Sequence[Path], output: Path, as_folder: bool) -> dict[Path, Path]:
    """The result's file for each video."""
    for video in videos:
        if not video.is_file():
            raise InputError(f'Video {video} does not exist; check the path.')
    if output.suffix and not as_folder and not output.is_dir():
        if not is_video(output) or len(videos) != 1:
            raise InputError(f'Output {output} is no place for {len(videos)} video{"s" if len(videos) > 1 else ""}; give a '
                             'folder, whose name may end in / to tell it from a file, or for one video a name in '
                             f'{", ".join(SUFFIXES)}.')
        targets = dict.fromkeys(videos, output)
    else:
        targets = {video: output / video.name for video in videos}
    for video, target in targets.items():
        if target.exists() and target.samefile(video):
            raise InputError(f'{video} would be overwritten by its own result; choose another output.')
    if len(set(targets.values())) < len(set(targets)):
        raise InputError('Videos of one name from several folders would be written to one file; restore them into different '
                         'folders.')
    return targets
