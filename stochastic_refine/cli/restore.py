"""``stochastic-refine restore``: photos and videos in, sharp ones out."""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .arguments import Commands, add_machine, check_at_least


def add_restore(commands: Commands) -> None:
    parser = commands.add_parser(
        'restore', help='restore blurred photos and videos',
        description='Restore blurred photos and videos (.mp4, .mov, .mkv). What is there already is skipped, so a stopped run '
        'can be repeated. Under torchrun the processes share the photos.')
    parser.add_argument('inputs', nargs='+', help='photos, folders of photos, videos or patterns')
    parser.add_argument('-o', '--output', required=True, help='folder (which a / at the end says); for one input also a file')
    parser.add_argument('--watch', action='store_true', help='restore the photos that come into the folder, until Ctrl-C')
    parser.add_argument('--compare', action='store_true', help='also write a page, compare.html, with a split slider per photo')
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
    options: dict[str, Any] = {
        'weights': args.weights, 'overwrite': args.overwrite, 'device': args.device, 'precision': args.precision,
        'tile': _tile(args.tile), 'point': args.point, 'samples': args.samples, 'average': args.average, 'seed': args.seed,
        'tradeoff': args.tradeoff, 'keep_sharp': args.keep_sharp, 'speed': args.speed or 'auto', **changes}
    save = args.save.split(',')
    if args.watch:
        return _watch(args, save, options)
    videos, inputs = _videos(args.inputs)
    code = 0
    if videos:
        _refuse({'--save': args.save != 'image', '--compare': args.compare, '--workers': args.workers > 1,
                 '--recursive': args.recursive and not inputs},
                f'to the video {videos[0]}; leave it out, or restore a folder of its frames.')
        if inputs:
            _check_beside_videos(inputs, args.output, args.recursive)
        from ..inference.videos import restore_videos
        code = restore_videos(videos, args.output, **options)
    if not inputs:
        return code
    written: dict[Path, Mapping[str, Sequence[Path]]] = {}
    code = max(code, restore_photos(inputs, args.output, save=save, recursive=args.recursive, workers=args.workers,
                                    written=written, **options))
    if args.compare:
        from ..processes import rank
        from ..report.compare import write_comparison
        if rank() == 0:
            print(write_comparison(written, args.output, args.workers))
    return code


def _videos(inputs: Sequence[str]) -> tuple[list[str], list[str]]:
    """Inputs that are videos, with those that patterns match, and all others."""
    from ..inference.videos import is_video
    videos, others = [], []
    for given in inputs:
        files = [given] if Path(given).exists() else sorted(glob.glob(given, recursive=True)) if is_video(given) else []
        matched = [file for file in files or [given] if is_video(file) and not Path(file).is_dir()]
        videos += matched
        others += [] if matched else [given]
    return list(dict.fromkeys(videos)), others


def _check_beside_videos(inputs: Sequence[str], output: str, recursive: bool) -> None:
    """Raise an InputError if photos that are given beside videos, which come first and take long, could not be restored."""
    from ..inference.photos import FORMATS, search_photos
    from ..inference.videos.reading import SUFFIXES
    if Path(output).suffix and not output.endswith(('/', os.sep)) and not Path(output).is_dir():
        raise InputError(f'Output {output} is a file for videos and photos; give a folder, whose name may end in / to tell it '
                         'from a file.')
    for photo in search_photos(inputs, recursive, Path(output)).places:
        if photo.suffix.lower() not in FORMATS:
            raise InputError(f'{photo} is neither a video ({", ".join(SUFFIXES)}) nor a photo ({", ".join(FORMATS)}) by its '
                             'suffix; rename it, or leave it out.')


def _watch(args: argparse.Namespace, save: list[str], options: dict[str, Any]) -> int:
    from ..inference.watching import watch_folders
    _refuse({'--compare': args.compare, '--workers': args.workers > 1, '--overwrite': args.overwrite},
            'where a folder is watched; leave it out.')
    return watch_folders(args.inputs, args.output, save=save, recursive=args.recursive, **options)


def _refuse(given: Mapping[str, bool], where: str) -> None:
    """Raise an InputError at the first flag that is given and means nothing there."""
    for flag, is_given in given.items():
        if is_given:
            raise InputError(f'{flag} means nothing {where}')


def _tile(text: str) -> int | str | None:
    if text in ('auto', 'none'):
        return None if text == 'none' else text
    if not text.isdigit() or int(text) < 64:
        raise InputError(f"--tile must be auto, none or a number of pixels from 64, got '{text}'.")
    return int(text)
