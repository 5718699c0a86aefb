"""DeblurDiff: its convolution, its windows, its file, and restoring with it as with any other network that samples."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts import check_parity
from stochastic_refine.archs import build_arch
from stochastic_refine.archs.build import plan_arch
from stochastic_refine.archs.pretrained import read_weights
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.errors import InputError
from stochastic_refine.inference.operating_point import OperatingPoint, default_point
from stochastic_refine.inference.restorer import Restorer
from stochastic_refine.inference.weights import build_with_weights
from stochastic_refine.latent.deblurdiff.eac import eac
from stochastic_refine.latent.images import low_frequencies, match_colours
from stochastic_refine.latent.windows import attend_in_windows

from .tiny_diffusion import SIZE, SMALL

LAYOUTS = Path(__file__).parents[1] / 'data' / 'parity'


@pytest.fixture
def net(network: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(0)
    net = build_arch(network)
    with torch.no_grad():  # else the ControlNet starts without a say
        for parameter in net.controlnet.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return net.eval()


def photo(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('side', [1, 3, 5])
def test_fast_eac_is_the_plain_one(side: int) -> None:
    given = []
    for plain in (True, False):
        torch.manual_seed(0)
        x = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
        kernels = torch.randn(2, 3 * side**2, 6, 5, dtype=torch.float64, requires_grad=True)
        out = eac(x, kernels, plain)
        out.square().sum().backward()
        given.append((out, x.grad, kernels.grad))
    for plain, fast in zip(*given):
        torch.testing.assert_close(fast, plain)
    if side == 3:  # a kernel of one entry moves the map
        kernels = torch.zeros(1, 9, 4, 4)
        kernels[:, 3] = 1  # row 1, column 0
        x = torch.randn(1, 1, 4, 4)
        assert torch.equal(eac(x, kernels)[..., 1:], x[..., :-1]) and not eac(x, kernels)[..., 0].any()
    with pytest.raises(ValueError, match='odd k'):
        eac(torch.zeros(1, 2, 4, 4), torch.zeros(1, 8, 4, 4))


def test_windows_change_nothing_up_to_their_size_and_do_beyond(base: Path) -> None:
    from diffusers import UNet2DConditionModel
    unet = UNet2DConditionModel.from_pretrained(base / 'unet').eval()
    t, context = torch.tensor([5]), torch.randn(1, 77, 32)
    with torch.no_grad():
        small, large = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 20)
        before = [unet(x, t, context).sample for x in (small, large)]
        windowed = copy.deepcopy(attend_in_windows(unet, 8))
        after = [windowed(x, t, context).sample for x in (small, large)]
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1], atol=1e-4)
    transformer = unet.down_blocks[0].attentions[0]
    x = torch.randn(2, 32, 8, 20)
    with torch.no_grad():
        out = transformer(x, encoder_hidden_states=context.expand(2, -1, -1), return_dict=False)[0]
        first, last = (transformer(part, encoder_hidden_states=context.expand(2, -1, -1), return_dict=False)[0]
                       for part in (x[..., :8], x[..., 12:]))
    torch.testing.assert_close(out[..., :6], first[..., :6])  # windows start at 0, 6 and 12
    torch.testing.assert_close(out[..., 14:], last[..., 2:])


def test_a_sample_is_its_seeds_alone(net: torch.nn.Module) -> None:
    calls = []
    point = default_point(net).changed(steps=2, num_samples=2, seed=3)
    several = Restorer(net, on_call=lambda done, total: calls.append((done, total))).restore(photo(50, 70), point, True)
    alone = Restorer(net).restore(photo(50, 70), point.changed(num_samples=1, seed=4))
    assert several.image.shape == (3, 50, 70) and calls[-1] == (4, 4) == (len(calls), 4)
    torch.testing.assert_close(alone.image, several.samples[1], atol=1e-4, rtol=0)
    assert (several.samples[0] - several.samples[1]).abs().mean() > 0.01
    torch.testing.assert_close(net(photo(50, 70)[None]), net(photo(50, 70)[None]))


def test_guidance_start_and_prompts_have_a_say(net: torch.nn.Module) -> None:
    point = default_point(net).changed(steps=2)
    lq = photo(64, 64)

    def restored(**changes: Any) -> torch.Tensor:
        return Restorer(net).restore(lq, point.changed(**changes)).image

    plain, told = restored(), restored(prompt='a b')
    assert not torch.allclose(plain, told, atol=1e-5)
    torch.testing.assert_close(restored(prompt='a b', guidance_scale=1.0), told)
    assert not torch.allclose(restored(prompt='a b', guidance_scale=3.0), told, atol=1e-5)
    assert not torch.allclose(restored(start='low_frequencies'), plain, atol=1e-5)
    with pytest.raises(InputError, match='start .middle. means nothing to this network; choose noise or low_frequencies'):
        restored(start='middle')
    with pytest.raises(InputError, match='final_variance means nothing to the sampler native'):
        restored(final_variance=0.1)
    with pytest.raises(InputError, match='steps must be at most 1000'):
        restored(steps=1001)


def test_tiles_of_latents_cover_the_image(net: torch.nn.Module) -> None:
    calls = []
    restored = Restorer(net, tile=96, on_call=lambda done, total: calls.append((done, total))).restore(
        photo(64, 256), default_point(net).changed(steps=1))
    assert 'blended tiles of 64 pixels' in restored.tiling and restored.image.isfinite().all()
    assert restored.tiling.startswith('KernelControlledUNet') and 'Encoder' in restored.tiling
    assert calls[-1][0] == calls[-1][1] == 2 + 5  # 32 latent pixels by tiles of 8 that overlap by 2


def test_memory_savings_give_the_same(network: dict[str, Any], net: torch.nn.Module) -> None:
    saving = build_arch({**network, 'attention_slicing': True, 'gradient_checkpointing': True}).eval()
    saving.load_state_dict(net.state_dict())
    point = default_point(net).changed(steps=1)
    images = [Restorer(each).restore(photo(64, 64), point).image for each in (net, saving)]
    torch.testing.assert_close(*images, atol=1e-4, rtol=0)
    losses = []
    for each in (net, saving):
        torch.manual_seed(0)
        pairs = each(photo(64, 64)[None], gt=photo(64, 64)[None])
        sum((a - b).square().mean() for a, b in pairs.values()).backward()
        losses.append(each.controlnet.conv_in.weight.grad)
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize('changes, channels, outputs', [({}, 8, 36), ({'eac': False}, 8, 4), ({'sd_for_lkpn': False}, 4, 36)])
def test_switches_of_the_ablation(changes: dict, channels: int, outputs: int, network: dict[str, Any]) -> None:
    net = build_arch({**network, **changes})
    assert net.kpn.unet.conv_in.weight.shape[1] == channels and net.kpn.unet.conv_out.weight.shape[0] == outputs
    blurred, noisy = torch.randn(2, 1, 4, 8, 8)
    context = torch.randn(1, 77, 32)
    with torch.no_grad():
        out = [net.kpn(blurred, x, torch.tensor([t]), context) for x, t in ((noisy, 900), (-noisy, 5))]
    assert torch.equal(*out) == ('sd_for_lkpn' in changes)


def test_published_file_has_a_place_for_every_tensor() -> None:
    layout = json.loads((LAYOUTS / 'DeblurDiff-full-all/layout.json').read_text())
    assert '2238 names and shapes agree, 1,811,669,264 parameters' in check_parity.check_layout(
        check_parity.NETWORKS['DeblurDiff-full-all'], layout)
    shapes = {name: torch.empty(shape, device='meta') for name, (shape, _) in layout['tensors'].items()}
    from stochastic_refine.archs.layouts import recognise
    found = recognise({**shapes, 'strange': torch.zeros(1)})
    assert found.options == {'type': 'DeblurDiff'} and found.notes == ('1 tensors beside the network are left out', )
    plan_arch(found.options).load_state_dict(found.params, assign=True)
    with pytest.raises(InputError, match='part of a DeblurDiff, without vae. and clip.model.; give the whole file'):
        recognise({name: value for name, value in shapes.items() if not name.startswith(('vae.', 'clip.'))})


def test_weights_with_their_own_base_restore_alone(tmp_path: Path) -> None:
    options = {**SMALL, 'base_size': SIZE}
    net = build_arch(options).eval()
    file = tmp_path / 'net.safetensors'
    points = {'quick': {'sampler': 'native', 'steps': 1}}
    save_safetensors(file, net.state_dict(), {'network': options, 'operating_points': points})
    from stochastic_refine.inference.deblurrer import Deblurrer
    result = Deblurrer.from_pretrained(file, device='cpu')(photo(40, 40), samples=2, prompt=None)
    assert result.image.shape == (40, 40, 3) and result.std.any()
    params = read_weights(file).params
    params.popitem()
    with pytest.raises(InputError, match='1 missing'):
        build_with_weights(options, params, 'network', str(file))


def test_colours_and_low_frequencies() -> None:
    image, like = torch.rand(2, 3, 16, 16), 0.3 + 0.1 * torch.rand(1, 3, 16, 16)
    matched = match_colours(image, like)
    torch.testing.assert_close(matched.mean((-2, -1)), like.mean((-2, -1)).expand(2, -1))
    torch.testing.assert_close(matched.std((-2, -1)), like.std((-2, -1)).expand(2, -1), rtol=1e-2, atol=0)
    low = low_frequencies(torch.cat([image, torch.full((1, 3, 16, 16), 0.5)]))
    torch.testing.assert_close(low[2], torch.full((3, 16, 16), 0.5))
    assert low[:2].std((-2, -1)).max() < 0.05


def test_points_that_guide_need_a_prompt(net: torch.nn.Module) -> None:
    with pytest.raises(InputError, match='leads from negative_prompt to prompt, which are the same'):
        Restorer(net).restore(photo(32, 32), OperatingPoint(sampler='native', steps=1, guidance_scale=2.0))


@pytest.mark.parametrize('change, words', [
    ({'vae_tilling': True}, "has no option 'vae_tilling'; did you mean vae_tiling"),
    ({'attention_window': 'all'}, 'attention_window must be a whole number or nothing'),
    ({'base_precision': 'float16'}, "base_precision must be 'float32' or 'bfloat16'"),
    ({'kernel_size': 4}, 'kernel_size must be odd'),
    ({'base_size': SIZE}, 'base_size describes a base of its own'),
])
def test_options_that_mean_nothing_are_refused(network: dict[str, Any], change: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan_arch({**network, **change})
