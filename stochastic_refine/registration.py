"""The one list of what enters BasicSR's registries, and the one compatibility layer for basicsr 1.4.2.

Importing this module imports no BasicSR; calling its functions does.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from importlib.metadata import PackageNotFoundError, version

from .errors import InputError


def prepare_basicsr() -> None:
    """Make ``import basicsr`` work on today's torchvision; call it before BasicSR's first import.

    basicsr 1.4.2 imports ``torchvision.transforms.functional_tensor``, which torchvision removed in 0.17. Where that module
    exists, or BasicSR is a version that does without, nothing is changed.

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
    try:
        if version('basicsr') != '1.4.2':
            return
    except PackageNotFoundError:  # a source tree without metadata: most are 1.4.2 or older
        pass
    from torchvision.transforms.functional import rgb_to_grayscale
    module = types.ModuleType(name)
    module.rgb_to_grayscale = rgb_to_grayscale
    sys.modules[name] = module


def register_all() -> None:
    """Put the package's networks, data sets, losses and models into BasicSR's registries; safe to call twice.

    Raises:
        InputError: If BasicSR is missing, or another package took one of the names.
    """
    prepare_basicsr()
    from basicsr.utils import registry

    from .archs import ARCHS, build
    for cls in ARCHS.values():
        _register(registry.ARCH_REGISTRY, cls)
    build.fallback_lookup = lambda name: dict(iter(registry.ARCH_REGISTRY)).get(name)
    build.fallback_names = registry.ARCH_REGISTRY.keys

    from .data.synthetic_blur_dataset import SyntheticBlurDataset
    _register(registry.DATASET_REGISTRY, SyntheticBlurDataset)

    from .losses.noise_loss import NoisePredictionLoss
    _register(registry.LOSS_REGISTRY, NoisePredictionLoss)

    from .models.restoration_model import RestorationModel
    from .models.stochastic_refine_model import StochasticRefineModel
    for cls in (RestorationModel, StochasticRefineModel):
        _register(registry.MODEL_REGISTRY, cls)


def _register(target: object, item: type) -> None:
    """Register ``item`` under its name unless it is there already."""
    present = dict(iter(target)).get(item.__name__)
    if present is item:
        return
    if present is not None:
        raise InputError(f"The name '{item.__name__}' is already taken in BasicSR's {target._name} registry by "
                         f'{present.__module__}; remove that package or rename its class, since options files name it.')
    target.register(item)
