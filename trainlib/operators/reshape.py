"""The same numbers in the same order, read as another shape: nothing moves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

from trainlib.errors import ModelError
from trainlib.lowering.tasks import Work
from trainlib.operators.layer import Floats, Layer, Own, Shape, shape_of
from trainlib.plan import LayerStep

if TYPE_CHECKING:
    from trainlib.graph import Node


class _Reshaping(Layer):
    """What both kinds are: but for the shape there is nothing to say."""

    __slots__ = ()

    STEPS: ClassVar[tuple[str, ...]] = ()
    RESHAPES: ClassVar[bool] = True

    @abstractmethod
    def output_shape(self, input_shape: Shape, source: str = "") -> Shape: ...

    def forward(self, own: Own, *inputs: Floats) -> Floats:
        return inputs[0].reshape(self.output_shape(inputs[0].shape))

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        return [dy.reshape(inputs[0].shape)]

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        raise AssertionError("there are no steps of it")


@dataclass(frozen=True, slots=True)
class Flatten(_Reshaping):
    """[channels, height, width] -> [channels x height x width]. (Fully-connected layers do without.)"""

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        return (prod(input_shape),)


@dataclass(frozen=True, slots=True)
class Reshape(_Reshaping):
    """shape: (n,) or (channels, height, width), of as many numbers as come in. Raises ModelError."""

    shape: Shape

    def __post_init__(self) -> None:
        self.check_name()
        self.settle("shape", settled_shape(self.name, self.shape))

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        if prod(input_shape) != prod(self.shape):
            raise self.misfit(f"{prod(self.shape)} numbers, for {list(self.shape)}", input_shape, source)
        return self.shape


def settled_shape(name: str, shape: object) -> Shape:
    """A shape as a field of a layer. Raises ModelError, naming the layer."""
    settled = shape_of(shape)
    if settled is None:
        raise ModelError(f"{name}: shape = {shape!r}: must be (n,) or (channels, height, width), each at least 1")
    return settled
