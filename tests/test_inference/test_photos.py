"""Photos come in upright and whole and go out as they came, or are refused in one sentence."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms

from stochastic_refine.errors import InputError
from stochastic_refine.inference.photos import Photo, find_photos, not_kept, read_photo, write_photo

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
GREY_PROFILE = SRGB[:16] + b'GRAY' + SRGB[20:]


def noise(height: int, width: int, channels: int, bits: int) -> np.ndarray:
    rng = np.random.default_rng(height * width + channels)
    return rng.integers(0, 2**bits, (height, width, channels)).astype(np.uint8 if bits == 8 else np.uint16)


def gradient(height: int = 24, width: int = 32) -> np.ndarray:
    """Smooth colour, so that lossy formats stay close to it."""
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    return np.stack([x, y, (x + y) / 2], axis=2).astype(np.float32)


def png(samples: np.ndarray, colour_type: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG by its specification, independent of the libraries under test."""
    height, width = samples.shape[:2]
    rows = b''.join(b'\0' + row.astype(samples.dtype.newbyteorder('>')).tobytes() for row in samples)
    header = struct.pack('>IIBBBBB', width, height, 8 * samples.itemsize, colour_type, 0, 0, 0)
    chunks = [(b'IHDR', header), *extra, (b'IDAT', zlib.compress(rows)), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(struct.pack('>I', len(content)) + kind + content
                                          + struct.pack('>I', zlib.crc32(kind + content)) for kind, content in chunks)


def tiff(samples: np.ndarray, order: str = '>', **tags: int | tuple[int, ...]) -> bytes:
    """An uncompressed TIFF by its specification, big-endian by default; ``tags`` are named t262 and so on."""
    height, width, channels = samples.shape
    entries = {256: width, 257: height, 258: (8 * samples.itemsize,) * channels, 259: 1, 262: 2 if channels > 2 else 1, 273: 0,
               277: channels, 278: height, 279: samples.nbytes, 284: 1} | {int(tag[1:]): value for tag, value in tags.items()}
    extra_at, extra, directory = 8 + 2 + 12 * len(entries) + 4, b'', b''
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, tuple) else (value,)
        kind, code = (4, 'I') if tag in (273, 279) else (3, 'H')
        content = struct.pack(f'{order}{len(values)}{code}', *values)
        if len(content) > 4:
            content, extra = struct.pack(order + 'I', extra_at + len(extra)), extra + content
        directory += struct.pack(order + 'HHI', tag, kind, len(values)) + content.ljust(4, b'\0')
    pixels_at = struct.pack(order + 'I', extra_at + len(extra))
    directory = directory.replace(struct.pack(order + 'HHII', 273, 4, 1, 0), struct.pack(order + 'HHI', 273, 4, 1) + pixels_at)
    header = (b'MM' if order == '>' else b'II') + struct.pack(order + 'HIH', 42, 8, len(entries))
    return (header + directory + b'\0\0\0\0' + extra
            + samples.astype(samples.dtype.newbyteorder(order)).tobytes())


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def camera_exif(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = 'Camera', orientation
    exif.get_ifd(ExifTags.IFD.Exif).update({0x829A: 0.008, 0xA002: 32, 0x9003: '2024:01:02 03:04:05'})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: 'N', 2: (48.0, 8.0, 30.0)})
    return exif


@pytest.mark.parametrize('size', [(1, 1), (70, 31)])
@pytest.mark.parametrize(('suffix', 'bits', 'channels'), [
    *((suffix, bits, channels) for suffix in ('.png', '.tif') for bits in (8, 16) for channels in (1, 2, 3, 4)),
    ('.bmp', 8, 1), ('.bmp', 8, 3)])
def test_lossless_round_trip(tmp_path, suffix, bits, channels, size):
    samples = noise(*size, channels, bits)
    given = read_photo(samples)
    assert (given.bits, given.grey, given.alpha is not None) == (bits, channels < 3, channels in (2, 4))
    write_photo(tmp_path / f'a{suffix}', given.pixels, given)
    read = read_photo(tmp_path / f'a{suffix}')
    write_photo(tmp_path / f'b{suffix}', read.pixels, read)
    again = read_photo(tmp_path / f'b{suffix}')
    colour = samples[..., :3] if channels > 2 else samples[..., [0, 0, 0]]
    for photo in (read, again):
        assert photo.pixels.dtype == np.float32 and photo.bits == bits
        np.testing.assert_array_equal(np.rint(photo.pixels * np.float32(2**bits - 1)), colour)
        assert (photo.alpha is not None) == (channels in (2, 4))
        if photo.alpha is not None:
            np.testing.assert_array_equal(np.rint(photo.alpha * np.float32(2**bits - 1)), samples[..., -1])
        assert photo.grey == (channels < 3 and (bits, channels) != (16, 2))


