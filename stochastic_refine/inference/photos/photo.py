"""What is kept of a photo from reading to writing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


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
        xmp: XMP packet, upright like the pixels; or None.
        iptc: Photoshop's resource block, in which IPTC captions and keywords are; or None.
        texts: Texts by keyword as PNG stores them; a JPEG's comment is ``Comment``.
        dpi: Printed pixels per inch, across and down; or None.
        frames: Pictures in the file, of which this is the first.
        name: The file, or words for what was given, for messages.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    bits: int = 8
    grey: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    texts: dict[str, str] = field(default_factory=dict)
    dpi: tuple[float, float] | None = None
    frames: int = 1
    name: str = 'the image'
