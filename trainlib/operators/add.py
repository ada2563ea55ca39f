"""The sum of several values: the end of a residual block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pulpsim.arguments import flag
from trainlib.errors import ModelError
from trainlib.kernels import elementwise
from trainlib.lowering.elementwise import ElementwiseStep
from trainlib.lowering.finish import in_place
from trainlib.lowering.tasks import Work, matrix
from trainlib.numerics import elementwise as values
from trainlib.operators.layer import Floats, Layer, Own, Passed, Shape
from trainlib.operators.values import finished
from trainlib.plan import LayerStep, Vectors

if TYPE_CHECKING:
    from trainlib.graph import Node


@dataclass(frozen=True, slots=True)
class Add(Layer):
    """y = a + b + ..., number by number, of values of one shape, in the order in which they are named.

    Every input gets the gradient of y, taken back through the ReLU if there is one: it is not copied. Raises
    ModelError for shapes that differ.
    """

    relu: bool = False

    READS: ClassVar[tuple[int, int | None]] = (2, None)
    STEPS: ClassVar[tuple[str, ...]] = ("fw",)

    def __post_init__(self) -> None:
        self.check_name()
        if (relu := flag(self.relu)) is None:
            raise ModelError(f"{self.name}: relu = {self.relu!r}: must be True or False")
        self.settle("relu", relu)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        return input_shape

    def joined_shape(self, shapes: Sequence[Shape], sources: Sequence[str]) -> Shape:
        for shape, source in zip(shapes, sources, strict=True):
            if shape != shapes[0]:
                raise ModelError(
                    f"{self.name} adds numbers of one shape: {sources[0]} gives {list(shapes[0])}, {source} "
                    f"{list(shape)}"
                )
        return shapes[0]

    def forward(self, own: Own, *inputs: Floats) -> Floats:
        total = inputs[0].reshape(-1)
        for other in inputs[1:]:
            total = values.add(total, other.reshape(-1))
        return finished(self, own, total, inputs[0].shape)

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        return [dy] * len(inputs)

    def passes(self, node: Node) -> tuple[Passed | None, ...]:
        return (Passed(0),) * len(node.inputs)

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        s = ElementwiseStep(work, node, step)
        total_slots, *slots = (s.slots(f"x{which}") for which in range(len(node.inputs)))
        for rows, columns in s.parts:
            task, n = s.task(rows, columns), s.count(rows, columns)
            total = s.load(task, total_slots, node.inputs[0].tensor, rows, columns)
            for number, (value, own) in enumerate(zip(node.inputs[1:], slots, strict=True), start=2):
                relu = self.relu and number == len(node.inputs) and step.relu == "fused"
                kernel = elementwise.add_relu if relu else elementwise.add
                in_place(work, task, total, s.load(task, own, value.tensor, rows, columns), kernel, n)
            if self.relu and step.relu == "separate":
                s.relu(task, total, n)
            task.store(total, node.output.tensor, rows, columns)

    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        columns, row = tile.tile.columns, matrix(node.shape)[1]
        return 4 * len(node.inputs) * (columns // row * row or columns)
