"""A step's timeline: a file that Perfetto opens, in which every cycle of every core is shown once."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pulpsim.counters import Cause
from pulpsim.machine import Machine
from pulpsim.platform import Platform
from pulpsim.trace import Timeline
from tests.trace_events import Shown, Trace, read
from tests.trainlib.networks import networks, plans, platforms
from trainlib.lowering.operations import Issue, Schedule
from trainlib.step_report import Marked, marked_run
from trainlib.trainer import Trainer


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_it_shows_every_cycle_of_any_step(data: st.DataObject) -> None:
    platform = data.draw(platforms(l1_kib=(64, 128), l2_kib=512))
    model = data.draw(networks())
    trainer = Trainer(model, platform, data.draw(plans(model, platform.cluster.cores)))
    timeline, schedule = Timeline(), trainer.schedule
    ran = marked_run(Machine(platform), schedule, trainer._scalars(), timeline)
    assert marked_run(Machine(platform), schedule, trainer._scalars(), None).cycles == ran.cycles
    trace = read(timeline.to_json())
    assert_cores(trace, ran, platform)
    assert_transfers(trace, schedule, ran)
    for name in ("layers and steps", "tiles"):
        slices = trace.tracks["network", name]
        assert all(one.end == other.begin for one, other in pairwise(slices)) and slices[-1].end == ran.cycles
    for memory, room in (("L1 bytes", platform.l1.size_bytes), ("L2 bytes", platform.l2.size_bytes)):
        assert all(0 < sum(values.values()) <= room for _, values in trace.counters["memory", memory])


def assert_cores(trace: Trace, ran: Marked, platform: Platform) -> None:
    """No cycle is left out, a call is its causes, and all together are what the machine has counted."""
    causes = {cause.name.lower().replace("_", " "): cause for cause in Cause}
    for core in range(platform.cluster.cores):
        slices, spent = trace.tracks["cluster", f"core {core}"], Counter[str]()
        assert slices[0].begin == 0 and slices[-1].end == ran.cycles
        assert all(one.end == other.begin for one, other in pairwise(slices))
        for one in slices:
            assert not one.inner or length(one) == sum(map(length, one.inner)), "a call is not its causes"
            assert sorted(map(length, one.inner), reverse=True) == list(map(length, one.inner))
            for cause in one.inner or [one]:
                spent[cause.name] += length(cause)
        counted = (ran.marks[-1].counters - ran.marks[0].counters)[core]
        assert spent == {name: int(counted[cause]) for name, cause in causes.items() if counted[cause]}


def length(slice_: Shown) -> int:
    return slice_.end - slice_.begin


def assert_transfers(trace: Trace, schedule: Schedule, ran: Marked) -> None:
    """Each is shown in its direction, by what it moves and for whom; in the end none is on its way."""
    issues = {operation.transfer: operation for operation in schedule.operations if isinstance(operation, Issue)}
    shown = 0
    for way in ("in", "out"):
        for slice_ in trace.tracks.get(("DMA", way), []):
            issue, phase = issues[slice_.details["transfer"]], schedule.phases[issues[slice_.details["transfer"]].phase]
            assert (way == "out") == issue.copy.outward and slice_.details["bytes"] == issue.copy.size_bytes
            assert slice_.name.startswith(issue.tensor) and slice_.name.endswith(f"({phase.layer} {phase.step})")
            assert not slice_.inner
            shown += 1
    assert shown == sum(moved.end > moved.begin for moved in ran.log.moved)
    assert not any(trace.counters["DMA", "bytes on their way"][-1][1].values())


def test_calls_and_tiles_are_named() -> None:
    timeline = Timeline()
    trainer = Trainer("ds_cnn_paper")
    report = trainer.timed_prediction(np.zeros(trainer.model.inputs, np.float32), timeline)
    trace = read(timeline.to_json())
    kernels = {name for phase in report.phases for name in phase.kernel.split(", ")}
    calls = [one for one in trace.tracks["cluster", "core 0"] if one.inner]
    assert {call.name for call in calls} == kernels
    steps = {(phase.layer, phase.step) for phase in report.phases}
    assert {(call.details["layer"], call.details["step"]) for call in calls} == steps
    controller = {one.name.split(":")[0] for one in trace.tracks["controller", "process 1"]}
    assert controller - {"the queue is full"} == {"command", "wait", "wake up", "fork", "runs", "join"}
