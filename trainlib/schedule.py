"""From a Plan to what the controller does: a flat list of DMA commands, waits and forks.

`compile_schedule` cuts every step into tasks, one per tile: loads, kernel calls, stores. Loads are issued
as early as their buffers allow, across layers, so that transfers overlap computation; a wait is inserted
wherever an operation touches bytes of a transfer that may still be under way. `execute` runs the list.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from pulpsim import Cluster, Copy, Platform
from pulpsim.code import Code
from trainlib.kernels import Call, elementwise, fully_connected, loss
from trainlib.layers import FullyConnected
from trainlib.memory_map import Buffer, Tensor, place_in_l1, place_in_l2
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan

#: buffers that tiles of W rotate through, with double buffering; with single buffering it is one
WEIGHT_SLOTS = 3
#: and those of stored weight gradients, for an update on its own
GRADIENT_SLOTS = 2

Addresses = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Move:
    """A DMA transfer between an L1 buffer and a part of a tensor: rows and columns [first, end)."""

    outward: bool
    buffer: str
    tensor: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    stride_bytes: int

    @property
    def size_bytes(self) -> int:
        return 4 * (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])

    def overlaps(self, other: Move) -> bool:
        """Whether both touch the same bytes in L2."""
        return (
            self.tensor == other.tensor
            and self.rows[0] < other.rows[1]
            and other.rows[0] < self.rows[1]
            and self.columns[0] < other.columns[1]
            and other.columns[0] < self.columns[1]
        )


@dataclass(frozen=True, slots=True)
class Compute:
    """A kernel call, made when addresses are known; the buffers it touches."""

    call: Callable[[Addresses], Call]
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(slots=True)
class Task:
    """One tile: what comes in, what is computed, what goes out."""

    phase: int
    single: bool
    loads: list[Move] = field(default_factory=list)
    computes: list[Compute] = field(default_factory=list)
    stores: list[Move] = field(default_factory=list)


@dataclass(slots=True)
class Phase:
    """One step of one layer, as it is reported."""

    layer: str
    step: str
    macs: int
    tile: dict[str, int]
    buffering: str
    kernels: list[str] = field(default_factory=list)


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


# -- cutting steps into tasks --------------------------------------------------------------------
class _Tasks:
    """Collects the tasks of a step; sizes of buffers on the way."""

    def __init__(self, model: Model, plan: Plan, platform: Platform, lr: float):
        self.model, self.plan, self.platform, self.lr = model, plan, platform, lr
        self.cores = platform.cluster.cores
        self.tasks: list[Task] = []
        self.phases: list[Phase] = []
        self.sizes: dict[str, int] = {}
        self._turn = {"weights": 0, "gradients": 0}
        self._steps = {(step.layer, step.step): step for step in plan.steps}

    def build(self) -> None:
        last = len(self.model.layers)
        for index, layer in enumerate(self.model.layers):
            self._forward(index, layer, self._steps[layer.name, "fw"])
        self._loss(last)
        for step in self.plan.steps[last:]:
            index = next(i for i, layer in enumerate(self.model.layers) if layer.name == step.layer)
            if step.step == "update":
                self._update(index, self.model.layers[index], step)
            else:
                self._backward(index, self.model.layers[index], step)

    def _begin(self, layer: str, step: str, macs: int, plan: LayerStep | None) -> None:
        tile = {"rows": plan.tile.rows, "columns": plan.tile.columns} if plan else {}
        self.phases.append(Phase(layer, step, macs, tile, plan.buffering if plan else "single"))

    def _task(self, single: bool = False) -> Task:
        self.tasks.append(Task(len(self.phases) - 1, single))
        return self.tasks[-1]

    def _slot(self, kind: str, step: LayerStep) -> str:
        count = (
            {"weights": WEIGHT_SLOTS, "gradients": GRADIENT_SLOTS}[kind] if step.buffering == "double" else 1
        )
        name = f"{kind} {self._turn[kind] % count}"
        self._turn[kind] += 1
        self.sizes[name] = max(self.sizes.get(name, 0), step.tile.size_bytes)
        return name

    def _vector(self, name: str, words: int) -> str:
        self.sizes[name] = 4 * words
        return name

    def _tiles(
        self, layer: FullyConnected, step: LayerStep, columns_outside: bool
    ) -> Iterator[tuple[int, ...]]:
        rows = [(r, min(r + step.tile.rows, layer.outputs)) for r in range(0, layer.outputs, step.tile.rows)]
        columns = [
            (c, min(c + step.tile.columns, layer.inputs)) for c in range(0, layer.inputs, step.tile.columns)
        ]
        if columns_outside:
            yield from ((*r, *c) for c in columns for r in rows)
        else:
            yield from ((*r, *c) for r in rows for c in columns)

    def _vector_move(self, outward: bool, buffer: str, tensor: str, words: int) -> Move:
        return Move(outward, buffer, tensor, (0, 1), (0, words), 4 * words)

    def _forward(self, index: int, layer: FullyConnected, step: LayerStep) -> None:
        self._begin(layer.name, "fw", layer.macs("fw"), step)
        x, y = self._vector(f"x{index}", layer.inputs), self._vector(f"x{index + 1}", layer.outputs)
        stride, fused = step.tile.stride_bytes, layer.relu and step.relu == "fused"
        begin = len(self.tasks)
        for r0, r1, c0, c1 in self._tiles(layer, step, columns_outside=False):
            w = self._slot("weights", step)
            task = self._task(step.buffering == "single")
            task.loads.append(Move(False, w, f"w{index}", (r0, r1), (c0, c1), stride))

            def call(
                at: Addresses, w: str = w, r0: int = r0, r1: int = r1, c0: int = c0, c1: int = c1
            ) -> Call:
                return fully_connected.forward(
                    at(w), at(x) + 4 * c0, at(y) + 4 * r0, r1 - r0, c1 - c0, stride, self.cores, step.unroll,
                    accumulate=c0 > 0, relu=fused and c1 == layer.inputs,
                )  # fmt: skip

            task.computes.append(Compute(call, (w, x), (y,)))
        last = self.tasks[-1]
        if index == 0:
            self.tasks[begin].loads.append(self._vector_move(False, x, "x0", layer.inputs))
        if layer.relu and not fused:
            last.computes.append(
                Compute(
                    lambda at: elementwise.relu_forward(at(y), at(y), layer.outputs, self.cores), (y,), (y,)
                )
            )
        last.stores.append(self._vector_move(True, y, f"x{index + 1}", layer.outputs))

    def _loss(self, last: int) -> None:
        n = self.model.outputs
        self._begin("loss", "mse", 0, None)
        y, target, pairs = f"x{last}", self._vector("target", n), self._vector(f"d{last - 1}", 2 * n)
        partial = self._vector("partial", self.cores + 1)
        task = self._task()
        task.loads.append(
            self._vector_move(False, target, "x0" if self.model.target_is_input else "target", n)
        )
        task.computes.append(
            Compute(
                lambda at: loss.mse(at(y), at(target), at(pairs), at(partial), n, self.lr, self.cores),
                (y, target),
                (pairs, partial),
            )
        )
        task.stores.append(self._vector_move(True, partial, "loss", self.cores + 1))

    def _backward(self, index: int, layer: FullyConnected, step: LayerStep) -> None:
        self._begin(layer.name, step.step, layer.macs(step.step), step)
        parts = step.step.split("+")
        gradient, update = "ig" in parts, "update" in parts
        pairs, x = f"d{index}", self._vector(f"input {index} {step.step}", layer.inputs)
        dx = self._vector(f"dx{index}", layer.inputs) if gradient else ""
        stride, begin = step.tile.stride_bytes, len(self.tasks)
        for r0, r1, c0, c1 in self._tiles(layer, step, columns_outside=gradient):
            w = self._slot("weights", step)
            task = self._task(step.buffering == "single")
            if step.step != "wg":
                task.loads.append(Move(False, w, f"w{index}", (r0, r1), (c0, c1), stride))

            def call(
                at: Addresses, w: str = w, r0: int = r0, r1: int = r1, c0: int = c0, c1: int = c1
            ) -> Call:
                return fully_connected.backward(
                    step.step, at(w), at(pairs) + 8 * r0, at(x) + 4 * c0, at(dx) + 4 * c0 if dx else 0, at(w),
                    r1 - r0, c1 - c0, stride, self.cores, step.unroll, accumulate=r0 > 0,
                )  # fmt: skip

            written = ((dx,) if dx else ()) + ((w,) if update or step.step == "wg" else ())
            task.computes.append(Compute(call, (w, x, pairs), written))
            if update or step.step == "wg":
                tensor = f"w{index}" if update else f"dw{index}"
                task.stores.append(Move(True, w, tensor, (r0, r1), (c0, c1), stride))
        self.tasks[begin].loads.append(self._vector_move(False, x, f"x{index}", layer.inputs))
        if gradient:
            self.tasks[-1].computes.append(self._gradient_below(index, x, dx))

    def _gradient_below(self, index: int, x: str, dx: str) -> Compute:
        """The gradient pairs of the layer below, through its ReLU: x is that layer's output."""
        below = self.model.layers[index - 1]
        pairs = self._vector(f"d{index - 1}", 2 * below.outputs)
        make = elementwise.relu_backward_pairs if below.relu else elementwise.linear_pairs
        return Compute(
            lambda at: make(at(dx), at(x), at(pairs), self.lr, below.outputs, self.cores), (dx, x), (pairs,)
        )

    def _update(self, index: int, layer: FullyConnected, step: LayerStep) -> None:
        self._begin(layer.name, "update", 0, step)
        for r0, r1, c0, c1 in self._tiles(layer, step, columns_outside=False):
            words = (r1 - r0) * (c1 - c0)
            w, g = self._slot("weights", step), self._slot("gradients", step)
            task = self._task(step.buffering == "single")
            for buffer, tensor in ((w, f"w{index}"), (g, f"dw{index}")):
                task.loads.append(Move(False, buffer, tensor, (r0, r1), (c0, c1), 4 * (c1 - c0)))

            def call(at: Addresses, w: str = w, g: str = g, words: int = words) -> Call:
                return elementwise.sgd_update(at(w), at(g), self.lr, words, self.cores)

            task.computes.append(Compute(call, (w, g), (w,)))
            task.stores.append(Move(True, w, f"w{index}", (r0, r1), (c0, c1), 4 * (c1 - c0)))


