"""An image read as a vector, row by row: nothing moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

from trainlib.lowering.tasks import Work
from trainlib.operators.layer import Floats, Layer, Own, Shape
from trainlib.plan import LayerStep

if TYPE_CHECKING:
    from trainlib.graph import Node


@dataclass(frozen=True, slots=True)
class Flatten(Layer):
    """[channels, height, width] -> [channels x height x width]. (Fully-connected layers do without.)"""

    STEPS: ClassVar[tuple[str, ...]] = ()
    RESHAPES: ClassVar[bool] = True

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        return (prod(input_shape),)

    def forward(self, own: Own, *inputs: Floats) -> Floats:
        return inputs[0].reshape(-1)

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        return [dy.reshape(inputs[0].shape)]

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        raise AssertionError("there are no steps of it")
