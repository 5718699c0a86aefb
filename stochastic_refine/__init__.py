"""Predict-and-refine diffusion deblurring for BasicSR ("Deblurring via Stochastic Refinement", CVPR 2022).

Importing this package loads neither BasicSR nor torchvision; :class:`Deblurrer` is imported on first use.
"""

from __future__ import annotations

from typing import Any

__version__ = '0.1.0'
__all__ = ['Deblurrer', 'InputError', '__version__']


def __getattr__(name: str) -> Any:
    if name == 'Deblurrer':
        from .inference.deblurrer import Deblurrer
        return Deblurrer
    if name == 'InputError':
        from .errors import InputError
        return InputError
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
