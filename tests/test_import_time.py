"""Importing the package and asking for help stay quick: they load nothing heavy, and cost a fraction of PyTorch's import."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY, python_environment

HEAVY = ('torch', 'numpy', 'cv2', 'PIL', 'basicsr', 'torchvision', 'yaml')


def processor_seconds(*args: str) -> float:
    """Of a Python process; unlike the time on the clock they are the same on a busy machine."""
    before = os.times()
    subprocess.run([sys.executable, *args], cwd=REPOSITORY, env=python_environment(), check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


@pytest.mark.parametrize('args, most', [
    (('-c', 'import stochastic_refine'), 0.15),  # 0.3 s, where PyTorch takes 2
    (('-m', 'stochastic_refine.cli', '--help'), 0.25),  # 0.5 s
], ids=['import', 'help'])
def test_a_fraction_of_importing_torch(args, most):
    assert min(processor_seconds(*args) for _ in range(2)) < most * processor_seconds('-c', 'import torch')


@pytest.mark.parametrize('code', ['import stochastic_refine', 'from stochastic_refine.cli.main import _parser; _parser()'])
def test_nothing_heavy_is_loaded(code):
    code += f'; import sys; print([name for name in {HEAVY} if name in sys.modules])'
    found = subprocess.run([sys.executable, '-c', code], cwd=REPOSITORY, env=python_environment(), check=True,
                           capture_output=True, text=True)
    assert found.stdout.strip() == '[]'
