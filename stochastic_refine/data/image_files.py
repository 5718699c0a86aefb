"""Opening image files that may be damaged or hostile: bounded before anything is decoded, refused in one sentence after it.

Formats are told by content. What a decoder written in C prints by itself (libtiff on a broken directory) is not held back.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image

from ..errors import InputError, words_of

#: Suffixes that can be written, and that folders are searched for, with the format of each.
FORMATS = {'.jpg': 'JPEG', '.jpeg': 'JPEG', '.jfif': 'JPEG', '.jpe': 'JPEG', '.png': 'PNG', '.webp': 'WEBP', '.tif': 'TIFF',
           '.tiff': 'TIFF', '.bmp': 'BMP'}
#: What systems leave in folders of images, by name in lower case; hidden files too are passed over.
SYSTEM_FILES = {'thumbs.db', 'ehthumbs.db', 'desktop.ini', 'icon\r', '.ds_store'}
#: Larger images are refused by their header, whatever the memory.
MAX_MEGAPIXELS = 1000.0
#: A file whose image has more pixels than the first must have a byte for so many of them: photos have ten times as many bytes,
#: but a plain colour packs so well that a few kilobytes fill gigabytes.
_PLAIN_PIXELS, _PIXELS_PER_BYTE = 2**26, 100
#: Memory per pixel while an image is decoded: 4 bytes as Pillow holds it, 4 as an array, 12 as floats.
_BYTES_PER_PIXEL = 20
#: Each scan of a progressive JPEG is a pass over the whole image; encoders write some ten.
_MOST_SCANS = 100
_pillow = threading.RLock()


def is_system_file(path: Path) -> bool:
    """Whether it is a hidden file, or one that systems leave in folders."""
    return path.name.startswith('.') or path.name.lower() in SYSTEM_FILES


def other_files(folder: Path, recursive: bool = True) -> Counter[str]:
    """How many files below or in a folder are no images by their suffix, by suffix, without hidden ones and the system's."""
    return Counter(path.suffix.lower() for path in (folder.rglob('*') if recursive else folder.iterdir())
                   if path.suffix.lower() not in FORMATS and path.name.lower() not in SYSTEM_FILES and path.is_file()
                   and not any(part.startswith('.') for part in path.relative_to(folder).parts))


def count_in_words(counts: Counter[str]) -> str:
    """Numbers of files by suffix: ``2 .heic, 1 .gif``."""
    return ', '.join(f"{count} {suffix or 'without a suffix'}" for suffix, count in counts.most_common())


@contextmanager
def decoding(fault: str) -> Iterator[None]:
    """Turn any failure of a decoder into an InputError.

    Pillow's own, lower size limit is lifted meanwhile, and its warnings are passed over. Both are set for the whole process,
    so readers in several threads wait for one another.

    Args:
        fault: The sentence, naming the file; ``{}`` in it is replaced by the decoder's words.
    """
    with _pillow, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        except InputError:
            raise
        except MemoryError as error:
            raise InputError(fault.replace('{}', 'more memory is needed than there is')) from error
        except Exception as error:  # damaged files make decoders raise almost anything
            raise InputError(fault.replace('{}', words_of(error))) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def open_image(path: str | os.PathLike) -> Iterator[Image.Image]:
    """An image of a data set: opened, and decoded by the caller as far as needed.

    Raises:
        InputError: If the file, or what the caller decodes of it, is damaged, no image of ``FORMATS`` or too large.
    """
    try:
        file = Path(path).open('rb')
    except OSError as error:
        raise InputError(f'Image {path} cannot be opened ({error.strerror}); check the path.') from error
    with file, decoding(f'Image {path} is damaged or no image; mend or remove it.'):
        yield open_bounded(file, f'Image {path}')


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an opened image after it is turned as EXIF says, by what stands before its pixels."""
    if image.format == 'PNG' and not {'exif', 'Raw profile type exif'} & image.info.keys():
        return image.size  # Pillow would decode the whole image to look behind it
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) > 4
    except Exception:  # broken EXIF, which does not turn an image
        turned = False
    return image.size[::-1] if turned else image.size


def check_whole(path: str | os.PathLike) -> None:
    """Check an image file before another library decodes it, at some hundredth of the time that this takes.

    The size, a PNG's checksums, and the end of a JPEG or WebP. OpenCV returns some files that are cut short, or filled up with
    zeros, as if they were whole.

    Raises:
        InputError: If it is damaged, as far as can be told.
    """
    with open_image(path) as image:
        if image.format in ('JPEG', 'MPO', 'WEBP'):
            content = Path(path).read_bytes()
            if ends_in_zeros(content):
                raise InputError(f'Image {path} ends in zeros, as an unfinished copy does; copy it again.')
            if image.format != 'WEBP' and not content.endswith(b'\xff\xd9'):  # cut short, or with something behind its end
                image.load()
        image.verify()


def ends_in_zeros(content: bytes) -> bool:
    """Whether the end of a JPEG or WebP file was never filled in.

    Decoders take zeros for data and return grey; cameras, though, pad finished JPEG files with zeros, after the end marker.
    """
    return not content[-512:].strip(b'\0') and not content.rstrip(b'\0').endswith(b'\xff\xd9')


def open_bounded(file: IO[bytes], name: str, max_megapixels: float = MAX_MEGAPIXELS) -> Image.Image:
    """Open an image within :func:`decoding`; only its header has been read, and its size is checked.

    Raises:
        InputError: If the image is too large.
    """
    image = Image.open(file, formats=tuple(set(FORMATS.values())))
    check_size(image, name, max_megapixels, os.fstat(file.fileno()).st_size)
    if image.info.get('progressive'):
        position = file.tell()
        file.seek(0)
        scans = file.read().count(b'\xff\xda')
        file.seek(position)
        if scans > _MOST_SCANS:
            raise InputError(f'{name} is a JPEG of {scans} scans, which would take very long to decode; save it anew.')
    return image


def check_size(image: Image.Image, name: str, max_megapixels: float = MAX_MEGAPIXELS, file_size: int | None = None) -> None:
    """Refuse an image that declares more pixels than allowed, than memory holds, or than ``file_size`` bytes can be a photo of.

    Raises:
        InputError: Naming the size and the limit.
    """
    width, height = image.size
    pixels = width * height
    if pixels > max_megapixels * 1e6:
        raise InputError(f'{name} declares {width}x{height} pixels, above the limit of {max_megapixels:g} megapixels; make it '
                         'smaller.')
    if file_size is not None and pixels > max(_PLAIN_PIXELS, _PIXELS_PER_BYTE * file_size):
        raise InputError(f'{name} declares {width}x{height} pixels in {file_size} bytes, which is no photo but one plain '
                         'colour, or a trap; crop it or leave it out.')
    needed, memory = pixels * _BYTES_PER_PIXEL, _physical_memory()
    if needed > memory:
        raise InputError(f'{name} declares {width}x{height} pixels, which take {needed / 2**30:.0f} GiB where this machine has '
                         f'{memory / 2**30:.0f} GiB of memory; make it smaller.')


def _physical_memory() -> float:
    """In bytes; infinite where the system does not tell."""
    try:
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, ValueError, OSError):
        return float('inf')
