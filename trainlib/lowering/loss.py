"""The loss and its gradient: of the network's output at once, in L1, or in parts.

A part is some numbers of every core's share of the output, [cores, numbers] of [cores, share]: a core's sum goes on
from part to part in the order that it has without parts, so that no bit of the loss or the gradient hangs on them.
The smallest part is one number a core. Parts come from L2 and, unless the gradient is pairs for a fully-connected
layer, go there; the next one comes while one is computed. Cross-entropy takes them three times.
"""

from __future__ import annotations

from collections.abc import Iterator

from pulpsim import Platform
from trainlib.errors import unknown_loss
from trainlib.kernels import Call, classification, loss
from trainlib.kernels.partition import Part
from trainlib.lowering.memory_map import LOSS, TARGET
from trainlib.lowering.tasks import Addresses, Range, Slots, Task, Work, matrix
from trainlib.model import Model
from trainlib.operators.dense_resident import linear_pairs, whole
from trainlib.optimizers import PLAIN
from trainlib.plan import Plan, Vectors

#: the losses that there are kernels of
TIMED = ("mse", "l1", "cross-entropy")


def loss_step(work: Work) -> None:
    """A last layer whose output stays in L1 takes the gradient as pairs there, others read it from L2."""
    if work.model.loss not in TIMED:
        raise unknown_loss(work.model.name, work.model.loss, "timed")
    work.begin("loss", work.model.loss, 0, None)
    parts = _parts(work)
    if len(parts) == 1:
        _at_once(work)
        return
    phase = work.phases[-1]
    phase.tile, phase.buffering = {"columns": work.all_cores * parts[0].width}, "double"
    (_classification if work.model.loss == "cross-entropy" else _regression)(_Loss(work, parts))


def loss_bytes(model: Model, platform: Platform, loss_tile: int, vectors: Vectors = "resident") -> int:
    """Bytes of all buffers of the loss with these fields of a `Plan`, pairs that it leaves in L1 among them."""
    plan = Plan(model=model.name, platform=platform.name, steps=(), loss_tile=loss_tile, vectors=vectors)
    work = Work(model, plan, platform, PLAIN, outlined=True)
    loss_step(work)
    return work.buffer_bytes


