"""Build a network from its option dict ``{type: ..., ...}``, with or without BasicSR."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from ..errors import InputError

#: The package's own networks by type name; :mod:`stochastic_refine.registration` puts the same ones into BasicSR's registry.
ARCHS: dict[str, type[nn.Module]] = {}

#: Where else to look a type up, e.g. in BasicSR's registry; set by :mod:`stochastic_refine.registration`.
fallback_lookup: Callable[[str], type[nn.Module] | None] = lambda name: None
fallback_names: Callable[[], Iterable[str]] = tuple


def arch(cls: type[nn.Module]) -> type[nn.Module]:
    """Class decorator: list a network under its class name."""
    ARCHS[cls.__name__] = cls
    return cls


def nearest(word: str, known: Iterable[str]) -> str:
    """Words of an error message that name the known words nearest to ``word``, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f'did you mean {" or ".join(close)}?' if close else f'known: {", ".join(known)}.'


def arch_class(name: str) -> type[nn.Module]:
    """The network class of that type name.

    Raises:
        InputError: If no network is called so; the message names the nearest ones.
    """
    cls = ARCHS.get(name) or fallback_lookup(name)
    if cls is None:
        raise InputError(f"Unknown network type '{name}'; {nearest(str(name), {*ARCHS, *fallback_names()})}")
    return cls


def check_arch_options(options: Mapping[str, Any], where: str = 'network') -> None:
    """Check that a network's options name a known type and only arguments that its constructor has.

    Raises:
        InputError: Naming the wrong key and the nearest right ones.
    """
    if not isinstance(options, Mapping) or 'type' not in options:
        raise InputError(f"{where} needs a key 'type' that names a network, e.g. RefineUNet.")
    parameters = inspect.signature(arch_class(options['type']).__init__).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = set(parameters) - {'self'}
    for key in options:
        if key != 'type' and key not in known:
            raise InputError(f"{where}: {options['type']} has no option '{key}'; {nearest(key, known)}")


def build_arch(options: Mapping[str, Any], where: str = 'network') -> nn.Module:
    """Build the network that ``{type: ..., <constructor arguments>}`` describes.

    Raises:
        InputError: If the type or an argument is unknown, or the constructor refuses a value.
    """
    check_arch_options(options, where)
    arguments = {key: value for key, value in options.items() if key != 'type'}
    try:
        return arch_class(options['type'])(**arguments)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {options['type']} cannot be built from {arguments}: {error}") from error


def without_pretrained(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without ``pretrained`` paths: a checkpoint holds the weights itself."""
    return {
        key: without_pretrained(value) if isinstance(value, Mapping) else value
        for key, value in options.items() if key != 'pretrained'
    }
