"""The table of networks that are recognised: how each one's settings are read off the names and shapes of its state dict.

A new network adds a function of a few lines. What cannot be told from names and shapes and is no published constant is named
in ``assumed``.
"""

from __future__ import annotations

import math
from typing import Any

from .layouts import Shapes, find_layout, layout
from .maxim_weights import options_of, published_name


def expansion_factor(pairs: list[tuple[int, int]]) -> float:
    """The shortest decimal f with ``hidden == int(width * f)`` for all pairs (width, hidden).

    Raises:
        ValueError: If there is none.
    """
    low, high = max(hidden / width for width, hidden in pairs), min((hidden + 1) / width for width, hidden in pairs)
    for digits in range(8):
        factor = math.ceil(low * 10**digits) / 10**digits
        if factor < high and all(int(width * factor) == hidden for width, hidden in pairs):
            return factor
    raise ValueError(f'no factor between {low} and {high}')


@layout('HINet', window=256)
def _hinet(s: Shapes) -> dict[str, Any]:
    depth = s.count('down_path_1.')
    normed = [level for level in range(depth) if f'down_path_1.{level}.norm.weight' in s]
    return {'in_chn': s['conv_01.weight'][1], 'wf': s['conv_01.weight'][0], 'depth': depth,
            'hin_position_left': normed[0] if normed else 0, 'hin_position_right': normed[-1] if normed else -1}


@layout('MPRNet')
def _mprnet(s: Shapes) -> dict[str, Any]:
    width, channels, kernel_size, _ = s['shallow_feat1.0.weight']
    return {'in_c': channels, 'out_c': s['tail.weight'][0], 'n_feat': width,
            'scale_unetfeats': s['stage1_encoder.encoder_level2.0.body.0.weight'][0] - width,
            'scale_orsnetfeats': s['tail.weight'][1] - width, 'num_cab': s.count('stage3_orsnet.orb1.body.') - 1,
            'kernel_size': kernel_size, 'reduction': width // s['shallow_feat1.1.CA.conv_du.0.weight'][0],
            'bias': 'shallow_feat1.0.bias' in s}


@layout('MIMOUNet')
def _mimo_unet(s: Shapes) -> dict[str, Any]:
    blocks = s.count('Encoder.0.layers.')
    # MIMO-UNet+ differs in nothing else than the number of blocks, and in dropout while it is trained
    return {'type': 'MIMOUNetPlus' if blocks >= 20 else 'MIMOUNet', 'num_res': blocks,
            'base_channel': s['feat_extract.0.main.0.weight'][0]}


@layout('NAFNetLocal')
def _nafnet(s: Shapes) -> dict[str, Any]:
    """With the local pooling that the authors test with."""
    return {'img_channel': s['intro.weight'][1], 'width': s['intro.weight'][0], 'middle_blk_num': s.count('middle_blks.'),
            **{f'{key}_blk_nums': [s.count(f'{path}.{level}.') for level in range(s.count(f'{path}.'))]
               for key, path in (('enc', 'encoders'), ('dec', 'decoders'))}}


@layout('Restormer')
def _restormer(s: Shapes) -> dict[str, Any]:
    stages = ['encoder_level1', 'encoder_level2', 'encoder_level3', 'latent']
    return {'inp_channels': s['patch_embed.proj.weight'][1], 'out_channels': s['output.weight'][0],
            'dim': s['patch_embed.proj.weight'][0], 'num_blocks': [s.count(f'{stage}.') for stage in stages],
            'num_refinement_blocks': s.count('refinement.'),
            'heads': [s[f'{stage}.0.attn.temperature'][0] for stage in stages],
            'ffn_expansion_factor': expansion_factor([s[f'{stage}.0.ffn.project_out.weight'][:2] for stage in stages]),
            'bias': 'encoder_level1.0.attn.qkv.bias' in s,
            'LayerNorm_type': 'WithBias' if 'encoder_level1.0.norm1.body.bias' in s else 'BiasFree',
            'dual_pixel_task': 'skip_conv.weight' in s}


