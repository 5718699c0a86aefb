"""Where and with what figures were made: source files, package versions, commit; device, machine and what timings depend on."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from .. import __version__
from ..processes import local_world_size

_PACKAGE = Path(__file__).resolve().parents[1]


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


@cache
def source_hash() -> str:
    """A hash of this package's source files: the version stays while they are edited, results must not."""
    total = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob('*.py')):
        content = path.read_bytes()
        total.update(f'{path.relative_to(_PACKAGE).as_posix()} {len(content)} '.encode() + content)
    return total.hexdigest()[:16]


def code_identity() -> dict[str, str]:
    """What every cached result depends on, whatever else it was made from: the code here, and PyTorch."""
    return {'source': source_hash(), 'torch': torch.__version__}


def timing_setup(device: torch.device, workers: int = 1) -> str:
    """What a wall-clock time depends on beside the work: a time taken under another setup is not to be shown for this one.

    Args:
        device: Where the network runs.
        workers: Processes that one process of torchrun, or this one, shares the work among.
    """
    return f'{machine(device)}, {torch.get_num_threads()} threads, {workers * local_world_size()} processes'


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
