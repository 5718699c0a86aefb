"""PredictRefineNet with a flow: what training gets, what is sampled, whole and tiled, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stochastic_refine.archs import PredictRefineNet
from stochastic_refine.diffusion import FlowPath, SampleNoise
from stochastic_refine.errors import InputError
from stochastic_refine.inference.deblurrer import Deblurrer
from stochastic_refine.inference.operating_point import OperatingPoint
from stochastic_refine.inference.restorer import Restorer
from stochastic_refine.inference.tradeoff import point_at
from stochastic_refine.losses.flow_loss import FlowLoss

UNET = {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1}
CHANNELS = {'none': 3, 'lq': 6, 'lq+initial': 9}
every_condition = pytest.mark.parametrize('condition', CHANNELS)


def make_net(condition: str = 'lq+initial', **options) -> PredictRefineNet:
    torch.manual_seed(0)
    denoiser = {**UNET, 'in_channels': CHANNELS[condition], 'noise_conditioned': True}
    return PredictRefineNet(UNET, denoiser, residual_scale=8.0, refiner='flow', condition=condition, **options)


def images() -> tuple[Tensor, Tensor]:
    lq, gt = torch.rand(2, 2, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    return lq, gt


@every_condition
def test_training_reaches_every_parameter(condition):
    lq, gt = images()
    net = make_net(condition)
    output = net(lq, gt=gt)
    assert torch.equal(output['residual'], 16 * (gt - output['initial']))
    FlowLoss()(output['residual_prediction'], output['residual'], output['weight']).backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


@every_condition
@pytest.mark.parametrize('sampler', ['flow_euler', 'flow_heun'])
def test_restorer_walks_the_flow_whole_and_tiled(condition, sampler):
    """Against a plain loop over net.denoise that shares nothing."""
    net, steps = make_net(condition, start_noise=0.05).eval(), 3
    lq = torch.rand(3, 90, 70, generator=torch.Generator().manual_seed(2))
    point = OperatingPoint(sampler, steps=steps, num_samples=2, seed=5)
    calls = []
    restored = Restorer(net, tile=None, on_call=lambda done, total: calls.append((done, total))).restore(
        lq, point, keep_samples=True)
    assert calls[-1] == (len(calls), len(calls)) and len(calls) == 1 + point.calls
    with torch.no_grad():
        initial = net.predict(lq[None])
        condition_ = net.conditioning(lq[None], initial).expand(2, -1, -1, -1)
        z = FlowPath(0.05, 8.0).start(SampleNoise([5, 6], lq.shape)())

        def end(z: Tensor, t: float) -> Tensor:
            return net.denoise(z, condition_, torch.full((2, ), t))

        for k in range(steps - 1):
            t, h = k / steps, 1 / steps
            v = (end(z, t) - z) / (1 - t)
            if sampler == 'flow_heun':
                v = (v + (end(z + h * v, t + h) - (z + h * v)) / (1 - t - h)) / 2
            z = z + h * v
        expected = (initial + end(z, (steps - 1) / steps) / 16).clamp(0, 1)
    torch.testing.assert_close(restored.samples, expected, atol=2e-5, rtol=0)
    tiled = Restorer(net, tile=16).restore(lq, point, keep_samples=True)
    torch.testing.assert_close(tiled.samples, restored.samples, atol=2e-5, rtol=0)
    assert restored.std.mean() > 0


def test_net_of_lq_samples_by_its_own_settings():
    lq, _ = images()
    net = make_net(sampling={'steps': 2, 'last_time': 0.3, 'seed': 4}).eval()
    point = OperatingPoint('flow_euler', steps=2, last_time=0.3, seed=4)
    with torch.no_grad():
        restored = Restorer(net, tile=None).restore(lq[0], point).image
        torch.testing.assert_close(net(lq)[0].clamp(0, 1), restored, atol=1e-5, rtol=0)


def test_loss_by_hand():
    prediction, residual, weight = torch.tensor([[[[1.0]]], [[[3.0]]]]), torch.zeros(2, 1, 1, 1), torch.tensor([1.0, 4.0])
    assert FlowLoss()(prediction, residual, weight) == (1 + 36) / 2
    assert FlowLoss(norm='l1', loss_weight=2)(prediction, residual, weight) == 1 + 6
    assert FlowLoss(weighted=False)(prediction, residual, weight) == (1 + 9) / 2


def test_points_of_a_flow_keep_what_means_something():
    point = OperatingPoint.from_options({'sampler': 'flow_euler', 'steps': 3, 'last_time': 0.5})
    assert point.as_options() == {'sampler': 'flow_euler', 'steps': 3, 'num_samples': 1, 'average': False, 'seed': 0,
                                  'clamp': False, 'last_time': 0.5}
    assert OperatingPoint.from_options(point.as_options()) == point
    path = [OperatingPoint('flow_euler', steps=1), OperatingPoint('flow_euler', steps=4)]
    assert point_at(path, 0.5).steps == 2 and point_at(path, 0.5).is_flow
    deblurrer = Deblurrer(make_net(), device='cpu')
    assert deblurrer.operating_point() == OperatingPoint('flow_euler', steps=2)
    with pytest.raises(InputError, match='final_variance means nothing to the sampler flow_euler.*last_time'):
        deblurrer.operating_point(final_variance=0.2)


@pytest.mark.parametrize('options, fragments', [
    ({'sampler': 'flow_euler', 'final_variance': 0.1}, ('final_variance means nothing', 'last_time')),
    ({'sampler': 'flow_euler', 'eta': 0.0}, ('eta means nothing', )),
    ({'sampler': 'flow_heun', 'grid_steps': 4}, ('grid_steps means nothing', )),
    ({'sampler': 'ddim', 'last_time': 0.5}, ('last_time means nothing', 'final_variance')),
    ({'sampler': 'flow_euler', 'last_time': 1}, ('last_time must lie between 0 and 1', '1')),
])
def test_settings_without_meaning_are_refused(options, fragments):
    with pytest.raises(InputError) as error:
        OperatingPoint.from_options({'steps': 2, **options}, 'val')
    assert all(fragment in str(error.value) for fragment in ('val', *fragments))


def test_samplers_draw_from_their_own_refiner():
    lq = torch.rand(3, 12, 16)
    with pytest.raises(InputError, match='refiner is a flow.*ancestral.*flow_euler or flow_heun'):
        Restorer(make_net()).restore(lq, OperatingPoint(steps=2))
    diffusion = PredictRefineNet(UNET, {**UNET, 'in_channels': 6, 'noise_conditioned': True})
    with pytest.raises(InputError, match='refiner is a diffusion.*flow_euler.*ancestral or ddim'):
        Restorer(diffusion).restore(lq, OperatingPoint('flow_euler', steps=2))


def test_a_flow_trained_for_some_calls_samples_with_no_others():
    net = make_net(flow_calls=4)
    assert Deblurrer(net, device='cpu').operating_point().steps == 4
    restorer, lq = Restorer(net), torch.rand(3, 12, 16)
    assert restorer.restore(lq, OperatingPoint('flow_euler', steps=2)).image.isfinite().all()
    for point in (OperatingPoint('flow_euler', steps=3), OperatingPoint('flow_euler', steps=2, last_time=0.3)):
        with pytest.raises(InputError, match='trained for 4 even steps'):
            restorer.restore(lq, point)


@pytest.mark.parametrize('options, words', [
    ({'flow_calls': 2, 'refiner': 'diffusion'}, 'flow_calls is a number of steps'),
    ({'predictor': None}, 'needs a predictor'),
    ({'refiner': 'diffusion', 'condition': 'none'}, 'is for refiner: flow'),
    ({'condition': 'lq', 'condition_on_initial': True}, 'give one'),
    ({'start_noise': 0.0}, 'start_noise must be above 0'),
])
def test_networks_that_cannot_be_are_refused(options, words):
    denoiser = {**UNET, 'in_channels': 6, 'noise_conditioned': True}
    with pytest.raises(ValueError, match=words):
        PredictRefineNet(**{'predictor': UNET, 'denoiser': denoiser, 'refiner': 'flow', **options})
