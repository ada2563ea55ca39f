"""Training steps from every side: timed = functional to the bit, near float64, no hazard, no byte out of place.

`check` runs a case and raises a `DifferenceError` that says what kind it is; what is refused raises what refuses it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pulpsim.memory import L1_BASE, L2_BASE, stack_pointer
from tests.trainlib.arrays import Floats, assert_same_bits
from tests.trainlib.networks import Case, DirtyMachine, smallest_plans
from tests.trainlib.rounding import Moment, assert_step_is_near
from trainlib import functional, timing
from trainlib.errors import PlanError
from trainlib.graph import SAMPLE
from trainlib.lowering.hazards import hazards
from trainlib.lowering.memory_map import TARGET
from trainlib.lowering.schedule import Schedule, compile_schedule
from trainlib.model import Model
from trainlib.operators.layer import Host
from trainlib.optimizers.batch import Part
from trainlib.plan import Plan
from trainlib.plans import plan_for
from trainlib.trainer import StepReport, Trainer

#: a core's stack takes no more: what a matrix product keeps of its registers (see kernels.matmul)
STACK_USED = 32
#: a network of so many weights is not cut into tiles of one each
MANY_TILES = 4096
#: of any optimizer
STATES = ("velocity", "mean", "square")


class DifferenceError(AssertionError):
    """kind: what differed, with no word about the case."""

    def __init__(self, kind: str, text: str):
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, text


@contextmanager
def finding(kind: str) -> Iterator[None]:
    """What is asserted here and does not hold is a difference of this kind."""
    try:
        yield
    except DifferenceError:
        raise
    except AssertionError as error:
        what = str(error).partition(":")[0]
        raise DifferenceError(f"{kind}, {what}" if what else kind, str(error)) from error


@contextmanager
def no_error(kind: str) -> Iterator[None]:
    """What is raised here is a difference: nothing may go wrong any more."""
    try:
        yield
    except DifferenceError:
        raise
    except Exception as error:
        raise raw(kind, error) from error


def raw(kind: str, error: Exception) -> DifferenceError:
    """An error that none should be, told apart by its type and by where it comes from."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}, {last.name}"
    return DifferenceError(f"{kind} {type(error).__name__} in {place}", f"{error} (line {last.lineno})")


# -- plans -------------------------------------------------------------------------------------------
def planned(case: Case) -> Case:
    """With the plan that a training uses. Raises what refuses it."""
    if case.plan is not None:
        return case
    return replace(case, plan=plan_for(case.model, case.platform, case.parts()[-1]))


def smallest_that_fits(case: Case) -> Plan | None:
    """A plan of the smallest tiles that compiles for a case; None if there is none."""
    for width in (64, 8, 1) if case.model.weights < MANY_TILES else (64,):
        for plan in smallest_plans(case.model, width):
            try:
                for part in case.parts():
                    compile_schedule(case.model, plan, case.platform, part)
            except PlanError:
                continue
            return plan
    return None


# -- trainers ----------------------------------------------------------------------------------------
def trainers_of(case: Case) -> tuple[Trainer, Trainer]:
    """For the timed and for the functional steps, from the same random parameters. Raises what refuses the case."""
    made = tuple(
        Trainer(case.model, case.platform, case.plan, optimizer=case.optimizer(), accumulate=case.accumulate)
        for _ in range(2)
    )
    for trainer in made:
        trainer.parameters[:] = [parameter.copy() for parameter in case.data()[0]]
    return made  # type: ignore[return-value]


def timed_step(trainer: Trainer, x: Floats, target: Any, seed: int) -> tuple[StepReport, DirtyMachine]:
    """A timed step from memories full of random bytes, and the machine it leaves: after the first step one that was
    used before."""
    with undisturbed() as patch:
        patch.setattr(timing, "Machine", lambda platform, values: DirtyMachine(platform, seed))
        report = trainer.timed_step(x, target)
    return report, DirtyMachine.latest


@contextmanager
def undisturbed() -> Iterator[pytest.MonkeyPatch]:
    """Steps that leave numbers which are not finite are counted and compared like others."""

    def count(trainer: Trainer, loss: float, finite: bool = False) -> None:
        trainer.steps += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_learned", count)
        yield patch


# -- checks ------------------------------------------------------------------------------------------
def check(case: Case) -> None:
    """All that must hold of a case's steps."""
    timed, twin = trainers_of(planned(case))
    with no_error("replay"):
        found = [one for schedule in timed.schedules.values() for one in hazards(schedule, case.platform)]
    if found:
        raise DifferenceError(f"hazard, {found[0].wrong}", "; ".join(map(str, found[:3])))
    rng = np.random.default_rng([case.seed, 1])
    for number in range(case.steps * case.accumulate):
        x, target = case.data()[1:] if number == 0 else case.sample(rng)
        _check_step(case, timed, twin, x, target)


