"""Files that an earlier run left: what is damaged, or of another make, counts as not there and is made again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_json(file: Path, fits: Callable[[Any], bool]) -> Any | None:
    """The content of a JSON file, or None if it cannot be read or ``fits`` says no."""
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError):
        return None
    return content if fits(content) else None


def read_arrays(file: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays of an ``.npz``, or that of an ``.npy`` as ``array``; None if it cannot be read."""
    try:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {'array': content}
        with content:
            return dict(content)
    except Exception:  # damaged archives and headers make NumPy raise many kinds
        return None


def as_numbers(values: Mapping[str, float | str | None]) -> dict[str, float]:
    """Scores from strict JSON, as :func:`~stochastic_refine.files.write_json` writes it: NaN is null, infinities are text."""
    return {key: math.nan if value is None else float(value) for key, value in values.items()}


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def are_numbers(value: Any) -> bool:
    """Whether it is a dict of numbers, as :func:`as_numbers` takes them."""
    return isinstance(value, dict) and all(is_number(item) or item in (None, 'inf', '-inf') for item in value.values())
