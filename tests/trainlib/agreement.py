"""Training steps from every side: timed = functional to the bit, near float64, no hazard, no byte out of place.

`check` runs a case and raises a `DifferenceError` that says what kind it is; what is refused raises what refuses it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pulpsim.memory import L1_BASE, L2_BASE, stack_pointer
from pulpsim.platform import Platform
from tests.trainlib.arrays import Floats, assert_same_bits
from tests.trainlib.networks import Case, DirtyMachine, smallest_plans
from tests.trainlib.rounding import assert_step_is_near
from trainlib import functional
from trainlib import trainer as trainers
from trainlib.errors import PlanError
from trainlib.graph import SAMPLE
from trainlib.lowering.hazards import hazards
from trainlib.lowering.memory_map import TARGET
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import Parameters
from trainlib.plan import Plan
from trainlib.plans import plan_for
from trainlib.trainer import StepReport, Trainer

#: a core's stack takes no more: what a matrix product keeps of its registers (see kernels.matmul)
STACK_USED = 32
#: a network of so many weights is not cut into tiles of one each
MANY_TILES = 4096


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
    return replace(case, plan=plan_for(case.model, case.platform, case.optimizer()))


def smallest_that_fits(case: Case) -> Plan | None:
    """A plan of the smallest tiles that compiles for a case; None if there is none."""
    for width in (64, 8, 1) if case.model.weights < MANY_TILES else (64,):
        for plan in smallest_plans(case.model, width):
            try:
                compile_schedule(case.model, plan, case.platform, case.optimizer())
            except PlanError:
                continue
            return plan
    return None


# -- trainers ----------------------------------------------------------------------------------------
def trainers_of(case: Case) -> tuple[Trainer, Trainer]:
    """For the timed and for the functional steps, from the same random parameters. Raises what refuses the case."""
    made = tuple(
        Trainer(case.model, case.platform, case.plan, case.lr, momentum=case.momentum, weight_decay=case.weight_decay)
        for _ in range(2)
    )
    for trainer in made:
        trainer.parameters[:] = [parameter.copy() for parameter in case.data()[0]]
    return made  # type: ignore[return-value]


def timed_step(trainer: Trainer, x: Floats, target: Any, seed: int) -> tuple[StepReport, DirtyMachine]:
    """A timed step from memories full of random bytes, and the machine it leaves."""
    machines: list[DirtyMachine] = []

    def dirty(platform: Platform) -> DirtyMachine:
        machines.append(DirtyMachine(platform, seed))
        return machines[-1]

    with undisturbed() as patch:
        patch.setattr(trainers, "Machine", dirty)
        report = trainer.timed_step(x, target)
    return report, machines[-1]


@contextmanager
def undisturbed() -> Iterator[pytest.MonkeyPatch]:
    """Steps that leave numbers which are not finite are compared like others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_learned", lambda trainer, loss: None)
        yield patch


# -- checks ------------------------------------------------------------------------------------------
def check(case: Case) -> None:
    """All that must hold of a case's steps."""
    timed, twin = trainers_of(planned(case))
    with no_error("replay"):
        found = hazards(timed.schedule, case.platform)
    if found:
        raise DifferenceError(f"hazard, {found[0].wrong}", "; ".join(map(str, found[:3])))
    rng = np.random.default_rng([case.seed, 1])
    for number in range(case.steps):
        x, target = case.data()[1:] if number == 0 else case.sample(rng)
        _check_step(case, timed, twin, x, target)


def _check_step(case: Case, timed: Trainer, twin: Trainer, x: Floats, target: Any) -> None:
    before = [parameter.copy() for parameter in twin.parameters]
    unmoved = twin.optimizer.copy()
    with no_error("functional step"), undisturbed():
        value = twin.functional_step(x, target)
    with no_error("timed step"):
        report, machine = timed_step(timed, x, target, case.seed)
    with finding("bits"):
        assert_same_values(timed, twin, report.loss, value)
    with finding("accounts"):
        assert_accounts(report, machine)
    with finding("bytes"):
        assert_bytes_in_place(timed, machine)
    if _stays_finite(case, [before, twin.parameters], x, value):
        with finding("float64"):
            assert_step_is_near(
                case.model, before, twin.parameters, x, target, case.platform.cluster.cores, unmoved, value
            )


def _stays_finite(case: Case, parameters: list[Parameters], x: Floats, loss: float) -> bool:
    """Whether no number of the step has left FP32's range, where rounding explains everything."""
    arrays = [*parameters[0], *parameters[1], *functional.forward(case.model, parameters[0], x), np.float32(loss)]
    return all(np.isfinite(array).all() for array in arrays)


def assert_same_values(timed: Trainer, twin: Trainer, loss: float, expected: float) -> None:
    """Loss, parameters and velocities, bit for bit."""
    assert_same_bits(np.float32(loss), np.float32(expected), "loss")
    for layer, slots in zip(timed.model.layers, timed.model.slots, strict=True):
        for name, slot in slots.items():
            what = f"{name} of {type(layer).__name__}: {layer.name}"
            assert_same_bits(timed.parameters[slot], twin.parameters[slot], what)
            states = [trainer.optimizer.state.get(slot, {}) for trainer in (timed, twin)]
            assert states[0].keys() == states[1].keys()
            for state in states[0]:
                assert_same_bits(states[0][state], states[1][state], f"{state} of {what}")


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


def assert_bytes_in_place(trainer: Trainer, machine: DirtyMachine) -> None:
    """Nothing is written but tensors that a step may change, buffers, and the top of the stacks."""
    tensors, memory = trainer.schedule.tensors, machine.memory
    kept = {SAMPLE, TARGET} | {
        node.parameter(name)
        for node in trainer.model.nodes
        for name in node.layer.parameters
        if name not in node.layer.trained_parameters
    }
    l2 = [(L2_BASE, trainer.schedule.code_bytes)]
    l2 += [(t.address, t.size_bytes) for t in tensors.values() if t.name not in kept]
    assert_unchanged(memory.l2, machine.l2_before, L2_BASE, l2, "L2 outside what a step writes")
    l1 = [(buffer.address, buffer.size_bytes) for buffer in trainer.schedule.buffers]
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
