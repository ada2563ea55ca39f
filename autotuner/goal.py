"""What a plan is judged by: an objective, and what it has to keep to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import inf
from typing import Any

import msgspec

from autotuner.measure import SKEWS
from pulpsim import Platform
from pulpsim.arguments import real
from pulpsim.errors import PulpsimError, nearest
from pulpsim.platform import STACK_BYTES
from trainlib.errors import PlanError
from trainlib.lowering.memory_map import l1_available
from trainlib.model import Model
from trainlib.tiling import default_plan

#: what may be least: cycles (the mean over start skews), microjoules (the middle of their band), bytes of L1
OBJECTIVES = ("cycles", "energy", "l1")
#: units of times and sizes, as they may be written
MILLISECONDS = {"": 1.0, "ms": 1.0, "us": 1e-3, "s": 1e3}
BYTES = {"": 1.0, "b": 1.0, **dict.fromkeys(("k", "kb", "kib"), 1024.0), **dict.fromkeys(("m", "mb", "mib"), 1024.0**2)}


class GoalError(PulpsimError):
    """An objective or a constraint that cannot be."""


class Measured(msgspec.Struct, frozen=True):
    """A plan's whole step. cycles: for each of SKEWS; l1_bytes: that it uses; microjoules: None where nobody asked."""

    cycles: tuple[int, ...]
    l1_bytes: int
    microjoules: float | None = None

    @property
    def mean(self) -> float:
        return sum(self.cycles) / len(SKEWS)

    def value(self, objective: str) -> float:
        """Raises KeyError for what was not measured."""
        found = {"cycles": self.mean, "energy": self.microjoules, "l1": float(self.l1_bytes)}[objective]
        if found is None:
            raise KeyError(objective)
        return found


class Goal(msgspec.Struct, frozen=True):
    """weights: of objectives; those of several are shares of what the first plan takes. deadline_ms: of a step's time,
    0 for none. memory_bytes: of L1 beside the stacks, 0 for all there are."""

    weights: tuple[tuple[str, float], ...] = (("cycles", 1.0),)
    deadline_ms: float = 0.0
    memory_bytes: int = 0

    @classmethod
    def of(cls, objective: str = "cycles", deadline: str | float = 0, memory: str | int = 0) -> Goal:
        """objective: one of OBJECTIVES, or several with weights, "cycles=1,l1=0.5". deadline: milliseconds, or "10 ms",
        "500us", "0.2s". memory: bytes, or "48K", "1 MiB". Raises GoalError."""
        weights = tuple(_weight(part, objective) for part in str(objective).split(","))
        if len({name for name, _ in weights}) < len(weights):
            raise GoalError(f"objective = {objective!r}: names one of them twice")
        milliseconds = _amount("deadline", deadline, MILLISECONDS, "a time, such as 10ms, 500us or 0.2s")
        memory_bytes = _amount("memory", memory, BYTES, "a size, such as 48K or 49152")
        return cls(weights, milliseconds, int(memory_bytes))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.weights)

    @property
    def is_cycles(self) -> bool:
        """Nothing but cycles counts: what is clearly slower need not be measured further."""
        return self.names == ("cycles",)

    def cost(self, one: Measured, first: Measured, platform: Platform) -> tuple[float, float, float]:
        """What is to be least: cycles above the deadline; the objective; cycles, of equals. first: the first plan."""
        late = max(one.mean - self.deadline_cycles(platform), 0.0)
        if len(self.weights) == 1:
            return late, one.value(self.names[0]), one.mean
        shares = (weight * one.value(name) / max(first.value(name), 1.0) for name, weight in self.weights)
        return late, sum(shares), one.mean

    def deadline_cycles(self, platform: Platform) -> float:
        return self.deadline_ms * platform.clock_hz / 1e3 if self.deadline_ms else inf

    def within(self, platform: Platform) -> Platform:
        """The platform with as much L1 as may be used: a plan for it is one for the whole, at the same addresses.

        Raises GoalError if that is not even a row of banks.
        """
        if not self.memory_bytes or self.memory_bytes >= l1_available(platform):
            return platform
        row = 4 * platform.l1.banks
        size = (self.memory_bytes + STACK_BYTES * platform.cluster.cores) // row * row
        if size <= STACK_BYTES * platform.cluster.cores:
            raise GoalError(f"memory = {self.memory_bytes:,} bytes: must be at least {row:,}, a word in every bank")
        return platform.replace({"l1.size_bytes": size})


