"""PredictRefineNet: what training gets from it, what it restores, and which predictors it takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stochastic_refine.archs import PredictRefineNet, build
from stochastic_refine.errors import InputError
from stochastic_refine.losses.noise_loss import NoisePredictionLoss

UNET = {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1}
DENOISER = {**UNET, 'in_channels': 6, 'noise_conditioned': True}
SAMPLING = {'steps': 3, 'final_variance': 0.3}


class FakePredictor(nn.Module):
    """A multi-stage network with state that training mode would change."""

    def __init__(self, gain: float = 0.5) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, self.gain * x + 0 * self.norm(x)]


class PlainDenoiser(nn.Module):
    """A denoiser as third parties write them, which takes all its input at every call; it notes what it is given."""

    def __init__(self, denoise: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.denoise, self.seen = denoise, []

    def forward(self, x: Tensor, noise_level: Tensor) -> Tensor:
        self.seen.append((x, noise_level))
        return self.denoise(x, noise_level)


def make_net(predictor: dict | None = UNET, **options) -> PredictRefineNet:
    torch.manual_seed(0)
    return PredictRefineNet(predictor, DENOISER, sampling=SAMPLING, **options)


@pytest.fixture
def fake_predictor(monkeypatch) -> dict:
    monkeypatch.setitem(build.ARCHS, 'FakePredictor', FakePredictor)
    return {'type': 'FakePredictor'}


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    lq, gt = torch.rand(2, 2, 3, 9, 12, generator=torch.Generator().manual_seed(1))
    return lq, gt


def noise_loss(output: dict[str, Tensor]) -> Tensor:
    return NoisePredictionLoss()(output['noise_prediction'], output['noise'])


def test_training_returns_noise_its_prediction_and_the_initial_prediction(images):
    lq, gt = images
    net = make_net()
    output = net(lq, gt=gt)
    assert set(output) == {'noise', 'noise_level', 'noise_prediction', 'initial'}
    assert output.pop('noise_level').shape == lq.shape[:1]
    assert {value.shape for value in output.values()} == {lq.shape}
    assert torch.equal(output['initial'], net.predict(lq))
    assert not output['noise'].requires_grad


def test_eq_6_alone_trains_the_predictor_through_the_denoiser(images):
    lq, gt = images
    net = make_net()
    noise_loss(net(lq, gt=gt)).backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_without_a_predictor_the_image_itself_is_modelled(images):
    lq, gt = images
    net = make_net(None)
    assert net.predict(lq) is None
    output = net(lq, gt=gt)
    assert set(output) == {'noise', 'noise_level', 'noise_prediction'}
    noise_loss(output).backward()
    assert all(p.grad.any() for p in net.denoiser.parameters())
    with torch.no_grad():
        assert net(lq).shape == lq.shape


def test_a_frozen_predictor_does_not_change_by_a_bit(images, fake_predictor):
    lq, gt = images
    net = make_net({**fake_predictor, 'frozen': True})
    assert not net.predictor.training  # from the start
    assert not any(p.requires_grad for p in net.predictor.parameters())  # or DDP would wait for their gradients
    net.train()
    assert net.denoiser.training and not net.predictor.training
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
    output = net(lq, gt=gt)
    assert not output['initial'].requires_grad
    noise_loss(output).backward()
    optimizer.step()
    changed = {key.partition('.')[0] for key, value in net.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {'denoiser'}


def test_a_predictor_that_is_not_frozen_follows_the_mode_and_learns(images, fake_predictor):
    lq, gt = images
    net = make_net(fake_predictor).train()
    assert net.predictor.training
    assert not net.eval().predictor.training
    noise_loss(net(lq, gt=gt)).backward()
    assert net.predictor.gain.grad != 0


def test_any_network_may_predict_and_the_last_of_several_outputs_counts(images, fake_predictor):
    lq, _ = images
    net = make_net({**fake_predictor, 'gain': 0.25}).eval()
    torch.testing.assert_close(net.predict(lq), 0.25 * lq)


@pytest.mark.parametrize('part', ['predictor', 'denoiser'])
def test_pretrained_loads_into_its_part_and_nothing_else(tmp_path, part):
    torch.manual_seed(5)
    options = {'predictor': UNET, 'denoiser': DENOISER}
    trained = build.build_arch(options[part])
    torch.save({'params': trained.state_dict()}, tmp_path / 'part.pth')
    options[part] = {**options[part], 'pretrained': str(tmp_path / 'part.pth')}
    net = PredictRefineNet(**options)
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in getattr(net, part).state_dict().items())


def test_pretrained_of_another_network_is_refused(tmp_path):
    torch.save({'params': build.build_arch(DENOISER).state_dict()}, tmp_path / 'denoiser.pth')
    with pytest.raises(InputError, match=r'predictor: .*denoiser\.pth holds weights of another network than RefineUNet'):
        make_net({**UNET, 'pretrained': str(tmp_path / 'denoiser.pth')})


def test_restoring_is_repeatable_and_does_not_depend_on_the_batch(images):
    lq, _ = images
    net = make_net().eval()
    with torch.no_grad():
        restored = net(lq)
        torch.manual_seed(99)
        assert torch.equal(net(lq), restored)
        torch.testing.assert_close(net(lq[1:]), restored[1:], rtol=0, atol=1e-5)
        net.sampling['seed'] = 1
        assert (net(lq) - restored).abs().max() > 0.1


@pytest.mark.parametrize('scale', [1.0, 4.0])
@pytest.mark.parametrize('predictor', [UNET, None], ids=['predictor', 'no predictor'])
def test_training_and_sampling_agree_on_what_the_residual_is(images, predictor, scale):
    lq, gt = images
    net = make_net(predictor, residual_scale=scale).eval()
    net.denoiser = PlainDenoiser(lambda x, noise_level: torch.zeros_like(x[:, :3]))
    with torch.no_grad():
        output = net(lq, gt=gt)
    ((x, noise_level), ) = net.denoiser.seen
    signal = noise_level[:, None, None, None].double()
    residual = (x[:, :3] - (1 - signal**2).sqrt() * output['noise']) / signal
    expected = scale * (2 * gt - 1 if predictor is None else 2 * (gt - output['initial']))
    torch.testing.assert_close(residual.float(), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(x[:, 3:], 2 * lq - 1)

    def oracle(x: Tensor, noise_level: Tensor) -> Tensor:
        torch.testing.assert_close(x[:, 3:], 2 * lq - 1)
        signal = noise_level[:, None, None, None].double()
        return ((x[:, :3] - signal * residual) / (1 - signal**2).sqrt()).float()

    net.denoiser = PlainDenoiser(oracle)
    with torch.no_grad():
        torch.testing.assert_close(net(lq), gt, rtol=0, atol=1e-3)


def test_denoiser_can_see_the_initial_prediction():
    """In training and sampling alike, the denoiser's last three channels are the initial prediction in [-1, 1]."""
    net = build.build_arch({'type': 'PredictRefineNet', 'condition_on_initial': True, 'sampling': {'steps': 2},
                      'predictor': {'type': 'RefineUNet', 'base_channels': 4, 'num_res_blocks': 1, 'channel_mults': [1, 2]},
                      'denoiser': {'type': 'RefineUNet', 'base_channels': 4, 'num_res_blocks': 1, 'channel_mults': [1, 2],
                                   'in_channels': 9, 'noise_conditioned': True}}).eval()
    net.denoiser = PlainDenoiser(net.denoiser)
    lq = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        initial = net.predict(lq)
        net(lq), net(lq, gt=lq)
    assert len(net.denoiser.seen) == 3
    for x, noise_level in net.denoiser.seen:
        assert noise_level.shape == (1, )
        torch.testing.assert_close(x[:, 3:], torch.cat([2 * lq - 1, 2 * initial - 1], dim=1))
    with pytest.raises(InputError, match='predictor'):
        build.build_arch({'type': 'PredictRefineNet', 'condition_on_initial': True, 'predictor': None,
                    'denoiser': {'type': 'RefineUNet', 'in_channels': 9, 'noise_conditioned': True}})


