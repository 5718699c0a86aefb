"""The authors' files: the autoencoder, and the U-Net, which is a :class:`ResShift` without it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...archs.layouts import Recognised, Shapes, foreign_layout, layout


@layout('ResShiftVQ')
def _vq(s: Shapes) -> dict[str, Any]:
    ch = s['encoder.conv_in.weight'][0]
    levels = s.count('encoder.down.')
    return {'embed_dim': s['quant_conv.weight'][0], 'n_embed': s['quantize.embedding.weight'][0], 'ch': ch,
            'ch_mult': [s[f'encoder.down.{level}.block.0.conv1.weight'][0] // ch for level in range(levels)],
            'num_res_blocks': s.count('encoder.down.0.block.'), 'z_channels': s['encoder.conv_out.weight'][0],
            'in_channels': s['encoder.conv_in.weight'][1], 'out_ch': s['decoder.conv_out.weight'][0]}


def unet_settings(s: Shapes) -> dict[str, Any]:
    width, stacked = s['input_blocks.0.0.weight'][:2]
    mults, blocks = [], [0]
    for i in range(1, s.count('input_blocks.')):
        if f'input_blocks.{i}.0.op.weight' in s:
            blocks.append(0)
            continue
        mult = s[f'input_blocks.{i}.0.out_layers.3.weight'][0] // width
        mults += [mult] if blocks[-1] == 0 else []
        blocks[-1] += 1
    swin = s.under('input_blocks.1.1.')
    dim, table = swin['patch_embed.proj.weight'][0], swin['blocks.0.attn.relative_position_bias_table']
    window = (math.isqrt(table[0]) + 1) // 2
    masks = swin.get('blocks.1.attn_mask', (1, ))[0]
    return {'image_size': math.isqrt(masks) * window, 'in_channels': stacked - 3, 'model_channels': width,
            'out_channels': s['out.2.weight'][0], 'channel_mult': mults, 'num_res_blocks': blocks,
            'num_head_channels': dim // table[1], 'swin_depth': swin.count('blocks.'), 'swin_embed_dim': dim,
            'window_size': window, 'mlp_ratio': swin['blocks.0.mlp.fc1.weight'][0] / dim}


@foreign_layout('input_blocks.1.1.patch_embed.proj.weight')
def _unet(params: Mapping[str, Tensor]) -> Recognised:
    unet = unet_settings(Shapes.of(params))
    return Recognised({'type': 'ResShift', 'unet': unet}, {f'unet.{name}': value for name, value in params.items()}, notes=(
        "ResShift's autoencoder is not in it: restore with an options file that names that as base, as "
        'options/latent/test_resshift.yml does', 'steps: 4, min_noise_level: 0.2 are assumed, those of the journal'))
