"""What a simulated training step or forward pass cost, phase by phase: made of marks that its run leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulpsim import Controller, Machine, Platform
from pulpsim.counters import Cause, Work
from pulpsim.energy import Counts, Energy, energy, total
from pulpsim.machine import Process
from pulpsim.machine.log import Log
from pulpsim.trace import Timeline
from trainlib.bounds import bounds
from trainlib.evidence import Evidence
from trainlib.lowering.operations import Schedule
from trainlib.lowering.schedule import execute
from trainlib.timeline import STEPS, TILES, draw


# -- reports ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class PhaseReport:
    """What one step of one layer cost. Bounds in cycles; causes_by_core: cycles of each core by cause.

    energy: None if there are no power figures for the platform.
    """

    layer: str
    step: str
    kernel: str
    tile: dict[str, int]
    buffering: str
    cycles: int
    macs: int
    dma_bytes_in: int
    dma_bytes_out: int
    instructions: int
    energy: Energy | None
    causes_by_core: dict[str, tuple[int, ...]]
    bounds: dict[str, int]

    @property
    def causes(self) -> dict[str, int]:
        """Cycles of all cores by cause; their sum is cycles x cores."""
        return {name: sum(cycles) for name, cycles in self.causes_by_core.items()}

    @property
    def bound(self) -> str:
        """Which resource limits the phase."""
        return max(self.bounds, key=lambda name: self.bounds[name])

    @property
    def bound_cycles(self) -> int:
        return self.bounds[self.bound]


@dataclass(frozen=True)
class Report:
    """What the cluster did; phases in order, their cycles add up to `cycles`.

    lower_bound_cycles: of the best conceivable plan; issue_bound_cycles: of this one. evidence: what it did when.
    """

    #: in words
    what: ClassVar[str]

    model: str
    platform: str
    clock_hz: int
    cores: int
    cycles: int
    macs: int
    phases: tuple[PhaseReport, ...]
    lower_bound_cycles: int
    issue_bound_cycles: int
    l1_bytes: int
    l2_bytes: int
    evidence: Evidence = field(compare=False, repr=False)

    @property
    def milliseconds(self) -> float:
        return 1e3 * self.cycles / self.clock_hz

    @property
    def macs_per_cycle(self) -> float:
        return self.macs / self.cycles

    @property
    def dma_bytes_in(self) -> int:
        return sum(phase.dma_bytes_in for phase in self.phases)

    @property
    def dma_bytes_out(self) -> int:
        return sum(phase.dma_bytes_out for phase in self.phases)

    @property
    def energy(self) -> Energy | None:
        """The sum of the phases'; None if there are no power figures for the platform."""
        return total([phase.energy for phase in self.phases])

    @property
    def causes(self) -> dict[str, int]:
        """Cycles of all cores by cause; their sum is cycles x cores."""
        return {name: sum(phase.causes[name] for phase in self.phases) for name in self.phases[0].causes}


@dataclass(frozen=True)
class StepReport(Report):
    """One timed training step. trained, frozen: the layers with parameters whose parameters it changes, and the
    others."""

    what = "training step"

    loss: float
    trained: tuple[str, ...]
    frozen: tuple[str, ...]


@dataclass(frozen=True)
class ForwardReport(Report):
    """One timed forward pass: phases "fw", and the network's outputs as it leaves them in L2."""

    what = "forward pass"

    outputs: NDArray[np.float32] = field(compare=False)


@dataclass(frozen=True)
class BatchReport:
    """The steps of a batch, in order: those that add up gradients, and the last one, which updates."""

    steps: tuple[StepReport, ...]

    @property
    def cycles(self) -> int:
        return sum(step.cycles for step in self.steps)

    @property
    def cycles_per_sample(self) -> float:
        """The mean."""
        return self.cycles / len(self.steps)

    @property
    def accumulating(self) -> StepReport:
        """A step that adds to the sums; of two samples the one that begins them."""
        return self.steps[-2 if len(self.steps) > 1 else -1]

    @property
    def updating(self) -> StepReport:
        return self.steps[-1]


