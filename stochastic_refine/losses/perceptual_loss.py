"""BasicSR's PerceptualLoss, with the squared criterion that 1.4.2 fails over, and with sentences instead of tracebacks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from basicsr.archs.vgg_arch import NAMES, VGG_PRETRAIN_PATH, insert_bn
from basicsr.losses import build_loss
from torch import nn

from ..errors import InputError


def build_perceptual_loss(options: Mapping[str, Any], where: str = 'train: perceptual_opt') -> nn.Module:
    """Build the loss that ``{type: PerceptualLoss, layer_weights: {conv3_3: 1.0}, ...}`` describes.

    ``convN_M`` is a convolution's output before its ReLU; ``conv3_3`` is torchvision's ``features[14]`` of VGG19. The network
    takes images in [0, 1].

    Raises:
        InputError: If an argument is wrong, or VGG's weights are neither on this machine nor to be had.
    """
    vgg_type, criterion = options.get('vgg_type', 'vgg19'), options.get('criterion', 'l1')
    plain = str(vgg_type).removesuffix('_bn')
    if plain not in NAMES:
        raise InputError(f"{where}: unknown vgg_type '{vgg_type}'; known: {', '.join(NAMES)}.")
    layers = NAMES[plain] if vgg_type == plain else insert_bn(NAMES[plain])
    for layer in options['layer_weights']:
        if layer not in layers:
            raise InputError(f"{where}: layer_weights: {vgg_type} has no layer '{layer}'; known: {', '.join(layers)}.")
    if criterion not in ('l1', 'l2', 'fro'):
        raise InputError(f"{where}: criterion must be l1, l2 or fro, got '{criterion}'.")
    squared = criterion == 'l2'
    try:
        # basicsr 1.4.2 asks for torch.nn.L2loss, which there has never been
        loss = build_loss({**options, 'criterion': 'l1'} if squared else dict(options))
    except Exception as error:  # on a damaged file the unpickler can fail with any exception there is
        state = 'cannot be read' if os.path.exists(VGG_PRETRAIN_PATH) else 'are not here and cannot be downloaded'
        raise InputError(f'{where}: the {vgg_type} weights {state} ({" ".join(str(error).split())}); connect to a network, or '
                         f"put torchvision's vgg19-dcbb9e9d.pth at {os.path.abspath(VGG_PRETRAIN_PATH)}.") from error
    if squared:
        loss.criterion = nn.MSELoss()
    return loss
