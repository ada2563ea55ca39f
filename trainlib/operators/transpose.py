"""The axes of a value in another order: all numbers move, none changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pulpsim.arguments import whole
from trainlib.errors import ModelError
from trainlib.kernels import Call
from trainlib.kernels.permute import Axes, axes_of, permute
from trainlib.lowering.finish import finish_gradient
from trainlib.lowering.tasks import Addresses, Slots, Work, matrix, size
from trainlib.operators.layer import Floats, Layer, Own, Shape
from trainlib.plan import LayerStep, Vectors

if TYPE_CHECKING:
    from trainlib.graph import Node


@dataclass(frozen=True, slots=True)
class Transpose(Layer):
    """The input, as an array of `dims` or else of its own shape, with its axes in another order: axis order[0] first.

    The output has the shape that comes of it if that is one of 1 or 3 axes, else it is a vector. On the cluster the
    whole input is in L1 at once. Raises ModelError.
    """

    order: tuple[int, ...]
    dims: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        self.check_name()
        order, dims = _whole(self.order), None if self.dims is None else _whole(self.dims)
        if not order or sorted(order) != list(range(len(order))):
            raise ModelError(
                f"{self.name}: order = {self.order!r}: must be the numbers of all axes, each once, as in (1, 0)"
            )
        if self.dims is not None and (dims is None or len(dims) != len(order) or min(dims) < 1):
            raise ModelError(
                f"{self.name}: dims = {self.dims!r}: must be whole numbers of at least 1, one for each axis in order = "
                f"{order}"
            )
        self.settle("order", order)
        self.settle("dims", dims)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        if self.dims is None and len(input_shape) != len(self.order):
            raise self.misfit(f"an array of {len(self.order)} axes", input_shape, source)
        dims = self.dims or input_shape
        if prod(dims) != prod(input_shape):
            raise self.misfit(f"{prod(dims)} numbers, for {list(dims)}", input_shape, source)
        permuted = tuple(dims[axis] for axis in self.order)
        return permuted if len(permuted) in (1, 3) else (prod(dims),)

    def _back(self, input_shape: Shape) -> tuple[Shape, tuple[int, ...]]:
        """dims and order of the way back."""
        dims = self.dims or input_shape
        return tuple(dims[axis] for axis in self.order), tuple(map(self.order.index, range(len(self.order))))

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        x = inputs[0]
        return _permuted(x, self.dims or x.shape, self.order).reshape(self.output_shape(x.shape))

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        shape = inputs[0].shape
        return [_permuted(dy, *self._back(shape)).reshape(shape)]

    # -- on the cluster ----------------------------------------------------------------------------
    def _axes(self, node: Node, step: str) -> Axes:
        """Of what a step makes: the output, or the input's gradient."""
        return axes_of(*self._back(node.shape)) if step == "ig" else axes_of(self.dims or node.shape, self.order)

    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        """A tile is rows along the last axis."""
        return prod(count for count, _ in self._axes(node, step)[:-1]), 1, 0

    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        return 4 * (prod(node.shape) + tile.tile.rows * self._axes(node, tile.step)[-1][0])

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        name, axes, single = f"{node.name} {step.step}", self._axes(node, step.step), step.buffering == "single"
        work.begin(node.name, step.step, 0, step)
        source = node.output if step.step == "ig" else node.inputs[0]
        (height, width), words, first_task = matrix(source.shape), axes[-1][0], len(work.tasks)
        x_slots, y_slots = Slots(work, f"{name} x", 1), Slots(work, f"{name} y", 1 if single else 2)
        for rows in work.parts(self.limits(node, step.step)[0], step.tile.rows):
            task = work.task(single, first_task)
            if x_slots.take("all", height * width):
                tensor = source.gradient if step.step == "ig" else source.tensor
                task.load(x_slots.buffer, tensor, (0, height), (0, width))
            y_slots.take(rows, size(rows) * words)
            x, y, first, count = x_slots.buffer, y_slots.buffer, rows[0], size(rows)

            def call(at: Addresses, x: str = x, y: str = y, first: int = first, count: int = count) -> Call:
                return permute(at(x), at(y), axes, first, count, work.cores)

            task.compute(call, (x,), (y,))
            if step.step == "ig":
                finish_gradient(work, node, task, y, rows, (0, words), name, width=words)
            else:
                task.store(y, node.output.tensor, rows, (0, words), width=words)


def _permuted(x: Floats, dims: Shape, order: Sequence[int]) -> Floats:
    return np.ascontiguousarray(x.reshape(dims).transpose(order))


def _whole(given: object) -> tuple[int, ...] | None:
    """Whole numbers as Python's, None if they are none."""
    if not isinstance(given, tuple):
        return None
    numbers = tuple(number for value in given if (number := whole(value)) is not None)
    return numbers if len(numbers) == len(given) else None
