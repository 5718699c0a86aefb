"""PredictedImageDataset: BasicSR's pairs of images with an initial prediction beside each."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils import imfrombytes, img2tensor

from ..errors import InputError
from .predictions import origin_in, origin_of


class PredictedImageDataset(PairedImageDataset):
    """Blurred image, sharp image, and the prediction that ``stochastic-refine prepare predictions`` made of the blurred one.

    Keys of ``opt`` are those of ``PairedImageDataset`` on a disk, and:
        dataroot_initial: Folder of the predictions, ``NAME.png`` for each blurred image ``NAME``.

    Items: ``lq``, ``gt``, ``initial`` of shape (3, H, W), RGB in [0, 1]; ``lq_path``, ``gt_path``.

    Raises:
        InputError: At an item whose prediction is missing, is of another image, or of other weights than the first.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        self.folder = Path(opt['dataroot_initial']).expanduser()
        self.weights = origin_in(self.folder).predictor_sha256

    def __getitem__(self, index: int) -> dict[str, Any]:
        paths = self.paths[index]
        content = {key: Path(paths[f'{key}_path']).read_bytes() for key in ('gt', 'lq')}
        content['initial'] = self._prediction(Path(paths['lq_path']), content['lq'])
        images = [imfrombytes(part, float32=True) for part in content.values()]
        if self.opt['phase'] == 'train':
            gt, others = paired_random_crop(images[:1], images[1:], self.opt['gt_size'], 1, paths['gt_path'])
            images = augment([gt, *others], self.opt['use_hflip'], self.opt['use_rot'])
        return {**dict(zip(content, img2tensor(images, bgr2rgb=True, float32=True))), **paths}

    def _prediction(self, lq: Path, content: bytes) -> bytes:
        path = self.folder / f'{lq.stem}.png'
        if not path.is_file():
            raise InputError(f'{path}, the prediction of {lq}, does not exist; run stochastic-refine prepare predictions '
                             'again.')
        origin = origin_of(path)
        if origin.input_sha256 != hashlib.sha256(content).hexdigest():
            raise InputError(f'{path} is the prediction of another image than {lq}, which was changed since, or has its name '
                             'alone; run stochastic-refine prepare predictions again.')
        if origin.predictor_sha256 != self.weights:
            raise InputError(f'{self.folder} holds predictions of several weights ({path.name} is one); run stochastic-refine '
                             'prepare predictions again with those that you mean.')
        return path.read_bytes()
