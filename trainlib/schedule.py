"""From a Plan to what the controller does: a flat list of DMA commands, waits and forks.

`compile_schedule` cuts every step into tasks, one per tile: loads, kernel calls, stores. Loads are issued
as early as their buffers allow, across layers, so that transfers overlap computation; a wait is inserted
wherever an operation touches bytes of a transfer that may still be under way. `execute` runs the list.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from math import prod
from typing import Any

import numpy as np

from pulpsim import Cluster, Copy, Platform, Program
from pulpsim.code import Code
from trainlib.errors import PlanError
from trainlib.kernels import Call
from trainlib.layers import (
    Activation,
    AveragePool,
    Conv2D,
    DepthWise,
    FullyConnected,
    GlobalAveragePool,
    MaxPool,
    PointWise,
)
from trainlib.memory_map import Buffer, Tensor, place_in_l1, place_in_l2
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan
from trainlib.steps import convolution, depthwise, fully_connected, pooling
from trainlib.steps.fully_connected import WEIGHT_SLOTS
from trainlib.steps.loss import loss_step
from trainlib.steps.update import update_step
from trainlib.tasks import Compute, Move, Phase, Rule, Task, Work, matrix


@dataclass(frozen=True, slots=True)
class Begin:
    phase: int


@dataclass(frozen=True, slots=True)
class Issue:
    transfer: int
    copy: Copy
    phase: int


@dataclass(frozen=True, slots=True)
class Wait:
    transfers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fork:
    call: Call


Operation = Begin | Issue | Wait | Fork


@dataclass(frozen=True)
class Schedule:
    """A compiled step: operations in order, phases, and where everything lies."""

    operations: tuple[Operation, ...]
    phases: tuple[Phase, ...]
    tensors: dict[str, Tensor]
    buffers: tuple[Buffer, ...]
    l1_bytes: int
    l2_bytes: int
    code_bytes: int

    @cached_property
    def content(self) -> bytes:
        """A digest of all that decides its cycles: programs, arguments, transfers; not what layers are called."""
        parts: list[tuple[object, ...]] = []
        for operation in self.operations:
            if isinstance(operation, Fork):
                parts.append(("fork", _digest(operation.call.program), operation.call.arguments))
            elif isinstance(operation, Issue):
                c = operation.copy
                parts.append(("issue", c.outward, c.l1, c.line_bytes, c.lines, c.l1_stride, c.l2_stride))
            elif isinstance(operation, Wait):
                parts.append(("wait", operation.transfers))
        return sha256(repr(parts).encode()).digest()

    def bytes_moved(self) -> list[tuple[int, int]]:
        """(inward, outward) DMA bytes of every phase."""
        moved = [[0, 0] for _ in self.phases]
        for operation in self.operations:
            if isinstance(operation, Issue):
                moved[operation.phase][operation.copy.outward] += operation.copy.size_bytes
        return [(inward, outward) for inward, outward in moved]


@cache
def _digest(program: Program) -> str:
    return sha256(program.content()).hexdigest()


# -- cutting steps into tasks --------------------------------------------------------------------
def _tasks(model: Model, plan: Plan, platform: Platform, rule: Rule) -> Work:
    work, turns = Work(model, plan, platform, rule), fully_connected.Turns()
    indices = {layer.name: index for index, layer in enumerate(model.layers)}
    count = len(model.layers)
    for step in plan.steps[:count]:
        _cut(work, turns, indices[step.layer], step)
    loss_step(work)
    for step in plan.steps[count:]:
        _cut(work, turns, indices[step.layer], step)
    return work


def cut_step(model: Model, index: int, step: LayerStep, platform: Platform, rule: Rule) -> Work:
    """The tasks of one step of one layer alone."""
    plan = Plan(model=model.name, platform=platform.name, steps=(step,), stores="awaited")
    work = Work(model, plan, platform, rule)
    _cut(work, fully_connected.Turns(), index, step)
    return work


def _cut(work: Work, turns: fully_connected.Turns, index: int, step: LayerStep) -> None:
    layer = work.model.layers[index]
    if step.step == "update":
        update_step(work, turns, index, step)
        return
    which = 0 if step.step == "fw" else 1 if "wg" in step.step else 2
    match layer:
        case FullyConnected():
            make = fully_connected.backward if which else fully_connected.forward
            make(work, turns, index, layer, step)
        case Conv2D() | PointWise():
            _MATMULS[which](work, index, layer, step)
        case DepthWise():
            _DEPTHWISE[which](work, index, layer, step)
        case Activation():
            (pooling.activation_gradient if which else pooling.activation_forward)(work, index, layer, step)
        case AveragePool() | MaxPool() | GlobalAveragePool():
            (pooling.pool_gradient if which else pooling.pool_forward)(work, index, layer, step)


_MATMULS = (convolution.forward, convolution.weight_gradient, convolution.input_gradient)
_DEPTHWISE = (depthwise.forward, depthwise.weight_gradient, depthwise.input_gradient)


# -- when loads are issued, and how long buffers live ------------------------------------------------
def _issue_times(tasks: list[Task]) -> list[list[tuple[int, Move]]]:
    """For every task, the (task, load) pairs issued before its first call."""
    issued: list[list[tuple[int, Move]]] = [[] for _ in tasks]
    free_from: dict[str, int] = {}
    for number, task in enumerate(tasks):
        for move in task.loads:
            earliest = max(number - WEIGHT_SLOTS + 1, 0) if move.buffer in free_from else max(number - 1, 0)
            earliest = max(earliest, task.earliest)
            for before in range(earliest, number):  # what the tasks in between store is there to be loaded
                if any(store.overlaps(move) for store in tasks[before].stores):
                    earliest = before + 1
            when = max(earliest, free_from.get(move.buffer, 0))
            when = min(when, number)  # a single-buffered step may have used the slot just now
            issued[when].append((number, move))
        for name in {move.buffer for move in task.loads} | {n for c in task.computes for n in c.reads + c.writes}:
            free_from[name] = number + 1
        for move in task.stores:  # written again only after its store had a task's time
            free_from[move.buffer] = number + 2
    return issued


def _lifetimes(
    tasks: list[Task], issued: list[list[tuple[int, Move]]], sizes: dict[str, int], linger: bool
) -> list[Buffer]:
    """linger: what is stored from keeps its place while the next task runs, so that nobody waits for the store."""
    span: dict[str, list[int]] = {}

    def use(name: str, when: int) -> None:
        span.setdefault(name, [when, when])
        span[name] = [min(span[name][0], when), max(span[name][1], when)]

    for when, moves in enumerate(issued):
        for number, move in moves:
            use(move.buffer, when)
            use(move.buffer, number)
    for number, task in enumerate(tasks):
        for compute in task.computes:
            for name in compute.reads + compute.writes:
                use(name, number)
        for move in task.stores:
            use(move.buffer, number + linger)
    return [Buffer(name, sizes[name], first, last) for name, (first, last) in sorted(span.items())]


# -- emission ------------------------------------------------------------------------------------
class _Emitter:
    """Writes operations, with a wait before any that touches bytes of a transfer under way."""

    def __init__(self, tensors: dict[str, Tensor], buffers: list[Buffer], phases: list[Phase]):
        self.operations: list[Operation] = []
        self._tensors, self._phases = tensors, phases
        self._buffers = {buffer.name: buffer for buffer in buffers}
        self._open: list[tuple[int, Move]] = []
        self._count = 0

    def address(self, name: str) -> int:
        return self._buffers[name].address

    def _same_l1(self, one: str, other: str) -> bool:
        a, b = self._buffers[one], self._buffers[other]
        return a.address < b.end and b.address < a.end

    def _wait(self, needed: list[tuple[int, Move]]) -> None:
        if not needed:
            return
        self.operations.append(Wait(tuple(number for number, _ in needed)))
        # each direction serves its transfers in order: what was issued before these has ended too
        last = {way: max((n for n, m in needed if m.outward == way), default=-1) for way in (False, True)}
        self._open = [(n, m) for n, m in self._open if n > last[m.outward]]

    def move(self, move: Move, phase: int) -> None:
        """Loads wait for stores of the same bytes, and the other way round; so do same-way rewrites."""
        self._wait(
            [
                (n, m)
                for n, m in self._open
                if m.outward != move.outward and (self._same_l1(m.buffer, move.buffer) or m.overlaps(move))
            ]
        )
        tensor = self._tensors[move.tensor]
        (r0, r1), (c0, c1) = move.rows, move.columns
        lines, line_bytes = r1 - r0, 4 * (c1 - c0)
        if move.stride_bytes == line_bytes and c1 - c0 == tensor.columns:
            lines, line_bytes = 1, lines * line_bytes  # one behind the other on both sides
        copy = Copy(
            move.outward, self.address(move.buffer), tensor.address + 4 * (r0 * tensor.columns + c0),
            line_bytes, lines, move.stride_bytes if lines > 1 else 0, 4 * tensor.columns if lines > 1 else 0,
        )  # fmt: skip
        self.operations.append(Issue(self._count, copy, phase))
        self._open.append((self._count, move))
        self._count += 1

    def compute(self, compute: Compute, phase: int) -> None:
        touched = compute.reads + compute.writes
        self._wait(
            [
                (n, m)
                for n, m in self._open
                if any(self._same_l1(m.buffer, name) for name in (compute.writes if m.outward else touched))
            ]
        )
        call = compute.call(self.address)
        if call.name not in self._phases[phase].kernels:
            self._phases[phase].kernels.append(call.name)
        self.operations.append(Fork(call))


def compile_schedule(
    model: Model, plan: Plan, platform: Platform, lr: float, momentum: float = 0.0, weight_decay: float = 0.0
) -> Schedule:
    """Compile one training step. Raises PlanError, ModelError if it does not fit."""
    plan.check(model)
    rule = Rule(lr, float(np.float32(momentum)), float(np.float32(weight_decay)))  # what is zero in FP32 is none
    _check_rule(model, plan, rule)
    return _assemble(_tasks(model, plan, platform, rule), plan)


def compile_step(model: Model, index: int, step: LayerStep, platform: Platform) -> Schedule:
    """Compile one step of one layer alone, as it is timed by itself. Raises L1Error, ModelError."""
    work = cut_step(model, index, step, platform, Rule(0.0))
    return _assemble(work, work.plan, alone=True)


def _assemble(work: Work, plan: Plan, alone: bool = False) -> Schedule:
    """alone: gradients that would stay in L1 come from L2."""
    model, platform, rule = work.model, work.platform, work.rule
    issued = _issue_times(work.tasks)
    buffers = _lifetimes(work.tasks, issued, work.sizes, linger=plan.stores == "overlapped")
    l1_bytes = place_in_l1(buffers, platform)
    code_bytes = _code_bytes(work.tasks)
    tensors = place_in_l2(_tensors(model, plan, platform, rule, alone), code_bytes, platform)
    emitter = _Emitter(tensors, buffers, work.phases)
    phase = -1
    for number, task in enumerate(work.tasks):
        if task.phase != phase:
            phase = task.phase
            emitter.operations.append(Begin(phase))
        for owner, move in issued[number]:
            emitter.move(move, work.tasks[owner].phase)
        for compute in task.computes:
            emitter.compute(compute, phase)
        for move in task.stores:
            emitter.move(move, phase)
    used = max(t.address + t.size_bytes for t in tensors.values())
    return Schedule(
        tuple(emitter.operations), tuple(work.phases), tensors, tuple(buffers), l1_bytes,
        used - min(t.address for t in tensors.values()) + code_bytes, code_bytes,
    )  # fmt: skip


def _check_rule(model: Model, plan: Plan, rule: Rule) -> None:
    """Raises PlanError if a fusion cannot do what the rule asks for."""
    dense = {layer.name for layer in model.layers if isinstance(layer, FullyConnected)}
    for step in plan.steps:
        if not rule.plain and step.layer in dense and step.step.endswith("+update"):
            raise PlanError(
                f"plan: {step.layer} {step.step}: momentum and weight decay need the gradient stored: ig, wg, update"
            )


def _code_bytes(tasks: list[Task]) -> int:
    code = Code()
    for task in tasks:
        for compute in task.computes:
            code.load(compute.call(lambda name: 0).program)
    return code.size_bytes


def _tensors(model: Model, plan: Plan, platform: Platform, rule: Rule, alone: bool) -> list[Tensor]:
    tensors: list[Tensor] = []
    gradients: list[Tensor] = []
    stored = {step.layer for step in plan.steps if step.step in ("wg", "update")}
    for index, layer in enumerate(model.layers):
        for name, shape in layer.parameters.items():
            rows, columns = (1, shape[0]) if name == "b" else (shape[0], prod(shape[1:]))
            tensors.append(Tensor(f"{name}{index}", rows, columns))
            if rule.momentum and layer.trained:
                gradients.append(Tensor(f"v{name}{index}", rows, columns))
            if name == "w" and layer.name in stored:
                gradients.append(Tensor(f"dw{index}", rows, columns))
    tensors.append(Tensor("x0", *matrix(model.input_shape)))
    outputs = [matrix(output) for _, output in model.shapes]
    tensors += [Tensor(f"x{index + 1}", *output) for index, output in enumerate(outputs)]
    if not model.target_is_input:
        tensors.append(Tensor("target", 1, 1 if model.loss == "cross-entropy" else model.outputs))
    tensors.append(Tensor("loss", 1, platform.cluster.cores + 1))
    return (
        tensors
        + gradients
        + [
            Tensor(f"g{index}", *output)
            for index, output in enumerate(outputs)
            if index >= model.lowest_trained and (alone or not fully_connected.stays_in_l1(model, index))
        ]
    )


# -- execution -----------------------------------------------------------------------------------
def execute(
    schedule: Schedule, cluster: Cluster, mark: Callable[[int], None], start_delays: Sequence[int] = ()
) -> Generator[Any, Any, None]:
    """The controller: runs the operations in order; `mark(phase)` is called as each phase begins.

    start_delays: cycles by which each core is late at every fork (default: none).
    """
    numbers: dict[int, int] = {}
    for operation in schedule.operations:  # all code at once: it is decoded once
        if isinstance(operation, Fork):
            cluster.machine.load(operation.call.program)
    for operation in schedule.operations:
        match operation:
            case Begin(phase):
                mark(phase)
            case Issue(transfer, copy):
                numbers[transfer] = yield from cluster.copy(copy)
            case Wait(transfers):
                yield from cluster.wait([numbers[transfer] for transfer in transfers])
            case Fork(call):
                yield from cluster.fork(call.program, call.registers(), start_delays=start_delays)
    yield from cluster.wait(numbers.values())
