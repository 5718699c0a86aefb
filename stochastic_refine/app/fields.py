"""What the page's number fields may hold; gradio hands on whatever is typed, nothing at all too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class NumberField:
    """A field for a number.

    Args:
        name: For people.
        low, high: What it may hold, both included.
        whole: Whether whole numbers alone.
    """

    name: str
    low: int
    high: int
    whole: bool = False

    def number(self, value: Any) -> Any:
        """The number that was typed, a whole one as ``int``.

        Raises:
            InputError: If it is none, or out of range.
        """
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high
        if not is_number or self.whole and value != int(value):
            number, given = 'whole number' if self.whole else 'number', 'nothing' if value is None else value
            raise InputError(f'{self.name} must be a {number} from {self.low} to {self.high}, got {given}.')
        return int(value) if self.whole else value


KNOB = NumberField('Knob', 0, 1)
DOUBT = NumberField('Where the model is unsure', 0, 1)
SAMPLES = NumberField('Samples', 1, 16, whole=True)
#: Browsers' numbers are exact up to here.
SEED = NumberField('Seed of the first sample', 0, 2**53 - 1, whole=True)