class Unmet(msgspec.Struct, frozen=True, tag="unmet"):
    """A constraint that no plan found keeps to. wanted, least: milliseconds or bytes. would_do: what would help."""

    constraint: str
    wanted: float
    least: float
    would_do: str

    def __str__(self) -> str:
        if self.constraint == "memory":
            return f"memory: {self.wanted:,.0f} bytes of L1 are too few: {self.least:,.0f} are needed; {self.would_do}"
        return f"deadline: no plan found takes {self.wanted:g} ms: the fastest {self.least:.4g} ms; {self.would_do}"


def fits(goal: Goal, model: Model, platform: Platform) -> bool:
    """Whether there is a plan by rule within what may be used."""
    try:
        default_plan(model, goal.within(platform))
    except (PlanError, GoalError):
        return False
    return True


def unmet_memory(goal: Goal, model: Model, platform: Platform) -> Unmet | None:
    """None if there is a plan by rule within what may be used; else what the least is that would do."""
    if not goal.memory_bytes or fits(goal, model, platform):
        return None
    low, high = goal.memory_bytes, l1_available(platform)
    if not fits(msgspec.structs.replace(goal, memory_bytes=high), model, platform):
        high *= 2
        what = f"{platform.name} has {l1_available(platform):,}: a platform with more, or a smaller network, would do"
        return Unmet("memory", goal.memory_bytes, l1_available(platform) + 1, what)
    while high - low > 64:
        middle = (low + high) // 2
        if fits(msgspec.structs.replace(goal, memory_bytes=middle), model, platform):
            high = middle
        else:
            low = middle
    return Unmet("memory", goal.memory_bytes, high, f"--memory {high} would do")


def unmet_deadline(goal: Goal, best: Measured, bound: int, platform: Platform) -> Unmet | None:
    """None if the best plan is in time. bound: cycles that no plan goes below."""
    if best.mean <= goal.deadline_cycles(platform):
        return None
    clock, least = best.mean / goal.deadline_ms / 1e3, 1e3 * bound / platform.clock_hz
    would_do = f"a clock of {clock:.4g} MHz would do"
    if least > goal.deadline_ms:
        would_do += f"; with this one no plan can, for none goes below {least:.4g} ms"
    return Unmet("deadline", goal.deadline_ms, 1e3 * best.mean / platform.clock_hz, would_do)


def _weight(part: str, whole: Any) -> tuple[str, float]:
    """Raises GoalError."""
    name, _, number = part.strip().partition("=")
    if name not in OBJECTIVES:
        known = f"{', '.join(OBJECTIVES)}, or several with weights: cycles=1,l1=0.5"
        raise GoalError(f"objective = {whole!r}: no {name!r}{nearest(name, OBJECTIVES)}; known: {known}")
    try:
        weight = float(number or 1)
    except ValueError:
        weight = -1.0
    if not 0 < weight < inf:
        raise GoalError(f"objective = {whole!r}: the weight of {name} is {number!r}: must be a number above 0")
    return name, weight


def _amount(what: str, given: str | float, units: Mapping[str, float], accepted: str) -> float:
    """0 for none. Raises GoalError."""
    number, unit = real(given), ""
    if isinstance(given, str) and (found := re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-zA-Z]*)\s*", given)):
        number, unit = float(found[1]), found[2].lower()
    if number is None or unit not in units or not 0 <= number < inf:
        raise GoalError(f"{what} = {given!r}: must be {accepted}{nearest(unit, units) if unit else ''}")
    return number * units[unit]
