"""Published networks: the released checkpoints' layout, and the published implementation's output for filled weights.

``data/parity/NAME`` holds the layout and a stored case or none per network; ``scripts/check_parity.py`` knows how to check it.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from scripts import check_parity

DATA = Path(__file__).parents[1] / 'data' / 'parity'


@pytest.mark.parametrize('case', sorted(DATA.glob('*/case_*.npz')), ids=lambda path: path.parent.name)
def test_layout_and_output(case: Path) -> None:
    if case.parent.name not in check_parity.NETWORKS:  # built from packages that are an extra
        pytest.importorskip('diffusers')
    layout = json.loads((case.parent / 'layout.json').read_text())
    check_parity.check_case(check_parity.NETWORKS[case.parent.name], layout, case)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the script; its exit code and what it printed."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, 'argv', ['check_parity.py', *map(str, arguments)])
        return check_parity.main(), capsys.readouterr().out

    return run


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """A folder as cases are kept back in: of one small network, without its layout, and of one that we don't have."""
    for name in ('DeblurGANv2-D-patch', 'NotOurs'):
        (tmp_path / name).mkdir()
        shutil.copy(DATA / 'DeblurGANv2-D-patch' / 'case_0_eval_128x128.npz', tmp_path / name)
    return tmp_path


def test_script_passes_what_agrees_and_tells_what_is_missing(check, cases: Path) -> None:
    code, printed = check(cases, '--layouts', DATA)
    assert code == 0
    assert [line.split(':')[0].split() for line in printed.splitlines()[:2]] == [
        ['ok', 'DeblurGANv2-D-patch/case_0_eval_128x128'], ['skipped', 'NotOurs']]


@pytest.mark.parametrize('change', ['output', 'input', 'layout'])
def test_script_fails_on_what_deviates(check, cases: Path, change: str) -> None:
    case = cases / 'DeblurGANv2-D-patch' / 'case_0_eval_128x128.npz'
    stored = dict(np.load(case))
    meta = json.loads(str(stored['meta']))
    layout = json.loads((DATA / 'DeblurGANv2-D-patch' / 'layout.json').read_text())
    if change == 'output':
        stored['out'].flat[0] += 2e-3 * meta['outputs']['out']['std']
    elif change == 'input':
        meta['inputs'][0]['seed'] += 1
    else:
        layout['tensors'].popitem()
    np.savez(case, **{**stored, 'meta': json.dumps(meta)})
    (cases / 'DeblurGANv2-D-patch' / 'layout.json').write_text(json.dumps(layout))
    code, printed = check(cases)
    assert code == 1 and printed.startswith('FAILED')
