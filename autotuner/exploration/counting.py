"""What workers do at a point: which plans there are, what each takes, and what is worth knowing of the best one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from autotuner.exploration.setting import Setting
from autotuner.measure import SKEWS, Meter
from autotuner.whole import by_skew
from pulpsim.energy import total
from pulpsim.errors import PulpsimError
from pulpsim.platform import Band
from trainlib.bounds import bounds
from trainlib.errors import ModelError, PlanError
from trainlib.lowering.operations import Schedule
from trainlib.lowering.schedule import compile_schedule
from trainlib.optimizers.batch import Part
from trainlib.plan import Plan
from trainlib.plans import plans_of_presets, tuned_plan
from trainlib.step_report import PhaseReport, phases_alone
from trainlib.tiling import default_plan, settled


class Counted(msgspec.Struct, frozen=True):
    """plan: settled. cycles: of a whole batch, for each of SKEWS, fewer if it is clearly slower than a rival; none
    where it cannot run, then `fault` says why."""

    plan: Plan
    cycles: tuple[int, ...]
    fault: str = ""

    @property
    def runs(self) -> bool:
        """And was counted to the end."""
        return len(self.cycles) == len(SKEWS)


class Step(msgspec.Struct, frozen=True):
    """Of a step of a plan, a batch's mean, without start skew. causes: cycles of a core by cause, the mean. bound:
    what takes the most at least, and how many cycles."""

    l1_bytes: int
    l2_bytes: int
    microjoules: Band | None
    bound: str
    bound_cycles: float
    causes: dict[str, float]


def plans_known(meter: Meter, setting: Setting, others: bool) -> tuple[list[Plan], list[Plan], str]:
    """The plan by rule, if there is one; with `others` those that are shipped, which need not fit; what keeps the first
    from being."""
    model, platform = setting.model, meter.platform
    optimizer = list(setting.kinds.values())[-1]
    try:
        by_rule, fault = [default_plan(model, platform, optimizer)], ""
    except (PlanError, ModelError) as error:
        by_rule, fault = [], str(error)
    known: list[Plan] = []
    if others:
        tuned = tuned_plan(model, platform)
        known += [] if tuned is None else [tuned]
        with suppress(PlanError, ModelError):
            known += plans_of_presets(model, platform, optimizer)
    return by_rule, known, fault


def count(meter: Meter, setting: Setting, plan: Plan, rival: Sequence[int] = ()) -> Counted:
    """rival: cycles of another plan, than which one that is clearly slower is not looked at further."""
    try:
        plan, schedules = _compiled(meter, setting, plan)

        def batch(skew: int) -> int:
            return sum(times * meter.cycles(schedules[part], skew) for part, times in setting.steps.items())

        return Counted(plan, by_skew(batch, rival))
    except PulpsimError as error:
        return Counted(plan, (), str(error))


def look(meter: Meter, setting: Setting, plan: Plan) -> Step:
    """A step of each part of a batch, with its energy, memory and causes; plan: one that runs."""
    platform = meter.platform
    _, schedules = _compiled(meter, setting, plan)
    phases: list[PhaseReport] = []
    for part, times in setting.steps.items():
        phases += times * phases_alone(schedules[part], platform)
    inward, outward, instructions = (
        sum(getattr(phase, name) for phase in phases) for name in ("dma_bytes_in", "dma_bytes_out", "instructions")
    )
    least = bounds(platform, setting.batch * setting.model.least_macs, inward, outward, instructions)
    energy = total([phase.energy for phase in phases])
    bound = max(least, key=lambda name: least[name])
    cores = setting.batch * platform.cluster.cores
    return Step(
        max(schedule.l1_bytes for schedule in schedules.values()),
        max(schedule.l2_bytes for schedule in schedules.values()),
        None if energy is None else energy.times(1 / setting.batch).microjoules,
        bound, least[bound] / setting.batch,
        {name: sum(phase.causes[name] for phase in phases) / cores for name in phases[0].causes},
    )  # fmt: skip


def _compiled(meter: Meter, setting: Setting, plan: Plan) -> tuple[Plan, dict[Part, Schedule]]:
    """Settled for the step that needs the most memory, and compiled for all. Raises L1Error, ModelError."""
    kinds = setting.kinds
    *others, last = kinds
    plan, schedule = settled(setting.model, plan, meter.platform, kinds[last])
    made = {part: compile_schedule(setting.model, plan, meter.platform, kinds[part]) for part in others}
    return plan, made | {last: schedule}
