"""What both ways to run fully-connected layers share: tiles of W that rotate through slots, and the bias."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainlib.kernels import Call, elementwise, fully_connected, layout
from trainlib.kernels.optimizer import PLAIN
from trainlib.lowering.finish import update
from trainlib.lowering.tasks import Addresses, Range, Task, Work, size
from trainlib.plan import LayerStep

if TYPE_CHECKING:
    from trainlib.graph import Node


#: a buffer in L1, and a place in it in bytes
Place = tuple[str, int]


class Tile:
    """A tile of W in L1.

    Where the kernels of the backward pass apply the optimizer's rule, the velocities, if there are any, are behind it.
    Where they cannot, rows lie one behind the other, and the update is a call of its own with a gradient in L1.
    """

    def __init__(self, work: Work, node: Node, step: LayerStep, rows: Range, columns: Range):
        self.work, self.node, self.step, self.rows, self.columns = work, node, step, rows, columns
        updates = "update" in step.step.split("+")
        self.apart = updates and work.fused is None
        self.moving = updates and not self.apart and bool(work.optimizer.states)
        self.stride_bytes = 4 * size(columns) if self.apart else step.tile.stride_bytes
        self.buffer = work.turns.take(work, step, step.tile.size_bytes // 4 * (1 + self.moving))

    def load(self, task: Task) -> None:
        """A weight gradient that is only stored or added up needs no weights."""
        parts = self.step.step.split("+")
        if "wg" not in parts or "ig" in parts or ("update" in parts and self.work.updates):
            task.load(self.buffer, self.node.parameter("w"), *self._place)
        if self.moving:
            task.load(self.buffer, self._velocity, *self._place, self._velocities)

    def multiply(self, task: Task, pairs: Place, x: Place, dx: Place | None, accumulate: bool) -> None:
        """The calls of a backward step, which read (d, -(lr d)) of the rows and x of the columns, and write dx."""
        if not self.apart:
            self._call(task, self.step.step, self.buffer, pairs, x, dx, accumulate)
            return
        gradient = self.work.buffer("gradient of weights", self.step.tile.rows * self.step.tile.columns)
        if dx:
            self._call(task, "ig", self.buffer, pairs, x, dx, accumulate)
        self._call(task, "wg", gradient, pairs, x, None, False)
        update(self.work, task, self.buffer, gradient, self.node.parameter("w"), self.rows, self.columns)

    def _call(
        self, task: Task, step: str, target: str, pairs: Place, x: Place, dx: Place | None, accumulate: bool
    ) -> None:
        work, rule = self.work, self.work.fused or PLAIN

        def place(at: Addresses, operand: Place | None) -> int:
            return at(operand[0]) + operand[1] if operand else 0

        def call(at: Addresses) -> Call:
            return fully_connected.backward(
                step, at(self.buffer), place(at, pairs), place(at, x), place(at, dx), at(target), size(self.rows),
                size(self.columns), self.stride_bytes, work.cores, self.step.unroll, accumulate, rule,
            )  # fmt: skip

        written = ((dx[0],) if dx else ()) + ((target,) if "wg" in step.split("+") else ())
        task.compute(call, (self.buffer, x[0], pairs[0]), written)

    def store(self, task: Task) -> None:
        """What the step has made in its place, if anything that is not stored yet."""
        if "wg" in self.step.step.split("+") and not self.apart:
            tensor = self.node.parameter("w", "" if "update" in self.step.step else "d")
            task.store(self.buffer, tensor, *self._place)
        if self.moving:
            task.store(self.buffer, self._velocity, *self._place, self._velocities)

    @property
    def _velocity(self) -> str:
        (state,) = self.work.optimizer.states
        return self.node.parameter("w", state)

    @property
    def _place(self) -> tuple[Range, Range, int]:
        return self.rows, self.columns, self.stride_bytes

    @property
    def _velocities(self) -> int:
        return size(self.rows) * self.stride_bytes


def tiles(work: Work, node: Node, step: LayerStep, columns_outside: bool) -> Iterator[tuple[Range, Range]]:
    """(rows, columns) of the tiles of W, in the order of their turns."""
    outputs, inputs, _ = node.limits(step.step)
    rows, columns = work.parts_alike(outputs, step.tile.rows), work.parts_alike(inputs, step.tile.columns)
    if columns_outside:
        yield from ((r, c) for c in columns for r in rows)
    else:
        yield from ((r, c) for r in rows for c in columns)


def update_bias(work: Work, task: Task, node: Node, rows: Range, names: tuple[str, str, str]) -> None:
    """The bias of `rows` from the gradients among their pairs. names: of the buffers of pairs, bias and pairs apart."""
    n, (pairs, b, apart) = size(rows), names
    work.buffer(b, n)
    if work.updates:
        task.load(b, node.parameter("b"), (0, 1), rows)
    if not work.plain:
        parts = work.buffer(apart, 2 * n)  # all d, then all -(lr d)
        task.compute(lambda at: layout.transpose(at(pairs), at(parts), n, 2, 8, 4 * n, work.cores), (pairs,), (parts,))
        update(work, task, b, parts, node.parameter("b"), (0, 1), rows)
        return
    task.compute(
        lambda at: elementwise.sgd_update_from_pairs(at(b), at(pairs), work.lr, n, work.cores), (b, pairs), (b,)
    )
    task.store(b, node.parameter("b"), (0, 1), rows)
