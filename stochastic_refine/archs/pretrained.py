"""Published weights as weights of our networks: every format and wrapper that they come in, and the network they belong to.

What can be read: ``.pth``, ``.pt`` and whatever else is a file of ``torch.save``, ``.safetensors``, ``.npz``, the folder of a
TensorFlow.js graph, sharded checkpoints, and folders of parts. The network is what the file's metadata says, else it is
recognised by :mod:`.layouts`, else by spandrel where that is installed. Nothing but tensors and plain values is ever unpickled.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..checkpoints import Checkpoint, check_fit, read_checkpoint
from ..checkpoints.files import tensors_sha256
from ..checkpoints.hub_folder import is_hub_folder, read_hub_folder
from ..checkpoints.part_files import has_parts, read_parts
from ..checkpoints.weights_folder import available_weights, find_weights
from ..errors import InputError
from . import known_layouts  # noqa: F401  (fills the table of layouts)
from .build import arch_class, check_arch_options, without_pretrained
from .layouts import recognise, unrecognised
from .maxim_weights import convert, read_npz, read_tfjs
from .spandrel_arch import SpandrelNet, is_installed, recognise_by_spandrel

#: In the metadata of a refiner's file: whose predictions it refines, ``{name, tensors_sha256}``.
PREDICTOR_KEY = 'refines'
#: A tensor that every MAXIM under its authors' names has.
_MAXIM_MARK = 'stage_0_input_conv_0/kernel'


def is_tfjs(path: Path) -> bool:
    """Whether ``path`` is the folder of a TensorFlow.js graph."""
    return (path / 'model.json').is_file()


def read_weights(path: str | Path, prefer: str = 'params_ema') -> Checkpoint:
    """Read weights in any format; ``metadata['network']`` holds the network's options wherever it is known.

    Args:
        path: File or folder.
        prefer: Which weights to take where a file wraps several.

    Returns:
        The checkpoint, with the names that our networks have if the network is known, and the file's own otherwise.

    Raises:
        InputError: If the file is missing, damaged, or holds anything but tensors and plain values.
    """
    path = Path(path)
    try:
        if is_hub_folder(path):
            checkpoint = read_hub_folder(path)
        elif is_tfjs(path):
            checkpoint = Checkpoint(read_tfjs(path))
        elif path.suffix == '.npz':
            checkpoint = Checkpoint(read_npz(path))
        else:
            checkpoint = read_parts(path, prefer) if has_parts(path) else read_checkpoint(path, prefer)
        if _MAXIM_MARK in checkpoint.params:
            return _converted_maxim(checkpoint, path)
        checkpoint.params = {name: _as_tensor(name, value, path) for name, value in checkpoint.params.items()}
    except MemoryError as error:
        raise InputError(f'{path} declares weights that do not fit into memory; it may be damaged, so get it again.') from error
    if PREDICTOR_KEY in checkpoint.metadata:
        return _with_predictor(checkpoint, path)
    if checkpoint.metadata.get('network') or not checkpoint.params:
        return checkpoint
    try:
        found = recognise(checkpoint.params)
    except InputError as error:
        raise InputError(f'{path}: {error}') from error
    if found is None:
        return checkpoint
    known = {'network': found.options, **({'window': found.window} if found.window else {})}
    return Checkpoint(found.params, {**checkpoint.metadata, **known}, found.notes)


def require_network(checkpoint: Checkpoint, where: str) -> Checkpoint:
    """The checkpoint, whose network is known or found by spandrel.

    Args:
        checkpoint: From :func:`read_weights`.
        where: Its file, for messages.

    Raises:
        InputError: If the network is unknown, with the nearest one and the first names and shapes that differ.
    """
    if checkpoint.metadata.get('network'):
        return checkpoint
    if checkpoint.params and is_installed():
        found = recognise_by_spandrel(checkpoint.params, where)
        if found is not None:
            options, params = found
            return replace(checkpoint, params=params, metadata={**checkpoint.metadata, 'network': options})
    words = unrecognised(checkpoint.params) if checkpoint.params else 'it holds no tensors'
    more = '' if is_installed() else ' More networks are recognised where spandrel is installed: pip install spandrel.'
    raise InputError(f'{where} does not say which network it belongs to, and it is none that is known here: {words}. If you '
                     f'have an options file for it: stochastic-refine test -opt FILE.{more}')


def complete_options(options: Mapping[str, Any], where: str = 'network') -> dict[str, Any]:
    """A network's options in which every part with ``pretrained`` also has the type and settings that its weights tell.

    So ``{pretrained: maxim-gopro}`` is enough, and ``{type: NAFNet, pretrained: nafnet-gopro}`` has that file's width. What the
    options say themselves stays; a part that is complete is not looked at, so its file may be gone.

    Raises:
        InputError: If a part has no type and its weights do not tell it.
    """
    completed = {}
    for key, part in options.items():
        completed[key] = complete_part(part, f'{where}: {key}') if isinstance(part, Mapping) else part
    return completed


def complete_networks(opt: Mapping[str, Any]) -> dict[str, Any]:
    """Those blocks of an options file that describe networks, ``network_g`` and its like, completed."""
    return {key: complete_options(options, key) for key, options in opt.items()
            if key.startswith('network_') and isinstance(options, Mapping)}


def complete_part(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """As :func:`complete_options`, of one part, which may have ``pretrained`` itself.

    Settings are told where none is given: beside given ones, those left out are the network's defaults.
    """
    options = complete_options(options, where)
    weights = options.get('pretrained')
    if not weights or options.keys() - {'type', 'pretrained', 'frozen'}:
        return options
    try:
        checkpoint = read_weights(find_weights(weights))
        if 'type' not in options:
            checkpoint = require_network(checkpoint, str(weights))
    except InputError as error:
        if 'type' in options:  # whoever loads the weights says what is wrong
            return options
        raise InputError(f'{where}: {error}') from error
    told = without_pretrained(checkpoint.metadata.get('network') or {})
    check_arch_options(told, f'{where}: {weights}: network') if told else None
    kind = options.get('type', told.get('type'))
    if not told or not isinstance(kind, str) or not _related(kind, told['type']):
        return options
    accepted = _arguments(arch_class(kind, where))
    return {**{key: value for key, value in told.items() if key == 'type' or key in accepted}, **options}


def _related(one: str, other: str) -> bool:
    """Whether two types are one network's, such as NAFNet and NAFNetLocal."""
    classes = [arch_class(name) for name in (one, other)]
    return issubclass(*classes) or issubclass(*reversed(classes))


