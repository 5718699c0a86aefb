"""Names of Stable Diffusion's weights: those of the authors' single files, in those of ``diffusers`` and ``transformers``.

Single files (CompVis, Stability AI, and whoever trains on theirs) name the U-Net, a ControlNet and the autoencoder as the
latent diffusion code (LDM) did, and the text encoder of SD 2 as OpenCLIP does. The maps below are the whole difference:

===========================================  =======================================================================
single file                                  here
===========================================  =======================================================================
``time_embed.{0,2}``                         ``time_embedding.linear_{1,2}``
``input_blocks.0.0``                         ``conv_in``
``input_blocks.{3i+j+1}.{0,1}``              ``down_blocks.i.{resnets,attentions}.j``
``input_blocks.{3i+3}.0.op``                 ``down_blocks.i.downsamplers.0.conv``
``middle_block.{0,1,2}``                     ``mid_block.{resnets.0,attentions.0,resnets.1}``
``output_blocks.{3i+j}.{0,1}``               ``up_blocks.i.{resnets,attentions}.j``
``output_blocks.{3i+2}.{1 or 2}.conv``       ``up_blocks.i.upsamplers.0.conv``
``out.{0,2}``                                ``conv_norm_out``, ``conv_out``
in a residual block: ``in_layers.{0,2}``     ``norm1``, ``conv1``
``emb_layers.1``, ``out_layers.{0,3}``       ``time_emb_proj``, ``norm2``, ``conv2``
``skip_connection``                          ``conv_shortcut``
ControlNet: ``zero_convs.k.0``               ``controlnet_down_blocks.k``
``middle_block_out.0``                       ``controlnet_mid_block``
autoencoder: ``{encoder,decoder}.mid.*``     ``mid_block.*``; its attention's 1x1 convolutions are linear layers
``encoder.down.i``, ``decoder.up.i``         ``down_blocks.i``, ``up_blocks.{n-1-i}``
OpenCLIP: ``transformer.resblocks.i``        ``encoder.layers.i``; ``attn.in_proj`` is split into query, key and value
===========================================  =======================================================================

``diffusers`` has converters of its own, which pass over what they do not know; these lose nothing, and need no weights: a
tensor of the meta device is renamed like any other. A test holds them against each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from ..errors import InputError

_LAYERS = 2  # residual blocks per level, in all that is built on Stable Diffusion
_RESIDUAL = {'in_layers.0': 'norm1', 'in_layers.2': 'conv1', 'emb_layers.1': 'time_emb_proj', 'out_layers.0': 'norm2',
             'out_layers.3': 'conv2', 'skip_connection': 'conv_shortcut'}
_UNET = {'time_embed.0': 'time_embedding.linear_1', 'time_embed.2': 'time_embedding.linear_2', 'input_blocks.0.0': 'conv_in',
         'out.0': 'conv_norm_out', 'out.2': 'conv_out', 'middle_block.1': 'mid_block.attentions.0',
         'middle_block_out.0': 'controlnet_mid_block'}
_AUTOENCODER_ATTENTION = {'norm': 'group_norm', 'q': 'to_q', 'k': 'to_k', 'v': 'to_v', 'proj_out': 'to_out.0'}
_OPEN_CLIP = {'ln_1': 'layer_norm1', 'ln_2': 'layer_norm2', 'mlp.c_fc': 'mlp.fc1', 'mlp.c_proj': 'mlp.fc2',
              'attn.out_proj': 'self_attn.out_proj'}


def _unet_name(name: str) -> str | None:
    stem, _, kind = name.rpartition('.')
    if stem in _UNET:
        return f'{_UNET[stem]}.{kind}'
    if found := re.fullmatch(r'zero_convs\.(\d+)\.0', stem):
        return f'controlnet_down_blocks.{found[1]}.{kind}'
    if found := re.fullmatch(r'middle_block\.([012])\.(.+)', stem):
        at, rest = int(found[1]), found[2]
        if at == 1:
            return f'mid_block.attentions.0.{rest}.{kind}'
        return rest in _RESIDUAL and f'mid_block.resnets.{at // 2}.{_RESIDUAL[rest]}.{kind}' or None
    found = re.fullmatch(r'(input|output)_blocks\.(\d+)\.([012])\.(.+)', stem)
    if found is None:
        return None
    going_down, at, part, rest = found[1] == 'input', int(found[2]), int(found[3]), found[4]
    level, layer = divmod(at - going_down, _LAYERS + 1)
    if rest in ('op', 'conv'):
        sampler = 'downsamplers' if going_down else 'upsamplers'
        return f"{'down' if going_down else 'up'}_blocks.{level}.{sampler}.0.conv.{kind}"
    kinds = ('resnets', 'attentions')
    if part == 0 and rest not in _RESIDUAL or part == 2:
        return None
    return f"{'down' if going_down else 'up'}_blocks.{level}.{kinds[part]}.{layer}.{_RESIDUAL.get(rest, rest)}.{kind}"


def unet_params(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A U-Net's, or a ControlNet's, state dict from one under LDM names.

    Raises:
        InputError: At a name that LDM does not have.
    """
    return _renamed(params, _unet_name, 'U-Net')


