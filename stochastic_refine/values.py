"""Single checks of values, each with a sentence that names the key and what it must be: ground for all rooms."""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from .errors import InputError, words_of

#: What YAML 1.1 reads as text although a number is meant: an exponent without a point or without a sign.
_NUMBER_AS_TEXT = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+')
#: No argument has so many values.
_LONGEST = 10_000
_WORDS = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text', type(None): 'nothing (~)'}


def nearest(word: str, known: Iterable[str]) -> str:
    """Words of an error message that name the known words nearest to ``word``, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f'did you mean {" or ".join(close)}?' if close else f'known: {", ".join(known)}.'


def shortened(value: Any, most: int = 80) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= most else f'{text[:most]}...'


class Kind(NamedTuple):
    """What a value must be: a test and its words."""

    fits: Callable[[Any], bool]
    words: str


def number(low: float, high: float | None = None, whole: bool = False) -> Kind:
    """A number from ``low``, below ``high``."""
    kinds = int if whole else (int, float)

    def fits(value: Any) -> bool:
        return (isinstance(value, kinds) and not isinstance(value, bool) and low <= value  # NaN fails
                and (value < high if high is not None else value < 1e300))

    return Kind(fits, f"{'a whole number' if whole else 'a number'} from {low}{'' if high is None else f', below {high}'}")


def optional(kind: Kind) -> Kind:
    """The kind, or nothing."""
    return Kind(lambda value: value is None or kind.fits(value), kind.words)


def either(*kinds: Kind) -> Kind:
    """Any of some kinds."""
    return Kind(lambda value: any(kind.fits(value) for kind in kinds), ' or '.join(kind.words for kind in kinds))


def one_of(*values: Any) -> Kind:
    """One of some values."""
    return Kind(lambda value: any(value is known or value == known for known in values if type(value) is type(known)),
                ' or '.join('~' if value is None else str(value) for value in values))


def span(high: float) -> Kind:
    """``[lowest, highest]``, from 0 to ``high``."""
    end = number(0, high)

    def fits(value: Any) -> bool:
        return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(end.fits, value)) and value[0] <= value[1]

    return Kind(fits, f'[lowest, highest] with numbers from 0, below {high}')


TEXT = Kind(lambda value: isinstance(value, str) and 0 < len(value) < 4096 and '\0' not in value, 'text')
#: Becomes the name of a folder or file, or a part of it, on any system.
NAME = Kind(lambda value: TEXT.fits(value) and len(value.encode('utf-8', 'replace')) < 200 and value.strip('. ') != ''
            and not any(character in '/\\:*?"<>|' or ord(character) < 32 for character in value),
            'text of less than 200 bytes without / \\ : * ? " < > |, as files are named so')
COUNT = number(1, 10**9, whole=True)
FLAG = Kind(lambda value: isinstance(value, bool), 'true or false')
BLOCK = Kind(lambda value: isinstance(value, Mapping), 'a block of keys')
NUMBERS = Kind(lambda value: isinstance(value, (list, tuple)) and len(value) > 0 and all(map(number(-1e300).fits, value)),
               'a list of numbers')
COLOUR = Kind(lambda value: isinstance(value, (list, tuple)) and len(value) == 3 and all(
    isinstance(item, (int, float)) and math.isfinite(item) for item in value), 'a list of three numbers')


def check_kinds(block: Mapping[str, Any], kinds: Mapping[str, Kind], where: str) -> None:
    """Check the values of those keys of ``block`` that are there."""
    for key, value in block.items():
        if key in kinds and not kinds[key].fits(value):
            fault = 'is empty; it must be' if value is None else 'must be'
            got = '' if value is None else f', got {shortened(value)}'
            raise InputError(f'{where}: {key} {fault} {kinds[key].words}{got}.')


def require(block: Any, keys: Iterable[str], where: str) -> None:
    """Check that ``block`` is one and has the keys."""
    if not isinstance(block, Mapping):
        raise InputError(f'{where} must be a block of keys, got {shortened(block)}.')
    for key in keys:
        if key not in block:
            close = difflib.get_close_matches(key, block, n=1, cutoff=0.7)
            raise InputError(f"{where} lacks the key '{key}'{f' (is {close[0]} meant for it?)' if close else ''}; add it.")


def refuse_unknown(keys: Iterable[Any], known: Iterable[str], where: str) -> None:
    """Refuse keys that are none of the known ones, naming the nearest."""
    for key in keys:
        if key not in known:
            raise InputError(f"{where}: unknown key '{key}'; {nearest(str(key)[:80], known)}")


def refuse_slips(keys: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse keys that are almost, but not quite, one of the known ones."""
    for key in keys:
        if key not in known and difflib.get_close_matches(key, known, cutoff=0.75):
            raise InputError(f"{where}: unknown key '{key}'; {nearest(key, known)}")


