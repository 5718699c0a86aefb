"""Tests of laying archives out, on tiny fake archives with lowered expected counts."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from stochastic_refine.data import archives
from stochastic_refine.data.even_crops import TABLE_NAME
from stochastic_refine.data.prepare import RECORD_NAME, crop_starts, prepare
from stochastic_refine.errors import InputError
from stochastic_refine.registration import prepare_basicsr

TRAIN = ('GOPR0372_07_00', 'GOPR0374_11_01')
TEST = ('GOPR0384_11_00',)
CROPS = {'crop_size': 32, 'crop_step': 16, 'workers': 1}


@pytest.fixture(autouse=True)
def expected(monkeypatch):
    """Expected counts of the fake archives."""
    counts = {'gopro': {'train': 4, 'test': 2}, 'hide': {'test': 2},
              'realblur_j': {'train': 2, 'test': 1}, 'realblur_r': {'train': 2, 'test': 1}}
    monkeypatch.setattr(archives, 'EXPECTED_PAIRS', counts)


def save(path, value, size=(64, 48)):
    """A random image whose seed is ``value``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB'))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def gopro(tmp_path):
    """The original layout in a folder around everything, as it unpacks."""
    root = tmp_path / 'download' / 'GOPRO_Large'
    value = 0
    for split, sequences in (('train', TRAIN), ('test', TEST)):
        for sequence in sequences:
            for frame in ('000001.png', '000047.png'):
                for kind in ('blur', 'blur_gamma', 'sharp'):
                    value += 1
                    save(root / split / sequence / kind / frame, value)
    return root


def test_gopro_layout_names_and_aligned_content(gopro, tmp_path):
    out = tmp_path / 'out'
    test_frame = gopro / 'test' / TEST[0] / 'sharp/000047.png'
    Image.open(test_frame).save(test_frame, compress_level=0)
    report = prepare('gopro', gopro.parent, out, **CROPS)
    crops = names(out / 'train/blur_crops')
    # 64x48 in crops of 32 by 16: three columns, two rows
    assert len(crops) == 4 * 6 and crops == names(out / 'train/sharp_crops')
    assert crops[0] == 'GOPR0372_07_00-000001_s001.png' and crops[-1] == 'GOPR0374_11_01-000047_s006.png'
    assert names(out / 'test/input') == names(out / 'test/target') == [f'{TEST[0]}-000001.png', f'{TEST[0]}-000047.png']
    for kind, folder in (('blur', 'blur_crops'), ('sharp', 'sharp_crops')):
        frame = pixels(gopro / 'train' / TRAIN[1] / kind / '000047.png')
        for number, (top, left) in enumerate([(0, 0), (0, 16), (0, 32), (16, 0), (16, 16), (16, 32)], start=1):
            crop = pixels(out / 'train' / folder / f'{TRAIN[1]}-000047_s{number:03d}.png')
            np.testing.assert_array_equal(crop, frame[top:top + 32, left:left + 32])
    # not encoded again
    assert (out / f'test/target/{TEST[0]}-000047.png').read_bytes() == test_frame.read_bytes()
    assert report.pairs == {'gopro train': 4, 'gopro test': 2} and report.crops == 24 and report.written == 52
    assert '4 gopro train pairs' in str(report) and '24 crops' in str(report)


def test_worker_processes_and_variant(gopro, tmp_path):
    prepare('gopro', gopro, tmp_path / 'out', variant='blur_gamma', **CROPS | {'workers': 2})
    frame = pixels(gopro / 'train' / TRAIN[0] / 'blur_gamma/000001.png')
    np.testing.assert_array_equal(pixels(tmp_path / f'out/train/blur_crops/{TRAIN[0]}-000001_s001.png'), frame[:32, :32])
    with pytest.raises(InputError, match='other settings.*blur_gamma.*choose another folder'):
        prepare('gopro', gopro, tmp_path / 'out', **CROPS)


def test_flat_layout_in_place(tmp_path):
    for split, count in (('train', 4), ('test', 2)):
        for number in range(count):
            save(tmp_path / split / f'input/a-{number}.png', number)
            save(tmp_path / split / f'target/a-{number}.png', 100 + number)
    report = prepare('gopro', tmp_path / 'train' / '..', tmp_path, **CROPS)
    assert report.written == 48 and report.kept == 4
    assert names(tmp_path / 'train/blur_crops')[0] == 'a-0_s001.png'
    assert prepare('gopro', tmp_path, tmp_path, **CROPS).written == 0
    with pytest.raises(InputError, match='one kind of blurry frames'):
        prepare('gopro', tmp_path, tmp_path / 'out', variant='blur_gamma')


