"""No malformed input ends in a traceback, a hang or gigabytes: each in one clear sentence, or harmless in a valid result.

The inputs are made from good ones with a fixed seed by the modules beside this one, and tried in one process per family.
``MALFORMED=all`` takes every wrong value for every option instead of one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import python_environment


@pytest.mark.parametrize(('family', 'least'), [('photos', 190), ('checkpoints', 190), ('options', 250), ('results', 200)])
def test_malformed_inputs(tmp_path: Path, family: str, least: int) -> None:
    if family == 'results':
        pytest.importorskip('choix')  # ranks the answers of a preference study
    child = [sys.executable, str(Path(__file__).with_name('malformed_child.py')), family, str(tmp_path)]
    done = subprocess.run(child, env=python_environment(), capture_output=True, text=True)
    lines = [json.loads(line) for line in (tmp_path / 'results.jsonl').read_text(encoding='utf-8').splitlines()]
    if done.returncode:
        last = lines[-1]['name'] if lines else 'the good inputs'
        pytest.fail(f'The process ended with {done.returncode} over {last}:\n{done.stderr[-3000:]}')
    results = [line for line in lines if 'kind' in line]
    wrong = [f"{line['name']}: {line['kind']}\n    {line['text']}" for line in results
             if line['kind'] not in ('sentence', 'valid')]
    assert not wrong, f'{len(wrong)} of {len(results)}:\n' + '\n'.join(wrong)
    kinds = Counter(line['kind'] for line in results)
    assert len(results) >= least and kinds['sentence'] > len(results) / 2, kinds
