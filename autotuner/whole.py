"""Whole training steps: plans put together of steps that were found one by one, then exchanged against each other.

What neighbours do to each other - transfers that overlap, L1 that is shared - is in no step's own count. So from the
best plan so far a descent tries other ways, one after the other: another candidate for a kind of step, another cut of a
backward pass into steps, vectors that stay in L1 or do not, stores that are awaited or not, other tiles of the loss. It
counts first where they differ (see `parts`), and the whole of what is fastest there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import inf

import msgspec

from autotuner.executors import Executor
from autotuner.goal import Goal, Measured
from autotuner.measure import SKEWS, Meter
from autotuner.parts import CountedParts, Exchange, PartsJob, count_parts, exchange_of
from autotuner.search import Found, Job, Outcome
from pulpsim import Platform
from pulpsim.errors import PulpsimError
from trainlib.bounds import least_bounds
from trainlib.model import Model
from trainlib.operators.layer import halvings
from trainlib.plan import LayerStep, Plan, Vectors, backward_choices, forward_steps
from trainlib.tiling import STORES, settled

#: of the plans that one exchange offers, those that are looked at further, the fastest where they differ with no skew;
#: and those that are counted as a whole, the fastest there with all skews
FASTEST, COUNTED_EXCHANGES = 4, 2
#: cycles up to which a whole step is quick to count
QUICK = 2_000_000
#: by how much a plan may be slower where it differs, with no skew and then with all, to be looked at further: shares of
#: the cycles of the whole, below 0 where it has to be faster. Where code and data come to lie is luck, which no part
#: tells: 0.1 % of a quick step, less of a longer one
QUICK_LUCK, LUCK = (1e-3, 1e-3), (3e-4, -3e-5)
#: times the cycles of the best plan, over the skews so far, at which an exchange is not looked at further: of 340 of
#: two networks that were, none became the best after it had been above that
CLEARLY = 1.001
#: where vectors are while no plan by rule fits: out of L1
NO_RULE: Vectors = "streamed"
#: times that the descent goes through all exchanges at most
PASSES = 2
#: tiles of the loss that are tried: so many halvings of all of it
LOSS_TILES = 5


class Counted(msgspec.Struct, frozen=True):
    """A plan, settled. measured: None if it cannot run, then `fault` says why; with fewer cycles than SKEWS if it is
    clearly above its rival. simulated, reused: points."""

    plan: Plan
    measured: Measured | None
    fault: str
    simulated: int
    reused: int

    @property
    def whole(self) -> Measured | None:
        """With all skews."""
        return self.measured if self.measured and len(self.measured.cycles) == len(SKEWS) else None


class Whole:
    """The best plan so far, counted as a whole. groups: all steps by those that are equal, see `tuning.jobs_of`."""

    def __init__(self, model: Model, platform: Platform, goal: Goal, groups: Mapping[Job, list[Job]], fault: str):
        self.model, self.platform, self.goal, self.fault = model, platform, goal, fault
        self._groups = groups
        self.best: Plan | None = None
        self.measured: Measured | None = None  # the best
        self.default: Measured | None = None  # the plan by rule
        self._first: Measured | None = None
        self._looked_at = set[tuple[Plan, Plan]]()  # `Exchange.what`
        self.simulated = self.reused = 0

    def begin(self, executor: Executor, rule: Plan | None, plans: Sequence[Plan]) -> None:
        every = [rule, *plans] if rule is not None else list(plans)
        counted = self._try(executor, every, ())
        if rule is not None:
            self.default = counted[0].whole

    def descend(
        self, executor: Executor, found: Mapping[Job, Outcome], rule: Plan | None, tell: Callable[[int, int], None]
    ) -> None:
        """Exchange one thing after the other as long as the whole gets better. tell: exchanges done, of how many."""
        kinds = [jobs for jobs in self._groups.values() if isinstance(found.get(jobs[0]), Found)]
        exchanges: list[Callable[[Plan], Iterator[Plan]]] = [
            *(lambda plan, jobs=jobs: self._candidates(plan, jobs, found[jobs[0]]) for jobs in kinds),
            *(lambda plan, layers=layers: self._cuts(plan, layers, found, rule) for layers in self._equal_layers()),
            self._settings,
        ]
        for turn in range(PASSES if self.best else 0):
            before = self.measured
            for number, exchange in enumerate(exchanges, start=1):
                assert self.best is not None and self.measured is not None
                self._exchange(executor, list(dict.fromkeys(exchange(self.best))))
                tell(turn * len(exchanges) + number, PASSES * len(exchanges))
            if self.measured == before:
                break

    @property
    def saved(self) -> float:
        """Cycles that the best plan takes less than the one by rule."""
        return self.default.mean - self.measured.mean if self.default and self.measured else 0.0

    # -- other ways --------------------------------------------------------------------------------
    def _candidates(self, plan: Plan, jobs: Sequence[Job], outcome: Outcome) -> Iterator[Plan]:
        """Another candidate for steps that are equal to each other."""
        assert isinstance(outcome, Found)
        names = {(self.model.layers[index].name, step) for index, step in jobs}
        own = {replace(step, layer=outcome.step.layer) for step in plan.steps if (step.layer, step.step) in names}
        is_close = self._is_long and own <= {*outcome.close_steps}
        tried = outcome.close_steps if is_close else (outcome.step, *outcome.runners_up)
        for new in tried if own else ():
            steps = (replace(new, layer=s.layer) if (s.layer, s.step) in names else s for s in plan.steps)
            yield replace(plan, steps=tuple(steps))

    def _equal_layers(self) -> list[list[int]]:
        """Layers all of whose steps are equal."""
        kinds: dict[tuple[Job, ...], list[int]] = {}
        for index in range(len(self.model.layers)):
            own = tuple(first for first, jobs in self._groups.items() if any(job[0] == index for job in jobs))
            kinds.setdefault(own, []).append(index)
        return list(kinds.values())

    def _cuts(
        self, plan: Plan, layers: Sequence[int], found: Mapping[Job, Outcome], rule: Plan | None
    ) -> Iterator[Plan]:
        """Another cut of the backward passes of equal layers into steps, of which all are known."""
        known = {(s.layer, s.step): s for s in (*(rule.steps if rule else ()), *plan.steps)}
        for (index, step), outcome in found.items():
            if isinstance(outcome, Found):
                known.setdefault((self.model.layers[index].name, step), outcome.step)
        names = {self.model.layers[index].name for index in layers}
        for choice in backward_choices(self.model, layers[0]):
            if all((name, step) in known for name in names for step in choice):
                yield _with_backward(plan, {name: [known[name, step] for step in choice] for name in names})

    def _settings(self, plan: Plan) -> Iterator[Plan]:
        """What is set for the whole plan, each for itself."""
        vectors: Vectors = "streamed" if plan.vectors == "resident" else "resident"
        yield from (replace(plan, vectors=vectors, stores=stores) for stores in STORES)
        yield from (replace(plan, stores=stores) for stores in STORES)
        yield from (replace(plan, loss_tile=tile) for tile in (0, *halvings(self.model.outputs)[1:LOSS_TILES]))

    # -- counting ----------------------------------------------------------------------------------
    def _exchange(self, executor: Executor, plans: Sequence[Plan]) -> None:
        """Count those as a whole that are fastest where they differ, and keep the best."""
        assert self.best is not None and self.measured is not None
        ways = [exchange_of(self.best, plan) for plan in plans if plan != self.best]
        if not self.goal.is_cycles:
            ways = self._fastest(executor, ways, range(1), inf)
            self._try(executor, [way.new for way in ways[:FASTEST]], ())
            return
        rival, (luck, luck_with_all) = self.measured.cycles, LUCK if self._is_long else QUICK_LUCK
        ways = [way for way in ways if way.what not in self._looked_at]  # the rest changes these too little
        ways = self._fastest(executor, ways, range(1), luck * rival[0])
        ways = self._fastest(executor, ways[:FASTEST], range(len(SKEWS)), luck_with_all * sum(rival))
        self._try(executor, [way.new for way in ways[:COUNTED_EXCHANGES]], rival)

    @property
    def _is_long(self) -> bool:
        """Whether the whole step is long, and few exchanges are to be looked at: not for goals beside cycles."""
        return self.goal.is_cycles and self.measured is not None and self.measured.mean > QUICK

    def _fastest(self, executor: Executor, ways: Sequence[Exchange], skews: range, loss: float) -> list[Exchange]:
        """Those that fit and where they differ take no more than `loss` cycles more, nor are further behind the fastest
        of them; the fastest first."""
        before = self._count_parts(executor, [(way.old, way.before, (skew,), inf) for way in ways for skew in skews])
        old = [sum(before[way.old, way.before, (skew,), inf] or 0 for skew in skews) for way in ways]
        jobs = [(way.new, way.after, tuple(skews), cycles + loss) for way, cycles in zip(ways, old, strict=True)]
        after, gains = self._count_parts(executor, jobs), dict[Exchange, int]()
        for way, cycles, job in zip(ways, old, jobs, strict=True):
            if (new := after[job]) is not None:
                gains[way] = cycles - new
                self._looked_at.add(way.what)
        least = max(-loss, max(gains.values(), default=0) - abs(loss))
        return sorted((way for way in ways if gains.get(way, -inf) >= least), key=lambda way: -gains[way])

    def _count_parts(self, executor: Executor, jobs: Sequence[PartsJob]) -> dict[PartsJob, int | None]:
        """Each of them once."""
        jobs = list(dict.fromkeys(jobs))
        every: list[CountedParts] = executor.all(count_parts, self.platform, [(self.model, *job) for job in jobs])
        for one in every:
            self.simulated, self.reused = self.simulated + one.simulated, self.reused + one.reused
        return {job: one.cycles for job, one in zip(jobs, every, strict=True)}

    def _try(self, executor: Executor, plans: Sequence[Plan], rival: tuple[int, ...]) -> list[Counted]:
        """Count plans: see `count`. Keeps the best."""
        jobs = [(self.model, plan, rival, "energy" in self.goal.names) for plan in plans]
        every: list[Counted] = executor.all(count, self.platform, jobs)
        for one in every:
            self.fault = self.fault or one.fault
            self.simulated, self.reused = self.simulated + one.simulated, self.reused + one.reused
            if (measured := one.whole) is not None and self._is_better(measured):
                self.best, self.measured = one.plan, measured
        return every

    def _is_better(self, one: Measured) -> bool:
        self._first = self._first or one
        if self.measured is None:
            return True
        cost, least = (self.goal.cost(m, self._first, self.platform) for m in (one, self.measured))
        return cost < least


def bounds_of(model: Model, platform: Platform, found: Mapping[Job, Outcome]) -> dict[str, int]:
    """Cycles that no plan in the space goes below, by resource: "calls" are those of the steps found, one after the
    other; for the others see `bounds.least_bounds`."""
    floors = {job: outcome.floor for job, outcome in found.items() if isinstance(outcome, Found)}
    calls = sum(floors.get((node.number, step), 0) for node in model.nodes for step in forward_steps(node))
    for index in range(len(model.layers)):
        choices = backward_choices(model, index)
        calls += min(sum(floors.get((index, step), 0) for step in choice) for choice in choices)
    bounds = {name: cycles for name, cycles in least_bounds(model, platform).items() if cycles}
    return bounds | {"calls": calls}


def count(meter: Meter, model: Model, plan: Plan, rival: Sequence[int] = (), energy: bool = False) -> Counted:
    """A plan's whole step, with each of SKEWS; no more of them once it is CLEARLY above `rival` for the same."""
    before, fault, measured = (meter.simulated, meter.reused), "", None
    try:
        plan, schedule = settled(model, plan, meter.platform)
        cycles = by_skew(lambda skew: meter.cycles(schedule, skew), rival)
        measured = Measured(cycles, schedule.l1_bytes, meter.microjoules(schedule) if energy else None)
    except PulpsimError as error:
        fault = str(error)
    return Counted(plan, measured, fault, meter.simulated - before[0], meter.reused - before[1])


