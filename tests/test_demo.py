"""The bundled weights do what their card says, on photos that ship with scikit-image, through the demo's own script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from stochastic_refine.checkpoints.weights_folder import find_weights
from stochastic_refine.inference.tradeoff import tradeoff_path
from stochastic_refine.inference.weights import load_network

ROOT = Path(__file__).resolve().parents[1]


def test_bundled_weights_are_small_and_complete() -> None:
    path = find_weights('small')
    assert path.stat().st_size <= 16 * 2**20
    net, points, metadata = load_network(path)
    assert list(points) == ['default', 'vivid', 'faithful', 'fast'] and points['faithful'].average and points['fast'].steps == 9
    path_of_knob = tradeoff_path(metadata, 'small')
    assert path_of_knob[0].average and path_of_knob[-1].num_samples == 1
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert 'BSDS500' in metadata['card']


@pytest.mark.slow
def test_demo_restores_photos(tmp_path: Path) -> None:
    command = [sys.executable, 'scripts/demo.py', '--out', str(tmp_path), '--samples', '4']
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True,
                            text=True, timeout=3000)  # against hanging, not against a slow machine
    assert result.returncode == 0, result.stderr
    decibels = {name.strip(): float(value) for name, value in re.findall(r'^(\w[\w ]*?) +([\d.]+) dB$', result.stdout, re.M)}
    assert decibels['initial'] > decibels['blurred'] + 1
    assert decibels['mean of 4'] > decibels['sample 1']
    assert Image.open(tmp_path / 'restored.png').size == (7 * 260, 4 * 280)
