"""``stochastic-refine study preference``: which of two restored crops people find better."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from .arguments import Commands, check_at_least


def add_preference(studies: Commands) -> None:
    parser = studies.add_parser(
        'preference', help='which of two restored crops people find better',
        description='--build makes a page that raters open in a browser, and its key, which stays with you; --tally counts '
        'the answers that their browsers saved.')
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument('--build', nargs='+', metavar='NAME=FOLDER', help='restored images of each method, paired by name')
    action.add_argument('--tally', nargs='+', type=Path, metavar='FILE', help='answers_*.json of the raters')
    parser.add_argument('-o', '--output', type=Path, help='build: the page (default: results/preference/page.html); tally: '
                        'folder (default: results/preference)')
    build = parser.add_argument_group('build')
    build.add_argument('--reference', type=Path, help='folder of sharp images: a method of its own, and the checks')
    build.add_argument('--pairs-per-rater', type=int, default=60, help='comparisons of one rater at most (default: 60)')
    build.add_argument('--max-images', type=int, default=24, help='use so many photos only, spread evenly (default: 24)')
    build.add_argument('--crop-size', type=int, default=512, help="side of the crops (default: 512)")
    build.add_argument('--crops', default='texture', choices=('texture', 'random'),
                       help='which crops: with much detail, or at any place (default: texture)')
    build.add_argument('--checks', type=int, default=8, help='attention checks per rater (default: 8)')
    build.add_argument('--repeats', type=int, default=4, help='comparisons asked again with swapped sides (default: 4)')
    build.add_argument('--quality', type=int, help='WebP quality, 1 to 100 (default: lossless)')
    build.add_argument('--seed', type=int, default=0, help='seed of crops and order (default: 0)')
    count = parser.add_argument_group('tally')
    count.add_argument('--key', type=Path, help="the page's .key.json")
    count.add_argument('--max-wrong', type=int, default=1, help='reject raters with more wrong checks (default: 1)')
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    check_at_least(args, pairs_per_rater=1, max_images=1, crop_size=16, checks=0, repeats=0, quality=1, max_wrong=0)
    if args.tally:
        from ..preference.tally import tally
        if args.key is None:
            raise InputError("--tally needs the study's key; give the .key.json written beside the page with --key.")
        output = args.output or Path('results/preference')
        result = tally(args.tally, args.key, args.max_wrong)
        files = result.write(output)
        print(result.to_text())
        print(f'Written to {output}: {", ".join(file.name for file in files)}.')
        return
    from ..preference.study import build_study
    study = build_study(args.build, args.output or Path('results/preference/page.html'), args.reference, args.pairs_per_rater,
                        args.max_images, args.crop_size, args.crops, args.checks, args.repeats, args.quality, args.seed)
    print(study.words)
