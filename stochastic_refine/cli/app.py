"""``stochastic-refine app``: the page on this machine with the knob."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress

from ..errors import InputError
from .arguments import Commands, add_device


def add_app(commands: Commands) -> None:
    parser = commands.add_parser(
        'app', help='open a page on this machine, with the knob, before and after',
        description='Serve a page to the browsers of this machine alone: drop photos, compare before and after, turn the knob '
        'from faithful to vivid, see where the model is unsure, download. Ctrl-C ends it and removes what was uploaded. Needs '
        'the extra .[app].')
    parser.add_argument('-w', '--weights', default='small', help='name or file of the weights it begins with (default: small)')
    parser.add_argument('--port', type=int, default=7860, help='of 127.0.0.1 (default: 7860)')
    parser.add_argument('--open', action='store_true', help='open it in the browser')
    parser.add_argument('--max-megapixels', type=float, default=24.0, help='refuse larger photos (default: 24)')
    add_device(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    if not args.max_megapixels > 0:
        raise InputError(f'--max-megapixels must be above 0, got {args.max_megapixels:g}.')
    from ..app import serve
    serve(args.port, args.weights, args.device, args.max_megapixels, args.open)
    with suppress(OSError):  # the terminal was closed
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)  # Python would tear down threads that still restore within PyTorch, which aborts the process
