"""Imports within the package run down only, by the floors of the table below; what restores a photo imports no BasicSR."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

NAME = 'stochastic_refine'
PACKAGE = Path(__file__).parents[1] / NAME
FILES = sorted(path for path in PACKAGE.rglob('*.py') if path != PACKAGE / '__init__.py')  # the public face may import all

#: The house from the ground up, with what belongs in each room (a folder or a module at the top of the package). A room imports
#: itself and the floors below its own.
FLOORS = [
    {'errors': 'the exceptions and their words'},
    {'files': 'results written whole, strict JSON, hashes of contents'},
    {'values': 'single checks and their sentences', 'processes': 'work that processes share'},
    {'diffusion': 'equations of diffusion, pure torch', 'blur': 'equations of blur, pure torch'},
    {'checkpoints': 'weights as files and folders, read safely and written atomically'},
    {'archs': 'networks', 'losses': 'losses', 'metrics': 'metrics', 'data': 'data sets and reading images'},
    {'registration': "what enters BasicSR's registries, by name"},
    {'inference': 'restoring: restorer, tiling, devices, photos, folders'},
    {'models': 'the glue to the training loop'},
    {'latent': 'systems that diffuse latents'},
    {'settings': 'options files and their checks'},
    {'comparison': 'evaluate: systems, protocols, restoring, scoring, tables'},
    {'sweep': 'the grid search', 'report': 'the page', 'preference': 'the human study'},
    {'studies': "the paper's studies"},
    {'integrations': 'hosts, one file or folder each', 'app': 'the page on this machine'},
    {'cli': 'commands: arguments and their calls'},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

#: Rooms that may import BasicSR, and :mod:`~stochastic_refine.registration`, which prepares it.
MAY_USE_BASICSR = {'losses', 'metrics', 'data', 'registration', 'models', 'latent', 'settings', 'comparison', 'integrations',
                   'cli'}

#: Rooms whose files and folders do not import each other.
APART = {'integrations'}


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
    """What ``source`` imports against the order, and where it belongs; ``module`` is its dotted name, (NAME, room, ...)."""
    found = []
    for line, target in imports(source, module, is_package):
        if why := _fault(module, target):
            found.append(f'line {line}: {".".join(module[1:])} imports {".".join(target)}: {why}')
    return found


def _fault(module: tuple[str, ...], target: tuple[str, ...]) -> str:
    """Why ``module`` may not import ``target``; '' if it may."""
    room, floor = module[1], FLOOR[module[1]]
    if room not in MAY_USE_BASICSR and (target[0] == 'basicsr' or target[:2] == (NAME, 'registration')):
        return f'{room} works without BasicSR; what needs it belongs in one of {", ".join(sorted(MAY_USE_BASICSR))}.'
    if target[0] != NAME or target == (NAME, '__version__'):
        return ''
    other = target[1] if len(target) > 1 else ''
    if other == room:
        if room in APART and len(module) > 2 and len(target) > 2 and target[2] != module[2]:
            return f'{module[2]} and {target[2]} stand apart; what both need belongs in a room below {room}.'
        return ''
    if other not in FLOOR:  # another name of the public face
        return f'it has no floor; import it from the room that it is in, on a floor below {room}.'
    if FLOOR[other] >= floor:
        below = ', '.join(name for rooms in FLOORS[:floor] for name in rooms)
        return (f'that does not run down, from {room} ({FLOORS[floor][room]}) to {other} ({FLOORS[FLOOR[other]][other]}); what '
                f'both need belongs on a floor below them ({below or "there is none"}), and what is about {other} alone stays '
                'there and is handed over by whoever calls both.')
    return ''


def module_of(path: Path) -> tuple[tuple[str, ...], bool]:
    """The dotted name of a file in parts, and whether the file is a package's ``__init__.py``."""
    parts = (NAME, *path.relative_to(PACKAGE).with_suffix('').parts)
    return (parts[:-1], True) if parts[-1] == '__init__' else (parts, False)


def test_every_room_has_a_floor():
    rooms = {module_of(path)[0][1] for path in FILES}
    assert rooms - FLOOR.keys() == set(), 'move it into the room it belongs to, or give the new room a floor in FLOORS'
    assert {'diffusion', 'blur', 'archs'} <= rooms, 'the package was not found'


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_run_down(path):
    module, is_package = module_of(path)
    if module[1] in FLOOR:
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
    ('inference.folder', 'from ..registration import prepare_basicsr'),
    ('models.m', 'from ..comparison.tables import t'),
    ('comparison.tables', 'import torch, stochastic_refine.cli as c'),
    ('comparison.tables', 'from stochastic_refine import Deblurrer'),
    ('comparison.pairs', 'from ..sweep.pareto import front'),
    ('sweep.search', 'from ..report.page import write_report'),
    ('studies.ablation', 'from ..integrations.basicsr.launch import main'),
    ('integrations.hub', 'from .basicsr.launch import main'),
    ('integrations.basicsr.launch', 'from ..mmengine import Hook'),
    ('errors', 'from .checkpoints import read_checkpoint'),
    ('registration', 'from . import cli'),
])
def test_checker_finds(module, source):
    assert len(violations(source, (NAME, *module.split('.')))) == 1


def test_checker_tells_where_a_thing_belongs():
    fault, = violations('from ..studies.calibration import half_width', (NAME, 'inference', 'tiling'))
    assert 'inference.tiling imports stochastic_refine.studies.calibration.half_width' in fault
    assert 'belongs on a floor below them (errors, files, ' in fault


@pytest.mark.parametrize('module, source', [
    ('diffusion.samplers', 'from .process import posterior\nimport torch'),
    ('archs.build', 'from ..errors import InputError\nfrom . import refine_unet_arch\nfrom .. import checkpoints'),
    ('archs.build', 'from basicsrx import y'),
    ('data.prepare', 'from .archives import read_archive\nimport basicsr'),
    ('data.deep.file', 'from ..prepare import x\nfrom ...blur import kernels'),
    ('comparison.tables', 'from .. import __version__\nfrom stochastic_refine.inference.restorer import Restorer'),
    ('integrations.basicsr.launch', 'from .install_into import x\nfrom ...registration import register_all'),
    ('cli.main', 'from ..registration import register_all\nfrom ..integrations.basicsr.launch import launch'),
])
def test_checker_lets_pass(module, source):
    assert violations(source, (NAME, *module.split('.'))) == []


def test_relative_imports_of_a_package_start_in_it():
    assert list(imports('from .build import arch', (NAME, 'archs'), is_package=True)) == [(1, (NAME, 'archs', 'build', 'arch'))]
    assert list(imports('from .build import arch', (NAME, 'archs', 'x'))) == [(1, (NAME, 'archs', 'build', 'arch'))]
