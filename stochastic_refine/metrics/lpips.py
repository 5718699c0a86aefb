"""LPIPS (Zhang et al., CVPR 2018), version 0.1, through its authors' package ``lpips``."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import InputError
from .images import check_same_size, rgb_tensor, without_border
from .networks import loading, metric_device, scoring

#: Networks, and the smallest side of an image that gets through their pooling.
_SMALLEST = {'alex': 31, 'vgg': 16, 'squeeze': 17}


def calculate_lpips(img: NDArray[np.uint8], img2: NDArray[np.uint8], crop_border: int = 0, net: str = 'alex',
                    **kwargs: Any) -> float:
    """LPIPS; lower is better, 0 for equal images, NaN for images too small for the network (below 31 pixels for AlexNet).

    Published deblurring figures use AlexNet; figures of different networks are not comparable, so state the one used.

    Args:
        img: Restored image, (H, W, 3), BGR uint8; the network gets it as RGB in [-1, 1].
        img2: Ground truth like ``img``.
        crop_border: Pixels left out at each edge.
        net: ``'alex'``, ``'vgg'`` or ``'squeeze'``.
        **kwargs: BasicSR passes keys such as ``better``; ignored.

    Raises:
        MetricUnavailable: If the package lpips is missing, or torchvision's weights of the network cannot be downloaded.
        InputError: If the sizes differ or the network is unknown.
    """
    if net not in _SMALLEST:
        raise InputError(f"calculate_lpips: net must be one of {', '.join(_SMALLEST)}, got '{net}'.")
    check_same_size(img, img2, 'LPIPS')
    device = metric_device()
    network = _network(net, device)
    pair = [rgb_tensor(without_border(image, crop_border)).to(device) for image in (img, img2)]
    if min(pair[0].shape[2:]) < _SMALLEST[net]:
        return math.nan
    with scoring():
        return network(*(2 * image - 1 for image in pair)).item()


@cache
def _network(net: str, device: torch.device) -> nn.Module:
    remedy = (f"its trunk has torchvision's weights: run once where there is a network, or copy the file from there into "
              f'{torch.hub.get_dir()}/checkpoints')
    with loading(f'LPIPS ({net})', 'pip install lpips', remedy):
        import lpips
        return lpips.LPIPS(net=net, verbose=False).to(device)
