"""A learned number added to each number of a value: positions of tokens, or constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trainlib.kernels import elementwise
from trainlib.lowering.elementwise import ElementwiseStep
from trainlib.lowering.finish import in_place, update
from trainlib.lowering.tasks import Work, matrix
from trainlib.numerics import elementwise as values
from trainlib.operators.layer import Floats, Own, Parametric, Passed, Shape, Trainable, Ways
from trainlib.operators.reshape import settled_shape
from trainlib.plan import LayerStep, Vectors

if TYPE_CHECKING:
    from trainlib.graph import Node


@dataclass(frozen=True, slots=True)
class Offset(Parametric):
    """y = x + w, number by number. shape: of x and of w, (n,) or (channels, height, width).

    The input gets the gradient of y, and so does w: neither is computed. Raises ModelError.
    """

    shape: Shape
    trainable: Trainable = True

    STEPS = ("fw", "wg+update")

    def __post_init__(self) -> None:
        self.settle_numbers()
        self.settle("shape", settled_shape(self.name, self.shape))

    @property
    def weight_shape(self) -> Shape:
        return self.shape

    def initial(self, rng: np.random.Generator) -> dict[str, Floats]:
        return {"w": np.zeros(self.shape, np.float32)}

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        if input_shape != self.shape:
            raise self.misfit(str(list(self.shape)), input_shape, source)
        return input_shape

    def macs(self, step: str, input_shape: Shape = ()) -> int:
        return 0

    # -- values on the host ------------------------------------------------------------------------
    def forward(self, own: Own, *inputs: Floats) -> Floats:
        return values.add(inputs[0].reshape(-1), own["w"].reshape(-1)).reshape(self.shape)

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        return [dy]

    def parameter_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats]) -> dict[str, Floats]:
        return {"w": dy.copy()}

    def passes(self, node: Node) -> tuple[Passed | None, ...]:
        return (Passed(0),)

    # -- on the cluster ----------------------------------------------------------------------------
    def backward(self, wanted: bool) -> Ways:
        return (("wg+update",) if self.trained else (),)

    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        """x or dy, and w; in batches w need not be there."""
        columns, row = tile.tile.columns, matrix(node.shape)[1]
        return (8 if tile.step == "fw" else 4) * (columns // row * row or columns)

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        s, w = ElementwiseStep(work, node, step), node.parameter("w")
        x_slots, w_slots = s.slots("x"), s.slots("w")
        for rows, columns in s.parts:
            task = s.task(rows, columns)
            if step.step == "fw":
                x = s.load(task, x_slots, node.inputs[0].tensor, rows, columns)
                own = s.load(task, w_slots, w, rows, columns)
                in_place(work, task, x, own, elementwise.add, s.count(rows, columns))
                task.store(x, node.output.tensor, rows, columns)
            else:
                dy = s.load(task, x_slots, node.output.gradient, rows, columns)
                own = s.load(task, w_slots, w, rows, columns) if work.updates else ""
                update(work, task, own, dy, w, rows, columns)