# -- when loads are issued, and how long buffers live ------------------------------------------------
def _issue_times(tasks: list[Task]) -> list[list[tuple[int, Move]]]:
    """For every task, the (task, load) pairs issued before its first call."""
    issued: list[list[tuple[int, Move]]] = [[] for _ in tasks]
    free_from: dict[str, int] = {}
    for number, task in enumerate(tasks):
        for move in task.loads:
            earliest = max(number - WEIGHT_SLOTS + 1, 0) if move.buffer in free_from else max(number - 1, 0)
            for before in range(earliest, number):  # what the tasks in between store is there to be loaded
                if any(store.overlaps(move) for store in tasks[before].stores):
                    earliest = before + 1
            when = number if task.single else max(earliest, free_from.get(move.buffer, 0))
            when = min(when, number)  # a single-buffered step may have used the slot just now
            issued[when].append((number, move))
        stored = {move.buffer for move in task.stores}
        for name in {move.buffer for move in task.loads} | stored:
            # a buffer that is stored from is written again only after its store had a task's time
            free_from[name] = number + (2 if name in stored else 1)
    return issued


def _lifetimes(
    tasks: list[Task], issued: list[list[tuple[int, Move]]], sizes: dict[str, int]
) -> list[Buffer]:
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
            use(move.buffer, number)
            use(move.buffer, number + 1)
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
        copy = Copy(
            move.outward, self.address(move.buffer), tensor.address + 4 * (r0 * tensor.columns + c0),
            4 * (c1 - c0), r1 - r0, move.stride_bytes, 4 * tensor.columns,
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


def compile_schedule(model: Model, plan: Plan, platform: Platform, lr: float) -> Schedule:
    """Compile one training step. Raises PlanError, ModelError if it does not fit."""
    plan.check(model)
    work = _Tasks(model, plan, platform, lr)
    work.build()
    issued = _issue_times(work.tasks)
    buffers = _lifetimes(work.tasks, issued, work.sizes)
    l1_bytes, code_bytes = place_in_l1(buffers, platform), _code_bytes(work.tasks)
    tensors = place_in_l2(_tensors(model, plan, platform), code_bytes, platform)
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
        used - min(t.address for t in tensors.values()) + code_bytes,
    )  # fmt: skip


