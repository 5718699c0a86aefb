"""SyntheticBlurDataset: true pairs, random in training and fixed in validation, and errors that name the photo."""

from __future__ import annotations

import logging
import random

import cv2
import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from skimage import data as photos
from torch.utils.data import DataLoader

from stochastic_refine.blur import camera_shake_kernel, linear_to_srgb, srgb_to_linear
from stochastic_refine.data import synthetic_blur_dataset
from stochastic_refine.data.synthetic_blur_dataset import SyntheticBlurDataset
from stochastic_refine.errors import InputError

NO_BLUR = {'trajectory_length': [0, 0], 'noise_sigma': [0, 0]}


@pytest.fixture(scope='module')
def pictures() -> dict[str, np.ndarray]:
    """RGB photos, 60 wide and 40 high."""
    originals = {'astronaut': photos.astronaut(), 'chelsea': photos.chelsea(), 'coffee': photos.coffee()}
    return {name: cv2.resize(image, (60, 40), interpolation=cv2.INTER_AREA) for name, image in originals.items()}


@pytest.fixture
def folder(tmp_path, pictures):
    for name, image in pictures.items():
        cv2.imwrite(str(tmp_path / f'{name}.png'), image[..., ::-1])
    return tmp_path


def dataset(folder, phase: str = 'train', **options) -> SyntheticBlurDataset:
    defaults = {'gt_size': 16} if phase == 'train' else {}
    return SyntheticBlurDataset({'name': 'shake', 'phase': phase, 'dataroot_gt': str(folder), **defaults, **options})


