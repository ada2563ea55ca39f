"""The fastest way to run one step of one layer, proven within its space.

What counts is the simulated cycles with no start skew; but a single count carries phase luck: of the autoencoder's
candidates half spread over the skews by less than 0.6 %, nine tenths by less than 1.7 %. So of the candidates that are
CLOSE to the least count, the one wins whose mean over fixed start skews is least. The search takes what has the least
lower bound and looks closer, until nothing is left that may be close. Bounds, each dearer and closer than the one
before: of a tile, from its sizes; of a shape, with everything moved and allocated, and the calls that are the same for
all kernels; of a candidate, with its kernel's instructions; with its calls, as long as each takes by itself; of its
compiled schedule in which nothing is ever in the way (`trainlib.timing.Relaxed`); and how far behind that bound a
simulation is, which stops as soon as it is too far.

Where cores share FPUs, bounds are far below (10 to 20 %, whatever the candidate): how two cores meet at one FPU hangs
on everything, and a delay may help. There the search trusts what is expected of a schedule (`Meter.promise`) as if it
were a bound, goes first by what a kernel's promises exceeded its bounds by so far, compiles UNPROVEN_CANDIDATES at
most, and calls its winner not proven. Likewise where it is told how many candidates it may compile, for spaces that
are too large to be proven in the time one has: these are then the ones with the least bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from math import inf

import msgspec

from autotuner.measure import SKEWS, Meter, schedule_key
from autotuner.space import Footprint, Footprints, each_busy_cycles, kernels, shapes, tile_bounds, tile_bytes, tiles
from pulpsim.errors import ProgramError, TrapError
from trainlib.errors import L1Error, ModelError
from trainlib.kernels import Call
from trainlib.lowering.memory_map import l1_available, l1_ranges
from trainlib.lowering.operations import Schedule
from trainlib.lowering.schedule import compile_step
from trainlib.model import Model
from trainlib.plan import LayerStep, Vectors

#: a count is close to another one that is less by at most one part in so many
CLOSE = 100
#: how many runners-up are named, and how many of them at most were close
RUNNERS_UP, CLOSE_RUNNERS_UP = 20, 8
#: candidates that are compiled where nothing can be proven
UNPROVEN_CANDIDATES = 1500
#: of the compiled schedules of shapes that are kept, together
MOST_OPERATIONS = 50_000
#: after how many tiles what looks best so far is counted, to exclude more
LOOK_AHEAD = 16
#: how far something on the heap has been looked at
TILE, SHAPE, CANDIDATE, CALLS, SCHEDULE = range(5)


class Found(msgspec.Struct, frozen=True, tag="found", omit_defaults=True):
    """The best candidate and what it took to find it.

    cycles: for each of SKEWS; first_cycles: likewise, of the candidate that the search began with. least: the least
    count without a skew of any candidate. bound: what the winner takes at least, were no access ever to wait;
    floor: what the calls of any candidate do. space: candidates there are; simulated, reused: points measured, and
    taken from those known; pruned: candidates never simulated; too_large: those looked at that do not fit L1; compiled:
    those that bounds before that did not exclude; close: those within a hundredth of the least count, among which the
    mean decides. proven: nothing in the space is faster; False where FPUs are shared, or candidates were limited.
    runners_up: those that came closest, and those with the least bounds before they were compiled, for whoever puts
    steps together.
    """

    step: LayerStep
    cycles: tuple[int, ...]
    first_cycles: tuple[int, ...]
    least: int
    bound: int
    floor: int
    space: int
    simulated: int
    reused: int
    pruned: int
    too_large: int
    compiled: int
    close: int
    proven: bool
    runners_up: tuple[LayerStep, ...] = ()

    @property
    def mean(self) -> float:
        return sum(self.cycles) / len(SKEWS)

    @property
    def first_mean(self) -> float:
        """0 if the search began with nothing."""
        return sum(self.first_cycles) / len(SKEWS)

    @property
    def close_steps(self) -> tuple[LayerStep, ...]:
        """The best one, and of the runners-up those that were close to it."""
        return (self.step, *self.runners_up[: min(self.close, CLOSE_RUNNERS_UP) - 1])

    def again(self) -> Found:
        """As it is when it is known from another time: all its points are reused."""
        return msgspec.structs.replace(self, simulated=0, reused=self.simulated + self.reused)


class Infeasible(msgspec.Struct, frozen=True, tag="infeasible"):
    """Nothing in the space runs: why, and what would have to be.

    needed_bytes: of L1, the least that some candidate needs, where that is what is missing.
    """

    layer: str
    step: str
    reason: str
    needed_bytes: int = 0

    def __str__(self) -> str:
        return f"{self.layer} {self.step} {self.reason}"


Outcome = Found | Infeasible
#: a layer's index and a step
Job = tuple[int, str]


@dataclass(order=True)
class _Item:
    """Something on the heap: the least count without a skew, and its place in the space.

    sure: the same before it was put off. known: of its shape.
    """

    bound: int
    place: tuple[int, ...]
    level: int = field(compare=False)
    step: LayerStep = field(compare=False)
    known: Footprint | None = field(compare=False, default=None)
    schedule: Schedule | None = field(compare=False, default=None)
    sure: int = field(compare=False, init=False)

    def __post_init__(self) -> None:
        self.sure = self.bound


@dataclass
class _Counted:
    """A candidate that was simulated without a skew. cycles: of SKEWS, so far; bound: what each takes at least.

    The one before another has the lesser total.
    """

    place: tuple[int, ...]
    step: LayerStep
    schedule: Schedule
    bound: int
    cycles: tuple[int, ...]

    @property
    def total(self) -> tuple[int, tuple[int, ...]]:
        """What the sum over all skews is at least, and the place in the space, where the first of equals wins."""
        return sum(self.cycles) + (len(SKEWS) - len(self.cycles)) * self.bound, self.place

    def __lt__(self, other: _Counted) -> bool:
        return self.total < other.total


class _Search:
    """One search under way: how each kind of item is looked at more closely."""

    def __init__(
        self, model: Model, index: int, step: str, meter: Meter, allowed: Sequence[str], prune: bool, vectors: Vectors,
        most: int,
    ):  # fmt: skip
        self.model, self.index, self.platform, self.meter = model, index, meter.platform, meter
        self.vectors, self.guesses = vectors, prune and not meter.platform.fpus_are_private
        self.most = most or (UNPROVEN_CANDIDATES if self.guesses else 0)
        every = kernels(model, index, step)
        self.kernels = [chosen for chosen in every if not allowed or chosen.get("kernel", allowed[0]) in allowed]
        self.room = l1_available(self.platform)
        self.gap = max(high - low for low, high in l1_ranges(self.platform))
        self.too_large = self.compiled = 0
        self.fault = ""
        self.prune, self.close = prune, list[_Counted]()
        self.least: int | None = None  # count so far
        self.limit: int | None = None  # the highest count that is close to it
        self.keys: dict[bytes, LayerStep] = {}
        self.footprints = Footprints(model, index, self.platform, vectors)
        self.compiled_shapes: dict[tuple[object, ...], Schedule] = {}
        self.kept_operations = 0
        self.excess: dict[tuple[str, int], float] = {}
        self.tiles_seen, self.looked_at = 0, set[LayerStep]()

    def is_above(self, bound: int) -> bool:
        """Whether what takes so much at least is sure not to be close."""
        return self.prune and self.limit is not None and bound > self.limit

    def excludes(self, item: _Item) -> bool:
        """Whether it is sure not to be close."""
        return self.is_above(item.sure)

    def count(self, one: _Counted) -> None:
        """Keep it, if it is close."""
        self.lower(one.cycles[0])
        if self.limit is None or one.cycles[0] <= self.limit:
            self.close.append(one)

    def lower(self, cycles: int) -> None:
        """What something takes: the least count and the limit, if it is less; what is no longer close is given up."""
        if self.least is None or cycles < self.least:
            self.least, self.limit = cycles, cycles + cycles // CLOSE
            self.close = [other for other in self.close if other.cycles[0] <= self.limit]

    def put_off(self, item: _Item) -> bool:
        """Raise the bound of what is not compiled yet by what promises have exceeded bounds so far, of its kernel.

        Of the kernel for which that is least while an item stands for all. False if its bound is as high.
        """
        if not self.guesses or item.level == SCHEDULE or not self.excess:
            return False
        own = self.excess.get(_kernel(item.step), 1.0)
        bound = int(item.sure * (own if item.level == CANDIDATE else min(self.excess.values())))
        if bound <= item.bound:
            return False
        item.bound = bound
        return True

    def gives_up(self, item: _Item) -> bool:
        """Whether `item` is one candidate more than may be compiled."""
        return bool(self.most) and item.level == CANDIDATE and self.compiled >= self.most

    def look_ahead(self, heap: Sequence[_Item]) -> None:
        """Every so many tiles, count the shape with the least bound, with its best kernel, for the limit alone.

        It stays on the heap, to be counted again, at no cost, when it is its turn. Not where that may never come.
        """
        self.tiles_seen += 1
        if self.tiles_seen % LOOK_AHEAD or self.most or not self.prune:
            return
        shape = min((item for item in heap if item.level == SHAPE), default=None)
        if shape is None or shape.step in self.looked_at:
            return
        self.looked_at.add(shape.step)
        with suppress(L1Error, ModelError, ProgramError):
            schedule = self._compile(min(self._candidates(shape)).step)
            if not self.is_above(self.meter.promise(schedule)):
                self.lower(self.meter.cycles(schedule, 0, self.limit))

    def closer(self, item: _Item) -> list[_Item]:
        """What takes an item's place: what it consists of, or itself, with a closer bound; nothing if it cannot be, or
        has been counted."""
        return (self._shapes, self._candidates, self._called, self._compiled, self._simulated)[item.level](item)

    def _compile(self, step: LayerStep) -> Schedule:
        """With the help of what was compiled of the same shape before."""
        shape = step.tile, step.buffering, step.resident, step.relu
        like = self.compiled_shapes.get(shape)
        schedule = compile_step(self.model, self.index, step, self.platform, self.vectors, like)
        self.kept_operations += 0 if like else len(schedule.operations)
        self.compiled_shapes.pop(shape, None)
        self.compiled_shapes[shape] = like or schedule
        while self.kept_operations > MOST_OPERATIONS and len(self.compiled_shapes) > 1:
            oldest = self.compiled_shapes.pop(next(iter(self.compiled_shapes)))  # not used for longest
            self.kept_operations -= len(oldest.operations)
        return schedule

    def _shapes(self, item: _Item) -> list[_Item]:
        """No shape of a tile has fewer calls than the first, nor is one with single buffering, or a ReLU in a pass of
        its own, bound by less than the one without: where that is too much, it is not cut."""
        found, calls, given_up = list[_Item](), 0, set[LayerStep]()
        for number, shape in enumerate(shapes(self.model, self.index, item.step)):
            simplest = replace(shape, buffering="double", relu="fused")
            if simplest in given_up or self.is_above(calls + min(self._busy(shape))):
                continue
            known = self.footprints.of(replace(shape, **self.kernels[0]), self._call_cycles, self._may_win(shape))
            busy, calls = min(self._busy(shape, known.beside)), calls or known.forks
            bound = max(item.sure, known.bound_cycles(busy))
            if self.is_above(bound):
                given_up.add(shape)
            elif self._fits(shape, known):
                found.append(_Item(bound, (*item.place, number), SHAPE, shape, known))
            else:
                self.too_large += len(self.kernels)
        return found

    def _call_cycles(self, call: Call) -> int:
        """At least; 0 where it cannot run: why is said where all of the schedule is compiled."""
        try:
            return self.meter.call_cycles(call)
        except (ProgramError, TrapError):  # a kernel that the platform lacks, operands that L1 does not hold
            return 0

    def _busy(self, shape: LayerStep, beside: int = 0) -> list[int]:
        """Of each kernel."""
        return each_busy_cycles(self.model, self.index, shape, self.platform, self.kernels, beside)

    def _may_win(self, shape: LayerStep) -> Callable[[Footprint], bool]:
        return lambda known: not self.is_above(known.bound_cycles(min(self._busy(shape))))

    def _fits(self, shape: LayerStep, known: Footprint) -> bool:
        """Compiled if that alone can tell: buffers that do not live at once share their place."""
        needed = known.at_once
        if needed <= self.room and known.bytes > self.gap:
            try:
                self._compile(replace(shape, **self.kernels[0]))
            except L1Error as error:
                needed = max(error.needed_bytes, self.room + 1)
        return needed <= self.room

    def _candidates(self, item: _Item) -> list[_Item]:
        known, found = item.known, []
        assert known is not None
        busy = self._busy(item.step, known.beside)
        for number, (chosen, cycles) in enumerate(zip(self.kernels, busy, strict=True)):
            bound = max(item.sure, known.bound_cycles(cycles))
            found.append(_Item(bound, (*item.place, number), CANDIDATE, replace(item.step, **chosen), known))
        return found

    def _called(self, item: _Item) -> list[_Item]:
        """Compiled at once where the number of these is limited, or all are."""
        if self.most or not self.prune:
            return self._compiled(item)
        assert item.known is not None
        busy = self.footprints.busy_cycles(item.step, self._call_cycles)
        bound = max(item.sure, item.known.bound_cycles(busy))
        return [_Item(bound, item.place, CALLS, item.step)]

    def _compiled(self, item: _Item) -> list[_Item]:
        """None if it cannot run, or is another one under a second name."""
        try:
            schedule = self._compile(item.step)
            bound = max(self.meter.promise(schedule), item.sure)
        except (L1Error, ModelError, ProgramError) as error:
            self.fault = str(error)
            return []
        key = schedule_key(schedule, self.platform)
        if self.keys.setdefault(key, item.step) != item.step:
            return []
        self.compiled += 1
        kernel = _kernel(item.step)
        if item.sure:
            self.excess[kernel] = min(bound / item.sure, self.excess.get(kernel, inf))
        return [_Item(bound, item.place, SCHEDULE, item.step, None, schedule)]

    def _simulated(self, item: _Item) -> list[_Item]:
        """Counted without a skew, if it is close to the least so far."""
        assert item.schedule is not None
        cycles = self.meter.cycles(item.schedule, 0, self.limit if self.prune else None)
        self.count(_Counted(item.place, item.step, item.schedule, item.bound, (cycles,)))
        return []

    def measure(self, step: LayerStep, place: tuple[int, ...]) -> tuple[int, ...]:
        """The cycles of a candidate with all skews; none if it cannot run."""
        for item in self._compiled(_Item(0, place, CANDIDATE, step)):
            assert item.schedule is not None
            cycles = self.meter.all_cycles(item.schedule)
            self.count(_Counted(place, step, item.schedule, item.bound, cycles))
            return cycles
        return ()

    def best(self) -> _Counted | None:
        """Of those that are close, the one with the least mean: always that is counted further which may have it."""
        while self.close:
            best = min(self.close)
            if len(best.cycles) == len(SKEWS):
                return best
            best.cycles += (self.meter.cycles(best.schedule, len(best.cycles)),)
        return None

    def infeasible(self, smallest: LayerStep) -> Infeasible:
        """smallest: the tile that needs the least."""
        name, step = self.model.layers[self.index].name, smallest.step
        if self.fault:
            return Infeasible(name, step, f"cannot run on {self.platform.name}: {self.fault}")
        least = min(self._needed(shape) for shape in shapes(self.model, self.index, smallest))
        reason = (
            f"needs {least:,} bytes of L1 with its smallest tile, {self.room:,} are available beside the "
            f"stacks (l1.size_bytes = {self.platform.l1.size_bytes:,})"
        )
        return Infeasible(name, step, reason, least)

    def _needed(self, shape: LayerStep) -> int:
        """Bytes of L1 that a shape which does not fit needs at once."""
        try:
            self._compile(replace(shape, **self.kernels[0]))
        except L1Error as error:
            return error.needed_bytes
        return self.room


def _kernel(step: LayerStep) -> tuple[str, int]:
    return step.kernel, step.unroll


def search(
    model: Model,
    index: int,
    step: str,
    meter: Meter,
    first: Iterable[LayerStep] = (),
    allowed: Sequence[str] = (),
    prune: bool = True,
    vectors: Vectors = "resident",
    most: int = 0,
) -> Found | Infeasible:
    """The best candidate for a step of layer `index`: the first in the space of equals.

    first: candidates to begin with, which need not be in the space. allowed: names of kernels (default: all).
    prune=False simulates all that fits, for tests. vectors: as in `Plan`. most: candidates that are compiled, beside
    `first`; 0 for as many as it takes.
    """
    s, before = _Search(model, index, step, meter, allowed, prune, vectors, most), (meter.simulated, meter.reused)
    if not s.kernels:
        return Infeasible(model.layers[index].name, step, f"has none of the kernels allowed: {', '.join(allowed)}")
    known = [s.measure(candidate, (-1, number)) for number, candidate in enumerate(first)]
    begun, s.compiled, limited = next(filter(None, known), ()), 0, False
    heap, space, floor = list[_Item](), 0, 0
    simulated, runners_up = {one.step for one in s.close}, list[LayerStep]()
    for number, tile in enumerate(tiles(model, index, step)):
        count = len(s.kernels) * sum(1 for _ in shapes(model, index, tile))
        space += count
        if tile_bytes(model, index, tile, vectors) > s.room:
            s.too_large += count
            continue
        bound, calls = tile_bounds(model, index, tile, meter.platform)
        floor = min(floor, calls) if heap else calls
        heap.append(_Item(bound, (number,), TILE, tile))
    heapify(heap)
    while heap:
        item = heappop(heap)
        if s.excludes(item):
            continue
        if s.put_off(item):
            heappush(heap, item)
            continue
        if s.gives_up(item):
            limited = True
            heap = [item for item in heap if item.level == SCHEDULE]
            heapify(heap)
            continue
        if item.level == SCHEDULE:
            simulated.add(item.step)
        elif item.level == CANDIDATE and len(runners_up) < RUNNERS_UP:
            runners_up.append(item.step)
        limit = s.limit
        for closer in s.closer(item):
            if not s.excludes(closer):
                heappush(heap, closer)
        if item.level == TILE:
            s.look_ahead(heap)
        if s.limit != limit:  # compiled schedules are large
            heap = [item for item in heap if not s.excludes(item)]
            heapify(heap)
    least, best = s.least, s.best()
    if best is None or least is None:
        return s.infeasible(tile)
    pruned, close = space - len(simulated) - s.too_large, list(dict.fromkeys(one.step for one in sorted(s.close)))
    others = dict.fromkeys(step for step in (*close[:CLOSE_RUNNERS_UP], *runners_up) if step != best.step)
    return Found(
        best.step, best.cycles, begun, least, meter.least(best.schedule), floor, space,
        meter.simulated - before[0], meter.reused - before[1], max(pruned, 0), s.too_large, s.compiled, len(close),
        not (s.guesses or limited), tuple(others)[:RUNNERS_UP],
    )  # fmt: skip
