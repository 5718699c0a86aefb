"""``stochastic-refine evaluate``: systems compared in one table."""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import Commands, add_machine, add_pairs, check_at_least


def add_evaluate(commands: Commands) -> None:
    parser = commands.add_parser(
        'evaluate', help='compare systems in one table',
        description='Score folders of restored images, or restore first, and print one table. Writes table.md, .tex, .csv, '
        '.json and scores.csv; a stopped run can be repeated and goes on. Under torchrun the processes share the images.')
    parser.add_argument('systems', nargs='*', metavar='NAME=SOURCE', help='SOURCE: a folder of restored images (several, one '
                        'per seed, joined by commas), an options file, a checkpoint or the name of weights')
    add_pairs(parser, required=True)
    parser.add_argument('--protocol', default='folder', help='folder, gopro, hide, realblur_j or realblur_r (default: folder)')
    parser.add_argument('--metrics', metavar='LIST', help='any of lpips,stlpips,niqe,fid,kid,psnr,ssim3d,ssim (the default), '
                        'musiq,maniqa,clipiqa')
    parser.add_argument('-o', '--output', type=Path, default=Path('results/evaluate'),
                        help='folder (default: results/evaluate)')
    parser.add_argument('--seeds', type=int, default=1, help='runs of each stochastic operating point (default: 1)')
    add_machine(parser)
    parser.add_argument('--precision', choices=('float32', 'bfloat16'), help="of all networks (default: each one's own)")
    parser.add_argument('--tile', type=int, help='restore in tiles of this side, which the table says (default: whole images)')
    parser.set_defaults(run=_run, output_is_folder=True)


def _run(args: argparse.Namespace) -> None:
    check_at_least(args, seeds=1, workers=1, max_images=1, tile=64)
    from ..comparison.evaluate import evaluate
    from ..comparison.scoring import DEFAULT_METRICS, parse_metrics
    from ..processes import rank
    table = evaluate(args.systems, args.gt, args.lq, protocol=args.protocol,
                     metrics=parse_metrics(args.metrics) if args.metrics is not None else DEFAULT_METRICS, output=args.output,
                     seeds=args.seeds, workers=args.workers, device=args.device,
                     precision=args.precision, max_images=args.max_images, tile=args.tile)
    if rank() == 0:
        print(table.to_text())
        print(f'Written to {args.output}: table.md, table.tex, table.csv, table.json, scores.csv.')
