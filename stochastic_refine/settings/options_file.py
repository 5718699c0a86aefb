"""Options files as YAML that may come from anywhere: reading runs no code and takes bounded time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError

#: An options file has some kilobytes and some hundred values; this is where a wrong file, or a trap, begins.
_MOST_BYTES, _MOST_VALUES = 2**18, 10_000


def read_options_file(path: str | Path) -> dict[str, Any]:
    """An options file as a dict, all of whose keys are text.

    Raises:
        InputError: If it cannot be read, is not YAML, has tags that would make other objects than plain values, is too large or
            becomes so by its aliases, has a key twice in one block, or holds no keys.
    """
    import yaml
    try:
        with Path(path).open('rb') as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f'Options file {path} cannot be read ({error.strerror}); check the path.') from error
    if len(content) > _MOST_BYTES:
        raise InputError(f'Options file {path} has more than {_MOST_BYTES // 1024} KiB; give an options file, which has a few.')
    try:
        loader = yaml.SafeLoader(content)
        node = loader.get_single_node()
        if node is not None and _count(node, {}) > _MOST_VALUES:
            raise InputError(f'Options file {path} has more than {_MOST_VALUES} values, aliases written out; give fewer.')
        if node is not None:
            _refuse_repeated_keys(node, f'Options file {path}', set())
        options = {} if node is None else loader.construct_document(node)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f'Options file {path} is nested too deeply, or contains itself by an alias; write it flat.') from error
    except Exception as error:  # besides its own errors, what the constructors of numbers and dates raise
        words = ' '.join(str(error).split())[:400]
        raise InputError(f'Options file {path} is not valid YAML: {words}; correct it.') from error
    if not isinstance(options, dict) or not options:
        raise InputError(f'Options file {path} holds no keys; give one of a training or a test.')
    _refuse_other_keys(options, f'Options file {path}')
    return options


def _count(node: Any, known: dict[int, int]) -> int:
    """Values below a node of YAML's graph as if each alias were written out; RecursionError if it contains itself."""
    if id(node) in known:
        if known[id(node)] < 0:
            raise RecursionError
        return known[id(node)]
    known[id(node)] = -1
    children = node.value if isinstance(node.value, list) else []
    parts = [part for child in children for part in (child if isinstance(child, tuple) else (child, ))]
    known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    return known[id(node)]


def _refuse_repeated_keys(node: Any, where: str, seen: set[int]) -> None:
    """Of a key written twice YAML's loaders take the last without a word."""
    if not isinstance(node.value, list) or id(node) in seen:
        return
    seen.add(id(node))
    lines: dict[str, int] = {}
    for child in node.value:
        key, value = child if isinstance(child, tuple) else (None, child)
        inside = where
        if key is not None and isinstance(key.value, str):
            inside, line = f'{where}: {key.value}', key.start_mark.line + 1
            if key.value in lines:
                raise InputError(f"{where} has the key '{key.value}' twice, in lines {lines[key.value]} and {line}; remove "
                                 'one of them.')
            lines[key.value] = line
        _refuse_repeated_keys(value, inside, seen)


def _refuse_other_keys(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(f'{where}: the key {key!r} is no text; put it in quotes.')
            _refuse_other_keys(item, f'{where}: {key}')
    elif isinstance(value, list):
        for item in value:
            _refuse_other_keys(item, where)
