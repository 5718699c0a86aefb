import hashlib
import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fork_trees import write_fork

from stochastic_refine.errors import InputError
from stochastic_refine.integrations.basicsr.install_into import install_into

REPOSITORY = Path(__file__).resolve().parents[3]
SPEC = importlib.util.find_spec('basicsr')
needs_basicsr = pytest.mark.skipif(SPEC is None or SPEC.origin is None, reason='BasicSR is not installed')

def snapshot(root):
    return {file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in root.rglob('*') if file.is_file() and '__pycache__' not in file.parts}


def run_in(root, code):
    """The JSON that ``code`` prints last, run as a user of that clone would."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(root), str(REPOSITORY)]), 'PYTHONWARNINGS': 'ignore'}
    done = subprocess.run([sys.executable, '-c', code], cwd=root, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def registry_clone(tmp_path):
    """The few files by which a BasicSR with registries is known; enough where nothing is imported."""
    for name, text in {'__init__.py': 'from .archs import *', 'utils/registry.py': 'ARCH_REGISTRY = MODEL_REGISTRY = None',
                       'archs/__init__.py': "'_arch.py'", 'models/__init__.py': "'_model.py'",
                       'data/degradations.py': 'from torchvision.transforms.functional_tensor import rgb_to_grayscale'}.items():
        file = tmp_path / 'clone' / 'basicsr' / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / 'clone'


@needs_basicsr
@pytest.mark.parametrize('first', ['basicsr.archs', 'stochastic_refine.registration'])
def test_a_clone_of_basicsr_knows_every_name_until_uninstalled(tmp_path, first):
    root = tmp_path / 'clone'
    shutil.copytree(Path(SPEC.origin).parent, root / 'basicsr', ignore=shutil.ignore_patterns('__pycache__'))
    (root / 'setup.py').write_text('# BasicSR')
    before = snapshot(root)
    report = install_into(root)
    assert set(snapshot(root)) - set(before) == {'basicsr/archs/stochastic_refine_arch.py',
                                                 'basicsr/models/stochastic_refine_model.py'}
    assert 'PYTHONPATH' in report  # the installed package would be loaded otherwise
    known = run_in(root, f'''
import importlib, json
first = importlib.import_module('{first}')
getattr(first, 'register_all', lambda: None)()
import basicsr
from basicsr.utils import registry as r
print(json.dumps([basicsr.__file__, *(name in getattr(r, kind + '_REGISTRY') for kind, name in (
    ('ARCH', 'PredictRefineNet'), ('ARCH', 'MSRResNet'), ('MODEL', 'StochasticRefineModel'), ('MODEL', 'SRModel'),
    ('DATASET', 'SyntheticBlurDataset'), ('LOSS', 'NoisePredictionLoss')))]))''')
    assert known == [str(root / 'basicsr' / '__init__.py')] + [True] * 6
    assert 'already' in install_into(root)
    install_into(root, uninstall=True)
    assert snapshot(root) == before
    assert not list(root.rglob('stochastic_refine*'))  # nor compiled files


def test_a_fork_without_registry_finds_our_networks_and_keeps_its_own(tmp_path):
    archs = write_fork(tmp_path, 'HINet') / 'basicsr' / 'models' / 'archs'
    # one before and one after ours by name: the order in which a folder is listed is not fixed
    for name in ('aaa', 'zzz'):
        (archs / f'{name}_arch.py').write_text('class PredictRefineNet:\n    pass\n')
    before = snapshot(tmp_path)
    install_into(tmp_path)
    modules = run_in(tmp_path, '''
import json
from basicsr.models.archs import define_network
ours = define_network({'type': 'RefineUNet', 'base_channels': 4, 'channel_mults': [1], 'num_res_blocks': 1})
try:
    define_network({'type': 'NoSuchNet'})
except ValueError as error:
    print(json.dumps([type(ours).__module__, type(define_network({'type': 'PredictRefineNet'})).__module__, str(error)]))''')
    assert modules[0] == 'stochastic_refine.archs.refine_unet_arch'
    assert modules[1].startswith('basicsr.models.archs.')
    assert modules[2] == 'NoSuchNet is not found.'
    install_into(tmp_path, uninstall=True)
    assert snapshot(tmp_path) == before


def test_a_changed_file_is_not_removed_nor_overwritten(registry_clone):
    install_into(registry_clone)
    hook = registry_clone / 'basicsr' / 'models' / 'stochastic_refine_model.py'
    hook.write_text(hook.read_text() + '# mine\n')
    state = snapshot(registry_clone)
    for uninstall in (True, False):
        with pytest.raises(InputError, match='stochastic_refine_model.py'):
            install_into(registry_clone, uninstall=uninstall)
    assert snapshot(registry_clone) == state


def test_a_file_of_someone_else_is_not_overwritten(registry_clone):
    (registry_clone / 'basicsr' / 'models' / 'stochastic_refine_model.py').write_text('mine')
    state = snapshot(registry_clone)
    with pytest.raises(InputError, match='stochastic_refine_model.py'):
        install_into(registry_clone)
    assert snapshot(registry_clone) == state


def test_a_file_with_line_ends_changed_by_git_is_still_ours(registry_clone):
    before = snapshot(registry_clone)
    install_into(registry_clone)
    hook = registry_clone / 'basicsr' / 'models' / 'stochastic_refine_model.py'
    hook.write_bytes(hook.read_bytes().replace(b'\n', b'\r\n'))
    install_into(registry_clone, uninstall=True)
    assert snapshot(registry_clone) == before


def test_only_the_files_that_a_clone_needs(registry_clone):
    degradations = registry_clone / 'basicsr' / 'data' / 'degradations.py'
    (registry_clone / 'basicsr' / '__init__.py').write_text('')
    assert 'degradations.py' in install_into(registry_clone)  # data may be imported before archs: nothing we drop can cure that
    install_into(registry_clone, uninstall=True)
    degradations.write_text('from torchvision.transforms.functional import rgb_to_grayscale')
    assert 'degradations.py' not in install_into(registry_clone)
    assert [file.name for file in registry_clone.rglob('stochastic_refine*')] == ['stochastic_refine_model.py']


def test_a_clone_outlives_the_package(registry_clone, monkeypatch):
    install_into(registry_clone)

    class Uninstalled:

        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == 'stochastic_refine':
                raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(sys, 'meta_path', [Uninstalled, *sys.meta_path])
    for name in [name for name in sys.modules if name.split('.')[0] == 'stochastic_refine']:
        monkeypatch.delitem(sys.modules, name)
    for hook in registry_clone.rglob('stochastic_refine*.py'):
        with pytest.warns(UserWarning, match='not installed in this Python'):
            runpy.run_path(str(hook))


@pytest.mark.parametrize(('files', 'reason'), [
    ((), 'holds no folder basicsr'),
    (('basicsr/train.py', ), 'neither a BasicSR with registries'),
    (('basicsr/__init__.py', 'basicsr-1.4.2.dist-info/METADATA'), 'is an installed package'),
])
def test_what_is_no_clone_is_refused_untouched(tmp_path, files, reason):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('')
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=reason):
        install_into(tmp_path)
    assert snapshot(tmp_path) == before
