"""calculate_niqe_or_nan: BasicSR's score, or none."""

from __future__ import annotations

import math
import warnings

import cv2
import numpy as np
import pytest
import skimage.data

from stochastic_refine.registration import prepare_basicsr

prepare_basicsr()


@pytest.fixture
def photo():
    return np.ascontiguousarray(skimage.data.astronaut()[..., ::-1])


def test_is_basicsrs_score(photo):
    from basicsr.metrics.niqe import calculate_niqe

    from stochastic_refine.metrics.niqe import calculate_niqe_or_nan
    two_blocks = photo[100:296, 100:204]
    assert calculate_niqe_or_nan(two_blocks, crop_border=2, better='lower') == calculate_niqe(two_blocks, 2)
    assert calculate_niqe_or_nan(cv2.GaussianBlur(two_blocks, (0, 0), 2)) > calculate_niqe_or_nan(two_blocks) + 1


@pytest.mark.parametrize('height, width, border', [(96, 191, 0), (95, 300, 0), (64, 72, 0), (96, 192, 1)])
def test_images_below_two_blocks_have_no_score(photo, height, width, border):
    from stochastic_refine.metrics.niqe import calculate_niqe_or_nan
    assert math.isnan(calculate_niqe_or_nan(photo[:height, :width], crop_border=border))


def test_flat_images_have_no_score_and_raise_no_warning(photo):
    from stochastic_refine.metrics.niqe import calculate_niqe_or_nan
    one_block = np.full((96, 288, 3), 90, np.uint8)
    one_block[:, :96] = photo[:96, :96]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert math.isnan(calculate_niqe_or_nan(np.full((192, 192, 3), 90, np.uint8)))
        assert math.isnan(calculate_niqe_or_nan(one_block))