def test_files_of_others(tmp_path):
    """16-bit files made by the specifications, not by the writer under test."""
    rgb = noise(5, 7, 3, 16)
    for name, content in (('rgb.png', png(rgb, 2)), ('big.tif', tiff(rgb)), ('little.tif', tiff(rgb, '<'))):
        photo = read_photo(save(tmp_path / name, content))
        assert photo.bits == 16 and not photo.grey
        np.testing.assert_array_equal(np.rint(photo.pixels * np.float32(65535)), rgb)
    grey_alpha = read_photo(save(tmp_path / 'la.png', png(rgb[..., :2], 4)))
    assert grey_alpha.grey and grey_alpha.bits == 16
    np.testing.assert_array_equal(np.rint(grey_alpha.alpha * np.float32(65535)), rgb[..., 1])
    white_is_zero = read_photo(save(tmp_path / 'white.tif', tiff(rgb[..., :1], '<', t262=0)))
    np.testing.assert_array_equal(np.rint(white_is_zero.pixels[..., 0] * np.float32(65535)), 65535 - rgb[..., 0])
    rgba = noise(5, 7, 4, 16)
    straight = read_photo(save(tmp_path / 'rgba.tif', tiff(rgba, t338=2)))
    np.testing.assert_array_equal(np.rint(straight.alpha * np.float32(65535)), rgba[..., 3])
    assert read_photo(save(tmp_path / 'rgbx.tif', tiff(rgba, t338=0))).alpha is None
    for key, colour_type, samples in ((rgb[2, 3], 2, rgb), (rgb[2, 3, :1], 0, rgb[..., :1])):
        photo = read_photo(save(tmp_path / 'key.png', png(samples, colour_type, (b'tRNS', key.astype('>u2').tobytes()))))
        assert photo.alpha[2, 3] == 0 and photo.alpha.sum() == photo.alpha.size - 1
        np.testing.assert_array_equal(np.rint(photo.pixels[..., 0] * np.float32(65535)), samples[..., 0])


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation(tmp_path, orientation):
    """Each orientation says which edges of the scene the first stored row and column are (EXIF 2.3, tag 274)."""
    bright, dark = 60000, 9000
    scene = np.full((16, 32, 3), dark, np.uint16)  # brighter to the right, and brightest at the top right
    scene[:, 16:], scene[:8, 16:] = 20000, bright
    stored = {1: scene, 2: scene[:, ::-1], 3: scene[::-1, ::-1], 4: scene[::-1], 5: np.transpose(scene, (1, 0, 2)),
              6: np.rot90(scene), 7: np.transpose(scene[::-1, ::-1], (1, 0, 2)), 8: np.rot90(scene, -1)}[orientation]
    exif, low = camera_exif(orientation), Image.fromarray((stored >> 8).astype(np.uint8))
    for suffix in ('jpg', 'png', 'webp', 'tif'):
        low.save(tmp_path / f'low.{suffix}', exif=exif)
    Image.fromarray(stored[..., 0]).save(tmp_path / 'grey.tif', exif=exif)
    save(tmp_path / 'deep.tif', tiff(stored, t274=orientation))
    save(tmp_path / 'deep.png', png(stored, 2, (b'eXIf', exif.tobytes()[6:])))
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 7
    for source in [*paths, Image.open(tmp_path / 'low.jpg')]:
        photo = read_photo(source)
        assert photo.pixels.shape == (16, 32, 3), source
        tolerance = 0.05 if 'low' in photo.name else 1e-6
        np.testing.assert_allclose(photo.pixels, scene / 65535, atol=tolerance, err_msg=str(source))
        write_photo(tmp_path / 'out.png', photo.pixels, photo)
        assert Image.open(tmp_path / 'out.png').getexif().get(274, 1) == 1
        assert read_photo(tmp_path / 'out.png').pixels.shape == (16, 32, 3)


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif'])
def test_metadata_travels(tmp_path, suffix, bits):
    Image.fromarray(noise(24, 32, 3, 8)).save(tmp_path / 'in.jpg', exif=camera_exif(6), icc_profile=SRGB)
    photo = read_photo(tmp_path / 'in.jpg')
    photo.bits = bits
    write_photo(tmp_path / f'first{suffix}', photo.pixels, photo)
    first = read_photo(tmp_path / f'first{suffix}')
    write_photo(tmp_path / f'second{suffix}', first.pixels, first)
    with Image.open(tmp_path / f'second{suffix}') as image:
        assert image.info['icc_profile'] == SRGB
        exif = image.getexif()
        assert exif[ExifTags.Base.Make] == 'Camera' and exif.get(274, 1) == 1
        assert 0xA002 not in exif.get_ifd(ExifTags.IFD.Exif)  # the width before it was turned
        assert exif.get_ifd(ExifTags.IFD.Exif)[0x9003] == '2024:01:02 03:04:05'
        assert float(exif.get_ifd(ExifTags.IFD.Exif)[0x829A]) == pytest.approx(0.008)
        assert [float(part) for part in exif.get_ifd(ExifTags.IFD.GPSInfo)[2]] == [48, 8, 30]
    assert read_photo(tmp_path / f'second{suffix}').bits == (bits if suffix in ('.png', '.tif') else 8)


