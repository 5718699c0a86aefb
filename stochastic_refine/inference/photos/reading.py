"""Reading photos: files, PIL images, arrays and tensors become RGB in [0, 1].

Formats are told by content: JPEG, PNG, WebP, TIFF and BMP. Pixels stay in the colour space of their ICC profile, which
travels with them; only CMYK is converted (to 8-bit sRGB, through its profile if it has one). An animation, or a file of several
pages or pictures, gives its first one.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ...data.image_files import MAX_MEGAPIXELS, check_size, decoding, ends_in_zeros, open_bounded
from ...errors import InputError
from .metadata import read_exif, read_other, upright
from .photo import Photo

_GREY_MODES = ('1', 'L', 'LA', 'La', 'I', 'I;16', 'I;16L', 'I;16B', 'I;16N')
_COLOUR_MODES = ('P', 'PA', 'RGB', 'RGBX', 'RGBA', 'RGBa', 'YCbCr', 'CMYK')


def read_photo(source: Photo | str | os.PathLike | Image.Image | np.ndarray | Tensor,
               max_megapixels: float = MAX_MEGAPIXELS) -> Photo:
    """Read a photo from wherever it is; the EXIF orientation of files and PIL images is applied.

    Args:
        source: A path, a PIL image (its colour is 8 bit), an array [H, W] or [H, W, C], a tensor [H, W], [C, H, W] or
            [1, C, H, W], or a ``Photo``, which is returned as it is. Arrays and tensors are uint8, uint16, or floats in
            [0, 1], which count as 8 bit when written; C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).
        max_megapixels: Files and PIL images that declare more pixels are refused before anything is decoded; so are those that
            memory cannot hold, and small files that declare more than 67 megapixels, as traps do.

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
        with decoding(_damaged(name)):
            check_size(source, name, max_megapixels)
            return _from_pillow(source, name)
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
    with file, decoding(_damaged(str(path))):
        try:
            image = open_bounded(file, str(path), max_megapixels)
        except UnidentifiedImageError as error:
            raise InputError(f'{path} is no JPEG, PNG, WebP, TIFF or BMP photo of 8 or 16 bits a channel, or it is damaged or '
                             'cut short; convert it to one of these, or copy it again.') from error
        return _from_pillow(image, str(path), path)


def _damaged(name: str) -> str:
    return f'{name} is damaged or cut short ({{}}); copy or download it again.'


def _from_pillow(image: Image.Image, name: str, path: Path | None = None) -> Photo:
    """``path`` is the file that ``image`` was opened from; without it 16-bit colour is what Pillow makes of it, 8 bit."""
    if path is not None and image.format in ('JPEG', 'MPO', 'WEBP') and ends_in_zeros(path.read_bytes()):
        raise InputError(f'{name} ends in zeros, as an unfinished copy or download does; copy or download it again.')
    tags = getattr(image, 'tag_v2', {})
    if tags.get(254, 0) & 1 or 50706 in tags:
        raise InputError(f'{name} is a camera raw file, or starts with a mere preview; develop it to a 16-bit TIFF first.')
    depth, colour_type = max(tags.get(258, (8,))), None
    if path is not None and image.format == 'PNG':
        with path.open('rb') as file:
            depth, colour_type = file.read(26)[24:]  # of the IHDR chunk, always the first
        with Image.open(path, formats=('PNG', )) as whole:
            whole.verify()  # what follows the pixels may be missing although all of them can be decoded
    if (image.mode not in _GREY_MODES + _COLOUR_MODES or depth not in (1, 2, 4, 8, 16)
            or (image.mode == 'I' and image.format != 'PNG')):
        raise InputError(f'{name} has samples of a kind that cannot be read (mode {image.mode}, {depth} bit); '
                         'save it as RGB or grey with 8 or 16 bits a channel.')
    frames = _frames(image)
    image.load()
    grey = image.mode in _GREY_MODES or colour_type == 4  # Pillow opens 16-bit grey with alpha as RGBA
    profile = image.info.get('icc_profile')
    if image.mode.startswith('I'):
        samples = np.asarray(image).astype(np.uint16)
        if 'transparency' in image.info:
            samples = np.dstack([samples, np.where(samples == image.info['transparency'], 0, 65535).astype(np.uint16)])
        elif tags.get(262) == 0:
            samples = 65535 - samples  # white is zero; Pillow inverts this itself in 8 bit
    elif depth == 16 and path is not None and image.mode in ('RGB', 'RGBA'):
        samples = _deep_colour(image, path)
    elif image.mode == 'CMYK':
        samples, profile = np.asarray(_cmyk_to_srgb(image, profile)), None
    else:
        samples = np.asarray(image.convert(('L' if grey else 'RGB') + ('A' if image.has_transparency_data else '')))
    # Known only after loading: a PNG may end with it, and Pillow turns a TIFF upright itself and takes the tag away
    orientation, exif = read_exif(image)
    samples = upright(samples, orientation)
    values = samples / np.float32(np.iinfo(samples.dtype).max)
    return Photo(*_colour_and_alpha(values), 8 * samples.itemsize, grey, profile, exif, frames=frames, name=name,
                 **read_other(image, orientation))


def _frames(image: Image.Image) -> int:
    """Pictures in a file; 1 where those after the first are damaged."""
    try:
        return getattr(image, 'n_frames', 1)
    except Exception:  # as with decoders
        return 1


def _deep_colour(image: Image.Image, path: Path) -> np.ndarray:
    """16-bit colour as uint16 [H, W, 3 or 4], through OpenCV, checked against the high bytes that Pillow gives: OpenCV misreads
    some layouts without a word (separate planes), leaves premultiplied alpha as it is, and turns TIFF files but not PNG."""
    import cv2
    decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ValueError('the 16-bit samples cannot be decoded')
    channels = 3 + image.has_transparency_data
    high = np.asarray(image.convert('RGB')).astype(np.int16)
    if decoded.dtype == np.uint16 and decoded.shape[:2] == high.shape[:2] and decoded.shape[2:] in ((channels,), (4,)):
        samples = decoded[..., [2, 1, 0, 3][:channels]]
        if np.abs((samples[..., :3] >> 8).astype(np.int16) - high).max() <= 1:
            return samples
    raise InputError(f'{path} stores 16-bit colour in a rare way (separate planes, premultiplied alpha); save it interleaved.')


def _cmyk_to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    from PIL import ImageCms
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile or b''))
        converted = ImageCms.profileToProfile(image, own, ImageCms.createProfile('sRGB'), outputMode='RGB')
        return converted or image.convert('RGB')
    except (ImageCms.PyCMSError, OSError):  # none, or a broken one, which must not keep a photo from being read
        return image.convert('RGB')


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
