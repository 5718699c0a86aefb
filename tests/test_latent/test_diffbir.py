"""DiffBIR: any network as its first stage, both versions, and its authors' files."""

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
from stochastic_refine.archs.layouts import recognise
from stochastic_refine.archs.predict_refine_arch import final_output
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.diffusion import SampleNoise, forward_marginal, r0_from_v, v_target
from stochastic_refine.errors import InputError
from stochastic_refine.inference.operating_point import default_point
from stochastic_refine.inference.restorer import Restorer
from stochastic_refine.inference.tiling import TiledNet
from stochastic_refine.latent.images import low_frequencies

from .tiny_diffusion import SIZE

LAYOUTS = Path(__file__).parents[1] / 'data' / 'parity'
UNET = {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1}
FIRST = {
    'deterministic': {'type': 'NAFNet', 'width': 4, 'enc_blk_nums': [1], 'middle_blk_num': 1, 'dec_blk_nums': [1]},
    'of many outputs': {'type': 'MIMOUNet', 'num_res': 1},
    'that samples': {'type': 'PredictRefineNet', 'predictor': UNET,
                     'denoiser': {**UNET, 'in_channels': 6, 'noise_conditioned': True}, 'sampling': {'steps': 2}},
}


def photo(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(1))


def saved(options: dict[str, Any], file: Path) -> str:
    """Weights of a network that say which it is."""
    torch.manual_seed(0)
    save_safetensors(file, build_arch(options).state_dict(), {'network': options})
    return str(file)


@pytest.mark.parametrize('kind', FIRST)
def test_any_network_is_the_first_stage(kind: str, base: Path, tmp_path: Path) -> None:
    options = {'type': 'DiffBIR', 'base': str(base), 'stage1': saved(FIRST[kind], tmp_path / 'first.safetensors')}
    net = build_arch(options).train()
    calls = []
    point = default_point(net).changed(steps=1)
    found = Restorer(net, on_call=lambda *done: calls.append(done)).restore(photo(40, 50), point)
    with torch.no_grad():
        first = final_output(net.first, net.first(photo(40, 50)[None]))
    initial = Restorer(net).predict(photo(40, 50))
    torch.testing.assert_close(initial[None], first, atol=1e-5, rtol=0)
    assert torch.equal(found.initial, initial.clamp(0, 1))
    assert calls[-1] == (4, 4) == (len(calls), 4)  # the first stage, encoder, a step, decoder
    if kind == 'deterministic':  # what was predicted already is taken, and matters
        given, other = (Restorer(net).restore(photo(40, 50), point, initial=each).image for each in (initial, 1 - initial))
        torch.testing.assert_close(given, found.image, atol=1e-4, rtol=0)
        assert (other - found.image).abs().mean() > 0.01


def test_a_named_first_stage_is_no_part_and_a_described_one_is(base: Path, tmp_path: Path) -> None:
    file = saved(FIRST['deterministic'], tmp_path / 'first.safetensors')
    options = {'type': 'DiffBIR', 'base': str(base)}
    named = build_arch({**options, 'stage1': file}).train()
    described = build_arch({**options, 'stage1': {'pretrained': file}}).train()
    for net in (named, described):
        clone = copy.deepcopy(net)
        assert (clone.first is net.first) == (net is named)
        assert not net.first.training and not any(value.requires_grad for value in net.first.parameters())
        assert torch.equal(net.first.intro.weight, named.first.intro.weight)
        assert any(key.startswith('first.') for key in net.state_dict()) == (net is described)
    with pytest.raises(InputError, match='stage1.*no.pth'):
        plan_arch({**options, 'stage1': str(tmp_path / 'no.pth')})
    with pytest.raises(InputError, match='noise_augmentation must be from 0 to 1000'):
        plan_arch({**options, 'noise_augmentation': 1001})


def test_the_condition_is_the_mode_of_what_the_first_stage_made(base: Path) -> None:
    net = build_arch({'type': 'DiffBIR', 'base': str(base), 'stage1': FIRST['deterministic']}).eval()
    seen = []
    net._denoiser.register_forward_pre_hook(lambda module, given: seen.append(given[0][:, 4:]))
    Restorer(net).restore(photo(64, 64), default_point(net).changed(steps=1, num_samples=2))
    with torch.no_grad():
        latent = net.base.vae.encode(2 * net.first(photo(64, 64)[None]) - 1).latent_dist.mode() * 0.18215
    like = photo(64, 64)[None]
    torch.testing.assert_close(net.finished(like, like), like)
    torch.testing.assert_close(net.finished(torch.zeros_like(like), like), low_frequencies(like))
    torch.testing.assert_close(seen[0], latent.expand(2, -1, -1, -1), atol=1e-5, rtol=1e-4)


def test_noise_is_added_to_the_condition_in_training_alone(base: Path) -> None:
    seen: dict[int, torch.Tensor] = {}
    for steps in (0, 200):
        net = build_arch({'type': 'DiffBIR', 'base': str(base), 'noise_augmentation': steps})
        net._denoiser.register_forward_pre_hook(lambda module, given: seen.update({steps: given[0][:, 4:]}))  # noqa: B023
        net(photo(64, 64)[None], gt=photo(64, 64)[None])
    deviation = (seen[200] - seen[0]).std()
    assert 0 < deviation < (1 - net.schedule.alpha_bars[199])**0.5 * 1.3


