"""Whether the values of options fit the arguments that they become, by annotations and defaults."""

from __future__ import annotations

import collections.abc
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InputError

#: No argument has so many values.
_LONGEST = 10_000
_WORDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text', type(None): 'nothing (~)'}


def check_values(target: Callable[..., Any], options: Mapping[str, Any], where: str) -> None:
    """Check the options that ``target`` has arguments for; what an annotation or default does not tell passes.

    Raises:
        InputError: Naming the first value of a wrong type.
    """
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # annotations that name what is not there
        hints = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if name not in options or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        wanted = hints[name] if name in hints else _of_default(parameter.default)
        if fits(options[name], wanted) is False:
            raise InputError(f'{where}: {name} must be {words(wanted)}, got {shortened(options[name])}.')


def fits(value: Any, wanted: Any) -> bool | None:
    """Whether a plain value, as YAML or JSON hold it, is of a type; None if the type is none that can be told."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        known = [answer for answer in (fits(value, argument) for argument in arguments) if answer is not None]
        return any(known) if known else None
    if origin is typing.Literal:
        return value in arguments
    kind = origin or wanted
    if kind is bool or kind is str or kind is type(None):
        return isinstance(value, kind)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and _is_finite(value)
    if kind in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        if not isinstance(value, (list, tuple)) or len(value) > _LONGEST:
            return False
        if kind is tuple and arguments and arguments[-1] is not Ellipsis:
            return len(value) == len(arguments) and all(fits(*pair) is not False for pair in zip(value, arguments))
        return not arguments or all(fits(item, arguments[0]) is not False for item in value)
    if kind in (dict, collections.abc.Mapping):
        return isinstance(value, Mapping)
    return None


def words(wanted: Any) -> str:
    """A type in words, for a message."""
    arguments = [argument for argument in typing.get_args(wanted) if argument is not Ellipsis]
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        return ' or '.join(dict.fromkeys(words(argument) for argument in arguments if fits(None, argument) is not None))
    if origin is typing.Literal:
        return ' or '.join(map(repr, arguments))
    kind = origin or wanted
    if kind in _WORDS:
        return _WORDS[kind]
    if kind in (dict, collections.abc.Mapping):
        return 'a block of keys'
    if len(arguments) == 1:
        return f'a list, each of it {words(arguments[0])}'
    return f'a list of {len(arguments)} values' if arguments else 'a list'


def shortened(value: Any, most: int = 80) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= most else f'{text[:most]}...'


def _of_default(default: Any) -> Any:
    """The type that a default stands for: a whole number may become a fraction."""
    if default is inspect.Parameter.empty or default is None:
        return Any
    return float if type(default) is int else type(default)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False
