"""On-line learning: one sample a step, timed on the simulated cluster or computed on the host.

Both give the same bits; timing does not depend on data, so one timed step and many functional ones
describe a long run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulpsim import Cluster, Machine, Platform
from pulpsim.counters import Cause
from pulpsim.trace import Timeline
from trainlib import DEFAULT_LEARNING_RATE, functional
from trainlib.bounds import bounds, least_bounds
from trainlib.errors import DataError
from trainlib.kernels.optimizer import Rule
from trainlib.model import Model, Parameters
from trainlib.plan import Plan
from trainlib.plans import plan_for
from trainlib.schedule import Schedule, compile_schedule, execute


@dataclass(frozen=True)
class PhaseReport:
    """What one step of one layer cost. Bounds in cycles; causes: cycles of all cores by cause."""

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
    causes: dict[str, int]
    bounds: dict[str, int]

    @property
    def bound(self) -> str:
        """Which resource limits the phase."""
        return max(self.bounds, key=lambda name: self.bounds[name])

    @property
    def bound_cycles(self) -> int:
        return self.bounds[self.bound]


@dataclass(frozen=True)
class StepReport:
    """One timed training step; phases in order, their cycles add up to `cycles`."""

    model: str
    platform: str
    clock_hz: int
    cores: int
    cycles: int
    macs: int
    loss: float
    phases: tuple[PhaseReport, ...]
    lower_bound_cycles: int
    issue_bound_cycles: int
    l1_bytes: int
    l2_bytes: int

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
    def causes(self) -> dict[str, int]:
        """Cycles of all cores by cause; their sum is cycles x cores."""
        return {name: sum(phase.causes[name] for phase in self.phases) for name in self.phases[0].causes}


class Trainer:
    """Trains a model on a platform, one sample at a time.

    plan: None takes the tuned one, or one by rule: see `trainlib.plans`. lr: learning rate. momentum, weight_decay: see
    `functional.SGD`. parameters: float32 [outputs, inputs]
    a layer, initialised from `seed`. Raises PlanError or ModelError if the step does not fit.
    """

    def __init__(
        self,
        model: Model,
        platform: Platform | None = None,
        plan: Plan | None = None,
        lr: float = DEFAULT_LEARNING_RATE,
        seed: int = 0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ):
        self.model = model
        self.platform = platform or Platform.preset("pulp-2022")
        self._optimizer = functional.SGD(lr, momentum, weight_decay)
        self.plan = plan or plan_for(model, self.platform, Rule(lr, momentum, weight_decay))
        self.lr = lr
        self.schedule: Schedule = compile_schedule(model, self.plan, self.platform, lr, momentum, weight_decay)
        self.parameters: Parameters = model.initial_parameters(seed)
        self._stored_gradients = {step.layer for step in self.plan.steps if step.step == "update"}
        self._timed: dict[int | None, StepReport] = {}

    def _numbers(self, values: ArrayLike, size: int, what: str, shape: tuple[int, ...] = ()) -> NDArray[np.float32]:
        """A contiguous vector. shape: also accepted."""
        if np.shape(values) not in ((size,), shape or (size,)):
            accepted = f"[{size}]" + (f" or {list(shape)}" if len(shape) > 1 else "")
            raise DataError(f"{self.model.name}: a {what} of shape {list(np.shape(values))}: must be {accepted}")
        with np.errstate(over="ignore"):
            vector = np.ascontiguousarray(values, np.float32).reshape(-1)
        if not np.isfinite(vector).all():
            count = np.count_nonzero(~np.isfinite(vector))
            raise DataError(
                f"{self.model.name}: a {what} with {count} of {size} numbers that are not finite in FP32, the first "
                f"at {np.flatnonzero(~np.isfinite(vector))[0]}"
            )
        return vector

    def _sample(self, x: ArrayLike) -> NDArray[np.float32]:
        return self._numbers(x, self.model.inputs, "sample", self.model.input_shape)

    def _target(self, target: ArrayLike | None) -> ArrayLike | None:
        """None where the input is the target."""
        model = self.model
        if model.target_is_input:
            if target is not None:
                raise DataError(f"{model.name} learns its input: it takes no other target")
            return None
        if target is None:
            wanted = "the number of its class" if model.loss == "cross-entropy" else f"{model.outputs} numbers"
            raise DataError(f"{model.name} needs a target of {wanted} with every sample")
        if model.loss == "cross-entropy":
            return target
        return self._numbers(target, model.outputs, "target")

    # -- on the host -------------------------------------------------------------------------------
    def predict(self, x: ArrayLike) -> list[NDArray[np.float32]]:
        """Every layer's output for one sample, float32."""
        return functional.forward(self.model, self.parameters, self._sample(x))

    def loss(self, x: ArrayLike, target: ArrayLike | None = None) -> float:
        """Loss of one sample, without learning from it."""
        x, target = self._sample(x), self._target(target)
        y = functional.forward(self.model, self.parameters, x)[-1]
        return functional.loss(self.model, y, x if target is None else target, self.platform.cluster.cores)[0]

    def functional_step(self, x: ArrayLike, target: ArrayLike | None = None) -> float:
        """One training step in `numerics`; the loss before it. Same bits as `timed_step`."""
        return functional.step(
            self.model, self.parameters, self._sample(x), self._target(target), self._optimizer,
            self.platform.cluster.cores, self._stored_gradients,
        )  # fmt: skip

    # -- on the cluster ----------------------------------------------------------------------------
    def timed_step(
        self,
        x: ArrayLike,
        target: ArrayLike | None = None,
        timeline: Timeline | None = None,
        reuse: bool = False,
    ) -> StepReport:
        """One training step on the simulated cluster: every cycle, and the weights it leaves in L2.

        timeline: collects what core, controller and DMA did when, and the layers' steps. reuse: take the
        timing from an earlier timed step and the values from `numerics`. That is exact: every step begins
        on a machine just made - caches empty, nothing reserved, no transfer under way - with the same
        programs at the same addresses. None of them branches on data or computes addresses from it, but that
        cross-entropy looks up its class: the class must have been timed before.
        """
        label = self._label(target) if self.model.loss == "cross-entropy" else None
        if reuse and label in self._timed and timeline is None:
            return replace(self._timed[label], loss=self.functional_step(x, target))
        self._timed[label] = self._simulated_step(x, target, label, timeline)
        return self._timed[label]

    def _simulated_step(
        self, x: ArrayLike, target: ArrayLike | None, label: int | None, timeline: Timeline | None
    ) -> StepReport:
        x, target = self._sample(x), self._target(target)
        machine = Machine(self.platform)
        tensors, memory = self.schedule.tensors, machine.memory
        places = self._parameter_places()
        for parameter, place in zip(self.parameters, places, strict=True):
            memory.write(place, parameter)
        for slot, place in self._velocity_places().items():
            memory.write(place, self._optimizer.velocity.get(slot, np.zeros_like(self.parameters[slot])))
        memory.write(tensors["x0"].address, x)
        if label is not None:
            memory.write(tensors["target"].address, np.array([label], np.int32))
        elif target is not None:
            memory.write(tensors["target"].address, np.asarray(target, np.float32))
        marks: list[tuple[int, NDArray[np.int64]]] = []

        def controller(cluster: Cluster):  # type: ignore[no-untyped-def]
            def mark(phase: int) -> None:
                marks.append((cluster.now, cluster.counters()))

            yield from execute(self.schedule, cluster, mark)
            mark(-1)

        machine.simulate(controller, timeline=timeline)
        if timeline is not None:
            for phase, (begin, _), (end, _) in zip(self.schedule.phases, marks, marks[1:], strict=False):
                timeline.span("layer and step", f"{phase.layer} {phase.step}", begin, end)
        shapes = self.model.parameter_shapes
        self.parameters[:] = [memory.read(at, shape) for at, shape in zip(places, shapes, strict=True)]
        for slot, place in self._velocity_places().items():
            self._optimizer.velocity[slot] = memory.read(place, shapes[slot])
        cores = self.platform.cluster.cores
        loss = machine.memory.read(tensors["loss"].address, cores + 1)[cores]
        return self._report(marks, float(loss))

    def _parameter_places(self) -> list[int]:
        """Where each parameter array lies in L2."""
        names = [f"{name}{index}" for index, slots in enumerate(self.model.slots) for name in slots]
        return [self.schedule.tensors[name].address for name in names]

    def _velocity_places(self) -> dict[int, int]:
        """Where the velocities of parameter arrays lie in L2, by the array's place."""
        tensors = self.schedule.tensors
        return {
            slot: tensors[f"v{name}{index}"].address
            for index, slots in enumerate(self.model.slots)
            for name, slot in slots.items()
            if f"v{name}{index}" in tensors
        }

    def _label(self, target: ArrayLike | None) -> int:
        """The number of the class, checked."""
        wanted = self._target(target)
        assert wanted is not None
        functional.loss(self.model, np.zeros(self.model.outputs, np.float32), wanted)
        return int(np.asarray(wanted))

    def _report(self, marks: list[tuple[int, NDArray[np.int64]]], loss: float) -> StepReport:
        phases = []
        moved = self.schedule.bytes_moved()
        for number, phase in enumerate(self.schedule.phases):
            (begin, before), (end, after) = marks[number], marks[number + 1]
            spent = (after - before).sum(axis=0)
            instructions, (inward, outward) = int(spent[Cause.ISSUE]), moved[number]
            phases.append(
                PhaseReport(
                    phase.layer,
                    phase.step,
                    ", ".join(phase.kernels),
                    phase.tile,
                    phase.buffering,
                    end - begin,
                    phase.macs,
                    inward,
                    outward,
                    instructions,
                    {cause.name.lower(): int(spent[cause]) for cause in Cause},
                    bounds(self.platform, phase.macs, inward, outward, instructions),
                )
            )
        total_in, total_out = (sum(way) for way in zip(*moved, strict=True))
        instructions = sum(phase.instructions for phase in phases)
        macs = self.model.step_macs
        best = least_bounds(self.model, self.platform)
        own = bounds(self.platform, macs, total_in, total_out, instructions)
        return StepReport(
            self.model.name, self.platform.name, self.platform.clock_hz, self.platform.cluster.cores,
            marks[-1][0] - marks[0][0], macs, loss, tuple(phases), max(best.values()), max(own.values()),
            self.schedule.l1_bytes, self.schedule.l2_bytes,
        )  # fmt: skip
