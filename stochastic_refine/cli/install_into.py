"""``stochastic-refine install-into``: our networks made known inside a clone of BasicSR or of a fork, or in ComfyUI."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import Commands


def add_install_into(commands: Commands) -> None:
    parser = commands.add_parser(
        'install-into', help='make our networks known inside a clone of BasicSR or of a fork, or in ComfyUI')
    parser.add_argument('path', type=Path, help='the clone, or the folder of ComfyUI')
    parser.add_argument('--uninstall', action='store_true', help='remove exactly what was put there')
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from ..integrations.basicsr import install_into as clone
    from ..integrations.spandrel import install_into as comfyui
    path = args.path.expanduser()
    host = comfyui if comfyui.is_comfyui(path) else clone
    print(host.install_into(path, uninstall=args.uninstall))
