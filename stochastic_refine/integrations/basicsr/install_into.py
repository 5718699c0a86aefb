"""Put the package's names into a clone of BasicSR or of a fork: ``stochastic-refine install-into PATH [--uninstall]``.

BasicSR imports every ``*_arch.py`` and ``*_model.py`` in its own folders, so a small file there is all it takes to have
this package's modules imported; otherwise its names end in "No object named ... found in 'arch' registry".
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from ...errors import InputError
from ...files import is_sealed, sealed, write_text

#: The model classes that older forks have, in ``models/image_restoration_model.py``.
HOST_MODELS = ('ImageRestorationModel', 'ImageCleanModel')
_OPENING = '# Put here by `stochastic-refine install-into`. To remove it: stochastic-refine install-into THIS_CLONE --uninstall'

_WHEN_MISSING = '''
except ModuleNotFoundError as error:
    if error.name != 'stochastic_refine':
        raise
    warnings.warn('stochastic_refine is not installed in this Python, so its names are missing here; '
                  f'install it, or delete {__file__}')
'''.lstrip()

# Only this early can the layer be in place: basicsr/__init__.py imports archs, then data, whose degradations.py needs it.
_LAYER = f'''"""Lets this BasicSR run on a torchvision that no longer has transforms.functional_tensor."""
import warnings

try:
    from stochastic_refine.registration import prepare_basicsr
    prepare_basicsr()
{_WHEN_MISSING}'''

# Only this late can all names be registered: the model classes build on basicsr.models, which imports archs, losses, metrics.
_REGISTRATION = f'''"""Registers the networks, data sets, losses, metrics and models of stochastic_refine in this BasicSR."""
import warnings

try:
    from stochastic_refine.integrations.basicsr.forks import supply_version
    from stochastic_refine.registration import register_all
    supply_version(__file__.rsplit('models', 1)[0])
    register_all()
{_WHEN_MISSING}'''

# A folder without __init__.py is hidden by an installed BasicSR, wherever that stands on the path; and so early, version.py
# and what else a fork lacks can be supplied.
_FORK_PACKAGE = f'''"""Lets `import basicsr` find this folder where another BasicSR is installed too."""
import warnings

try:
    from stochastic_refine.integrations.basicsr.forks import prepare_fork
    prepare_fork(__path__[0])
{_WHEN_MISSING}'''

_FORK_NETWORKS = f'''"""Lets `network_g: {{type: RefineUNet}}` find stochastic_refine's networks; the fork's own come first."""
import warnings

try:
    from stochastic_refine.integrations.basicsr.forks import network, prepare_fork
    prepare_fork(__file__.rsplit('models', 1)[0])

    def __getattr__(name):
        return network(name, __name__.rpartition('.')[0])
{_WHEN_MISSING}'''

_FORK_MODEL = f'''"""Lets `model_type: StochasticRefineModel` train by the noise loss, on this fork's own model."""
import warnings

