"""Random networks on random clusters, whose training steps must agree from every side (see `tests.trainlib.agreement`).

`cases()` draws a `Case`: a network of any layers, a platform, the default plan or any other, an optimizer, data.
`Loop` looks for differences for a given time, makes the first of each kind small and writes it as a program. A command:

    python -m tests.networks --seconds 60 --seed 7

Its sister for the machine is `python -m tests.conformance`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from time import monotonic
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from pulpsim.errors import PulpsimError
from pulpsim.platform import Platform
from tests.trainlib.agreement import MANY_TILES, DifferenceError, check, planned, raw, smallest_that_fits
from tests.trainlib.arrays import ALL_KINDS, FINITE
from tests.trainlib.networks import (
    RULES,
    Case,
    networks,
    plans,
    platform_settings,
    platforms,
    shapes,
    with_l1_for,
)
from tests.trainlib.smaller import smaller
from trainlib.errors import PlanError

MOST_LAYERS = 8
L1_KIB = (64, 8, 12, 16, 20, 24, 32, 48, 96, 128, 256)
#: beside the stacks, where L1 is to be scarce: None leaves it as it is, as for networks that would be too many tiles
ROOM_BYTES = (None, 1 << 10, 2 << 10, 4 << 10, 8 << 10)
CORES = 16
L2_KIB = 1024
#: a positive number that is zero in FP32
NOTHING = 1e-46
#: cases from one seed; and seconds for which a difference is made small
BATCH, SHRINKING = 100, 60.0


# -- cases -------------------------------------------------------------------------------------------
@st.composite
def cases(draw: st.DrawFn) -> Case:
    model, platform = draw(networks(MOST_LAYERS, shapes)), draw(platforms(CORES, L1_KIB, L2_KIB))
    room = draw(st.sampled_from(ROOM_BYTES if model.weights < MANY_TILES else ROOM_BYTES[:1]))
    rule = draw(st.sampled_from(["SGD", *RULES]))
    few_tiles = room is None and model.weights < MANY_TILES  # batches are compiled three times
    accumulate = draw(st.sampled_from([1, 1, 1, 2, 3])) if few_tiles else 1
    momentum = [0.9, 0.9, 0.999] if rule == "Nesterov" else [0.0, 0.0, 0.9, 0.9, 0.999, NOTHING]
    case = Case(
        model=model,
        plan=None,
        platform=platform if room is None else with_l1_for(platform, room),
        seed=draw(st.integers(0, 2**32 - 1)),
        lr=draw(st.sampled_from([0.05, 0.05, 0.05, 1.0, 1e-6])),
        momentum=draw(st.sampled_from(momentum)),
        weight_decay=draw(st.sampled_from([0.0, 0.0, 0.01, 0.01, NOTHING])),
        rule=rule,
        accumulate=accumulate,
        steps=draw(st.sampled_from([1, 1, 1, 2, 3] if accumulate == 1 else [1, 1, 2])),
        kinds=draw(st.sampled_from([("plain", "zeros")] * 3 + [FINITE, ALL_KINDS])),
    )
    if not draw(st.booleans()):  # the simplest one has the default plan
        return case
    case = replace(case, plan=draw(plans(model, case.platform.cluster.cores)))
    return _in_little_room(case) if draw(st.booleans()) else case


def _in_little_room(case: Case) -> Case:
    """In an L1 of just what the plan needs, where some L1 is large enough for it."""
    roomy = replace(case, platform=case.platform.replace({"l1.size_bytes": 1 << 20}))
    try:
        return roomy.tight()
    except PulpsimError:
        return case


# -- trying ------------------------------------------------------------------------------------------
@dataclass
class Tally:
    """What was run, by kind. slowest: seconds that a default plan took, and its case."""

    cases: int = 0
    layers: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    plan_seconds: list[float] = field(default_factory=list)
    slowest: Case | None = None

    def ran(self, case: Case) -> None:
        self.layers.update(type(layer).__name__ for layer in case.model.layers)
        platform = case.platform
        self.features.update(
            [
                case.model.loss, platform.name, platform.l1.arbitration, f"{case.steps} update(s)",
                f"batches of {case.accumulate}", case.rule,
                "any plan" if case.plan else "default plan", f"numbers: {' or '.join(case.kinds)}",
            ]
        )  # fmt: skip
        self.features["momentum"] += bool(case.momentum)
        self.features["weight decay"] += bool(case.weight_decay)
        self.features["autoencoder"] += case.model.target_is_input

    def planned(self, case: Case, seconds: float) -> None:
        if seconds > max(self.plan_seconds, default=0.0):
            self.slowest = case
        self.plan_seconds.append(seconds)

    def lines(self) -> list[str]:
        def shown(counts: Mapping[str, int]) -> str:
            return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))

        out = [
            f"{self.cases:,} cases, {self.cases - self.refused.total():,} run, {self.refused.total():,} refused",
            f"layers of those run: {shown(self.layers)}",
            f"of those run: {shown(self.features)}",
        ]
        out += [f"refused {count:,} times: {kind}" for kind, count in self.refused.most_common()]
        if self.slowest is not None:
            seconds = sorted(self.plan_seconds)
            total, median = sum(seconds), seconds[len(seconds) // 2]
            out.append(
                f"{len(seconds):,} default plans in {total:.1f} s, median {1e3 * median:.0f} ms, "
                f"the slowest {seconds[-1]:.2f} s: {source(self.slowest)}"
            )
        return out


def kind_of_refusal(error: PulpsimError) -> str:
    """The message's first clause without what is of the case: names and numbers."""
    text = re.sub(r"pulp-\w+|\brandom\b", "it", str(error))
    text = re.sub(r"\bl\d+( fw| ig| wg| update|\+)*", "a step", text)
    text = re.sub(r"(?<![A-Za-z\d])\d[\d,]*", "N", text)
    return f"{type(error).__name__}: {re.split(r'[;(]|: (?!a step)', text)[0].strip()}"


