"""build_perceptual_loss: the squared criterion, and weights that cannot be had. No VGG is built or downloaded."""

from __future__ import annotations

from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
from torch import nn

from stochastic_refine.errors import InputError
from stochastic_refine.registration import prepare_basicsr

OPTIONS = {'type': 'PerceptualLoss', 'layer_weights': {'conv1_1': 2.0}, 'perceptual_weight': 0.5, 'criterion': 'l2'}


@pytest.fixture
def build(monkeypatch, tmp_path):
    """A function that builds the loss with this in VGG19's place."""
    prepare_basicsr()
    from torchvision.models import vgg

    from stochastic_refine.losses.perceptual_loss import build_perceptual_loss
    monkeypatch.chdir(tmp_path)  # where BasicSR looks for weights first

    def build(options, make_vgg):
        monkeypatch.setattr(vgg, 'vgg19', make_vgg)
        return build_perceptual_loss(options)

    return build


def test_squared_differences_of_features(build):
    convolution = nn.Conv2d(3, 4, 3)
    loss = build(OPTIONS, lambda pretrained: SimpleNamespace(features=nn.Sequential(convolution)))
    x, y = torch.rand(2, 1, 3, 8, 8)
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        difference = nn.functional.conv2d((x - y) / std, convolution.weight)
        torch.testing.assert_close(loss(x, y)[0], 0.5 * 2.0 * difference.square().mean())
    assert OPTIONS['criterion'] == 'l2'


def test_conv3_3_is_the_layer_that_deblurgan_v2_takes(build):
    from basicsr.archs.vgg_arch import NAMES
    assert NAMES['vgg19'].index('conv3_3') == 14


def no_network(pretrained):
    raise URLError('no route')


@pytest.mark.parametrize('make_vgg, change, fragments', [
    (no_network, {}, ('vgg19 weights', 'downloaded', 'no route', 'experiments/pretrained_models/vgg19-dcbb9e9d.pth')),
    (no_network, {'layer_weights': {'conv3_33': 1.0}}, ('conv3_33', 'layer_weights', 'known: conv1_1')),
    (no_network, {'criterion': 'l3'}, ('criterion', "'l3'")),
    (no_network, {'vgg_type': 'vgg99'}, ('vgg99', 'vgg_type')),
])
def test_what_cannot_be_built_is_a_sentence(build, make_vgg, change, fragments):
    with pytest.raises(InputError) as error:
        build({**OPTIONS, **change}, make_vgg)
    assert all(fragment in str(error.value) for fragment in fragments) and '\n' not in str(error.value), str(error.value)
    assert 'perceptual_opt' in str(error.value)


def test_a_damaged_file_of_weights(build, tmp_path):
    folder = tmp_path / 'experiments' / 'pretrained_models'
    folder.mkdir(parents=True)
    (folder / 'vgg19-dcbb9e9d.pth').write_bytes(b'half')
    with pytest.raises(InputError, match='vgg19 weights cannot be read'):
        build(OPTIONS, lambda pretrained: nn.Identity())
