"""PASD: its attention inside a frozen U-Net, what its ControlNet predicts, its sampler, and its authors' files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from scripts import check_parity
from stochastic_refine.archs import build_arch
from stochastic_refine.archs.build import plan_arch
from stochastic_refine.archs.pretrained import read_weights
from stochastic_refine.diffusion import SampleNoise, forward_marginal
from stochastic_refine.errors import InputError
from stochastic_refine.inference.operating_point import default_point
from stochastic_refine.inference.restorer import Restorer
from stochastic_refine.latent.stable_diffusion import controls, predict_noise

LAYOUTS = Path(__file__).parents[1] / 'data' / 'parity'


def photo(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def options(bases: dict[str, Path]) -> dict[str, Any]:
    return {'type': 'PASD', 'base': str(bases['SD15'])}


def shaken(net: torch.nn.Module, *parts: torch.nn.Module) -> torch.nn.Module:
    """With other than zeros where it starts without a say."""
    torch.manual_seed(0)
    with torch.no_grad():
        for part in parts:
            for parameter in part.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return net.eval()


@pytest.mark.parametrize('light', [False, True])
def test_the_decoder_is_the_u_nets_until_attention_has_a_say(light: bool, options: dict[str, Any]) -> None:
    net = build_arch({**options, 'light': light})
    shaken(net, net.controlnet)
    x, t, context = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randn(1, 77, 32)
    image = photo(64, 64).expand(2, -1, -1, -1)
    given = torch.cat([x, torch.nn.functional.pixel_unshuffle(image, 8)], dim=1), t, context
    with torch.no_grad():
        added = controls(net.controlnet, x, t, context, image)
        torch.testing.assert_close(net._denoiser(*given), predict_noise(net.base.unet, x, t, context, added))
        shaken(net, net.attention)
        before = net._denoiser(*given)
        assert not torch.allclose(before, predict_noise(net.base.unet, x, t, context, added), atol=1e-3)
        # each part has a say
        for name, parameter in net.attention.named_parameters():
            if name.endswith(('attn2.to_v.weight', 'attn2_plus.to_v.weight')):
                value = parameter.clone()
                parameter.zero_()
                assert not torch.equal(net._denoiser(*given), before), name
                parameter.copy_(value)
    assert torch.equal(net._denoiser(*given), before)


def test_checkpoints_of_activations_change_nothing(options: dict[str, Any]) -> None:
    grads = []
    for more in ({}, {'gradient_checkpointing': True}):
        torch.manual_seed(0)
        net = build_arch({**options, **more})
        shaken(net, net.attention, net.controlnet).train()
        torch.manual_seed(1)
        pairs = net(photo(64, 64)[None], gt=photo(64, 64)[None])
        sum((a - b).square().mean() for a, b in pairs.values()).backward()
        grads.append([parameter.grad for parameter in net.parameters()])
    for one, other in zip(*grads):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def test_images_are_predicted_at_three_sizes(options: dict[str, Any]) -> None:
    net = build_arch({**options, 'rrdb': True})
    lq, gt = photo(64, 64)[None], 1 - photo(64, 64)[None]
    pairs = net(lq, gt=gt)
    assert [tuple(pairs[name][0].shape[-2:]) for name in ('half', 'quarter', 'eighth')] == [(32, 32), (16, 16), (8, 8)]
    for name in ('half', 'quarter', 'eighth'):
        torch.testing.assert_close(pairs[name][1].mean(), (2 * gt - 1).mean(), atol=0.02, rtol=0)
    assert pairs['noise'][0].shape == pairs['noise'][1].shape == (1, 4, 8, 8)


def test_sampling_starts_at_the_blurred_latent_and_ends_at_a_latent_that_is_known(options: dict[str, Any]) -> None:
    net = build_arch(options).eval()
    x0, bars = torch.randn(1, 4, 8, 8), net.schedule.alpha_bars
    visited = []

    def denoise(z: torch.Tensor, step: float) -> torch.Tensor:
        """Knows the latent."""
        visited.append(step)
        bar = bars[int(step)].item()
        return (z - bar**0.5 * x0) / (1 - bar)**0.5

    noise = torch.randn(1, 4, 8, 8)
    made = net.sample(denoise, noise, 5, SampleNoise([0], (4, 8, 8)))
    torch.testing.assert_close(made, x0, atol=1e-3, rtol=0)
    assert len(visited) == 5 and visited == sorted(visited, reverse=True) and visited[0] > 900

    states = []
    net.sample = lambda denoise, state, steps, noise: states.append(state) or state
    point = default_point(net)
    assert point.steps == 20
    with torch.no_grad():
        latent = net.base.vae.encode(2 * photo(64, 64)[None] - 1).latent_dist.mode() * 0.18215
    for start in (None, 'blurred', 'noise'):
        Restorer(net).restore(photo(64, 64), point.changed(start=start))
    torch.testing.assert_close(states[0], states[1])
    torch.testing.assert_close(states[0], forward_marginal(latent, states[2], bars[900].item()))


def test_restores_tiles_and_seeds(options: dict[str, Any]) -> None:
    net = build_arch({**options, 'light': True})
    shaken(net, net.attention, net.controlnet)
    calls = []
    point = default_point(net).changed(steps=2, num_samples=2)
    several = Restorer(net, on_call=lambda *done: calls.append(done)).restore(photo(40, 60), point, True)
    assert several.image.shape == (3, 40, 60) and calls[-1] == (4, 4)
    alone = Restorer(net).restore(photo(40, 60), point.changed(num_samples=1, seed=1))
    torch.testing.assert_close(alone.image, several.samples[1], atol=1e-4, rtol=0)
    tiled = Restorer(net, tile=96).restore(photo(64, 128), point.changed(num_samples=1, steps=1))
    assert 'PixelAwareUNet' in tiled.tiling and tiled.image.isfinite().all()


def test_options_that_mean_nothing_are_refused(options: dict[str, Any], base: Path) -> None:
    with pytest.raises(InputError, match='attention_window means nothing to PASD.*tile'):
        plan_arch({**options, 'attention_window': 64})
    with pytest.raises(InputError, match='and this system is built on Stable Diffusion 1.5'):
        plan_arch({**options, 'base': str(base)})
    net = build_arch(options)
    with pytest.raises(InputError, match='start .*low_frequencies.* means nothing'):
        Restorer(net).restore(photo(64, 64), default_point(net).changed(start='low_frequencies'))


@pytest.mark.parametrize('light, rrdb', [(False, False), (True, True)])
def test_published_folder(light: bool, rrdb: bool, tmp_path: Path, options: dict[str, Any]) -> None:
    """Of a tiny size: the whole layout is the next test's."""
    net = build_arch({**options, 'light': light, 'rrdb': rrdb})
    state = net.state_dict()
    parts = {'controlnet': {name.removeprefix('controlnet.'): value for name, value in state.items()
                            if name.startswith('controlnet.')},
             'unet': {**net.base.unet.state_dict(), **{name.removeprefix('attention.'): value for name, value in state.items()
                                                       if name.startswith('attention.')}}}
    for part, params in parts.items():
        (tmp_path / part).mkdir()
        (tmp_path / part / 'config.json').write_text('{}')
        save_file({name: value.contiguous() for name, value in params.items()},
                  tmp_path / part / 'diffusion_pytorch_model.safetensors')
    found = read_weights(tmp_path)
    assert found.metadata['network'] == {'type': 'PASD', 'base': 'stable-diffusion-v1-5/stable-diffusion-v1-5', 'light': light,
                                         'rrdb': rrdb}
    assert found.params.keys() == state.keys() and 'frozen tensors of its U-Net are left out' in found.notes[0]
    assert all(torch.equal(found.params[name], value) for name, value in state.items())
    (tmp_path / 'unet' / 'diffusion_pytorch_model.safetensors').unlink()
    with pytest.raises(InputError, match='unet has no weights'):
        read_weights(tmp_path)


@pytest.mark.parametrize('name', ['PASD-unet', 'PASD-light-unet', 'PASD-rrdb-controlnet'])
def test_published_layout(name: str) -> None:
    layout = json.loads((LAYOUTS / name / 'layout.json').read_text())
    words = check_parity.check_layout(check_parity.NETWORKS[name], layout)
    assert f"{len(layout['tensors'])} names and shapes agree" in words
