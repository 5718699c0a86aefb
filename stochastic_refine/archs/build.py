"""Build a network from its option dict ``{type: ..., ...}``, with or without BasicSR."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..errors import InputError, words_of
from ..values import check_values, nearest, shortened

_MOST_NUMBERS = 10**10
_MOST_NESTED = 5

#: The package's own networks by type name; :mod:`stochastic_refine.registration` puts the same ones into BasicSR's registry.
ARCHS: dict[str, type[nn.Module]] = {}

#: A host's own networks, whose names come before ours there; set by :mod:`stochastic_refine.integrations.basicsr.forks`.
own_lookup: Callable[[str], type[nn.Module] | None] = {}.get

#: Where else to look a type up, e.g. in BasicSR's registry; set by :mod:`stochastic_refine.registration`.
fallback_lookup: Callable[[str], type[nn.Module] | None] = {}.get
fallback_names: Callable[[], Iterable[str]] = tuple


def arch(cls: type[nn.Module]) -> type[nn.Module]:
    """Class decorator: list a network under its class name."""
    ARCHS[cls.__name__] = cls
    return cls


def arch_class(name: str, where: str = 'network') -> type[nn.Module]:
    """The network class of that type name.

    Raises:
        InputError: If no network is called so; the message names the nearest ones.
    """
    cls = own_lookup(name) or ARCHS.get(name) or fallback_lookup(name)
    if cls is None:
        raise InputError(f"{where}: unknown type {shortened(name)}; {nearest(str(name)[:80], {*ARCHS, *fallback_names()})}")
    return cls


def check_arch_options(options: Mapping[str, Any], where: str = 'network') -> None:
    """Check that a network's options name a known type and only arguments that its constructor has.

    Raises:
        InputError: Naming the wrong key and the nearest right ones.
    """
    if not isinstance(options, Mapping) or 'type' not in options:
        raise InputError(f"{where} needs a key 'type' that names a network, e.g. RefineUNet.")
    if _is_nested_deeper(options, _MOST_NESTED):
        raise InputError(f'{where}: blocks are nested more than {_MOST_NESTED} deep; no network has so many parts in parts.')
    if not isinstance(options['type'], str):
        raise InputError(f"{where}: type must be the name of a network, got {shortened(options['type'])}.")
    cls = arch_class(options['type'], where)
    parameters = inspect.signature(cls.__init__).parameters
    check_values(cls, {key: value for key, value in options.items() if key != 'type'}, f"{where}: {options['type']}")
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = set(parameters) - {'self'}
    for key in options:
        if key != 'type' and key not in known:
            raise InputError(f"{where}: {options['type']} has no option '{key}'; {nearest(key, known)}")


def _is_nested_deeper(options: Mapping[str, Any], most: int) -> bool:
    """Whether blocks lie in blocks more than ``most`` times; one that contains itself does."""
    level = [options]
    for _ in range(most):
        level = list({id(value): value for block in level for value in block.values() if isinstance(value, Mapping)}.values())
    return bool(level)


def build_arch(options: Mapping[str, Any], where: str = 'network') -> nn.Module:
    """Build the network that ``{type: ..., <constructor arguments>}`` describes.

    Raises:
        InputError: If the type or an argument is unknown, or the constructor refuses a value.
    """
    check_arch_options(options, where)
    arguments = {key: value for key, value in options.items() if key != 'type'}
    try:
        return arch_class(options['type'])(**arguments)
    except InputError as error:  # of a network that is a part of it
        raise InputError(f'{where}: {error}') from error
    except Exception as error:  # sizes below zero, or beyond all memory, make PyTorch raise many kinds
        raise InputError(f"{where}: {options['type']} cannot be built from {shortened(arguments, 400)} ({words_of(error)}); "
                         'correct them.') from error


def plan_arch(options: Mapping[str, Any], where: str = 'network', most_tensors: int = 4000) -> nn.Module:
    """The network on the meta device: names and shapes, without memory or weights of its own, however large it is.

    Args:
        options: As of :func:`build_arch`; ``pretrained`` in them is passed over.
        where: What they are, for messages.
        most_tensors: Where to give up; the largest network of this project, MAXIM, has 2754.

    Raises:
        InputError: As :func:`build_arch`, or if it has too many tensors, or more parameters than a machine could hold.
    """
    tensors = numbers = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal tensors, numbers
        tensors, numbers = tensors + 1, numbers + (0 if parameter is None else parameter.numel())
        if tensors > most_tensors or numbers > _MOST_NUMBERS:
            raise InputError(f'the network would have more than {most_tensors} tensors or {_MOST_NUMBERS / 1e9:g} billion '
                             'parameters; make it smaller.')

    handle = register_module_parameter_registration_hook(count)
    try:
        with torch.device('meta'):
            return build_arch(without_pretrained(options), where)
    finally:
        handle.remove()


def without_pretrained(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without ``pretrained`` paths: a checkpoint holds the weights itself."""
    return {
        key: without_pretrained(value) if isinstance(value, Mapping) else value
        for key, value in options.items() if key != 'pretrained'
    }
