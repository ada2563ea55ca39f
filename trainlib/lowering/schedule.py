"""From a Plan to what the controller does: a flat list of DMA commands, waits and forks.

`compile_schedule` cuts every step into tasks, one per tile: loads, kernel calls, stores. Loads are issued
as early as their buffers allow, across layers, so that transfers overlap computation; a wait is inserted
wherever an operation touches bytes of a transfer that may still be under way. `execute` runs the list.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from msgspec.structs import replace

from pulpsim import Controller, Copy, Platform, Program
from pulpsim.code import Code
from pulpsim.trace import Label
from trainlib.errors import PlanError
from trainlib.graph import Node
from trainlib.kernels import Call
from trainlib.lowering.hazards import debugging, verify
from trainlib.lowering.loss import loss_step
from trainlib.lowering.memory_map import (
    Buffer,
    Tensor,
    behind_other_code,
    place_in_l1,
    place_in_l2,
    used_bytes,
)
from trainlib.lowering.names import Names
from trainlib.lowering.operations import Begin, Fork, Issue, Operation, Schedule, Wait
from trainlib.lowering.sum import sum_step
from trainlib.lowering.tasks import WEIGHT_SLOTS, Compute, Move, Phase, Task, Work
from trainlib.lowering.tensors import tensors_of
from trainlib.lowering.update import update_step
from trainlib.model import Model
from trainlib.optimizers import PLAIN, Optimizer
from trainlib.plan import SUM, LayerStep, Plan, Vectors, check_step, forward_steps, require_step


# -- cutting steps into tasks --------------------------------------------------------------------
def tasks_of(
    model: Model, plan: Plan, platform: Platform, optimizer: Optimizer, outlined: bool = False,
    first: int = 0, end: int | None = None,
) -> Work:  # fmt: skip
    """The tasks of a whole training step. outlined: as in `Work`. first, end: only of these steps of the plan, and of
    the loss if it is beside one of them."""
    work = Work(model, plan, platform, optimizer, outlined)
    nodes = {node.name: node for node in model.nodes}
    count = sum(step.step == "fw" for step in plan.steps)
    end = len(plan.steps) if end is None else end
    for step in plan.steps[first : min(count, end)]:
        _cut(work, nodes[step.layer], step)
    if first <= count <= end:
        loss_step(work)
    for step in plan.steps[max(count, first) : end]:
        _cut(work, nodes[step.layer], step)
    return work


def cut_step(
    model: Model, index: int, step: LayerStep, platform: Platform, optimizer: Optimizer = PLAIN,
    vectors: Vectors = "resident", outlined: bool = False, counted: bool = False,
) -> Work:  # fmt: skip
    """The tasks of one step of one layer alone. outlined, counted: as in `Work`."""
    plan = Plan(model=model.name, platform=platform.name, steps=(step,), stores="awaited", vectors=vectors)
    work = Work(model, plan, platform, optimizer, outlined, counted)
    _cut(work, model.nodes[index], step)
    return work


def _cut(work: Work, node: Node, step: LayerStep) -> None:
    require_step(node.layer, step.step)
    if step.step == "update":
        update_step(work, node, step)
    elif step.step == SUM:
        sum_step(work, node, step)
    else:
        node.layer.lower(work, node, step)


# -- when loads are issued, and how long buffers live ------------------------------------------------
def issue_times(work: Work) -> list[list[tuple[int, Move]]]:
    """For every task, the (task, load) pairs issued before its first call."""
    tasks, whole = work.tasks, _whole(work)
    issued: list[list[tuple[int, Move]]] = [[] for _ in tasks]
    free_from: dict[str, int] = {}
    for number, task in enumerate(tasks):
        for move in task.loads:
            earliest = max(number - WEIGHT_SLOTS + 1, 0) if move.buffer in free_from else max(number - 1, 0)
            earliest = max(earliest, task.earliest)
            for before in range(earliest, number):  # what the tasks in between store is there to be loaded
                if any(store.overlaps(move, whole) for store in tasks[before].stores):
                    earliest = before + 1
            when = max(earliest, free_from.get(move.buffer, 0))
            when = min(when, number)  # a single-buffered step may have used the slot just now
            issued[when].append((number, move))
        for move in task.loads:
            free_from[move.buffer] = number + 1
        for compute in task.computes:
            for name in compute.reads + compute.writes:
                free_from[name] = number + 1
        for move in task.stores:  # written again only after its store had a task's time
            free_from[move.buffer] = number + 2
    return issued


def _lifetimes(
    tasks: list[Task], issued: list[list[tuple[int, Move]]], sizes: dict[str, int], linger: bool
) -> list[Buffer]:
    """linger: what is stored from keeps its place while the next task runs, so that nobody waits for the store."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}

    def use(name: str, when: int) -> None:
        if when < first.setdefault(name, when):
            first[name] = when
        if when > last.setdefault(name, when):
            last[name] = when

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
    return [Buffer(name, sizes[name], first[name], last[name]) for name in sorted(first)]