def _parts(work: Work) -> list[Part]:
    n, cores, tile = work.model.outputs, work.all_cores, work.plan.loss_tile
    share = Part.whole(n, cores).width
    width = max(tile // cores, 1) if 0 < tile < n else share
    return [Part(n, cores, first, end) for first, end in work.parts(share, width)]


# -- at once ---------------------------------------------------------------------------------------
def _at_once(work: Work) -> None:
    model, value, n = work.model, work.graph.output, work.model.outputs
    last = value.number - 1
    y = work.buffer(f"x{value.number}", n)
    partial = work.buffer("partial", _partial_words(work, parts=False))
    target = work.buffer("target", 1 if model.loss == "cross-entropy" else n)
    task = work.task()
    pairs = work.stays_in_l1(value)
    if not pairs:
        task.loads.append(whole(False, y, value.tensor, value))
    rows, columns = matrix(model.input_shape) if model.target_is_input else (1, work.sizes[target] // 4)
    task.load(target, work.graph.sample.tensor if model.target_is_input else TARGET, (0, rows), (0, columns))
    fused = pairs and model.loss == "mse"
    gradient = work.buffer(f"d{last}" if fused else f"g{last}", 2 * n if fused else n)

    def call(at: Addresses) -> Call:
        if fused:
            return loss.mse(at(y), at(target), at(gradient), at(partial), n, work.lr, work.all_cores)
        operands = at(y), at(target), at(gradient), at(partial), n, work.all_cores
        if model.loss == "cross-entropy":
            return classification.cross_entropy(*operands)
        return loss.mse_gradient(*operands) if model.loss == "mse" else loss.l1(*operands)

    task.compute(call, (y, target), (gradient, partial))
    if pairs and not fused:
        linear_pairs(work, task, gradient, work.graph.nodes[last])
    elif not pairs:
        task.stores.append(whole(True, gradient, value.gradient, value))
    _store_loss(work, task, partial)


def _partial_words(work: Work, parts: bool) -> int:
    classes = work.model.loss == "cross-entropy"
    return classification.partial_words(work.all_cores, parts) if classes else work.all_cores + 1


def _store_loss(work: Work, task: Task, partial: str) -> None:
    task.store(partial, LOSS, (0, 1), (0, work.all_cores + 1))


# -- in parts --------------------------------------------------------------------------------------
class _Loss:
    """What the passes over an output share: its parts, where they are moved to, the buffers that stay."""

    def __init__(self, work: Work, parts: list[Part]):
        self.work, self.parts, value = work, parts, work.graph.output
        self.y, self.gradient, self.n = value.tensor, value.gradient, work.model.outputs
        self.partial = work.buffer("partial", _partial_words(work, parts=True))
        self.pairs = work.buffer(f"d{value.number - 1}", 2 * self.n) if work.stays_in_l1(value) else ""
        self._first = len(work.tasks)

    def task(self) -> Task:
        return self.work.task(earliest=self._first)

    def slots(self, name: str) -> Slots:
        return Slots(self.work, f"loss {name}", 2)

    def load(self, task: Task, slots: Slots, tensor: str, part: Part) -> str:
        """The buffer where the part is."""
        slots.take(part, part.count)
        for rows, columns, offset in _rectangles(part):
            task.load(slots.buffer, tensor, rows, columns, 4 * part.width, offset, part.chunk)
        return slots.buffer

    def store(self, task: Task, buffer: str, tensor: str, part: Part) -> None:
        for rows, columns, offset in _rectangles(part):
            task.store(buffer, tensor, rows, columns, 4 * part.width, offset, part.chunk)

    def given(self, part: Part) -> tuple[str, ...]:
        """The sums up to a part, if there are any."""
        return () if part.begins else (self.partial,)


def _rectangles(part: Part) -> Iterator[tuple[Range, Range, int]]:
    """(cores, numbers of their shares, bytes before them in L1): the whole shares, then the shorter one."""
    yield (0, part.shares), (part.first, part.end), 0
    if part.rest:
        rows, columns = (part.shares, part.shares + 1), (part.first, part.first + part.rest)
        yield rows, columns, 4 * part.shares * part.width


def _regression(s: _Loss) -> None:
    work = s.work
    y_slots, target_slots, gradient_slots = s.slots("y"), s.slots("target"), s.slots("gradient")
    wanted = work.graph.sample.tensor if work.model.target_is_input else TARGET
    for part in s.parts:
        task = s.task()
        y = s.load(task, y_slots, s.y, part)
        target = s.load(task, target_slots, wanted, part)
        if not s.pairs:
            gradient_slots.take(part, part.count)
        gradient = s.pairs or gradient_slots.buffer

        def call(
            at: Addresses, y: str = y, target: str = target, gradient: str = gradient, part: Part = part
        ) -> Call:
            operands, mean_square = (at(y), at(target), at(gradient), at(s.partial), s.n), work.model.loss == "mse"
            if s.pairs:
                return (loss.mse if mean_square else loss.l1_pairs)(*operands, work.lr, work.all_cores, part)
            return (loss.mse_gradient if mean_square else loss.l1)(*operands, work.all_cores, part)

        task.compute(call, (y, target, *s.given(part)), (gradient, s.partial))
        if not s.pairs:
            s.store(task, gradient, s.gradient, part)
    _store_loss(work, task, s.partial)


def _classification(s: _Loss) -> None:
    y_slots, e_slots, label = s.slots("y"), s.slots("gradient"), s.work.buffer("target", 1)
    for part in s.parts:
        task = s.task()
        _largest(s, task, s.load(task, y_slots, s.y, part), part)
    task.load(label, TARGET, (0, 1), (0, 1))
    for part in s.parts:
        task = s.task()
        y = s.load(task, y_slots, s.y, part)
        if not s.pairs:
            e_slots.take(("exponentials", part), part.count)
        _exponentials(s, task, y, label, s.pairs or e_slots.buffer, part)
        if not s.pairs:
            s.store(task, e_slots.buffer, s.gradient, part)
    _store_loss(s.work, task, s.partial)
    for part in [] if s.pairs else s.parts:
        task = s.task()
        e = s.load(task, e_slots, s.gradient, part)
        _probabilities(s, task, e, label, part)
        s.store(task, e, s.gradient, part)
    if s.pairs:
        _probabilities(s, s.task(), s.pairs, label, Part.whole(s.n, s.work.all_cores))


def _largest(s: _Loss, task: Task, y: str, part: Part) -> None:
    reads = (y, *s.given(part))
    task.compute(lambda at: classification.largest(at(y), at(s.partial), part), reads, (s.partial,))


def _exponentials(s: _Loss, task: Task, y: str, label: str, e: str, part: Part) -> None:
    def call(at: Addresses) -> Call:
        return classification.exponentials(at(y), at(label), at(e), at(s.partial), part, bool(s.pairs))

    task.compute(call, (y, label, s.partial), (e, s.partial))


def _probabilities(s: _Loss, task: Task, e: str, label: str, part: Part) -> None:
    def call(at: Addresses) -> Call:
        if s.pairs:
            return classification.probability_pairs(at(e), at(label), at(s.partial), s.work.lr, part)
        return classification.probabilities(at(e), at(label), at(s.partial), part)

    task.compute(call, (e, label, s.partial), (e,))
