"""Single checks of option values, each with a sentence that names the key and what it must be."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from .archs.arguments import check_values, shortened
from .archs.build import nearest
from .errors import InputError, words_of

#: What YAML 1.1 reads as text although a number is meant: an exponent without a point or without a sign.
_NUMBER_AS_TEXT = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+')


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
#: Becomes a folder's name.
NAME = Kind(lambda value: TEXT.fits(value) and len(value.encode()) < 200, 'text of less than 200 bytes')
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
