"""Images smaller than a window, a patch or a latent pixel are restored by every system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stochastic_refine.archs import build_arch
from stochastic_refine.inference.operating_point import default_point
from stochastic_refine.inference.restorer import Restorer

from .test_resshift import UNET, VQ
from .tiny_diffusion import SMALL

STAGE1 = {'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1, 2], 'num_res_blocks': 1}


@pytest.mark.parametrize('size', [(1, 1), (5, 9), (7, 70)])
@pytest.mark.parametrize('kind, options', [
    ('SD21', SMALL), ('SD21', {'type': 'ControlNet', 'attention_window': 64}), ('SD21', {'type': 'DiffBIR', 'stage1': STAGE1}),
    ('SD21_V', {'type': 'DiffBIRv21', 'stage1': STAGE1}), ('SD15', {'type': 'PASD'}),
    (None, {'type': 'ResShift', 'unet': UNET}),
], ids=lambda value: value['type'] if isinstance(value, dict) else None)
def test_keeps_the_size(kind: str | None, options: dict[str, Any], size: tuple[int, int], bases: dict[str, Path]) -> None:
    torch.manual_seed(0)
    net = build_arch({**options, **({'base': str(bases[kind])} if kind else {'base_size': VQ})}).eval()
    steps = default_point(net).steps if net.rules.steps else 2
    image = Restorer(net).restore(torch.rand(3, *size), default_point(net).changed(steps=steps)).image
    assert image.shape == (3, *size) and image.isfinite().all()