def grey_levels(image: torch.Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] to (H, W, 3) in whole 8-bit grey levels, which it must hold."""
    levels = image.numpy().transpose(1, 2, 0) * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    return np.rint(levels).astype(np.uint8)


def contains(photo: np.ndarray, crop: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(photo, crop.shape)
    return bool((windows == crop).all(axis=(-3, -2, -1)).any())


def equal(a: dict, b: dict) -> bool:
    return torch.equal(a['lq'], b['lq']) and torch.equal(a['gt'], b['gt'])


def test_items_are_rgb_images_and_their_paths(folder, pictures):
    items = list(map(dataset(folder, 'val').__getitem__, range(3)))
    assert [item['gt_path'] for item in items] == [str(folder / f'{name}.png') for name in sorted(pictures)]
    for item, name in zip(items, sorted(pictures)):
        assert item['lq_path'] == item['gt_path']
        assert item['lq'].dtype == item['gt'].dtype == torch.float32
        np.testing.assert_array_equal(grey_levels(item['gt']), pictures[name])
        assert grey_levels(item['lq']).shape == (40, 60, 3)
        assert not torch.equal(item['lq'], item['gt'])


def test_validation_pairs_depend_on_their_index_and_seed_alone(folder):
    first = dataset(folder, 'val')
    forwards = [first[i] for i in range(3)]
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    backwards = dataset(folder, 'val')
    assert all(equal(backwards[i], forwards[i]) for i in (2, 0, 1))
    assert equal(first[1], forwards[1])
    assert not equal(dataset(folder, 'val', seed=1)[1], forwards[1])


def test_validation_pairs_have_kernels_of_their_own(tmp_path, pictures):
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(tmp_path / name), pictures['coffee'])
    same_photo = dataset(tmp_path, 'val', noise_sigma=[0, 0])
    assert not torch.equal(same_photo[0]['lq'], same_photo[1]['lq'])


def test_training_draws_differ_and_follow_torchs_seed(folder):
    training = dataset(folder)
    torch.manual_seed(3)
    draws = [training[0] for _ in range(3)]
    assert not equal(draws[0], draws[1]) and not equal(draws[1], draws[2])
    torch.manual_seed(3)
    assert all(equal(training[0], draw) for draw in draws)


def test_two_epochs_with_workers_differ_and_workers_differ_from_each_other(tmp_path, pictures):
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(tmp_path / name), pictures['coffee'])

    def restart(worker: int) -> None:
        """What BasicSR does at every epoch, so that neither generator may be drawn from."""
        np.random.seed(0)
        random.seed(0)

    torch.manual_seed(0)
    loader = DataLoader(dataset(tmp_path), batch_size=1, num_workers=2, worker_init_fn=restart)
    (a, b), (c, d) = list(loader), list(loader)
    assert not equal(a, b)
    assert not equal(a, c) and not equal(b, d)


@pytest.mark.parametrize('linear_light', [True, False])
@pytest.mark.parametrize('phase', ['train', 'val'])
def test_without_motion_and_noise_lq_is_gt(folder, phase, linear_light):
    items = dataset(folder, phase, linear_light=linear_light, **NO_BLUR)
    for index in range(3):
        item = items[index]
        assert torch.equal(item['lq'], item['gt'])


@pytest.mark.parametrize('linear_light', [True, False])
def test_lq_is_gt_convolved_in_the_chosen_light(folder, pictures, monkeypatch, linear_light):
    kernel = np.zeros((5, 5), dtype=np.float32)
    kernel[0, 0], kernel[2, 3], kernel[4, 1] = 0.5, 0.3, 0.2  # no symmetry
    monkeypatch.setattr(synthetic_blur_dataset, 'camera_shake_kernel', lambda length, rng: kernel)
    lq = grey_levels(dataset(folder, 'val', noise_sigma=[0, 0], linear_light=linear_light)[1]['lq'])
    photo = pictures['chelsea'].astype(np.float32) / 255
    light = srgb_to_linear(photo) if linear_light else photo
    blurred = np.stack([convolve2d(light[..., channel], kernel, mode='valid') for channel in range(3)], axis=-1)
    expected = 255 * (linear_to_srgb(blurred) if linear_light else blurred)
    assert np.abs(lq[2:-2, 2:-2] - expected).max() <= 0.51


def test_a_crop_is_blurred_with_what_lies_beyond_it(folder, monkeypatch):
    shift = np.zeros((9, 9), dtype=np.float32)
    shift[4, 8] = 1  # moves the picture 4 pixels to the right
    monkeypatch.setattr(synthetic_blur_dataset, 'camera_shake_kernel', lambda length, rng: shift)
    item = dataset(folder, 'val', gt_size=16, noise_sigma=[0, 0])[0]
    whole = dataset(folder, 'val')[0]['gt']
    assert torch.equal(item['gt'], whole[:, 12:28, 22:38])  # the central crop
    assert torch.equal(item['lq'], whole[:, 12:28, 18:34])


@pytest.mark.parametrize('cache', [False, True])
@pytest.mark.parametrize('length', [3, 12])
def test_crops_are_those_of_the_whole_photo_blurred(folder, pictures, monkeypatch, length, cache):
    """At every border of the photo, and with kernels that reach over two of them."""
    kernel, corners = camera_shake_kernel(length, np.random.default_rng(0)), set()
    margin = kernel.shape[0] // 2
    monkeypatch.setattr(synthetic_blur_dataset, 'camera_shake_kernel', lambda length, rng: kernel)
    training = dataset(folder, gt_size=36, use_hflip=False, use_rot=False, noise_sigma=[0, 0], cache=cache)
    stored = pictures['coffee']
    light = srgb_to_linear(cv2.copyMakeBorder(stored, *[margin] * 4, cv2.BORDER_REFLECT_101).astype(np.float32) / 255)
    blurred = 255 * linear_to_srgb(np.stack([convolve2d(light[..., c], kernel, mode='valid') for c in range(3)], axis=-1))
    torch.manual_seed(0)
    for item in [training[2] for _ in range(60)]:
        crop = grey_levels(item['gt'])
        top, left = next((y, x) for y in range(5) for x in range(25) if (stored[y:y + 36, x:x + 36] == crop).all())
        assert np.abs(grey_levels(item['lq']) - blurred[top:top + 36, left:left + 36]).max() <= 0.51
        corners.add((top, left))
    assert {0, 4} <= {top for top, _ in corners} and {0, 24} <= {left for _, left in corners}


def test_noise_has_the_asked_for_deviation(folder):
    item = dataset(folder, 'val', trajectory_length=[0, 0], noise_sigma=[4, 4])[1]
    difference = 255 * (item['lq'] - item['gt'])[(item['gt'] > 0.1) & (item['gt'] < 0.9)]
    assert difference.std().item() == pytest.approx(4, rel=0.1)
    assert abs(difference.mean().item()) < 0.4


def test_training_crops_are_cut_from_the_photo(folder, pictures):
    training = dataset(folder, use_hflip=False, use_rot=False)
    crops = [grey_levels(training[2]['gt']) for _ in range(4)]
    assert all(crop.shape == (16, 16, 3) and contains(pictures['coffee'], crop) for crop in crops)
    assert not all((crop == crops[0]).all() for crop in crops)


def test_augmentation_gives_all_eight_orientations_to_both_images(folder, pictures):
    whole = dataset(folder, gt_size=40, **NO_BLUR)
    cv2.imwrite(str(folder / 'astronaut.png'), pictures['astronaut'][:, :40, ::-1])  # so that there is one crop only
    torch.manual_seed(0)
    seen = set()
    for _ in range(60):
        item = whole[0]
        assert torch.equal(item['lq'], item['gt'])
        seen.add(item['gt'].numpy().tobytes())
    assert len(seen) == 8


def test_the_cache_changes_nothing(folder):
    plain, cached = dataset(folder, 'val'), dataset(folder, 'val', cache=True)
    assert all(equal(cached[i], plain[i]) for i in (0, 0, 1))


def test_a_photo_smaller_than_the_kernel_is_blurred_too(tmp_path, pictures):
    cv2.imwrite(str(tmp_path / 'tiny.png'), pictures['coffee'][:3, :2])
    assert dataset(tmp_path, 'val', trajectory_length=[60, 60])[0]['lq'].shape == (3, 3, 2)


def test_sub_folders_are_searched_and_other_files_passed_over(folder, pictures):
    (folder / 'more').mkdir()
    cv2.imwrite(str(folder / 'more' / 'B.JPG'), pictures['coffee'])
    (folder / 'notes.txt').write_text('no photo')
    assert [path.name for path in dataset(folder).paths] == ['astronaut.png', 'chelsea.png', 'coffee.png', 'B.JPG']


@pytest.mark.parametrize('damage', ['cut short', 'text', 'empty'])
def test_a_corrupt_photo_is_named_or_skipped(folder, caplog, damage):
    path = folder / 'chelsea.png'
    content = path.read_bytes()
    path.write_bytes({'cut short': content[:len(content) // 2], 'text': b'no photo', 'empty': b''}[damage])
    with pytest.raises(InputError, match=r'chelsea\.png is damaged or no image; .*skip_corrupt') as caught:
        dataset(folder, 'val')[1]
    assert str(path) in str(caught.value)
    item = dataset(folder, 'val', skip_corrupt=True)[1]
    assert item['gt_path'] == str(folder / 'coffee.png')
    assert f'{path} is damaged' in caplog.text


def test_a_folder_of_corrupt_photos_ends(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'no photo')
    with pytest.raises(InputError, match='No photo in .* can be read'):
        dataset(tmp_path, 'val', skip_corrupt=True)[0]


def test_wrong_folders_and_sizes_are_named(folder, tmp_path):
    with pytest.raises(InputError, match='gone does not exist'):
        dataset(tmp_path / 'gone')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match='empty holds no image'):
        dataset(tmp_path / 'empty')
    with pytest.raises(InputError, match='shake needs gt_size'):
        dataset(folder, gt_size=None)
    with pytest.raises(InputError, match=r'astronaut\.png is 60x40 pixels, smaller than gt_size 41'):
        dataset(folder, gt_size=41)[0]


@pytest.mark.parametrize('blur', ['mild', 'camera', {'preset': 'street', 'length': [0, 12], 'lines': None}], ids=str)
def test_camera_blur_is_new_in_training_and_fixed_in_validation(folder, pictures, blur):
    training = dataset(folder, blur=blur, gt_size=24)
    torch.manual_seed(0)
    draws = [training[0] for _ in range(3)]
    assert all(contains_turned(pictures['astronaut'], grey_levels(item['gt'])) for item in draws)
    assert not equal(draws[0], draws[1])
    fixed = dataset(folder, 'val', blur=blur)
    assert all(equal(fixed[i], dataset(folder, 'val', blur=blur)[i]) for i in range(3))
    assert not torch.equal(fixed[0]['lq'], dataset(folder, 'val', blur=blur, seed=1)[0]['lq'])
    assert np.array_equal(grey_levels(fixed[0]['gt']), pictures['astronaut'])


def contains_turned(photo: np.ndarray, crop: np.ndarray) -> bool:
    turned = [np.rot90(flipped, turns) for flipped in (crop, crop[:, ::-1]) for turns in range(4)]
    return any(contains(photo, each) for each in turned)


def test_a_crop_is_blurred_as_the_whole_photo_is(folder):
    """The central crop of validation sees its frame's exposure: what lies beyond it, and the roll about the photo's centre."""
    blur = {'preset': 'street', 'length': [4, 8], 'roll': [3, 3], 'lines': None, 'shot_noise': [0, 0], 'read_noise': [0, 0],
            'jpeg': None}
    whole, crop = dataset(folder, 'val', blur=blur)[1]['lq'], dataset(folder, 'val', blur=blur, gt_size=20)[1]['lq']
    difference = (whole[:, 10:30, 20:40] - crop).abs() * 255
    assert difference.max() <= 1.01 and (difference > 0.5).float().mean() < 0.02


@pytest.mark.parametrize('options, fragments', [
    ({'blur': 'camera', 'trajectory_length': [3, 10]}, ('shake', 'trajectory_length', 'contradicts blur')),
    ({'blur': 'stret'}, ('shake', "'stret'", 'street')),
    ({'blur': {'preset': 'mild', 'objects': [2, 1]}}, ('blur: objects', 'lowest, highest')),
])
def test_contradicting_blur_is_refused(folder, options, fragments):
    with pytest.raises(InputError) as error:
        dataset(folder, **options)
    assert all(fragment in str(error.value) for fragment in fragments)


def test_a_blur_longer_than_the_crop_is_refused(folder):
    with pytest.raises(InputError, match='astronaut.*up to 40 pixels.*crops of 16.*gt_size'):
        dataset(folder, blur={'length': [0, 40], 'lines': None})[0]


def test_strangers_in_the_folder_are_told_and_hidden_files_passed_over(folder, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger('basicsr'), 'propagate', True)  # as long as BasicSR has not set it up
    for name in ('phone.heic', '._astronaut.png', 'Thumbs.db'):
        (folder / name).write_bytes(b'no image')
    with caplog.at_level('WARNING', 'basicsr'):
        assert len(dataset(folder)) == 3
    # Once or, where BasicSR's logger has been set up to be listened to already, twice.
    assert set(caplog.messages) == {f'{folder}: passed over 1 .heic, which are no images that can be read.'}
