"""SyntheticBlurDataset: blurred and sharp pairs from any folder of sharp photos (the setting of the paper's Sec. 6)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils import data

from ..blur import CameraBlur, blur_valid, camera_shake_kernel, develop, expose, linear_to_srgb, srgb_to_linear
from ..errors import InputError
from .image_files import FORMATS, count_in_words, open_image, other_files

IMAGE_SUFFIXES = set(FORMATS)


class SyntheticBlurDataset(data.Dataset):
    """Sharp photos blurred on the fly, by random camera shake plus noise or as cameras make blur.

    In training every draw is new: crop, flips, rotation, kernel and noise. In validation pair ``i`` is always the same.

    Args (keys of ``opt``):
        dataroot_gt: Folder of sharp photos, searched recursively.
        gt_size: Side of the training crops, pixels; in validation absent for whole photos, else the central crop.
        use_hflip, use_rot: Augmentation in training, as in BasicSR.
        blur: ``mild``, ``camera`` or ``street``, or a block ``{preset: NAME, ...}`` of settings of
            :class:`~stochastic_refine.blur.CameraBlur`: motion that varies over the frame, moving objects, defocus, clipped
            lights, noise, JPEG. The four settings below are of the simpler blur without it: one kernel for the whole photo.
        trajectory_length: [shortest, longest] path of the camera, pixels; drawn uniformly.
        trajectory: Other settings of :func:`~stochastic_refine.blur.kernels.camera_shake_trajectory`; straight horizontal
            motion is {turn: 0, impulse_rate: 0, direction: 0}.
        noise_sigma: [lowest, highest] standard deviation of the noise, in 8-bit grey values; drawn uniformly.
        linear_light: Blur light intensities instead of stored sRGB values, as a camera does. Default true.
        seed: Seed of the validation pairs. Default 0.
        cache: Keep decoded photos in memory (per worker). Default false.
        skip_corrupt: Go on with another photo where one cannot be read, with a warning; else stop and name it.

    Items: ``lq``, ``gt`` of shape (3, H, W), RGB in [0, 1], 8-bit values; ``lq_path``, ``gt_path``.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self.train = opt.get('phase', 'train') == 'train'
        self.gt_size = opt.get('gt_size')
        self.trajectory_length = opt.get('trajectory_length', [3, 10])
        self.trajectory = opt.get('trajectory') or {}
        self.noise_sigma = opt.get('noise_sigma', [0, 2])
        self.linear_light = opt.get('linear_light', True)
        self.camera = camera_blur(opt)
        self.seed = opt.get('seed', 0)
        stored = np.arange(256, dtype=np.float32) / 255
        self.light = srgb_to_linear(stored) if self.linear_light else stored  # of each 8-bit value
        self.cache: dict[int, NDArray[np.uint8]] | None = {} if opt.get('cache') else None
        self.paths = find_images(opt['dataroot_gt'])
        if others := other_files(Path(opt['dataroot_gt']).expanduser()):
            logging.getLogger('basicsr').warning('%s: passed over %s, which are no images that can be read.',
                                                 opt['dataroot_gt'], count_in_words(others))
        if self.train and not self.gt_size:
            raise InputError(f"datasets: {opt.get('name', 'train')} needs gt_size, the side of the training crops, e.g. 128.")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        if self.train:
            # From torch's generator: with workers BasicSR restarts numpy's and Python's with the same seed at every epoch.
            rng = np.random.default_rng(torch.randint(2**62, (1, )).item())
        else:
            rng = np.random.default_rng([self.seed, index])
        path, photo = self._load(index)
        lq, gt = (self._shaken if self.camera is None else self._photographed)(path, photo, rng)
        if self.train:
            lq, gt = self._augment(lq, gt, rng)
        return {'lq': _to_tensor(lq), 'gt': _to_tensor(gt), 'lq_path': str(path), 'gt_path': str(path)}

    def _shaken(self, path: Path, photo: Image.Image | NDArray[np.uint8],
                rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A blurred and a sharp crop, by one kernel."""
        kernel = camera_shake_kernel(rng.uniform(*self.trajectory_length), rng, **self.trajectory)
        margin = kernel.shape[0] // 2
        top, left, height, width = self._window(path, _size(photo), rng)
        # Only what the blurred crop is made of, so that the time does not grow with the photo.
        sharp = _cut(photo, top - margin, left - margin, height + 2 * margin, width + 2 * margin)
        blurred = blur_valid(cv2.LUT(sharp, self.light), kernel)
        if self.linear_light:
            blurred = linear_to_srgb(blurred)
        blurred = blurred + rng.normal(0, rng.uniform(*self.noise_sigma) / 255, blurred.shape)
        lq = np.clip(np.rint(blurred * 255), 0, 255).astype(np.uint8)
        return lq, sharp[margin:margin + height, margin:margin + width]

    def _photographed(self, path: Path, photo: Image.Image | NDArray[np.uint8],
                      rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """A blurred and a sharp crop, by an exposure of the whole photo."""
        rows, columns = _size(photo)
        top, left, height, width = self._window(path, (rows, columns), rng)
        longest = self.camera.length[1] * (rows / self.camera.lines if self.camera.lines else 1)
        if longest > min(height, width):
            raise InputError(f'Photo {path}: a blur of up to {longest:.0f} pixels is longer than its crops of '
                             f'{min(height, width)}; give a larger gt_size, or a lower length in blur.')
        exposure = self.camera.draw(rng, rows, columns)
        x, y = left - (columns - 1) / 2, top - (rows - 1) / 2  # from the frame's centre
        margin = exposure.reach(x, y, x + width - 1, y + height - 1) + math.ceil(exposure.defocus)
        sharp = _cut(photo, top - margin, left - margin, height + 2 * margin, width + 2 * margin)
        light = torch.from_numpy(cv2.LUT(sharp, self.light)).permute(2, 0, 1)[None].contiguous()
        noise = torch.from_numpy(rng.standard_normal((1, 3, height, width), np.float32))
        stored = develop(expose(light, [exposure], [(x - margin, y - margin)], margin), [exposure], noise)[0]
        lq = (stored * 255).round().byte().permute(1, 2, 0).numpy()
        return lq, sharp[margin:margin + height, margin:margin + width]

    def _load(self, index: int) -> tuple[Path, Image.Image | NDArray[np.uint8]]:
        """Photo ``index``, or with ``skip_corrupt`` the next one that can be read; as an array where it is kept."""
        for attempt in range(len(self.paths)):
            i = (index + attempt) % len(self.paths)
            if self.cache is not None and i in self.cache:
                return self.paths[i], self.cache[i]
            try:
                photo = _decode(self.paths[i])
            except InputError as error:
                if not self.opt.get('skip_corrupt'):
                    raise InputError(f'{error} Or set skip_corrupt: true in this dataset to train without it.') from None
                logging.getLogger('basicsr').warning('%s Skipped.', error)
                continue
            if self.cache is not None:
                photo = self.cache[i] = np.asarray(photo)
            return self.paths[i], photo
        raise InputError(f"No photo in {self.opt['dataroot_gt']} can be read; check the folder.")

    def _window(self, path: Path, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the crop."""
        if not self.gt_size:
            return 0, 0, *size
        if min(size) < self.gt_size:
            raise InputError(f'Photo {path} is {size[1]}x{size[0]} pixels, smaller than gt_size {self.gt_size}; '
                             'remove it or lower gt_size.')
        room = [side - self.gt_size for side in size]
        top, left = rng.integers(0, [room[0] + 1, room[1] + 1]) if self.train else (room[0] // 2, room[1] // 2)
        return int(top), int(left), self.gt_size, self.gt_size

    def _augment(self, lq: NDArray[np.uint8], gt: NDArray[np.uint8],
                 rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Flip (use_hflip) and rotate by 0, 90, 180 or 270 degrees, flip vertically (use_rot)."""
        flip, quarter_turns = rng.integers(2), rng.integers(4)
        if self.opt.get('use_hflip', True) and flip:
            lq, gt = lq[:, ::-1], gt[:, ::-1]
        if self.opt.get('use_rot', True):
            lq, gt = np.rot90(lq, quarter_turns), np.rot90(gt, quarter_turns)
        return lq, gt


def camera_blur(opt: Mapping[str, Any]) -> CameraBlur | None:
    """The block ``blur`` of a data set's options; None without one.

    Raises:
        InputError: If a setting is wrong, or belongs to the simpler blur.
    """
    if opt.get('blur') is None:
        return None
    where = f"datasets: {opt.get('name', 'synthetic')}"
    other = [key for key in ('trajectory_length', 'trajectory', 'noise_sigma', 'linear_light') if opt.get(key) is not None]
    if other:
        raise InputError(f'{where}: {other[0]} is a setting of the blur by one kernel and contradicts blur; remove one of them '
                         '(in blur, length and read_noise say how much).')
    try:
        return CameraBlur.from_options(opt['blur'])
    except ValueError as error:
        raise InputError(f'{where}: blur: {error}') from None


def find_images(folder: str | Path) -> list[Path]:
    """Image files below ``folder``, sorted by path; hidden files (macOS leaves ``._x.png``) are none.

    Raises:
        InputError: If the folder does not exist or holds no image.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(f'dataroot {folder} does not exist or is no folder; check the path in the options file.')
    paths = sorted(path for path in root.rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != '.')
    if not paths:
        raise InputError(f'dataroot {folder} holds no image ({", ".join(sorted(IMAGE_SUFFIXES))}); check the path.')
    return paths


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Decode a photo to (H, W, 3) RGB uint8.

    Raises:
        InputError: If it cannot be decoded as a whole.
    """
    return np.asarray(_decode(path))


def _decode(path: Path) -> Image.Image:
    """The photo upright, in RGB; from Pillow's picture a part becomes an array much sooner than the whole."""
    with open_image(path) as image:  # Pillow, since OpenCV returns a PNG that is cut short as if it were whole
        ImageOps.exif_transpose(image, in_place=True)
        image.load()
        return image if image.mode == 'RGB' else image.convert('RGB')


def _cut(photo: Image.Image | NDArray[np.uint8], top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
    """A window of the photo as (height, width, 3); what of it lies outside is the photo's reflection."""
    rows, columns = _size(photo)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, columns), min(top + height, rows)
    part = photo[y0:y1, x0:x1] if isinstance(photo, np.ndarray) else np.asarray(photo.crop((x0, y0, x1, y1)))
    return cv2.copyMakeBorder(part, y0 - top, top + height - y1, x0 - left, left + width - x1, cv2.BORDER_REFLECT_101)


def _size(photo: Image.Image | NDArray[np.uint8]) -> tuple[int, int]:
    """(H, W)."""
    return photo.shape[:2] if isinstance(photo, np.ndarray) else photo.size[::-1]


def _to_tensor(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
