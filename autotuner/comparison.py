"""What the published tuner would choose, what that costs when everything counts, and what the search finds.

The published tuner ranks one tile with its operands in L1. Its choice is taken to the whole step of the layer: all
tiles, with their DMA, halos, partial sums, forks and cache misses, as the search counts its own. Its footprint
leaves out transposed and padded copies and second buffers, so that the first of its ranking often does not fit;
then the first one that does is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from autotuner.executors import executor_of
from autotuner.measure import SKEWS, Meter
from autotuner.points import key_of, search_version
from autotuner.published import Row, as_step, layer_of, primitives_of, profiled, ranking
from autotuner.tuning import Job, Outcome, Progress, jobs_of, search_steps
from pulpsim import Platform
from trainlib.errors import PlanError
from trainlib.lowering.schedule import compile_step
from trainlib.model import Model
from trainlib.plan import LayerStep


class Choice(msgspec.Struct, frozen=True):
    """The published tuner's for one step.

    best: the first of its ranking, None if it has no tile; naive: the first with the plain kernel, `mm` or `dw`.
    step: the first that fits when everything is counted, as a plan has it, with its place in the ranking, from 1,
    and the cycles of the whole step for each of SKEWS; None if none fits. compiled: the first of its ranking without
    the 4x4 kernels, which a compiler spills.
    """

    best: Row | None
    naive: Row | None = None
    step: LayerStep | None = None
    place: int = 0
    cycles: tuple[int, ...] = ()
    compiled: Row | None = None

    @property
    def mean(self) -> float:
        return sum(self.cycles) / len(SKEWS)


class Compared(msgspec.Struct, frozen=True):
    """One step of one layer: the published choice, and ours."""

    layer: str
    step: str
    choice: Choice
    ours: Outcome


def compare(
    model: Model, platform: Platform, workers: int = 1, path: Path | None = None, *, scheduler: str = "",
    parts: Sequence[str] = (), layers: Sequence[int] = (),
    tell: Callable[[Progress], None] = lambda progress: None,
) -> list[Compared]:  # fmt: skip
    """Every step that the published tuner profiles: fw, wg, ig.

    scheduler: see `executor_of`. parts, layers: only these.
    """
    groups = {
        job: jobs
        for job, jobs in jobs_of(model, parts, layers).items()
        if "update" not in job[1] and profiled(model, *job)
    }
    found: dict[Job, Outcome] = {}
    with executor_of(path, workers, scheduler) as executor:
        choices = dict(zip(groups, executor.all(choose, platform, [(model, *job) for job in groups]), strict=True))
        search_steps(executor, model, platform, groups, found, tell=tell)
    of = {job: choices[first] for first, jobs in groups.items() for job in jobs}
    names = {job: model.layers[job[0]].name for job in of}
    return [Compared(names[job], job[1], _renamed(of[job], names[job]), found[job]) for job in sorted(of)]


def _renamed(choice: Choice, layer: str) -> Choice:
    """The same for another layer."""
    return msgspec.structs.replace(choice, step=choice.step and replace(choice.step, layer=layer))


def choose(meter: Meter, model: Model, index: int, step: str) -> Choice:
    """What the published tuner chooses for a step, or chose another time."""
    key = key_of("published", search_version(), repr(meter.platform), repr(model), index, step)
    text = meter.points.result(key)
    if text is None:
        choice = _choose(meter, model, index, step)
        meter.points.put_result(key, msgspec.json.encode(choice).decode())
        return choice
    return msgspec.json.decode(text, type=Choice)


def _choose(meter: Meter, model: Model, index: int, step: str) -> Choice:
    layer, platform, primitive = layer_of(model, index), meter.platform, primitives_of(step)[0]
    assert layer is not None
    delays = [skew[: platform.cluster.cores] for skew in SKEWS]
    try:
        rows = ranking(layer, primitive, platform, start_delays=delays)
    except PlanError:  # no tile
        return Choice(None)
    naive = next((row for row in rows if row.kernel == layer.kernels[0]), None)
    compiled = next((row for row in rows if not row.ran.endswith("4x4")), None)
    for place, row in enumerate(rows, start=1):
        chosen = as_step(model, index, step, row, platform)
        if chosen is not None:
            schedule = compile_step(model, index, chosen, platform)
            cycles = meter.all_cycles(schedule)
            return Choice(rows[0], naive, chosen, place, cycles, compiled)
    return Choice(rows[0], naive, compiled=compiled)
