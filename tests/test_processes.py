"""Work in processes: order, errors, and shares that cover everything once."""

from __future__ import annotations

import os

import pytest

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


def test_shares_cover_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('WORLD_SIZE', '3')
    shares = []
    for rank in range(3):
        monkeypatch.setenv('RANK', str(rank))
        shares += my_share(range(10))
    assert sorted(shares) == list(range(10))