XMP = ('<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
       'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmp:Rating="4" tiff:Orientation="6"'
       '/></rdf:RDF></x:xmpmeta>')
IPTC = b'8BIM\x04\x04\0\0\0\0\0\x0e\x1c\x02\x78\0\x09A caption'


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif', '.bmp'])
def test_captions_and_resolution_travel(tmp_path, suffix, bits):
    """XMP, IPTC, comment and density of a JPEG that is turned, from and to each format; what is lost is told."""
    segments = b''.join(struct.pack('>BBH', 255, marker, len(content) + 2) + content for marker, content in (
        (0xE1, b'http://ns.adobe.com/xap/1.0/\0' + XMP.encode()), (0xED, b'Photoshop 3.0\0' + IPTC)))
    Image.fromarray(noise(24, 32, 3, 8)).save(tmp_path / 'in.jpg', dpi=(300, 200), comment='Ciao', extra=segments)
    photo = read_photo(tmp_path / 'in.jpg')
    assert (photo.dpi, photo.iptc, photo.texts, photo.xmp) == (
        (200, 300), IPTC, {'Comment': 'Ciao'}, XMP.replace('tiff:Orientation="6"', 'tiff:Orientation="1"').encode())
    assert photo.pixels.shape == (32, 24, 3)  # Pillow, as others, turns photos by XMP too
    photo.bits = bits
    write_photo(tmp_path / f'first{suffix}', photo.pixels, photo)
    first = read_photo(tmp_path / f'first{suffix}')
    write_photo(tmp_path / f'second{suffix}', first.pixels, first)
    second = read_photo(tmp_path / f'second{suffix}')
    lost = ' '.join(not_kept(photo, tmp_path / f'a{suffix}'))
    for name, words in {'dpi': 'resolution', 'xmp': 'XMP', 'iptc': 'IPTC', 'texts': 'texts (Comment)'}.items():
        if words in lost:
            assert suffix != '.jpg' and not getattr(second, name)
        elif name == 'dpi':
            assert second.dpi == pytest.approx(photo.dpi, abs=0.1)
        else:
            assert getattr(second, name) == getattr(photo, name)
    assert second.pixels.shape == photo.pixels.shape
    assert ('XMP' in lost) == (suffix == '.bmp') and ('resolution' in lost) == (suffix == '.webp')


def test_a_packet_too_long_for_a_jpeg_is_told(tmp_path):
    photo = Photo(gradient(), xmp=XMP.encode() + b' ' * 70_000, exif=b'Exif\0\0' + bytes(70_000),
                  texts={'Comment': 'x' * 70_000})
    write_photo(tmp_path / 'a.jpg', photo.pixels, photo)
    read = read_photo(tmp_path / 'a.jpg')
    assert read.xmp is None and read.texts == {}
    assert not_kept(photo, tmp_path / 'a.jpg') == ['its EXIF data', 'its XMP data', 'its texts (Comment)']


def test_profile_only_where_it_fits(tmp_path):
    grey = Photo(gradient()[..., [0, 0, 0]], grey=True, icc_profile=GREY_PROFILE)
    write_photo(tmp_path / 'grey.png', grey.pixels, grey)
    assert read_photo(tmp_path / 'grey.png').icc_profile == GREY_PROFILE
    write_photo(tmp_path / 'colour.webp', grey.pixels, grey)
    assert read_photo(tmp_path / 'colour.webp').icc_profile is None


