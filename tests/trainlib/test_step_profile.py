"""Protects profiles and checks of whole steps: all cycles once, nothing changed, no false alarm, real ones seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pulpsim import Machine, Platform
from pulpsim.counters import ENGINE_CAUSES, Cause
from pulpsim.profile import Profiler
from tests.trainlib.networks import networks, plans, platforms
from trainlib.checked import check_step
from trainlib.instruments import StepChecker, StepProfiler, forks
from trainlib.kernels import Call
from trainlib.lowering.operations import Fork, Schedule
from trainlib.profile import profile_of
from trainlib.step_report import marked_run
from trainlib.trainer import Trainer


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_any_step_adds_up_and_is_right(data: st.DataObject) -> None:
    """By instruction what the report has by cause, phase by phase; and nothing for the checker to find."""
    platform = data.draw(platforms(l1_kib=(64, 128), l2_kib=512))
    model = data.draw(networks())
    trainer = Trainer(model, platform, data.draw(plans(model, platform.cluster.cores)))
    found = profile_of(trainer)  # compares every phase itself
    assert found.report.cycles == trainer.anew().step().cycles
    assert found.cycles == found.report.cycles * platform.cluster.cores
    assert sum(found.stacks().values()) == found.cycles
    assert sum(kernel["cycles"] for kernel in found.record()["kernels"]) == found.counted
    assert check_step(trainer) == []


@pytest.mark.parametrize("engine", ["jit", "reference"])
def test_both_engines_have_one_profile(engine: str) -> None:
    """Phase by phase; the reference engine is what the other is held against."""
    trainer = Trainer("tutorial_cnn", "pulp-open")
    machine = Machine(trainer.platform, engine)  # type: ignore[arg-type]
    profiler = StepProfiler(machine, trainer.schedule)
    ran = marked_run(machine, trainer.schedule, trainer._scalars(), None)
    wanted = [phase.parts for phase in profile_of(trainer).phases]
    for mine, theirs in zip(profiler.phases(), wanted, strict=True):
        assert [part.program for part in mine] == [part.program for part in theirs]
        assert all(np.array_equal(one.counts, other.counts) for one, other in zip(mine, theirs, strict=True))
    spent = (ran.marks[-1].counters - ran.marks[0].counters)[:, :ENGINE_CAUSES]
    assert sum(part.counts.sum(axis=1) for parts in wanted for part in parts).tolist() == spent.tolist()


@pytest.mark.parametrize("name", ["tutorial_cnn", "autoencoder", "ds_cnn_paper"])
def test_shipped_networks_are_right(name: str) -> None:
    assert check_step(Trainer(name)) == []


def test_a_layer_and_a_step_alone() -> None:
    trainer = Trainer("tutorial_cnn")
    whole, some = profile_of(trainer), profile_of(trainer, "fc", "fw")
    assert [(phase.layer, phase.step) for phase in some.phases] == [("fc", "fw")] and some.cycles < whole.cycles
    assert some.cycles == sum(some.phases[0].report.causes.values())
    assert "fc fw" in some.headline() and profile_of(trainer, "nobody").phases == ()
    summary = whole.summary()
    assert len(summary["listings"]) == 2 and all(row["cycles"] for one in summary["listings"] for row in one["rows"])


def test_the_schedule_says_what_is_forked() -> None:
    schedule = Trainer("tutorial_cnn").schedule
    assert [fork.call for fork in forks(schedule)] == [o.call for o in schedule.operations if isinstance(o, Fork)]


# -- steps that are wrong ----------------------------------------------------------------------------
def broken(trainer: Trainer, call: int, change: object) -> Schedule:
    """The step's schedule with another call in the place of one."""
    schedule, place = trainer.schedule, -1
    operations = []
    for operation in schedule.operations:
        if isinstance(operation, Fork):
            place += 1
            if place == call:
                operation = Fork(change(operation.call), operation.task)  # type: ignore[operator]
        operations.append(operation)
    return Schedule(
        tuple(operations), schedule.phases, schedule.tensors, schedule.buffers, schedule.l1_bytes, schedule.l2_bytes,
        schedule.code_bytes,
    )  # fmt: skip


def found_in(trainer: Trainer, schedule: Schedule) -> list[str]:
    machine = Machine(trainer.platform)
    checker = StepChecker(machine, schedule)
    for tensor in schedule.tensors.values():
        machine.memory.write(tensor.address, np.ones(tensor.rows * tensor.columns, np.float32))
    marked_run(machine, schedule, trainer._scalars(), None)
    return [str(finding) for finding in checker.findings()]


def test_a_call_that_is_given_a_neighbours_place() -> None:
    """An operand four bytes further on: the word behind it is none of the call's."""

    def shifted(call: Call) -> Call:
        return Call(call.program, call.name, (call.arguments[0] + 4, *call.arguments[1:]), call.touches)

    trainer = Trainer("tutorial_cnn")
    assert found_in(trainer, trainer.schedule) == []
    found = found_in(trainer, broken(trainer, 0, shifted))
    assert found and all("which is none of its buffers" in one or "nobody wrote" in one for one in found)
    assert "in conv fw: im2row" in found[0]


def test_profiles_cost_nothing_when_nobody_looks() -> None:
    """A machine that was never looked at has the engine without any of it."""
    machine = Machine(Platform.preset("pulp-2022"))
    assert machine.engine.profile().size == 0 and machine.instruments == ()
    Profiler(machine)
    assert machine.engine.profile().shape[2] == ENGINE_CAUSES == int(Cause.BARRIER) + 1
