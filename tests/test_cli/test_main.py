"""The commands that no other test runs, and how the command line ends on bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import python_environment

from stochastic_refine import __version__
from stochastic_refine.cli import main


def test_list_names_what_there_is(capsys: pytest.CaptureFixture) -> None:
    assert main(['list']) == 0
    output = capsys.readouterr().out
    for name in ('PredictRefineNet', 'StochasticRefineModel', 'dpmpp_2m'):
        assert name in output


def test_prepare_and_install_into_end_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    nowhere = str(tmp_path / 'nowhere')
    for command in (['prepare', 'gopro', '--from', nowhere, '--to', str(tmp_path / 'to')], ['install-into', nowhere],
                    ['prepare', 'gorpo', '--from', str(tmp_path), '--to', str(tmp_path / 'to')]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.startswith('Error: ') and error.count('\n') == 1 and ('nowhere' in error or 'gopro' in error)
    assert not (tmp_path / 'to').exists()


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:

    def interrupted() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr('stochastic_refine.cli.doctor_report.doctor_report', interrupted)
    assert main(['doctor']) == 130
    assert 'same command' in capsys.readouterr().err


def test_version_and_unknown_command(capsys: pytest.CaptureFixture) -> None:
    for arguments, code in ((['--version'], 0), (['restroe'], 2)):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == code
    assert __version__ in capsys.readouterr().out


def test_a_closed_pipe_is_no_error() -> None:
    process = subprocess.Popen([sys.executable, '-m', 'stochastic_refine.cli', 'list'], env=python_environment(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()  # as ``| head -1`` does
    assert process.stderr.read() == b'' and process.wait() == 141