def test_storage_tags_of_a_tiff_do_not_travel(tmp_path):
    Image.fromarray(noise(24, 32, 3, 8)).save(tmp_path / 'in.tif', compression='tiff_lzw', exif=camera_exif(), icc_profile=SRGB)
    photo = read_photo(tmp_path / 'in.tif')
    write_photo(tmp_path / 'out.jpg', photo.pixels, photo)
    with Image.open(tmp_path / 'out.jpg') as image:
        assert set(image.getexif()) <= {ExifTags.Base.Make, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}
        assert image.info['icc_profile'] == SRGB


@pytest.mark.parametrize(('suffix', 'tolerance'), [('.jpg', 0.03), ('.jpeg', 0.03), ('.webp', 0.05)])
def test_lossy_formats(tmp_path, suffix, tolerance):
    photo = Photo(gradient(), alpha=np.linspace(0, 1, 32, dtype=np.float32)[None].repeat(24, 0), bits=16)
    write_photo(tmp_path / f'a{suffix}', photo.pixels, photo)
    read = read_photo(tmp_path / f'a{suffix}')
    assert read.bits == 8
    if suffix == '.webp':
        expected = photo.pixels
        np.testing.assert_allclose(read.alpha, photo.alpha, atol=1 / 255)
    else:  # laid on white
        expected = photo.pixels * photo.alpha[..., None] + 1 - photo.alpha[..., None]
        assert read.alpha is None
    np.testing.assert_allclose(read.pixels, expected, atol=tolerance)
    grey = Photo(photo.pixels, grey=True)
    write_photo(tmp_path / f'g{suffix}', grey.pixels, grey)
    assert read_photo(tmp_path / f'g{suffix}').grey == (suffix != '.webp')


def test_writing_rounds_and_clips(tmp_path):
    levels = np.array([-0.2, 1.4 / 255, 1.6 / 255, 254.6 / 255, 1.3, 0.5], np.float32)
    write_photo(tmp_path / 'a.png', np.repeat(levels.reshape(2, 3, 1), 3, axis=2))
    assert np.asarray(Image.open(tmp_path / 'a.png'))[..., 0].ravel().tolist() == [0, 1, 2, 255, 255, 128]
    write_photo(tmp_path / 'a.jpg', gradient(), quality=95)
    write_photo(tmp_path / 'b.jpg', gradient(), quality=30)
    assert (tmp_path / 'b.jpg').stat().st_size < (tmp_path / 'a.jpg').stat().st_size


def test_other_modes(tmp_path):
    palette = Image.fromarray((gradient() * 255).astype(np.uint8)).quantize(16)
    palette.save(tmp_path / 'palette.png')
    palette.save(tmp_path / 'transparent.png', transparency=int(palette.getpixel((0, 0))))
    np.testing.assert_allclose(read_photo(tmp_path / 'palette.png').pixels, gradient(), atol=0.25)
    transparent = read_photo(tmp_path / 'transparent.png')
    assert transparent.alpha[0, 0] == 0 and transparent.alpha[-1, -1] == 1
    Image.new('1', (3, 2), 1).save(tmp_path / 'bilevel.png')
    bilevel = read_photo(tmp_path / 'bilevel.png')
    assert bilevel.grey and (bilevel.pixels == 1).all()
    Image.new('CMYK', (8, 8), (0, 255, 255, 0)).save(tmp_path / 'cmyk.jpg', icc_profile=b'broken')
    cmyk = read_photo(tmp_path / 'cmyk.jpg')
    assert cmyk.icc_profile is None and not cmyk.grey
    np.testing.assert_allclose(cmyk.pixels[4, 4], [1, 0, 0], atol=0.03)
    frames = [Image.new('RGB', (8, 8), colour) for colour in ('red', 'blue')]
    for name in ('animated.webp', 'pages.tif'):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        np.testing.assert_allclose(read_photo(tmp_path / name).pixels[4, 4], [1, 0, 0], atol=0.03)