# -- emission ------------------------------------------------------------------------------------
def copies(move: Move, tensor: Tensor, l1: int, platform: Platform) -> list[Copy]:
    """The DMA commands of a move whose buffer is at `l1`."""
    (r0, r1), (c0, c1) = move.rows, move.columns
    lines, line_bytes, l2_stride = r1 - r0, 4 * (c1 - c0), 4 * (move.width or tensor.columns)
    if move.stride_bytes == line_bytes == l2_stride:
        lines, line_bytes = 1, lines * line_bytes  # one behind the other on both sides
    strides = (move.stride_bytes, l2_stride) if lines > 1 else (0, 0)
    outside = tensor.address + r0 * l2_stride + 4 * c0
    whole = Copy(move.outward, l1 + move.offset_bytes, outside, line_bytes, lines, *strides)
    return whole.pieces(platform)


class _Emitter:
    """Writes operations, with a wait before any that touches bytes of a transfer under way."""

    def __init__(
        self, tensors: dict[str, Tensor], buffers: list[Buffer], phases: list[Phase], platform: Platform,
        whole: Mapping[str, str],
    ):  # fmt: skip
        self.operations: list[Operation] = []
        self._tensors, self._phases, self._platform, self._whole = tensors, phases, platform, whole
        self._buffers = {buffer.name: buffer for buffer in buffers}
        self._spans = [(buffer.name, buffer.address, buffer.end) for buffer in buffers]
        self._near: dict[tuple[str, ...], set[str]] = {}  # see `_sharing`
        self._open: tuple[list[tuple[int, Move]], list[tuple[int, Move]]] = [], []  # inward and outward, in their order
        self._count = 0
        self.task = 0

    def _sharing(self, names: tuple[str, ...]) -> set[str]:
        """Names of all buffers that share bytes of L1 with any of these."""
        if names not in self._near:
            found = self._near[names] = set()
            for own in map(self._buffers.__getitem__, names):
                begin, end = own.address, own.end
                found |= {name for name, low, high in self._spans if low < end and begin < high}
        return self._near[names]

    def _wait(self, inward: list[int], outward: list[int]) -> None:
        """For transfers by number."""
        if not inward and not outward:
            return
        self.operations.append(Wait(tuple(sorted(inward + outward))))
        # each direction serves its transfers in order: what was issued before these has ended too
        for under_way, needed in zip(self._open, (inward, outward), strict=True):
            if needed:
                del under_way[: bisect(under_way, needed[-1], key=itemgetter(0))]

    def move(self, move: Move, phase: int, of: int) -> None:
        """Loads wait for stores of the same bytes, and the other way round; so do same-way rewrites. of: the task."""
        near = self._sharing((move.buffer,))
        met = [n for n, m in self._open[not move.outward] if m.buffer in near or m.overlaps(move, self._whole)]
        inward, outward = (met, []) if move.outward else ([], met)
        self._wait(inward, outward)
        address = self._buffers[move.buffer].address
        for copy in copies(move, self._tensors[move.tensor], address, self._platform):
            self.operations.append(Issue(self._count, copy, phase, self.task, of, move.tensor))
            self._open[move.outward].append((self._count, move))
            self._count += 1

    def compute(self, compute: Compute, call: Call, phase: int) -> None:
        """call: what it is, its buffers being where they are."""
        touched, written = self._sharing(compute.reads + compute.writes), self._sharing(compute.writes)
        inward, outward = self._open
        self._wait([n for n, m in inward if m.buffer in touched], [n for n, m in outward if m.buffer in written])
        self._phases[phase].note(call)
        self.operations.append(Fork(call, self.task))


