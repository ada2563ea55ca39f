"""What a whole run costs on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pulpsim.energy import Energy, total
from trainlib.instruments import Look, nobody
from trainlib.training.latent import Stored, head_of

if TYPE_CHECKING:
    from pulpsim.trace import Timeline
    from trainlib.model import Model
    from trainlib.optimizers.batch import Part
    from trainlib.step_report import StepReport
    from trainlib.trainer import Trainer


@dataclass(frozen=True)
class Cost:
    """samples: learned from, a step each. cycles: of all steps, and of the forward passes that gave what is stored.
    energy: None without power figures for the platform. Bytes: of parameters, of what else a step has in L2 (values
    and gradients at once, programs), of the optimizer's states, and of what frozen layers put out and is stored;
    l2_bytes: that L2 has.
    """

    samples: int
    cycles: int
    clock_hz: int
    energy: Energy | None
    parameter_bytes: int
    working_bytes: int
    optimizer_bytes: int
    stored_bytes: int
    l2_bytes: int

    @property
    def bytes(self) -> int:
        """All of them together."""
        return self.parameter_bytes + self.working_bytes + self.optimizer_bytes + self.stored_bytes

    @property
    def milliseconds(self) -> float:
        return 1e3 * self.cycles / self.clock_hz

    @property
    def microjoules(self) -> tuple[float, float] | None:
        """Lowest and highest."""
        return None if self.energy is None else self.energy.microjoules


def reports(
    trainer: Trainer, head: bool, timeline: Timeline | None = None, look: Look = nobody
) -> tuple[StepReport, ...]:
    """Of the steps of a batch, in order, each simulated once. head: of what is above stored outputs alone. timeline,
    look: of the last one."""
    seen = timeline is not None or look is not nobody
    if not head and not seen and (measured := _measured(trainer)):
        return measured
    if head not in trainer.reports or seen:
        model = head_of(trainer.model) if head else trainer.model
        rule = replace(trainer.optimizer, state={}, steps=0, epoch=0)
        plan = None if head else trainer.plan
        twin = type(trainer)(model, trainer.platform, plan, optimizer=rule, accumulate=trainer.batch.size)
        x = np.zeros(model.inputs, np.float32)
        numbers = np.zeros(model.outputs, np.float32)
        target = None if model.target_is_input else 0 if model.loss == "cross-entropy" else numbers
        found = [twin.timed_step(x, target, reuse=True) for _ in range(trainer.batch.size - 1)]
        trainer.reports[head] = (*found, twin.timed_step(x, target, timeline, look=look))
    return trainer.reports[head]


def _measured(trainer: Trainer) -> tuple[StepReport, ...]:
    """Of the steps of a batch, if all have been simulated while the trainer learned; else none."""
    size = trainer.batch.size
    between: list[Part] = ["more"] * (size - 2)
    parts: list[Part] = ["alone"] if size == 1 else ["first", *between, "last"]
    found = [trainer.measured(part) for part in parts]
    return tuple(report for report in found if report is not None) if all(found) else ()


def cost_of(trainer: Trainer, stored: Stored) -> Cost:
    """Stored outputs of frozen layers took a forward pass for each sample."""
    cycles, spent = 0, list[Energy | None]()
    for head, steps in ((False, trainer.steps - stored.steps), (True, stored.steps)):
        if steps:
            batch, rest = divmod(steps, trainer.batch.size)
            for place, report in enumerate(reports(trainer, head)):
                count = batch + (place < rest)
                cycles += count * report.cycles
                spent.append(report.energy and report.energy.times(count))
    if stored.samples:
        wanted = {node.name for node in trainer.model.nodes if trainer.model.graph.wanted(node.output)}
        for phase in reports(trainer, False)[0].phases:
            if phase.step == "fw" and phase.layer not in wanted:
                cycles += stored.samples * phase.cycles
                spent.append(phase.energy and phase.energy.times(stored.samples))
    step = reports(trainer, stored.steps > 0)[-1]
    own = head_of(trainer.model) if stored.steps else trainer.model
    states = len(trainer.optimizer.states) * _bytes_of(own, trained=True)
    return Cost(
        trainer.steps, cycles, trainer.platform.clock_hz, total(spent), _bytes_of(trainer.model),
        step.l2_bytes - _bytes_of(own) - states, states, stored.bytes,
        trainer.platform.l2.size_bytes,
    )  # fmt: skip


def _bytes_of(model: Model, trained: bool = False) -> int:
    """Of all parameters, or of those that are trained."""
    shapes = [
        shape
        for layer in model.layers
        for name, shape in layer.parameters.items()
        if not trained or name in layer.trained_parameters
    ]
    return 4 * sum(map(prod, shapes))
