"""The authors' files of DiffBIR: the ControlNet of its second stage under LDM's names, and BSRNet.

SwinIR and SCUNet are recognised by spandrel.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ...archs.layouts import Recognised, foreign_layout
from ...errors import InputError
from ..base_weights import SD21
from ..names import unet_params

#: Names of BSRNet's authors, and BasicSR's; in the order in which they are replaced.
_BSRNET = {'RRDB_trunk.': 'body.', '.RDB': '.rdb', 'trunk_conv.': 'conv_body.', 'upconv': 'conv_up', 'HRconv.': 'conv_hr.'}


def bsrnet_params(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our BSRNet's state dict from one under the authors' names."""
    renamed = {}
    for name, value in params.items():
        for theirs, ours in _BSRNET.items():
            name = name.replace(theirs, ours)
        renamed[f'net.{name}'] = value
    return renamed


def control_params(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our DiffBIR's state dict, of a base and a first stage that are named and so no parts of it, from the authors' file.

    Raises:
        InputError: At a name that LDM does not have.
    """
    return {f'controlnet.{name}': value for name, value in unet_params(params).items()}


@foreign_layout('zero_convs.0.0.weight')
def _second_stage(params: Mapping[str, Tensor]) -> Recognised:
    first = params.get('input_blocks.0.0.weight')
    if first is None or first.dim() != 4 or first.shape[1] != 8:
        raise InputError("it is a ControlNet, and none of DiffBIR's, whose first convolution (input_blocks.0.0) has 8 channels;"
                         ' give weights of a system that is known here.')
    notes = ('it is the second stage alone: name the weights of a first one in stage1 (--set stage1=FILE)',
             'names and shapes do not tell versions 1 and 2 from 2.1, and the former are assumed; of the latter say so at the '
             'import: --set type=DiffBIRv21')
    return Recognised({'type': 'DiffBIR', 'base': SD21.repository}, control_params(params), notes=notes)


@foreign_layout('RRDB_trunk.0.RDB1.conv1.weight')
def _bsrnet(params: Mapping[str, Tensor]) -> Recognised:
    blocks = len({name.split('.')[1] for name in params if name.startswith('RRDB_trunk.')})
    grown, features = params['RRDB_trunk.0.RDB1.conv1.weight'].shape[:2]
    options = {'type': 'BSRNet', 'num_feat': features, 'num_block': blocks, 'num_grow_ch': grown}
    return Recognised(options, bsrnet_params(params))
