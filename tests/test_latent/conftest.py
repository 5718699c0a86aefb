"""A tiny Stable Diffusion of the real classes, as a diffusers folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from .tiny_diffusion import ONE, SMALL, make_base

if not (importlib.util.find_spec('diffusers') and importlib.util.find_spec('transformers')):
    collect_ignore_glob = ['test_*.py']


@pytest.fixture(scope='session')
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder."""
    return make_base(tmp_path_factory.mktemp('base'))


@pytest.fixture(scope='session')
def bases(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """It, one that predicts v, and one of Stable Diffusion 1."""
    return {'SD21': base, 'SD21_V': make_base(tmp_path_factory.mktemp('v'), 'v_prediction'),
            'SD15': make_base(tmp_path_factory.mktemp('one'), **ONE)}


@pytest.fixture
def network(base: Path) -> dict[str, Any]:
    """Options of a small DeblurDiff on it."""
    return {**SMALL, 'base': str(base)}
