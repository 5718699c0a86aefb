"""Which device, and in which precision it computes."""

from __future__ import annotations

import os

import torch

from ..errors import InputError


def choose_device(name: str = 'auto') -> torch.device:
    """The device of that name; ``'auto'`` takes CUDA or Apple's MPS where there is one.

    Raises:
        InputError: If the device does not exist here.
    """
    if name == 'auto':
        if torch.cuda.is_available():
            return torch.device('cuda')
        return torch.device('mps' if torch.backends.mps.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Device '{name}' is not to be had here; use cpu or auto.") from error
    return device


def process_device(name: str) -> torch.device:
    """The device of this process: under torchrun each has a GPU of its own."""
    device = choose_device(name)
    if device.type == 'cuda' and device.index is None and 'LOCAL_RANK' in os.environ:
        return torch.device('cuda', int(os.environ['LOCAL_RANK']) % torch.cuda.device_count())
    return device


def choose_precision(name: str, device: torch.device) -> str:
    """``name`` checked; ``'auto'`` is bfloat16 on hardware that multiplies in it, else float32."""
    if name not in ('auto', 'float32', 'bfloat16'):
        raise InputError(f"precision must be auto, float32 or bfloat16, got '{name}'.")
    if name != 'auto':
        return name
    if device.type == 'cuda':
        return 'bfloat16' if torch.cuda.is_bf16_supported(including_emulation=False) else 'float32'
    if device.type == 'cpu':
        has_bfloat16 = getattr(torch.cpu, '_is_avx512_bf16_supported', lambda: False)()
        return 'bfloat16' if has_bfloat16 else 'float32'
    return 'float32'