def compile_schedule(
    model: Model, plan: Plan, platform: Platform, optimizer: Optimizer = PLAIN
) -> Schedule:
    """Compile one training step. Of the optimizer it hangs on the kind, not on its numbers.

    Raises PlanError, ModelError if it does not fit and, if PULPSIM_DEBUG says so, HazardError: see `hazards.verify`.
    """
    plan.check(model)
    if plan.cores > platform.cluster.cores:
        raise PlanError(f"plan: cores = {plan.cores}: {platform.name} has {platform.cluster.cores}")
    schedule = _assemble(tasks_of(model, plan, platform, optimizer), plan)
    if debugging():
        verify(schedule, platform)
    return schedule


def compile_forward(model: Model, plan: Plan, platform: Platform, step: Schedule | None = None) -> Schedule:
    """Compile the forward pass alone: the plan's steps "fw", those of layers that the model has.

    step: the model's whole step by the plan, in whose buffers it runs; what else is there in a step never makes a
    buffer of the forward pass live shorter. Raises PlanError for a step "fw", L1Error, ModelError and HazardError.
    """
    work = Work(model, plan, platform, PLAIN)
    steps = {step.layer: step for step in plan.steps if step.step == "fw"}
    for node in model.nodes:
        for _ in forward_steps(node):
            check_step(model, node.number, steps[node.name], f"plan, {node.name} fw")
            _cut(work, node, steps[node.name])
    schedule = _assemble(work, plan, {} if step is None else {buffer.name: buffer for buffer in step.buffers})
    if debugging():
        verify(schedule, platform)
    return schedule


def compile_part(model: Model, plan: Plan, platform: Platform, first: int, end: int) -> Schedule:
    """Compile the steps [first, end) of a plan alone, as they are in its whole step: all of that if these are all.

    What lives in L1 beside them only for the sake of others has no place there. Raises PlanError, L1Error, ModelError.
    """
    return _assemble(tasks_of(model, plan, platform, PLAIN, first=first, end=end), plan)


def compile_step(
    model: Model, index: int, step: LayerStep, platform: Platform, vectors: Vectors = "resident",
    like: Schedule | None = None,
) -> Schedule:  # fmt: skip
    """Compile one step of one layer alone, as it is timed by itself. Raises PlanError, L1Error, ModelError.

    like: the same but for its kernel or unroll, if that is there: all else is then taken from it.
    """
    check_step(model, index, step, f"{step.layer} {step.step}")
    work = cut_step(model, index, step, platform, vectors=vectors)
    return _assemble(work, work.plan) if like is None else _exchanged(work, like)


def place_buffers(
    model: Model, plan: Plan, platform: Platform, optimizer: Optimizer, outlined: bool = False
) -> tuple[list[Buffer], int]:
    """What a compiled step has in L1, placed, and the bytes used; nothing else is made. Raises L1Error.

    outlined: with the first and last tiles of every step only, fast for any tiles. What does not fit then does not
    fit whole either.
    """
    work = tasks_of(model, plan, platform, optimizer, outlined)
    return _place_buffers(work, plan, issue_times(work))


def _whole(work: Work) -> dict[str, str]:
    """Of what tensors others are parts."""
    return {view.name: view.of for view in work.views.values()}


def _place_buffers(
    work: Work, plan: Plan, issued: list[list[tuple[int, Move]]], known: Mapping[str, Buffer] | None = None
) -> tuple[list[Buffer], int]:
    """known: buffers that have their places."""
    buffers = _lifetimes(work.tasks, issued, work.sizes, linger=plan.stores == "overlapped")
    if not known:
        return buffers, place_in_l1(buffers, work.platform)
    for buffer in buffers:
        buffer.address = known[buffer.name].address
    return buffers, used_bytes(buffers, work.platform)


def _assemble(work: Work, plan: Plan, known: Mapping[str, Buffer] | None = None) -> Schedule:
    platform, whole = work.platform, _whole(work)
    issued = issue_times(work)
    buffers, l1_bytes = _place_buffers(work, plan, issued, known)
    calls = _calls(work.tasks, buffers)
    code_bytes = _code_bytes(calls)
    tensors = place_in_l2(tensors_of(work), code_bytes, platform)
    emitter = _Emitter(tensors, buffers, work.phases, platform, whole)
    phase = -1
    for number, task in enumerate(work.tasks):
        emitter.task = number
        if task.phase != phase:
            phase = task.phase
            emitter.operations.append(Begin(phase, number))
        for owner, move in issued[number]:
            emitter.move(move, work.tasks[owner].phase, owner)
        for compute, call in zip(task.computes, calls[number], strict=True):
            emitter.compute(compute, call, phase)
        for move in task.stores:
            emitter.move(move, phase, number)
    work.dissolve()
    used = max(t.end for t in tensors.values()) - min(t.address for t in tensors.values())
    return Schedule(
        tuple(emitter.operations), tuple(work.phases), tensors, tuple(buffers), l1_bytes, used + code_bytes, code_bytes,
    )  # fmt: skip


