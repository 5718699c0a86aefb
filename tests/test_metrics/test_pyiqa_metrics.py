"""The scores of pyiqa, on a stand-in for the package."""

from __future__ import annotations

import math
import sys
import types
from urllib.error import URLError

import numpy as np
import pytest
import torch

from stochastic_refine.errors import InputError, MetricUnavailable
from stochastic_refine.metrics import pyiqa_metrics as metrics


@pytest.fixture
def pyiqa(monkeypatch):
    """A pyiqa whose scores are the upper left pixel's red value plus the number of pixels."""
    module = types.ModuleType('pyiqa')
    module.created = []

    def create_metric(name, device=None):
        if name == 'maniqa':
            raise URLError('no network in tests')
        module.created.append(name)

        def score(image):
            assert image.dtype == torch.float32 and image.ndim == 4 and image.shape[:2] == (1, 3)
            assert not torch.is_grad_enabled()
            return image[:, 0, 0, 0] + image.shape[2] * image.shape[3]

        return score

    modes = {'NR': ['clipiqa', 'fid', 'maniqa', 'musiq', 'musiq-ava'], 'FR': ['lpips']}
    module.list_models = lambda metric_mode=None: modes[metric_mode] if metric_mode else sorted(sum(modes.values(), []))
    module.create_metric = create_metric
    monkeypatch.setitem(sys.modules, 'pyiqa', module)
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    metrics._network.cache_clear()
    yield module
    metrics._network.cache_clear()


@pytest.fixture
def image():
    image = np.zeros((8, 10, 3), np.uint8)
    image[..., 2] = 51  # red
    image[2, 2, 2] = 102
    return image


def test_networks_get_rgb_in_unit_range_once_loaded(pyiqa, image):
    assert metrics.calculate_musiq(image, better='higher') == pytest.approx(80.2)
    assert metrics.calculate_musiq(image, crop_border=2) == pytest.approx(24.4)
    assert metrics.calculate_clipiqa(image) == metrics.calculate_pyiqa(image, metric='musiq-ava') == pytest.approx(80.2)
    assert pyiqa.created == ['musiq', 'clipiqa', 'musiq-ava']


def test_weights_that_cannot_be_downloaded(pyiqa, image):
    with pytest.raises(MetricUnavailable, match='maniqa.*no network in tests.*run once where there is a network'):
        metrics.calculate_maniqa(image)


@pytest.mark.parametrize('error', [RuntimeError('Kernel size can\'t be greater'), AssertionError(), ValueError('empty')])
def test_images_too_small_for_a_network_have_no_score(pyiqa, image, monkeypatch, error):
    def fails(tensor):
        raise error

    monkeypatch.setattr(pyiqa, 'create_metric', lambda name, device=None: fails)
    assert math.isnan(metrics.calculate_musiq(image))
    with pytest.raises(type(error)):  # not of its size
        metrics.calculate_musiq(np.zeros((256, 256, 3), np.uint8))


def test_missing_package_names_its_licence(pyiqa, image, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyiqa', None)
    with pytest.raises(MetricUnavailable, match='musiq.*pip install pyiqa.*PolyForm Noncommercial'):
        metrics.calculate_musiq(image)


@pytest.mark.parametrize('name, message', [
    ('musik', "no score 'musik'; nearest: musiq, musiq-ava"),
    ('xxxx', "no score 'xxxx'; name one of pyiqa.list_models"),
    ('lpips', "'lpips' needs more than one image"),
    ('fid', "'fid' needs more than one image"),
])
def test_names_that_are_no_score_of_one_image(pyiqa, image, name, message):
    with pytest.raises(InputError, match=message) as error:
        metrics.calculate_pyiqa(image, metric=name)
    assert not isinstance(error.value, MetricUnavailable)


@pytest.mark.parametrize('answers', [True, False])
def test_without_a_network_huggingface_does_not_retry(pyiqa, image, monkeypatch, answers):
    hub = types.ModuleType('huggingface_hub')
    hub.constants = types.SimpleNamespace(HF_HUB_OFFLINE=False, ENDPOINT='https://hub.invalid')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', hub)
    seen, create_metric = [], pyiqa.create_metric

    def connect(address, timeout):
        assert address == ('hub.invalid', 443) and timeout <= 20
        if not answers:
            raise OSError('no network in tests')
        return types.SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(metrics.urllib.request, 'getproxies', dict)
    monkeypatch.setattr(metrics.socket, 'create_connection', connect)
    monkeypatch.setattr(pyiqa, 'create_metric',
                        lambda *args, **kwargs: seen.append(hub.constants.HF_HUB_OFFLINE) or create_metric(*args, **kwargs))
    metrics.calculate_musiq(image)
    assert seen == [not answers] and hub.constants.HF_HUB_OFFLINE is False
