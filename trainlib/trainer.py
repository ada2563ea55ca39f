"""On-line learning: one sample a step, timed on the simulated cluster or computed on the host.

Both give the same bits; timing does not depend on data, so one timed step and many functional ones
describe a long run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pulpsim import Cluster, Machine, Platform
from pulpsim.counters import Cause
from pulpsim.trace import Timeline
from trainlib import DEFAULT_LEARNING_RATE, numerics
from trainlib.errors import DataError
from trainlib.model import Model, Parameters
from trainlib.plan import Plan
from trainlib.schedule import Issue, Schedule, compile_schedule, execute
from trainlib.tiling import default_plan


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


def bounds(platform: Platform, macs: int, bytes_in: int, bytes_out: int, instructions: int) -> dict[str, int]:
    """Cycles that each resource needs at least, were it never to wait."""
    width, cores = platform.dma.bytes_per_cycle, platform.cluster.cores
    return {
        "FPUs": -(-macs // min(platform.cluster.fpus, cores)),
        "DMA in": -(-bytes_in // width),
        "DMA out": -(-bytes_out // width),
        "issue": -(-instructions // cores),
    }


class Trainer:
    """Trains a model on a platform, one sample at a time.

    plan: None takes the default one. lr: learning rate of plain SGD. parameters: float32 [outputs, inputs]
    a layer, initialised from `seed`. Raises PlanError or ModelError if the step does not fit.
    """

    def __init__(
        self,
        model: Model,
        platform: Platform | None = None,
        plan: Plan | None = None,
        lr: float = DEFAULT_LEARNING_RATE,
        seed: int = 0,
    ):
        self.model = model
        self.platform = platform or Platform.preset("pulp-2022")
        self.plan = plan or default_plan(model, self.platform)
        self.lr = lr
        self.schedule: Schedule = compile_schedule(model, self.plan, self.platform, lr)
        self.parameters: Parameters = model.initial_parameters(seed)
        self._steps = {(step.layer, step.step) for step in self.plan.steps}
        self._timed: StepReport | None = None

    def _vector(self, values: NDArray[np.float32], size: int, what: str) -> NDArray[np.float32]:
        if np.shape(values) != (size,):
            raise DataError(f"{self.model.name}: a {what} of shape {list(np.shape(values))}: must be [{size}]")
        with np.errstate(over="ignore"):
            vector = np.ascontiguousarray(values, np.float32)
        if not np.isfinite(vector).all():
            count = np.count_nonzero(~np.isfinite(vector))
            raise DataError(
                f"{self.model.name}: a {what} with {count} of {size} numbers that are not finite in FP32, the first "
                f"at {np.flatnonzero(~np.isfinite(vector))[0]}"
            )
        return vector

    def _sample(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._vector(x, self.model.inputs, "sample")

    def _target(self, x: NDArray[np.float32], target: NDArray[np.float32] | None) -> NDArray[np.float32]:
        if self.model.target_is_input:
            if target is not None:
                raise DataError(f"{self.model.name} learns its input: it takes no other target")
            return x
        if target is None:
            raise DataError(f"{self.model.name} needs a target of {self.model.outputs} numbers with every sample")
        return self._vector(target, self.model.outputs, "target")

    # -- on the host -------------------------------------------------------------------------------
    def predict(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Every layer's output for one sample, float32."""
        return self._forward(self._sample(x))

    def _forward(self, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        outputs = []
        for layer, w in zip(self.model.layers, self.parameters, strict=True):
            x = numerics.fc_forward(w, x, layer.relu)
            outputs.append(x)
        return outputs

    def loss(self, x: NDArray[np.float32], target: NDArray[np.float32] | None = None) -> float:
        """Loss of one sample, without learning from it."""
        x = self._sample(x)
        y = self._forward(x)[-1]
        return float(numerics.mse(y, self._target(x, target), self.platform.cluster.cores)[0])

    def functional_step(self, x: NDArray[np.float32], target: NDArray[np.float32] | None = None) -> float:
        """One training step in `numerics`; the loss before it. Same bits as `timed_step`."""
        x = self._sample(x)
        target = self._target(x, target)
        outputs = self._forward(x)
        loss, d = numerics.mse(outputs[-1], target, self.platform.cluster.cores)
        minus_lr = np.float32(-np.float32(self.lr))
        for index in reversed(range(len(self.model.layers))):
            layer, w = self.model.layers[index], self.parameters[index]
            below = outputs[index - 1] if index else x
            next_d = numerics.fc_input_gradient(w, d) if index else d
            if (layer.name, "update") in self._steps:
                numerics.sgd_update(w, numerics.fc_weight_gradient(d, below), minus_lr)
            else:
                numerics.fc_fused_update(w, d, below, minus_lr)
            d = numerics.relu_backward(next_d, below) if index and self.model.layers[index - 1].relu else next_d
        return float(loss)

    # -- on the cluster ----------------------------------------------------------------------------
    def timed_step(
        self,
        x: NDArray[np.float32],
        target: NDArray[np.float32] | None = None,
        timeline: Timeline | None = None,
        reuse: bool = False,
    ) -> StepReport:
        """One training step on the simulated cluster: every cycle, and the weights it leaves in L2.

        timeline: collects what core, controller and DMA did when, and the layers' steps. reuse: take the
        timing from an earlier timed step and the values from `numerics`. That is exact: every step begins
        on a machine just made - caches empty, nothing reserved, no transfer under way - with the same
        programs at the same addresses, none of which branches or computes addresses from data.
        """
        if reuse and self._timed is not None and timeline is None:
            return replace(self._timed, loss=self.functional_step(x, target))
        self._timed = self._simulated_step(x, target, timeline)
        return self._timed

    def _simulated_step(
        self, x: NDArray[np.float32], target: NDArray[np.float32] | None, timeline: Timeline | None
    ) -> StepReport:
        x = self._sample(x)
        target = self._target(x, target)
        machine = Machine(self.platform)
        tensors = self.schedule.tensors
        for index, w in enumerate(self.parameters):
            machine.memory.write(tensors[f"w{index}"].address, w)
        machine.memory.write(tensors["x0"].address, x)
        if "target" in tensors:
            machine.memory.write(tensors["target"].address, target)
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
        for index, layer in enumerate(self.model.layers):
            shape = (layer.outputs, layer.inputs)
            self.parameters[index] = machine.memory.read(tensors[f"w{index}"].address, shape)
        cores = self.platform.cluster.cores
        loss = machine.memory.read(tensors["loss"].address, cores + 1)[cores]
        return self._report(marks, float(loss))

    def _report(self, marks: list[tuple[int, NDArray[np.int64]]], loss: float) -> StepReport:
        phases = []
        moved = self._bytes_moved()
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
        macs, weights = self.model.step_macs, 4 * self.model.weights
        best = bounds(self.platform, macs, 2 * weights + 4 * self.model.inputs, weights, 0)
        own = bounds(self.platform, macs, total_in, total_out, instructions)
        return StepReport(
            self.model.name, self.platform.name, self.platform.clock_hz, self.platform.cluster.cores,
            marks[-1][0] - marks[0][0], macs, loss, tuple(phases), max(best.values()), max(own.values()),
            self.schedule.l1_bytes, self.schedule.l2_bytes,
        )  # fmt: skip

    def _bytes_moved(self) -> list[tuple[int, int]]:
        """(inward, outward) DMA bytes of every phase."""
        moved = [[0, 0] for _ in self.schedule.phases]
        for operation in self.schedule.operations:
            if isinstance(operation, Issue):
                moved[operation.phase][operation.copy.outward] += operation.copy.size_bytes
        return [(inward, outward) for inward, outward in moved]
