"""One pair of a data set: checked, cut into crops, and written."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps

from ..errors import InputError
from .image_files import open_image, upright_size

_PNG_START, _PNG_END = b'\x89PNG\r\n\x1a\n', b'\x00\x00\x00\x00IEND\xaeB`\x82'


class _Output(NamedTuple):
    """A PNG to make of the (left, upper, right, lower) ``box`` of a source image."""

    source: Path
    path: Path
    box: tuple[int, int, int, int]
    is_whole_frame: bool

    @property
    def size(self) -> tuple[int, int]:
        left, upper, right, lower = self.box
        return right - left, lower - upper

    def is_source_itself(self) -> bool:
        """Whether the file is taken over as it is: frames of a test set that are PNG, whatever their name says."""
        if not self.is_whole_frame:
            return False
        with self.source.open('rb') as file:
            return file.read(len(_PNG_START)) == _PNG_START

    def is_done(self) -> bool:
        """Whether it is there and whole, by its length or its first and last bytes, without decoding it."""
        if not self.path.is_file():
            return False
        length = self.path.stat().st_size
        if self.is_source_itself():
            return length == self.source.stat().st_size
        with self.path.open('rb') as file:
            head = file.read(24)  # signature, then the IHDR chunk with width and height
            file.seek(max(0, length - len(_PNG_END)))
            tail = file.read()
        return head[:8] == _PNG_START and head[16:] == struct.pack('>II', *self.size) and tail == _PNG_END


class Job(NamedTuple):
    """One pair and where it goes; ``crop`` is (size, step) in pixels, None keeps the frame whole."""

    name: str
    lq: Path
    gt: Path
    lq_folder: Path
    gt_folder: Path
    crop: tuple[int, int] | None

    def outputs(self, size: tuple[int, int]) -> list[_Output]:
        """All files to make of frames of (width, height)."""
        width, height = size
        if self.crop is None:
            boxes = {f'{self.name}.png': (0, 0, width, height)}
        else:
            edge, step = self.crop
            corners = [(left, upper) for upper in crop_starts(height, edge, step) for left in crop_starts(width, edge, step)]
            boxes = {f'{self.name}_s{number:03d}.png': (left, upper, min(left + edge, width), min(upper + edge, height))
                     for number, (left, upper) in enumerate(corners, start=1)}
        return [_Output(source, folder / file, box, self.crop is None)
                for source, folder in ((self.lq, self.lq_folder), (self.gt, self.gt_folder)) for file, box in boxes.items()]

    def outstanding(self, size: tuple[int, int]) -> list[_Output]:
        return [output for output in self.outputs(size) if not output.is_done()]


def crop_starts(length: int, size: int, step: int) -> list[int]:
    """Where crops of ``size`` begin along an edge of ``length`` pixels so that all of it is covered when ``step <= size``."""
    starts = list(range(0, length - size + 1, step)) or [0]
    if starts[-1] + size < length:
        starts.append(length - size)
    return starts


def check_job(job: Job) -> tuple[tuple[int, int], str]:
    """Frame size (width, height) of a pair, and what is wrong with it or ''; decoded as a whole unless all outputs are done."""
    try:
        with open_image(job.lq) as lq, open_image(job.gt) as gt:
            size, other = upright_size(lq), upright_size(gt)
            if size != other:
                return size, '{} is {}x{} but {} is {}x{}'.format(job.lq, *size, job.gt, *other)
        for path in {output.source for output in job.outstanding(size)}:
            with open_image(path) as image:
                image.load()
        return size, ''
    except InputError as error:
        return (0, 0), str(error).partition(';')[0]


def write_job(job: Job) -> int:
    """Write what is outstanding of a pair; returns the number of files."""
    frames: dict[Path, Image.Image] = {}
    with open_image(job.lq) as image:
        outstanding = job.outstanding(upright_size(image))
    for output in outstanding:
        if output.is_source_itself():
            replace_file(output.path, partial(_link_or_copy, output.source))
            continue
        if output.source not in frames:
            with open_image(output.source) as image:
                frames[output.source] = ImageOps.exif_transpose(image).convert('RGB')
        crop = frames[output.source].crop(output.box)
        replace_file(output.path, partial(crop.save, format='PNG', compress_level=3))
    return len(outstanding)


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Write through a temporary file beside ``path``, in a folder made where it is missing.

    Without the fsync of checkpoints: it would take long for tens of thousands of files, and a later run sees shortened ones.
    """
    temporary = path.with_name(f'.{path.name}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # a killed run leaves one, perhaps a link to the source
        try:
            write(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f'{path} could not be written ({error}); free some space or check its permissions, and run the same '
                         'command again to go on.') from error


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