def test_version_2_1_walks_from_noise_alone_by_v(bases: dict[str, Path]) -> None:
    net = build_arch({'type': 'DiffBIRv21', 'base': str(bases['SD21_V'])})
    x0 = torch.randn(1, 4, 8, 8)
    bars = net.schedule.alpha_bars

    def denoise(z: torch.Tensor, step: int) -> torch.Tensor:
        """Knows the latent."""
        noise = (z - bars[step]**0.5 * x0) / (1 - bars[step])**0.5
        return v_target(x0, noise.float(), bars[step].item())

    made = net.sample(denoise, torch.randn(1, 4, 8, 8), 10, SampleNoise([0], (4, 8, 8)))
    torch.testing.assert_close(made, x0, atol=1e-4, rtol=1e-4)
    (predicted, target), = net(photo(64, 64)[None], gt=photo(64, 64)[None]).values()
    assert predicted.shape == target.shape and predicted.isfinite().all()
    # the target is the v of the state that the U-Net was shown
    seen = []
    net._denoiser.register_forward_pre_hook(lambda module, given: seen.append(given))
    torch.manual_seed(0)
    (_, target), = net(photo(64, 64)[None], gt=photo(64, 64)[None]).values()
    (x, t, _), = seen
    bar = net.alpha_bars(t, x)
    sharp = r0_from_v(x[:, :4], target, bar)
    noise = (x[:, :4] - bar**0.5 * sharp) / (1 - bar)**0.5
    torch.testing.assert_close(forward_marginal(sharp, noise.float(), bar), x[:, :4], atol=1e-4, rtol=1e-4)
    assert 0.5 < noise.std() < 1.5
    with pytest.raises(InputError, match='start .*low_frequencies.* means nothing'):
        Restorer(net).restore(photo(64, 64), default_point(net).changed(steps=1, start='low_frequencies'))
    for kind, base in (('DiffBIRv21', bases['SD21']), ('DiffBIR', bases['SD21_V'])):
        with pytest.raises(InputError, match='and this system needs one that predicts'):
            plan_arch({'type': kind, 'base': str(base)})


@pytest.mark.parametrize('name', ['bsrnet', 'controlnet', 'scunet', 'swinir'])
def test_published_files_have_a_place_for_every_tensor(name: str) -> None:
    if name in ('scunet', 'swinir'):
        pytest.importorskip('spandrel')
    layout = json.loads((LAYOUTS / f'DiffBIR-{name}/layout.json').read_text())
    check_parity.check_layout(check_parity.NETWORKS[f'DiffBIR-{name}'], layout)
    shapes = {name: torch.empty(shape, device='meta') for name, (shape, _) in layout['tensors'].items()}
    if name == 'bsrnet':
        found = recognise(shapes)
        plan_arch(found.options).load_state_dict(found.params, assign=True)
    if name == 'controlnet':
        found = recognise(shapes)
        assert found.options == {'type': 'DiffBIR', 'base': 'stabilityai/stable-diffusion-2-1-base'} and len(found.notes) == 2
        own = plan_arch({'type': 'DiffBIR'}).state_dict()
        assert found.params.keys() == {key for key in own if key.startswith('controlnet.')}
        with pytest.raises(InputError, match="a ControlNet, and none of DiffBIR's"):
            recognise({**shapes, 'input_blocks.0.0.weight': torch.empty(320, 12, 3, 3, device='meta')})


def test_bsrnet_keeps_the_size_and_its_tiles_are_exact() -> None:
    torch.manual_seed(0)
    net = build_arch({'type': 'BSRNet', 'num_feat': 8, 'num_block': 1, 'num_grow_ch': 4}).eval()
    image = photo(30, 75)[None]
    with torch.no_grad():
        whole, tiled = net(image), TiledNet(net, 16)
        assert whole.shape == image.shape and tiled.calls(30, 75) > 1
        torch.testing.assert_close(tiled(image), whole, atol=1e-5, rtol=0)


def test_swinir_of_spandrel_is_rebuilt_from_the_published_file(tmp_path: Path) -> None:
    pytest.importorskip('spandrel')
    from stochastic_refine.archs.spandrel_arch import recognise_by_spandrel
    settings = {'img_size': 16, 'embed_dim': 12, 'depths': [2], 'num_heads': [2], 'window_size': 8, 'mlp_ratio': 2.0,
                'upscale': 8, 'upsampler': 'nearest+conv', 'start_unshuffle': 8}
    options = {'type': 'SpandrelNet', 'architecture': 'SwinIR', 'network': 'SwinIR', 'settings': settings}
    net = build_arch(options).eval()
    params = {name.removeprefix('net.').replace('conv_first.', 'conv_first.1.'): value
              for name, value in net.state_dict().items()}
    found, ours = recognise_by_spandrel(params, 'swinir.ckpt')
    again = build_arch(found).eval()
    again.load_state_dict(ours)
    image = photo(70, 40)[None]
    with torch.no_grad():
        assert net(image).shape == image.shape and torch.equal(again(image), net(image))


def test_weights_with_all_their_parts_restore_alone(tmp_path: Path) -> None:
    from stochastic_refine.inference.deblurrer import Deblurrer
    options = {'type': 'DiffBIR', 'base_size': SIZE, 'stage1': FIRST['deterministic']}
    net = build_arch(options)
    save_safetensors(tmp_path / 'net.safetensors', net.state_dict(),
                     {'network': options, 'operating_points': {'quick': {'sampler': 'native', 'steps': 1}}})
    result = Deblurrer.from_pretrained(tmp_path / 'net.safetensors', device='cpu')(photo(40, 40))
    assert result.image.shape == (40, 40, 3) and result.initial is not None
