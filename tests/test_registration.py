"""What enters BasicSR's registries, and what importing the package does not do."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys

import pytest
from conftest import REPOSITORY, run_python

from stochastic_refine import registration
from stochastic_refine.archs import ARCHS
from stochastic_refine.errors import InputError
from stochastic_refine.registration import prepare_basicsr, register_all

SHIM = 'torchvision.transforms.functional_tensor'


def test_importing_the_package_loads_nothing_heavy():
    code = ('import sys, stochastic_refine, stochastic_refine.registration, stochastic_refine.cli, stochastic_refine.errors;'
            'print(*sorted({"basicsr", "torchvision", "cv2", "torch", "numpy"} & sys.modules.keys()))')
    result = run_python('-c', code, cwd=REPOSITORY)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, '', '')


def test_registering_twice_is_registering_once():
    register_all()
    from basicsr.utils import registry
    registries = (registry.ARCH_REGISTRY, registry.DATASET_REGISTRY, registry.LOSS_REGISTRY, registry.METRIC_REGISTRY,
                  registry.MODEL_REGISTRY)
    before = [dict(iter(each)) for each in registries]
    register_all()
    assert [dict(iter(each)) for each in registries] == before
    names = (ARCHS, registration.DATASETS, registration.LOSSES, registration.METRICS, registration.MODELS)
    for known, ours in zip(before, names):
        assert all(known[name].__module__.startswith('stochastic_refine') for name in ours)


def test_a_name_that_another_package_took_is_refused(monkeypatch):
    register_all()
    from basicsr.utils.registry import ARCH_REGISTRY

    class RefineUNet:
        pass

    RefineUNet.__module__ = 'other_package'
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'RefineUNet', RefineUNet)
    with pytest.raises(InputError, match="'RefineUNet' is already taken in BasicSR's arch registry by other_package"):
        register_all()
    assert ARCH_REGISTRY.get('RefineUNet') is RefineUNet


@pytest.fixture
def torchvision_without(monkeypatch):
    """A torchvision that lacks the module, as since 0.17, whatever the installed one has."""
    find_spec = importlib.util.find_spec
    monkeypatch.delitem(sys.modules, SHIM, raising=False)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *args: None if name == SHIM else find_spec(name, *args))
    yield
    sys.modules.pop(SHIM, None)  # before monkeypatch puts back what was there


@pytest.mark.parametrize('source, shimmed', [
    ('from torchvision.transforms.functional_tensor import rgb_to_grayscale', True),
    ('from torchvision.transforms.functional import rgb_to_grayscale', False),
    (None, False),
], ids=['1.4.2', 'mended', 'without'])
def test_only_a_basicsr_that_needs_the_shim_gets_it(torchvision_without, monkeypatch, tmp_path, source, shimmed):
    (tmp_path / 'data').mkdir()
    if source:
        (tmp_path / 'data' / 'degradations.py').write_text(source)
    found = importlib.util.find_spec
    here = importlib.machinery.ModuleSpec('basicsr', None, origin=str(tmp_path / '__init__.py'))
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *args: here if name == 'basicsr' else found(name, *args))
    prepare_basicsr()
    assert (SHIM in sys.modules) == shimmed
    if shimmed:
        from torchvision.transforms.functional import rgb_to_grayscale
        assert sys.modules[SHIM].rgb_to_grayscale is rgb_to_grayscale


def test_a_forks_own_network_stays(monkeypatch):
    register_all()
    from basicsr.utils.registry import ARCH_REGISTRY

    class NAFNet:
        pass

    NAFNet.__module__ = 'basicsr.archs.nafnet_arch'
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'NAFNet', NAFNet)
    register_all()
    assert ARCH_REGISTRY.get('NAFNet') is NAFNet


@pytest.mark.parametrize('spec', [None, importlib.machinery.ModuleSpec('basicsr', None)], ids=['none', 'only a folder'])
def test_a_missing_basicsr_is_a_sentence(monkeypatch, spec):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *args: spec)
    with pytest.raises(InputError, match='BasicSR, which is not installed; run: pip install basicsr'):
        register_all()
    monkeypatch.setattr(sys, 'version_info', (3, 13, 0))
    with pytest.raises(InputError, match='Python 3.13'):
        register_all()
