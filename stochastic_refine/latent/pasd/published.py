"""The authors' files of PASD: a folder with ``unet/`` and ``controlnet/``, in the names and formats of diffusers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ...archs.layouts import Recognised, foreign_layout
from ...errors import InputError
from ..base_weights import SD15
from ..names import split

#: What is trained in the U-Net has one of these in its name.
_TRAINED = ('pixel_attentions', 'norm2_plus', 'attn2_plus', 'proj_in_plus')


def from_published(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict, of a base that is named and so no part of it, from the authors' two, whose names are ``unet.*`` and
    ``controlnet.*``; Stable Diffusion's own tensors are left out."""
    unet, control = split(params, ('unet.', 'controlnet.')).values()
    return {**{f'controlnet.{name}': value for name, value in control.items()},
            **{f'attention.{name}': value for name, value in unet.items() if is_trained(name)}}


def is_trained(name: str) -> bool:
    """Whether a tensor of the authors' U-Net is none of Stable Diffusion's."""
    return any(mark in name for mark in _TRAINED)


@foreign_layout('unet.conv_in.weight')
def _recognised(params: Mapping[str, Tensor]) -> Recognised:
    ours = from_published(params)
    if 'controlnet.controlnet_cond_embedding.to_rgbs.0.weight' not in ours or not any(map(is_trained, ours)):
        raise InputError('it has a U-Net of diffusers, and is none of the systems on one that are known here; a PASD has '
                         'pixel_attentions or attn2_plus in its U-Net, and a ControlNet that predicts images.')
    options = {'type': 'PASD', 'base': SD15.repository, 'light': not any('pixel_attentions' in name for name in ours),
               'rrdb': any('.preprocesser.' in name for name in ours)}
    return Recognised(options, ours, notes=('the frozen tensors of its U-Net are left out; those of base are taken', ))
