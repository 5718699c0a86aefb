"""The command line: ``stochastic-refine restore|train|test|evaluate|sweep|report|study|prepare|install-into|list|doctor``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from . import __version__
from .errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Returns:
        Exit code: 0; 2 after a sentence on standard error about unusable input; 130 after Ctrl-C; 141 if the reader of a pipe
        went away.
    """
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] in (['train'], ['test']):  # BasicSR's own parser reads the rest
        from .launch import main as launch
        sys.argv = [f'stochastic-refine {argv[0]}', *argv[1:]]
        return launch(argv[0], os.getcwd())
    try:
        try:
            return _command(argv)
        finally:
            sys.stdout.flush()  # so that a closed pipe shows here
    except BrokenPipeError:  # ``| head`` has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at Python's end
        return 141


def _command(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    try:
        return args.run(args) or 0
    except InputError as error:
        print(f'Error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('Stopped; the same command goes on where it stopped.', file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='stochastic-refine', description='Predict-and-refine diffusion deblurring.')
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')

    for mode in ('train', 'test'):
        commands.add_parser(mode, add_help=False, help=f'{mode} by an options file: {mode} -opt FILE (all of BasicSR\'s flags)')
    _add_restore(commands)
    _add_evaluate(commands)
    _add_sweep(commands)
    _add_report(commands)
    _add_study(commands)
    _add_prepare(commands)

    install = commands.add_parser('install-into', help='make our networks known inside a clone of BasicSR or of a fork')
    install.add_argument('path', type=Path, help='the clone')
    install.add_argument('--uninstall', action='store_true', help='remove exactly what was put there')
    install.set_defaults(run=_install_into)

    commands.add_parser('list', help='list networks, models, samplers and weights').set_defaults(run=_list)
    commands.add_parser('doctor', help='print what a bug report needs').set_defaults(run=_doctor)
    return parser


def _add_restore(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'restore', help='restore blurred photos',
        description='Restore blurred photos. Photos that are there already are skipped, so a stopped run can be repeated. '
        'Under torchrun the processes share the photos.')
    parser.add_argument('inputs', nargs='+', help='photos, folders or patterns')
    parser.add_argument('-o', '--output', type=Path, required=True, help='folder; for one photo also a file')
    parser.add_argument('-w', '--weights', default='small', help='name or checkpoint file (default: small)')
    parser.add_argument('--point', help='operating point of the weights (default: their first)')
    parser.add_argument('--tradeoff', type=float, metavar='X', help='0 (most faithful) to 1 (most vivid), where the weights '
                        'hold a path, instead of a point and its settings')
    parser.add_argument('--samples', type=int, help='samples per photo')
    parser.add_argument('--average', action=argparse.BooleanOptionalAction, help='write the mean of the samples (faithful) '
                        'instead of one sample (vivid)')
    parser.add_argument('--save', default='image', metavar='LIST',
                        help='what to write: any of image,initial,samples,std joined by commas (default: image)')
    parser.add_argument('--seed', type=int, help='seed of the first sample')
    parser.add_argument('--sampler', help='ancestral, ddim or dpmpp_2m')
    parser.add_argument('--steps', type=int, help='network calls per sample')
    parser.add_argument('--final-variance', type=float, help='noise variance of the last step of the schedule')
    parser.add_argument('--eta', type=float, help='share of fresh noise in ddim and dpmpp_2m, 0 to 1')
    parser.add_argument('--clamp', action=argparse.BooleanOptionalAction, help='keep each step in the valid range')
    parser.add_argument('--recursive', action='store_true', help='search folders with their subfolders')
    parser.add_argument('--overwrite', action='store_true', help='restore photos again whose result is there')
    parser.add_argument('--tile', default='auto', help="tile's side in pixels, auto or none (default: auto)")
    _add_machine(parser)
    parser.add_argument('--precision', default='auto', choices=('auto', 'float32', 'bfloat16'))
    parser.set_defaults(run=_restore)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'evaluate', help='compare systems in one table',
        description='Score folders of restored images, or restore first, and print one table. Writes table.md, .tex, .csv, '
        '.json and scores.csv; a stopped run can be repeated and goes on. Under torchrun the processes share the images.')
    parser.add_argument('systems', nargs='*', metavar='NAME=SOURCE', help='SOURCE: a folder of restored images (several, one '
                        'per seed, joined by commas), an options file, a checkpoint or the name of weights')
    _add_pairs(parser, required=True)
    parser.add_argument('--protocol', default='folder', help='folder, gopro, hide, realblur_j or realblur_r (default: folder)')
    parser.add_argument('--metrics', metavar='LIST', help='any of lpips,stlpips,niqe,fid,kid,psnr,ssim3d,ssim (the default), '
                        'musiq,maniqa,clipiqa')
    parser.add_argument('-o', '--output', type=Path, default=Path('results/evaluate'),
                        help='folder (default: results/evaluate)')
    parser.add_argument('--seeds', type=int, default=1, help='runs of each stochastic operating point (default: 1)')
    _add_machine(parser)
    parser.add_argument('--precision', choices=('float32', 'bfloat16'), help="of all networks (default: each one's own)")
    parser.set_defaults(run=_evaluate)


def _add_report(commands: argparse._SubParsersAction) -> None:
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
    parser.set_defaults(run=_report)


def _add_study(commands: argparse._SubParsersAction) -> None:
    from .evaluation.studies.commands import NAMES, add_studies
    studies = commands.add_parser('study', help=f'studies: preference (human raters), {NAMES}').add_subparsers(
        title='studies', required=True, metavar='STUDY')
    _add_preference(studies)
    add_studies(studies)


def _add_preference(studies: argparse._SubParsersAction) -> None:
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
    parser.set_defaults(run=_preference)


def _add_sweep(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'sweep', help='find the best operating points of a network',
        description='Score a grid of operating points on the same images. Writes cells.csv, cells.jsonl and sweep.json; a '
        'stopped run can be repeated and goes on. Under torchrun the processes share the images.')
    parser.add_argument('-opt', dest='options', type=Path, metavar='FILE', help='options file: its network and its data')
    parser.add_argument('-w', '--weights', help='instead of -opt: name or checkpoint file')
    parser.add_argument('--data', type=Path, help='folder with target/ (sharp) and input/ (blurred)')
    _add_pairs(parser)
    parser.add_argument('--steps', metavar='LIST', help="numbers of steps (default: the paper's 10,20,30,50,100,200,300,500)")
    parser.add_argument('--final-variances', metavar='LIST', help="(default: the paper's 0.01,0.02,0.05,0.1,0.2,0.5)")
    parser.add_argument('--samplers', metavar='LIST', default='ancestral',
                        help='any of ancestral,ddim,dpmpp_2m (default: ancestral)')
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
    _add_machine(parser)
    parser.add_argument('--precision', choices=('float32', 'bfloat16'), help="(default: the options file's, else float32)")
    parser.set_defaults(run=_sweep)


def _add_prepare(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('prepare', help="lay a downloaded archive's folder out for training and testing")
    parser.add_argument('dataset', help='gopro, hide, realblur, realblur_j or realblur_r; synthetic blurs any folder of photos')
    parser.add_argument('--from', dest='source', type=Path, required=True, help='the unpacked archive, or the folder of photos')
    parser.add_argument('--to', dest='destination', type=Path, required=True, help='where to lay it out')
    parser.add_argument('--variant', default='blur', help="GoPro's blur or blur_gamma (default: blur)")
    parser.add_argument('--crop-size', type=int, help='side of the training crops (default: 512); synthetic: of the central '
                        'crops (default: whole photos)')
    parser.add_argument('--crop-step', type=int, default=256, help='distance between crops (default: 256)')
    parser.add_argument('--lmdb', action='store_true', help='make LMDBs of the training crops too')
    parser.add_argument('--workers', type=int, help='processes (default: one per core)')
    parser.add_argument('--allow-incomplete', action='store_true', help='go on with fewer pairs than the data set has')
    parser.add_argument('--trajectory-length', type=float, nargs=2, default=(3, 10), metavar=('LOW', 'HIGH'),
                        help='synthetic: path of the camera shake in pixels (default: 3 10)')
    parser.add_argument('--noise-sigma', type=float, nargs=2, default=(0, 1), metavar=('LOW', 'HIGH'),
                        help='synthetic: noise in 8-bit grey values (default: 0 1)')
    parser.add_argument('--seed', type=int, default=0, help='synthetic: seed of kernels and noise (default: 0)')
    parser.set_defaults(run=_prepare)


def _add_pairs(parser: argparse.ArgumentParser, required: bool = False) -> None:
    parser.add_argument('--gt', type=Path, required=required, help='folder of sharp images')
    parser.add_argument('--lq', type=Path, help='folder of blurred images')
    parser.add_argument('--max-images', type=int, help='use so many pairs only, spread evenly')


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--workers', type=int, default=1, help='processes on this machine (default: 1)')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1, mps (default: auto)')


def _restore(args: argparse.Namespace) -> int:
    _check_at_least(args, workers=1)
    from .evaluation.restore_folder import restore_photos
    changes = {key: getattr(args, key) for key in ('sampler', 'steps', 'final_variance', 'eta', 'clamp')}
    return restore_photos(
        args.inputs, args.output, weights=args.weights, save=args.save.split(','), overwrite=args.overwrite,
        recursive=args.recursive, device=args.device, precision=args.precision, tile=_tile(args.tile), point=args.point,
        samples=args.samples, average=args.average, seed=args.seed, tradeoff=args.tradeoff, workers=args.workers, **changes)


def _evaluate(args: argparse.Namespace) -> None:
    _check_at_least(args, seeds=1, workers=1, max_images=1)
    from .evaluation.evaluate import evaluate
    from .evaluation.scoring import DEFAULT_METRICS, parse_metrics
    from .processes import rank
    table = evaluate(args.systems, args.gt, args.lq, protocol=args.protocol,
                     metrics=parse_metrics(args.metrics) if args.metrics is not None else DEFAULT_METRICS, output=args.output,
                     seeds=args.seeds, workers=args.workers, device=args.device,
                     precision=args.precision, max_images=args.max_images)
    if rank() == 0:
        print(table.to_text())
        print(f'Written to {args.output}: table.md, table.tex, table.csv, table.json, scores.csv.')


def _report(args: argparse.Namespace) -> None:
    _check_at_least(args, max_images=1, quality=1, max_side=16, workers=1)
    if args.quality is not None and args.quality > 100:
        raise InputError(f'--quality must be at most 100, got {args.quality}.')
    from .evaluation.report import write_report
    print(write_report(args.runs, args.output, images=args.images, max_images=args.max_images, quality=args.quality,
                       max_side=args.max_side, title=args.title, workers=args.workers))


def _preference(args: argparse.Namespace) -> None:
    _check_at_least(args, pairs_per_rater=1, max_images=1, crop_size=16, checks=0, repeats=0, quality=1, max_wrong=0)
    if args.tally:
        from .evaluation.preference_tally import tally
        if args.key is None:
            raise InputError("--tally needs the study's key; give the .key.json written beside the page with --key.")
        output = args.output or Path('results/preference')
        result = tally(args.tally, args.key, args.max_wrong)
        files = result.write(output)
        print(result.to_text())
        print(f'Written to {output}: {", ".join(file.name for file in files)}.')
        return
    from .evaluation.preference import build_study
    study = build_study(args.build, args.output or Path('results/preference/page.html'), args.reference, args.pairs_per_rater,
                        args.max_images, args.crop_size, args.crops, args.checks, args.repeats, args.quality, args.seed)
    print(study.words)


def _sweep(args: argparse.Namespace) -> None:
    _check_at_least(args, first_images=1, max_images=1, path_points=2, workers=1)
    from dataclasses import replace

    from .evaluation.sweep import sweep
    from .evaluation.sweep_setup import check_store, choose_metrics, grid, source_of, store_path
    from .processes import rank
    axes = {'steps': int, 'final_variances': float, 'samplers': str, 'etas': float, 'counts': int}
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


def _check_at_least(args: argparse.Namespace, **least: int) -> None:
    for key, low in least.items():
        if getattr(args, key) is not None and getattr(args, key) < low:
            raise InputError(f"--{key.replace('_', '-')} must be a whole number from {low}, got {getattr(args, key)}.")


def _tile(text: str) -> int | str | None:
    if text in ('auto', 'none'):
        return None if text == 'none' else text
    if not text.isdigit() or int(text) < 64:
        raise InputError(f"--tile must be auto, none or a number of pixels from 64, got '{text}'.")
    return int(text)


def _prepare(args: argparse.Namespace) -> None:
    if args.dataset == 'synthetic':
        from .data.prepare_synthetic import prepare_synthetic
        print(prepare_synthetic(args.source, args.destination, args.crop_size, tuple(args.trajectory_length),
                                tuple(args.noise_sigma), args.seed))
        return
    from .data.prepare import prepare
    if args.lmdb:
        from .registration import prepare_basicsr
        prepare_basicsr()
    print(prepare(args.dataset, args.source, args.destination, variant=args.variant, crop_size=args.crop_size or 512,
                  crop_step=args.crop_step, lmdb=args.lmdb, workers=args.workers, allow_incomplete=args.allow_incomplete))


def _install_into(args: argparse.Namespace) -> None:
    from .install_into import install_into
    print(install_into(args.path, uninstall=args.uninstall))


def _list(args: argparse.Namespace) -> None:
    from .archs import ARCHS
    from .diffusion import SAMPLERS
    from .inference.weights import available_weights
    from .registration import MODELS
    rows = {'networks': ARCHS, 'models': MODELS, 'samplers': SAMPLERS}
    for title, names in rows.items():
        print(f'{title}: {", ".join(sorted(names))}')
    print('weights:')
    for name, path in available_weights().items():
        print(f'  {name}  {path.stat().st_size / 2**20:.1f} MiB  {path}')


def _doctor(args: argparse.Namespace) -> None:
    from .doctor import doctor_report
    print(doctor_report())


if __name__ == '__main__':
    sys.exit(main())
