"""``stochastic-refine prepare``: a downloaded archive's folder laid out for training and testing."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from .arguments import Commands, add_device, check_at_least


def add_prepare(commands: Commands) -> None:
    parser = commands.add_parser('prepare', help="lay a downloaded archive's folder out for training and testing")
    parser.add_argument('dataset', help='gopro, hide, realblur, realblur_j, realblur_r; synthetic blurs any folder of photos, '
                        'predictions keeps what a slow predictor makes of each image')
    parser.add_argument('--from', dest='source', type=Path, required=True,
                        help='the unpacked archive, or the folder of photos; predictions: the folder with input/ and target/')
    parser.add_argument('--to', dest='destination', type=Path,
                        help='where to lay it out; predictions: default initial/ beside input/')
    parser.add_argument('--variant', default='blur', help="GoPro's blur or blur_gamma (default: blur)")
    parser.add_argument('--crop-size', type=int, help='side of the training crops (default: 512); synthetic: of the central '
                        'crops (default: whole photos)')
    parser.add_argument('--crop-step', type=int, default=256, help='distance between crops (default: 256)')
    parser.add_argument('--lmdb', action='store_true', help='make LMDBs of the training crops too')
    parser.add_argument('--workers', type=int, help='processes (default: one per core)')
    parser.add_argument('--allow-incomplete', action='store_true', help='go on with fewer pairs than the data set has')
    parser.add_argument('--trajectory-length', type=float, nargs=2, metavar=('LOW', 'HIGH'),
                        help='synthetic: path of the camera shake in pixels (default: 3 10)')
    parser.add_argument('--noise-sigma', type=float, nargs=2, metavar=('LOW', 'HIGH'),
                        help='synthetic: noise in 8-bit grey values (default: 0 1)')
    parser.add_argument('--blur', metavar='PRESET', help='synthetic: blur as cameras make it: mild, camera or street')
    parser.add_argument('--seed', type=int, default=0, help='synthetic: seed of kernels and noise (default: 0)')
    parser.add_argument('-w', '--weights', help='predictions: name or file of the predictor')
    add_device(parser)
    parser.set_defaults(run=_run, output_is_folder=True)


def _run(args: argparse.Namespace) -> None:
    check_at_least(args, crop_size=1, crop_step=1, workers=1, seed=0)
    if args.dataset == 'predictions':
        if args.weights is None:
            raise InputError('prepare predictions needs the predictor; give --weights NAME_OR_FILE.')
        from ..inference.predictions import prepare_predictions
        print(prepare_predictions(args.source, args.weights, args.destination, args.device))
        return
    if args.destination is None:
        raise InputError(f'prepare {args.dataset} needs --to FOLDER, where to lay it out.')
    if args.dataset == 'synthetic':
        from ..data.prepare_synthetic import prepare_synthetic
        print(prepare_synthetic(args.source, args.destination, args.crop_size, args.trajectory_length, args.noise_sigma,
                                args.seed, args.blur))
        return
    from ..data.prepare import prepare
    if args.lmdb:
        from ..registration import prepare_basicsr
        prepare_basicsr()
    print(prepare(args.dataset, args.source, args.destination, variant=args.variant, crop_size=args.crop_size or 512,
                  crop_step=args.crop_step, lmdb=args.lmdb, workers=args.workers, allow_incomplete=args.allow_incomplete))
