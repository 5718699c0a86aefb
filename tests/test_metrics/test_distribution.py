"""FID and KID: patches, features and the two distances."""

from __future__ import annotations

import math
import sys
from urllib.error import URLError

import numpy as np
import pytest
import scipy.linalg
import torch

from stochastic_refine.errors import InputError, MetricUnavailable
from stochastic_refine.metrics import distribution
from stochastic_refine.metrics.distribution import (
    KernelDistance,
    frechet_distance,
    inception_features,
    kernel_distance,
    patches,
)

pytest.importorskip('torch_fidelity')


def diagonal(mean, deviations):
    """Features with exactly this mean, and a sample covariance with these standard deviations and no correlations."""
    scale = math.sqrt((2 * len(deviations) - 1) / 2)
    spikes = np.diag(np.asarray(deviations, float) * scale)
    return np.concatenate([spikes, -spikes]) + np.asarray(mean, float)


def random_features(count, seed, dims=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, dims)) @ rng.normal(size=(dims, dims)) + rng.normal(size=dims)


def unbiased_mmd(x, y):
    """Sum over all pairs, one by one."""
    def kernel(a, b):
        return (a @ b / len(a) + 1)**3

    def within(z):
        return sum(kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) / (len(z) * (len(z) - 1))

    return within(x) + within(y) - 2 * sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))


# ---------------------------------------------------------------- patches


@pytest.mark.parametrize('height, width, count', [(720, 1280, 15), (719, 1279, 8), (240, 256, 1), (239, 256, 0), (480, 300, 2)])
def test_as_many_whole_patches_as_fit(height, width, count):
    found = patches(np.zeros((height, width, 3), np.uint8))
    assert [patch.shape for patch in found] == [(240, 256, 3)] * count


def test_patches_tile_the_image_row_by_row():
    image = np.random.default_rng(0).integers(0, 256, (500, 800, 3), np.uint8)
    found = patches(image)
    rows = [np.concatenate(found[i:i + 3], axis=1) for i in (0, 3)]
    np.testing.assert_array_equal(np.concatenate(rows), image[:480, :768])


# ---------------------------------------------------------------- Frechet distance


def test_frechet_distance_of_known_gaussians():
    a, b = diagonal([1, 2, 3], [1, 2, 0.5]), diagonal([1, 0, 3.5], [3, 2, 1])
    np.testing.assert_allclose(np.cov(b, rowvar=False), np.diag([9, 4, 1]), atol=1e-12)
    assert frechet_distance(a, b) == pytest.approx(4 + 0.25 + (4 + 0 + 0.25), abs=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_against_a_matrix_square_root():
    a, b = random_features(20, 0), random_features(30, 1)
    covariances = [np.cov(each, rowvar=False) for each in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.sum((a.mean(0) - b.mean(0))**2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------- kernel distance


def test_kernel_distance_of_small_sets_is_the_estimate_over_all():
    a, b = random_features(7, 0), random_features(7, 1)
    assert kernel_distance(a, a).value < 0  # the unbiased estimate leaves out the diagonal, where the kernel is largest
    result = kernel_distance(a, b)
    assert result.value == pytest.approx(1000 * unbiased_mmd(a, b), rel=1e-9)
    assert (result.subset_size, result.subsets) == (7, 1) and math.isnan(result.spread)


def test_kernel_distance_over_subsets():
    a, b = random_features(40, 0), random_features(50, 1)
    whole = 1000 * unbiased_mmd(a, b)
    result = kernel_distance(a, b, subset_size=20, subsets=200, seed=1)
    assert result == kernel_distance(a, b, subset_size=20, subsets=200, seed=1)
    assert result != kernel_distance(a, b, subset_size=20, subsets=200, seed=2)
    assert (result.subset_size, result.subsets) == (20, 200)
    assert 0 < result.spread and abs(result.value - whole) < 4 * result.spread / math.sqrt(200)
    assert kernel_distance(a, b, subsets=3).subset_size == 40
    assert kernel_distance(a, b, subsets=3).subsets == 3  # draws from the larger set still differ


def test_against_torchmetrics():
    kid = pytest.importorskip('torchmetrics.image.kid')
    a, b = random_features(12, 0), random_features(12, 1)
    expected = kid.poly_mmd(torch.from_numpy(a), torch.from_numpy(b)).item()
    assert kernel_distance(a, b).value == pytest.approx(1000 * expected, rel=1e-6)


@pytest.mark.parametrize('distance', [frechet_distance, kernel_distance])
def test_sets_that_have_no_distance(distance, monkeypatch):
    one, two = random_features(1, 0), random_features(2, 0)
    with pytest.raises(InputError, match=r'at least two patches of 256x240.*\(1, 6\)'):
        distance(two, one)
    with pytest.raises(InputError, match='6 and 5 values'):
        distance(two, two[:, 1:])
    assert isinstance(distance(two, two), (float, KernelDistance))
    for name in [name for name in sys.modules if name.split('.')[0] == 'torch_fidelity']:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MetricUnavailable, match='pip install torch-fidelity'):
        distance(two, two)


# ---------------------------------------------------------------- features


@pytest.fixture
def extractor(monkeypatch):
    """A stand-in for the library's network: of each image the mean of each channel; it notes the sizes of batches."""
    sizes = []

    class Extractor(torch.nn.Module):
        def __init__(self, name, features_list):
            super().__init__()
            assert (name, features_list) == ('inception-v3-compat', ['2048'])

        def forward(self, x):
            assert x.dtype == torch.uint8 and x.shape[1:] == (3, 6, 7)
            sizes.append(len(x))
            return (x.float().mean((2, 3)).repeat(1, 683)[:, :2048], )

    monkeypatch.setattr('torch_fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3', Extractor)
    distribution._inception.cache_clear()
    yield sizes
    distribution._inception.cache_clear()


def test_features_of_a_stream_of_images(extractor):
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
    features = inception_features((image for image in images), batch_size=2)
    assert features.shape == (5, 2048) and extractor == [2, 2, 1]
    np.testing.assert_allclose(features[:, :3], images.mean((1, 2)), rtol=1e-6)
    assert inception_features([]).shape == (0, 2048)
    with pytest.raises(InputError, match='RGB uint8'):
        inception_features([images[0].astype(np.float32)])


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise URLError('no network in tests')

    monkeypatch.setattr('torch.hub.urlopen', refuse)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(torch.nn.Conv2d, 'reset_parameters', lambda layer: None)  # saves the time of 24 million random numbers
    distribution._inception.cache_clear()
    with pytest.raises(MetricUnavailable, match='FID/KID.*no network in tests.*checkpoints'):
        inception_features([])
