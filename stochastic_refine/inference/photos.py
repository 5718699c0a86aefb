"""Photos in and out: files, PIL images, arrays and tensors become RGB in [0, 1] and go back as they came.

Formats are told by content when reading and by suffix when writing: JPEG, PNG, WebP, TIFF and BMP. Pixels stay in the colour
space of their ICC profile, which travels with them; only CMYK is converted (to 8-bit sRGB, through its profile if it has one).
An animation, or a file of several pages or pictures, gives its first one.
"""

from __future__ import annotations

import glob
import io
import os
import re
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from ..checkpoints import write_atomically
from ..errors import InputError

#: Suffixes that can be written, and that folders are searched for, with the format of each.
FORMATS = {'.jpg': 'JPEG', '.jpeg': 'JPEG', '.png': 'PNG', '.webp': 'WEBP', '.tif': 'TIFF', '.tiff': 'TIFF', '.bmp': 'BMP'}
_LONGEST_SIDE = {'JPEG': 65500, 'WEBP': 16383}
_GREY_MODES = ('1', 'L', 'LA', 'La', 'I', 'I;16', 'I;16L', 'I;16B', 'I;16N')
_COLOUR_MODES = ('P', 'PA', 'RGB', 'RGBX', 'RGBA', 'RGBa', 'YCbCr', 'CMYK')
#: TIFF tags that tell how samples lie in the file, 274 (orientation) too, or are kept elsewhere: they do not follow as EXIF.
_STORAGE_TAGS = (*range(254, 263), 266, 273, 274, 277, 278, 279, 284, 292, 293, 301, *range(317, 348), 513, 514,
                 *range(529, 533), 700, 33723, 34377, 34675, 37724)
#: EXIF tags without a meaning in the new file: width and height before it was turned, and a pointer into the old block.
_STALE_TAGS = (0xA002, 0xA003, ExifTags.IFD.Interop)
#: What makes an array [H, W, ...] of each EXIF orientation upright.
_UPRIGHT = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
            6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a)}
_pillow_limit = threading.Lock()


