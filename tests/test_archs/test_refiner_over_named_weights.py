"""A refiner's file that names its predictor: both together are the pair, and no other predictor is taken for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, unet
from safetensors.torch import load_file, save_file

from stochastic_refine.archs import build_arch
from stochastic_refine.archs.pretrained import read_weights
from stochastic_refine.checkpoints import METADATA_KEY, save_safetensors, weights_folder
from stochastic_refine.errors import InputError
from stochastic_refine.inference.deblurrer import Deblurrer

PREDICTOR = unet(global_skip=True)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """``base`` in the user's folder, the ``pair`` over it as trained, and the ``refiner`` exported of that."""
    folder = tmp_path / 'weights'
    folder.mkdir()
    monkeypatch.setenv(weights_folder.WEIGHTS_VARIABLE, str(folder))
    torch.manual_seed(0)
    save_safetensors(folder / 'base.safetensors', build_arch(PREDICTOR).state_dict(), {'network': PREDICTOR})
    network = {'type': 'PredictRefineNet', 'refiner': 'flow', 'predictor': {**PREDICTOR, 'pretrained': 'base', 'frozen': True},
               'denoiser': unet(in_channels=6, noise_conditioned=True)}
    net = build_arch(network)
    for parameter in net.denoiser.parameters():
        parameter.data = torch.randn_like(parameter).mul(0.1).half().float()
    torch.save({'params': net.state_dict(), METADATA_KEY: {'network': network}}, tmp_path / 'pair.pth')
    points = tmp_path / 'points.yml'
    points.write_text('val: {operating_points: {vivid: {sampler: flow_euler, steps: 2}}}')
    subprocess.run([sys.executable, REPOSITORY / 'scripts/export_weights.py', tmp_path / 'pair.pth',
                    folder / 'base+refine.safetensors', '--points', points, '--over', 'base'], check=True)
    return {'base': folder / 'base.safetensors', 'pair': tmp_path / 'pair.pth', 'refiner': folder / 'base+refine.safetensors'}


def test_the_file_holds_the_refiner_alone_and_restores_as_the_pair(weights: dict[str, Path]) -> None:
    assert all(name.startswith('denoiser.') for name in load_file(weights['refiner']))
    image = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(1))
    settings = {'steps': 2, 'seed': 5}
    expected, found = (Deblurrer.from_pretrained(name, precision='float32')(image, **settings).image
                       for name in (weights['pair'], 'base+refine'))
    assert np.array_equal(expected, found)


@pytest.mark.parametrize('damage, words', [
    ('missing', 'not on this machine; get them: stochastic-refine weights get base'), ('other', 'trained over other weights'),
    ('path', 'not on this machine'), ('itself', 'not on this machine'), ('nameless', 'does not say the name'),
])
def test_no_other_predictor_is_taken(damage: str, words: str, weights: dict[str, Path], tmp_path: Path) -> None:
    told = {}
    if damage == 'missing':
        weights['base'].unlink()
    elif damage == 'other':
        tensors = load_file(weights['base'])
        tensors[min(tensors)] += 1e-3
        save_safetensors(weights['base'], tensors, {'network': PREDICTOR})
    else:
        shutil.copy(weights['base'], tmp_path / 'elsewhere.safetensors')
        told = {'path': {'name': str(tmp_path / 'elsewhere.safetensors')}, 'itself': {'name': 'base+refine'},
                'nameless': {'name': None}}[damage]
    metadata = read_weights(weights['refiner']).metadata if damage not in ('missing', 'other') else None
    if metadata:
        metadata['refines'] |= told
        save_file({name: value for name, value in load_file(weights['refiner']).items()}, weights['refiner'],
                  {METADATA_KEY: json.dumps(metadata)})
    with pytest.raises(InputError, match=words):
        read_weights(weights['refiner'])
