"""Where and with what figures were made: device, machine, package versions, commit."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from .. import __version__


def machine(device: torch.device) -> str:
    """The GPU's name, or the CPU's with its cores."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    try:
        models = [line.partition(':')[2].strip() for line in Path('/proc/cpuinfo').read_text().splitlines()
                  if line.startswith('model name')]
        return f'{models[0]} ({len(models)} cores)'
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def version_of(package: str) -> str | None:
    """The installed version; None if it is not installed."""
    if package == 'stochastic_refine':
        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the checkout that this package runs from; None for an installed one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / '.git').exists():
        return None
    try:
        run = subprocess.run(['git', '-C', str(root), 'describe', '--always', '--dirty', '--exclude=*'], capture_output=True,
                             text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() or None
