"""Parts of plans: where one plan differs from another, and what it takes there.

A step overlaps with the ones beside it, and with hardly any other: of 100 exchanges in two networks, what one changed
in a part, with a step on either side, was what it changed in the whole but for 0.12 % of that at most. So exchanges are
counted in parts first, which takes a small share of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import product
from math import inf
from typing import NamedTuple

import msgspec

from autotuner.measure import Meter
from pulpsim.errors import PulpsimError
from trainlib.lowering.schedule import compile_part
from trainlib.model import Model
from trainlib.optimizers import PLAIN
from trainlib.plan import SUM, Plan
from trainlib.tiling import fits

#: steps of a plan, from the first to before the last, several times
Spans = tuple[tuple[int, int], ...]
#: what `count_parts` is given: a plan, parts of it, skews by number, a limit
PartsJob = tuple[Plan, Spans, tuple[int, ...], float]


class Exchange(NamedTuple):
    """A new plan in the place of an old one. before, after: where they differ, with a step on either side."""

    old: Plan
    new: Plan
    before: Spans
    after: Spans

    @property
    def what(self) -> tuple[Plan, Plan]:
        """The same for exchanges of the same parts of plans."""
        return _only(self.old, self.before), _only(self.new, self.after)


class CountedParts(msgspec.Struct, frozen=True):
    """Parts of a plan, together. cycles: over all skews asked for; None if the plan does not fit L1. simulated, reused:
    points."""

    cycles: int | None
    simulated: int
    reused: int


def exchange_of(old: Plan, new: Plan) -> Exchange:
    """All of both differs where they do in what every step may hang on."""
    if _common(old) != _common(new):
        return Exchange(old, new, ((0, len(old.steps)),), ((0, len(new.steps)),))
    before, after = list[tuple[int, int]](), list[tuple[int, int]]()
    for what, first, end, new_first, new_end in SequenceMatcher(None, old.steps, new.steps, False).get_opcodes():
        if what != "equal":
            _add(before, first, end, len(old.steps))
            _add(after, new_first, new_end, len(new.steps))
    return Exchange(old, new, tuple(before), tuple(after))


def _only(plan: Plan, spans: Spans) -> Plan:
    return replace(plan, steps=tuple(step for first, end in spans for step in plan.steps[first:end]))


def _common(plan: Plan) -> tuple[object, ...]:
    """What every step may hang on."""
    return plan.stores, plan.vectors, plan.loss_tile, [step.layer for step in plan.steps if step.step == SUM]


def _add(spans: list[tuple[int, int]], first: int, end: int, count: int) -> None:
    """With a step on either side, as one with the span before if they meet."""
    first, end = max(first - 1, 0), min(end + 1, count)
    if spans and first <= spans[-1][1]:
        first, _ = spans.pop()
    spans.append((first, end))


def count_parts(
    meter: Meter, model: Model, plan: Plan, spans: Spans, skews: Sequence[int], limit: float = inf
) -> CountedParts:
    """skews: by number. limit: of the cycles; once they are sure to be above, or by all that is expected, what they do
    not go below is enough, and whether the plan fits is not asked: that is as dear as a third of a simulation."""
    before, cycles = (meter.simulated, meter.reused), None
    try:
        parts = [compile_part(model, plan, meter.platform, *span) for span in spans]
        least = [meter.promise(part) for part in parts for _ in skews]
        for number, (part, skew) in enumerate(product(parts, skews)):
            if sum(least) > limit:
                break
            room = limit - sum(least) + least[number]
            least[number] = meter.cycles(part, skew, None if room == inf else int(room))
        if sum(least) > limit or fits(model, plan, meter.platform, PLAIN):
            cycles = sum(least)
    except PulpsimError:  # as its count as a whole will say, if nothing runs
        pass
    return CountedParts(cycles, meter.simulated - before[0], meter.reused - before[1])
