"""The network that a file of weights describes or is recognised to belong to."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..archs.build import ARCHS, build_arch, check_arch_options, plan_arch, without_pretrained
from ..archs.predict_refine_arch import final_output
from ..archs.pretrained import read_weights, require_network
from ..archs.spandrel_arch import SpandrelNet
from ..checkpoints import Checkpoint, check_fit, load_weights
from ..errors import InputError, words_of
from ..processes import rank
from ..values import check_kinds, number, optional
from .operating_point import OperatingPoint, check_sampling


def load_network(path: Path) -> tuple[nn.Module, dict[str, OperatingPoint], dict[str, Any]]:
    """Build the network that a file of weights describes, or is recognised to belong to, and load its weights.

    Returns:
        The network in evaluation mode, its operating points by name (none for deterministic networks), and the metadata.

    Raises:
        InputError: If the weights are unusable, or their network is unknown.
    """
    checkpoint = require_network(read_weights(path), str(path))
    for note in checkpoint.notes:
        _tell(f'Note: {path}: {note}.')
    return network_of(checkpoint, str(path))


def network_of(checkpoint: Checkpoint, where: str) -> tuple[nn.Module, dict[str, OperatingPoint], dict[str, Any]]:
    """As :func:`load_network`, of weights that are read already and whose network is known."""
    metadata = checkpoint.metadata
    net = build_with_weights(metadata['network'], checkpoint.params, f'{where}: network', where)
    stored = metadata.get('operating_points', {})
    if not isinstance(stored, Mapping) or not all(isinstance(point, Mapping) for point in stored.values()):
        raise InputError(f'{where}: operating_points in the metadata are no blocks of keys by name; save it anew.')
    points = {str(name): OperatingPoint.from_options(point, f'{where}: {name}') for name, point in stored.items()}
    check_kinds(metadata, {'window': optional(number(16, 10**5, whole=True))}, f'{where}: metadata')
    return net, points, metadata


@lru_cache
def _tell(note: str) -> None:
    """Print a note once, however many processes load the weights."""
    if rank() == 0 and multiprocessing.parent_process() is None:
        print(note, file=sys.stderr)


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
    if options['type'] not in ARCHS or _has_foreign_part(options):
        net = build_arch(options, where)
        load_weights(net, params, source)
        check_runs(net, where)
        return net.eval()
    plan = plan_arch(options, where, 2 * len(params) + 1000)
    check_fit(plan, params, source)
    check_runs(plan, where)
    net = build_arch(options, where)
    net.load_state_dict(params)
    return net.eval()


def _has_foreign_part(options: Mapping[str, Any]) -> bool:
    """Whether a network of spandrel's is in it, which need not run on the meta device."""
    return options.get('type') == SpandrelNet.__name__ or any(
        _has_foreign_part(part) for part in options.values() if isinstance(part, Mapping))


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
            outputs = net.trial(lq) if hasattr(net, 'trial') else [final_output(net, net(lq))]
    except Exception as error:  # wrong numbers of channels, mostly
        raise InputError(f'{where}: {type(net).__name__} with these options cannot restore an image ({words_of(error)}); '
                         'correct them, the numbers of channels first.') from error
    finally:
        net.train(training)
    for output in outputs:
        if output.shape != lq.shape:
            raise InputError(f'{where}: {type(net).__name__} with these options makes {tuple(output.shape[1:])} of an image of '
                             f'{tuple(lq.shape[1:])}; correct them.')
