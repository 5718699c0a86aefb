"""The one list of what enters BasicSR's registries, and the one compatibility layer for basicsr 1.4.2.

Importing this module imports no BasicSR; calling its functions does.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .data.image_files import SYSTEM_FILES
from .errors import InputError

#: Everything that options files can name besides the networks (those list themselves in ``archs``), and the module it is in.
DATASETS = {
    'PredictedImageDataset': '.data.predicted_image_dataset',
    'SyntheticBlurDataset': '.data.synthetic_blur_dataset',
}
LOSSES = {
    'NoisePredictionLoss': '.losses.noise_loss',
    'FlowLoss': '.losses.flow_loss',
    'PSNRLoss': '.losses.psnr_loss',
    'EdgeLoss': '.losses.edge_loss',
    'CharbonnierEdgeLoss': '.losses.edge_loss',
    'LPIPSLoss': '.losses.lpips_loss',
    'MultiScaleLoss': '.losses.multi_scale_loss',
}
METRICS = {
    'calculate_ssim3d': '.metrics.ssim3d',
    'calculate_lpips': '.metrics.lpips',
    'calculate_stlpips': '.metrics.stlpips',
    'calculate_niqe_or_nan': '.metrics.niqe',
    'calculate_musiq': '.metrics.pyiqa_metrics',
    'calculate_maniqa': '.metrics.pyiqa_metrics',
    'calculate_clipiqa': '.metrics.pyiqa_metrics',
    'calculate_pyiqa': '.metrics.pyiqa_metrics',
}
MODELS = {
    'AdversarialRestorationModel': '.models.adversarial_restoration_model',
    'LatentModel': '.latent.model',
    'ResShiftModel': '.latent.resshift.model',
    'HIDiffStage1Model': '.models.hidiff_model',
    'HIDiffStage2Model': '.models.hidiff_model',
    'ProgressiveDistillationModel': '.models.distillation_model',
    'RestorationModel': '.models.restoration_model',
    'StochasticRefineModel': '.models.stochastic_refine_model',
}


def prepare_basicsr() -> None:
    """Make ``import basicsr`` work on today's torchvision; call it before BasicSR's first import.

    basicsr 1.4.2 imports ``torchvision.transforms.functional_tensor``, which torchvision removed in 0.17. Where that module
    exists, or the BasicSR at hand (a fork, a later version) does without, nothing is changed.

    Raises:
        InputError: If BasicSR is not installed, naming the remedy.
    """
    spec = importlib.util.find_spec('basicsr')
    if spec is None or spec.origin is None:  # without an origin it is only a folder that happens to be called basicsr
        hint = (' BasicSR 1.4.2 cannot be built on Python 3.13 and later; use Python 3.11 or 3.12.'
                if sys.version_info >= (3, 13) else '')
        raise InputError(f'Training and testing need BasicSR, which is not installed; run: pip install basicsr.{hint}')
    name = 'torchvision.transforms.functional_tensor'
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    user = Path(spec.origin).parent / 'data' / 'degradations.py'  # the only module of BasicSR that imports it
    if not user.is_file() or name not in user.read_text(encoding='utf-8'):
        return
    from torchvision.transforms.functional import rgb_to_grayscale
    module = types.ModuleType(name)
    setattr(module, rgb_to_grayscale.__name__, rgb_to_grayscale)
    sys.modules[name] = module


def register_all() -> None:
    """Put the package's networks, data sets, losses, metrics and models into BasicSR's registries; safe to call twice.

    Raises:
        InputError: If BasicSR is missing, or another package took one of the names.
    """
    prepare_basicsr()
    from basicsr.utils import registry

    from .archs import ARCHS, build
    for cls in ARCHS.values():
        _register(registry.ARCH_REGISTRY, cls)
    build.fallback_lookup = _basicsr_arch
    build.fallback_names = lambda: [name.removesuffix('_basicsr') for name in registry.ARCH_REGISTRY.keys()]

    _pass_over_system_files()
    for target, items in ((registry.DATASET_REGISTRY, DATASETS), (registry.LOSS_REGISTRY, LOSSES),
                          (registry.METRIC_REGISTRY, METRICS), (registry.MODEL_REGISTRY, MODELS)):
        for name, module in items.items():
            _register(target, getattr(importlib.import_module(module, __package__), name))


def _pass_over_system_files() -> None:
    """Let BasicSR's data sets list no ``Thumbs.db`` and the like: they take every file of a folder for an image."""
    for name in ('data_util', 'single_image_dataset', 'video_test_dataset'):
        module = sys.modules.get(f'basicsr.data.{name}')
        listing = getattr(module, 'scandir', None)
        if module is not None and listing is not None and not hasattr(listing, '__wrapped__'):
            vars(module)['scandir'] = functools.wraps(listing)(functools.partial(_without_system_files, listing))


def _without_system_files(listing: Callable[..., Iterator[str]], *args: object, **kwargs: object) -> Iterator[str]:
    return (path for path in listing(*args, **kwargs) if os.path.basename(path).lower() not in SYSTEM_FILES)


def _basicsr_arch(name: str) -> type | None:
    """What BasicSR's ``ARCH_REGISTRY.get`` finds, which registers some names with a suffix, without its printing."""
    from basicsr.utils.registry import ARCH_REGISTRY
    known = dict(iter(ARCH_REGISTRY))
    return known.get(name) or known.get(f'{name}_basicsr')


def _register(target: Any, item: type) -> None:
    """Register ``item`` under its name unless it is there already.

    A fork's own class of that name, NAFNet's NAFNet for example, stays: options files written for the fork mean it.
    """
    present = dict(iter(target)).get(item.__name__)
    if present is item or getattr(present, '__module__', '').startswith('basicsr.'):
        return
    if present is not None:
        raise InputError(f"The name '{item.__name__}' is already taken in BasicSR's {target._name} registry by "
                         f'{present.__module__}; remove that package or rename its class, since options files name it.')
    target.register(item)