@layout('FFTformer')
def _fftformer(s: Shapes) -> dict[str, Any]:
    stages = ['encoder_level1', 'encoder_level2', 'encoder_level3']
    return {'inp_channels': s['patch_embed.proj.weight'][1], 'out_channels': s['output.weight'][0],
            'dim': s['patch_embed.proj.weight'][0], 'num_blocks': [s.count(f'{stage}.') for stage in stages],
            'num_refinement_blocks': s.count('refinement.'),
            'ffn_expansion_factor': expansion_factor([s[f'{stage}.0.ffn.project_out.weight'][:2] for stage in stages]),
            'bias': 'encoder_level1.0.ffn.project_in.bias' in s}


@layout('EVSSM')
def _evssm(s: Shapes) -> dict[str, Any]:
    """With the windows that the authors test with."""
    stages = ['encoder_level1', 'encoder_level2', 'encoder_level3']
    return {'inp_channels': s['patch_embed.proj.weight'][1], 'out_channels': s['output.weight'][0],
            'dim': s['patch_embed.proj.weight'][0], 'num_blocks': [s.count(f'{stage}.') for stage in stages],
            'ffn_expansion_factor': expansion_factor([s[f'{stage}.block0.ffn.project_out.weight'][:2] for stage in stages]),
            'bias': 'encoder_level1.block0.ffn.project_in.bias' in s}


