"""Malformed photos, given to ``stochastic-refine restore``."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from damage import damaged
from malformed_child import Case
from PIL import Image, PngImagePlugin
from tiny import tiny_weights

from stochastic_refine.cli import main


def cases(rng: random.Random, folder: Path) -> Iterator[Case]:
    weights = tiny_weights(folder)

    def case(name: str, content: bytes, suffix: str, may_pass: bool = False) -> Case:
        path = folder / f'photo{suffix}'
        path.write_bytes(content)
        out = folder / f'restored{".tif" if suffix == ".tif" else ".png"}'
        out.unlink(missing_ok=True)
        command = ['restore', str(path), '-o', str(out), '-w', str(weights), '--device', 'cpu']
        return Case(name, lambda: main(command), path.name, may_pass)

    good = good_photos()
    for name, (suffix, content) in good.items():
        assert case(name, content, suffix).run() == 0, name
    for name, (suffix, content) in good.items():
        for words, broken in damaged(content, rng):
            # Changed bytes can be harmless, but what is cut short is not, unless only padding is missing
            yield case(f'{name}: {words}', broken, suffix, may_pass='cut' not in words)
    for name, content in bombs().items():
        yield case(name, content, f'.{name.split()[0]}')
    for name, content in strangers(good).items():
        yield case(name, content, f'.{name.split()[0]}')
    for name, content in harmless_oddities(good).items():
        yield case(name, content, f'.{name.split()[0]}', may_pass=True)


def good_photos() -> dict[str, tuple[str, bytes]]:
    """Small photos of every format and kind: suffix and content."""
    y, x = np.mgrid[0:1:40j, 0:1:48j]
    noise = np.random.default_rng(0).normal(0, 0.05, (40, 48, 3))
    pixels = (np.stack([x, y, (x + y) / 2], axis=2) + noise).clip(0, 1)
    image = Image.fromarray((255 * pixels).astype(np.uint8))
    exif = Image.Exif()
    exif[271], exif[274] = 'Camera', 6

    def saved(suffix: str, fmt: str, image: Image.Image = image, **options) -> tuple[str, bytes]:
        buffer = io.BytesIO()
        image.save(buffer, fmt, **options)
        return suffix, buffer.getvalue()

    return {
        'JPEG': saved('.jpg', 'JPEG', quality=90, exif=exif, icc_profile=b'profile' * 40),
        'progressive JPEG': saved('.jpg', 'JPEG', quality=90, progressive=True),
        'CMYK JPEG': saved('.jpg', 'JPEG', image.convert('CMYK')),
        'PNG': saved('.png', 'PNG', exif=exif, icc_profile=b'profile' * 40),
        'PNG with alpha': saved('.png', 'PNG', image.convert('RGBA')),
        '16-bit PNG': ('.png', png(48, 40, pixels=(65535 * pixels).astype('>u2'))),
        'palette PNG': saved('.png', 'PNG', image.quantize(16), transparency=3),
        'WebP': saved('.webp', 'WEBP', quality=80, exif=exif),
        'lossless WebP': saved('.webp', 'WEBP', lossless=True),
        'animated WebP': saved('.webp', 'WEBP', save_all=True, append_images=[image.rotate(90)]),
        'TIFF': saved('.tif', 'TIFF', exif=exif),
        'LZW TIFF': saved('.tif', 'TIFF', compression='tiff_lzw'),
        'Deflate TIFF': saved('.tif', 'TIFF', compression='tiff_adobe_deflate'),
        'JPEG in TIFF': saved('.tif', 'TIFF', compression='jpeg'),
        '16-bit TIFF': saved('.tif', 'TIFF', Image.fromarray((65535 * pixels[..., 0]).astype(np.uint16))),
        'BMP': saved('.bmp', 'BMP'),
        'palette BMP': saved('.bmp', 'BMP', image.quantize(16)),
    }


def png(width: int, height: int, *chunks: tuple[bytes, bytes], pixels: np.ndarray | None = None, data: bytes = b'',
        depth: int = 8, after: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A PNG by its specification: RGB, with chunks before and ``after`` the pixels, which are compressed or ready ``data``."""
    if pixels is not None:
        depth = 8 * pixels.itemsize
        data = zlib.compress(b''.join(b'\0' + row.tobytes() for row in pixels))
    header = struct.pack('>IIBBBBB', width, height, depth, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
        for kind, content in ((b'IHDR', header), *chunks, (b'IDAT', data), *after, (b'IEND', b'')))


