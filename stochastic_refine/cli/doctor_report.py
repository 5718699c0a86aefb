"""What is installed, loaded and missing, as one page of text: ``stochastic-refine doctor``, and the head of a bug report.

Nothing that may be broken is imported in this process: packages are tried, and the hardware is asked, in child processes.
"""

from __future__ import annotations

import importlib.metadata as metadata
import importlib.util
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from ..files import sha256_of
from .doctor_child import ask_hardware, import_errors, in_child, one_line

Rows = list[tuple[str, ...]]
_PACKAGE = Path(__file__).resolve().parents[1]

#: Module -> name in the package index, in the order of the report.
PACKAGES = {'torch': 'torch', 'torchvision': 'torchvision', 'numpy': 'numpy', 'scipy': 'scipy', 'cv2': 'opencv-python',
            'PIL': 'pillow', 'skimage': 'scikit-image', 'safetensors': 'safetensors', 'basicsr': 'basicsr', 'lmdb': 'lmdb',
            'mmengine': 'mmengine', 'lpips': 'lpips', 'stlpips_pytorch': 'stlpips-pytorch', 'pyiqa': 'pyiqa',
            'torch_fidelity': 'torch-fidelity', 'spandrel': 'spandrel', 'onnx': 'onnx', 'onnxscript': 'onnxscript',
            'huggingface_hub': 'huggingface_hub', 'gdown': 'gdown'}

#: Feature, the modules of which any one will do, and what to know about them.
FEATURES = (
    ('training, testing', ('basicsr', ), ''),
    ('safetensors weights', ('safetensors', ), ''),
    ('LPIPS', ('lpips', ), ''),
    ('ST-LPIPS', ('stlpips_pytorch', ), 'it also wants: ipython torchsummary'),
    ('no-reference metrics', ('pyiqa', ), 'licence PolyForm Noncommercial: not for commercial use'),
    ('FID, KID', ('torch_fidelity', ), ''),
    ('LMDB data sets', ('lmdb', ), ''),
    ('GFLOPs, OpenMMLab', ('mmengine', ), ''),
    ('more networks, ComfyUI', ('spandrel', ), ''),
    ('ONNX files', ('onnxscript', ), ''),
    ('Hugging Face hub', ('huggingface_hub', ), ''),
    ('weights on Google Drive', ('gdown', ), ''),
)

#: ``*_arch.py`` files of BasicSR up to 1.4.2; what a ``basicsr`` has beyond them tells which fork it is.
_STOCK_ARCHS = set('basicvsr basicvsrpp dfdnet discriminator duf ecbsr edsr edvr hifacegan rcan ridnet rrdbnet spynet srresnet '
                   'srvgg stylegan2 swinir tof vgg stochastic_refine'.split())

_ABSENT, _NO_METADATA = 'not installed', 'no metadata'


def doctor_report() -> str:
    """The report: versions, the ``basicsr`` that is loaded, devices, weights, and what each feature still needs.

    A missing or broken package never stops it; the package's error stands in the report, on one line. Takes some seconds.
    """
    errors = import_errors([module for module in PACKAGES if _spec(module) is not None and _spec(module).origin is not None])
    basicsr, training_error = _basicsr(errors.get('basicsr'))
    sections: list[tuple[str, Rows]] = [
        ('Versions', _versions(errors)),
        ('BasicSR (every fork is called basicsr; this one is loaded)', basicsr),
        ('Devices', _devices(errors)),
        ('Weights', _weights()),
        ('Features', _features(errors | ({} if training_error == _ABSENT else {'basicsr': training_error}))),
    ]
    return '\n\n'.join(f'{title}\n{_aligned(rows)}' for title, rows in sections)


