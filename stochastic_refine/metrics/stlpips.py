"""ST-LPIPS: shift-tolerant LPIPS (Ghildyal and Liu, ECCV 2022), the learned metric whose weights need no download."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .images import check_same_size, rgb_tensor, without_border
from .networks import loading, metric_device, scoring

#: The smallest side of an image that gets through the network's padding by reflection.
_SMALLEST = 21


def calculate_stlpips(img: NDArray[np.uint8], img2: NDArray[np.uint8], crop_border: int = 0, **kwargs: Any) -> float:
    """ST-LPIPS, AlexNet, version ST0.0; lower is better, 0 for equal images, NaN for images of less than 21 pixels a side.

    Args:
        img: Restored image, (H, W, 3), BGR uint8.
        img2: Ground truth like ``img``.
        crop_border: Pixels left out at each edge.
        **kwargs: BasicSR passes keys such as ``better``; ignored.

    Raises:
        MetricUnavailable: If the package stlpips-pytorch is not installed.
        InputError: If the sizes differ.
    """
    check_same_size(img, img2, 'ST-LPIPS')
    device = metric_device()
    net = _network(device)
    pair = [rgb_tensor(without_border(image, crop_border)).to(device) for image in (img, img2)]
    if min(pair[0].shape[2:]) < _SMALLEST:
        return math.nan
    with scoring():
        return net(*pair, normalize=True).item()


@cache
def _network(device: torch.device) -> nn.Module:
    with loading('ST-LPIPS', 'pip install stlpips-pytorch ipython torchsummary', 'install stlpips-pytorch again'):
        from stlpips_pytorch import stlpips
        return stlpips.LPIPS(net='alex', variant='shift_tolerant', verbose=False).to(device)
