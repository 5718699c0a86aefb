"""``stochastic-refine export``: weights as an ONNX file."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from ..errors import InputError
from .arguments import Commands


def add_export(commands: Commands) -> None:
    parser = commands.add_parser(
        'export', help='write weights as an ONNX file',
        description='Write one ONNX file for images of any size, which runs without PyTorch; its metadata explain it.')
    parser.add_argument('weights', help='name or file of weights')
    parser.add_argument('-o', '--output', type=Path, required=True, help='the file')
    parser.add_argument('--part', default='predictor', choices=('predictor', 'denoiser', 'restore'),
                        help='the initial prediction, or the result of a deterministic network (default); one call of the '
                             'denoiser; or the whole sampler, unrolled, with its noise as an input')
    parser.add_argument('--point', help='operating point of the weights that is unrolled (default: their first)')
    parser.add_argument('--steps', type=int, help='network calls per sample in place of its own')
    parser.add_argument('--size', metavar='WxH', help='take images of this size only, for hosts that want it fixed')
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from ..inference.deblurrer import Deblurrer
    from ..integrations.export import to_onnx
    size = None if args.size is None else _size(args.size)
    deblurrer = Deblurrer.from_pretrained(args.weights, device='cpu', precision='float32')
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f'Note: {message}', file=sys.stderr)
        told = to_onnx(deblurrer, args.output, args.part, dynamic=size is None, size=size, point=args.point, steps=args.steps)
    sides = f'sides from {told["least_side"]} pixels' if size is None else f'images of {args.size}'
    print(f'{args.output}: {told["part"]} of {told["network"]}, {sides}, {args.output.stat().st_size / 2**20:.1f} MiB')


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition('x')
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise InputError(f"--size must be width x height in pixels, such as 1280x720, got '{text}'.")
    return int(height), int(width)
