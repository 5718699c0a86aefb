"""The authors' file of DeblurDiff: its base, its LKPN and its ControlNet, under the names of LDM and OpenCLIP."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ...archs.layouts import Recognised, foreign_layout
from ...errors import InputError
from ..names import autoencoder_params, open_clip_params, split, unet_params

#: Prefixes there and here, and how the names after them are translated.
_PARTS = {'unet.': ('base.unet.', unet_params), 'vae.': ('base.vae.', autoencoder_params),
          'clip.model.': ('base.text.', open_clip_params), 'kpn.unet.': ('kpn.unet.', unet_params),
          'controlnet.': ('controlnet.', unet_params)}


@foreign_layout('kpn.unet.input_blocks.0.0.weight')
def _recognised(params: Mapping[str, Tensor]) -> Recognised:
    lacking = [prefix for prefix, part in split(params, _PARTS).items() if not part]
    if lacking:
        raise InputError(f"it is part of a DeblurDiff, without {' and '.join(lacking)}; give the whole file, which has its "
                         'base model in it.')
    ours = from_published(params)
    left_out = sum(not name.startswith(tuple(_PARTS)) for name in params)
    notes = (f'{left_out} tensors beside the network are left out', ) if left_out else ()
    return Recognised({'type': 'DeblurDiff'}, ours, notes=notes)


def from_published(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from one under the authors' names, of which what is no part of the network is left out.

    Raises:
        InputError: At a name in a part that cannot be one.
    """
    parts = split(params, _PARTS)
    return {f'{ours}{name}': value for prefix, (ours, translated) in _PARTS.items()
            for name, value in translated(parts[prefix]).items()}
