"""PSNR and SSIM of the images that pyiqa calibrates its metrics by, against the values of the official programs."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest

OFFICIAL = {'I03': (21.11, 0.6993), 'I04': (20.99, 0.9978), 'I06': (27.01, 0.9989), 'I08': (23.3, 0.9669),
            'I19': (21.62, 0.6519)}


@pytest.fixture
def folder() -> Path:
    try:
        folder = Path(str(metadata.distribution('pyiqa').locate_file('ResultsCalibra')))
    except metadata.PackageNotFoundError:
        pytest.skip('pyiqa, with whose package the images come, is not installed')
    if not folder.is_dir():
        pytest.skip('this version of pyiqa comes without the images')
    return folder


@pytest.mark.parametrize('name', OFFICIAL)
def test_scores_are_the_official_ones(name: str, folder: Path) -> None:
    from stochastic_refine.comparison.scoring import metric_function
    distorted, reference = (cv2.imread(str(folder / side / f'{name}.bmp')) for side in ('dist_dir', 'ref_dir'))
    psnr, ssim = OFFICIAL[name]
    assert metric_function('psnr')(distorted, reference) == pytest.approx(psnr, abs=0.004)
    grey = [np.repeat(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None], 3, 2) for image in (distorted, reference)]
    assert metric_function('ssim')(*grey) == pytest.approx(ssim, abs=1e-4)  # the official program sees grey images
