"""Random small networks, plans and clusters for Hypothesis, and a timed step with every byte in view."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from pulpsim.machine import Cluster, Machine
from pulpsim.platform import STACK_BYTES, Platform
from tests.trainlib.arrays import Floats, values
from trainlib.kernels.fully_connected import COLUMN_UNROLLS, ROW_UNROLLS
from trainlib.layers import FullyConnected
from trainlib.model import Model
from trainlib.plan import BACKWARD, FIRST_LAYER_BACKWARD, LayerStep, Plan, Tile
from trainlib.schedule import Schedule, compile_schedule, execute


@st.composite
def models(draw: st.DrawFn) -> Model:
    widths = draw(st.lists(st.one_of(st.integers(1, 24), st.just(1)), min_size=3, max_size=5))
    autoencoder = draw(st.booleans())
    if autoencoder:
        widths[-1] = widths[0]
    last = len(widths) - 2
    layers = tuple(
        FullyConnected(f"fc{i}", widths[i], widths[i + 1], relu=i < last and draw(st.booleans()))
        for i in range(last + 1)
    )
    return Model("small", layers, target_is_input=autoencoder)


@st.composite
def layer_steps(draw: st.DrawFn, layer: FullyConnected, step: str) -> LayerStep:
    def part(size: int) -> int:  # at most about four tiles along a side, their number is squared
        return draw(st.integers(-(-size // 4), size))

    return LayerStep(
        layer=layer.name,
        step=step,
        tile=Tile(rows=part(layer.outputs), columns=part(layer.inputs), padding=draw(st.integers(0, 4))),
        unroll=draw(st.sampled_from(ROW_UNROLLS if step == "fw" else COLUMN_UNROLLS)),
        buffering=draw(st.sampled_from(["single", "double"])),
        relu=draw(st.sampled_from(["fused", "separate"])),
    )


@st.composite
def plans(draw: st.DrawFn, model: Model) -> Plan:
    steps = [draw(layer_steps(layer, "fw")) for layer in model.layers]
    for layer in reversed(model.layers):
        fusions = FIRST_LAYER_BACKWARD if layer is model.layers[0] else BACKWARD
        steps += [draw(layer_steps(layer, step)) for step in draw(st.sampled_from(fusions))]
    return Plan(model=model.name, platform="pulp-2022", steps=tuple(steps))


@st.composite
def platforms(draw: st.DrawFn) -> Platform:
    """Clusters whose timing differs in all that a schedule could come to rely on."""
    cores = draw(st.integers(1, 8))
    settings: dict[str, Any] = {
        "cluster.cores": cores,
        "l1.size_bytes": draw(st.sampled_from([64 << 10, 128 << 10, 48 << 10])),
        "l1.conflicts": draw(st.booleans()),
        "l1.arbitration": draw(st.sampled_from(["fifo", "round-robin"])),
        "l2.size_bytes": 64 << 10,
        "dma.bytes_per_cycle": draw(st.sampled_from([4, 8, 32])),
        "dma.outstanding": draw(st.sampled_from([1, 8])),
        "controller.fork_cycles": draw(st.sampled_from([19, 100])),
        "controller.command_cycles": draw(st.sampled_from([0, 10])),
    }
    return _platform(draw(st.sampled_from(["pulp-2022", "pulp-open"])), tuple(settings.items()))


@cache
def _platform(preset: str, settings: tuple[tuple[str, Any], ...]) -> Platform:
    return Platform.preset(preset, dict(settings))


@dataclass(frozen=True)
class Case:
    """A step to run: random weights in ALL layers, a sample and a target."""

    model: Model
    plan: Plan
    platform: Platform
    seed: int

    @property
    def lr(self) -> float:
        return 0.05

    def schedule(self) -> Schedule:
        return compile_schedule(self.model, self.plan, self.platform, self.lr)

    def data(self) -> tuple[list[Floats], Floats, Floats | None]:
        """(parameters, sample, target or None)."""
        rng = np.random.default_rng(self.seed)
        kinds = rng.choice(["plain", "zeros"], len(self.model.layers))
        parameters = [
            values(rng, (layer.outputs, layer.inputs), kind)
            for layer, kind in zip(self.model.layers, kinds, strict=True)
        ]
        target = None if self.model.target_is_input else values(rng, self.model.outputs)
        return parameters, values(rng, self.model.inputs), target

    def untiled(self) -> Case:
        """The same steps, each on whole layers."""
        sizes = {layer.name: (layer.outputs, layer.inputs) for layer in self.model.layers}
        steps = tuple(
            replace(step, tile=Tile(rows=sizes[step.layer][0], columns=sizes[step.layer][1]))
            for step in self.plan.steps
        )
        return replace(self, plan=replace(self.plan, steps=steps))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    model = draw(models())
    case = Case(model, draw(plans(model)), draw(platforms()), draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):  # an L1 with no word to spare: every buffer's place is someone else's before and after
        row = 4 * case.platform.l1.banks
        needed = case.schedule().l1_bytes + STACK_BYTES * case.platform.cluster.cores
        case = replace(case, platform=case.platform.replace({"l1.size_bytes": -(-needed // row) * row}))
    return case


@dataclass(frozen=True)
class Run:
    """A step as it ran: marks are (cycle, counters [cores, causes]) at each phase's begin and at the end."""

    schedule: Schedule
    machine: Machine
    l1_before: NDArray[np.uint8]
    l2_before: NDArray[np.uint8]
    marks: list[tuple[int, NDArray[np.int64]]]

    def tensor(self, name: str) -> Floats:
        tensor = self.schedule.tensors[name]
        return self.machine.memory.read(tensor.address, (tensor.rows, tensor.columns))

    @property
    def cycles(self) -> int:
        return self.marks[-1][0] - self.marks[0][0]


def run(case: Case) -> Run:
    """Run a step in memories full of random bytes: what is read before it is written becomes a wrong number."""
    schedule, machine = case.schedule(), Machine(case.platform)
    parameters, x, target = case.data()
    rng = np.random.default_rng(case.seed + 1)
    memory = machine.memory
    for store in (memory.l1, memory.l2):
        store[:] = np.frombuffer(rng.bytes(store.size), np.uint8)
    for i, w in enumerate(parameters):
        memory.write(schedule.tensors[f"w{i}"].address, w)
    memory.write(schedule.tensors["x0"].address, x)
    if target is not None:
        memory.write(schedule.tensors["target"].address, target)
    before = memory.l1.copy(), memory.l2.copy()
    marks: list[tuple[int, NDArray[np.int64]]] = []

    def controller(cluster: Cluster) -> Generator[Any, Any, None]:
        yield from execute(schedule, cluster, lambda phase: marks.append((cluster.now, cluster.counters())))
        marks.append((cluster.now, cluster.counters()))

    machine.simulate(controller)
    return Run(schedule, machine, *before, marks)
