"""``stochastic-refine install-into``: our networks made known inside a clone of BasicSR or of a fork."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import Commands


def add_install_into(commands: Commands) -> None:
    parser = commands.add_parser('install-into', help='make our networks known inside a clone of BasicSR or of a fork')
    parser.add_argument('path', type=Path, help='the clone')
    parser.add_argument('--uninstall', action='store_true', help='remove exactly what was put there')
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from ..integrations.basicsr.install_into import install_into
    print(install_into(args.path, uninstall=args.uninstall))
