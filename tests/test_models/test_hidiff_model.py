"""HI-Diff's two stages train on tiny photos, one after the other, and what comes of them restores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from stochastic_refine.archs import build_arch
from stochastic_refine.archs.pretrained import read_weights
from stochastic_refine.errors import InputError
from stochastic_refine.inference.deblurrer import Deblurrer
from stochastic_refine.inference.operating_point import OperatingPoint
from stochastic_refine.inference.restorer import Restorer
from stochastic_refine.settings.check import check_options

ENCODER = {'type': 'HIDiffEncoder', 'embed_dim': 4, 'block_num': 1, 'group': 2}
TRANSFORMER = {'type': 'HIDiffTransformer', 'dim': 8, 'num_blocks': [1, 1, 1, 1], 'num_refinement_blocks': 1,
               'heads': [1, 2, 2, 4], 'embed_dim': 4, 'group': 2}
NETWORK = {'type': 'HIDiff', 'net_g': TRANSFORMER, 'net_le_dm': ENCODER,
           'net_d': {'type': 'HIDiffDenoiser', 'in_channel': 16, 'out_channel': 16, 'inner_channel': 24, 'block_num': 2,
                     'group': 2}}
L1 = {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'}


@pytest.fixture
def stage1(restoration_options: dict[str, Any]) -> dict[str, Any]:
    train = {**restoration_options['train'], 'optim_g': {'type': 'AdamW', 'lr': 0.001}, 'grad_clip': 0.01}
    return {**restoration_options, 'model_type': 'HIDiffStage1Model', 'network_g': TRANSFORMER,
            'network_le': {**ENCODER, 'in_chans': 6}, 'train': train}


@pytest.fixture
def stage2(stage1: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    torch.manual_seed(5)
    torch.save({'params': build_arch({**ENCODER, 'in_chans': 6}).state_dict()}, tmp_path / 'net_le.pth')
    path = {**stage1['path'], 'pretrain_network_le': str(tmp_path / 'net_le.pth'), 'ignore_resume_networks': ['network_le']}
    return {**stage1, 'model_type': 'HIDiffStage2Model', 'network_g': NETWORK, 'path': path,
            'train': {**stage1['train'], 'ema_decay': 0.5, 'prior_opt': dict(L1)}}


def train(model: Any, nets: list[str], iterations: int = 5) -> None:
    """Train, and check losses, and that every parameter of the named networks gets a gradient and moves."""
    from basicsr.data import build_dataset
    parameters = {f'{net}.{name}': value for net in nets for name, value in getattr(model, net).named_parameters()}
    before = {name: value.detach().clone() for name, value in parameters.items()}
    reached: set[str] = set()
    batch = next(iter(DataLoader(build_dataset(model.opt['datasets']['train']), 2)))
    for iteration in range(1, iterations + 1):
        model.feed_data(batch)
        model.optimize_parameters(iteration)
        assert all(math.isfinite(loss) for loss in model.log_dict.values()), model.log_dict
        reached |= {name for name, value in parameters.items() if value.grad is not None and value.grad.any()}
    assert reached == parameters.keys()
    assert not [name for name in reached if torch.equal(before[name], parameters[name])]


def test_stages_train_one_after_the_other(stage1: dict, stage2: dict, build_model: Any) -> None:
    first = build_model(stage1)
    train(first, ['net_g', 'net_le'])
    assert first.log_dict.keys() == {'l_pix'}
    first.save(0, 5)
    folder = Path(first.opt['path']['models'])
    stage2['path']['pretrain_network_le'] = str(folder / 'net_le_5.pth')
    stage2['network_g'] = {**NETWORK, 'net_g': {**TRANSFORMER, 'pretrained': str(folder / 'net_g_5.pth')}}

    second = build_model(stage2)
    torch.testing.assert_close(dict(second.net_g.net_g.state_dict()), dict(first.net_g.state_dict()), rtol=0, atol=0)
    frozen = {name: value.clone() for name, value in second.net_le.state_dict().items()}
    torch.testing.assert_close(frozen, dict(first.net_le.state_dict()), rtol=0, atol=0)
    train(second, ['net_g'])
    assert second.log_dict.keys() == {'l_pix', 'l_prior'}
    assert all(value.grad is None for value in second.net_le.parameters())
    torch.testing.assert_close(dict(second.net_le.state_dict()), frozen, rtol=0, atol=0)

    second.save(0, 7)
    saved = read_weights(folder / 'net_g_7.pth')
    assert {name.partition('.')[0] for name in saved.params} == {'net_g', 'net_le_dm', 'net_d'}
    assert not list(folder.glob('net_le_7*'))
    result = Deblurrer.from_pretrained(folder / 'net_g_7.pth')(torch.rand(3, 20, 35), samples=2)
    assert result.samples.shape[0] == 2


def test_validation_of_the_first_stage_sees_the_sharp_image(stage1: dict, build_model: Any) -> None:
    model = build_model(stage1)
    model.lq, model.gt = torch.rand(2, 1, 3, 24, 20)
    restored = model.restorations()['']
    model.gt = 1 - model.gt
    assert restored.shape == (1, 3, 24, 20) and not torch.equal(restored, model.restorations()[''])
    assert model.net_g.training and model.net_le.training


@pytest.mark.parametrize('change, fragments', [
    ({'network_le': ENCODER}, ('network_le', 'in_chans: 6')),
    ({'train.prior_opt': None}, ('needs prior_opt', )),
    ({'path.pretrain_network_le': None}, ('needs pretrain_network_le', 'stage1')),
    ({'path.ignore_resume_networks': None}, ('ignore_resume_networks: [network_le]', )),
    ({'val.steps': 4}, ('val: sample: steps must be 8', )),
    ({'val.guidance_scale': 2.0}, ('guidance_scale means nothing', 'no text')),
    ({'network_g': TRANSFORMER}, ('HIDiffTransformer is deterministic', )),
    ({'network_g.net_d': {**NETWORK['net_d'], 'in_channel': 20, 'out_channel': 20}}, ('network_g', 'cannot restore an image')),
])
def test_what_cannot_be_trained_is_told(stage2: dict, parsed: Any, change: dict, fragments: tuple[str, ...]) -> None:
    opt = parsed(stage2)
    for key, value in change.items():
        *blocks, last = key.split('.')
        block = opt
        for name in blocks:
            block = block[name]
        block[last] = value
    with pytest.raises(InputError) as caught:
        check_options(opt)
    assert all(fragment in str(caught.value) for fragment in fragments), caught.value


@pytest.fixture
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_arch(NETWORK).eval()


def photo(*size: int) -> Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(0))


def test_samples_depend_on_their_seeds_alone(net: torch.nn.Module) -> None:
    restorer, calls = Restorer(net), []
    restorer.on_call = lambda done, total: calls.append((done, total))
    point = OperatingPoint(sampler='native', steps=8, num_samples=3)
    samples = restorer.restore(photo(20, 28), point, keep_samples=True).samples
    assert calls == [(i, 10) for i in range(1, 11)]  # one batch: the condition, eight steps, the image
    alone = restorer.restore(photo(20, 28), OperatingPoint(sampler='native', steps=8, seed=2)).image
    torch.testing.assert_close(alone, samples[2], rtol=0, atol=1e-5)
    assert not torch.equal(samples[0], samples[1])
    torch.testing.assert_close(net(photo(20, 28)[None])[0].clamp(0, 1), samples[0], rtol=0, atol=1e-5)


def test_tiles_are_guided_by_the_whole_images_prior(net: torch.nn.Module) -> None:
    seen = []
    net.net_g.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    restored = Restorer(net, tile=16).restore(photo(16, 40), OperatingPoint(sampler='native', steps=8))
    assert len(seen) > 1 and all(torch.equal(prior, seen[0]) for prior in seen) and 'HIDiffTransformer' in restored.tiling


def test_files_of_parts_in_a_folder_are_one_checkpoint(net: torch.nn.Module, tmp_path: Path) -> None:
    for part in ('net_g', 'net_le_dm', 'net_d'):
        torch.save({'params': getattr(net, part).state_dict()}, tmp_path / f'{part}_GoPro.pth')
    (tmp_path / 'net_le_GoPro.pth').write_bytes(b'not read')
    loaded = Deblurrer.from_pretrained(tmp_path).net
    torch.testing.assert_close(dict(loaded.state_dict()), dict(net.state_dict()), rtol=0, atol=0)
    (tmp_path / 'net_d_GoPro.pth').rename(tmp_path / 'elsewhere.pth')
    with pytest.raises(InputError, match=r'of net_d_\*.pth it has none'):
        read_weights(tmp_path)


def test_the_restoring_part_alone_says_what_it_lacks(net: torch.nn.Module, tmp_path: Path) -> None:
    torch.save({'params': net.net_g.state_dict()}, tmp_path / 'net_g_GoPro.pth')
    with pytest.raises(InputError, match='restores with a prior.*net_le_dm'):
        Deblurrer.from_pretrained(tmp_path / 'net_g_GoPro.pth')(photo(16, 16))
