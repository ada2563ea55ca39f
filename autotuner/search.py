"""The fastest way to run one step of one layer, proven within its space.

Candidates are taken in the order of a quick lower bound. One whose bound is not below the best cycle count yet
cannot win: since bounds only grow from there, the search ends at the first such quick bound. All others are
bounded with everything they move and allocate, and simulated whole if that does not settle it. Those within
`FINALISTS` of the best are ranked by their mean over fixed start skews: a single count carries phase luck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from autotuner.points import Points, engine_version, key_of
from autotuner.space import Footprint, busy_cycles, candidates, footprint, quick_bound
from pulpsim import Platform
from trainlib.errors import L1Error, ModelError
from trainlib.memory_map import l1_available
from trainlib.model import Model
from trainlib.plan import LayerStep, kernels_of
from trainlib.schedule import Fork, Issue, Schedule, Wait, compile_step
from trainlib.timing import cycles_of

#: candidates this close to the best are run with every skew
FINALISTS = 1.02
#: cycles by which cores are late at every fork; the first is none
SKEWS = (
    (0,) * 16,
    (0, 1, 2, 3, 4, 5, 6, 7) * 2,
    (3, 0, 5, 1, 7, 2, 6, 4) * 2,
    (2, 7, 1, 8, 2, 8, 1, 8) * 2,
)


@dataclass(frozen=True)
class Found:
    """The best candidate and what it took to find it.

    cycles: for each of SKEWS. bound: that no candidate's schedule goes below. space: candidates there are;
    too_large: of those looked at, how many do not fit L1.
    """

    step: LayerStep
    cycles: tuple[int, ...]
    bound: int
    space: int
    simulated: int
    reused: int
    pruned: int
    too_large: int

    @property
    def mean(self) -> float:
        return sum(self.cycles) / len(self.cycles)


@dataclass(frozen=True)
class Infeasible:
    """No tile fits: the least bytes of L1 that some candidate needs, and what there are."""

    layer: str
    step: str
    needed_bytes: int
    available_bytes: int

    def __str__(self) -> str:
        return (
            f"{self.layer} {self.step} needs {self.needed_bytes:,} bytes of L1 with its smallest tile, "
            f"{self.available_bytes:,} are available"
        )


@dataclass
class _Search:
    """One search under way."""

    model: Model
    index: int
    platform: Platform
    points: Points
    simulated: int = 0
    reused: int = 0
    too_large: int = 0
    least_bytes: int = 1 << 60
    measured: dict[LayerStep, int] = field(default_factory=dict)
    _footprints: dict[LayerStep, Footprint] = field(default_factory=dict)

    def compiled(self, step: LayerStep) -> Schedule:
        """Raises L1Error, ModelError."""
        return compile_step(self.model, self.index, step, self.platform)

    def cycles(self, schedule: Schedule, skew: tuple[int, ...]) -> int:
        """Simulated, or remembered."""
        key = schedule_key(schedule, self.platform, skew)
        known = self.points.get(key)
        if known is not None:
            self.reused += 1
            return known[0]
        self.simulated += 1
        cycles = cycles_of(schedule, self.platform, skew[: self.platform.cluster.cores])
        self.points.put(key, (cycles,), " ".join(f"{phase.layer} {phase.step}" for phase in schedule.phases))
        return cycles

    def footprint(self, step: LayerStep) -> Footprint:
        """Bytes, and the bound with this step's kernel."""
        plain = replace(step, kernel=next(iter(kernels_of(self.model.layers[self.index])), ""), unroll=1)
        if step.step == "update":
            plain = replace(plain, kernel="")
        found = self._footprints.get(plain)
        if found is None:
            found = self._footprints[plain] = footprint(self.model, self.index, plain, self.platform)
        cores = self.platform.cluster.cores
        more = busy_cycles(self.model, self.index, step, cores)
        less = busy_cycles(self.model, self.index, plain, cores)
        return Footprint(found.bytes, found.transfers, found.busy - less + more)

    def fits(self, found: Footprint) -> bool:
        self.least_bytes = min(self.least_bytes, found.bytes)
        if found.bytes > l1_available(self.platform):
            self.too_large += 1
            return False
        return True

    def measure(self, step: LayerStep) -> int | None:
        """Cycles without skew; None if no place in L1 was found."""
        if step not in self.measured:
            try:
                self.measured[step] = self.cycles(self.compiled(step), SKEWS[0])
            except (L1Error, ModelError):
                self.too_large += 1
                return None
        return self.measured[step]


def schedule_key(schedule: Schedule, platform: Platform, skew: tuple[int, ...]) -> bytes:
    """What decides the cycles of a schedule: programs, arguments, transfers, machine, engine."""
    parts: list[bytes | str | int | tuple[int, ...]] = [engine_version(), repr(platform), skew]
    for operation in schedule.operations:
        if isinstance(operation, Fork):
            parts += ["fork", operation.call.program.content(), operation.call.arguments]
        elif isinstance(operation, Issue):
            c = operation.copy
            parts += ["issue", (c.outward, c.l1, c.line_bytes, c.lines, c.l1_stride, c.l2_stride)]
        elif isinstance(operation, Wait):
            parts += ["wait", operation.transfers]
    return key_of(*parts)


def search(
    model: Model,
    index: int,
    step: str,
    platform: Platform,
    points: Points,
    first: Iterable[LayerStep] = (),
    tell: Callable[[LayerStep, int], None] = lambda step, cycles: None,
    prune: bool = True,
) -> Found | Infeasible:
    """The best candidate for a step of layer `index`.

    first: candidates to begin with, which need not be in the space; the better, the sooner others are pruned.
    tell: of every new best. prune=False simulates all that fits, for tests.
    """
    s = _Search(model, index, platform, points)
    everything = sorted(
        (
            (quick_bound(model, index, c, platform), number, c)
            for number, c in enumerate(candidates(model, index, step))
        ),
        key=lambda item: item[:2],
    )
    best = 1 << 60
    for bound, _, candidate in [(0, -1, c) for c in first] + everything:
        if prune and bound >= best * FINALISTS:
            break
        known = s.footprint(candidate)
        if not s.fits(known) or (prune and known.bound_cycles >= best * FINALISTS):
            continue
        cycles = s.measure(candidate)
        if cycles is not None and cycles < best:
            best = cycles
            tell(candidate, cycles)
    if not s.measured:
        return Infeasible(model.layers[index].name, step, s.least_bytes, l1_available(platform))
    chosen, counts = _ranked(s, best)
    pruned = len(everything) - len([c for _, _, c in everything if c in s.measured]) - s.too_large
    return Found(chosen, counts, everything[0][0], len(everything), s.simulated, s.reused, max(pruned, 0), s.too_large)


def _ranked(s: _Search, best: int) -> tuple[LayerStep, tuple[int, ...]]:
    """The finalist with the least mean over the skews, the first found of equals; its counts."""
    finalists = [step for step, cycles in s.measured.items() if cycles <= best * FINALISTS]
    counts = {step: tuple(map(partial(s.cycles, s.compiled(step)), SKEWS)) for step in finalists}
    return min(counts.items(), key=lambda item: sum(item[1]))
