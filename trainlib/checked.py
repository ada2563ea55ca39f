"""A whole step under the checker: nothing that nobody wrote, no access beside a call's operands, no race, no transfer
met, and the same bytes whichever core comes first."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pulpsim import Machine
from pulpsim.checker import Finding, differences, orders
from trainlib.instruments import StepChecker
from trainlib.lowering.operations import Schedule
from trainlib.model import Model
from trainlib.trainer import Trainer

#: cycles by which cores come after each other at every fork, beside those of `orders`: longer than most calls
LATE = 2_000


def check_step(trainer: Trainer) -> list[Finding]:
    """Of a step on random numbers, and of the same one with cores in other orders; the trainer learns nothing."""
    checkers: list[StepChecker] = []
    machines: list[Machine] = []

    def look(machine: Machine, schedule: Schedule) -> None:
        checkers.append(StepChecker(machine, schedule))
        machines.append(machine)

    def keep(machine: Machine, schedule: Schedule) -> None:
        machines.append(machine)

    twin, x, target = _twin(trainer), *_sample(trainer.model)
    twin.timed_step(x, target, look=look)
    found = checkers[0].findings()
    for late in orders(trainer.platform.cluster.cores, LATE):
        _twin(trainer).timed_step(x, target, look=keep, start_delays=late)
        if difference := differences(machines[0], machines.pop(), late, checkers[0].place):
            return [*found, difference]
    return found


def _twin(trainer: Trainer) -> Trainer:
    """One like it that has learned nothing, at the last step of a batch."""
    twin = trainer.anew()
    x, target = _sample(trainer.model)
    for _ in range(twin.batch.size - 1):
        twin.functional_step(x, target)
    return twin


def _sample(model: Model) -> tuple[ArrayLike, ArrayLike | None]:
    """Random numbers: of equal ones an order changes nothing."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(model.input_shape).astype(np.float32)
    if model.target_is_input:
        return x, None
    if model.loss == "cross-entropy":
        return x, int(rng.integers(model.outputs))
    return x, rng.standard_normal(model.outputs).astype(np.float32)
