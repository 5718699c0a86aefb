"""The commands that no other test runs, and how the command line ends on bad input."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import python_environment

from stochastic_refine import __version__
from stochastic_refine.cli import main
from stochastic_refine.errors import print_in_any_encoding


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


@pytest.mark.parametrize('option', [['--trajectory-length', '10', '3'], ['--noise-sigma', 'nan', '1'], ['--seed', '-1'],
                                    ['--crop-size', '0']])
def test_numbers_that_mean_nothing_are_refused(option: list[str], photos: Path, tmp_path: Path,
                                               capsys: pytest.CaptureFixture) -> None:
    assert main(['prepare', 'synthetic', '--from', str(photos), '--to', str(tmp_path / 'to'), *option]) == 2
    error = capsys.readouterr().err
    assert error.startswith('Error: ') and error.count('\n') == 1 and option[0] in error
    assert not (tmp_path / 'to').exists()


@pytest.mark.parametrize('command', [
    ['evaluate', 'A={gt}', '--gt', '{gt}', '--metrics', 'psnr', '-o'], ['prepare', 'synthetic', '--from', '{gt}', '--to'],
    ['prepare', 'gopro', '--from', '{gt}', '--to'], ['restore', '{gt}', '-o'], ['sweep', '--gt', '{gt}', '--lq', '{gt}', '-o'],
    ['study', 'diversity', '--gt', '{gt}', '--lq', '{gt}', '-o'], ['report', '{gt}', '-o'],
    ['study', 'preference', '--build', 'A={gt}', 'B={gt}', '-o'],
], ids=lambda command: ' '.join(command[:2]))
@pytest.mark.parametrize('place', ['file', 'file/sub/x.html'])
def test_places_that_cannot_be_written_are_refused(command: list[str], place: str, pairs: Path, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'file').write_text('keep')
    assert main([*(part.format(gt=pairs / 'gt') for part in command), str(tmp_path / place)]) == 2
    error = capsys.readouterr().err
    assert error.startswith('Error: ') and error.count('\n') == 1 and str(tmp_path / 'file') in error
    assert (tmp_path / 'file').read_text() == 'keep'


@pytest.mark.parametrize('encoding, arrow', [('cp1252', '^'), ('ascii', '^'), ('utf-8', '\N{UPWARDS ARROW}')])
def test_tables_are_printed_in_any_encoding(encoding: str, arrow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, 'stdout', output)
    print_in_any_encoding()
    print('PSNR \N{UPWARDS ARROW} \N{SNOWMAN} \udcff')  # the last is a byte of a file name that is no UTF-8
    output.flush()
    assert output.buffer.getvalue().decode(encoding).startswith(f'PSNR {arrow} ')


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
