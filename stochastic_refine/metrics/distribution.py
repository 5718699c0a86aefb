"""FID (Heusel et al., NeurIPS 2017) and KID (Binkowski et al., ICLR 2018) between two sets of patches.

The protocol of "Deblurring via Stochastic Refinement": non-overlapping patches, 15 from a 1280x720 image. Network, weights
and formulas are those of the library torch-fidelity. Images here are RGB, unlike those of the other metrics.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import InputError
from .networks import loading, metric_device, scoring

#: Width and height of a patch: a 5 x 3 grid in 1280x720.
PATCH_SIZE = (256, 240)
_INSTALL = 'pip install torch-fidelity'


@dataclass(frozen=True)
class KernelDistance:
    """KID times 1000, and how it was estimated.

    Attributes:
        value: Mean over the subsets of the unbiased estimate, times 1000; it may be below 0.
        spread: Standard deviation over the subsets, times 1000; NaN where there is only one.
        subset_size: Features of each set in a subset.
        subsets: How many subsets were drawn; 1 if it holds all features.
    """

    value: float
    spread: float
    subset_size: int
    subsets: int


def patches(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """As many whole patches of width 256 and height 240 as fit, row by row on a grid from the top left.

    Args:
        image: (H, W, C).
    """
    width, height = PATCH_SIZE
    return [image[top:top + height, left:left + width]
            for top in range(0, image.shape[0] - height + 1, height)
            for left in range(0, image.shape[1] - width + 1, width)]


def inception_features(images: Iterable[NDArray[np.uint8]], batch_size: int = 16) -> NDArray[np.float32]:
    """Pooled features (n, 2048) of torch-fidelity's ``inception-v3-compat``, which resizes to 299x299 as the original did.

    Args:
        images: Images of one size, (H, W, 3), RGB uint8; read one batch at a time.
        batch_size: Images at once.

    Raises:
        MetricUnavailable: If torch-fidelity is missing, or its Inception weights cannot be downloaded.
        InputError: If an image is not (H, W, 3) uint8.
    """
    device = metric_device()
    network = _inception(device)
    images, features = iter(images), [np.empty((0, 2048), np.float32)]
    while batch := list(itertools.islice(images, batch_size)):
        for image in batch:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise InputError(f'FID and KID need RGB uint8 images (H, W, 3), got {image.dtype} {image.shape}; convert them.')
        tensor = torch.from_numpy(np.stack(batch).transpose(0, 3, 1, 2).copy()).to(device)
        with scoring():
            features.append(network(tensor)[0].cpu().numpy())
    return np.concatenate(features)


def frechet_distance(features_a: NDArray[np.floating], features_b: NDArray[np.floating]) -> float:
    """FID: ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``, covariances with n - 1; lower is better.

    It is biased upwards for small sets, so sets of different sizes do not compare.

    Args:
        features_a: (n, d), n at least 2.
        features_b: (m, d), m at least 2.

    Raises:
        MetricUnavailable: If torch-fidelity is missing.
        InputError: If a set has fewer than two features or the shapes do not fit.
    """
    features = _checked(features_a, features_b, 'FID')
    with _library('FID'):
        from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
    return fid_statistics_to_metric(*map(fid_features_to_statistics, features), verbose=False)[KEY_METRIC_FID]


def kernel_distance(features_a: NDArray[np.floating], features_b: NDArray[np.floating], subset_size: int = 1000,
                    subsets: int = 100, seed: int = 0) -> KernelDistance:
    """KID times 1000: the unbiased squared MMD under the kernel ``(x.y / d + 1)^3``; lower is better.

    If both sets have one size of at most ``subset_size``, they are one subset; the estimate is then that over all features.
    If only one of them is smaller, the subsets have its size.

    Args:
        features_a: (n, d), n at least 2.
        features_b: (m, d), m at least 2.
        subset_size: Features drawn from each set, without replacement.
        subsets: How many draws.
        seed: Of the draws.

    Raises:
        MetricUnavailable: If torch-fidelity is missing.
        InputError: If a set has fewer than two features or the shapes do not fit.
    """
    features = _checked(features_a, features_b, 'KID')
    sizes = [len(each) for each in features]
    subset_size = min(subset_size, *sizes)
    if sizes == [subset_size, subset_size]:
        subsets = 1
    with _library('KID'):
        from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
    kid = kid_features_to_metric(*features, kid_subsets=subsets, kid_subset_size=subset_size, rng_seed=seed, verbose=False)
    spread = 1000 * kid[KEY_METRIC_KID_STD] if subsets > 1 else math.nan
    return KernelDistance(1000 * kid[KEY_METRIC_KID_MEAN], spread, subset_size, subsets)


def _checked(features_a: NDArray[np.floating], features_b: NDArray[np.floating], metric: str) -> list[torch.Tensor]:
    """Both as float64, in which the library then computes."""
    for features in (features_a, features_b):
        if features.ndim != 2 or len(features) < 2:
            raise InputError(f'{metric} needs at least two patches of {PATCH_SIZE[0]}x{PATCH_SIZE[1]} on each side, got '
                             f'features of shape {features.shape}; give more or larger images.')
    if features_a.shape[1] != features_b.shape[1]:
        raise InputError(f'{metric} compares features of one network, got {features_a.shape[1]} and {features_b.shape[1]} '
                         'values for each patch; compute both in the same way.')
    return [torch.from_numpy(np.ascontiguousarray(features, np.float64)) for features in (features_a, features_b)]


def _library(metric: str) -> AbstractContextManager[None]:
    return loading(metric, _INSTALL, 'install torch-fidelity again')


@cache
def _inception(device: torch.device) -> nn.Module:
    remedy = f'run once where there is a network, or copy the file from there into {torch.hub.get_dir()}/checkpoints'
    with loading('FID/KID', _INSTALL, remedy):
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        return FeatureExtractorInceptionV3('inception-v3-compat', ['2048']).to(device)
