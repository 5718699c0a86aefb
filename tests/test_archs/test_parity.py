"""Published networks: the released checkpoints' layout, and the published implementation's output for filled weights.

``data/parity/NAME`` holds the layout and one stored case per network, ``data/parity/fill.py`` makes its weights and inputs.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stochastic_refine.archs import build_arch

DATA = Path(__file__).parents[1] / 'data' / 'parity'
_spec = importlib.util.spec_from_file_location('fill', DATA / 'fill.py')
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

#: Type and constructor arguments where the layout's plain words are not those of an options file.
OPTIONS: dict[str, dict] = {
    'DBGAN': {'type': 'DBGAN'},
    'DeblurGANv2-D-full': {'type': 'NLayerDiscriminator', 'n_layers': 5},
    'DeblurGANv2-D-multiscale': {'type': 'MultiScaleDiscriminator'},
    'DeblurGANv2-D-patch': {'type': 'NLayerDiscriminator', 'n_layers': 3},
    'DeblurGANv2-FPNInception': {'type': 'DeblurGANv2', 'backbone': 'inception'},
    'DeblurGANv2-FPNMobileNet': {'type': 'DeblurGANv2', 'backbone': 'mobilenet'},
    'FFTformer': {'type': 'FFTformer'},
    'HINet': {'type': 'HINet', 'hin_position_left': 3, 'hin_position_right': 4},
    'MIMO-UNet': {'type': 'MIMOUNet'},
    'MIMO-UNetPlus': {'type': 'MIMOUNetPlus'},
    'MPRNet': {'type': 'MPRNet'},
    'Restormer-motion': {'type': 'Restormer'},
}

#: Published for images in [-1, 1]; the class takes and returns [0, 1].
SIGNED = {'DeblurGANv2-FPNInception', 'DeblurGANv2-FPNMobileNet'}

#: Stored arrays from inside a network: the module whose output each one is.
INNER = {'before_add_and_clamp': 'model', 'before_tanh': 'final'}


@pytest.mark.parametrize('case', sorted(DATA.glob('*/case_*.npz')), ids=lambda path: path.parent.name)
def test_layout_and_output(case: Path) -> None:
    layout = json.loads((case.parent / 'layout.json').read_text())
    stored = np.load(case)
    meta = json.loads(str(stored['meta']))
    net = build_arch({**(OPTIONS.get(case.parent.name) or layout['config']), **meta['build']})

    expected = {key: (tuple(shape), dtype) for key, (shape, dtype) in layout['tensors'].items()}
    own = {key: (tuple(value.shape), str(value.dtype).removeprefix('torch.')) for key, value in net.state_dict().items()}
    assert own == expected

    weights = fill.fill(expected, layout['fill_gain'], layout['shared_storage'])
    net.load_state_dict({**weights, **{key: net.state_dict()[key] for key in layout['keep_as_built']}})
    net.train(meta['mode'] == 'train')
    spec = meta['inputs'][0]
    image = fill.make_input(spec['seed'], spec['shape']) * spec['scale'] + spec['shift']
    signed = case.parent.name in SIGNED
    inner = {}
    for name in INNER.keys() & set(stored.files):
        net.get_submodule(INNER[name]).register_forward_hook(lambda *args, name=name: inner.update({name: args[2]}))
    with torch.inference_mode():
        outputs = net((image + 1) / 2 if signed else image)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    outputs = [output * 2 - 1 for output in outputs] if signed else outputs
    names = [name for name in stored.files if name != 'meta' and name not in inner]
    assert len(outputs) == len(names)
    for name, output in [*zip(names, outputs), *inner.items()]:
        stride = meta['outputs'][name].get('stored_stride', 1)
        tolerance = 1e-3 if meta['rel_noise_f32_vs_f64'][name] > 2e-5 else 1e-4
        error = np.abs(output[..., ::stride, ::stride].numpy() - stored[name]).max()
        assert error <= tolerance * meta['outputs'][name]['std']
