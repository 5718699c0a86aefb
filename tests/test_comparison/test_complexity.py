"""Parameters and GFLOPs, against published figures and by hand."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from conftest import unet
from torch import nn

from stochastic_refine.archs import PredictRefineNet, build_arch
from stochastic_refine.comparison.complexity import complexity, operating_cost
from stochastic_refine.inference.operating_point import OperatingPoint


@pytest.fixture
def mmengine():
    pytest.importorskip('mmengine')


def test_one_convolution_by_hand(mmengine):
    cost = complexity(nn.Conv2d(3, 8, 3, padding=1), 720, 1280)
    assert cost.params == 8 * 3 * 9 + 8
    assert cost.gflops == pytest.approx(2e-9 * 8 * 3 * 9 * 720 * 1280, rel=1e-9)  # additions of the bias are not counted
    assert (cost.measured_at, cost.uncounted, cost.note) == ('1280x720', {}, '')


@pytest.mark.parametrize(('channels', 'params', 'gflops'), [(16, 1.63, 301), (32, 6.52, 1200)])
def test_published_predictors(mmengine, channels, params, gflops):
    cost = complexity(build_arch({'type': 'RefineUNet', 'base_channels': channels}))
    assert round(cost.million_params, 2) == params
    assert cost.gflops == pytest.approx(gflops, rel=0.003)


@pytest.mark.parametrize(('options', 'height', 'width'), [
    (unet(), 50, 70),  # padded to whole pooled pixels
    ({'type': 'HINet', 'wf': 8}, 96, 80),  # instance normalisation
    ({'type': 'Restormer', 'dim': 8, 'num_blocks': [1, 1, 1, 1], 'num_refinement_blocks': 1}, 72, 104),  # attention
], ids=lambda value: value['type'] if isinstance(value, dict) else str(value))
def test_equals_mmengines_count_at_full_size(mmengine, options, height, width):
    from mmengine.analysis import FlopAnalyzer
    net = build_arch(options).eval()
    with torch.no_grad():
        direct = FlopAnalyzer(net, (torch.rand(1, 3, height, width), )).unsupported_ops_warnings(False).total()
    assert complexity(net, height, width).gflops == pytest.approx(2e-9 * direct, rel=0.005)


def test_passed_over_operators_are_named_silently(mmengine, caplog, capfd):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.to_tokens = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return torch.fft.rfft2(self.to_tokens(x)).abs().softmax(dim=-1)

    with caplog.at_level(logging.WARNING):
        cost = complexity(Attention(), 64, 64)
    assert cost.uncounted.keys() >= {'aten::fft_rfft2', 'aten::softmax'}
    assert not caplog.records and capfd.readouterr() == ('', '')


def test_without_a_meta_kernel_pixels_are_counted(mmengine):
    class OnCPU(nn.Conv2d):
        def forward(self, x):
            return super().forward(torch.from_numpy(x.numpy(force=True)) if x.device.type == 'cpu' else x.numpy())

    cost = complexity(OnCPU(3, 8, 3, padding=1), 128, 96)
    assert cost.gflops == pytest.approx(2e-9 * 8 * 3 * 9 * 128 * 96)
    assert 'scaled' in cost.measured_at


def test_a_net_that_cannot_run_has_a_note(mmengine):
    cost = complexity(nn.Conv2d(4, 8, 3))
    assert (cost.params, cost.gflops) == (8 * 4 * 9 + 8, None)
    assert 'Conv2d cannot be traced' in cost.note


def test_without_mmengine(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmengine.analysis', None)
    cost = complexity(nn.Conv2d(3, 8, 3))
    assert cost.params == 224 and cost.gflops is None and 'pip install mmengine' in cost.note


def refine_net(**options) -> PredictRefineNet:
    channels = 9 if options.get('condition_on_initial') else 6
    return PredictRefineNet(unet(), unet(in_channels=channels, noise_conditioned=True), **options)


@pytest.mark.parametrize('options', [{}, {'condition_on_initial': True}], ids=str)
def test_operating_cost_is_predictor_plus_every_denoiser_call(mmengine, options):
    net = refine_net(**options)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    once = operating_cost(net, OperatingPoint(steps=1), 48, 64)
    many = operating_cost(net, OperatingPoint(steps=10, num_samples=4, average=True), 48, 64)
    predictor = complexity(net.predictor, 48, 64).gflops
    assert many.gflops - predictor == pytest.approx(40 * (once.gflops - predictor))
    assert many.params == sum(parameter.numel() for parameter in net.parameters())
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items()) and net.training


def test_operating_cost_of_other_networks_ignores_the_point(mmengine):
    net = build_arch(unet())
    assert operating_cost(net, OperatingPoint(steps=500), 48, 64) == complexity(net, 48, 64)
    with pytest.raises(ValueError, match='operating_cost'):
        complexity(refine_net())
