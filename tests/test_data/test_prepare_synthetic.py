"""A synthetic test set on disk is what SyntheticBlurDataset gives, and is finished after a stop."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stochastic_refine.cli import main
from stochastic_refine.data.prepare_synthetic import prepare_synthetic
from stochastic_refine.data.synthetic_blur_dataset import SyntheticBlurDataset
from stochastic_refine.errors import InputError


def test_files_are_the_data_sets_pairs(photos: Path, tmp_path: Path) -> None:
    assert main(['prepare', 'synthetic', '--from', str(photos), '--to', str(tmp_path), '--crop-size', '48',
                 '--noise-sigma', '1', '2']) == 0
    dataset = SyntheticBlurDataset({'phase': 'val', 'dataroot_gt': str(photos), 'gt_size': 48, 'trajectory_length': [3, 10],
                                    'noise_sigma': [1, 2]})
    for index, path in enumerate(dataset.paths):
        for key, folder in (('lq', 'input'), ('gt', 'target')):
            pixels = np.asarray(Image.open(tmp_path / folder / f'{path.stem}.png'))
            assert np.array_equal(pixels, (dataset[index][key] * 255).round().byte().permute(1, 2, 0).numpy())


def test_goes_on_and_refuses_other_settings(photos: Path, tmp_path: Path) -> None:
    assert '4 written now' in prepare_synthetic(photos, tmp_path, 48)
    (tmp_path / 'input/coffee.png').unlink()
    assert '1 written now, 3 were there' in prepare_synthetic(photos, tmp_path, 48)
    with pytest.raises(InputError, match='other settings'):
        prepare_synthetic(photos, tmp_path, 32)


def test_photos_of_one_name_are_refused(photos: Path, tmp_path: Path) -> None:
    for folder in ('a', 'b'):
        (tmp_path / 'source' / folder).mkdir(parents=True)
        Image.open(photos / 'coffee.png').save(tmp_path / 'source' / folder / 'coffee.png')
    with pytest.raises(InputError, match='called coffee'):
        prepare_synthetic(tmp_path / 'source', tmp_path / 'to')
    assert not (tmp_path / 'to').exists()


def test_pairs_of_another_origin_are_refused(photos: Path, tmp_path: Path) -> None:
    """Without a record nobody knows their settings, and of other photos they would count as a part of this set."""
    prepare_synthetic(photos, tmp_path, 48)
    Image.open(photos / 'coffee.png').save(tmp_path / 'input/stranger.png')
    with pytest.raises(InputError, match='stranger.png is there already.*empty folder'):
        prepare_synthetic(photos, tmp_path, 48)
    (tmp_path / 'input/stranger.png').unlink()
    (tmp_path / 'synthetic.json').unlink()
    with pytest.raises(InputError, match='is there already'):
        prepare_synthetic(photos, tmp_path, 48)


def test_blur_of_a_camera(photos: Path, tmp_path: Path, capsys) -> None:
    command = ['prepare', 'synthetic', '--from', str(photos), '--to', str(tmp_path), '--crop-size', '64', '--blur']
    assert main([*command, 'street']) == 0
    dataset = SyntheticBlurDataset({'phase': 'val', 'dataroot_gt': str(photos), 'gt_size': 64, 'blur': 'street'})
    pixels = np.asarray(Image.open(tmp_path / 'input' / f'{dataset.paths[0].stem}.png'))
    assert np.array_equal(pixels, (dataset[0]['lq'] * 255).round().byte().permute(1, 2, 0).numpy())
    capsys.readouterr()
    for wrong, words in ((['stret'], "no preset 'stret'"), (['mild', '--noise-sigma', '0', '1'], 'noise_sigma.*contradicts')):
        assert main([*command, *wrong]) == 2
        assert re.search(words, capsys.readouterr().err)
