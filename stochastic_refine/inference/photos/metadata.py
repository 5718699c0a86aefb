"""Metadata: which way a photo is turned, and what of EXIF, XMP, IPTC, texts and resolution still holds in the new file."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from PIL import ExifTags, Image

#: How the segments of a JPEG begin that hold an XMP packet, and Photoshop's resources with the IPTC block.
XMP_HEAD, IPTC_HEAD = b'http://ns.adobe.com/xap/1.0/\0', b'Photoshop 3.0\0'
#: Keyword of a PNG's text that is an XMP packet.
PNG_XMP = 'XML:com.adobe.xmp'
#: Keyword of the records that this package leaves in its own PNG files, which are true of those alone.
_OWN_TEXT = 'stochastic_refine'
_XMP_ORIENTATION = re.compile(rb'(tiff:Orientation\s*(?:=\s*["\']|>)\s*)[2-8]')

#: TIFF tags that tell how samples lie in the file, 274 (orientation) too, or are kept elsewhere: they do not follow as EXIF.
_STORAGE_TAGS = (*range(254, 263), 266, 273, 274, 277, 278, 279, 284, 292, 293, 301, *range(317, 348), 513, 514,
                 *range(529, 533), 700, 33723, 34377, 34675, 37724)
#: EXIF tags without a meaning in the new file: width and height before it was turned, and a pointer into the old block.
_STALE_TAGS = (0xA002, 0xA003, ExifTags.IFD.Interop)
#: What makes an array [H, W, ...] of each EXIF orientation upright.
_UPRIGHT = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
            6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a)}


def upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """An array [H, W, ...] as its EXIF orientation says; unchanged if there is no such orientation."""
    return _UPRIGHT.get(orientation, np.asarray)(samples)


def read_exif(image: Image.Image) -> tuple[int, bytes | None]:
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


def read_other(image: Image.Image, orientation: int) -> dict[str, Any]:
    """What a :class:`Photo` holds besides EXIF and profile, of a loaded image whose pixels are turned as ``orientation`` says;
    what is broken is left out."""
    found: dict[str, Any] = {}
    for read in (_xmp, _iptc, _texts, _dpi):
        try:
            value = read(image)
        except Exception:  # as with EXIF
            continue
        if value:
            found[read.__name__[1:]] = value
    if orientation > 4 and 'dpi' in found:
        found['dpi'] = found['dpi'][::-1]
    return found


def _segment(image: Image.Image, kind: str, head: bytes) -> bytes | None:
    """The first segment of a JPEG of that kind and beginning, without it."""
    return next((content[len(head):] for name, content in getattr(image, 'applist', ())
                 if name == kind and content.startswith(head)), None)


def _xmp(image: Image.Image) -> bytes | None:
    packet = (_segment(image, 'APP1', XMP_HEAD) or image.info.get('xmp') or image.info.get(PNG_XMP)
              or getattr(image, 'tag_v2', {}).get(700))
    packet = packet.encode() if isinstance(packet, str) else packet
    return None if packet is None else _XMP_ORIENTATION.sub(rb'\g<1>1', bytes(packet))


def _iptc(image: Image.Image) -> bytes | None:
    packet = _segment(image, 'APP13', IPTC_HEAD) or getattr(image, 'tag_v2', {}).get(34377)
    return bytes(packet) if packet else None


def _texts(image: Image.Image) -> dict[str, str]:
    texts = {key: str(value) for key, value in getattr(image, 'text', {}).items() if key not in (PNG_XMP, _OWN_TEXT)}
    if comment := image.info.get('comment'):
        texts['Comment'] = _decoded(comment)
    return texts


def _decoded(comment: bytes | str) -> str:
    """A JPEG's comment, whose encoding is not told."""
    if isinstance(comment, str):
        return comment
    try:
        return comment.decode()
    except UnicodeDecodeError:
        return comment.decode('latin-1')


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    across, down = map(float, image.info['dpi'])
    return (across, down) if 1 < across < 65536 and 1 < down < 65536 else None  # Pillow's default is 1
