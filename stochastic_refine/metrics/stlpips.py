"""ST-LPIPS: shift-tolerant LPIPS (Ghildyal and Liu, ECCV 2022), the learned metric whose weights need no download."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import InputError


def calculate_stlpips(img: NDArray[np.uint8], img2: NDArray[np.uint8], crop_border: int = 0, **kwargs: Any) -> float:
    """ST-LPIPS, AlexNet, version ST0.0; lower is better, 0 for equal images.

    Args:
        img: Restored image, (H, W, 3), BGR uint8.
        img2: Ground truth like ``img``.
        crop_border: Pixels left out at each edge.
        **kwargs: BasicSR passes keys such as ``better``; ignored.

    Raises:
        InputError: If the package stlpips-pytorch is not installed.
    """
    net = _network()
    pair = [image[crop_border:image.shape[0] - crop_border, crop_border:image.shape[1] - crop_border] for image in (img, img2)]
    tensors = [torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))[None].float() / 255 for image in pair]
    with torch.inference_mode():
        return net(*tensors, normalize=True).item()


@cache
def _network() -> nn.Module:
    try:
        from stlpips_pytorch import stlpips
    except ImportError as error:
        raise InputError(f'The metric ST-LPIPS needs packages that are not installed ({error}); run: '
                         'pip install stlpips-pytorch ipython torchsummary.') from error
    return stlpips.LPIPS(net='alex', variant='shift_tolerant', verbose=False)
