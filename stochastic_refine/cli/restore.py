"""``stochastic-refine restore``: photos in, sharp photos out."""

from __future__ import annotations

import argparse

from ..errors import InputError
from .arguments import Commands, add_machine, check_at_least


def add_restore(commands: Commands) -> None:
    parser = commands.add_parser(
        'restore', help='restore blurred photos',
        description='Restore blurred photos. Photos that are there already are skipped, so a stopped run can be repeated. '
        'Under torchrun the processes share the photos.')
    parser.add_argument('inputs', nargs='+', help='photos, folders or patterns')
    parser.add_argument('-o', '--output', required=True, help='folder (which a / at the end says); for one photo also a file')
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument('-w', '--weights', help='name or file of weights (default: the best on this machine whose photo takes '
                       'at most two minutes)')
    speed.add_argument('--fast', action='store_const', const='fast', dest='speed', help='the bundled weights')
    speed.add_argument('--best', action='store_const', const='best', dest='speed', help='the best weights on this machine, '
                       'however long they take')
    parser.add_argument('--point', help='operating point of the weights (default: their first)')
    parser.add_argument('--tradeoff', type=float, metavar='X', help='0 (most faithful) to 1 (most vivid), where the weights '
                        'hold a path, instead of a point and its settings')
    parser.add_argument('--samples', type=int, help='samples per photo')
    parser.add_argument('--average', action=argparse.BooleanOptionalAction, help='write the mean of the samples (faithful) '
                        'instead of one sample (vivid)')
    parser.add_argument('--save', default='image', metavar='LIST',
                        help='what to write: any of image,initial,samples,std joined by commas (default: image)')
    parser.add_argument('--seed', type=int, help='seed of the first sample')
    parser.add_argument('--sampler', help='ancestral, ddim or dpmpp_2m; of a flow flow_euler or flow_heun')
    parser.add_argument('--steps', type=int, help='network calls per sample')
    parser.add_argument('--final-variance', type=float, help='noise variance of the last step of the schedule')
    parser.add_argument('--last-time', type=float, help="time of a flow's last call, between 0 and 1")
    parser.add_argument('--eta', type=float, help='share of fresh noise in ddim and dpmpp_2m, 0 to 1')
    parser.add_argument('--guidance-scale', type=float, help='of a network that is told what the photo shows: how far to go '
                                                             'from the negative prompt to the prompt')
    parser.add_argument('--prompt', help='what it is told')
    parser.add_argument('--negative-prompt', help='what it is to keep away from')
    parser.add_argument('--start', help='what the sampling starts with, of a network that has the choice')
    parser.add_argument('--clamp', action=argparse.BooleanOptionalAction, help='keep each step in the valid range')
    parser.add_argument('--keep-sharp', action=argparse.BooleanOptionalAction, default=True,
                        help='leave what is sharp already as it is (default: yes)')
    parser.add_argument('--recursive', action='store_true', help='search folders with their subfolders')
    parser.add_argument('--overwrite', action='store_true', help='restore photos again whose result is there')
    parser.add_argument('--tile', default='auto', help="tile's side in pixels, auto or none (default: auto)")
    add_machine(parser)
    parser.add_argument('--precision', default='auto', choices=('auto', 'float32', 'bfloat16'))
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    check_at_least(args, workers=1)
    from ..inference.folder import restore_photos
    changes = {key: getattr(args, key) for key in ('sampler', 'steps', 'final_variance', 'last_time', 'eta', 'clamp',
                                                   'guidance_scale', 'prompt', 'negative_prompt', 'start')}
    return restore_photos(
        args.inputs, args.output, weights=args.weights, save=args.save.split(','), overwrite=args.overwrite,
        recursive=args.recursive, device=args.device, precision=args.precision, tile=_tile(args.tile), point=args.point,
        samples=args.samples, average=args.average, seed=args.seed, tradeoff=args.tradeoff, workers=args.workers,
        keep_sharp=args.keep_sharp, speed=args.speed or 'auto', **changes)


def _tile(text: str) -> int | str | None:
    if text in ('auto', 'none'):
        return None if text == 'none' else text
    if not text.isdigit() or int(text) < 64:
        raise InputError(f"--tile must be auto, none or a number of pixels from 64, got '{text}'.")
    return int(text)
