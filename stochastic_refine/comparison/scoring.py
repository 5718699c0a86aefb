"""Scores of restored images against their ground truth, each computed once: a cache keeps them by the files' contents."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.synthetic_blur_dataset import read_rgb
from ..errors import InputError, MetricUnavailable
from ..files import write_atomically, write_json
from ..metrics.distribution import inception_features, patches
from ..processes import my_share, run_parallel, wait_for_all
from ..registration import register_all
from ..values import nearest
from .alignment import Alignment, align_to_ground_truth, masked_psnr, masked_ssim
from .caches import are_numbers, as_numbers, read_arrays, read_json
from .provenance import code_identity, version_of

Array = NDArray[np.uint8]


@dataclass(frozen=True)
class Metric:
    """A score of one image. ``function`` is its name in ``val: metrics:``, ``package`` where its numbers come from."""

    function: str
    package: str
    needs_reference: bool = True


#: Scores of single images, by their key in tables.
IMAGE_METRICS = {
    'psnr': Metric('calculate_psnr', 'basicsr'),
    'ssim': Metric('calculate_ssim', 'basicsr'),
    'ssim3d': Metric('calculate_ssim3d', 'stochastic_refine'),
    'lpips': Metric('calculate_lpips', 'lpips'),
    'stlpips': Metric('calculate_stlpips', 'stlpips-pytorch'),
    'niqe': Metric('calculate_niqe_or_nan', 'basicsr', needs_reference=False),
    'musiq': Metric('calculate_musiq', 'pyiqa', needs_reference=False),
    'maniqa': Metric('calculate_maniqa', 'pyiqa', needs_reference=False),
    'clipiqa': Metric('calculate_clipiqa', 'pyiqa', needs_reference=False),
}
#: What must be said beside a metric's values wherever they are shown.
METRIC_NOTES = {
    'niqe': "NIQE is BasicSR's, which is up to 3.8 % off MATLAB's on the same images; compare it with figures by BasicSR only.",
}
#: Scores of whole sets, from features of patches.
SET_METRICS = ('fid', 'kid')
DEFAULT_METRICS = ('lpips', 'stlpips', 'niqe', 'fid', 'kid', 'psnr', 'ssim3d', 'ssim')
_FEATURES = 'features'


@dataclass(frozen=True)
class Job:
    """One image to score. ``restored`` may be the ground truth itself."""

    restored: Path
    gt: Path
    metrics: tuple[str, ...]
    features: bool
    aligned: bool
    cache: Path


@dataclass
class ImageScores:
    """Scores by metric key (NaN where the metric cannot be had for the image), and what else is known of one image.

    ``features`` are its patches' Inception features, (patches, 2048), if asked for; ``aligned`` tells whether the alignment of
    the protocol converged, None without one.
    """

    scores: dict[str, float]
    features: NDArray[np.float32] | None = None
    aligned: bool | None = None


def parse_metrics(text: str) -> list[str]:
    """Metric keys from a list joined by commas.

    Raises:
        InputError: At the first unknown one, naming the nearest.
    """
    keys = [key.strip() for key in text.split(',') if key.strip()]
    for key in keys:
        if key not in IMAGE_METRICS and key not in SET_METRICS:
            raise InputError(f"Unknown metric '{key}'; {nearest(key, [*IMAGE_METRICS, *SET_METRICS])}")
    if not keys:
        raise InputError('No metric is asked for; name some, for example --metrics psnr,ssim3d,lpips.')
    return list(dict.fromkeys(keys))


def unavailable_metrics(keys: Sequence[str]) -> dict[str, str]:
    """Of these metrics those whose package or weights cannot be had, with the reason."""
    reasons = {}
    probe = np.random.default_rng(0).integers(0, 256, (240, 256, 3), dtype=np.uint8)
    for asked in [*((key, ) for key in keys if key in IMAGE_METRICS), tuple(key for key in keys if key in SET_METRICS)]:
        try:
            if asked and asked[0] in IMAGE_METRICS:
                metric_function(asked[0])(probe, probe)
            elif asked:  # all of these take the same features
                inception_features([probe])
        except MetricUnavailable as error:
            reasons |= dict.fromkeys(asked, str(error))
    return reasons


def metric_function(key: str) -> Callable[[Array, Array], float]:
    """``f(restored, gt) -> score`` on (H, W, 3) BGR uint8, whole images."""
    register_all()
    from basicsr.utils.registry import METRIC_REGISTRY
    metric = IMAGE_METRICS[key]
    function = METRIC_REGISTRY.get(metric.function)
    function = partial(function, crop_border=0)
    return function if metric.needs_reference else lambda restored, gt: function(restored)


def cache_key(key: str) -> str:
    """A metric's name in caches: its key, and the package and version that make its value."""
    package = IMAGE_METRICS[key].package
    return f'{key}, {package} {version_of(package)}'


