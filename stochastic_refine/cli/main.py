"""The command line: ``stochastic-refine restore|weights|train|test|evaluate|sweep|report|study|prepare|export|app|
install-into|list|doctor``."""

from __future__ import annotations

import argparse
import os
import sys

from .. import __version__
from ..errors import InputError, print_in_any_encoding, refusal_of
from .app import add_app
from .doctor import add_doctor
from .evaluate import add_evaluate
from .export import add_export
from .install_into import add_install_into
from .list import add_list
from .prepare import add_prepare
from .report import add_report
from .restore import add_restore
from .study import add_study
from .sweep import add_sweep
from .weights import add_weights

#: In the order of the help; each adds its parser, and imports what it needs only when it runs.
_COMMANDS = (add_restore, add_weights, add_evaluate, add_sweep, add_report, add_study, add_prepare, add_export, add_app,
             add_install_into, add_list, add_doctor)


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Returns:
        Exit code: 0; 2 after a sentence on standard error about unusable input; 130 after Ctrl-C; 141 if the reader of a pipe
        went away.
    """
    print_in_any_encoding()
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] in (['train'], ['test']):  # BasicSR's own parser reads the rest
        from ..integrations.basicsr.launch import main as launch
        sys.argv = [f'stochastic-refine {argv[0]}', *argv[1:]]
        return launch(argv[0], os.getcwd())
    try:
        try:
            return _command(argv)
        finally:
            sys.stdout.flush()  # so that a closed pipe shows here
    except BrokenPipeError:  # ``| head`` has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at Python's end
        return 141


def _command(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    try:
        _check_places(args)
        return args.run(args) or 0
    except InputError as error:
        print(f'Error: {error}', file=sys.stderr)
        return 2
    except OSError as error:
        refusal = refusal_of(error)
        if refusal is None:
            raise
        print(f'Error: {refusal}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('Stopped; the same command goes on where it stopped.', file=sys.stderr)
        return 130


def _check_places(args: argparse.Namespace) -> None:
    """Refuse places for results that cannot be written, before any work."""
    places = [place for key in ('output', 'destination') if (place := getattr(args, key, None)) is not None]
    if places:
        from ..files import check_writable
        for place in places:
            check_writable(place, as_folder=getattr(args, 'output_is_folder', False))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='stochastic-refine', description='Predict-and-refine diffusion deblurring.')
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')
    for mode in ('train', 'test'):
        commands.add_parser(mode, add_help=False, help=f'{mode} by an options file: {mode} -opt FILE (all of BasicSR\'s flags)')
    for add in _COMMANDS:
        add(commands)
    return parser
