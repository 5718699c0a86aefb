"""Where weights come from: bundled ones by name, or a checkpoint file; and the network that a checkpoint describes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from ..archs.build import build_arch, nearest
from ..checkpoints import Checkpoint, load_weights, read_checkpoint
from ..errors import InputError
from .operating_point import OperatingPoint

#: Weights that ship with the package.
BUNDLED = Path(__file__).resolve().parents[1] / 'weights'
#: Environment variable that names a folder with more.
WEIGHTS_VARIABLE = 'STOCHASTIC_REFINE_WEIGHTS'


def available_weights() -> dict[str, Path]:
    """Weights that can be given by name: the bundled ones, and those in the folder that STOCHASTIC_REFINE_WEIGHTS names."""
    folders = [BUNDLED, *([Path(os.environ[WEIGHTS_VARIABLE])] if os.environ.get(WEIGHTS_VARIABLE) else [])]
    return {path.stem: path for folder in folders for path in sorted(folder.glob('*')) if path.suffix in ('.safetensors', '.pth')}


def find_weights(name_or_path: str | Path) -> Path:
    """The file behind a name or a path.

    Raises:
        InputError: If there is none; the message lists the known names.
    """
    known = available_weights()
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.suffix or os.sep in str(name_or_path):
        raise InputError(f'Weights {name_or_path} do not exist; check the path, or give one of the names {", ".join(sorted(known))}.')
    raise InputError(f"There are no weights called '{name_or_path}'; {nearest(str(name_or_path), known)}")


def load_network(path: Path) -> tuple[nn.Module, dict[str, OperatingPoint], dict[str, Any]]:
    """Build the network that a checkpoint describes and load its weights.

    Returns:
        The network in evaluation mode, its operating points by name (none for deterministic networks), and the metadata.

    Raises:
        InputError: If the checkpoint is unusable, or does not say which network it belongs to.
    """
    checkpoint: Checkpoint = read_checkpoint(path)
    options = checkpoint.metadata.get('network')
    if not options:
        raise InputError(f'{path} does not say which network it belongs to, since it was not saved by stochastic_refine; '
                         'restore with it through an options file: stochastic-refine test -opt FILE.')
    net = build_arch(options, f'{path}: network')
    load_weights(net, checkpoint.params, str(path))
    points = {
        name: OperatingPoint.from_options(point, f'{path}: {name}')
        for name, point in checkpoint.metadata.get('operating_points', {}).items()
    }
    return net.eval(), points, checkpoint.metadata
