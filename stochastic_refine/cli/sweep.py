"""``stochastic-refine sweep``: the best operating points of a network."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from .arguments import Commands, add_machine, add_pairs, check_at_least


def add_sweep(commands: Commands) -> None:
    parser = commands.add_parser(
        'sweep', help='find the best operating points of a network',
        description='Score a grid of operating points on the same images. Writes cells.csv, cells.jsonl and sweep.json; a '
        'stopped run can be repeated and goes on. Under torchrun the processes share the images.')
    parser.add_argument('-opt', dest='options', type=Path, metavar='FILE', help='options file: its network and its data')
    parser.add_argument('-w', '--weights', help='instead of -opt: name or checkpoint file')
    parser.add_argument('--data', type=Path, help='folder with target/ (sharp) and input/ (blurred)')
    add_pairs(parser)
    parser.add_argument('--steps', metavar='LIST', help="numbers of steps (default: the paper's 10,20,30,50,100,200,300,500)")
    parser.add_argument('--final-variances', metavar='LIST', help="(default: the paper's 0.01,0.02,0.05,0.1,0.2,0.5)")
    parser.add_argument('--last-times', metavar='LIST', help="times of a flow's last call (default: even steps)")
    parser.add_argument('--samplers', metavar='LIST', default='ancestral',
                        help='any of ancestral,ddim,dpmpp_2m, or of flow_euler,flow_heun, or native, a '
                        "network's own (default: ancestral)")
    parser.add_argument('--etas', metavar='LIST', help='shares of fresh noise in ddim and dpmpp_2m (default: 0)')
    parser.add_argument('--counts', metavar='LIST', help='numbers of averaged samples, from one pass (default: 1)')
    parser.add_argument('--clamp', action=argparse.BooleanOptionalAction, default=False,
                        help='keep each step in the valid range')
    parser.add_argument('--metrics', metavar='LIST', help='scores of single images (default: lpips,stlpips,psnr,ssim3d)')
    parser.add_argument('--perceptual', metavar='METRIC',
                        help='picks "Ours" (default: lpips, or stlpips where it cannot be had)')
    parser.add_argument('--distortion', metavar='METRIC', default='psnr', help='picks "Ours-SA" (default: psnr)')
    parser.add_argument('--halving', action='store_true', help='successive halving: leave the worse cells after few images')
    parser.add_argument('--first-images', type=int, default=4, help='images of the first round of halving (default: 4)')
    parser.add_argument('--store', type=Path, metavar='CHECKPOINT', help='store the front as the path of restore --tradeoff in '
                        "this checkpoint, or in a copy of the network's")
    parser.add_argument('--path-points', type=int, default=9, help='most points of that path (default: 9)')
    parser.add_argument('--save', action='store_true', help='keep the restored images')
    parser.add_argument('-o', '--output', type=Path, default=Path('results/sweep'), help='folder (default: results/sweep)')
    add_machine(parser)
    parser.add_argument('--precision', choices=('float32', 'bfloat16'), help="(default: the options file's, else float32)")
    parser.set_defaults(run=_run, output_is_folder=True)


def _run(args: argparse.Namespace) -> None:
    check_at_least(args, first_images=1, max_images=1, path_points=2, workers=1)
    from dataclasses import replace

    from ..processes import rank
    from ..sweep.search import sweep
    from ..sweep.setup import check_store, choose_metrics, grid, source_of, store_path
    axes = {'steps': int, 'final_variances': float, 'last_times': float, 'samplers': str, 'etas': float, 'counts': int}
    given = {key: _values(args, key, kind) for key, kind in axes.items() if getattr(args, key) is not None}
    cells = grid(**given, clamp=args.clamp)
    asked = _values(args, 'metrics', str) if args.metrics is not None else None
    metrics, pair, missing = choose_metrics(asked, args.perceptual, args.distortion)
    network, images = source_of(args.options, args.weights, args.data, args.gt, args.lq)
    if args.precision is not None:
        network = replace(network, precision=args.precision)
    if args.store is not None:
        check_store(network, args.store)
    if rank() == 0:
        for reason in missing:
            print(f'Left out: {reason}', flush=True)
    result = sweep(network, images, cells, metrics, pair, args.output, args.device, args.halving, args.first_images,
                   args.max_images, args.save, args.workers, args.path_points)
    if rank() == 0:
        print(f'{result.to_text()}\nWritten to {args.output}: cells.csv, cells.jsonl, sweep.json.')
        if args.store is not None:
            store_path(network, result.path, args.store)
            print(f'Path of {len(result.path)} points for restore --tradeoff stored in {args.store}.')


def _values(args: argparse.Namespace, key: str, kind: type) -> list:
    try:
        values = [kind(text) for text in (part.strip() for part in getattr(args, key).split(',')) if text]
    except ValueError:
        values = []
    if not values:
        words = {int: 'whole numbers', float: 'numbers', str: 'names'}[kind]
        raise InputError(f"--{key.replace('_', '-')} must be {words} joined by commas, got '{getattr(args, key)}'.")
    return values