@dataclass
class Photo:
    """An upright photo and what is needed to write another one like it.

    Attributes:
        pixels: float32 RGB [H, W, 3] in [0, 1]; a grey photo has three equal channels.
        alpha: float32 [H, W] in [0, 1], straight (not premultiplied), or None.
        bits: Depth per channel, 8 or 16.
        grey: Whether the source had one colour channel.
        icc_profile: The embedded profile or None.
        exif: EXIF block (it starts with ``Exif`` and two zero bytes), without orientation and old thumbnail; or None.
        name: The file, or words for what was given, for messages.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    bits: int = 8
    grey: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    name: str = 'the image'


def read_photo(source: Photo | str | os.PathLike | Image.Image | np.ndarray | Tensor, max_megapixels: float = 400.0) -> Photo:
    """Read a photo from wherever it is; the EXIF orientation of files and PIL images is applied.

    Args:
        source: A path, a PIL image (its colour is 8 bit), an array [H, W] or [H, W, C], a tensor [H, W], [C, H, W] or
            [1, C, H, W], or a ``Photo``, which is returned as it is. Arrays and tensors are uint8, uint16, or floats in
            [0, 1], which count as 8 bit when written; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).
        max_megapixels: Files and PIL images that declare more pixels are refused before anything is decoded.

    Raises:
        InputError: If there is no such photo, it is damaged, cut short, too large or of a kind that cannot be read, or an array
            has another shape, type or range. A photo cut short is never returned in part. Changed bytes inside a JPEG, WebP,
            BMP or uncompressed TIFF can go unnoticed: these formats have no checksum.
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _from_file(Path(source), max_megapixels)
    if isinstance(source, Image.Image):
        name = str(getattr(source, 'filename', '') or 'the PIL image')
        with _decoding(name):
            return _from_pillow(source, name, max_megapixels)
    if isinstance(source, Tensor):
        tensor = source[0] if source.dim() == 4 and len(source) == 1 else source
        if tensor.dim() not in (2, 3) or (tensor.dim() == 3 and len(tensor) > 4):
            raise InputError(f'A tensor of shape {tuple(source.shape)} is not one photo; give [C, H, W] or [1, C, H, W], '
                             'the photos of a batch one by one.')
        tensor = (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu()  # NumPy has no bfloat16
        return _from_array(tensor.movedim(0, -1).numpy() if tensor.dim() == 3 else tensor.numpy(), 'the tensor')
    if isinstance(source, np.ndarray):
        return _from_array(source, 'the array')
    raise InputError(f'A photo is a path, PIL image, NumPy array or tensor, not {type(source).__name__}; give one of these.')


def write_photo(path: str | os.PathLike, pixels: np.ndarray, like: Photo | None = None, quality: int = 95) -> None:
    """Write RGB pixels atomically in the format of the suffix, as much like ``like`` as that format can.

    PNG and TIFF are lossless and keep depth, greyness, alpha, ICC profile and EXIF (but 16-bit grey with alpha becomes RGB with
    alpha, which more programs read). JPEG, WebP and BMP are 8 bit. JPEG and BMP have no alpha: the photo is laid on white, as
    viewers show it. WebP is lossy here and has no grey. BMP is lossless and has neither profile nor EXIF.

    Args:
        path: File to write; its folder must exist. The suffix is one of ``FORMATS``.
        pixels: Float RGB [H, W, 3]; values outside [0, 1] are clipped, then rounded to the nearest level. The channels are
            averaged where ``like`` is grey.
        like: The photo that was read; None writes 8-bit RGB.
        quality: Of JPEG (colour at full resolution) and WebP, 1 to 100.

    Raises:
        InputError: If suffix, pixels, size or quality do not fit the format, or the file cannot be written.
    """
    path, fmt = Path(path), FORMATS.get(Path(path).suffix.lower())
    if fmt is None:
        raise InputError(f"{path} has no suffix that photos are written with; choose one of {', '.join(FORMATS)}.")
    if not 1 <= quality <= 100:
        raise InputError(f'Quality {quality} for {path} is not from 1 to 100; 95 is usual.')
    pixels = np.asarray(pixels)
    if pixels.dtype.kind != 'f' or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InputError(f'Pixels of shape {pixels.shape} and type {pixels.dtype} cannot be written to {path}; '
                         'give floats in [0, 1] of shape [H, W, 3].')
    if not np.isfinite(pixels).all():
        raise InputError(f'The pixels for {path} hold NaN or infinity and were not written; restore in float32.')
    height, width = pixels.shape[:2]
    if max(height, width) > _LONGEST_SIDE.get(fmt, max(height, width)):
        raise InputError(f'{path} would be {width}x{height} pixels, but {fmt} ends at {_LONGEST_SIDE[fmt]} a side; '
                         'choose .png or .tif.')
    like = like or Photo(pixels)
    alpha = like.alpha
    if alpha is not None and alpha.shape != (height, width):
        raise InputError(f'The pixels for {path} are {width}x{height}, but the alpha of {like.name} is '
                         f'{alpha.shape[1]}x{alpha.shape[0]}; give pixels of its size, or set its alpha to None.')
    pixels = np.clip(pixels, 0, 1).astype(np.float32)
    if alpha is not None and fmt in ('JPEG', 'BMP'):
        pixels, alpha = pixels * alpha[..., None] + (1 - alpha[..., None]), None
    bits = like.bits if fmt in ('PNG', 'TIFF') else 8
    grey = like.grey and fmt != 'WEBP' and not (bits == 16 and alpha is not None)
    if grey:
        pixels = pixels.mean(axis=2, keepdims=True)
    values = pixels if alpha is None else np.concatenate([pixels, alpha[..., None]], axis=2)
    samples = np.rint(values * np.float32(2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    profile = like.icc_profile
    if profile is not None and (profile[16:20] == b'GRAY') != grey:
        profile = None  # viewers refuse or misread a profile for another kind of colour
    encoded = _encode(samples, fmt, profile, like.exif, quality)
    write_atomically(path, lambda temporary: Path(temporary).write_bytes(encoded))


def find_photos(inputs: Sequence[str | os.PathLike], recursive: bool = False) -> list[Path]:
    """Files, folders and patterns as photos: in the order given, each once; within a folder ``2.png`` comes before ``10.png``.

    Folders and patterns give files with a suffix of ``FORMATS`` that are not hidden; a file given by name is taken whatever its
    suffix. ``recursive`` looks into folders inside folders; ``**`` in a pattern always does.

    Raises:
        InputError: If an input does not exist or matches no photo, or a folder holds none.
    """
    found: dict[Path, Path] = {}
    for given in [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs:
        path = Path(given)
        try:
            if path.is_file():
                photos = [path]
            else:
                matches = [path] if path.is_dir() else sorted(map(Path, glob.glob(str(given), recursive=True)), key=_natural)
                photos = [photo for match in matches for photo in _photos_at(match, recursive)]
        except OSError as error:
            raise InputError(f'{given} cannot be searched ({error.strerror}); check the name and its permissions.') from error
        if not photos:
            fault = 'is a folder that holds' if path.is_dir() else 'does not exist or matches'
            raise InputError(f"{given} {fault} no photo ({', '.join(FORMATS)}); give photos, folders of photos "
                             '(folders inside them count only if recursive) or a pattern like "in/*.jpg".')
        for photo in photos:
            found.setdefault(photo.resolve(), photo)
    return list(found.values())


def _photos_at(path: Path, recursive: bool) -> list[Path]:
    """``path`` or those in it, without hidden ones: half-written files, thumbnails, macOS's notes beside a photo (._a.jpg)."""
    paths = (path.rglob('*') if recursive else path.iterdir()) if path.is_dir() else [path]
    return sorted((found for found in paths if found.suffix.lower() in FORMATS and found.is_file()
                   and not any(part.startswith('.') for part in (found.name, *found.relative_to(path).parts))), key=_natural)


def _natural(path: Path) -> tuple[list[list[str | int]], str]:
    """Sort key under which numbers inside names count as numbers; the plain name breaks ties."""
    parts = [re.split(r'(\d+)', part.casefold()) for part in path.parts]
    return [[int(piece) if index % 2 else piece for index, piece in enumerate(pieces)] for pieces in parts], str(path)


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn any failure of a decoder into an InputError that names the photo, and lift Pillow's own, lower size limit meanwhile;
    it is a global variable, so readers in several threads wait for one another."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        except (InputError, MemoryError):
            raise
        except Exception as error:  # damaged files make decoders raise almost anything
            raise InputError(f'{name} is damaged or cut short ({error}); copy or download it again.') from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _from_file(path: Path, max_megapixels: float) -> Photo:
    try:
        if path.is_dir():
            raise InputError(f'{path} is a folder, not a photo; name a photo inside it.')
        if not path.is_file():
            raise InputError(f'Photo {path} does not exist; check the path.')
        if not path.stat().st_size:
            raise InputError(f'{path} is empty (0 bytes); copy or download it again.')
        file = path.open('rb')
    except OSError as error:
        raise InputError(f'{path} cannot be opened ({error.strerror}); check the name and its permissions.') from error
    with file, _decoding(str(path)):
        try:
            image = Image.open(file, formats=tuple(set(FORMATS.values())))
        except UnidentifiedImageError as error:
            raise InputError(f'{path} is no JPEG, PNG, WebP, TIFF or BMP photo of 8 or 16 bits a channel, or it is damaged or '
                             'cut short; convert it to one of these, or copy it again.') from error
        return _from_pillow(image, str(path), max_megapixels, file)


def _from_pillow(image: Image.Image, name: str, max_megapixels: float, file: IO[bytes] | None = None) -> Photo:
    """``file`` is the one that ``image`` was opened from; without it 16-bit colour is what Pillow makes of it, 8 bit."""
    width, height = image.size
    if width * height > max_megapixels * 1e6:
        raise InputError(f'{name} declares {width}x{height} pixels, above the limit of {max_megapixels:g} megapixels; '
                         'raise max_megapixels if it is no trap, or make it smaller.')
    if file is not None and image.format in ('JPEG', 'MPO', 'WEBP') and _ends_in_zeros(file):
        raise InputError(f'{name} ends in zeros, as an unfinished copy or download does; copy or download it again.')
    tags = getattr(image, 'tag_v2', {})
    if tags.get(254, 0) & 1 or 50706 in tags:
        raise InputError(f'{name} is a camera raw file, or starts with a mere preview; develop it to a 16-bit TIFF first.')
    depth, colour_type = max(tags.get(258, (8,))), None
    if file is not None and image.format == 'PNG':
        file.seek(24)
        depth, colour_type = file.read(2)  # of the IHDR chunk, always the first
    if (image.mode not in _GREY_MODES + _COLOUR_MODES or depth not in (1, 2, 4, 8, 16)
            or (image.mode == 'I' and image.format != 'PNG')):
        raise InputError(f'{name} has samples of a kind that cannot be read (mode {image.mode}, {depth} bit); '
                         'save it as RGB or grey with 8 or 16 bits a channel.')
    image.load()
    grey = image.mode in _GREY_MODES or colour_type == 4  # Pillow opens 16-bit grey with alpha as RGBA
    profile = image.info.get('icc_profile')
    if image.mode.startswith('I'):
        samples = np.asarray(image).astype(np.uint16)
        if 'transparency' in image.info:
            samples = np.dstack([samples, np.where(samples == image.info['transparency'], 0, 65535).astype(np.uint16)])
        elif tags.get(262) == 0:
            samples = 65535 - samples  # white is zero; Pillow inverts this itself in 8 bit
    elif depth == 16 and file is not None and image.mode in ('RGB', 'RGBA'):
        samples = _deep_colour(image, file, name)
    elif image.mode == 'CMYK':
        samples, profile = np.asarray(_cmyk_to_srgb(image, profile)), None
    else:
        samples = np.asarray(image.convert(('L' if grey else 'RGB') + ('A' if image.has_transparency_data else '')))
    # Known only after loading: a PNG may end with it, and Pillow turns a TIFF upright itself and takes the tag away
    orientation, exif = _read_exif(image)
    samples = _UPRIGHT.get(orientation, np.asarray)(samples)
    values = samples / np.float32(np.iinfo(samples.dtype).max)
    return Photo(*_colour_and_alpha(values), 8 * samples.itemsize, grey, profile, exif, name)


def _ends_in_zeros(file: IO[bytes]) -> bool:
    """Whether the end was never filled in. Decoders of JPEG and WebP take zeros for data and return grey; cameras, though, pad
    finished JPEG files with zeros, after the end marker."""
    file.seek(0)
    content = file.read()
    return not content[-512:].strip(b'\0') and not content.rstrip(b'\0').endswith(b'\xff\xd9')


def _deep_colour(image: Image.Image, file: IO[bytes], name: str) -> np.ndarray:
    """16-bit colour as uint16 [H, W, 3 or 4], through OpenCV, checked against the high bytes that Pillow gives: OpenCV misreads
    some layouts without a word (separate planes), leaves premultiplied alpha as it is, and turns TIFF files but not PNG."""
    import cv2
    file.seek(0)
    decoded = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ValueError('the 16-bit samples cannot be decoded')
    channels = 3 + image.has_transparency_data
    high = np.asarray(image.convert('RGB')).astype(np.int16)
    if decoded.dtype == np.uint16 and decoded.shape[:2] == high.shape[:2] and decoded.shape[2:] in ((channels,), (4,)):
        samples = decoded[..., [2, 1, 0, 3][:channels]]
        if np.abs((samples[..., :3] >> 8).astype(np.int16) - high).max() <= 1:
            return samples
    raise InputError(f'{name} stores 16-bit colour in a rare way (separate planes, premultiplied alpha); save it interleaved.')


def _cmyk_to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    from PIL import ImageCms
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile or b''))
        return ImageCms.profileToProfile(image, own, ImageCms.createProfile('sRGB'), outputMode='RGB')
    except (ImageCms.PyCMSError, OSError):  # none, or a broken one, which must not keep a photo from being read
        return image.convert('RGB')


def _read_exif(image: Image.Image) -> tuple[int, bytes | None]:
    """Orientation that is still to be applied, and the EXIF block that suits the upright photo; what is broken is left out."""
    orientation = 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        exif = Image.Exif()  # a copy: a caller's image stays as it is
        exif.load(image.getexif().tobytes())
        for tag in _STORAGE_TAGS:
            exif.pop(tag, None)
        for tag in _STALE_TAGS if ExifTags.IFD.Exif in exif else ():
            exif.get_ifd(ExifTags.IFD.Exif).pop(tag, None)
        return orientation, exif.tobytes() if len(exif) else None
    except Exception:  # as with decoders; a photo with broken EXIF is still a photo
        return orientation, None


def _from_array(array: np.ndarray, name: str) -> Photo:
    """A photo from [H, W] or [H, W, C] of uint8, uint16 or floats in [0, 1]."""
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (2,), (3,), (4,)) or not array.size:
        remedy = ', here through array.transpose(1, 2, 0)' if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ''
        raise InputError(f'Shape {array.shape} of {name} is no photo\'s; give [H, W] or [H, W, C] with C from 1 to 4{remedy}.')
    bits, grey = 8, array.ndim == 2 or array.shape[2] < 3
    if array.dtype in (np.uint8, np.uint16):
        bits = 8 * array.itemsize
        array = array / np.float32(2**bits - 1)
    elif array.dtype.kind == 'f':
        low, high = float(array.min()), float(array.max())
        if not (low >= -1e-5 and high <= 1 + 1e-5):  # rounding is forgiven; NaN fails too
            remedy = 'divide by 255 (or 65535)' if low >= 0 and high > 2 else 'map or clip it to [0, 1]'
            raise InputError(f'Values of {name} run from {low:g} to {high:g}, but floats are taken in [0, 1]; {remedy}.')
        array = array.clip(0, 1)
    else:
        raise InputError(f'Type {array.dtype} of {name} is none that photos have; give uint8, uint16, or floats in [0, 1].')
    return Photo(*_colour_and_alpha(array), bits, grey, name=name)


def _colour_and_alpha(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """float32 RGB and alpha from [H, W] or [H, W, 1 to 4]."""
    values = np.asarray(values[..., None] if values.ndim == 2 else values, np.float32)
    pixels = np.ascontiguousarray(values[..., :3] if values.shape[2] > 2 else values[..., [0, 0, 0]])
    return pixels, np.ascontiguousarray(values[..., -1]) if values.shape[2] in (2, 4) else None


def _encode(samples: np.ndarray, fmt: str, profile: bytes | None, exif: bytes | None, quality: int) -> bytes:
    """A file's content from uint8 or uint16 samples [H, W, 1 to 4]."""
    if fmt == 'TIFF':
        return _encode_tiff(samples, profile, exif)
    if samples.dtype == np.uint16 and samples.shape[2] > 1:
        return _encode_deep_png(samples, profile, exif)
    exif = b'' if exif is None or (fmt == 'JPEG' and len(exif) > 65533) else exif  # one JPEG segment holds no more
    buffer = io.BytesIO()
    Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples).save(  # each format takes the options it knows
        buffer, fmt, quality=quality, subsampling=0, exact=True, icc_profile=profile, exif=exif)
    return buffer.getvalue()


def _encode_deep_png(samples: np.ndarray, profile: bytes | None, exif: bytes | None) -> bytes:
    """16-bit colour, which Pillow cannot write: OpenCV's file with the metadata set behind its header."""
    import cv2
    encoded = cv2.imencode('.png', samples[..., [2, 1, 0, 3][:samples.shape[2]]])[1].tobytes()
    buffer = io.BytesIO(encoded[:33])  # signature and IHDR
    buffer.seek(33)
    if profile is not None:
        PngImagePlugin.putchunk(buffer, b'iCCP', b'ICC profile\0\0' + zlib.compress(profile))
    if exif is not None:
        PngImagePlugin.putchunk(buffer, b'eXIf', exif.removeprefix(b'Exif\0\0'))
    return buffer.getvalue() + encoded[33:]


def _encode_tiff(samples: np.ndarray, profile: bytes | None, exif: bytes | None) -> bytes:
    """TIFF 6.0, Deflate: Pillow makes the directory, but has no 16-bit colour to fill it with."""
    height, width, channels = samples.shape
    differences = samples.astype(samples.dtype.newbyteorder('<'))
    differences[:, 1:] -= samples[:, :-1]
    strips = [zlib.compress(differences[row:row + 64].tobytes()) for row in range(0, height, 64)]
    sizes = tuple(map(len, strips))
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    parsed = Image.Exif()
    parsed.load(exif or b'')
    sub_ifds = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
    directory.update({tag: parsed.get_ifd(tag) if tag in sub_ifds else value for tag, value in parsed.items()})
    directory.update({
        256: width, 257: height, 258: (8 * samples.itemsize,) * channels, 277: channels, 278: 64, 284: 1,
        259: 8, 317: 2,  # Adobe Deflate, horizontal differencing
        262: 1 if channels < 3 else 2,  # black is zero, RGB
        273: tuple(np.cumsum([0, *sizes[:-1]]).tolist()), 279: sizes})  # Pillow adds its own length to the offsets
    if channels in (2, 4):
        directory[338] = 2  # straight alpha
    if profile is not None:
        directory[34675] = profile
    buffer = io.BytesIO()
    directory.save(buffer)
    return b''.join([buffer.getvalue(), *strips])