def _exchanged(work: Work, like: Schedule) -> Schedule:
    """`like` with other calls in the place of its own: those of the same tasks with another kernel."""
    calls = _calls(work.tasks, like.buffers)
    code_bytes = _code_bytes(calls)
    tensors, shift = behind_other_code(like.tensors, like.code_bytes, code_bytes, work.platform)
    operations, forked, phase = list[Operation](), chain.from_iterable(calls), -1
    for operation in like.operations:
        if isinstance(operation, Fork):
            operation = Fork(next(forked), operation.task)
            work.phases[phase].note(operation.call)
        elif isinstance(operation, Issue) and shift:
            operation = replace(operation, copy=replace(operation.copy, l2=operation.copy.l2 + shift))
        elif isinstance(operation, Begin):
            phase = operation.phase
        operations.append(operation)
    work.dissolve()
    return Schedule(
        tuple(operations), tuple(work.phases), tensors, like.buffers, like.l1_bytes,
        like.l2_bytes - like.code_bytes + code_bytes, code_bytes,
    )  # fmt: skip


def _calls(tasks: Sequence[Task], buffers: Sequence[Buffer]) -> list[list[Call]]:
    """Of every task. buffers: placed."""
    addresses = {buffer.name: buffer.address for buffer in buffers}
    return [[compute.call(addresses.__getitem__) for compute in task.computes] for task in tasks]


def _code_bytes(calls: list[list[Call]]) -> int:
    return _size_of(tuple(dict.fromkeys(call.program for call in chain.from_iterable(calls))))


@cache
def _size_of(programs: tuple[Program, ...]) -> int:
    """Bytes of L2 that programs take together."""
    code = Code()
    for program in programs:
        code.load(program)
    return code.size_bytes


# -- execution -----------------------------------------------------------------------------------
def execute(
    schedule: Schedule, cluster: Controller, mark: Callable[[int], None], start_delays: Sequence[int] = (),
    scalars: Mapping[str, np.generic] | None = None, before_fork: Callable[[], None] = lambda: None,
) -> Generator[Any, Any, None]:
    """The controller: runs the operations in order; `mark(phase)` is called as each phase begins, `before_fork` before
    every fork.

    One with a core of its own holds commands that come after a call back until the call has ended or the next one
    has begun, and forks that one without a rest: what stands between them may run beside either.

    start_delays: cycles by which each core is late at every fork (default: none). scalars: the numbers of the step, by
    name: see `Call.registers`.
    """
    for program in schedule.programs:  # all code at once: it is decoded once
        cluster.machine.load(program)
    names = None if cluster.timeline is None else Names(schedule)
    numbers: dict[int, int] = {}
    held: list[Issue] = []

    def label(operation: Issue | Fork) -> Label | None:
        return None if names is None else names.of(operation)

    def issue() -> Generator[Any, Any, None]:
        for operation in held:
            numbers[operation.transfer] = yield from cluster.copy(operation.copy, label(operation))
        held.clear()

    for operation in schedule.operations:
        if isinstance(operation, Issue):
            held.append(operation)
            if not cluster.running:
                yield from issue()
        elif isinstance(operation, Wait):
            transfers = operation.transfers
            if cluster.running:
                needed = any(command.transfer in transfers for command in held)
                yield from cluster.join(unless=() if needed else [numbers[transfer] for transfer in transfers])
            if held and not cluster.running:
                yield from issue()
            yield from cluster.wait([numbers[transfer] for transfer in transfers])
        elif isinstance(operation, Fork):
            before_fork()
            call = operation.call
            registers, name = call.registers(scalars), label(operation)
            yield from cluster.fork(call.program, registers, start_delays=start_delays, label=name)
            if held:
                yield from issue()
        else:
            yield from cluster.join()
            yield from issue()
            mark(operation.phase)
    yield from cluster.join()
    yield from issue()
    yield from cluster.wait(numbers.values())
