"""Work in processes: order, errors, and shares that cover everything once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import python_environment

from stochastic_refine.errors import InputError
from stochastic_refine.processes import my_share, run_parallel


def square(x: int) -> tuple[int, int]:
    if x < 0:
        raise InputError(f'{x} is negative; give another.')
    if x == 99:
        os._exit(1)  # as a process that is killed for want of memory
    return x * x, os.getpid()


def test_results_come_in_order_and_from_other_processes() -> None:
    results = run_parallel(square, range(8), 2, 'Squaring')
    assert [result for result, _ in results] == [x * x for x in range(8)]
    assert os.getpid() not in {process for _, process in results}
    assert {process for _, process in run_parallel(square, range(3), 1, 'Squaring')} == {os.getpid()}


def test_an_error_reaches_the_caller_as_it_was(capsys: pytest.CaptureFixture) -> None:
    for workers in (1, 2):
        with pytest.raises(InputError, match='^-1 is negative; give another.$'):
            run_parallel(square, [1, -1, 2], workers, 'Squaring')
        assert capsys.readouterr().err.endswith('\n'), 'the bar is not closed'
    with pytest.raises(InputError, match='fewer workers'):
        run_parallel(square, [1, 99, 2], 2, 'Squaring')


def test_the_death_of_a_worker_leaves_the_others_at_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='^1 of 6 naps are not done'):
        run_parallel(nap_and_note, [(tmp_path, i, i == 1) for i in range(6)], 2, 'Napping', 'nap')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['0', '2', '3', '4', '5']


def nap_and_note(job: tuple[Path, int, bool]) -> None:
    folder, number, dies = job
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    (folder / str(number)).touch()


NAPPING = '''
import os, sys, time
from pathlib import Path
from stochastic_refine.processes import run_parallel

def nap(i):
    (Path(sys.argv[1]) / str(os.getpid())).touch()
    time.sleep(600)

if __name__ == '__main__':
    run_parallel(nap, range(4), 2, 'Napping')
'''


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script, notes = tmp_path / 'napping.py', tmp_path / 'notes'
    script.write_text(NAPPING)
    notes.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(notes)], env=python_environment(), stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(notes.iterdir())) == 2)
    parent.kill()
    parent.wait()
    wait_for(lambda: not any(is_alive(int(path.name)) for path in notes.iterdir()))


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_shares_cover_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('WORLD_SIZE', '3')
    shares = []
    for rank in range(3):
        monkeypatch.setenv('RANK', str(rank))
        shares += my_share(range(10))
    assert sorted(shares) == list(range(10))