def _code_bytes(tasks: list[Task]) -> int:
    code = Code()
    for task in tasks:
        for compute in task.computes:
            code.load(compute.call(lambda name: 0).program)
    return code.size_bytes


def _tensors(model: Model, plan: Plan, platform: Platform) -> list[Tensor]:
    tensors = [Tensor(f"w{i}", layer.outputs, layer.inputs) for i, layer in enumerate(model.layers)]
    tensors.append(Tensor("x0", 1, model.inputs))
    tensors += [Tensor(f"x{i + 1}", 1, layer.outputs) for i, layer in enumerate(model.layers)]
    if not model.target_is_input:
        tensors.append(Tensor("target", 1, model.outputs))
    tensors.append(Tensor("loss", 1, platform.cluster.cores + 1))
    stored = {step.layer for step in plan.steps if step.step == "wg"}
    tensors += [
        Tensor(f"dw{i}", layer.outputs, layer.inputs)
        for i, layer in enumerate(model.layers)
        if layer.name in stored
    ]
    return tensors


# -- execution -----------------------------------------------------------------------------------
def execute(schedule: Schedule, cluster: Cluster, mark: Callable[[int], None]) -> Generator[Any, Any, None]:
    """The controller: runs the operations in order; `mark(phase)` is called as each phase begins."""
    numbers: dict[int, int] = {}
    for operation in schedule.operations:
        match operation:
            case Begin(phase):
                mark(phase)
            case Issue(transfer, copy):
                numbers[transfer] = yield from cluster.copy(copy)
            case Wait(transfers):
                yield from cluster.wait([numbers[transfer] for transfer in transfers])
            case Fork(call):
                yield from cluster.fork(call.program, call.registers())
    yield from cluster.wait(numbers.values())
