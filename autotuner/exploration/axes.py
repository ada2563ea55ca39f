"""Axes of an exploration: what each may be called, the values it takes, and the points they span, in a fixed order.

An axis is a key of platforms ("cluster.cores") or of networks and trainers. Its values are given as

    8                                          one value, fixed
    [1, 2, 4, 8]                               a list
    {from = "32K", to = "256K", times = 2}     a range, both ends among it; step = "32K" goes by equal steps
    "cluster.cores"                            the name of another axis: always its value
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice, product
from math import prod
from typing import Any

from autotuner.exploration.errors import SpecError
from autotuner.points import key_of
from pulpsim import Platform
from pulpsim.arguments import real, text, whole
from pulpsim.errors import PlatformError, nearest
from pulpsim.platform import flattened, parse_overrides

#: of an axis at a point; two numbers for a figure of power
Value = int | float | str | tuple[float, float]
#: the values of all axes, by name
Point = Mapping[str, Value]

#: axes that are no keys of platforms, with what each is
OWN = {
    "platform": "a preset's name, or a TOML file",
    "model": "the name of a shipped network, or the file of one",
    "width": "what the numbers of channels and features between input and output are multiplied by",
    "trained": "layers that are trained: all, biases, last:N, or names with commas between",
    "optimizer": "sgd, momentum, adam or adamw",
    "batch": "samples whose gradients are added up before the parameters change",
}
#: of these, those whose values are texts
TEXTS = ("platform", "model", "trained", "optimizer")
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
#: values of a range, combinations of all values, and points that are looked at
MOST_VALUES, MOST_COMBINATIONS, MOST_POINTS = 1000, 1_000_000, 4096
RANGE = ("from", "to", "step", "times")
#: keys of platforms that are for people
_TOLD = ("name", "description")


@dataclass(frozen=True)
class Axis:
    """values: in the order given. like: the axis whose value this one always has; it has none of its own then."""

    name: str
    values: tuple[Value, ...] = ()
    like: str = ""


@cache
def names() -> tuple[str, ...]:
    """All that an axis may be called."""
    presets = (flattened(Platform.preset(name).to_dict()) for name in Platform.presets())
    keys = dict.fromkeys(key for preset in presets for key in preset if key not in _TOLD)
    return (*OWN, *keys)


# -- reading -----------------------------------------------------------------------------------
def axes_of(given: Mapping[str, Any], where: str) -> tuple[Axis, ...]:
    """The axes of a table, which may be nested by the parts of their names. where: how messages begin. Raises
    SpecError."""
    flat = dict(_flat(given, ""))
    axes = tuple(_axis(name, value, flat, where) for name, value in flat.items())
    for axis in axes:
        if axis.like and not any(other.name == axis.like and not other.like for other in axes):
            raise SpecError(f"{where}{axis.name} = {axis.like!r}: {axis.like} has no values of its own to be taken")
    return axes


def _flat(given: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Nested tables -> (dotted name, value); a range stays a table."""
    for name, value in given.items():
        if isinstance(value, Mapping) and prefix + name not in names():
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _axis(name: str, given: Any, others: Mapping[str, Any], where: str) -> Axis:
    if name not in names():
        raise SpecError(f"{where}no axis {name!r}{nearest(name, names())}; axes: {', '.join(OWN)}, or a platform's key")
    if isinstance(given, str) and given in others and given != name:
        return Axis(name, like=given)
    where = f"{where}{name}"
    if isinstance(given, Mapping):
        return Axis(name, _range(name, given, where))
    listed = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not listed:
        raise SpecError(f"{where} = []: must be at least one value")
    values = tuple(value_of(name, value, where) for value in listed)
    if len(set(values)) < len(values):
        raise SpecError(f"{where} = {given!r}: a value stands there twice")
    return Axis(name, values)


def value_of(name: str, given: Any, where: str) -> Value:
    """A value of an axis as a Python object of the axis' own type. Raises SpecError."""
    if (check := _CHECKS.get(name)) is not None:
        found, accepted = check(given)
    else:
        try:
            word = str(given).lower() if isinstance(given, bool) else str(given)
            return parse_overrides([f"{name}={word}"])[name]
        except PlatformError as error:
            raise SpecError(f"{where}: {str(error).removeprefix('--set ')}") from None
    if found is None:
        raise SpecError(f"{where} = {given!r}{nearest(given, OPTIMIZERS)}: must be {accepted}")
    return found