def by_skew(cycles_of: Callable[[int], int], rival: Sequence[int]) -> tuple[int, ...]:
    """cycles_of each of SKEWS, by number; no more once they are CLEARLY above those of `rival` for the same."""
    cycles = tuple[int, ...]()
    while len(cycles) < len(SKEWS) and not (rival and sum(cycles) > CLEARLY * sum(rival[: len(cycles)])):
        cycles += (cycles_of(len(cycles)),)
    return cycles


# -- plans -----------------------------------------------------------------------------------------
def put_together(model: Model, platform: Platform, rule: Plan | None, found: Mapping[Job, Outcome]) -> list[Plan]:
    """Plans of the steps found, and of the rule's where there are none: of all layers, and of all but dense ones.

    Backward passes are cut as is fastest by the steps found, or as by rule: what is stored between their steps may be
    more than L2 has left.
    """
    plans = [_of_found(model, platform, rule, found, *ways) for ways in product((True, False), (True, False))]
    return list(dict.fromkeys(plan for plan in plans if plan is not None))


def _of_found(
    model: Model, platform: Platform, rule: Plan | None, found: Mapping[Job, Outcome], dense: bool, fastest: bool
) -> Plan | None:
    by_rule = {} if rule is None else {(step.layer, step.step): step for step in rule.steps}

    def step_of(index: int, step: str) -> LayerStep | None:
        layer, outcome = model.layers[index], found.get((index, step))
        if isinstance(outcome, Found) and (dense or not layer.DENSE):
            return outcome.step
        return by_rule.get((layer.name, step))

    def cost(index: int, choice: tuple[str, ...]) -> float:
        """Of a backward pass: by the steps found; one that is not whole is no choice."""
        outcomes = [found.get((index, step)) for step in choice]
        if any(step_of(index, step) is None for step in choice):
            return float("inf")
        return sum(outcome.mean if isinstance(outcome, Found) else 0.0 for outcome in outcomes)

    chosen = [step_of(node.number, step) for node in model.nodes for step in forward_steps(node)]
    for index in reversed(range(len(model.layers))):
        choices = backward_choices(model, index)
        known = all(isinstance(found.get((index, step)), Found) for choice in choices for step in choice)
        fixed = not known or not fastest or (not dense and model.layers[index].DENSE)
        choice = choices[0] if fixed else min(choices, key=lambda steps: cost(index, steps))
        chosen += [step_of(index, step) for step in choice]
    steps = tuple(step for step in chosen if step is not None)
    if len(steps) < len(chosen):
        return None
    loss_tile, vectors = (rule.loss_tile, rule.vectors) if rule else (0, NO_RULE)
    return Plan(model=model.name, platform=platform.name, steps=steps, loss_tile=loss_tile, vectors=vectors)


def _with_backward(plan: Plan, backward: Mapping[str, Sequence[LayerStep]]) -> Plan:
    """With other backward steps of layers that have some, by name."""
    steps, done = list[LayerStep](), set[str]()
    for step in plan.steps:
        if step.step == "fw" or step.layer not in backward:
            steps.append(step)
        elif step.layer not in done:
            done.add(step.layer)
            steps += backward[step.layer]
    return replace(plan, steps=tuple(steps))
