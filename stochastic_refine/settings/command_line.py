"""The command line of BasicSR's train and test, checked before BasicSR's own parser acts on it."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import InputError
from ..values import shortened

#: What BasicSR pastes between quotes into a line of Python that it executes.
_KEYS = re.compile(r'[\w.+\- \[\]]+(:[\w.+\- \[\]]+)*')


class CommandLine(NamedTuple):
    """The options file and the launcher, if they are named, and what ``--force_yml`` sets: ``block:key`` and a text each."""

    options_file: str | None = None
    launcher: str | None = None
    forced: tuple[tuple[str, str], ...] = ()


def read_command_line(argv: Sequence[str]) -> CommandLine:
    """Read ``sys.argv`` as BasicSR's parser will; what that parser refuses is left to it.

    Raises:
        InputError: If an entry of ``--force_yml`` holds anything but words, or a list of anything but plain values: BasicSR
            executes keys and lists as Python.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for name in ('-opt', '--launcher', '--local_rank'):
        parser.add_argument(name)
    for name in ('--auto_resume', '--debug'):
        parser.add_argument(name, action='store_true')
    parser.add_argument('--force_yml', nargs='+', default=[])  # with all the others, as names may be shortened
    try:
        args = parser.parse_known_args(argv[1:])[0]
    except argparse.ArgumentError:
        return CommandLine()
    return CommandLine(args.opt, args.launcher, tuple(map(_checked, args.force_yml)))


def _checked(entry: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in entry.partition('='))
    where = f'--force_yml {shortened(entry)}'
    if not equals or '=' in value:
        raise InputError(f'{where} is not one key=value; write, for example, train:total_iter=1000.')
    if not _KEYS.fullmatch(key):
        raise InputError(f'{where}: a key is made of words joined by colons; write, for example, train:total_iter=1000.')
    if not value.isprintable():
        raise InputError(f'{where}: the value holds a line break or another control character; write it without.')
    if value.startswith('['):
        try:
            ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
            raise InputError(f"{where}: a list holds numbers and texts in quotes only; write, for example, "
                             "train:optim_g:betas=[0.9,0.99].") from error
    return key, value