@pytest.mark.parametrize('as_type', [np.float16, np.float32, np.float64, np.uint8, np.uint16])
def test_arrays_and_tensors(as_type):
    scale = np.iinfo(as_type).max if np.dtype(as_type).kind == 'u' else 1
    array = (gradient() * scale).astype(as_type)
    tensor = torch.from_numpy(array.transpose(2, 0, 1).copy())
    for source in (array, tensor, tensor[None]):
        photo = read_photo(source)
        assert photo.pixels.dtype == np.float32 and photo.bits == (16 if as_type is np.uint16 else 8) and not photo.grey
        np.testing.assert_allclose(photo.pixels, gradient(), atol=1 / 250)
    for source in (array[..., 0], array[..., :1], tensor[0], tensor[:1]):
        photo = read_photo(source)
        assert photo.grey and photo.pixels.shape == (24, 32, 3)
    np.testing.assert_allclose(read_photo(tensor.to(torch.bfloat16) / scale).pixels, gradient(), atol=1 / 100)
    assert not np.shares_memory(read_photo(array).pixels, array)
    assert read_photo(photo) is photo
    assert read_photo(np.full((2, 2, 3), 1 + 1e-6)).pixels.max() <= 1


@pytest.mark.parametrize(('source', 'words'), [
    (np.full((4, 4, 3), 200.0), 'divide by 255'),
    (np.full((4, 4, 3), -0.5, np.float32), r'map or clip it to \[0, 1\]'),
    (np.full((4, 4, 3), np.nan), 'nan'),
    (np.zeros((4, 4, 3), np.int64), 'int64'),
    (np.zeros((3, 16, 16), np.uint8), 'transpose'),
    (np.zeros((0, 4, 3), np.uint8), 'Shape'),
    (torch.zeros(2, 3, 4, 4), 'one by one'),
    (torch.zeros(16, 16, 3), r'\[C, H, W\]'),
    (Image.new('F', (4, 4)), 'mode F'),
    (42, 'not int')])
def test_what_is_no_photo(source, words):
    with pytest.raises(InputError, match=words):
        read_photo(source)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif', '.bmp', '16.png', '16.tif', '16g.png'])
@pytest.mark.parametrize('kept', [0.2, 0.5, 0.95])
def test_cut_files_are_refused(tmp_path, suffix, kept):
    path = tmp_path / f'whole{suffix}'
    samples = noise(64, 64, 1 if 'g' in suffix[:3] else 3, 16 if '16' in suffix else 8)
    photo = read_photo(samples)
    write_photo(path, photo.pixels, photo)
    content = path.read_bytes()
    cut = save(tmp_path / f'cut{suffix}', content[:int(kept * len(content))])
    with pytest.raises(InputError, match=f'cut{suffix} is .*damaged'):
        read_photo(cut)


def test_png_without_its_end_is_refused_though_every_pixel_is_there(tmp_path):
    path = tmp_path / 'photo.png'
    Image.fromarray(noise(64, 64, 3, 8)).save(path)
    with pytest.raises(InputError, match='cut short'):
        read_photo(save(path, path.read_bytes()[:-17]))  # the end mark, a checksum and a byte of another


@pytest.mark.parametrize('suffix', ['.jpg', '.webp', '.png'])
def test_unfinished_downloads_are_refused(tmp_path, suffix):
    """Of full length, but with zeros where nothing arrived: decoders return grey without a word."""
    path = tmp_path / f'photo{suffix}'
    Image.fromarray(noise(128, 256, 3, 8)).save(path, quality=98)
    content = path.read_bytes()
    half = len(content) // 2
    with pytest.raises(InputError, match='ends in zeros|cut short'):
        read_photo(save(path, content[:half] + bytes(len(content) - half)))
    if suffix == '.jpg':
        assert read_photo(save(path, content + bytes(4096))).pixels.shape == (128, 256, 3)


def test_files_that_are_no_photos(tmp_path):
    samples = noise(9, 9, 3, 16)
    start = tiff(samples, t284=2, t273=(0, 0, 0), t279=(162,) * 3).index(samples.astype('>u2').tobytes())
    planes = tiff(samples, t284=2, t273=(start, start + 162, start + 324), t279=(162,) * 3)
    floats = tiff(noise(4, 4, 2, 16).view(np.float32), t339=3)
    preview = tiff(noise(4, 4, 3, 8), t254=1)
    for content, words in ((b'', 'is empty'), (b'hello, world, this is text', 'is no JPEG'), (floats, 'is no JPEG|mode F'),
                           (b'\x89PNG\r\n\x1a\n' + bytes(30), 'damaged'), (preview, 'camera raw'), (planes, 'separate planes')):
        with pytest.raises(InputError, match=words) as caught:
            read_photo(save(tmp_path / 'x.tif', content))
        assert 'x.tif' in str(caught.value)
    with pytest.raises(InputError, match='does not exist'):
        read_photo(tmp_path / 'missing.jpg')
    with pytest.raises(InputError, match='is a folder'):
        read_photo(tmp_path)


