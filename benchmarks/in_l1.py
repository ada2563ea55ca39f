"""Training steps as the published figures count them: every call of the step, its operands in L1, no DMA.

The calls are those of the step's schedule, tile by tile and with their forks; that nothing is moved and nobody waits
is all that differs. (What L1 holds are other values then, which no cycle depends on.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pulpsim import Controller, Machine, Platform
from pulpsim.machine import Process
from trainlib.lowering.operations import Begin, Fork
from trainlib.lowering.schedule import compile_schedule, execute
from trainlib.model import Model
from trainlib.plan import Plan
from trainlib.step_report import StepReport


@dataclass(frozen=True)
class Part:
    """A step of a layer: multiply-accumulates and cycles."""

    layer: str
    step: str
    macs: int
    cycles: int


def parts_of(report: StepReport) -> list[Part]:
    """A step with everything counted, in the same terms."""
    return [Part(phase.layer, phase.step, phase.macs, phase.cycles) for phase in report.phases]


def parts_in_l1(model: Model, plan: Plan, platform: Platform) -> list[Part]:
    """The step's calls one after the other. Raises PlanError, ModelError if the plan does not fit."""
    schedule = compile_schedule(model, plan, platform)
    calls = tuple(operation for operation in schedule.operations if isinstance(operation, Begin | Fork))
    marks: list[int] = []

    def controller(cluster: Controller) -> Process:
        yield from execute(replace(schedule, operations=calls), cluster, lambda phase: marks.append(cluster.now))
        marks.append(cluster.now)

    Machine(platform).simulate(controller)
    ends = zip(schedule.phases, marks, marks[1:], strict=False)
    return [Part(phase.layer, phase.step, phase.macs, end - begin) for phase, begin, end in ends]


def total(parts: Sequence[Part]) -> int:
    """Cycles of the whole step."""
    return sum(part.cycles for part in parts)
