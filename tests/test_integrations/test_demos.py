"""The programs in scripts/demos that others host, run without their hosts."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import pytest
from conftest import REPOSITORY
from PIL import Image

from stochastic_refine import Deblurrer

DEMOS = REPOSITORY / 'scripts' / 'demos'
PAGE = 'stochastic_refine.app.page'


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f'demo_{name}', DEMOS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cog_gets_what_the_deblurrer_makes(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``cog`` is three names; its inputs' defaults are what it calls with, if a user says nothing."""
    cog = SimpleNamespace(BasePredictor=object, Path=Path, Input=lambda description, default=None, **limits: default)
    monkeypatch.setitem(sys.modules, 'cog', cog)
    predictor = load('predict').Predictor()
    predictor.setup()
    photo = tmp_path / 'photo.png'
    Image.open(next((pairs / 'lq').iterdir())).crop((0, 0, 24, 16)).save(photo)
    defaults = {name: parameter.default for name, parameter in inspect.signature(predictor.predict).parameters.items()}
    out = predictor.predict(**{**defaults, 'image': photo})
    deblurrer = Deblurrer.from_pretrained('small', keep_sharp=True)
    deblurrer(photo, tradeoff=0.5, seed=0, keep_samples=False).save(tmp_path / 'a.png')
    assert Path(out).suffix == '.png' and list(Image.open(out).getdata()) == list(Image.open(tmp_path / 'a.png').getdata())


def test_a_space_shows_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where gradio is missing, something that takes every call stands in for it."""
    if importlib.util.find_spec('gradio') is None:
        monkeypatch.setitem(sys.modules, 'gradio', MagicMock())
    monkeypatch.setitem(sys.modules, PAGE, None)  # so that what was there before comes back in the end
    del sys.modules[PAGE]
    gradio, demo = sys.modules['gradio'], load('app').demo
    if isinstance(gradio, MagicMock):
        assert gradio.Blocks.called and gradio.Slider.called and isinstance(demo, MagicMock)
    else:
        assert isinstance(demo, gradio.Blocks)