def test_broken_exif_does_not_matter(tmp_path):
    turned = camera_exif(6).tobytes()
    make_as_ratio = turned.replace(struct.pack('>HH', ExifTags.Base.Make, 2), struct.pack('>HH', ExifTags.Base.Make, 5))
    assert make_as_ratio != turned
    for exif, shape in ((b'Exif\0\0garbage', (8, 12, 3)), (b'Exif\0\0MM\0*\xff\xff\xff\xff garbage', (8, 12, 3)),
                        (make_as_ratio, (12, 8, 3))):
        Image.fromarray(noise(8, 12, 3, 8)).save(tmp_path / 'a.png', exif=exif)
        photo = read_photo(tmp_path / 'a.png')
        assert photo.exif is None and photo.pixels.shape == shape


def test_size_limit(tmp_path, monkeypatch):
    small = png(noise(1, 1, 3, 8), 2)
    header = b'IHDR' + struct.pack('>IIBBBBB', 60000, 60000, 8, 2, 0, 0, 0)
    bomb = small[:12] + header + struct.pack('>I', zlib.crc32(header)) + small[33:]
    with pytest.raises(InputError, match='60000x60000 pixels, above the limit of 1000 megapixels'):
        read_photo(save(tmp_path / 'bomb.png', bomb))
    # Ours is the limit, not Pillow's, which stays as the program set it
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    write_photo(tmp_path / 'a.tif', gradient())
    assert read_photo(tmp_path / 'a.tif').pixels.shape == (24, 32, 3)
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(InputError, match='32x24'):
        read_photo(tmp_path / 'a.tif', max_megapixels=24 * 31 / 1e6)


def test_writing_refuses(tmp_path):
    old = save(tmp_path / 'old.png', b'old')
    for path, pixels, options, words in (
            (tmp_path / 'a.gif', gradient(), {}, r'choose one of \.jpg'), (tmp_path / 'a', gradient(), {}, 'no suffix'),
            (old, (gradient() * 255).astype(np.uint8), {}, 'uint8'), (old, gradient() * np.nan, {}, 'NaN'),
            (old, gradient()[..., 0], {}, 'shape'), (old, gradient(), {'quality': 0}, 'Quality 0'),
            (tmp_path / 'a.webp', np.zeros((1, 16384, 3), np.float32), {}, 'ends at 16383'),
            (old, gradient(), {'like': Photo(gradient(), alpha=np.ones((3, 3)), name='x.png')}, 'alpha of x.png is 3x3'),
            (tmp_path / 'missing' / 'a.png', gradient(), {}, 'could not be written')):
        with pytest.raises(InputError, match=words):
            write_photo(path, pixels, **options)
    assert [path.name for path in tmp_path.iterdir()] == ['old.png'] and old.read_bytes() == b'old'


def test_find_photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('10.png', '2.PNG', 'b[1].jpg', '._2.png', 'notes.txt', 'sub/1.jpg', '.cache/3.jpg', 'none/a.txt'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'x')

    def names(*inputs: str, **options: bool) -> list[str]:
        return [path.as_posix() for path in find_photos(inputs, **options)]

    assert names('.') == ['2.PNG', '10.png', 'b[1].jpg']
    assert names('.', recursive=True) == ['2.PNG', '10.png', 'b[1].jpg', 'sub/1.jpg']
    assert names('b[1].jpg', '10.png', '.', './10.png', str(tmp_path / '2.PNG')) == ['b[1].jpg', '10.png', '2.PNG']
    assert names('*.png', 'sub') == ['10.png', 'sub/1.jpg']
    assert names('**/*.jpg') == ['b[1].jpg', 'sub/1.jpg']
    assert names('s*', 'notes.txt') == ['sub/1.jpg', 'notes.txt']
    assert find_photos('10.png') == [Path('10.png')]
    for given in ('missing.jpg', '*.webp', 'none', '*.txt'):
        with pytest.raises(InputError) as caught:
            names('10.png', given)
        assert given in str(caught.value)
