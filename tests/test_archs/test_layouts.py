"""Networks recognised by the names and shapes of their state dicts, each published layout among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stochastic_refine.archs import build_arch
from stochastic_refine.archs.build import plan_arch
from stochastic_refine.archs.known_layouts import expansion_factor
from stochastic_refine.archs.layouts import recognise, unrecognised

DATA = Path(__file__).parents[1] / 'data' / 'parity'
#: What an options file for the published checkpoint says, as far as names and shapes can tell.
PUBLISHED = {
    'DBGAN': {'type': 'DBGAN', 'nf': 64, 'nb': 16, 'gc': 32},
    'DeblurGANv2-D-full': {'type': 'NLayerDiscriminator', 'n_layers': 5},
    'DeblurGANv2-D-multiscale': {'type': 'MultiScaleDiscriminator', 'ndf': 64},
    'DeblurGANv2-D-patch': {'type': 'NLayerDiscriminator', 'n_layers': 3},
    'DeblurGANv2-FPNInception': {'type': 'DeblurGANv2', 'backbone': 'inception', 'image_statistics': True},
    'DeblurGANv2-FPNMobileNet': {'type': 'DeblurGANv2', 'backbone': 'mobilenet', 'image_statistics': True},
    'EVSSM': {'type': 'EVSSM', 'dim': 48, 'num_blocks': [6, 6, 12], 'ffn_expansion_factor': 3, 'bias': False},
    'FFTformer': {'type': 'FFTformer', 'dim': 48, 'num_blocks': [6, 6, 12], 'ffn_expansion_factor': 3, 'bias': False},
    'HI-Diff-net_d': {'type': 'HIDiffDenoiser', 'in_channel': 256, 'inner_channel': 512, 'block_num': 4, 'group': 4,
                      'patch_expansion': 0.5, 'channel_expansion': 2},
    'HI-Diff-net_g': {'type': 'HIDiffTransformer', 'num_blocks': [3, 5, 6, 6], 'ffn_expansion_factor': 2.66, 'embed_dim': 64},
    'HI-Diff-net_le': {'type': 'HIDiffEncoder', 'in_chans': 6, 'block_num': 6, 'channel_expansion': 4},
    'HI-Diff-net_le_dm': {'type': 'HIDiffEncoder', 'in_chans': 3, 'embed_dim': 64},
    'HINet': {'type': 'HINet', 'wf': 64, 'depth': 5, 'hin_position_left': 3, 'hin_position_right': 4},
    'MIMO-UNet': {'type': 'MIMOUNet', 'num_res': 8, 'base_channel': 32},
    'MIMO-UNetPlus': {'type': 'MIMOUNetPlus', 'num_res': 20, 'base_channel': 32},
    'MPRNet': {'type': 'MPRNet', 'n_feat': 96, 'scale_unetfeats': 48, 'scale_orsnetfeats': 32, 'num_cab': 8, 'reduction': 4},
    'NAFNet-GoPro-width32': {'type': 'NAFNetLocal', 'width': 32, 'enc_blk_nums': [1, 1, 1, 28], 'middle_blk_num': 1},
    'NAFNet-GoPro-width64': {'type': 'NAFNetLocal', 'width': 64, 'dec_blk_nums': [1, 1, 1, 1]},
    'ResShift-VQ': {'type': 'ResShiftVQ', 'n_embed': 8192, 'ch': 128, 'ch_mult': [1, 2, 4], 'num_res_blocks': 2},
    'Restormer-motion': {'type': 'Restormer', 'dim': 48, 'num_blocks': [4, 6, 6, 8], 'heads': [1, 2, 4, 8],
                         'ffn_expansion_factor': 2.66, 'LayerNorm_type': 'WithBias', 'dual_pixel_task': False},
}
UNET = {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 3], 'num_res_blocks': 2}
#: Networks of other sizes than the published ones, with every setting that shapes tell away from its default.
OTHERS = [
    {'type': 'HINet', 'wf': 4, 'depth': 3, 'hin_position_left': 1, 'hin_position_right': 1},
    {'type': 'MPRNet', 'n_feat': 8, 'scale_unetfeats': 4, 'scale_orsnetfeats': 2, 'num_cab': 3, 'reduction': 2, 'bias': True},
    {'type': 'MIMOUNet', 'num_res': 3, 'base_channel': 8},
    {'type': 'NAFNetLocal', 'width': 4, 'middle_blk_num': 2, 'enc_blk_nums': [1, 3], 'dec_blk_nums': [2, 1]},
    {'type': 'Restormer', 'dim': 8, 'num_blocks': [1, 2, 1, 3], 'num_refinement_blocks': 2, 'heads': [1, 2, 2, 4],
     'ffn_expansion_factor': 1.7, 'bias': True, 'LayerNorm_type': 'BiasFree'},
    {'type': 'FFTformer', 'dim': 8, 'num_blocks': [1, 2, 1], 'num_refinement_blocks': 3, 'ffn_expansion_factor': 2.5},
    {'type': 'EVSSM', 'dim': 16, 'num_blocks': [2, 4, 2], 'ffn_expansion_factor': 1.5, 'bias': True},
    {'type': 'HIDiff', 'net_g': {'type': 'HIDiffTransformer', 'dim': 8, 'num_blocks': [1, 2, 1, 1], 'num_refinement_blocks': 3,
                                 'heads': [1, 2, 2, 4], 'ffn_expansion_factor': 2, 'bias': True, 'LayerNorm_type': 'BiasFree',
                                 'embed_dim': 4, 'group': 2},
     'net_le_dm': {'type': 'HIDiffEncoder', 'embed_dim': 4, 'block_num': 2, 'group': 2, 'channel_expansion': 3},
     'net_d': {'type': 'HIDiffDenoiser', 'in_channel': 16, 'out_channel': 16, 'inner_channel': 24, 'block_num': 2, 'group': 2}},
    {'type': 'DBGAN', 'nf': 8, 'nb': 2, 'gc': 4},
    {'type': 'DoubleScaleDiscriminator', 'ndf': 4, 'patch_layers': 2, 'full_layers': 4},
    {'type': 'MAXIM', 'features': 4, 'num_stages': 2, 'num_groups': 1, 'block_size_hr': [4, 4], 'grid_size_hr': [8, 8],
     'block_size_lr': [2, 2], 'channels_reduction': 2, 'num_bottleneck_blocks': 1},
    {'type': 'SAPHNet', 'width': 6, 'num_blocks': 1, 'kernel_size': 5},
    {'type': 'SimpleNet', 'width': 8, 'dilations': [1, 2], 'num_blocks': 1, 'num_groups': 2, 'group_blocks': 3,
     'num_descriptors': 5},
    {**UNET, 'patch_size': 2, 'in_channels': 9, 'noise_conditioned': True},
    {'type': 'PredictRefineNet', 'predictor': dict(UNET), 'denoiser': {**UNET, 'in_channels': 6, 'noise_conditioned': True}},
    {'type': 'PredictRefineNet', 'predictor': None, 'denoiser': {**UNET, 'in_channels': 6, 'noise_conditioned': True}},
    {'type': 'PredictRefineNet', 'predictor': {'type': 'NAFNetLocal', 'width': 4, 'enc_blk_nums': [1], 'dec_blk_nums': [1]},
     'denoiser': {**UNET, 'in_channels': 9, 'noise_conditioned': True}, 'condition_on_initial': True},
]


def published(name: str) -> dict[str, Tensor]:
    """The state dict of a layout, on the meta device."""
    tensors = json.loads((DATA / name / 'layout.json').read_text())['tensors']
    return {key: torch.empty(shape, dtype=getattr(torch, dtype), device='meta') for key, (shape, dtype) in tensors.items()}


def contains(options: dict, part: dict) -> bool:
    return all(contains(options[key], value) if isinstance(value, dict) else options[key] == value
               for key, value in part.items())


@pytest.mark.parametrize('name', sorted(
    path.parent.name for path in DATA.glob('*/layout.json') if path.parent.name in PUBLISHED))  # MAXIM's have flax names
def test_every_published_layout(name: str) -> None:
    found = recognise(published(name))
    assert contains(found.options, PUBLISHED[name]) and found.notes == ()
    assert found.window == (256 if name == 'HINet' else None)


@pytest.mark.parametrize('options', OTHERS, ids=lambda options: options['type'])
def test_settings_come_back_from_shapes(options: dict) -> None:
    params = plan_arch(options).state_dict()
    found = recognise(params)
    assert contains(found.options, options)
    assert build_arch(found.options).state_dict().keys() == params.keys()


def test_prefixes_are_taken_off() -> None:
    own = plan_arch(UNET).state_dict()
    for prefix in ('module.', 'generator.', 'module.net_g.', 'model._orig_mod.'):
        found = recognise({f'{prefix}{name}': value for name, value in own.items()})
        assert found.options['type'] == 'RefineUNet' and found.params.keys() == own.keys()
    dbgan = published('DBGAN')  # whose own names begin with model.
    assert recognise({f'model.{name}': value for name, value in dbgan.items()}).params.keys() == dbgan.keys()


def test_what_is_left_out_or_assumed_is_said() -> None:
    params = {f'generator.{name}': value for name, value in plan_arch(OTHERS[3]).state_dict().items()}
    found = recognise({**params, 'discriminator.weight': torch.zeros(1)})
    assert 'discriminator.weight' in found.notes[0]
    pair = recognise(plan_arch(OTHERS[-3]).state_dict())
    assert all(word in pair.notes[0] for word in ('residual_scale', 'predictor.global_skip', 'denoiser.global_skip'))


def test_unknown_network_names_the_nearest_and_what_differs() -> None:
    params = published('HINet')
    assert recognise({**params, 'extra.weight': torch.zeros(1)}) is None
    del params['cat12.bias']
    words = unrecognised({**params, 'extra.weight': torch.zeros(1), 'last.weight': torch.zeros(3, 64, 5, 5)})
    assert 'HINet (in_chn 3, wf 64' in words
    for problem in ('1 missing (first: cat12.bias)', '1 unexpected (first: extra.weight)',
                    'last.weight is (3, 64, 5, 5), not (3, 64, 3, 3)'):
        assert problem in words


def test_hostile_names_take_no_time_or_memory() -> None:
    tiny = torch.zeros(1, 1, 1, 1)
    names = [*(f'down_path_1.{i}.x' for i in range(20_000)), 'conv_01.weight']
    assert recognise(dict.fromkeys(names, tiny)) is None


@pytest.mark.parametrize('factor', [2.66, 3, 2, 1.333, 2.7182])
def test_expansion_factor(factor: float) -> None:
    pairs = [(48 * 2**level, int(48 * 2**level * factor)) for level in range(4)]
    found = expansion_factor(pairs)
    assert [int(width * found) for width, _ in pairs] == [hidden for _, hidden in pairs]
    with pytest.raises(ValueError):
        expansion_factor([(10, 20), (10, 40)])
