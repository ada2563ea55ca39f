"""Several values as one: the channels of images one behind the other, or the numbers of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from trainlib.errors import ModelError
from trainlib.lowering.tasks import Slots, Work, matrix, size
from trainlib.operators.layer import Floats, Layer, Own, Passed, Shape
from trainlib.plan import LayerStep, Vectors

if TYPE_CHECKING:
    from trainlib.graph import Node


@dataclass(frozen=True, slots=True)
class Concat(Layer):
    """Images [channels, height, width] of one height and width along their channels, or vectors.

    Every input's gradient is a part of the output's, which is not copied. Raises ModelError for shapes that do not
    meet.
    """

    READS: ClassVar[tuple[int, int | None]] = (2, None)
    STEPS: ClassVar[tuple[str, ...]] = ("fw",)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        return input_shape

    def joined_shape(self, shapes: Sequence[Shape], sources: Sequence[str]) -> Shape:
        for shape, source in zip(shapes, sources, strict=True):
            if len(shape) != len(shapes[0]) or shape[1:] != shapes[0][1:]:
                raise ModelError(
                    f"{self.name} joins images of one height and width, or vectors: {sources[0]} gives "
                    f"{list(shapes[0])}, {source} {list(shape)}"
                )
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def forward(self, own: Own, *inputs: Floats) -> Floats:
        return np.concatenate(inputs)

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        firsts = accumulate((len(x) for x in inputs), initial=0)
        return [dy[first : first + len(x)] for first, x in zip(firsts, inputs, strict=False)]

    def passes(self, node: Node) -> tuple[Passed | None, ...]:
        firsts = accumulate((prod(value.shape) for value in node.inputs), initial=0)
        return tuple(Passed(first) for first, _ in zip(firsts, node.inputs, strict=False))

    def limits(self, node: Node, step: str) -> tuple[int, int, int]:
        """Rows: channels; columns: numbers of one; of vectors, numbers."""
        rows, columns = matrix(node.output.shape)
        return rows, columns, 0

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        """Each tile comes and goes; nothing is computed."""
        work.begin(node.name, step.step, 0, step)
        first_task, single = len(work.tasks), step.buffering == "single"
        slots = Slots(work, f"{node.name} {step.step} x", 1 if single else 2)
        row = column = 0  # of the output, where the input goes
        for which, value in enumerate(node.inputs):
            height, width = matrix(value.shape)
            for rows in work.parts(height, min(step.tile.rows, height)):
                for columns in work.parts(width, min(step.tile.columns, width)):
                    slots.take((which, rows, columns), size(rows) * size(columns))
                    task = work.task(single, first_task)
                    task.load(slots.buffer, value.tensor, rows, columns)
                    task.store(
                        slots.buffer, node.output.tensor, (row + rows[0], row + rows[1]),
                        (column + columns[0], column + columns[1]),
                    )  # fmt: skip
            row, column = (row + height, 0) if len(value.shape) == 3 else (0, column + width)

    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        return 4
