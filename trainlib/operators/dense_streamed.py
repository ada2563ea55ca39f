"""Fully-connected layers wider than L1: parts of their vectors come from L2 with the tiles of W, and go back there.

Every sum runs in the same order as where the vectors stay in L1: the bits are the same.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from trainlib.kernels import Call, elementwise, fully_connected
from trainlib.lowering.finish import finish_gradient, finish_output
from trainlib.lowering.tasks import Addresses, Range, Slots, Task, Work, size
from trainlib.operators.dense_tiles import Tile, tiles, update_bias
from trainlib.plan import LayerStep, fuses_relu

if TYPE_CHECKING:
    from trainlib.graph import Node


class _Vectors:
    """The parts of a layer's vectors that one step has in L1."""

    def __init__(self, work: Work, node: Node, step: LayerStep):
        self.work, self.node, self.step = work, node, step
        self.name = f"{node.name} {step.step}"
        self.width = prod(node.shape) if len(node.shape) == 3 else 0  # an image, read as a vector

    def slots(self, name: str) -> Slots:
        return Slots(self.work, f"{self.name} {name}", 1 if self.step.buffering == "single" else 2)

    def input(self, task: Task, slots: Slots, columns: Range) -> str:
        """The buffer of a part of x."""
        if slots.take(columns, size(columns)):
            task.load(slots.buffer, self.node.inputs[0].tensor, (0, 1), columns, width=self.width)
        return slots.buffer

    def pairs(self, task: Task, gradients: Slots, pairs: Slots, rows: Range) -> str:
        """The buffer of (d, -(lr d)) of a part of the gradient."""
        work, n = self.work, size(rows)
        gradients.take(rows, n)
        if pairs.take(rows, 2 * n):
            g, target = gradients.buffer, pairs.buffer
            task.load(g, self.node.output.gradient, (0, 1), rows)
            task.compute(
                lambda at: elementwise.linear_pairs(at(g), at(g), at(target), work.lr, n, work.cores), (g,), (target,)
            )
        return pairs.buffer


def forward(work: Work, node: Node, step: LayerStep) -> None:
    work.begin(node.name, "fw", node.layer.macs("fw"), step)
    vectors, fused = _Vectors(work, node, step), fuses_relu(node.layer, step)
    x_slots, y_slots = vectors.slots("x"), vectors.slots("y")
    for rows, columns in tiles(work, node, step, columns_outside=False):
        task = work.task(step.buffering == "single", of=(rows, columns))
        tile = Tile(work, node, step, rows, columns)
        tile.load(task)
        x = vectors.input(task, x_slots, columns)
        y_slots.take(rows, size(rows))
        last = columns[1] == prod(node.shape)

        def call(
            at: Addresses, w: str = tile.buffer, x: str = x, y: str = y_slots.buffer, rows: Range = rows,
            columns: Range = columns, relu: bool = fused and last,
        ) -> Call:  # fmt: skip
            return fully_connected.forward(
                at(w), at(x), at(y), size(rows), size(columns), step.tile.stride_bytes, work.cores, step.unroll,
                accumulate=columns[0] > 0, relu=relu,
            )  # fmt: skip

        old = (y_slots.buffer,) if columns[0] else ()
        task.compute(call, (tile.buffer, x, *old), (y_slots.buffer,))
        if last:
            finish_output(work, node, task, y_slots.buffer, rows, 1, fused, vectors.name)
            task.store(y_slots.buffer, node.output.tensor, (0, 1), rows)


def backward(work: Work, node: Node, step: LayerStep) -> None:
    """Steps "ig", "wg", "wg+update" and "ig+wg+update"."""
    work.begin(node.name, step.step, node.layer.macs(step.step), step)
    outputs, inputs, _ = node.limits(step.step)
    parts, vectors = step.step.split("+"), _Vectors(work, node, step)
    x_slots, g_slots, d_slots, dx_slots = (vectors.slots(name) for name in ("x", "g", "d", "dx"))
    for rows, columns in tiles(work, node, step, columns_outside="ig" in parts):
        task = work.task(step.buffering == "single", of=(rows, columns))
        tile = Tile(work, node, step, rows, columns)
        pairs = vectors.pairs(task, g_slots, d_slots, rows)
        x = vectors.input(task, x_slots, columns) if "wg" in parts else tile.buffer
        tile.load(task)
        dx = ""
        if "ig" in parts:
            dx_slots.take(columns, size(columns))
            dx = dx_slots.buffer
        tile.multiply(task, (pairs, 0), (x, 0), (dx, 0) if dx else None, bool(dx) and rows[0] > 0)
        tile.store(task)
        if dx and rows[1] == outputs:
            finish_gradient(work, node, task, dx, (0, 1), columns, vectors.name, width=vectors.width)
        if node.layer.bias and "wg" in parts and columns[1] == inputs:
            update_bias(work, task, node, rows, (pairs, f"{vectors.name} bias", f"{vectors.name} pairs apart"))