def _check_step(case: Case, timed: Trainer, twin: Trainer, x: Floats, target: Any) -> None:
    before, schedule = moment_of(twin), timed.schedule
    with no_error("functional step"), undisturbed():
        value = twin.functional_step(x, target)
    with no_error("timed step"):
        report, machine = timed_step(timed, x, target, case.seed)
    with finding("bits"):
        assert_same_values(timed, twin, report.loss, value)
    with finding("accounts"):
        assert_accounts(report, machine)
    with finding("bytes"):
        assert_bytes_in_place(case.model, schedule, before.batch.part, machine)
    after, cores = moment_of(twin), case.platform.cluster.cores
    outputs = functional.forward(case.model, before.parameters, x, Host(before.number, cores))
    if all(np.isfinite(array).all() for array in (*before.arrays, *after.arrays, *outputs, np.float32(value))):
        with finding("float64"):
            assert_step_is_near(case.model, before, after, x, target, cores, value)


def moment_of(trainer: Trainer) -> Moment:
    parameters = [parameter.copy() for parameter in trainer.parameters]
    return Moment(parameters, trainer.optimizer.copy(), deepcopy(trainer.batch), trainer.steps)


def assert_same_values(timed: Trainer, twin: Trainer, loss: float, expected: float) -> None:
    """Loss, parameters, states of the optimizer and sums of a batch, bit for bit."""
    assert_same_bits(np.float32(loss), np.float32(expected), "loss")
    for layer, slots in zip(timed.model.layers, timed.model.slots, strict=True):
        for name, slot in slots.items():
            what = f"{name} of {type(layer).__name__}: {layer.name}"
            assert_same_bits(timed.parameters[slot], twin.parameters[slot], what)
            one, other = (kept_of(trainer, slot) for trainer in (timed, twin))
            assert one.keys() == other.keys(), f"what is kept for {what}"
            for kept in one:
                assert_same_bits(one[kept], other[kept], f"{kept} of {what}")
    assert timed.optimizer.steps == twin.optimizer.steps and timed.batch.done == twin.batch.done, "steps made"


def kept_of(trainer: Trainer, slot: int) -> dict[str, Floats]:
    """What goes with a parameter array."""
    sums = trainer.batch.sums
    return trainer.optimizer.state.get(slot, {}) | ({"sum": sums[slot]} if slot in sums else {})


def assert_accounts(report: StepReport, machine: DirtyMachine) -> None:
    """Phases add up to the step, every cycle of every core is counted once, and no bound is above what it bounds."""
    assert report.cycles == sum(phase.cycles for phase in report.phases), "phases do not add up"
    assert report.cycles == machine.result.cycles, "the report's cycles are not the machine's"
    assert report.lower_bound_cycles <= report.issue_bound_cycles <= report.cycles, "a bound is none"
    for core, counters in enumerate(machine.result.cores):
        assert counters.total == report.cycles, f"core's causes do not add up: {core}: {counters.total}"
    for phase in report.phases:
        causes = sum(phase.causes.values())
        assert causes == phase.cycles * report.cores, f"phase's causes do not add up: {phase.layer} {phase.step}"
        assert min(phase.causes.values()) >= 0, f"negative cause: {phase.layer} {phase.step}"


def assert_bytes_in_place(model: Model, schedule: Schedule, part: Part, machine: DirtyMachine) -> None:
    """Nothing is written but tensors that a step may change, buffers, and the top of the stacks.

    part: of a batch; only the last step of one changes parameters, with the sums as they are.
    """
    tensors, memory = schedule.tensors, machine.memory
    kept = {SAMPLE, TARGET}
    for node in model.nodes:
        for name in node.layer.parameters:
            changes = name in node.layer.trained_parameters and part in ("alone", "last")
            kept |= {node.parameter(name, of) for of in (["sum"] if changes else ["", *STATES])}
    l2 = [(L2_BASE, schedule.code_bytes)]
    l2 += [(t.address, t.size_bytes) for t in tensors.values() if t.name not in kept]
    assert_unchanged(memory.l2, machine.l2_before, L2_BASE, l2, "L2 outside what a step writes")
    l1 = [(buffer.address, buffer.size_bytes) for buffer in schedule.buffers]
    tops = [stack_pointer(machine.platform, core) for core in range(machine.platform.cluster.cores)]
    l1 += [(top - STACK_USED, STACK_USED) for top in tops]
    assert_unchanged(memory.l1, machine.l1_before, L1_BASE, l1, "L1 outside the buffers")


def assert_unchanged(
    image: NDArray[np.uint8], before: NDArray[np.uint8], base: int, written: list[tuple[int, int]], what: str
) -> None:
    """written: (address, bytes) of what may differ."""
    differs = image != before
    for address, size in written:
        differs[address - base : address - base + size] = False
    places = np.flatnonzero(differs)
    assert not len(places), f"{what}: {len(places)} bytes differ, the first at {base + int(places[0]):#010x}"
