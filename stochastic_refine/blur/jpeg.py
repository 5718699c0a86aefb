"""What storing a picture as JPEG does to it (ITU-T T.81), as tensor arithmetic that runs on any device."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

# T.81, tables K.1 (luminance) and K.2 (chrominance).
_LUMINANCE = (16, 11, 10, 16, 24, 40, 51, 61,
              12, 12, 14, 19, 26, 58, 60, 55,
              14, 13, 16, 24, 40, 57, 69, 56,
              14, 17, 22, 29, 51, 87, 80, 62,
              18, 22, 37, 56, 68, 109, 103, 77,
              24, 35, 55, 64, 81, 104, 113, 92,
              49, 64, 78, 87, 103, 121, 120, 101,
              72, 92, 95, 98, 112, 100, 103, 99)
_CHROMINANCE = (17, 18, 24, 47, 99, 99, 99, 99,
                18, 21, 26, 66, 99, 99, 99, 99,
                24, 26, 56, 99, 99, 99, 99, 99,
                47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32)
# ITU-R BT.601 as in JFIF: rows Y, Cb, Cr of R, G, B.
_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def jpeg_artefacts(image: Tensor, quality: int) -> Tensor:
    """The image after coding with chrominance at half size (4:2:0), and decoding.

    Args:
        image: (B, 3, H, W), RGB, [0, 1].
        quality: 1 to 100, as libjpeg scales the tables of T.81, annex K.

    Returns:
        Like ``image``, whole 8-bit values.
    """
    height, width = image.shape[-2:]
    image = F.pad(image * 255, (0, -width % 16, 0, -height % 16), mode='replicate')
    rgb_to_ycbcr = image.new_tensor(_YCBCR)
    y, chroma = torch.einsum('ij,bjhw->bihw', rgb_to_ycbcr, image).split([1, 2], 1)
    # Encoders hold these planes in 8 bits; chrominance is that less 128.
    y = _coded(y.round() - 128, _table(_LUMINANCE, quality)).round() + 128
    chroma = _coded(F.avg_pool2d(chroma.round(), 2).round(), _table(_CHROMINANCE, quality)).round()
    # bilinear with half-pixel centres is libjpeg's "fancy" upsampling
    chroma = F.interpolate(chroma, scale_factor=2, mode='bilinear', align_corners=False)
    decoded = torch.einsum('ij,bjhw->bihw', torch.linalg.inv(rgb_to_ycbcr), torch.cat([y, chroma], 1))
    return decoded[..., :height, :width].round().clamp(0, 255) / 255


def _table(base: tuple[int, ...], quality: int) -> list[float]:
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    return [float(min(max((entry * scale + 50) // 100, 1), 255)) for entry in base]


def _coded(plane: Tensor, table: list[float]) -> Tensor:
    """Each 8x8 block's cosine transform, rounded to multiples of the table's entries, and back; (B, C, H, W)."""
    batch, channels, height, width = plane.shape
    basis = _cosines().to(plane)
    steps = plane.new_tensor(table).view(8, 8)
    blocks = plane.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    rounded = (basis @ blocks @ basis.T / steps).round() * steps
    return (basis.T @ rounded @ basis).transpose(3, 4).reshape(plane.shape)


@cache
def _cosines() -> Tensor:
    """The orthonormal DCT-II of 8 numbers, (8, 8)."""
    k, n = torch.arange(8.)[:, None], torch.arange(8.)[None]
    basis = torch.cos(math.pi / 8 * (n + 0.5) * k) / 2
    return torch.cat([basis[:1] / math.sqrt(2), basis[1:]])
