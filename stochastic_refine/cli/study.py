"""``stochastic-refine study NAME``: the paper's studies, and the one that asks people."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .arguments import Commands, add_device, add_pairs, check_at_least
from .preference import add_preference

if TYPE_CHECKING:
    from ..comparison.systems import Network
    from ..inference.operating_point import OperatingPoint
    from ..studies.frame import Study
    from ..studies.report import StudyReport

_SCHEDULES = ('5:0.5', '10:0.2', '20:0.2', '50:0.1', '100:0.1')


def add_study(commands: Commands) -> None:
    names = 'uncertainty, perception-distortion, tradeoff, latency, ablation, variants, entropy, diversity'
    studies = commands.add_parser('study', help=f'studies: preference (human raters), {names}').add_subparsers(
        title='studies', required=True, metavar='STUDY')
    add_preference(studies)
    _add_uncertainty(studies)
    _add_perception_distortion(studies)
    _add_tradeoff(studies)
    _add_latency(studies)
    _add_ablation(studies)
    _add_variants(studies)
    _add_entropy(studies)
    _add_diversity(studies)


def _add_uncertainty(studies: Commands) -> None:
    parser = _add(studies, 'uncertainty', _uncertainty,
                  'does the std over samples tell the error, and does blur raise it (Fig. 5)',
                  'Draws samples for each pair and checks their standard deviation against the truth: coverage of intervals, '
                  'correlation, reliability. Then blurs some of the sharp photos by paths of rising length.')
    _add_network(parser)
    parser.add_argument('--samples', type=int, default=8, help='samples per photo (default: 8)')
    _add_sampling(parser)
    parser.add_argument('--schedule', metavar='STEPS:VARIANCE',
                        help="steps and final variance (default: 20:0.2, or what the network's own sampler is made for)")
    parser.add_argument('--lengths', type=float, nargs='+', default=(2, 4, 6, 8, 10, 12), metavar='PIXELS',
                        help='lengths of the blur paths (default: 2 4 6 8 10 12)')
    parser.add_argument('--blur-photos', type=int, default=4, help='photos to blur; 0 leaves that part out (default: 4)')
    parser.add_argument('--blur-size', type=int, default=256, help='side of their central crops (default: 256)')
    parser.add_argument('--blur-samples', type=int, help='samples of each (default: as --samples)')
    parser.add_argument('--blur-noise', type=float, default=0.5, help='std of their noise in 8-bit grey values (default: 0.5)')
    parser.add_argument('--blur-straight', action='store_true', help='straight horizontal motion instead of camera shake')


def _add_perception_distortion(studies: Commands) -> None:
    parser = studies.add_parser('perception-distortion', help='systems and operating points in the plane of Fig. 1',
                                description='Draws what stochastic-refine evaluate, and a sweep, measured.')
    parser.add_argument('--tables', type=Path, nargs='+', required=True, metavar='PATH',
                        help='table.json of evaluations, or their folders, all over the same images')
    parser.add_argument('--cells', type=Path, help="a sweep's cells.csv, over the same images")
    parser.add_argument('--perception', help='lpips, kid, fid, stlpips, niqe, ... (default: the first of these that is there)')
    parser.add_argument('--distortion', default='psnr', help='psnr, ssim3d or ssim (default: psnr)')
    _add_output(parser, 'perception_distortion')
    parser.set_defaults(run=_command(_perception_distortion))


def _add_tradeoff(studies: Commands) -> None:
    parser = _add(studies, 'tradeoff', _tradeoff, 'scores along the knob of restore --tradeoff',
                  'Scores photos at positions of the knob, whose path stochastic-refine sweep --store put into the checkpoint. '
                  'Give other photos than those that the path was found on.')
    _add_network(parser)
    parser.add_argument('--positions', type=float, nargs='+', default=(0, 0.25, 0.5, 0.75, 1), metavar='X',
                        help='of the knob (default: 0 0.25 0.5 0.75 1)')
    _add_metrics(parser, 'psnr,lpips,stlpips')


def _add_latency(studies: Commands) -> None:
    parser = _add(studies, 'latency', _latency, 'sampling cost against quality of several networks (Fig. 6)',
                  'Restores with each network along the schedules, times it and scores the results.')
    parser.add_argument('systems', nargs='+', metavar='NAME=SOURCE',
                        help='SOURCE: an options file, a checkpoint or the name of weights')
    parser.add_argument('--precision', choices=('float32', 'bfloat16'), help="of all networks (default: each one's own)")
    _add_schedules(parser)
    _add_metrics(parser, 'lpips,stlpips,psnr')


def _add_ablation(studies: Commands) -> None:
    parser = _add(studies, 'ablation', _ablation, 'channels, batch and averaged weights (Table 4), trained at your budget',
                  'Trains by variants of the options file given with -opt and scores them on its validation or test images, or '
                  'on the folders given. A stopped study goes on where it stopped.')
    parser.add_argument('--iterations', type=int, required=True, help='of each training')
    parser.add_argument('--channels', type=int, nargs='+', default=(16, 32, 64), help='widths (default: 16 32 64)')
    parser.add_argument('--batches', type=int, nargs='+', default=(32, 64, 128, 256),
                        help='batch sizes (default: 32 64 128 256)')
    _add_metrics(parser, 'lpips,stlpips,psnr')


def _add_variants(studies: Commands) -> None:
    parser = _add(studies, 'variants', _variants, "the variants of a network's paper, trained at your budget",
                  'Trains the network of the options file given with -opt and the variants that it names, and scores them on '
                  'its validation or test images, or on the folders given. A stopped study goes on where it stopped.')
    parser.add_argument('--iterations', type=int, required=True, help='of each training')
    _add_metrics(parser, 'lpips,stlpips,psnr')


def _add_entropy(studies: Commands) -> None:
    parser = _add(studies, 'entropy', _entropy, 'bits per dimension of sharp images and of residuals (Sec. 6.1)',
                  'Compares the entropy of the values of sharp images and of what the initial prediction leaves over.')
    _add_network(parser)


def _add_diversity(studies: Commands) -> None:
    parser = _add(studies, 'diversity', _diversity, 'how much samples of one photo differ',
                  'Measures distances between samples, and to the truth, along schedules.')
    _add_network(parser)
    parser.add_argument('--samples', type=int, default=4, help='samples per photo (default: 4)')
    _add_schedules(parser)
    _add_metrics(parser, 'lpips,stlpips')


def _add(studies: Commands, name: str, run: Callable[[argparse.Namespace], StudyReport], words: str,
         description: str) -> argparse.ArgumentParser:
    """A parser with what all studies of images take."""
    parser = studies.add_parser(name, help=words, description=f'{description} Writes {name}.csv, .json and .png.')
    data = parser.add_argument_group('images')
    data.add_argument('-opt', '--options', type=Path, help='options file: its validation or test images, and its network')
    data.add_argument('--data', type=Path, help='folder with target/ (sharp) and input/ (blurred)')
    add_pairs(data)
    add_device(parser)
    _add_output(parser, name)
    parser.set_defaults(run=_command(run), study=name)
    return parser


def _add_output(parser: argparse.ArgumentParser, name: str) -> None:
    folder = Path('results/study') / name
    parser.add_argument('-o', '--output', type=Path, default=folder, help=f'folder (default: {folder.as_posix()})')
    parser.set_defaults(output_is_folder=True)


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('-w', '--weights',
                        help='options file, checkpoint or name of weights (default: what -opt says, else small)')
    parser.add_argument('--precision', choices=('float32', 'bfloat16'), help="the network's (default: as its options say)")


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--sampler', help="ancestral, ddim, dpmpp_2m or another of the network's (default: its first)")
    parser.add_argument('--clamp', action=argparse.BooleanOptionalAction,
                        help="keep estimates in range (default); --no-clamp is the paper's")
    parser.add_argument('--seed', type=int, default=0, help='seed of the first sample (default: 0)')


def _add_schedules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--schedules', nargs='+', metavar='STEPS:VARIANCE',
                        help=f"steps and final variance of each point (default: {' '.join(_SCHEDULES)}, or what the network's "
                        'own sampler is made for)')
    _add_sampling(parser)


def _add_metrics(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument('--metrics', default=default, metavar='LIST',
                        help=f'joined by commas, the most important one first (default: {default})')


def _command(run: Callable[[argparse.Namespace], StudyReport]) -> Callable[[argparse.Namespace], None]:
    """What the command line calls: checks, the study, and its words."""

    def command(args: argparse.Namespace) -> None:
        check_at_least(args, max_images=1, samples=2, blur_photos=0, blur_samples=2, blur_size=8)
        report = run(args)
        print('\n'.join(report.words))
        print(f'Written to {args.output}.')

    return command


def _study(args: argparse.Namespace) -> Study:
    """The frame of a study of images."""
    from ..inference.devices import choose_device
    from ..studies.frame import Study
    from ..studies.inputs import study_images
    return Study(args.study, study_images(args.options, args.data, args.gt, args.lq), args.output, choose_device(args.device),
                 getattr(args, 'metrics', None), args.max_images)


def _network(args: argparse.Namespace) -> Network:
    from ..studies.inputs import study_network
    return study_network(args.options, args.weights, args.precision)


def _points(args: argparse.Namespace, network: Network) -> list[OperatingPoint]:
    from ..studies.inputs import study_points
    return study_points(network, args.schedules, _SCHEDULES, args.sampler, args.clamp, seed=args.seed)


def _uncertainty(args: argparse.Namespace) -> StudyReport:
    from ..studies.inputs import study_points
    from ..studies.rising_blur import RisingBlur
    from ..studies.uncertainty import uncertainty_study
    network = _network(args)
    point, = study_points(network, args.schedule and [args.schedule], ['20:0.2'], args.sampler, args.clamp, seed=args.seed,
                          num_samples=args.samples)
    blur = None
    if args.blur_photos:
        blur = RisingBlur(tuple(sorted(set(args.lengths))), args.blur_photos, args.blur_size, args.blur_samples or args.samples,
                          args.blur_noise, args.seed, args.blur_straight)
    return uncertainty_study(_study(args), network, point, blur)


def _perception_distortion(args: argparse.Namespace) -> StudyReport:
    from ..studies.perception_distortion import perception_distortion_study
    return perception_distortion_study(args.tables, args.output, args.cells, args.perception, args.distortion)


def _tradeoff(args: argparse.Namespace) -> StudyReport:
    from ..studies.tradeoff import tradeoff_study
    return tradeoff_study(_study(args), _network(args), args.positions)


def _latency(args: argparse.Namespace) -> StudyReport:
    from ..studies.inputs import study_network
    from ..studies.latency import latency_study
    networks = [study_network(None, system, args.precision) for system in args.systems]
    return latency_study(_study(args), networks, [_points(args, network) for network in networks])


def _ablation(args: argparse.Namespace) -> StudyReport:
    from ..studies.ablation import ablation_study
    if args.options is None:
        raise InputError('The ablation varies the options file of a training; give one with -opt.')
    return ablation_study(_study(args), args.options, args.iterations, args.channels, args.batches)


def _variants(args: argparse.Namespace) -> StudyReport:
    from ..studies.variants import variants_study
    if args.options is None:
        raise InputError('The study trains by variants of an options file; give one with -opt.')
    return variants_study(_study(args), args.options, args.iterations)


def _entropy(args: argparse.Namespace) -> StudyReport:
    from ..studies.entropy import entropy_study
    return entropy_study(_study(args), _network(args))


def _diversity(args: argparse.Namespace) -> StudyReport:
    from ..studies.diversity import diversity_study
    network = _network(args)
    return diversity_study(_study(args), network, _points(args, network), args.samples)
