"""CheckedDataset around BasicSR's paired data: errors name the files, and the order is that of the names."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from stochastic_refine.data.checked_dataset import CheckedDataset
from stochastic_refine.data.image_files import check_whole
from stochastic_refine.errors import InputError
from stochastic_refine.registration import prepare_basicsr


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three pairs lq/{a,b,c}.png and gt/{a,b,c}.png, 30 wide and 20 high."""
    generator = np.random.default_rng(0)
    for side in ('lq', 'gt'):
        (tmp_path / side).mkdir()
        for name in 'abc':
            cv2.imwrite(str(tmp_path / side / f'{name}.png'), generator.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    return tmp_path


def paired(folder: Path, phase: str = 'val', **options) -> CheckedDataset:
    try:
        prepare_basicsr()
    except InputError as error:
        pytest.skip(str(error))
    from basicsr.data.paired_image_dataset import PairedImageDataset
    return CheckedDataset(PairedImageDataset({
        'name': 'pairs', 'type': 'PairedImageDataset', 'phase': phase, 'scale': 1, 'io_backend': {'type': 'disk'},
        'dataroot_lq': str(folder / 'lq'), 'dataroot_gt': str(folder / 'gt'),
        'gt_size': 8, 'use_hflip': True, 'use_rot': True, **options
    }))


def resize(path: Path, width: int, height: int) -> None:
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (width, height)))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    'cut short': cut_short,
    'a bit flipped': flip_a_bit,
    'without its end': lambda path: path.write_bytes(path.read_bytes()[:-12]),
    'text': lambda path: path.write_text('no image'),
    'empty': lambda path: path.write_bytes(b''),
    'gone': Path.unlink,
    'larger': lambda path: resize(path, 40, 20),
    'smaller': lambda path: resize(path, 30, 16),
    'turned': lambda path: resize(path, 20, 30),
}


@pytest.mark.parametrize('phase', ['train', 'val'])
@pytest.mark.parametrize('side', ['lq', 'gt'])
@pytest.mark.parametrize('damage', DAMAGES)
def test_an_unusable_pair_is_named_or_skipped(folder, caplog, monkeypatch, damage, side, phase):
    monkeypatch.setattr(logging.getLogger('basicsr'), 'propagate', True)  # as long as BasicSR has not set it up
    strict, lenient = paired(folder, phase), paired(folder, phase, skip_corrupt=True)
    DAMAGES[damage](folder / side / 'b.png')
    strict[0], strict[2]
    with pytest.raises(InputError) as caught:
        strict[1]
    message = str(caught.value)
    assert str(folder / 'lq' / 'b.png') in message and str(folder / 'gt' / 'b.png') in message
    assert 'skip_corrupt' in message and '\n' not in message
    assert lenient[1]['gt_path'] == str(folder / 'gt' / 'c.png')
    assert 'b.png' in caplog.text


def test_whole_pairs_of_the_right_size_pass_unchanged(folder):
    item = paired(folder)[1]
    for side in ('lq', 'gt'):
        stored = cv2.imread(str(folder / side / 'b.png'))[..., ::-1].transpose(2, 0, 1)
        np.testing.assert_array_equal(np.rint(item[side].numpy() * 255), stored)


def test_super_resolution_pairs_differ_by_their_scale(folder):
    for name in 'abc':
        resize(folder / 'gt' / f'{name}.png', 60, 40)
    assert paired(folder, scale=2)[0]['gt'].shape == (3, 40, 60)
    with pytest.raises(InputError, match='gt is 60x40 pixels where 30x20 are expected'):
        paired(folder)[0]


def test_items_come_in_the_order_of_their_names(folder, monkeypatch):
    scandir = os.scandir

    def reversed_scandir(path):
        return iter(sorted(scandir(path), key=lambda entry: entry.name, reverse=True))

    monkeypatch.setattr(os, 'scandir', reversed_scandir)
    checked = paired(folder)
    monkeypatch.undo()
    assert [Path(checked[i]['gt_path']).name for i in range(len(checked))] == ['a.png', 'b.png', 'c.png']


def test_an_error_in_a_loaders_worker_arrives_as_the_one_sentence(folder):
    cut_short(folder / 'gt' / 'b.png')
    with pytest.raises(InputError) as direct:
        paired(folder)[1]
    with pytest.raises(InputError) as from_worker:
        list(DataLoader(paired(folder), num_workers=1))
    assert str(from_worker.value) == str(direct.value)
    assert str(direct.value).startswith('Dataset pairs: ')


class Numbers(Dataset):
    """Items 0, 10, 20, ...; those in ``broken`` cannot be read."""

    def __init__(self, count: int, broken: tuple[int, ...] = (), **options) -> None:
        self.opt = {'name': 'numbers', **options}
        self.paths = [f'{i:03d}.png' for i in range(count)]
        self.broken = broken

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> int:
        if index in self.broken:
            raise OSError('broken')
        return 10 * index


def items(dataset: Dataset) -> list[int]:
    return [dataset[i] for i in range(len(dataset))]


def test_max_images_are_spread_evenly():
    assert items(CheckedDataset(Numbers(9, max_images=3))) == [0, 30, 60]
    assert items(CheckedDataset(Numbers(2, max_images=3))) == [0, 10]


def test_skipping_goes_round_the_end_and_stops_when_nothing_can_be_read():
    assert items(CheckedDataset(Numbers(3, broken=(1, 2), skip_corrupt=True))) == [0, 0, 0]
    with pytest.raises(InputError, match='numbers: not one item can be read'):
        CheckedDataset(Numbers(2, broken=(0, 1), skip_corrupt=True))[0]


def test_an_empty_dataset_is_refused_at_once():
    with pytest.raises(InputError, match='numbers is empty'):
        CheckedDataset(Numbers(0))


def test_what_opencv_would_take_for_whole(tmp_path):
    """A JPEG whose end is missing, or filled with zeros, is refused; one with something behind its end is not."""
    path = tmp_path / 'photo.jpg'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = path.read_bytes()
    for sound in (content, content + b'trailer of a camera', content + bytes(2000)):
        path.write_bytes(sound)
        check_whole(path)
    for broken in (content[:-200], content[:-1000] + bytes(1000)):
        path.write_bytes(broken)
        with pytest.raises(InputError, match='photo.jpg'):
            check_whole(path)
