"""Steps that treat the numbers of a tensor alike: its tiles, and the buffers that they take turns in."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from trainlib.kernels import elementwise
from trainlib.lowering.tasks import Range, Slots, Task, Work, matrix, size
from trainlib.plan import LayerStep

if TYPE_CHECKING:
    from trainlib.graph import Node


class ElementwiseStep:
    """One step of one layer, begun as a phase of its own, on tensors that all have the output's shape.

    parts: tiles as rows and columns: whole rows, of an image its channels, or parts of one where none fits.
    """

    def __init__(self, work: Work, node: Node, step: LayerStep):
        self.work, self.name, self.single = work, f"{node.name} {step.step}", step.buffering == "single"
        work.begin(node.name, step.step, 0, step)
        self._first = len(work.tasks)
        rows, columns = matrix(node.output.shape)
        together = step.tile.columns // columns
        self.parts = (
            [(part, (0, columns)) for part in work.parts_alike(rows, together)]
            if together
            else list(product(work.parts_alike(rows, 1), work.parts_alike(columns, step.tile.columns)))
        )

    def task(self, *of: Range) -> Task:
        """of: the parts of which it is."""
        return self.work.task(self.single, self._first, of)

    def slots(self, name: str) -> Slots:
        return Slots(self.work, f"{self.name} {name}", 1 if self.single else 2)

    def count(self, rows: Range, columns: Range) -> int:
        """Numbers in a tile."""
        return size(rows) * size(columns)

    def place(self, slots: Slots, rows: Range, columns: Range) -> str:
        """The buffer for a tile that is computed."""
        slots.take((rows, columns), self.count(rows, columns))
        return slots.buffer

    def load(self, task: Task, slots: Slots, tensor: str, rows: Range, columns: Range) -> str:
        """The buffer where a tile of a tensor is."""
        buffer = self.place(slots, rows, columns)
        task.load(buffer, tensor, rows, columns)
        return buffer

    def relu(self, task: Task, x: str, n: int) -> None:
        """max(x, 0) in place, in a pass of its own."""
        task.compute(lambda at: elementwise.relu_forward(at(x), at(x), n, self.work.cores), (x,), (x,))