try:
    from stochastic_refine.integrations.basicsr.forks import fork_model
    StochasticRefineModel = fork_model(__name__.rpartition('.')[0])
{_WHEN_MISSING}'''

_LAYER_FILE = 'basicsr/archs/stochastic_refine_arch.py'
_REGISTRATION_FILE = 'basicsr/models/stochastic_refine_model.py'
_FORK_NETWORKS_FILE = 'basicsr/models/archs/stochastic_refine_arch.py'
_FORK_PACKAGE_FILE = 'basicsr/__init__.py'


def install_into(path: str | Path, uninstall: bool = False) -> str:
    """Make the package's registered names available in a clone, or take them out again.

    Args:
        path: Root of the clone, the folder that holds ``basicsr/``. A BasicSR with registries gets everything; an older
            fork without (HINet, NAFNet, Restormer and their kind) gets the networks, and ``StochasticRefineModel`` on its own
            model class. Nothing of the clone is imported.
        uninstall: Remove exactly the files that an earlier call put there.

    Returns:
        What was done, in a few lines.

    Raises:
        InputError: If the folder is no such clone, or a file in the way is not ours or was changed; nothing is done then.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise InputError(f'{path} is no folder; give the root of a clone of BasicSR or of a fork.')
    return _remove(root) if uninstall else _put(root)


def _put(root: Path) -> str:
    files, notes = _files_for(root)
    new = {}
    for name, content in files.items():
        target = root / name
        if target.exists() and not _is_ours(target):
            raise InputError(f'{target} is not as install-into wrote it, or not from there; move it away and run this again.')
        if not target.exists() or _text(target) != content:
            new[name] = content
    fresh = [root / name for name in new if not (root / name).exists()]
    try:
        for name, content in new.items():
            write_text(root / name, content)
    except InputError:
        for target in fresh:  # all or nothing
            target.unlink(missing_ok=True)
        raise
    lines = [f'Put into {root}: {", ".join(new)}.' if new else f'{root} has them already: {", ".join(files)}.',
             *notes, f'Remove with: stochastic-refine install-into {root} --uninstall']
    return '\n'.join(lines)


def _remove(root: Path) -> str:
    present = [root / name for name in (_LAYER_FILE, _REGISTRATION_FILE, _FORK_NETWORKS_FILE) if (root / name).exists()]
    if _is_marked(root / _FORK_PACKAGE_FILE):  # else it is the clone's own
        present.append(root / _FORK_PACKAGE_FILE)
    for target in present:
        if not _is_ours(target):
            raise InputError(f'{target} is not as install-into wrote it, so nothing was removed; '
                             'keep what you need of it, delete it by hand and run this again.')
    for target in present:
        target.unlink()
        for compiled in (target.parent / '__pycache__').glob(f'{target.stem}.*.pyc'):
            compiled.unlink()
    if not present:
        return f'{root} holds no file from install-into; nothing was removed.'
    return f'Removed from {root}: {", ".join(target.relative_to(root).as_posix() for target in present)}.'


def _files_for(root: Path) -> tuple[dict[str, str], list[str]]:
    """The files that this kind of clone needs, and what its user should know.

    Raises:
        InputError: If the folder is no BasicSR, or one that cannot be served.
    """
    package = root / 'basicsr'
    if not package.is_dir():
        hint = f'; give {root.parent}' if root.name == 'basicsr' else '; give the root of a clone of BasicSR or of a fork'
        raise InputError(f'{root} holds no folder basicsr{hint}.')
    if any(root.glob('basicsr-*.dist-info')) or any(root.glob('basicsr-*.egg-info')):
        raise InputError(f'{package} is an installed package, not a clone, and needs no files: call '
                         'stochastic_refine.registration.register_all() before you build a model.')
    start, registry, archs, models, fork = (_text(package / name) for name in (
        '__init__.py', 'utils/registry.py', 'archs/__init__.py', 'models/__init__.py', 'models/archs/__init__.py'))
    if '_arch.py' in fork and 'getattr(' in fork:
        return _files_for_fork(package, models)
    if 'ARCH_REGISTRY' not in registry or 'MODEL_REGISTRY' not in registry:
        raise InputError(f'{package} is neither a BasicSR with registries (utils/registry.py) nor an older fork that scans '
                         'models/archs for *_arch.py, so it would import no new file; use a clone of BasicSR 1.3 or later.')
    if '_arch.py' not in archs or '_model.py' not in models or not (package / '__init__.py').is_file():
        raise InputError(f'{package} has registries but does not import *_arch.py and *_model.py by itself; call '
                         'stochastic_refine.registration.register_all() in its train.py before the model is built.')
    files = {_REGISTRATION_FILE: _sealed(_REGISTRATION)}
    notes = ['Its options files can now name StochasticRefineModel, PredictRefineNet, SyntheticBlurDataset and the others.']
    if 'torchvision.transforms.functional_tensor' in _text(package / 'data/degradations.py'):
        files = {_LAYER_FILE: _sealed(_LAYER), **files}
        first = re.search(r'^from (?:\.|basicsr\.)(archs|data|models|train|test)\b', start, re.MULTILINE)
        if not first or first[1] != 'archs':
            notes.append('Note: its data/degradations.py imports torchvision.transforms.functional_tensor, gone since '
                         'torchvision 0.17, maybe before that can be cured; let it import torchvision.transforms.functional.')
    return files, [*notes, *_import_notes(root)]


def _files_for_fork(package: Path, models: str) -> tuple[dict[str, str], list[str]]:
    """Of a fork that scans its folders; ``models`` is what finds its models."""
    host = _text(package / 'models/image_restoration_model.py')
    scans = '_model.py' in models and 'getattr(' in models
    if not scans or not re.search(rf'^class ({"|".join(HOST_MODELS)})\b', host, re.MULTILINE):
        raise InputError(f'{package} scans models/archs for networks, but has no models/image_restoration_model.py with '
                         f'{" or ".join(HOST_MODELS)} that its models/__init__.py would find, so PredictRefineNet would be '
                         'trained by the wrong loss there; train it by stochastic-refine train.')
    files = {_FORK_NETWORKS_FILE: _sealed(_FORK_NETWORKS), _REGISTRATION_FILE: _sealed(_FORK_MODEL)}
    if not (package / '__init__.py').exists() or _is_marked(package / '__init__.py'):
        files[_FORK_PACKAGE_FILE] = _sealed(_FORK_PACKAGE)
    notes = ['A fork without registries: its options files can now name PredictRefineNet with model_type: '
             'StochasticRefineModel, and the other networks of stochastic_refine with its own models.',
             f'Train and test with: PYTHONPATH={package.resolve().parent} python basicsr/train.py -opt FILE (installing such a '
             'fork fails with a current setuptools; where it is installed beside another BasicSR that one wins: pip uninstall '
             'basicsr).']
    if 'ema_decay' not in host:
        notes.append('It averages no weights itself; StochasticRefineModel does with train: ema_decay: 0.999.')
    if re.search(r'persistent_workers\s*=\s*True', _text(package / 'data/__init__.py')):
        notes.append('Its loader wants num_worker_per_gpu of at least 1.')
    if 'torch.cuda.current_device' in _text(package / 'train.py'):
        notes.append('Its train.py calls CUDA when it resumes, as it does whenever a run of that name has saved; these files '
                     'let it resume without a GPU too.')
    if missing := _missing_packages(package):
        notes.append(f'Note: it needs packages that are not installed: pip install {" ".join(missing)}')
    return files, notes


def _missing_packages(package: Path) -> list[str]:
    """What its networks, models, data sets and losses import and this Python lacks."""
    names = {name for part in ('models', 'data', 'metrics') for file in (package / part).rglob('*.py')
             for name in re.findall(r'^(?:from|import) ([A-Za-z_]\w*)', _text(file), re.MULTILINE)}
    return sorted(name for name in names - {'basicsr', 'stochastic_refine'} if importlib.util.find_spec(name) is None)


def _import_notes(root: Path) -> list[str]:
    """A warning where ``import basicsr`` would load another one than this clone's: all forks carry the same name."""
    own = (root / 'basicsr').resolve()
    try:
        spec = importlib.util.find_spec('basicsr')
    except ValueError:
        spec = None
    loaded = [Path(folder).resolve() for folder in (spec.submodule_search_locations or [])] if spec else []
    if own in loaded:
        return []
    what = f'loads {loaded[0]}' if loaded else 'finds nothing'
    return [f'Note: `import basicsr` {what} here, not this clone; run it with PYTHONPATH={own.parent}, or install it: pip '
            f'install --no-build-isolation -e {own.parent}']


def _sealed(body: str) -> str:
    return sealed(_OPENING, body)


def _is_marked(file: Path) -> bool:
    """Whether the file began as one of ours, changed since or not."""
    return _text(file).startswith(_OPENING)


def _is_ours(file: Path) -> bool:
    """Whether this or another version of the package wrote the file and nobody changed it since."""
    return is_sealed(_text(file))


def _text(file: Path) -> str:
    """The file's text with plain line ends (git may have changed them), or '' if it is missing."""
    return file.read_text(encoding='utf-8', errors='replace') if file.is_file() else ''