def autoencoder_params(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An ``AutoencoderKL``'s state dict from one under LDM names.

    Raises:
        InputError: At a name that LDM does not have.
    """
    levels = len({name.split('.')[2] for name in params if name.startswith('decoder.up.')})

    def rename(name: str) -> str | None:
        if name.startswith(('quant_conv.', 'post_quant_conv.')):
            return name
        side, _, rest = name.partition('.')
        stem, _, kind = rest.rpartition('.')
        if stem in ('conv_in', 'conv_out', 'norm_out'):
            return f"{side}.{'conv_norm_out' if stem == 'norm_out' else stem}.{kind}"
        if found := re.fullmatch(r'mid\.block_([12])\.(\w+)', stem):
            return f"{side}.mid_block.resnets.{int(found[1]) - 1}.{found[2].replace('nin_', 'conv_')}.{kind}"
        if found := re.fullmatch(r'mid\.attn_1\.(norm|q|k|v|proj_out)', stem):
            return f'{side}.mid_block.attentions.0.{_AUTOENCODER_ATTENTION[found[1]]}.{kind}'
        found = re.fullmatch(r'(down|up)\.(\d+)\.(?:block\.(\d+)\.(\w+)|(down|up)sample\.conv)', stem)
        if found is None:
            return None
        way, level, block, inner = found[1], int(found[2]), found[3], found[4]
        start = f"{side}.{way}_blocks.{level if way == 'down' else levels - 1 - level}"
        if block is None:
            return f'{start}.{way}samplers.0.conv.{kind}'
        return f"{start}.resnets.{block}.{inner.replace('nin_', 'conv_')}.{kind}"

    renamed = _renamed(params, rename, 'autoencoder')
    return {name: value.flatten(1) if re.search(r'\.attentions\.0\.to_.*weight', name) else value
            for name, value in renamed.items()}


def is_unused_text(name: str, last_layer: int) -> bool:
    """Whether the penultimate layer's output does not depend on a tensor of OpenCLIP's text encoder: the ``last_layer``, the
    projection of whole texts, and the scale of its contrastive loss. The mask is a constant."""
    return name in ('text_projection', 'logit_scale', 'attn_mask') or name.startswith(f'transformer.resblocks.{last_layer}.')


def open_clip_params(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ``CLIPTextModel``'s state dict, one layer shorter, from an OpenCLIP text encoder's.

    Stable Diffusion 2 reads the penultimate layer, so that what comes after is left out (:func:`is_unused_text`).

    Raises:
        InputError: At a name that OpenCLIP does not have.
    """
    last = max((int(found[1]) for name in params if (found := re.match(r'transformer\.resblocks\.(\d+)\.', name))), default=-1)
    used: dict[str, Tensor] = {}
    for name, value in params.items():
        if is_unused_text(name, last):
            continue
        found = re.fullmatch(r'(transformer\.resblocks\.\d+)\.attn\.in_proj_(weight|bias)', name)
        if found is None:
            used[name] = value
        else:
            for letter, part in zip('qkv', value.chunk(3)):
                used[f'{found[1]}.self_attn.{letter}_proj.{found[2]}'] = part

    def rename(name: str) -> str | None:
        if name in ('positional_embedding', 'token_embedding.weight'):
            return f"embeddings.{'position' if name[0] == 'p' else 'token'}_embedding.weight"
        if name.startswith('ln_final.'):
            return name.replace('ln_final', 'final_layer_norm')
        found = re.fullmatch(r'transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)', name)
        if found is None:
            return None
        return f'encoder.layers.{found[1]}.{_OPEN_CLIP.get(found[2], found[2])}.{found[3]}'

    return _renamed(used, rename, 'text encoder')


def split(params: Mapping[str, Tensor], prefixes: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """The parts of a file by their prefixes, whose names are without them; what has none of them is left out."""
    parts: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in prefixes}
    for name, value in params.items():
        for prefix, part in parts.items():
            if name.startswith(prefix):
                part[name[len(prefix):]] = value
    return parts


def _renamed(params: Mapping[str, Tensor], rename: Callable[[str], str | None], what: str) -> dict[str, Tensor]:
    renamed = {}
    for name, value in params.items():
        new = rename(name)
        if new is None or new in renamed:
            raise InputError(f"'{name}' is no tensor of Stable Diffusion's {what}; give weights as their authors saved them.")
        renamed[new] = value
    return renamed