def _name(given: Any) -> tuple[Value | None, str]:
    return text(given) or None, "a text"


def _positive(given: Any) -> tuple[Value | None, str]:
    number = real(given)
    return (number if number is not None and 0 < number <= 64 else None), "a number above 0, at most 64"


def _optimizer(given: Any) -> tuple[Value | None, str]:
    return (given if text(given) in OPTIMIZERS else None), f"one of {', '.join(OPTIMIZERS)}"


def _samples(given: Any) -> tuple[Value | None, str]:
    number = whole(given)
    return (number if number is not None and number >= 1 else None), "a whole number of samples, at least 1"


_CHECKS: Mapping[str, Callable[[Any], tuple[Value | None, str]]] = {
    "platform": _name, "model": _name, "trained": _name, "width": _positive, "optimizer": _optimizer,
    "batch": _samples,
}  # fmt: skip


def _range(name: str, given: Mapping[str, Any], where: str) -> tuple[Value, ...]:
    """From one end to the other, by equal steps or equal factors."""
    accepted = "must be {from, to, step} or {from, to, times}"
    for word in given:
        if word not in RANGE:
            raise SpecError(f"{where}: no {word!r} in a range{nearest(word, RANGE)}: {accepted}")
    if not {"from", "to"} <= given.keys() or ("step" in given) == ("times" in given):
        raise SpecError(f"{where} = {dict(given)}: {accepted}")
    first, last = (value_of(name, given[end], f"{where}: {end}") for end in ("from", "to"))
    if not isinstance(first, int | float) or not isinstance(last, int | float) or isinstance(first, bool):
        raise SpecError(f"{where} = {dict(given)}: values that are no numbers have no range: give a list")
    times = real(given["times"]) if "times" in given else 1.0
    step = value_of(name, given["step"], f"{where}: step") if "step" in given else 0
    if not isinstance(step, int | float) or times is None or times < 1 or (times == 1 and step <= 0):
        raise SpecError(f"{where} = {dict(given)}: step must be above 0, times above 1")
    values = list(islice(_between(first, last, step, times), MOST_VALUES + 1))
    if not 1 <= len(values) <= MOST_VALUES:
        raise SpecError(f"{where} = {dict(given)}: {len(values):,} values: must be 1 to {MOST_VALUES:,}")
    return tuple(values)


def _between(first: float, last: float, step: float, times: float) -> Iterator[int | float]:
    """Of whole numbers each is rounded, and above the one before."""
    count, value = 0, first
    while value <= last:
        yield value
        count += 1
        exact = first * times**count + step * count
        value = max(round(exact), value + 1) if isinstance(first, int) else exact


# -- points ------------------------------------------------------------------------------------
def points_of(
    axes: Sequence[Axis], keeps: Callable[[Point], bool] = lambda point: True, sample: int = 0, seed: int = 0
) -> list[Point]:
    """All combinations of values that `keeps` keeps, the last axis changing fastest.

    sample: so many of them, the same on any machine, in that order; 0: all. seed: another sample for another seed.
    Raises SpecError if there are too many.
    """
    free = [axis for axis in axes if not axis.like]
    if (count := prod(len(axis.values) for axis in free)) > MOST_COMBINATIONS:
        raise SpecError(f"{count:,} combinations of values: at most {MOST_COMBINATIONS:,} can be looked at")
    kept = [point for values in product(*(axis.values for axis in free)) if keeps(point := _point(axes, free, values))]
    if sample and sample < len(kept):
        drawn = sorted(range(len(kept)), key=lambda number: key_of(seed, number))[:sample]
        kept = [kept[number] for number in sorted(drawn)]
    if len(kept) > MOST_POINTS:
        raise SpecError(f"{len(kept):,} points: at most {MOST_POINTS:,}; sample = {MOST_POINTS} draws as many")
    return kept


def _point(axes: Sequence[Axis], free: Sequence[Axis], values: Sequence[Value]) -> Point:
    own = dict(zip((axis.name for axis in free), values, strict=True))
    return {axis.name: own[axis.like or axis.name] for axis in axes}
