"""RefineUNet against the paper's published counts, its declared reach, and any image size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stochastic_refine.archs import RefineUNet

PREDICTOR, DENOISER = {}, {'in_channels': 6, 'noise_conditioned': True}


def meta_net(**options) -> RefineUNet:
    with torch.device('meta'):
        return RefineUNet(**options)


def tiny_net(**options) -> RefineUNet:
    torch.manual_seed(0)
    return RefineUNet(**{'base_channels': 4, 'num_res_blocks': 1, **options})


def conditioned_input(batch: int = 2, side: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, 6, side, side, generator=generator), torch.rand(batch, generator=generator)


@pytest.mark.parametrize(('options', 'base_channels', 'parameters', 'published_millions'), [
    (PREDICTOR, 16, 1_632_547, 1.63),
    (PREDICTOR, 32, 6_520_899, 6.52),
    (PREDICTOR, 64, 26_065_027, 26.07),
    (DENOISER, 32, 6_926_403, 7),
    (DENOISER, 64, 27_678_851, 28),
])
def test_parameters_are_those_of_the_paper(options, base_channels, parameters, published_millions):
    net = meta_net(base_channels=base_channels, **options)
    assert sum(p.numel() for p in net.parameters()) == parameters
    digits = len(str(published_millions).partition('.')[2])
    assert round(parameters / 1e6, digits) == published_millions


def test_the_two_nets_together_have_the_papers_33_million_parameters():
    nets = meta_net(base_channels=64), meta_net(base_channels=32, **DENOISER)
    assert round(sum(p.numel() for net in nets for p in net.parameters()) / 1e6) == 33


@pytest.mark.parametrize(('base_channels', 'published_gflops'), [(16, 301), (32, 1200), (64, 4790)])
def test_cost_at_720p_is_that_of_the_paper(base_channels, published_gflops):
    assert gflops(meta_net(base_channels=base_channels)) == pytest.approx(published_gflops, rel=0.005)


def gflops(net: RefineUNet) -> float:
    """2 x multiply-accumulates for one 1280x720 image, in 1e9."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.empty(1, 3, 720, 1280, device='meta'))
    return counter.get_total_flops() / 1e9


def test_the_papers_net_sees_286_pixels_far():
    assert meta_net().receptive_radius == 286


SIZES = [(1, 1), (1, 9), (7, 13), (3, 2), (17, 33), (8, 16)]


@pytest.mark.parametrize('patch_size', [1, 2])
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_any_size_equals_the_reflect_padded_image(size, patch_size):
    net = tiny_net(patch_size=patch_size).eval()
    assert net.size_multiple == 8 * patch_size
    x = torch.rand(1, 3, *size)
    missing = [(0, -side % net.size_multiple) for side in size]
    padded = torch.from_numpy(np.pad(x.numpy(), [(0, 0), (0, 0), *missing], mode='reflect'))
    with torch.no_grad():
        output = net(x)
        expected = net(padded)[..., :size[0], :size[1]]
    assert output.shape == x.shape
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)


def test_patch_size_2_costs_a_quarter():
    assert gflops(meta_net(base_channels=16, patch_size=2)) == pytest.approx(300.2 / 4, rel=0.02)


def test_a_missing_or_unexpected_noise_level_is_refused():
    x, level = conditioned_input()
    with pytest.raises(ValueError, match='needs a noise_level'):
        tiny_net(**DENOISER)(x)
    with pytest.raises(ValueError, match='takes no noise_level'):
        tiny_net()(x[:, :3], level)
    with pytest.raises(ValueError, match='takes no noise_level'):
        tiny_net().prepare_denoising([0.5])
    with pytest.raises(ValueError, match='even'):
        tiny_net(**DENOISER, **{'base_channels': 5})


@pytest.mark.parametrize('options', [PREDICTOR, DENOISER, {**DENOISER, 'patch_size': 2}], ids=str)
def test_every_parameter_gets_a_gradient(options):
    net = tiny_net(**options)
    x, level = conditioned_input(side=16)
    output = net(x, level) if 'noise_conditioned' in options else net(x[:, :3])
    output.square().sum().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_output_depends_on_each_samples_own_noise_level():
    net = tiny_net(**DENOISER)
    x, _ = conditioned_input()
    x[1] = x[0]
    with torch.no_grad():
        first, second = net(x, torch.tensor([0.2, 0.9]))
        # sqrt(alpha_bar) after the first two steps of a schedule from 1e-6: hardly apart, yet told apart
        early, later = net(x, torch.tensor([1 - 5e-7, 1 - 5.5e-6]))
        alone = net(x[1:], torch.tensor([0.9]))[0]
    assert (first - second).abs().max() > 1e-3
    assert (early - later).abs().max() > 1e-6
    torch.testing.assert_close(second, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize('options', [{}, {'patch_size': 2, 'global_skip': True}], ids=str)
@pytest.mark.parametrize('shared', [True, False], ids=['one condition', 'one per sample'])
def test_a_prepared_step_gives_what_the_plain_call_gives(shared, options):
    net = tiny_net(**DENOISER, **options)
    torch.nn.init.normal_(net.conv_out.weight)
    x, _ = conditioned_input(side=11)
    r_t, condition = x[:, :3], x[:1 if shared else 2, 3:]
    whole = torch.cat([r_t, condition.expand(2, -1, -1, -1)], dim=1)
    levels = [0.2, 0.9]
    with torch.no_grad():
        steps, without_condition = net.prepare_denoising(levels, condition), net.prepare_denoising(levels)
        assert list(steps) == levels
        for level in levels:
            expected = net(whole, torch.full((2, ), level))
            torch.testing.assert_close(net(r_t, step=steps[level]), expected, rtol=0, atol=1e-5)
            torch.testing.assert_close(net(whole, step=without_condition[level]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('options', [{'patch_size': 2}, DENOISER], ids=str)
def test_global_skip_starts_at_the_identity_of_the_first_channels_and_can_leave_it(options):
    net = tiny_net(global_skip=True, **options)
    x, level = conditioned_input(side=11)
    x = x if 'noise_conditioned' in options else x[:, :3]
    output = net(x, level if 'noise_conditioned' in options else None)
    assert torch.equal(output, x[:, :3])
    output.square().sum().backward()
    assert net.conv_out.weight.grad.any()
