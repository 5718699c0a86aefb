"""Where weights come from: bundled ones by name, or a checkpoint file; and the network that a checkpoint describes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..archs.build import ARCHS, build_arch, check_arch_options, plan_arch, without_pretrained
from ..archs.predict_refine_arch import PredictRefineNet, final_output
from ..checkpoints import Checkpoint, check_fit, load_weights, read_checkpoint
from ..checkpoints.sharded import is_sharded
from ..diffusion import conditioning
from ..errors import InputError, words_of
from ..values import nearest
from .operating_point import OperatingPoint, check_sampling

#: Weights that ship with the package.
BUNDLED = Path(__file__).resolve().parents[1] / 'weights'
#: Environment variable that names a folder with more.
WEIGHTS_VARIABLE = 'STOCHASTIC_REFINE_WEIGHTS'


def available_weights() -> dict[str, Path]:
    """Weights that can be given by name: the bundled ones, and those in the folder that STOCHASTIC_REFINE_WEIGHTS names."""
    folders = [BUNDLED, *([Path(os.environ[WEIGHTS_VARIABLE])] if os.environ.get(WEIGHTS_VARIABLE) else [])]
    return {path.stem: path for folder in folders for path in sorted(folder.glob('*'))
            if path.suffix in ('.safetensors', '.pth')}


def find_weights(name_or_path: str | Path) -> Path:
    """The file behind a name or a path.

    Raises:
        InputError: If there is none; the message lists the known names.
    """
    known = available_weights()
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    path = Path(name_or_path)
    if path.is_file() or is_sharded(path):
        return path
    if path.suffix or os.sep in str(name_or_path):
        raise InputError(f'Weights {name_or_path} do not exist; check the path, or give one of the names '
                         f'{", ".join(sorted(known))}.')
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
    net = build_with_weights(options, checkpoint.params, f'{path}: network', str(path))
    stored = checkpoint.metadata.get('operating_points', {})
    if not isinstance(stored, Mapping) or not all(isinstance(point, Mapping) for point in stored.values()):
        raise InputError(f'{path}: operating_points in the metadata are no blocks of keys by name; save it anew.')
    points = {str(name): OperatingPoint.from_options(point, f'{path}: {name}') for name, point in stored.items()}
    return net, points, checkpoint.metadata


def build_with_weights(options: Mapping[str, Any], params: Mapping[str, Tensor], where: str, source: str) -> nn.Module:
    """The network of an option dict with its weights, in evaluation mode.

    Memory for it is taken only once the weights are known to fit.

    Args:
        options: Of the network; ``pretrained`` in them is passed over.
        params: Its weights.
        where, source: Where options and weights come from, for messages.

    Raises:
        InputError: If the options are wrong, the weights are another network's, or the network cannot restore an image.
    """
    check_arch_options(options, where)
    check_sampling(options, where)
    options = without_pretrained(options)
    if options['type'] in ARCHS:
        check_fit(plan_arch(options, where, 2 * len(params) + 1000), params, source)
    net = build_arch(options, where)
    load_weights(net, params, source)
    check_runs(net, where)
    return net.eval()


def check_runs(net: nn.Module, where: str) -> None:
    """Check that a network takes a small image and gives one of the same size; on the meta device nothing is computed.

    Raises:
        InputError: If its parts do not go together.
    """
    lq = torch.zeros(1, 3, 32, 32, device=next(net.parameters()).device)
    training = net.training
    try:
        with torch.no_grad():
            net.eval()
            if isinstance(net, PredictRefineNet):
                initial = net.predict(lq)
                condition = conditioning(lq, initial if net.condition_on_initial else None)
                outputs = [net.denoise(lq, condition, lq[:, 0, 0, 0] + 1)] + ([] if initial is None else [initial])
            else:
                outputs = [final_output(net, net(lq))]
    except Exception as error:  # wrong numbers of channels, mostly
        raise InputError(f'{where}: {type(net).__name__} with these options cannot restore an image ({words_of(error)}); '
                         'correct them, the numbers of channels first.') from error
    finally:
        net.train(training)
    for output in outputs:
        if output.shape != lq.shape:
            raise InputError(f'{where}: {type(net).__name__} with these options makes {tuple(output.shape[1:])} of an image of '
                             f'{tuple(lq.shape[1:])}; correct them.')
