"""Constraints: "l1.size_bytes <= 128 KiB", "ms <= 10", "cluster.fpus <= cluster.cores".

A name of an axis or of a result, how they compare, and a value with its unit, or another name. Those on axes alone
decide which points there are; those on results are said of every row.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotuner.exploration.axes import TEXTS, value_of
from autotuner.exploration.errors import SpecError
from pulpsim.errors import nearest
from pulpsim.platform import UNITS as SIZES

#: numbers that a row has of a point, with what each is
RESULTS = {
    "cycles": "of a training step on one sample: the mean over the start skews, of a batch over its samples",
    "ms": "the same in milliseconds",
    "uj_low": "microjoules of a step, by the lowest figures",
    "uj_high": "microjoules of a step, by the highest figures",
    "l1_bytes": "the most that is in use of L1, beside the stacks",
    "l2_bytes": "the most that is in use of L2",
    "macs_per_cycle": "multiply-accumulates of a step by its cycles",
    "bound_cycles": "cycles that the plan's step takes at least, were nothing ever to wait",
}
#: results by a shorter name
SHORT = {"uj": "uj_high", "l1": "l1_bytes", "l2": "l2_bytes"}
#: what a number may be followed by, by how the name of what it limits ends
UNITS: Mapping[str, Mapping[str, float]] = {
    "_bytes": SIZES,
    "ms": {"": 1, "MS": 1, "US": 1e-3, "S": 1e3},
    "uj_low": {"": 1, "UJ": 1, "MJ": 1e3},
    "uj_high": {"": 1, "UJ": 1, "MJ": 1e3},
    "clock_hz": {"": 1, "HZ": 1, "KHZ": 1e3, "MHZ": 1e6},
}
#: as they are written in messages
WRITTEN = {"KIB": "KiB", "MIB": "MiB", "MS": "ms", "US": "us", "S": "s", "UJ": "uJ", "MJ": "mJ", "HZ": "Hz",
           "KHZ": "kHz", "MHZ": "MHz"}  # fmt: skip
COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_CONSTRAINT = re.compile(r"\s*([\w.]+)\s*(<=|>=|==|!=|<|>)\s*(\S.*?)\s*")
_NUMBER = re.compile(r"([+-]?[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?) ?([A-Za-z]*)")


@dataclass(frozen=True)
class Constraint:
    """text: as it was given. other: the name on the right, if `value` is none."""

    text: str
    name: str
    comparison: str
    value: Any = None
    other: str = ""

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Of a point or a row. What has no number does not hold."""
        left, right = values.get(self.name), values.get(self.other) if self.other else self.value
        return left is not None and right is not None and COMPARISONS[self.comparison](left, right)

    def is_on(self, axes: Sequence[str]) -> bool:
        """Whether these alone decide it."""
        return self.name in axes and (not self.other or self.other in axes)


def constraint_of(given: object, axes: Sequence[str], where: str) -> Constraint:
    """axes: that there are. where: how messages begin. Raises SpecError."""
    found = _CONSTRAINT.fullmatch(given) if isinstance(given, str) else None
    if not isinstance(given, str) or found is None:
        comparisons = " ".join(COMPARISONS)
        raise SpecError(f'{where}{given!r}: must be a name, one of {comparisons}, and a value, as "ms <= 10"')
    name, comparison, value = found.groups()
    name, where = known_name(name, axes, f"{where}{given!r}"), f"{where}{given!r}"
    other = SHORT.get(value, value)
    if other in axes or other in RESULTS:
        return Constraint(given, name, comparison, other=other)
    if name in TEXTS:
        if comparison not in ("==", "!="):
            raise SpecError(f"{where}: {name} is a text: must be compared with == or !=")
        return Constraint(given, name, comparison, value_of(name, value.strip("\"'"), where))
    number = _number(value, units := _units(name))
    if number is not None:
        return Constraint(given, name, comparison, number)
    if name in RESULTS or value[:1].isdigit():
        kinds = ", ".join(WRITTEN.get(unit, unit) for unit in units if unit)
        raise SpecError(f"{where}: {value!r}: must be a number{f', which {kinds} may follow' if kinds else ''}")
    return Constraint(given, name, comparison, value_of(name, value, where))


def known_name(name: str, axes: Sequence[str], where: str) -> str:
    """Of an axis there is or of a result, in full. Raises SpecError."""
    full = SHORT.get(name, name)
    known = [*axes, *RESULTS, *SHORT]
    if full not in known:
        raise SpecError(f"{where}: no {name!r}{nearest(name, known)}; axes and results: {', '.join(known)}")
    return full


def _units(name: str) -> Mapping[str, float]:
    return next((units for end, units in UNITS.items() if name.endswith(end)), {"": 1})


def _number(text: str, units: Mapping[str, float]) -> float | None:
    found = _NUMBER.fullmatch(text)
    if found is None or found[2].upper() not in units:
        return None
    return float(found[1]) * units[found[2].upper()]
