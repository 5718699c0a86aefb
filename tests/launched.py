"""What tests ask of runs that they launched: their logs, and how they ended."""

from __future__ import annotations

import re
import time


def iterations(log):
    return [int(number.replace(',', '')) for number in re.findall(r'iter: *([\d,]+), lr:', log)]


def wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f'nothing came within {seconds} s'
        time.sleep(0.05)


def read_log(folder, mode='train'):
    path, = folder.glob(f'{mode}_*.log')
    return path.read_text()


def assert_refused(run, *fragments, started=False):
    """Exit code 2 and one sentence; before the start it is all that there is, and no folder was made."""
    lines = run.err.splitlines()
    assert run.code == 2, run.err
    sentences = [line for line in lines if line.startswith('Error: ')]
    assert len(sentences) == 1 and lines[-1] == sentences[0], run.err
    assert 'Traceback' not in run.out + run.err
    assert [fragment for fragment in fragments if fragment not in sentences[0]] == [], sentences[0]
    if not started:
        assert lines == sentences
        assert not (run.err_path.parent / 'experiments').exists() and not (run.err_path.parent / 'results').exists()