def score_all(jobs: Sequence[Job], workers: int, description: str) -> list[ImageScores]:
    """Score images, in parallel, in the order of ``jobs``; what the cache holds is not computed again.

    Under torchrun the processes share the work through the cache's folder; each gets all the scores.
    """
    run_parallel(_score, my_share(jobs), workers, description)
    wait_for_all()
    return [_cached(job) for job in jobs]


def _score(job: Job) -> None:
    file = _cache_file(job)
    known = _read_cache(file)
    missing = [key for key in job.metrics if cache_key(key) not in known['scores']]
    needs_features = job.features and _read_features(file) is None
    if not missing and not needs_features:
        return
    restored, gt = (np.ascontiguousarray(read_rgb(path)[..., ::-1]) for path in (job.restored, job.gt))
    if restored.shape != gt.shape:
        raise InputError(f'{job.restored} is {restored.shape[1]}x{restored.shape[0]} pixels but its ground truth {job.gt} '
                         f'{gt.shape[1]}x{gt.shape[0]}; mend or remove the pair.')
    functions = {key: metric_function(key) for key in missing}
    if job.aligned:
        # Only PSNR and SSIM have a published aligned form; the others see both images black outside the overlap.
        pair = align_to_ground_truth(restored[..., ::-1], gt[..., ::-1])
        known['aligned'] = pair.converged
        restored, gt = (np.rint(image[..., ::-1].clip(0, 1) * 255).astype(np.uint8)
                        for image in (pair.image, pair.ground_truth))
        masked = {'psnr': masked_psnr, 'ssim': masked_ssim}
        functions |= {key: partial(_masked, masked[key], pair) for key in missing if key in masked}
    known['scores'].update({cache_key(key): float(function(restored, gt)) for key, function in functions.items()})
    if needs_features:
        features = inception_features([np.ascontiguousarray(patch[..., ::-1]) for patch in patches(restored)])
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_features_file(file), lambda temporary: np.save(temporary, features.astype(np.float32)))
    write_json(file, known, indent=None)


def _masked(function: Callable[..., float], pair: Alignment, restored: Array, gt: Array) -> float:
    return function(pair.image, pair.ground_truth, pair.mask)


def _cached(job: Job) -> ImageScores:
    file = _cache_file(job)
    known = _read_cache(file)
    features = _read_features(file) if job.features else None
    try:
        scores = {key: known['scores'][cache_key(key)] for key in job.metrics}
    except KeyError:  # another process computed them, under another name
        raise InputError(f'The scores of {job.restored} are not there: the package was changed while it scored; run the same '
                         'command again.') from None
    return ImageScores(scores, features, known.get('aligned'))


def _cache_file(job: Job) -> Path:
    """The cache's file for the contents of this pair, scored this way by this code."""
    content = hashlib.sha256(f'{json.dumps(code_identity())} {job.aligned} '.encode())
    for path in (job.restored, job.gt):
        content.update(hashlib.sha256(_read_bytes(path)).digest())
    name = content.hexdigest()[:32]
    return job.cache / name[:2] / f'{name}.json'


def _read_cache(file: Path) -> dict[str, Any]:
    def fits(content: Any) -> bool:
        return isinstance(content, dict) and are_numbers(content.get('scores')) and isinstance(
            content.get('aligned'), (bool, type(None)))

    known = read_json(file, fits) or {'scores': {}}
    return {**known, 'scores': as_numbers(known['scores'])}


def _features_file(file: Path) -> Path:
    return file.with_name(f"{file.stem}-{version_of('torch-fidelity')}.npy")


def _read_features(file: Path) -> NDArray[np.float32] | None:
    content = read_arrays(_features_file(file)) or {}
    return content.get('array') if getattr(content.get('array'), 'ndim', 0) == 2 else None


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f'Image {path} cannot be read ({error.strerror}); check it.') from None


def mean_score(values: Sequence[float]) -> float:
    """The mean of the finite values; infinite if all that there are are, as of images identical to their truth; NaN if there is
    nothing."""
    known = [value for value in values if not math.isnan(value)]
    finite = [value for value in known if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else next(iter(known), math.nan)


def exact_among(values: Sequence[float]) -> int:
    """How many infinite ones :func:`mean_score` leaves out; 0 if its mean is infinite itself."""
    infinite = sum(map(math.isinf, values))
    return infinite if infinite < sum(not math.isnan(value) for value in values) else 0
