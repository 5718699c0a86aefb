import importlib.util
import sys

import pytest

from stochastic_refine.cli import doctor_child
from stochastic_refine.cli import doctor_report as doctor

SPEC = importlib.util.find_spec('basicsr')
needs_basicsr = pytest.mark.skipif(SPEC is None or SPEC.origin is None, reason='BasicSR is not installed')


@pytest.fixture
def only_path(monkeypatch, tmp_path):
    """An import path on which nothing is but what the test writes into the folder."""
    monkeypatch.delitem(sys.modules, 'basicsr', raising=False)
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    return tmp_path


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace('__', '/')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@needs_basicsr
def test_report_of_this_environment(monkeypatch):
    needed = {'torch', *(module for _, modules, _ in doctor.FEATURES for module in modules)}
    monkeypatch.setattr(doctor, 'PACKAGES', {name: doctor.PACKAGES[name] for name in needed})
    report = doctor.doctor_report()
    rows = {tuple(line.split()[:2]): line for line in report.splitlines() if line}
    assert SPEC.origin.split('site-packages')[-1] in report
    assert 'import            works' in report  # its torchvision import is cured in the child, as in training
    assert ('training,', 'testing') in rows and rows['training,', 'testing'].endswith('ok')
    assert 'PolyForm Noncommercial' in report
    assert any(line.startswith('  CPU') and 'threads' in line and 'bf16' in line for line in report.splitlines())


def test_broken_packages_are_reported_on_one_line_and_stop_nothing(monkeypatch, tmp_path):
    write(tmp_path, **{'raises.py': 'raise RuntimeError("first\\nsecond")', 'exits.py': 'import sys; sys.exit(0)',
                       'crashes.py': 'import os; os._exit(7)', 'noisy.py': 'import sys; sys.stdout.write("no line break")',
                       'last.py': ''})
    monkeypatch.syspath_prepend(str(tmp_path))
    errors = doctor.import_errors(['raises', 'exits', 'crashes', 'noisy', 'last'])
    assert errors == {'raises': 'RuntimeError: first', 'exits': 'SystemExit: 0',
                      'crashes': 'its import ended the process (exit code 7)', 'noisy': '', 'last': ''}


def test_a_hanging_package_is_given_up(monkeypatch, tmp_path):
    write(tmp_path, **{'hangs.py': 'import time; time.sleep(3600)'})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor_child, '_CHILD_SECONDS', 1)
    assert doctor.import_errors(['hangs']) == {'hangs': 'its import took more than 1 s'}


def test_launchers_alone_are_no_basicsr(only_path):
    assert doctor._basicsr(None) == ([('loaded', 'none: BasicSR is not installed')], 'not installed')
    write(only_path, basicsr__train='')
    rows, error = doctor._basicsr(None)
    assert 'only a folder of launchers' in dict(rows)['kind'] and error == 'not installed'


def test_a_fork_is_told_from_basicsr(only_path):
    write(only_path, **{'basicsr____init__.py': '', 'basicsr__models__archs__NAFNet_arch.py': '',
                        'basicsr__models__archs__edvr_arch.py': '',
                        '.git__config': '[remote "origin"]\n\turl = https://me:secret@example.org/NAFNet.git\n'})
    (only_path / 'basicsr' / '__init__.py').write_text('')
    rows, error = doctor._basicsr('')
    facts = dict(rows)
    assert facts['loaded'] == str(only_path / 'basicsr' / '__init__.py')
    assert facts['own networks'] == 'nafnet'
    assert facts['git remote'] == 'https://example.org/NAFNet.git'
    assert facts['registry'].startswith('no') and 'no registry' in error


def test_weights_name_damaged_files(monkeypatch, tmp_path):
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    whole = len(header).to_bytes(8, 'little') + header + bytes(8)
    (tmp_path / 'whole.safetensors').write_bytes(whole)
    (tmp_path / 'cut.safetensors').write_bytes(whole[:-1])
    (tmp_path / 'empty.safetensors').write_bytes(b'')
    monkeypatch.setenv('STOCHASTIC_REFINE_WEIGHTS', str(tmp_path))
    state = {row[0]: row[2] for row in doctor._weights() if row[-1] == 'STOCHASTIC_REFINE_WEIGHTS'}
    assert state['whole.safetensors'].startswith('sha256 ')
    assert state['cut.safetensors'].startswith('DAMAGED') and state['empty.safetensors'].startswith('DAMAGED')


def test_features_say_what_is_missing_or_broken():
    states = {row[0]: row[2] for row in doctor._features({'torch_fidelity': '', 'lpips': 'OSError: no library'})}
    assert states['FID, KID'] == 'ok'
    assert states['LPIPS'] == 'broken: OSError: no library'
    assert states['no-reference metrics'].startswith('missing; pip install pyiqa; licence PolyForm Noncommercial')


def test_devices_survive_a_lost_gpu(monkeypatch, tmp_path):
    (tmp_path / 'torch.py').write_text('''
from contextlib import nullcontext
from types import SimpleNamespace as N
def memory(i):
    if i == 1:
        raise RuntimeError('GPU is lost')
    return 2**30, 2**31
get_num_threads, version, cpu = lambda: 4, N(cuda='13.2', hip=None), N()
cuda = N(is_available=lambda: True, device_count=lambda: 2, mem_get_info=memory, get_device_capability=lambda i: (9, 0),
         device=lambda i: nullcontext(), is_bf16_supported=lambda including_emulation: True, get_device_name=lambda i: 'G')
backends = N(cpu=N(get_cpu_capability=lambda: 'AVX2'), mps=N(is_available=lambda: False))
''')
    monkeypatch.syspath_prepend(str(tmp_path))
    assert doctor._devices({'torch': ''}) == [
        ('CPU', '4 threads, AVX2, bf16 emulated (slow)'),
        ('cuda:0', 'G, 2.0 GiB (1.0 free), capability 9.0, bf16 yes'),
        ('cuda:1', 'RuntimeError: GPU is lost'),
        ('MPS', 'none'),
    ]