def test_resumes_missing_and_truncated_files(gopro, tmp_path):
    out = tmp_path / 'out'
    prepare('gopro', gopro, out, **CROPS)
    crop, frame = out / f'train/sharp_crops/{TRAIN[0]}-000001_s004.png', out / f'test/input/{TEST[0]}-000001.png'
    truncated = out / f'train/blur_crops/{TRAIN[0]}-000001_s002.png'
    whole = {path: path.read_bytes() for path in (crop, frame, truncated)}
    untouched = out / f'train/blur_crops/{TRAIN[0]}-000001_s001.png'
    before = untouched.stat().st_mtime_ns
    # what a killed run leaves between linking a frame and giving it its name
    frame.with_name(f'.{frame.name}.part').hardlink_to(gopro / 'test' / TEST[0] / 'blur/000001.png')
    crop.unlink()
    frame.unlink()
    truncated.write_bytes(whole[truncated][:-20])
    report = prepare('gopro', gopro, out, **CROPS)
    assert (report.written, report.kept) == (3, 49)
    assert {path: path.read_bytes() for path in whole} == whole
    assert untouched.stat().st_mtime_ns == before and not list(out.rglob('.*'))


def test_interrupt_leaves_nothing_half_written(gopro, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    save_image, calls = Image.Image.save, []

    def interrupted_save(self, file, **options):
        calls.append(file)
        if len(calls) == 9:
            file.write_bytes(b'half')
            raise KeyboardInterrupt
        save_image(self, file, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Image.Image, 'save', interrupted_save)
        prepare('gopro', gopro, out, **CROPS)
    files = [path for path in out.rglob('*') if path.is_file() and path.name not in (RECORD_NAME, TABLE_NAME)]
    assert len(files) == 8 and all(pixels(path).shape == (32, 32, 3) for path in files)
    assert prepare('gopro', gopro, out, **CROPS).kept == 8


def test_bad_archives_write_nothing(gopro, tmp_path):
    out = tmp_path / 'out'
    sharp = gopro / 'train' / TRAIN[0] / 'sharp/000001.png'
    content = sharp.read_bytes()

    def refused(match, **options):
        with pytest.raises(InputError, match=match):
            prepare('gopro', gopro, out, **CROPS | options)
        assert not out.exists()

    sharp.write_bytes(content[:len(content) // 2])
    refused(r'sharp.000001.png is damaged')
    refused(r'sharp.000001.png is damaged', allow_incomplete=True)
    refused(r'sharp.000001.png is damaged', workers=2)
    sharp.write_bytes(b'no image')
    refused(r'sharp.000001.png is damaged or no image')
    save(sharp, 1, size=(48, 64))
    refused('64x48 but .* is 48x64')
    sharp.rename(sharp.with_name('000002.png'))
    refused(r'2 images have no partner of the same name: '
            r'.*blur.000001.png \(no sharp one\), .*sharp.000002.png \(no blurry one\)')
    for path in (sharp.with_name('000002.png'), gopro / 'train' / TRAIN[0] / 'blur/000001.png'):
        path.unlink()
    refused('gopro train: found 3 pairs but the complete archive has 4; .*--allow-incomplete')
    assert prepare('gopro', gopro, out, allow_incomplete=True, **CROPS).pairs == {'gopro train': 3, 'gopro test': 2}


def test_incomplete_leaves_out_what_has_no_partner(gopro, tmp_path):
    (gopro / 'test' / TEST[0] / 'sharp/000001.png').unlink()
    report = prepare('gopro', gopro, tmp_path / 'out', allow_incomplete=True, **CROPS)
    assert report.left_out == 1 and names(tmp_path / 'out/test/input') == [f'{TEST[0]}-000047.png']
    assert '1 images without a partner were left out' in str(report)


def test_foreign_files_in_destination(gopro, tmp_path):
    for name in ('Thumbs.db', '.DS_Store'):  # what systems leave is nobody's image
        (tmp_path / 'out/test/input').mkdir(parents=True, exist_ok=True)
        (tmp_path / 'out/test/input' / name).write_text('no image')
    prepare('gopro', gopro, tmp_path / 'out', **CROPS)
    assert prepare('gopro', gopro, tmp_path / 'out', **CROPS).written == 0
    shutil.rmtree(tmp_path / 'out')
    save(tmp_path / 'out/test/input/holiday.png', 1)
    with pytest.raises(InputError, match='holiday.png'):
        prepare('gopro', gopro, tmp_path / 'out', **CROPS)
    assert not (tmp_path / 'out/train').exists()


def test_arguments(tmp_path):
    for options, match in (({'dataset': 'gopros'}, 'choose one of gopro, hide'), ({'source': tmp_path / 'no'}, 'is no folder'),
                           ({}, 'no image pair of gopro; expected train'), ({'crop_step': 0}, 'crop_step'),
                           ({'dataset': 'hide', 'lmdb': True}, 'testing only'),
                           ({'dataset': 'hide', 'variant': 'blur_gamma'}, 'only gopro')):
        with pytest.raises(InputError, match=match):
            prepare(**{'dataset': 'gopro', 'source': tmp_path, 'destination': tmp_path / 'out'} | options)


def test_hide_layouts(tmp_path):
    archive, flat = tmp_path / 'HIDE_dataset', tmp_path / 'flat'
    files = 'test/test-close-ups/1fromGOPR.png', 'test/test-long-shot/2fromGOPR.png', 'train/3fromGOPR.png'
    for number, name in enumerate(files):
        save(archive / name, number)
        save(archive / 'GT' / name.rsplit('/', 1)[1], 10 + number)
    report = prepare('hide', archive, tmp_path / 'a', workers=1)
    assert report.pairs == {'hide test': 2} and not (tmp_path / 'a/train').exists()
    assert names(tmp_path / 'a/test/input') == names(tmp_path / 'a/test/target') == ['1fromGOPR.png', '2fromGOPR.png']
    np.testing.assert_array_equal(pixels(tmp_path / 'a/test/target/2fromGOPR.png'), pixels(archive / 'GT/2fromGOPR.png'))

    # a photo that only claims to be PNG, and one that is JPEG by name, are encoded as PNG
    save(flat / 'input/a.jpg', 1)
    save(flat / 'input/b.jpg', 2)
    (flat / 'input/b.jpg').rename(flat / 'input/b.png')
    save(flat / 'target/a.png', 3)
    save(flat / 'target/b.png', 4)
    prepare('hide', flat, tmp_path / 'b', workers=1)
    for name in ('a', 'b'):
        with Image.open(tmp_path / f'b/test/input/{name}.png') as image:
            assert image.format == 'PNG'
    assert prepare('hide', flat, tmp_path / 'b', workers=1).kept == 4


@pytest.fixture
def realblur(tmp_path):
    root = tmp_path / 'RealBlur'
    for kind in 'JR':
        for split, entries in (('train', [('scene001', 1), ('scene002', 1)]), ('test', [('scene003', 12)])):
            lines = []
            for scene, number in entries:
                pair = [f'RealBlur-{kind}_ECC/{scene}/{side}/{side}_{number}.png' for side in ('gt', 'blur')]
                for path in pair:
                    save(root / path, sum(path.encode()))
                lines.append(' '.join(pair))
            (root / f'RealBlur_{kind}_{split}_list.txt').write_text('\n'.join(lines) + '\n')
    return root


def test_realblur(realblur, tmp_path):
    prepare('RealBlur-R', realblur, tmp_path / 'r', **CROPS)
    assert names(tmp_path / 'r/test/input') == names(tmp_path / 'r/test/target') == ['scene003_12.png']
    assert {name.rsplit('_', 1)[0] for name in names(tmp_path / 'r/train/sharp_crops')} == {'scene001_1', 'scene002_1'}
    blur = realblur / 'RealBlur-R_ECC/scene003/blur/blur_12.png'
    np.testing.assert_array_equal(pixels(tmp_path / 'r/test/input/scene003_12.png'), pixels(blur))
    both = prepare('realblur', realblur, tmp_path / 'both', **CROPS)
    assert list(both.pairs) == ['realblur_j train', 'realblur_j test', 'realblur_r train', 'realblur_r test']
    assert names(tmp_path / 'both') == ['RealBlur_J', 'RealBlur_R', RECORD_NAME]

    blur.unlink()
    with pytest.raises(InputError, match=r'realblur_r test: 1 images have no partner.*gt_12.png \(no blurry one\)'):
        prepare('realblur_r', realblur, tmp_path / 'r2', **CROPS)
    list_file = realblur / 'RealBlur_R_test_list.txt'
    list_file.write_text(list_file.read_text().replace('blur_12', 'blur_11'))
    with pytest.raises(InputError, match='RealBlur_R_test_list.txt, line 1'):
        prepare('realblur_r', realblur, tmp_path / 'r2', **CROPS)


@pytest.mark.parametrize('folder', ['{outside}', 'RealBlur-R_ECC/../../outside', '..\\outside', 'C:\\outside'])
def test_realblurs_lists_name_images_of_the_archive_only(realblur, tmp_path, folder):
    for side in ('gt', 'blur'):
        save(tmp_path / 'outside' / 'scene003' / side / f'{side}_12.png', 1)
    folder = folder.format(outside=tmp_path / 'outside')
    (realblur / 'RealBlur_R_test_list.txt').write_text(f'{folder}/scene003/gt/gt_12.png {folder}/scene003/blur/blur_12.png\n')
    with pytest.raises(InputError, match='RealBlur_R_test_list.txt, line 1: .*outside the archive'):
        prepare('realblur_r', realblur, tmp_path / 'r', **CROPS)
    assert not (tmp_path / 'r').exists()


def test_names_with_dots_are_no_lmdb_keys(tmp_path):
    for number in range(4):
        for side in ('input', 'target'):
            save(tmp_path / f'train/{side}/IMG.{number}.png', number)
    with pytest.raises(InputError, match=r'IMG.0_s001.png.* cannot be LMDB keys.*first dot'):
        prepare('gopro', tmp_path, tmp_path / 'out', lmdb=True, allow_incomplete=True, **CROPS)
    assert not (tmp_path / 'out').exists()


def test_lmdb_is_read_by_basicsr(gopro, tmp_path):
    try:
        prepare_basicsr()
    except InputError as error:
        pytest.skip(str(error))
    # a flat first image: ten times its size, BasicSR's own estimate, could not hold the others
    for kind in ('blur', 'sharp'):
        Image.new('RGB', (64, 48)).save(gopro / 'train' / TRAIN[0] / kind / '000001.png')
    out = tmp_path / 'out'
    report = prepare('gopro', gopro, out, lmdb=True, **CROPS)
    assert [path.name for path in report.lmdbs] == ['blur_crops.lmdb', 'sharp_crops.lmdb']
    from basicsr.data.paired_image_dataset import PairedImageDataset
    train = PairedImageDataset({'dataroot_lq': str(out / 'train/blur_crops.lmdb'),
                                'dataroot_gt': str(out / 'train/sharp_crops.lmdb'),
                                'io_backend': {'type': 'lmdb'}, 'scale': 1, 'phase': 'val'})
    folders = PairedImageDataset({'dataroot_lq': str(out / 'train/blur_crops'), 'dataroot_gt': str(out / 'train/sharp_crops'),
                                  'io_backend': {'type': 'disk'}, 'scale': 1, 'phase': 'val'})
    assert len(train) == len(folders) == 24
    sample = next(train[index] for index in range(24) if train[index]['lq_path'] == f'{TRAIN[1]}-000001_s006')
    frame = gopro / 'train' / TRAIN[1]
    for key, kind in (('lq', 'blur'), ('gt', 'sharp')):
        expected = pixels(frame / kind / '000001.png')[16:48, 32:64]
        np.testing.assert_array_equal((sample[key].numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0), expected)
    # a whole LMDB is kept, one cut short is made again
    data = out / 'train/blur_crops.lmdb'
    stamp = (data / 'data.mdb').stat().st_mtime_ns
    meta = (out / 'train/sharp_crops.lmdb/meta_info.txt')
    lines = meta.read_text()
    meta.write_text(lines[:100])
    prepare('gopro', gopro, out, lmdb=True, **CROPS)
    assert (data / 'data.mdb').stat().st_mtime_ns == stamp and meta.read_text() == lines
    assert not list(out.rglob('.*'))


def test_crop_starts_cover_the_edge():
    # the GoPro frame: four columns and two rows of 512, the last ones at the border
    assert crop_starts(1280, 512, 256) == [0, 256, 512, 768]
    assert crop_starts(720, 512, 256) == [0, 208]
    assert crop_starts(300, 512, 256) == [0]
