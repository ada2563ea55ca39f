"""Softmax along the last axis: of a vector, or of every row of [channels, height, width].

A tile is `rows` of these, whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from trainlib.kernels import Call, classification
from trainlib.lowering.finish import finish_gradient
from trainlib.lowering.tasks import Addresses, Range, Slots, Task, Work, size
from trainlib.numerics import classification as values
from trainlib.operators.layer import Floats, Layer, Own, Shape
from trainlib.plan import LayerStep, Vectors

if TYPE_CHECKING:
    from trainlib.graph import Node


@dataclass(frozen=True, slots=True)
class Softmax(Layer):
    """y = exp(x - the row's largest x), by their sum: every row becomes numbers that add up to 1.

    A core takes whole rows: a single long one is one core's work.
    """

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        if not input_shape:
            raise self.misfit("one number or more", input_shape, source)
        return input_shape

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        (x,) = inputs
        return values.softmax_rows(x.reshape(-1, x.shape[-1])).reshape(x.shape)

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        rows = (-1, y.shape[-1])
        return [values.softmax_rows_gradient(dy.reshape(rows), y.reshape(rows)).reshape(y.shape)]

    # -- on the cluster ----------------------------------------------------------------------------
    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        return prod(node.shape[:-1]), 1, 0

    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        """x and y, or y, dy and dx."""
        return (8 if tile.step == "fw" else 12) * tile.tile.rows * node.shape[-1]

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        (_forward if step.step == "fw" else _gradient)(_Rows(work, node, step))


class _Rows:
    """One step, begun as a phase of its own: its tiles, and the buffers that they take turns in."""

    def __init__(self, work: Work, node: Node, step: LayerStep):
        self.work, self.node, self.n = work, node, node.shape[-1]
        self.name, self.single = f"{node.name} {step.step}", step.buffering == "single"
        work.begin(node.name, step.step, 0, step)
        self._first = len(work.tasks)
        self.parts = work.parts(node.limits(step.step)[0], step.tile.rows)

    def task(self) -> Task:
        return self.work.task(self.single, self._first)

    def slots(self, name: str) -> Slots:
        return Slots(self.work, f"{self.name} {name}", 1 if self.single else 2)

    def place(self, slots: Slots, rows: Range) -> str:
        slots.take(rows, size(rows) * self.n)
        return slots.buffer

    def load(self, task: Task, slots: Slots, tensor: str, rows: Range) -> str:
        task.load(self.place(slots, rows), tensor, rows, (0, self.n), width=self.n)
        return slots.buffer


def _forward(s: _Rows) -> None:
    x_slots, y_slots = s.slots("x"), s.slots("y")
    for rows in s.parts:
        task, count = s.task(), size(rows)
        x, y = s.load(task, x_slots, s.node.inputs[0].tensor, rows), s.place(y_slots, rows)

        def call(at: Addresses, x: str = x, y: str = y, count: int = count) -> Call:
            return classification.softmax_rows(at(x), at(y), count, s.n, s.work.cores)

        task.compute(call, (x,), (y,))
        task.store(y, s.node.output.tensor, rows, (0, s.n), width=s.n)


def _gradient(s: _Rows) -> None:
    y_slots, dy_slots, dx_slots = s.slots("y"), s.slots("dy"), s.slots("dx")
    for rows in s.parts:
        task, count = s.task(), size(rows)
        y = s.load(task, y_slots, s.node.output.tensor, rows)
        dy, dx = s.load(task, dy_slots, s.node.output.gradient, rows), s.place(dx_slots, rows)

        def call(at: Addresses, y: str = y, dy: str = dy, dx: str = dx, count: int = count) -> Call:
            return classification.softmax_rows_gradient(at(dy), at(y), at(dx), count, s.n, s.work.cores)

        task.compute(call, (dy, y), (dx,))
        finish_gradient(s.work, s.node, task, dx, rows, (0, s.n), s.name, width=s.n)
