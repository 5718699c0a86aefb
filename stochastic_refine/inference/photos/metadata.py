"""EXIF: which way a photo is turned, and what of its metadata still holds in the new file."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

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
