"""What a sweep is run on: the grid, the network and its images, the metrics; and where its path is stored."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from ..archs.sampling import NATIVE
from ..checkpoints import read_checkpoint, write_metadata
from ..comparison.pairs import ImagePair, pairs_of_data_folder, pairs_of_folders, pairs_of_options
from ..comparison.scoring import IMAGE_METRICS, unavailable_metrics
from ..comparison.systems import Network, parse_system
from ..diffusion import FLOW_SAMPLERS, TAKE_ETA
from ..errors import InputError
from ..inference.operating_point import OperatingPoint
from ..inference.tradeoff import TRADEOFF_KEY
from ..settings.options_file import read_options_file
from ..values import nearest

#: The paper's grid (App. F).
STEPS = (10, 20, 30, 50, 100, 200, 300, 500)
FINAL_VARIANCES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
#: What is scored unless something else is asked for, as far as it can be had.
DEFAULT_METRICS = ('lpips', 'stlpips', 'psnr', 'ssim3d')
#: Of these the first that can be had is the perceptual score unless another is asked for.
PERCEPTUAL = ('lpips', 'stlpips', 'niqe')


def grid(steps: Sequence[int] = STEPS,
         final_variances: Sequence[float] = FINAL_VARIANCES,
         samplers: Sequence[str] = ('ancestral', ),
         etas: Sequence[float] = (0.0, ),
         counts: Sequence[int] = (1, ),
         clamp: bool = False,
         last_times: Sequence[float | None] = (None, )) -> list[OperatingPoint]:
    """The cells of a grid.

    ``etas`` matter to ``ddim`` and ``dpmpp_2m``; ``last_times`` to the samplers of a flow, to which ``final_variances`` do not;
    ``counts`` are numbers of averaged samples.

    Raises:
        InputError: If a value is out of range.
    """
    cells = []
    for sampler, T, count in product(samplers, steps, counts):
        shared = {'sampler': sampler, 'steps': T, 'num_samples': count, 'average': count > 1, 'clamp': clamp}
        if sampler == NATIVE:
            if shared.pop('clamp'):
                raise InputError('--clamp means nothing to the sampler native; leave it out.')
            cells.append(OperatingPoint(**shared))
        elif sampler in FLOW_SAMPLERS:
            cells += [OperatingPoint(**shared, last_time=last if T > 1 else None) for last in last_times]
        else:
            cells += [OperatingPoint(**shared, final_variance=final_variance, eta=eta)
                      for eta in (etas if sampler in TAKE_ETA else (0.0, )) for final_variance in final_variances]
    return list(dict.fromkeys(cells))


def source_of(options: Path | None = None,
              weights: str | None = None,
              data: Path | None = None,
              gt: Path | None = None,
              lq: Path | None = None) -> tuple[Network, list[ImagePair]]:
    """The network and the images of a sweep.

    Args:
        options: An options file, which names the weights and, unless folders are given, the data.
        weights: Name of bundled weights, or a checkpoint.
        data: Folder with ``target/`` and ``input/``.
        gt, lq: Folders of sharp and of blurred images.

    Raises:
        InputError: If they do not name one network and one set of images, or these cannot be used.
    """
    if (options is None) == (weights is None):
        raise InputError('A sweep needs a network: give either -opt FILE or --weights NAME.')
    if (gt is None) != (lq is None) or (data is not None and gt is not None):
        raise InputError('Give the images by --data FOLDER, or by both --gt FOLDER and --lq FOLDER.')
    if options is not None and options.suffix not in ('.yml', '.yaml'):
        raise InputError(f'{options} is no options file (.yml); give weights with --weights.')
    network = parse_system(f'sweep={options or weights}')
    if not isinstance(network, Network):
        raise InputError(f'{weights} is a folder; give a checkpoint or the name of weights.')
    if data is not None:
        return network, pairs_of_data_folder(data)
    if gt is not None:
        return network, pairs_of_folders(gt, lq)
    if options is None:
        raise InputError('A sweep needs blurred and sharp images; give --data FOLDER, or --gt FOLDER and --lq FOLDER.')
    return network, pairs_of_options(read_options_file(options), options)


def choose_metrics(metrics: Sequence[str] | None = None,
                   perceptual: str | None = None,
                   distortion: str = 'psnr') -> tuple[tuple[str, ...], tuple[str, str], list[str]]:
    """The metrics to compute, the pair that decides, and a line for each metric that cannot be had.

    Args:
        metrics: Keys of image metrics; None for the usual ones.
        perceptual: None for the first of LPIPS, ST-LPIPS and NIQE among them that can be had.
        distortion: The other one of the pair.

    Raises:
        InputError: If a metric is unknown or no score of single images, or one of the pair cannot be had.
    """
    asked = [*(metrics or DEFAULT_METRICS), *([perceptual] if perceptual else []), distortion]
    for key in asked:
        if key not in IMAGE_METRICS:
            raise InputError(f"A sweep cannot score by '{key}'; {nearest(key, IMAGE_METRICS)}")
    if perceptual == distortion:
        raise InputError(f'--perceptual and --distortion are both {perceptual}; name two metrics.')
    reasons = unavailable_metrics(list(dict.fromkeys(asked)))
    usable = [key for key in PERCEPTUAL if key in asked and key not in reasons and key != distortion]
    perceptual = perceptual or next(iter(usable), None)
    if perceptual is None:
        raise InputError(f'None of the metrics {", ".join(asked)} is perceptual and to be had; name one with --perceptual.')
    for key in (perceptual, distortion):
        if key in reasons:
            raise InputError(reasons[key])
    known = [key for key in dict.fromkeys(asked) if key not in reasons]
    return tuple(known), (perceptual, distortion), list(dict.fromkeys(reasons.values()))


def check_store(network: Network, target: Path) -> None:
    """Raise InputError, before any work, if the path could not be stored in ``target``."""
    metadata = read_checkpoint(network.checkpoint).metadata
    if 'network' not in metadata:
        raise InputError(f'{network.checkpoint} does not say which network it belongs to, since it was not saved by '
                         'stochastic_refine; nothing can be stored in it.')
    if target.is_file():
        if read_checkpoint(target).metadata.get('network') != metadata['network']:
            raise InputError(f'{target} holds another network than {network.checkpoint}; give its own file or a new one to '
                             '--store.')
    elif target.suffix != network.checkpoint.suffix:
        raise InputError(f'{target} would be a copy of {network.checkpoint}, so its suffix must be '
                         f'{network.checkpoint.suffix}.')
    elif not target.parent.is_dir():
        raise InputError(f'Folder {target.parent} for --store does not exist; make it or choose another one.')


def store_path(network: Network, path: Sequence[OperatingPoint], target: Path) -> None:
    """Store the path in the checkpoint ``target``; if there is none yet, in a copy of the network's."""
    source = target if target.is_file() else network.checkpoint
    write_metadata(source, target, TRADEOFF_KEY, [point.as_options() for point in path])
