"""Imports within the package go one way, as the table below says; what restores a photo imports no BasicSR."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

NAME = 'stochastic_refine'
PACKAGE = Path(__file__).parents[1] / NAME
FILES = sorted(path for path in PACKAGE.rglob('*.py') if path != PACKAGE / '__init__.py')  # the public face may import all

#: Rooms (folders) and top-level modules from left to right; each may import itself and whatever stands in a row above its own.
ORDER = [
    {'errors'},
    {'torch_files', 'options_file'},
    {'sharded_checkpoints'},
    {'checkpoints', 'processes'},
    {'diffusion', 'blur'},
    {'archs', 'losses', 'metrics', 'data'},
    {'option_values'},
    {'inference'},
    {'models'},
    {'latent'},
    {'registration', 'dataset_check'},
    {'evaluation', 'option_check'},
    {'launch', 'doctor', 'install_into'},
    {'cli'},
]
RANK = {room: rank for rank, row in enumerate(ORDER) for room in row}

MAY_USE_BASICSR = {'losses', 'metrics', 'data', 'models', 'evaluation', 'latent', 'registration', 'option_check', 'launch',
                   'doctor', 'install_into', 'cli'}


def imports(source: str, module: tuple[str, ...], is_package: bool = False) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield (line, dotted parts) of all that ``source`` imports, at its top or within functions; relative ones resolved.

    A name after ``from ... import`` is the last part, whether it is a module or something in one.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split('.'))
        elif isinstance(node, ast.ImportFrom):
            package = module if is_package else module[:-1]
            anchor = package[:len(package) - node.level + 1] if node.level else ()
            for alias in node.names:
                yield node.lineno, (*anchor, *(node.module.split('.') if node.module else ()), alias.name)


def violations(source: str, module: tuple[str, ...], is_package: bool = False) -> list[str]:
    """What ``source`` imports against the order; ``module`` is its dotted name in parts, (NAME, room, ...)."""
    room, found = module[1], []
    for line, target in imports(source, module, is_package):
        if target[0] == 'basicsr':
            allowed = room in MAY_USE_BASICSR
        elif target[0] != NAME or target == (NAME, '__version__'):
            allowed = True
        else:  # another name of the public face has no rank
            other = target[1] if len(target) > 1 else ''
            allowed = other == room or RANK.get(other, len(ORDER)) < RANK[room]
        if not allowed:
            found.append(f'line {line}: {room} imports {".".join(target)}')
    return found


def module_of(path: Path) -> tuple[tuple[str, ...], bool]:
    """The dotted name of a file in parts, and whether the file is a package's ``__init__.py``."""
    parts = (NAME, *path.relative_to(PACKAGE).with_suffix('').parts)
    return (parts[:-1], True) if parts[-1] == '__init__' else (parts, False)


def test_every_room_has_a_place_in_the_order():
    rooms = {module_of(path)[0][1] for path in FILES}
    assert rooms - RANK.keys() == set(), 'give the new room or module a place in ORDER'
    assert {'diffusion', 'blur', 'archs'} <= rooms, 'the package was not found'


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path):
    module, is_package = module_of(path)
    if module[1] in RANK:
        assert violations(path.read_text(encoding='utf-8'), module, is_package) == []


@pytest.mark.parametrize('module, source', [
    ('diffusion.samplers', 'from ..blur import kernels'),
    ('diffusion.samplers', 'from .. import archs'),
    ('archs.build', 'def f():\n    from basicsr.utils import registry'),
    ('archs.build', 'import basicsr'),
    ('archs.build', 'from ..losses.noise_loss import NoisePredictionLoss'),
    ('data.prepare', 'def f():\n    from ..registration import prepare_basicsr'),
    ('data.prepare', 'import stochastic_refine.registration'),
    ('data.deep.file', 'from ...archs import build'),
    ('inference.restorer', 'if True:\n    from stochastic_refine import models'),
    ('inference.restorer', 'from stochastic_refine.models.x import y'),
    ('models.m', 'from ..evaluation.tables import t'),
    ('evaluation.tables', 'import torch, stochastic_refine.cli as c'),
    ('evaluation.tables', 'from stochastic_refine import Deblurrer'),
    ('errors', 'from .checkpoints import read_checkpoint'),
    ('registration', 'from . import cli'),
])
def test_checker_finds(module, source):
    assert len(violations(source, (NAME, *module.split('.')))) == 1


@pytest.mark.parametrize('module, source', [
    ('diffusion.samplers', 'from .process import posterior\nimport torch'),
    ('archs.build', 'from ..errors import InputError\nfrom . import refine_unet_arch\nfrom .. import checkpoints'),
    ('archs.build', 'from basicsrx import y'),
    ('data.prepare', 'from .archives import read_archive\nimport basicsr'),
    ('data.deep.file', 'from ..prepare import x\nfrom ...blur import kernels'),
    ('evaluation.tables', 'from .. import __version__\nfrom stochastic_refine.inference.restorer import Restorer'),
    ('cli', 'from .registration import register_all\nfrom .launch import launch'),
])
def test_checker_lets_pass(module, source):
    assert violations(source, (NAME, *module.split('.'))) == []


def test_relative_imports_of_a_package_start_in_it():
    assert list(imports('from .build import arch', (NAME, 'archs'), is_package=True)) == [(1, (NAME, 'archs', 'build', 'arch'))]
    assert list(imports('from .build import arch', (NAME, 'archs', 'x'))) == [(1, (NAME, 'archs', 'build', 'arch'))]
