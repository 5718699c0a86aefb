"""The authors' file of DeblurDiff: its base, its LKPN and its ControlNet, under the names of LDM and OpenCLIP."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..names import autoencoder_params, open_clip_params, split, unet_params

#: Prefixes there and here, and how the names after them are translated.
_PARTS = {'unet.': ('base.unet.', unet_params), 'vae.': ('base.vae.', autoencoder_params),
          'clip.model.': ('base.text.', open_clip_params), 'kpn.unet.': ('kpn.unet.', unet_params),
          'controlnet.': ('controlnet.', unet_params)}


def from_published(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from one under the authors' names, of which what is no part of the network is left out.

    Raises:
        InputError: At a name in a part that cannot be one.
    """
    parts = split(params, _PARTS)
    return {f'{ours}{name}': value for prefix, (ours, translated) in _PARTS.items()
            for name, value in translated(parts[prefix]).items()}
