"""Recognise a network by the names and shapes of its state dict, whoever saved it.

The table :data:`LAYOUTS` is filled by :mod:`.known_layouts`: one function per network, which reads the constructor's settings
off the shapes. What it finds is always verified: the network planned with these settings has the very same names and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..checkpoints.files import shape_problems
from ..errors import InputError
from .build import plan_arch

#: First parts of names that projects of this field put before a whole network's, or before one network of several.
_PREFIXES = ('module', '_orig_mod', 'generator_ema', 'generator', 'net_g_ema', 'net_g', 'netG', 'model', 'net', 'network')

_MOST_ENTRIES = 1000  # of a list of modules; no network of this field has so many


class Shapes(dict[str, tuple[int, ...]]):
    """The shapes of a state dict by name. A name that is not there raises KeyError, by which a layout says that it is none."""

    @classmethod
    def of(cls, params: Mapping[str, Tensor]) -> Shapes:
        return cls({name: tuple(value.shape) for name, value in params.items()})

    def under(self, prefix: str) -> Shapes:
        """Those whose names begin with ``prefix``, without it."""
        return Shapes({name[len(prefix):]: shape for name, shape in self.items() if name.startswith(prefix)})

    def count(self, prefix: str) -> int:
        """How many different parts follow ``prefix``: the entries of a list of modules."""
        found = len({name.partition('.')[0] for name in self.under(prefix)})
        if found > _MOST_ENTRIES:
            raise ValueError(f'{prefix} has {found} entries')
        return found


@dataclass(frozen=True)
class Layout:
    """How one network is recognised.

    Args:
        type: The network's type name.
        settings: Reads constructor arguments off shapes; ``type`` among them stands for another class of the same layout.
            Raises KeyError, IndexError, ValueError or ZeroDivisionError on another network's.
        assumed: Arguments that no name or shape tells, with the values that are taken.
        window: Side of the windows by which the authors score it, in pixels; None for whole images.
    """

    type: str
    settings: Callable[[Shapes], dict[str, Any]]
    assumed: Mapping[str, Any] = field(default_factory=dict)
    window: int | None = None


@dataclass(frozen=True)
class Recognised:
    """A network found in a state dict.

    Args:
        options: ``{'type': ..., <constructor arguments>}``.
        params: The state dict with the network's own names.
        window: As in :class:`Layout`.
        notes: What a user should know: settings that had to be assumed, tensors that were left out.
    """

    options: dict[str, Any]
    params: dict[str, Tensor]
    window: int | None = None
    notes: tuple[str, ...] = ()


#: By the network's type name.
LAYOUTS: dict[str, Layout] = {}


def layout(type: str, assumed: Mapping[str, Any] | None = None, window: int | None = None) -> Callable:
    """Decorator of a function that reads a network's settings off its shapes: one more row of the table."""

    def add(settings: Callable[[Shapes], dict[str, Any]]) -> Callable[[Shapes], dict[str, Any]]:
        LAYOUTS[type] = Layout(type, settings, assumed or {}, window)
        return settings

    return add


#: What makes our state dict of one whose names are none of ours, by a name that every such dict has.
FOREIGN: dict[str, Callable[[Mapping[str, Tensor]], Recognised]] = {}


def foreign_layout(mark: str) -> Callable:
    """Decorator of a function that translates the state dicts with a tensor called ``mark``; an InputError of it says what is
    wrong with them."""

    def add(translate: Callable[[Mapping[str, Tensor]], Recognised]) -> Callable[[Mapping[str, Tensor]], Recognised]:
        FOREIGN[mark] = translate
        return translate

    return add


