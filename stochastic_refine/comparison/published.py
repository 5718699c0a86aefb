"""Published figures, read from ``published.yml`` beside this file."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..values import nearest
from .columns import Score
from .tables import Row

#: Evaluation protocols with published rows; the table is called like the protocol.
PROTOCOLS = ('gopro', 'hide')


def published_rows(protocol: str) -> list[Row]:
    """The rows printed beside those measured under ``protocol``, with their published decimals; [] if there are none."""
    if protocol not in PROTOCOLS:
        return []
    table = _tables()[protocol]
    return [
        Row(name, {key: Score(float(value), decimals=table['decimals'][key]) for key, value in scores.items()}, published=True)
        for name, scores in table['rows'].items()
    ]


def published_table(name: str) -> dict[str, Any]:
    """One table as in the file: ``source``, ``decimals`` and ``rows``.

    Args:
        name: ``gopro``, ``hide``, ``human_preference``, ``predictor_ablation``, ``residual_entropy``, ``deblurdiff_ablation``
            or ``deblurdiff_cost``.

    Raises:
        InputError: If there is no such table.
    """
    if name not in _tables():
        raise InputError(f"There is no published table '{name}'; {nearest(name, _tables())}")
    return copy.deepcopy(_tables()[name])


@cache
def _tables() -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise InputError('Published figures are read with PyYAML, which is not installed; run: pip install pyyaml.') from error
    content = yaml.safe_load(Path(__file__).with_name('published.yml').read_text(encoding='utf-8'))
    return {name: table for name, table in content.items() if 'rows' in table}
