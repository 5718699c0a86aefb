"""What the metrics share: cropping, channel order, and how a library's failure becomes a sentence."""

from __future__ import annotations

import math
import pickle
import socket
import sys
from urllib.error import URLError

import numpy as np
import pytest
import torch

from stochastic_refine.errors import InputError, MetricUnavailable
from stochastic_refine.metrics.images import rgb_tensor, without_border
from stochastic_refine.metrics.networks import TIMEOUT, loading
from stochastic_refine.metrics.stlpips import _network, calculate_stlpips


def test_tensor_is_rgb_in_unit_range():
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 1] = (0, 51, 255)  # blue, green, red
    assert rgb_tensor(image).shape == (1, 3, 2, 3)
    torch.testing.assert_close(rgb_tensor(image)[0, :, 0, 1], torch.tensor([1.0, 0.2, 0.0]))


def test_border():
    image = np.arange(5 * 6 * 3).reshape(5, 6, 3)
    np.testing.assert_array_equal(without_border(image, 0), image)
    np.testing.assert_array_equal(without_border(image, 2), image[2:3, 2:4])


@pytest.mark.parametrize('error, fragments', [
    (ModuleNotFoundError("No module named 'abc'"), ('The metric X needs packages', "named 'abc'", 'pip install abc.')),
    (URLError('unreachable'), ('network of the metric X', 'unreachable', 'do that.')),
    (RuntimeError('invalid hash\nvalue.'), ('RuntimeError: invalid hash value);', 'do that.')),
])
def test_a_librarys_failure_is_one_sentence_and_leaves_no_trace(error, fragments, capsys):
    timeout, state = socket.getdefaulttimeout(), torch.get_rng_state()
    with pytest.raises(MetricUnavailable) as caught, loading('X', 'pip install abc', 'do that'):
        assert socket.getdefaulttimeout() == TIMEOUT
        torch.rand(3)
        print('Downloading')
        raise error
    assert all(fragment in str(caught.value) for fragment in fragments) and '\n' not in str(caught.value)
    assert socket.getdefaulttimeout() == timeout and torch.equal(torch.get_rng_state(), state)
    assert capsys.readouterr().out == ''
    assert type(pickle.loads(pickle.dumps(caught.value))) is MetricUnavailable  # it may come from another process


def test_bad_input_within_stays_bad_input():
    with pytest.raises(InputError, match='wrong name') as caught, loading('X', 'a', 'b'):
        raise InputError('wrong name')
    assert not isinstance(caught.value, MetricUnavailable)


def test_stlpips_of_images_too_small_for_its_network():
    pytest.importorskip('stlpips_pytorch')
    x, y = (np.random.default_rng(seed).integers(0, 256, (24, 40, 3), dtype=np.uint8) for seed in (0, 1))
    for side in (1, 8, 20):
        assert math.isnan(calculate_stlpips(x[:side], y[:side])) and math.isnan(calculate_stlpips(x[:, :side], y[:, :side]))
    assert calculate_stlpips(x[:21], y[:21]) > 0


def test_stlpips_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'stlpips_pytorch', None)
    _network.cache_clear()
    image = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(MetricUnavailable, match='ST-LPIPS.*pip install stlpips-pytorch'):
        calculate_stlpips(image, image)


def test_images_of_two_sizes_are_refused():
    with pytest.raises(InputError, match='got 40x32 and 32x40'):
        calculate_stlpips(np.zeros((32, 40, 3), np.uint8), np.zeros((40, 32, 3), np.uint8))
