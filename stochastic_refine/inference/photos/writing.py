"""Writing photos, in the format of the suffix, as much like the one that was read as that format can."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from ...data.image_files import FORMATS
from ...errors import InputError
from ...files import write_atomically
from .metadata import IPTC_HEAD, PNG_XMP, XMP_HEAD
from .photo import Photo

_LONGEST_SIDE = {'JPEG': 65500, 'WEBP': 16383}
#: Bytes that one segment of a JPEG holds.
_SEGMENT = 65533


def write_photo(path: str | os.PathLike, pixels: np.ndarray, like: Photo | None = None, quality: int = 95) -> None:
    """Write RGB pixels atomically in the format of the suffix, as much like ``like`` as that format can.

    PNG and TIFF are lossless and keep depth, greyness, alpha, ICC profile and EXIF (but 16-bit grey with alpha becomes RGB with
    alpha, which more programs read). JPEG, WebP and BMP are 8 bit. JPEG and BMP have no alpha: the photo is laid on white, as
    viewers show it. WebP is lossy here and has no grey. BMP is lossless and has neither profile nor EXIF. XMP, IPTC, texts and
    resolution are kept as far as :func:`not_kept` does not say otherwise.

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
    encoded = _encode(samples, fmt, profile, like, quality)
    write_atomically(path, lambda temporary: Path(temporary).write_bytes(encoded))


def not_kept(photo: Photo, path: str | os.PathLike) -> list[str]:
    """What of a photo a file of that suffix does not keep, in words; empty if nothing is lost."""
    fmt = FORMATS[Path(path).suffix.lower()]
    jpeg, bare = fmt == 'JPEG', fmt == 'BMP'
    texts = photo.texts.keys() - {'PNG': photo.texts.keys(), 'JPEG': {'Comment'} if _comment(photo) else set()}.get(fmt, set())
    lost = {
        f'{photo.frames - 1} of its {photo.frames} frames or pages (the first is restored)': photo.frames > 1,
        'its transparency': photo.alpha is not None and (jpeg or bare),
        '16 bits a channel': photo.bits == 16 and fmt not in ('PNG', 'TIFF'),
        'its colour profile': photo.icc_profile is not None and bare,
        'its EXIF data': photo.exif is not None and (bare or (jpeg and len(photo.exif) > _SEGMENT)),
        'its XMP data': photo.xmp is not None and (bare or (jpeg and len(XMP_HEAD + photo.xmp) > _SEGMENT)),
        'its IPTC data': photo.iptc is not None and (not jpeg or len(IPTC_HEAD + photo.iptc) > _SEGMENT) and fmt != 'TIFF',
        f'its texts ({", ".join(sorted(texts))})': bool(texts),
        'its resolution for printing': photo.dpi is not None and fmt == 'WEBP',
    }
    return [words for words, is_lost in lost.items() if is_lost]


def _encode(samples: np.ndarray, fmt: str, profile: bytes | None, like: Photo, quality: int) -> bytes:
    """A file's content from uint8 or uint16 samples [H, W, 1 to 4]."""
    if fmt == 'TIFF':
        return _encode_tiff(samples, profile, like)
    if samples.dtype == np.uint16 and samples.shape[2] > 1:
        return _encode_deep_png(samples, profile, like)
    exif, dpi = like.exif or b'', {} if like.dpi is None else {'dpi': like.dpi}
    metadata: dict[str, Any] = {'exif': exif, **dpi}
    if fmt == 'JPEG':
        segments = [(0xE1, XMP_HEAD, like.xmp), (0xED, IPTC_HEAD, like.iptc)]
        metadata = {'exif': exif if len(exif) <= _SEGMENT else b'', **dpi, 'comment': _comment(like),
                    'extra': b''.join(_segment(*segment) for segment in segments)}
    elif fmt == 'PNG':
        metadata['pnginfo'] = _png_texts(like)
    elif fmt == 'WEBP' and like.xmp is not None:
        metadata['xmp'] = like.xmp
    buffer = io.BytesIO()
    Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples).save(  # each format takes the options it knows
        buffer, fmt, quality=quality, subsampling=0, exact=True, icc_profile=profile, **metadata)
    return buffer.getvalue()


def _comment(photo: Photo) -> bytes:
    """A JPEG's comment; nothing where there is too much."""
    comment = photo.texts.get('Comment', '').encode('utf-8', 'replace')
    return comment if len(comment) <= _SEGMENT else b''


def _segment(marker: int, head: bytes, content: bytes | None) -> bytes:
    """A segment of a JPEG; nothing where there is no content or too much."""
    if content is None or len(head + content) > _SEGMENT:
        return b''
    return struct.pack('>BBH', 0xFF, marker, len(head + content) + 2) + head + content


def _png_texts(like: Photo) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    if like.xmp is not None:
        info.add_itxt(PNG_XMP, like.xmp.decode('utf-8', 'replace'))
    for key, text in like.texts.items():
        info.add_text(key, text)
    return info


def _encode_deep_png(samples: np.ndarray, profile: bytes | None, like: Photo) -> bytes:
    """16-bit colour, which Pillow cannot write: OpenCV's file with the metadata set behind its header."""
    import cv2
    encoded = cv2.imencode('.png', samples[..., [2, 1, 0, 3][:samples.shape[2]]])[1].tobytes()
    buffer = io.BytesIO(encoded[:33])  # signature and IHDR
    buffer.seek(33)
    if profile is not None:
        PngImagePlugin.putchunk(buffer, b'iCCP', b'ICC profile\0\0' + zlib.compress(profile))
    if like.dpi is not None:
        PngImagePlugin.putchunk(buffer, b'pHYs', struct.pack('>IIB', *(round(value / 0.0254) for value in like.dpi), 1))
    for chunk in _png_texts(like).chunks:
        PngImagePlugin.putchunk(buffer, *chunk[:2])
    if like.exif is not None:
        PngImagePlugin.putchunk(buffer, b'eXIf', like.exif.removeprefix(b'Exif\0\0'))
    return buffer.getvalue() + encoded[33:]


def _encode_tiff(samples: np.ndarray, profile: bytes | None, like: Photo) -> bytes:
    """TIFF 6.0, Deflate: Pillow makes the directory, but has no 16-bit colour to fill it with."""
    height, width, channels = samples.shape
    differences = samples.astype(samples.dtype.newbyteorder('<'))
    differences[:, 1:] -= samples[:, :-1]
    strips = [zlib.compress(differences[row:row + 64].tobytes()) for row in range(0, height, 64)]
    sizes = tuple(map(len, strips))
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    parsed = Image.Exif()
    parsed.load(like.exif or b'')
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
    if like.xmp is not None:
        directory[700] = like.xmp
    if like.iptc is not None:
        directory[34377] = like.iptc
    if like.dpi is not None:
        directory[282], directory[283], directory[296] = *map(TiffImagePlugin.IFDRational, like.dpi), 2  # per inch
    buffer = io.BytesIO()
    directory.save(buffer)
    return b''.join([buffer.getvalue(), *strips])