@layout('HIDiffTransformer')
def _hidiff_transformer(s: Shapes) -> dict[str, Any]:
    levels = [f'{stage}.blocks.' for stage in ('encoder_level1', 'encoder_level2', 'encoder_level3', 'latent')]
    return {'inp_channels': s['patch_embed.proj.weight'][1], 'out_channels': s['output.weight'][0],
            'dim': s['patch_embed.proj.weight'][0], 'num_blocks': [s.count(level) for level in levels],
            'num_refinement_blocks': s.count('refinement.blocks.'),
            'heads': [s[f'{level}0.attn.temperature'][0] for level in levels],
            'ffn_expansion_factor': expansion_factor([s[f'{level}0.ffn.project_out.weight'][:2] for level in levels]),
            'bias': 'encoder_level1.blocks.0.attn.qkv.bias' in s,
            'LayerNorm_type': 'WithBias' if 'encoder_level1.blocks.0.norm1.body.bias' in s else 'BiasFree',
            'embed_dim': s['down_1.3.weight'][0] // 4, 'group': math.isqrt(s['down_1.1.weight'][1])}


def _mixer(s: Shapes, name: str) -> dict[str, Any]:
    (hidden, tokens), (wide, channels) = (s[f'{name}.{part}_mixer.0.weight'] for part in ('patch', 'channel'))
    return {'group': math.isqrt(tokens), 'patch_expansion': hidden / tokens, 'channel_expansion': wide / channels}


@layout('HIDiffEncoder')
def _hidiff_encoder(s: Shapes) -> dict[str, Any]:
    return {'in_chans': s['conv1.0.weight'][1] // 16, 'embed_dim': s['conv1.0.weight'][0], 'block_num': s.count('blocks.'),
            **_mixer(s, 'mlp')}


@layout('HIDiffDenoiser')
def _hidiff_denoiser(s: Shapes) -> dict[str, Any]:
    return {'in_channel': s['first_layer.0.weight'][1] // 3, 'out_channel': s['final_layer.0.weight'][0],
            'inner_channel': s['first_layer.0.weight'][0], 'block_num': 2 * s.count('blocks.'), **_mixer(s, 'blocks.0.0')}


@layout('HIDiff')
def _hidiff(s: Shapes) -> dict[str, Any]:
    parts = {'net_g': _hidiff_transformer, 'net_le_dm': _hidiff_encoder, 'net_d': _hidiff_denoiser}
    types = {'net_g': 'HIDiffTransformer', 'net_le_dm': 'HIDiffEncoder', 'net_d': 'HIDiffDenoiser'}
    return {part: {'type': types[part], **settings(s.under(f'{part}.'))} for part, settings in parts.items()}


@layout('DeblurGANv2')
def _deblurganv2(s: Shapes) -> dict[str, Any]:
    """Evaluated as the authors score it, with statistics of the image."""
    inception = s['fpn.lateral1.weight'][1] == 64
    return {'backbone': 'inception' if inception else 'mobilenet', 'image_statistics': True}


@layout('DBGAN')
def _dbgan(s: Shapes) -> dict[str, Any]:
    return {'in_nc': s['model.0.weight'][1], 'out_nc': s['model.4.weight'][0], 'nf': s['model.0.weight'][0],
            'nb': s.count('model.1.sub1.'), 'gc': s['model.1.sub1.0.RDB1.conv1.0.weight'][0]}


@layout('NLayerDiscriminator')
def _n_layer_discriminator(s: Shapes) -> dict[str, Any]:
    return {'in_channels': s['model.0.weight'][1], 'ndf': s['model.0.weight'][0],
            'n_layers': sum(name.endswith('.weight') for name in s) - 2}


@layout('MultiScaleDiscriminator')
def _multi_scale_discriminator(s: Shapes) -> dict[str, Any]:
    return {'in_channels': s['scale_one.0.weight'][1], 'ndf': s['scale_one.0.weight'][0]}


@layout('DoubleScaleDiscriminator')
def _double_scale_discriminator(s: Shapes) -> dict[str, Any]:
    patch, full = (_n_layer_discriminator(s.under(part)) for part in ('patch.', 'full.'))
    return {'in_channels': patch['in_channels'], 'ndf': patch['ndf'], 'patch_layers': patch['n_layers'],
            'full_layers': full['n_layers']}


@layout('MAXIM')
def _maxim(s: Shapes) -> dict[str, Any]:
    if (depth := s.count('stages.0.inputs.')) == 0:
        raise KeyError('stages.0.inputs')
    return options_of({published_name(name, depth): shape for name, shape in s.items()}, 'The state dict')


@layout('SAPHNet')
def _saphnet(s: Shapes) -> dict[str, Any]:
    blocks = s.count('encoders.0.scales.0.')
    return {'width': s['encoders.0.downs.0.weight'][0], 'num_blocks': blocks,
            'kernel_size': math.isqrt(s[f'encoders.0.scales.1.{blocks}.filter.kernels.2.weight'][0])}


@layout('SimpleNet', assumed={'dilations': [1, 2, 4, 8]})
def _simplenet(s: Shapes) -> dict[str, Any]:
    return {'width': s['stem.weight'][0], 'dilations': [2**i for i in range(s.count('encoder1.0.branches.'))],
            'num_blocks': s.count('encoder1.'), 'num_groups': s.count('groups.'), 'group_blocks': s.count('groups.0.') - 1,
            'num_descriptors': s[f'groups.0.{s.count("groups.0.") - 1}.gather.weight'][0]}


@layout('RefineUNet', assumed={'global_skip': False})
def _refine_unet(s: Shapes) -> dict[str, Any]:
    width, stacked = s['conv_in.weight'][:2]
    patch = math.isqrt(s['conv_out.weight'][0] // 3)
    levels = s.count('up.') - s.count('down.')  # one block more per level going up
    per_level = (s.count('down.') + 1) // levels  # with the block that halves the size
    return {'in_channels': stacked // patch**2, 'out_channels': s['conv_out.weight'][0] // patch**2, 'base_channels': width,
            'channel_mults': [s[f'down.{level * per_level}.conv1.weight'][0] // width for level in range(levels)],
            'num_res_blocks': per_level - 1, 'noise_conditioned': 'noise_embedding.mlp.0.weight' in s, 'patch_size': patch}


@layout('PredictRefineNet', assumed={'residual_scale': 1.0, 'refiner': 'diffusion'})
def _predict_refine(s: Shapes) -> dict[str, Any]:
    predictor, denoiser = ((find_layout(part) or (None, None))[1] if (part := s.under(prefix)) else None
                           for prefix in ('predictor.', 'denoiser.'))
    if denoiser is None or (predictor is None and s.under('predictor.')):
        raise KeyError('parts of another kind')
    conditions = {3: {'refiner': 'flow', 'condition': 'none'}, 6: {}, 9: {'condition_on_initial': True}}
    return {'predictor': predictor, 'denoiser': denoiser, **conditions[denoiser['in_channels']]}
