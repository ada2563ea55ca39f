"""What both ways to run fully-connected layers share: tiles of W that rotate through slots, and the bias."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainlib.kernels import elementwise, layout
from trainlib.lowering.finish import update
from trainlib.lowering.tasks import Range, Task, Work, size
from trainlib.plan import LayerStep

if TYPE_CHECKING:
    from trainlib.graph import Node


class Tile:
    """A tile of W in L1, with its velocities behind it where the step moves them."""

    def __init__(self, work: Work, node: Node, step: LayerStep, rows: Range, columns: Range):
        self.node, self.step, self.rows, self.columns = node, step, rows, columns
        self.moving = bool(work.rule.momentum) and "update" in step.step
        self.buffer = work.turns.take(work, step, step.tile.size_bytes // 4 * (1 + self.moving))

    def load(self, task: Task) -> None:
        """A weight gradient that is only stored needs no weights."""
        if self.step.step != "wg":
            task.load(self.buffer, self.node.parameter("w"), *self._place)
        if self.moving:
            task.load(self.buffer, self.node.parameter("w", "velocity"), *self._place, self._velocities)

    def store(self, task: Task) -> None:
        """What the step has made in its place, if anything."""
        if "wg" in self.step.step.split("+"):
            tensor = self.node.parameter("w", "" if "update" in self.step.step else "d")
            task.store(self.buffer, tensor, *self._place)
        if self.moving:
            task.store(self.buffer, self.node.parameter("w", "velocity"), *self._place, self._velocities)

    @property
    def _place(self) -> tuple[Range, Range, int]:
        return self.rows, self.columns, self.step.tile.stride_bytes

    @property
    def _velocities(self) -> int:
        return size(self.rows) * self.step.tile.stride_bytes


def tiles(work: Work, node: Node, step: LayerStep, columns_outside: bool) -> Iterator[tuple[Range, Range]]:
    """(rows, columns) of the tiles of W, in the order of their turns."""
    outputs, inputs, _ = node.limits(step.step)
    rows, columns = work.parts(outputs, step.tile.rows), work.parts(inputs, step.tile.columns)
    if columns_outside:
        yield from ((r, c) for c in columns for r in rows)
    else:
        yield from ((r, c) for r in rows for c in columns)


def update_bias(work: Work, task: Task, node: Node, rows: Range, names: tuple[str, str, str]) -> None:
    """The bias of `rows` from the gradients among their pairs. names: of the buffers of pairs, bias and pairs apart."""
    n, (pairs, b, apart) = size(rows), names
    work.buffer(b, n)
    task.load(b, node.parameter("b"), (0, 1), rows)
    if not work.rule.plain:
        parts = work.buffer(apart, 2 * n)  # all d, then all -(lr d)
        task.compute(lambda at: layout.transpose(at(pairs), at(parts), n, 2, 8, 4 * n, work.cores), (pairs,), (parts,))
        update(work, task, b, parts, node.parameter("b"), (0, 1), rows)
        return
    task.compute(
        lambda at: elementwise.sgd_update_from_pairs(at(b), at(pairs), work.lr, n, work.cores), (b, pairs), (b,)
    )
    task.store(b, node.parameter("b"), (0, 1), rows)
