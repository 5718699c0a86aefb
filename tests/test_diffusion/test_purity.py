"""`diffusion` and `blur` stay usable anywhere: besides PyTorch and numpy-like libraries they import only themselves."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / 'stochastic_refine'
FOREIGN = {'basicsr', 'mmengine', 'yaml'}
FILES = [path for room in ('diffusion', 'blur') for path in sorted((PACKAGE / room).rglob('*.py'))]


def impurities(source: str, module: tuple[str, ...]) -> list[str]:
    """Imports that leave the room of ``module``, which is given as ('stochastic_refine', room, file's stem)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name.split('.') for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            anchor = list(module[:-node.level]) if node.level else []
            stem = anchor + (node.module.split('.') if node.module else [])
            targets = [[*stem, alias.name] for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] in FOREIGN or (target[0] == module[0] and tuple(target[:2]) != module[:2]):
                found.append(f'line {node.lineno}: {".".join(target)}')
    return found


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_room_is_pure(path):
    module = ('stochastic_refine', *path.relative_to(PACKAGE).with_suffix('').parts)
    assert impurities(path.read_text(encoding='utf-8'), module) == []


def test_both_rooms_were_looked_at():
    assert {path.relative_to(PACKAGE).parts[0] for path in FILES} == {'diffusion', 'blur'}


@pytest.mark.parametrize('source', [
    'import basicsr.utils', 'import numpy, mmengine', 'def f():\n    from yaml import safe_load',
    'from mmengine.config import Config', 'from .. import blur', 'from ..errors import InputError',
    'from ..blur.kernels import x', 'import stochastic_refine.archs', 'from stochastic_refine import archs',
    'from stochastic_refine.archs import build'
])
def test_checker_finds(source):
    assert len(impurities(source, ('stochastic_refine', 'diffusion', 'samplers'))) == 1


@pytest.mark.parametrize('source', [
    'import torch.nn.functional as F', 'from .process import posterior', 'from . import process',
    'from stochastic_refine.diffusion import process', 'from ..diffusion import process', 'import yamlish'
])
def test_checker_lets_pass(source):
    assert impurities(source, ('stochastic_refine', 'diffusion', 'samplers')) == []
