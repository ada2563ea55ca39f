"""The fully-connected layer: y = W x + b, optionally through a ReLU. W is [outputs, inputs]."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from trainlib.errors import ModelError
from trainlib.layers.layer import Parametric, Shape


@dataclass(frozen=True, slots=True)
class FullyConnected(Parametric):
    """A dense layer; an image is read as a vector, row by row. Raises ModelError if a size is not positive."""

    inputs: int
    outputs: int
    relu: bool = True
    bias: bool = False
    trainable: bool = True

    def __post_init__(self) -> None:
        self.settle_numbers("inputs", "outputs")
        if self.inputs < 1 or self.outputs < 1:
            raise ModelError(f"{self.name}: {self.inputs} inputs, {self.outputs} outputs: both must be at least 1")

    @property
    def weight_shape(self) -> Shape:
        return (self.outputs, self.inputs)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        if not input_shape or prod(input_shape) != self.inputs:
            raise self.misfit(f"{self.inputs} inputs", input_shape, source)
        return (self.outputs,)

    def macs(self, step: str, input_shape: Shape = ()) -> int:
        """Multiply-accumulates of fw, wg or ig; of a fusion, their sum. The update counts none."""
        return self.weights * sum(part in ("fw", "wg", "ig") for part in step.split("+"))
