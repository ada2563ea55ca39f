"""Arguments as they are given: NumPy's numbers are taken as Python's own, what only looks like one is not.

Each function gives None for what is not of its kind; whoever asks says where, what was given and what is accepted.
"""

from __future__ import annotations

import math
import numbers
import operator
from typing import Any

#: what cores load and store, as NumPy calls it
DTYPES = ("float32", "int32", "uint32", "int16", "uint16", "int8", "uint8")


def whole(value: Any) -> int | None:
    """A whole number. True, 4.0 and '4' are none."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    try:
        return operator.index(value)
    except TypeError:  # an array, or NumPy's own bool
        return None


def real(value: Any) -> float | None:
    """A real number, which may be infinite or NaN. True and '4' are none."""
    if getattr(value, "shape", None) == ():  # NumPy's, also an array without dimensions
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    try:
        return float(value)
    except OverflowError:  # beyond the range of floats
        return math.inf


def flag(value: Any) -> bool | None:
    """True or False."""
    if getattr(value, "shape", None) == ():
        value = value.item()
    return value if isinstance(value, bool) else None


def text(value: Any) -> str | None:
    """A text."""
    return value if isinstance(value, str) else None