def _spec(module: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None


def _short(path: str | Path) -> str:
    """The path with ~ for the home folder: reports are posted in public."""
    home = str(Path.home())
    return '~' + str(path)[len(home):] if home != '/' and str(path).startswith(home + os.sep) else str(path)


def _aligned(rows: Rows) -> str:
    widths = [max((len(row[i]) for row in rows if len(row) > i + 1), default=0) for i in range(max(map(len, rows)))]
    return '\n'.join('  ' + '  '.join(f'{cell:{width}}' for cell, width in zip(row, widths)).rstrip() for row in rows)


def _versions(errors: Mapping[str, str]) -> Rows:
    providers = metadata.packages_distributions()
    from .. import __version__
    rows: Rows = [('python', f'{platform.python_version()}  {_short(sys.executable)}'), ('platform', platform.platform()),
                  ('stochastic_refine', f'{__version__}  {_short(_PACKAGE)}')]
    for module, name in PACKAGES.items():
        if module not in errors:
            rows.append((name, '-'))
            continue
        # OpenCV has four packages with one module; two of them at a time are a common cause of trouble
        found = sorted(set(providers.get(module, [name])))
        version = ', '.join(_version(each) if each == name else f'{_version(each)} ({each})' for each in found)
        rows.append((name, f'{version}  BROKEN: {errors[module]}' if errors[module] else version))
    return rows


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return _NO_METADATA


def _basicsr(error: str | None) -> tuple[Rows, str]:
    """Which ``basicsr`` this process would load, and why training cannot use it ('' if it can)."""
    spec = _spec('basicsr')
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    if not roots:
        return [('loaded', 'none: BasicSR is not installed')], _ABSENT
    root = roots[0]
    registry = (root / 'utils' / 'registry.py').is_file()
    rows: Rows = [('loaded', _short(spec.origin or root))]
    if spec.origin is None:
        if not (root / 'models').is_dir():
            hidden = _version('basicsr')  # an editable install is asked after the folders of the import path
            why = ('BasicSR is not installed' if hidden == _NO_METADATA else
                   f'they hide the installed basicsr {hidden}; start from another folder')
            return [*rows, ('kind', f'only a folder of launchers: {why}')], _ABSENT
        rows.append(('kind', 'a fork without __init__.py'))
    rows.append(('install', _install(root)))
    if remote := _git_remote(root.parent):
        rows.append(('git remote', remote))
    own = sorted({file.stem.removesuffix('_arch').lower() for folder in ('archs', 'models/archs')
                  for file in (root / folder).glob('*_arch.py')} - _STOCK_ARCHS)
    rows.append(('own networks', ', '.join(own[:6] + ['...'] * (len(own) > 6)) or 'none beyond BasicSR 1.4.2'))
    rows.append(('registry', 'yes' if registry else 'no: an older fork; stochastic-refine install-into serves its networks'))
    layer = 'needs the compatibility layer (stochastic_refine applies it)'
    rows.append(('torchvision', layer if _needs_layer(root) else 'fits'))
    rows.append(('import', error or 'works'))
    others = {folder.resolve() for entry in sys.path if (folder := Path(entry or '.') / 'basicsr').is_dir()} - {root.resolve()}
    rows += [('also on the path', _short(folder)) for folder in sorted(others)]
    return rows, error or ('' if registry else 'this basicsr has no registry (see above)')


def _install(root: Path) -> str:
    """How the package got here: installed, editable, or just a folder on the import path."""
    try:
        distribution = metadata.distribution('basicsr')
        direct = json.loads(distribution.read_text('direct_url.json') or '{}')
    except (metadata.PackageNotFoundError, ValueError, OSError):
        return 'not installed: a folder on the import path'
    if Path(str(distribution.locate_file('basicsr'))).resolve() == root.resolve():
        return f'installed, version {distribution.version}'
    source = Path(url2pathname(urlparse(direct.get('url', '')).path)).resolve()
    if direct.get('dir_info', {}).get('editable') and root.resolve().is_relative_to(source):
        return f'editable, version {distribution.version}'
    return f'a folder on the import path; the installed basicsr {distribution.version} is not the one loaded'


def _git_remote(root: Path) -> str:
    try:
        url = re.search(r'^\s*url\s*=\s*(\S+)', (root / '.git' / 'config').read_text(), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return ''
    return re.sub(r'//[^/@]*@', '//', url[1]) if url else ''  # a token before the @ is nobody else's business


def _needs_layer(root: Path) -> bool:
    """Whether this BasicSR imports a torchvision module that the installed torchvision no longer has."""
    degradations, torchvision = root / 'data' / 'degradations.py', _spec('torchvision')
    if not degradations.is_file() or torchvision is None or not torchvision.origin:
        return False
    present = (Path(torchvision.origin).parent / 'transforms' / 'functional_tensor.py').is_file()
    return 'functional_tensor' in degradations.read_text(errors='replace') and not present


def _devices(errors: Mapping[str, str]) -> Rows:
    if errors.get('torch', 'missing'):
        return [('unknown', 'torch cannot be imported')]
    lines, ending = in_child(ask_hardware)
    return lines if len(lines) > 2 else [*lines, ('unknown', f'the query {ending}')]


def _weights() -> Rows:
    variable = os.environ.get('STOCHASTIC_REFINE_WEIGHTS')
    folders = [('bundled', _PACKAGE / 'weights')]
    if variable:
        folders.append(('STOCHASTIC_REFINE_WEIGHTS', Path(variable).expanduser()))
    elif _spec('platformdirs') is not None:
        import platformdirs
        folders.append(('yours', platformdirs.user_data_path('stochastic_refine', appauthor=False) / 'weights'))
    rows: Rows = []
    for where, folder in folders:
        files = sorted(file for file in folder.glob('*') if file.suffix in ('.safetensors', '.pth')) if folder.is_dir() else []
        rows += [(file.name, *_weight_facts(file), where) for file in files]
        if not files:
            rows.append((where, f'none in {_short(folder)}' + ('' if folder.is_dir() else ', which does not exist')))
    return rows if variable else [*rows, ('STOCHASTIC_REFINE_WEIGHTS', 'not set')]


def _weight_facts(file: Path) -> tuple[str, str]:
    """(size, start of the sha256 or why the file cannot be used)."""
    try:
        digest = sha256_of(file)
        size = file.stat().st_size
        if file.suffix == '.safetensors':  # its header: 8 bytes of length, then JSON
            with file.open('rb') as stream:
                length = int.from_bytes(stream.read(8), 'little')
                header = json.loads(stream.read(min(length, size)))
                ends = [entry['data_offsets'][1] for name, entry in header.items() if name != '__metadata__']
            if 8 + length + max(ends, default=0) != size:
                raise ValueError('cut short')
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return '-', f'DAMAGED: {one_line(error)}'
    return f'{size / 1e6:.1f} MB', f'sha256 {digest[:12]}'


def _features(errors: Mapping[str, str]) -> Rows:
    rows: Rows = []
    for feature, modules, note in FEATURES:
        names = ' or '.join(PACKAGES[module] for module in modules)
        present = [module for module in modules if module in errors]
        broken = next((errors[module] for module in present if errors[module]), '')
        if any(not errors[module] for module in present):
            state = 'ok'
        else:
            state = f'broken: {broken}' if present else f'missing; pip install {PACKAGES[modules[0]]}'
        rows.append((feature, names, f'{state}{"; " + note if note else ""}'))
    return rows