def known_type(name: Any, known: Any, where: str) -> None:
    """Check that a registry, or mapping, has the name."""
    names = [key.removesuffix('_basicsr') for key in known.keys()]
    if name not in names:
        raise InputError(f'{where} {shortened(name)} is unknown; {nearest(str(name)[:80], names)}')


def check_arguments(target: Callable[..., Any], options: Mapping[str, Any], where: str, given: tuple[str, ...] = ()) -> None:
    """Check that ``target(**given, **options)`` can be called; ``options`` may also hold ``type``."""
    parameters = inspect.signature(target).parameters.values()
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    names = {p.name for p in parameters if p.kind not in variable} - set(given)
    keys = options.keys() - {'type'}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        refuse_slips(sorted(keys), names, where)
    elif keys - names:
        key = min(keys - names)
        raise InputError(f"{where}: {options['type']} has no option '{key}'; {nearest(key, names)}")
    needed = [p.name for p in parameters if p.name in names - keys and p.default is p.empty]
    if needed:
        raise InputError(f"{where}: {options['type']} needs the key '{needed[0]}'; add it.")
    check_values(target, {key: value for key, value in options.items() if key != 'type'}, where)


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
        if _is_of_type(options[name], wanted) is False:
            raise InputError(f'{where}: {name} must be {_type_in_words(wanted)}, got {shortened(options[name])}.')


def _is_of_type(value: Any, wanted: Any) -> bool | None:
    """Whether a plain value, as YAML or JSON hold it, is of a type; None if the type is none that can be told."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        known = [answer for answer in (_is_of_type(value, argument) for argument in arguments) if answer is not None]
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
            return len(value) == len(arguments) and all(_is_of_type(*pair) is not False for pair in zip(value, arguments))
        return not arguments or all(_is_of_type(item, arguments[0]) is not False for item in value)
    if kind in (dict, collections.abc.Mapping):
        return isinstance(value, Mapping)
    return None


def _type_in_words(wanted: Any) -> str:
    """A type in words, for a message."""
    arguments = [argument for argument in typing.get_args(wanted) if argument is not Ellipsis]
    origin = typing.get_origin(wanted)
    if origin in (typing.Union, types.UnionType):
        known = [argument for argument in arguments if _is_of_type(None, argument) is not None]
        return ' or '.join(dict.fromkeys(map(_type_in_words, known)))
    if origin is typing.Literal:
        return ' or '.join(map(repr, arguments))
    kind = origin or wanted
    if kind in _WORDS:
        return _WORDS[kind]
    if kind in (dict, collections.abc.Mapping):
        return 'a block of keys'
    if len(arguments) == 1:
        return f'a list, each of it {_type_in_words(arguments[0])}'
    return f'a list of {len(arguments)} values' if arguments else 'a list'


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


def attempt(where: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What the call gives; any error of it, as constructors raise over their arguments, becomes a sentence."""
    try:
        return call(*args, **kwargs)
    except InputError:
        raise
    except Exception as error:
        given = ' '.join(['its arguments', ', '.join(kwargs)]).rstrip()  # named, as the library's words may not name the key
        raise InputError(f'{where}: {call.__name__} refuses {given} ({words_of(error)}); correct them.') from error


def refuse_what_is_no_number(value: Any, where: str) -> None:
    """Refuse ``1e-4``, which YAML 1.1 reads as text, NaN and infinity, wherever they stand."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in ('name', 'suffix'):
                refuse_what_is_no_number(item, f'{where}: {key}' if where else str(key))
    elif isinstance(value, list):
        for item in value:
            refuse_what_is_no_number(item, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f'{where} is {value}; write a finite number.')
    elif isinstance(value, str) and _NUMBER_AS_TEXT.fullmatch(value):
        text = repr(float(value))
        if 'e' in text and '.' not in text:
            text = text.replace('e', '.0e')
        raise InputError(f"{where} is the text '{value}', since YAML knows a number with an exponent only by a point and a "
                         f'sign; write {text}.')
