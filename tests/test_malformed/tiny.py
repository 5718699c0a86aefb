"""A tiny network's weights, and what is made with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from stochastic_refine.archs.build import build_arch
from stochastic_refine.checkpoints import save_safetensors

NETWORK: dict[str, Any] = {
    'type': 'PredictRefineNet',
    'predictor': {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1, 'global_skip': True},
    'denoiser': {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1, 'in_channels': 6,
                 'noise_conditioned': True},
}
POINTS = {'vivid': {'sampler': 'ancestral', 'steps': 1, 'final_variance': 0.5, 'clamp': True}}
METADATA = {'network': NETWORK, 'operating_points': POINTS}


def tiny_params() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_arch(NETWORK).state_dict()


def tiny_weights(folder: Path) -> Path:
    path = folder / 'tiny.safetensors'
    save_safetensors(path, tiny_params(), METADATA)
    return path