@pytest.mark.parametrize('options, unet', [
    ({}, {}),
    ({'residual_scale': 4.0}, {'global_skip': True}),
    ({'condition_on_initial': True, 'residual_scale': 8.0}, {'patch_size': 2}),
], ids=['paper', 'global skip', 'as the bundled weights'])
def test_what_is_computed_once_for_all_steps_changes_nothing(images, options, unet):
    """Two different images in one batch, of a size that is padded."""
    lq, _ = images
    torch.manual_seed(0)
    denoiser = {**DENOISER, **unet, 'in_channels': 9 if 'condition_on_initial' in options else 6}
    net = PredictRefineNet(UNET, denoiser, sampling={**SAMPLING, 'clamp': True}, **options).eval()
    torch.nn.init.normal_(net.denoiser.conv_out.weight, std=0.1)  # zero to begin with under a global skip
    inputs = []
    net.denoiser.register_forward_pre_hook(lambda module, args: inputs.append(args[0].shape[1]))
    with torch.no_grad():
        prepared = net(lq)
        assert inputs == [3] * 3
        net.denoiser = PlainDenoiser(net.denoiser)
        torch.testing.assert_close(prepared, net(lq), rtol=0, atol=1e-5)


def test_a_loss_on_samples_is_refused_in_training_and_samples_are_free():
    net = make_net()
    lq = torch.rand(1, 3, 16, 16)
    samples = net(lq)
    with pytest.raises(InputError, match='StochasticRefineModel'):
        samples.square().mean().backward()
    assert torch.equal(samples, net.eval()(lq))
