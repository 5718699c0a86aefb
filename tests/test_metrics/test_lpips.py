"""calculate_lpips on random AlexNet weights in a hub cache of its own, so without a download."""

from __future__ import annotations

import math
import socket
import sys
from urllib.error import URLError

import numpy as np
import pytest
import torch

from stochastic_refine.errors import InputError, MetricUnavailable
from stochastic_refine.metrics import lpips as metric

pytest.importorskip('lpips')


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path):
    """An empty folder for torch.hub, and no network."""
    def refuse(*args, **kwargs):
        assert socket.getdefaulttimeout() is not None, 'a download without a time limit may hang'
        raise URLError('no network in tests')

    monkeypatch.setattr('torch.hub.urlopen', refuse)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(torch.nn.Linear, 'reset_parameters', lambda layer: None)  # LPIPS drops AlexNet's 58 million of them
    metric._network.cache_clear()
    yield tmp_path / 'hub'
    metric._network.cache_clear()


def images(side=40):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (side, side, 3), np.uint8) for _ in range(2)]


def test_is_the_packages_distance_of_rgb_in_minus_one_to_one(hub):
    import lpips
    import torchvision
    torch.manual_seed(0)
    alexnet = torchvision.models.alexnet()
    state = {key: value if key.startswith('features') else torch.zeros(1).expand(value.shape)  # one number in the file
             for key, value in alexnet.state_dict().items()}
    (hub / 'checkpoints').mkdir(parents=True)
    url = torchvision.models.AlexNet_Weights.DEFAULT.url
    torch.save(state, hub / 'checkpoints' / url.rsplit('/', 1)[-1])

    x, y = images()
    random = torch.get_rng_state()
    score = metric.calculate_lpips(x, y, better='lower')
    assert torch.equal(torch.get_rng_state(), random)
    assert metric.calculate_lpips(x, x) == 0 < score

    network = lpips.LPIPS(net='alex', verbose=False)
    tensors = [torch.from_numpy(image.copy()).flip(2).permute(2, 0, 1)[None] / 127.5 - 1 for image in (x, y)]
    with torch.inference_mode():
        expected, in_bgr = network(*tensors).item(), network(*(tensor.flip(1) for tensor in tensors)).item()
        unscaled = network(*((tensor + 1) / 2 for tensor in tensors)).item()
        cropped = network(*(tensor[..., 3:-3, 3:-3] for tensor in tensors)).item()
    assert score == pytest.approx(expected, rel=1e-5)
    assert min(abs(expected - other) for other in (in_bgr, unscaled)) > 1e-3 * expected, 'the test could not tell them apart'
    assert metric.calculate_lpips(x, y, crop_border=3) == pytest.approx(cropped, rel=1e-5)
    assert metric._network.cache_info().misses == 1

    assert math.isnan(metric.calculate_lpips(x[:30], y[:30])) and metric.calculate_lpips(x[:31], y[:31]) > 0


def test_weights_that_cannot_be_downloaded(capsys):
    with pytest.raises(MetricUnavailable, match=r'LPIPS \(alex\).*no network in tests.*checkpoints\.'):
        metric.calculate_lpips(*images())
    assert capsys.readouterr().out == ''


def test_package_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'lpips', None)
    with pytest.raises(MetricUnavailable, match=r'LPIPS \(vgg\).*run: pip install lpips\.'):
        metric.calculate_lpips(*images(), net='vgg')


def test_unknown_network():
    with pytest.raises(InputError, match="alex, vgg, squeeze, got 'alexnet'"):
        metric.calculate_lpips(*images(), net='alexnet')
