"""ResShift at a tiny size: training, sampling, and what is said of weights that cannot be used; parity is the script's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from stochastic_refine.archs import build_arch
from stochastic_refine.archs.pretrained import read_weights
from stochastic_refine.errors import InputError
from stochastic_refine.inference.deblurrer import Deblurrer
from stochastic_refine.inference.operating_point import OperatingPoint
from stochastic_refine.inference.restorer import Restorer
from stochastic_refine.latent.resshift.shifting import Shifting

ROOT = Path(__file__).resolve().parents[2]
UNET = {'image_size': 8, 'model_channels': 32, 'channel_mult': [1, 2], 'num_res_blocks': 1, 'num_head_channels': 16,
        'swin_embed_dim': 32, 'window_size': 4, 'mlp_ratio': 1}
VQ = {'ch': 32, 'ch_mult': [1, 1, 1], 'num_res_blocks': 1, 'n_embed': 16}


@pytest.fixture
def autoencoder(tmp_path: Path) -> Path:
    """A file like the authors'."""
    torch.manual_seed(1)
    torch.save({'state_dict': build_arch({'type': 'ResShiftVQ', **VQ}).state_dict()}, tmp_path / 'autoencoder.pth')
    return tmp_path / 'autoencoder.pth'


@pytest.fixture
def network(autoencoder: Path) -> dict[str, Any]:
    torch.manual_seed(2)
    return {'type': 'ResShift', 'unet': UNET, 'base': str(autoencoder)}


def native(steps: int = 4, **settings: Any) -> OperatingPoint:
    return OperatingPoint(sampler='native', steps=steps, **settings)


def photo(*size: int) -> torch.Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(0))


def test_five_iterations(network: dict, pairs: Path, build_model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import lpips
    full = lpips.LPIPS
    untrained = {'net': 'squeeze', 'pnet_rand': True, 'pretrained': False}
    monkeypatch.setattr(lpips, 'LPIPS', lambda **options: full(**{**options, **untrained}))
    opt = yaml.safe_load((ROOT / 'options/latent/train_resshift.yml').read_text())
    opt |= {'num_gpu': 0, 'network_g': network}
    opt['datasets'] = {'train': {**opt['datasets']['train'], 'dataroot_gt': str(pairs / 'gt'), 'dataroot_lq': str(pairs / 'lq'),
                                 'gt_size': 32, 'batch_size_per_gpu': 2, 'num_worker_per_gpu': 0}}
    opt['train'] |= {'total_iter': 5, 'accumulate': 2, 'warmup_iter': -1, 'precision': 'float32'}
    model = build_model(opt)
    net = model.net_g
    assert net.base is model.net_g_ema.base
    frozen = {key: value.clone() for key, value in net.base.state_dict().items()}
    before = {key: value.detach().clone() for key, value in net.named_parameters()}
    reached = set()
    for iteration in range(1, 6):
        model.feed_data({'lq': torch.rand(2, 3, 32, 32), 'gt': torch.rand(2, 3, 32, 32)})
        model.optimize_parameters(iteration)
        assert set(model.log_dict) == {'l_latent', 'l_image'}
        assert all(math.isfinite(loss) for loss in model.log_dict.values())
        reached |= {key for key, value in net.named_parameters() if value.grad is not None and value.grad.any()}
    assert before.keys() == reached
    assert not [key for key, value in net.named_parameters() if torch.equal(before[key], value)]
    assert all(parameter.grad is None for parameter in net.base.parameters())
    assert all(torch.equal(value, frozen[key]) for key, value in net.base.state_dict().items())

    model.opt['path']['models'] = str(tmp_path)
    model.save_network([net, model.net_g_ema], 'net_g', 5, ['params', 'params_ema'])
    saved = read_weights(tmp_path / 'net_g_5.pth')
    assert {name.partition('.')[0] for name in saved.params} == {'unet'}
    assert Deblurrer.from_pretrained(tmp_path / 'net_g_5.pth')(photo(20, 35), samples=2).samples.shape[0] == 2


@pytest.mark.parametrize('steps, level', [(4, 0.2), (15, 0.04)])
def test_samples_depend_on_their_seeds_alone(network: dict, steps: int, level: float) -> None:
    net = build_arch({**network, 'steps': steps, 'min_noise_level': level}).eval()
    calls: list[tuple[int, int]] = []
    restorer = Restorer(net, on_call=lambda *call: calls.append(call))
    samples = restorer.restore(photo(33, 20), native(steps, num_samples=2), keep_samples=True).samples
    assert samples.shape == (2, 3, 33, 20) and calls == [(i, steps + 2) for i in range(1, steps + 3)]
    alone = restorer.restore(photo(33, 20), native(steps, seed=1)).image
    torch.testing.assert_close(alone, samples[1], rtol=0, atol=1e-4)
    assert (samples[0] - samples[1]).abs().max() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(net(photo(33, 20)[None])[0].clamp(0, 1), samples[0], rtol=0, atol=1e-4)


def test_tiles_are_of_latents(network: dict) -> None:
    restored = Restorer(build_arch(network).eval(), tile=32).restore(photo(32, 96), native())
    assert restored.image.shape == (3, 32, 96) and 'ResShiftUNet' in restored.tiling


def test_a_perfect_prediction_is_what_comes_out() -> None:
    shifting = Shifting(steps=15, min_noise_level=0.04)
    y, x0 = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shifting.sample(lambda x_t, t: x0, y, lambda: torch.randn(1, 3, 4, 4)), x0)


def test_the_authors_unet_loads_with_their_autoencoder(network: dict, tmp_path: Path) -> None:
    net = build_arch(network)
    torch.save({'state_dict': {f'module._orig_mod.{name}': value for name, value in net.unet.state_dict().items()}},
               tmp_path / 'resshift.pth')
    found = read_weights(tmp_path / 'resshift.pth')
    assert found.params.keys() == net.state_dict().keys() and found.metadata['network']['unet'] == {
        **UNET, 'in_channels': 3, 'out_channels': 3, 'num_res_blocks': [1, 1], 'swin_depth': 2}
    with pytest.raises(InputError, match='base'):
        Deblurrer.from_pretrained(tmp_path / 'resshift.pth')


@pytest.mark.parametrize('damage', ['missing', 'another', 'part'])
def test_an_autoencoder_that_cannot_be_used_is_told(network: dict, tmp_path: Path, damage: str) -> None:
    if damage == 'missing':
        path, fragment = tmp_path / 'none.pth', 'autoencoder_vq_f4.pth'
    else:
        path, fragment = tmp_path / 'damaged.pth', 'base'
        options = {'type': 'ResShiftVQ', **VQ} if damage == 'part' else {'type': 'DBGAN', 'nf': 8, 'nb': 1}
        params = build_arch(options).state_dict()
        torch.save({name: value for name, value in params.items() if not name.startswith('decoder.mid')}, path)
    with pytest.raises(InputError, match=fragment) as caught:
        build_arch({**network, 'base': str(path)})
    assert str(path) in str(caught.value)
