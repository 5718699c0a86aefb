"""``stochastic-refine report``: evaluations as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from .arguments import Commands, check_at_least


def add_report(commands: Commands) -> None:
    parser = commands.add_parser(
        'report', help='evaluations as one HTML page',
        description='Write one HTML page that needs no network and no server: a sortable table, a plot of perception and '
        'distortion, and all images to compare.')
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN', help='output folder of evaluate; several of the same '
                        'images; one of sweep adds its points to the plot')
    parser.add_argument('-o', '--output', type=Path, default=Path('report.html'), help='the page (default: report.html)')
    parser.add_argument('--images', default='embedded', choices=('embedded', 'linked'),
                        help='all in the page, up to 80 MB, or in a folder beside it (default: embedded)')
    parser.add_argument('--max-images', type=int, help='show so many images only, spread evenly')
    parser.add_argument('--quality', type=int, help='WebP quality, 1 to 100; 100 is lossless (default: 100, or 90 where that '
                        'is too much to embed)')
    parser.add_argument('--max-side', type=int,
                        help='scale larger images down to this side (default: 1280 embedded, else none)')
    parser.add_argument('--title', help='heading of the page')
    parser.add_argument('--workers', type=int, default=1, help='processes (default: 1)')
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    check_at_least(args, max_images=1, quality=1, max_side=16, workers=1)
    if args.quality is not None and args.quality > 100:
        raise InputError(f'--quality must be at most 100, got {args.quality}.')
    from ..report.page import write_report
    print(write_report(args.runs, args.output, images=args.images, max_images=args.max_images, quality=args.quality,
                       max_side=args.max_side, title=args.title, workers=args.workers))