def zeros(count: int) -> bytes:
    """``count`` zero bytes as a zlib stream of some thousandth: one block of it again and again, and the checksum of zeros."""
    packer, length = zlib.compressobj(9, wbits=-15), 2**22
    block = packer.compress(bytes(length)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, wbits=-15)
    end = rest.compress(bytes(count % length)) + rest.flush()
    return b'\x78\xda' + block * (count // length) + end + struct.pack('>I', count % 65521 << 16 | 1)


def bombs() -> dict[str, bytes]:
    """Small files that declare, or grow to, gigabytes."""
    small = np.zeros((8, 8, 3), np.uint8)
    gigabyte = zeros(2**30)
    twice = zeros(3 * 2**28)
    jpeg = good_photos()['JPEG'][1]
    progressive = good_photos()['progressive JPEG'][1]
    frame = jpeg.index(b'\xff\xc0')
    webp = good_photos()['lossless WebP'][1]
    bmp = good_photos()['BMP'][1]
    tiff = good_photos()['TIFF'][1]
    black = io.BytesIO()
    Image.new('RGB', (9000, 9000)).save(black, 'WEBP', lossless=True, quality=0, method=0)
    scan = progressive.rindex(b'\xff\xda')
    return {
        'png that declares 100000x100000': png(100000, 100000, data=zlib.compress(bytes(1000))),
        'png that declares 2^31-1 a side': png(2**31 - 1, 2**31 - 1, data=zlib.compress(bytes(1000))),
        'png of zero width': png(0, 8, data=zlib.compress(bytes(8))),
        'png of a gigapixel of zeros, sized 32000x32000': png(32000, 32000, data=gigabyte),
        'png of zeros, sized 18000x18000': png(18000, 18000, data=gigabyte),
        'png of zeros, sized 16000x16000, 1 GiB inflated': png(16000, 16000, data=twice),
        'png of 16 bit, sized 20000x20000': png(20000, 20000, data=gigabyte, depth=16),
        'png with a gigabyte of colour profile': png(8, 8, (b'iCCP', b'x\0\0' + gigabyte), pixels=small),
        'png with a gigabyte of text': png(8, 8, (b'zTXt', b'x\0\0' + gigabyte), pixels=small),
        'png with a gigabyte of international text': png(8, 8, (b'iTXt', b'x\0\1\0\0\0' + gigabyte), pixels=small),
        'png with a gigabyte of text at its end': png(8, 8, pixels=small, after=((b'zTXt', b'x\0\0' + gigabyte), )),
        'png with a hundred texts of 1 MiB': png(8, 8, *[(b'zTXt', b'%d\0\0' % i + zeros(2**20 - 1)) for i in range(100)],
                                                pixels=small),
        'jpg that declares 65535x65535': jpeg[:frame + 5] + b'\xff' * 4 + jpeg[frame + 9:],
        'jpg that declares 0x0': jpeg[:frame + 5] + bytes(4) + jpeg[frame + 9:],
        'jpg of a thousand scans': _many_scans(progressive, scan, 1000),
        'webp that declares 16383x16383': webp[:21] + struct.pack('<I', (0x3FFF | 0x3FFF << 14)) + webp[25:],
        'webp of zeros, sized 9000x9000': black.getvalue(),
        'bmp that declares 100000x100000': bmp[:18] + struct.pack('<ii', 100000, 100000) + bmp[26:],
        'bmp that declares a negative width': bmp[:18] + struct.pack('<ii', -100000, 100000) + bmp[26:],
        'bmp that declares 2^31-1 a side': bmp[:18] + struct.pack('<ii', 2**31 - 1, 2**31 - 1) + bmp[26:],
        'tif that declares 100000x100000': _tiff_size(tiff, 100000, 100000),
        'tif that declares 2^32-1 a side': _tiff_size(tiff, 2**32 - 1, 2**32 - 1),
        'tif of zeros, sized 16000x16000': _deflate_tiff(16000, 16000, zeros(3 * 16000 * 16000)),
    }


def _many_scans(progressive: bytes, start: int, count: int) -> bytes:
    """A progressive JPEG with its last scan repeated, of the largest size that passes for a photo."""
    frame = progressive.index(b'\xff\xc2')
    scan = progressive[start:-2]
    size = struct.pack('>HH', 8000, 8000)
    return progressive[:frame + 5] + size + progressive[frame + 9:start] + scan * count + b'\xff\xd9'


def _tiff_size(tiff: bytes, width: int, height: int) -> bytes:
    for tag, value in ((256, width), (257, height)):
        for kind in (3, 4):
            at = tiff.find(struct.pack('<HHI', tag, kind, 1))
            if at >= 0:
                tiff = tiff[:at] + struct.pack('<HHII', tag, 4, 1, value) + tiff[at + 12:]
    return tiff


def _deflate_tiff(width: int, height: int, strip: bytes) -> bytes:
    entries = {256: width, 257: height, 258: 8, 259: 8, 262: 2, 273: 8 + 2 + 12 * 9 + 4, 277: 3, 278: height, 279: len(strip)}
    directory = b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in entries.items())
    return b'II*\0' + struct.pack('<IH', 8, len(entries)) + directory + bytes(4) + strip