def _arguments(cls: type[nn.Module]) -> set[str]:
    """Names of a constructor's arguments, those that it passes on to the class's parent included."""
    names: set[str] = set()
    for each in cls.__mro__:
        parameters = inspect.signature(each.__init__).parameters
        names |= parameters.keys()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return names


def load_part(net: nn.Module, weights: str, where: str) -> None:
    """Load the weights that a name or a file stands for into a part of a network.

    Raises:
        InputError: If they cannot be read or are another network's; the message says which.
    """
    checkpoint = read_weights(find_weights(weights))
    if isinstance(net, SpandrelNet):  # its file bears spandrel's names
        checkpoint = require_network(checkpoint, str(weights))
    check_weights(net, checkpoint, f'{where}: {weights}')
    net.load_state_dict(checkpoint.params)


def check_weights(net: nn.Module, checkpoint: Checkpoint, where: str) -> None:
    """As :func:`~stochastic_refine.checkpoints.check_fit`; the message also says which network the weights belong to."""
    try:
        check_fit(net, checkpoint.params, where)
    except InputError as error:
        told = checkpoint.metadata.get('network')
        if not isinstance(told, Mapping) or 'another network' not in str(error):
            raise
        raise InputError(f'{error} The file is of {without_pretrained(told)}.') from error


def _with_predictor(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """A refiner's checkpoint with the weights of the predictor that it was trained over, which its file only names."""
    told = checkpoint.metadata[PREDICTOR_KEY]
    if not isinstance(told, Mapping) or not all(isinstance(told.get(key), str) for key in ('name', 'tensors_sha256')):
        raise InputError(f'{path}: {PREDICTOR_KEY} in the metadata does not say the name and the hash of a predictor; get the '
                         'file again.')
    name, here = told['name'], available_weights()  # a name alone: whoever made the file has no say over paths
    if name not in here or here[name] == path:
        raise InputError(f'{path} refines what {name} predicts, and those weights are not on this machine; get them: '
                         f'stochastic-refine weights get {name}')
    predictor = read_weights(here[name])
    if tensors_sha256(predictor.params) != told['tensors_sha256']:
        raise InputError(f'{path} was trained over other weights than {here[name]}; get those again: stochastic-refine weights '
                         f'get {name}')
    params = {f'predictor.{key}': value for key, value in predictor.params.items()}
    return replace(checkpoint, params={**params, **checkpoint.params}, notes=(*checkpoint.notes, *predictor.notes))


def _converted_maxim(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    arrays = {name: value if isinstance(value, np.ndarray) else value.float().numpy()
              for name, value in checkpoint.params.items()}
    converted = convert(arrays, str(path))
    notes = [f"{len(converted.zeroed)} tensors ({converted.zeroed[0]} first), which only the last stage's coarse outputs need, "
             'are not in it and are zero'] if converted.zeroed else []
    return Checkpoint(converted.params, {'network': converted.options}, tuple(notes))


def _as_tensor(name: str, value: Any, path: Path) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if value.dtype.kind not in 'fiub':
        raise InputError(f'{path}: {name} is of type {value.dtype}, which no weights are; give a file of weights.')
    return torch.from_numpy(np.array(value))
