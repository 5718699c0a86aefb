"""Windows from overlapping crops lie evenly over the photo, through BasicSR's own data set."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from stochastic_refine.data.even_crops import TABLE_NAME
from stochastic_refine.data.prepare import prepare
from stochastic_refine.data.random_streams import Draw, stream_seed
from stochastic_refine.errors import InputError
from stochastic_refine.registration import prepare_basicsr

WIDTH, HEIGHT, SIZE = 26, 20, 8


@pytest.fixture
def crops(tmp_path):
    """One photo whose pixels hold their own place, cut into crops of 16 by 4, the last ones at its border."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    photo = Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8))
    for folder in ('input', 'target'):
        (tmp_path / 'archive' / 'train' / folder).mkdir(parents=True)
        photo.save(tmp_path / 'archive' / 'train' / folder / 'a.png')
    prepare('gopro', tmp_path / 'archive', tmp_path / 'data', crop_size=16, crop_step=4, workers=1, allow_incomplete=True)
    return tmp_path / 'data' / 'train'


def training_set(folder):
    prepare_basicsr()
    from basicsr.data import build_dataset

    from stochastic_refine.integrations.basicsr.launch import _build_checked
    return _build_checked(build_dataset, {
        'name': 'crops', 'type': 'PairedImageDataset', 'phase': 'train', 'scale': 1, 'io_backend': {'type': 'disk'},
        'dataroot_gt': str(folder / 'sharp_crops'), 'dataroot_lq': str(folder / 'blur_crops'), 'gt_size': SIZE,
        'use_hflip': True, 'use_rot': False})


def chi_square(counts, bins):
    expected = sum(counts.values()) / bins
    return sum((counts[i] - expected)**2 / expected for i in range(bins))


def test_each_position_of_the_photo_has_the_same_chance(crops):
    dataset = training_set(crops)
    columns, rows, flips = Counter(), Counter(), Counter()
    for epoch in range(170):
        for index in range(len(dataset)):
            item = dataset[Draw(index, stream_seed(epoch, index))]
            assert (item['lq'] == item['gt']).all()
            places = np.rint(item['gt'].numpy() * 255).astype(int)
            columns[places[0].min()] += 1
            rows[places[1].min()] += 1
            flips[places[0, 0, 0] > places[0, 0, -1], places[0].min() in range(4, 15)] += 1
    # 19 and 13 positions: what even draws pass once in 10,000 times; drawn evenly from each crop the first is 240
    assert chi_square(columns, WIDTH - SIZE + 1) < 49 and chi_square(rows, HEIGHT - SIZE + 1) < 39
    for overlap in (False, True):  # what is drawn after the window does not depend on it
        assert flips[True, overlap] == pytest.approx(flips[False, overlap], rel=0.15)


def test_without_the_table_crops_stay_as_they_are(crops):
    (crops / TABLE_NAME).unlink()
    assert training_set(crops).even_crops is None
    (crops / TABLE_NAME).write_text('crop,photo\nx,y\n')
    with pytest.raises(InputError, match=f'{TABLE_NAME} is no table of crops'):
        training_set(crops)