def recognise(params: Mapping[str, Tensor]) -> Recognised | None:
    """The network that a state dict belongs to, or None. Prefixes such as ``generator.`` are taken off where need be.

    Raises:
        InputError: If a dict under foreign names cannot be translated.
    """
    for prefix, inner in _unwrapped(params):
        for mark, translate in FOREIGN.items():
            if mark in inner:
                return translate(inner)
        found = find_layout(Shapes.of(inner))
        if found is not None:
            row, options = found
            notes = []
            others = [name for name in params if not name.startswith(prefix)]
            if others:
                notes.append(f'{len(others)} tensors beside the network ({others[0]} first) are left out')
            if assumed := assumed_in(options):
                words = ', '.join(f'{name}: {str(value).lower()}' for name, value in assumed.items())
                notes.append(f'names and shapes do not tell {words}, which is assumed; where it is otherwise, say so at the '
                             'import: stochastic-refine weights import FILE --set KEY=VALUE')
            return Recognised(options, inner, row.window, tuple(notes))
    return None


def find_layout(shapes: Shapes) -> tuple[Layout, dict[str, Any]] | None:
    """The row of the table that fits exactly, and the network's options; None if none does."""
    for row in LAYOUTS.values():
        options = _options(row, shapes)
        if options is not None and not _problems(options, shapes):
            return row, options
    return None


def assumed_in(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a recognised network, and of its parts, that were assumed; by dotted name."""
    row = LAYOUTS.get(options['type'])
    found = {name: value for name, value in (row.assumed if row else {}).items() if options.get(name, value) == value}
    for key, part in options.items():
        if isinstance(part, Mapping) and 'type' in part:
            found.update({f'{key}.{name}': value for name, value in assumed_in(part).items()})
    return found


def unrecognised(params: Mapping[str, Tensor]) -> str:
    """Words on a state dict that no layout fits: the nearest network, and the first names and shapes that differ."""
    best = (-1.0, 0)
    words = ''
    for _, inner in _unwrapped(params):
        shapes = Shapes.of(inner)
        for row in LAYOUTS.values():
            for options in filter(None, (_options(row, shapes), {'type': row.type})):
                try:
                    own = plan_arch(options).state_dict()
                except InputError:  # a part of another network, or settings without a default
                    continue
                problems = shape_problems(own, inner)
                score = (_likeness(own, inner), -sum(count for count, _ in problems))
                if score > best:
                    settings = ', '.join(f'{key} {value}' for key, value in options.items() if key != 'type')
                    best, words = score, (f"{row.type}{f' ({settings})' if settings else ''}, from which it differs: "
                                          f"{'; '.join(text for _, text in problems)}")
    return f'the nearest is {words}'


def _likeness(own: Mapping[str, Tensor], params: Mapping[str, Tensor]) -> float:
    """How alike two sets of names are, 0 to 1: as a whole, and a little by their ends, numbers aside in both."""

    def overlap(last: int | None) -> float:
        one, other = ({tuple(re.sub(r'\d+', '#', name).split('.')[last and -last:]) for name in names}
                      for names in (own, params))
        return len(one & other) / max(len(one | other), 1)

    return overlap(None) + 0.1 * overlap(3) + 0.01 * overlap(2)


def _unwrapped(params: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The state dict as it is, and what lies in it under names' usual first parts: (what was taken off, the rest)."""
    waiting = [('', dict(params))]
    while waiting:
        before, inner = waiting.pop(0)
        yield before, inner
        heads = {name.partition('.')[0] for name in inner}
        for head in _PREFIXES:
            if head in heads and before.count('.') < 4:
                rest = {name[len(head) + 1:]: value for name, value in inner.items() if name.startswith(f'{head}.')}
                if rest:
                    waiting.append((f'{before}{head}.', rest))


def _options(row: Layout, shapes: Shapes) -> dict[str, Any] | None:
    try:
        return {'type': row.type, **row.settings(shapes)}
    except (KeyError, IndexError, ValueError, ZeroDivisionError):  # an InputError is a ValueError
        return None


def _problems(options: dict[str, Any], shapes: Shapes) -> bool:
    try:
        own = plan_arch(options).state_dict()
    except InputError:
        return True
    return Shapes.of(own) != shapes