def strangers(good: dict[str, tuple[str, bytes]]) -> dict[str, bytes]:
    """Files that are no photos, by whatever name."""
    gif = io.BytesIO()
    Image.new('P', (8, 8)).save(gif, 'GIF')
    return {
        'png that is empty': b'',
        'jpg that is a GIF': gif.getvalue(),
        'jpg that is a web page': b'<!DOCTYPE html><html><body>404 Not Found</body></html>',
        'png that is a ZIP archive': b'PK\3\4' + bytes(200),
        'png that is a pickle': b'\x80\x04cposix\nsystem\n(Vfalse\ntR.',
        'webp that is a RIFF of sound': b'RIFF\x24\0\0\0WAVEfmt ' + bytes(200),
        'tif that is a loop of directories': b'II*\0\x08\0\0\0' + struct.pack('<HI', 0, 8) + bytes(40),
        'tif with 65535 tags': b'II*\0\x08\0\0\0\xff\xff' + bytes(range(256)) * 40,
        'png that is a PNG header only': good['PNG'][1][:33],
        'jpg that is a JPEG header only': good['JPEG'][1][:20],
        'bmp that is a script': b'#!/bin/sh\nrm -rf /\n' * 20,
    }


def harmless_oddities(good: dict[str, tuple[str, bytes]]) -> dict[str, bytes]:
    """Photos with a wrong suffix or broken metadata."""
    pixels = np.full((8, 8, 3), 90, np.uint8)
    text = PngImagePlugin.PngInfo()
    text.add_text('key', 'x' * 10000, zip=True)
    jpeg = good['JPEG'][1]
    exif, frame = jpeg.index(b'Exif\0\0') + 6, jpeg.index(b'\xff\xc0')
    return {
        'png that is a JPEG': jpeg,
        'jpg that declares 65500x1': jpeg[:frame + 5] + struct.pack('>HH', 1, 65500) + jpeg[frame + 9:],
        'jpg that is a 16-bit PNG': good['16-bit PNG'][1],
        'bmp that is a WebP': good['WebP'][1],
        'jpg with EXIF garbage': jpeg[:exif] + b'garbage!' + jpeg[exif + 8:],
        'jpg with an EXIF loop': jpeg[:exif + 4] + b'\0\0\0\x08' + jpeg[exif + 8:],
        'png with EXIF garbage': png(8, 8, (b'eXIf', b'MM\0*\xff\xff\xff\xffgarbage'), pixels=pixels),
        'png with a broken colour profile': png(8, 8, (b'iCCP', b'x\0\0garbage'), pixels=pixels),
        'png with an unknown chunk': png(8, 8, (b'abCd', b'garbage'), pixels=pixels),
    }