def attempt(case: Case, tally: Tally) -> None:
    """Check a case, or count its refusal. Raises DifferenceError, also for a refusal where a plan exists."""
    tally.cases += 1
    begin = monotonic()
    try:
        chosen = planned(case)
        if case.plan is None:
            tally.planned(case, monotonic() - begin)
        check(chosen)
    except DifferenceError:
        raise
    except PulpsimError as error:
        tally.refused[kind_of_refusal(error)] += 1
        _check_refusal(case, error)
    except Exception as error:
        raise raw("raw", error) from error
    else:
        tally.ran(case)


def _check_refusal(case: Case, error: PulpsimError) -> None:
    """The default plan is refused for want of L1 only where not even the smallest tiles fit."""
    if case.plan is None and isinstance(error, PlanError) and (plan := smallest_that_fits(case)):
        raise DifferenceError(
            f"wrong refusal, {kind_of_refusal(error)}", f"{error}\nYet this compiles:\n{source(plan)}"
        )


# -- programs ----------------------------------------------------------------------------------------
HEAD = """from pulpsim.platform import Platform
from tests.networks import Case, Tally, attempt
from trainlib.layers import *
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan, Tile
"""


def program(case: Case) -> str:
    """What runs a case again, and raises its difference."""
    return f"{HEAD}\nattempt({source(case)}, Tally())\n"


def source(value: Any, indent: str = "") -> str:
    """A value of dataclasses and tuples as Python, without what goes without saying."""
    inner = indent + "    "
    if isinstance(value, Platform):
        return f"Platform.preset({value.name!r}, {platform_settings(value)})"
    if isinstance(value, tuple) and any(is_dataclass(part) for part in value):
        parts = [source(part, inner) for part in value]
    elif is_dataclass(value):
        given = [(f, getattr(value, f.name)) for f in fields(value)]
        parts = [f"{f.name}={source(part, inner)}" for f, part in given if f.default is MISSING or part != f.default]
        if all("\n" not in part for part in parts) and sum(map(len, parts)) < 90:
            return f"{type(value).__name__}({', '.join(parts)})"
    else:
        return repr(value)
    name = "" if isinstance(value, tuple) else type(value).__name__
    return "\n".join([f"{name}(", *(f"{inner}{part}," for part in parts), f"{indent})"])


# -- the loop ----------------------------------------------------------------------------------------
def difference_of(case: Case) -> DifferenceError | None:
    try:
        attempt(case, Tally())
    except DifferenceError as difference:
        return difference
    return None


def shrink(case: Case, difference: DifferenceError, seconds: float) -> tuple[Case, DifferenceError]:
    """A case with a difference of the same kind from which nothing can be taken away, or not in so many seconds."""
    end, progress = monotonic() + seconds, True
    while progress:
        progress = False
        for candidate in smaller(case):
            if monotonic() > end:
                break
            found = difference_of(candidate)
            if found is not None and found.kind == difference.kind:
                case, difference, progress = candidate, found, True
                break
    return case, difference


class _EndError(BaseException):
    """Ends a batch; no Exception, which would be taken for a failing case."""


@dataclass
class Found:
    """A small case with a difference of some kind, and how often the kind was met."""

    case: Case
    difference: DifferenceError
    times: int = 1


class Loop:
    """Batch after batch of random cases. found: the differences by kind; tally: all that was run.

    report: told of the first difference of each kind, when it is small; others of the kind are counted only.
    """

    def __init__(self, seed: int, report: Callable[[Found], None] = lambda found: None):
        self.tally = Tally()
        self.found: dict[str, Found] = {}
        self._seed, self._report = seed, report
        self._end = 0.0

    def run(self, seconds: float) -> None:
        self._end = monotonic() + seconds
        while monotonic() < self._end:
            self._batch()
            self._seed += 1

    def _batch(self) -> None:
        @seeded(self._seed)
        @settings(
            max_examples=BATCH, database=None, derandomize=False, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=cases())
        def body(case: Case) -> None:
            self._try(case)

        with suppress(_EndError):
            body()

    def _try(self, case: Case) -> None:
        if monotonic() > self._end:
            raise _EndError
        try:
            attempt(case, self.tally)
        except DifferenceError as difference:
            if difference.kind in self.found:
                self.found[difference.kind].times += 1
                return
            self.found[difference.kind] = found = Found(*shrink(case, difference, SHRINKING))
            self._report(found)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.networks", description="Train random networks on the cluster."
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to look for differences (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the first batch of cases (default 0)")
    options = parser.parse_args(arguments)

    def report(found: Found) -> None:
        print(f"# {found.difference.kind}", *(f"# {line}" for line in found.difference.text.splitlines()), sep="\n")
        print(program(found.case), flush=True)

    loop = Loop(options.seed, report)
    loop.run(options.seconds)
    print("\n".join(loop.tally.lines()))
    for kind, found in loop.found.items():
        print(f"differs {found.times:,} times: {kind}")
    if not loop.found:
        print("no difference")
    return int(bool(loop.found))


if __name__ == "__main__":
    sys.exit(main())
