"""The packages that the systems of this room are built from, which not everybody has installed."""

from __future__ import annotations

import importlib
from types import ModuleType

from ..errors import InputError


def require(package: str) -> ModuleType:
    """``diffusers`` or ``transformers``, imported.

    Raises:
        InputError: If it is not installed, naming the remedy.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f'Systems on Stable Diffusion need the package {package}, which cannot be imported ({error}); run: '
                         "pip install 'stochastic_refine[latent]'.") from error