# -- from a run to its report ----------------------------------------------------------------------
class Mark(NamedTuple):
    """Where a phase begins: cycle, what each core has spent, [cores, causes], and what all together have done."""

    now: int
    counters: NDArray[np.int64]
    work: NDArray[np.int64]


class Marked(NamedTuple):
    """A run: a mark as each phase began, and one at the end; what ran and moved when."""

    marks: list[Mark]
    log: Log

    @property
    def cycles(self) -> int:
        return self.marks[-1].now - self.marks[0].now

    def evidence(self, schedule: Schedule, platform: Platform) -> Evidence:
        return Evidence(schedule, self.log, tuple(mark.now for mark in self.marks), platform)


def marked_run(
    machine: Machine, schedule: Schedule, scalars: Mapping[str, np.generic] | None, timeline: Timeline | None,
    start_delays: Sequence[int] = (),
) -> Marked:  # fmt: skip
    """Run a schedule. scalars: None where values do not matter. timeline: see `trainlib.timeline`. start_delays: see
    `execute`."""
    marks: list[Mark] = []
    logs: list[Log] = []

    def controller(cluster: Controller) -> Process:
        logs.append(cluster.log)
        if timeline is not None:
            timeline.show(STEPS, TILES)

        def mark(phase: int) -> None:
            marks.append(Mark(cluster.now, cluster.counters(), cluster.work().sum(axis=0)))

        yield from execute(schedule, cluster, mark, start_delays, scalars)
        mark(-1)

    machine.simulate(controller, timeline=timeline)
    ran = Marked(marks, logs[0])
    if timeline is not None:
        draw(timeline, ran.evidence(schedule, machine.platform))
    return ran


def phases_of(schedule: Schedule, marks: list[Mark], platform: Platform) -> tuple[PhaseReport, ...]:
    """What lies between the marks of a run."""
    phases = []
    for number, (phase, (inward, outward)) in enumerate(zip(schedule.phases, schedule.bytes_moved(), strict=True)):
        begin, end = marks[number], marks[number + 1]
        by_core = end.counters - begin.counters
        spent = by_core.sum(axis=0)
        fp_operations, l1_words = (int((end.work - begin.work)[work]) for work in Work)
        cycles, instructions = end.now - begin.now, int(spent[Cause.ISSUE])
        waiting = int(spent.sum()) - instructions
        counts = Counts(cycles, instructions, waiting, fp_operations, l1_words, inward + outward)
        phases.append(
            PhaseReport(
                phase.layer,
                phase.step,
                ", ".join(phase.kernels),
                phase.tile,
                phase.buffering,
                cycles,
                phase.macs,
                inward,
                outward,
                instructions,
                energy(counts, platform),
                {cause.name.lower(): tuple(cycles) for cause, cycles in zip(Cause, by_core.T.tolist(), strict=True)},
                bounds(platform, phase.least_macs, inward, outward, instructions),
            )
        )
    return tuple(phases)


def phases_alone(schedule: Schedule, platform: Platform) -> tuple[PhaseReport, ...]:
    """Of a schedule by itself. No data are computed: no count hangs on them."""
    ran = marked_run(Machine(platform, values=False), schedule, None, None)
    return phases_of(schedule, ran.marks, platform)


def energy_of(schedule: Schedule, platform: Platform) -> Energy | None:
    """Of a schedule by itself; None if there are no power figures."""
    return total([phase.energy for phase in phases_alone(schedule, platform)])


def own_bound(phases: tuple[PhaseReport, ...], platform: Platform, least_macs: int) -> int:
    """Cycles below which nothing goes that moves and issues what these phases do."""
    inward, outward, instructions = (
        sum(getattr(phase, name) for phase in phases) for name in ("dma_bytes_in", "dma_bytes_out", "instructions")
    )
    return max(bounds(platform, least_macs, inward, outward, instructions).values())
