"""Activations as layers of their own: one function of every number, for inputs of any shape.

A tile is `columns` numbers: whole rows of the tensor as [channels, pixels], or parts of one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from pulpsim.arguments import real, text
from trainlib.errors import ModelError
from trainlib.kernels import Call, activations, elementwise
from trainlib.lowering.elementwise import ElementwiseStep
from trainlib.lowering.finish import finish_gradient
from trainlib.lowering.tasks import Addresses, Work, matrix
from trainlib.numerics import activations as values
from trainlib.numerics import elementwise as elementwise_values
from trainlib.operators.layer import Floats, Layer, Own, Shape
from trainlib.operators.values import relu
from trainlib.plan import LayerStep, Vectors

if TYPE_CHECKING:
    from trainlib.graph import Node

#: how GELU may be computed
APPROXIMATIONS = ("tanh", "none")


class Activation(Layer):
    """y = f(x), element by element."""

    __slots__ = ()

    #: what the slope is found from
    SLOPE_FROM: ClassVar[Literal["x", "y"]] = "y"

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        if not input_shape:
            raise self.misfit("one number or more", input_shape, source)
        return input_shape

    @abstractmethod
    def function(self, x: Floats) -> Floats:
        """f of a vector, on the host."""

    @abstractmethod
    def derivative(self, dy: Floats, at: Floats) -> Floats:
        """dx of a vector, on the host; at: y, or x where the slope is found from that."""

    @abstractmethod
    def function_call(self, x: int, y: int, n: int, cores: int) -> Call:
        """f of n numbers, on the cluster."""

    @abstractmethod
    def derivative_call(self, dy: int, at: int, dx: int, n: int, cores: int) -> Call:
        """dx of n numbers, on the cluster; dx may be dy."""

    def forward(self, own: Own, *inputs: Floats) -> Floats:
        return self.function(inputs[0].reshape(-1)).reshape(inputs[0].shape)

    def input_gradients(self, own: Own, dy: Floats, inputs: Sequence[Floats], y: Floats) -> list[Floats]:
        at = y if self.SLOPE_FROM == "y" else inputs[0]
        return [self.derivative(dy.reshape(-1), at.reshape(-1)).reshape(y.shape)]

    def lower(self, work: Work, node: Node, step: LayerStep) -> None:
        (self._forward if step.step == "fw" else self._gradient)(work, node, step)

    def _forward(self, work: Work, node: Node, step: LayerStep) -> None:
        s = ElementwiseStep(work, node, step)
        x_slots, y_slots = s.slots("x"), s.slots("y")
        for rows, columns in s.parts:
            task, n = s.task(rows, columns), s.count(rows, columns)
            x, y = s.load(task, x_slots, node.inputs[0].tensor, rows, columns), s.place(y_slots, rows, columns)

            def call(where: Addresses, x: str = x, y: str = y, n: int = n) -> Call:
                return self.function_call(where(x), where(y), n, work.cores)

            task.compute(call, (x,), (y,))
            task.store(y, node.output.tensor, rows, columns)

    def _gradient(self, work: Work, node: Node, step: LayerStep) -> None:
        s, value = ElementwiseStep(work, node, step), node.output if self.SLOPE_FROM == "y" else node.inputs[0]
        slots, dy_slots = s.slots(self.SLOPE_FROM), s.slots("dy")
        for rows, columns in s.parts:
            task, n = s.task(rows, columns), s.count(rows, columns)
            known = s.load(task, slots, value.tensor, rows, columns)
            dy = s.load(task, dy_slots, node.output.gradient, rows, columns)

            def call(where: Addresses, known: str = known, dy: str = dy, n: int = n) -> Call:
                return self.derivative_call(where(dy), where(known), where(dy), n, work.cores)

            task.compute(call, (dy, known), (dy,))
            finish_gradient(work, node, task, dy, rows, columns, s.name)

    def tile_bytes(self, node: Node, tile: LayerStep, vectors: Vectors) -> int:
        columns, row = tile.tile.columns, matrix(node.shape)[1]
        return 8 * (columns // row * row or columns)


@dataclass(frozen=True, slots=True)
class ReLU(Activation):
    """max(x, 0): of a NaN +0, through which no gradient passes. Layers with parameters can do this at less cost."""

    def function(self, x: Floats) -> Floats:
        return relu(x)

    def derivative(self, dy: Floats, at: Floats) -> Floats:
        return elementwise_values.relu_backward(dy, at)

    def function_call(self, x: int, y: int, n: int, cores: int) -> Call:
        return elementwise.relu_forward(x, y, n, cores)

    def derivative_call(self, dy: int, at: int, dx: int, n: int, cores: int) -> Call:
        return elementwise.relu_backward(dy, at, dx, n, cores)


@dataclass(frozen=True, slots=True)
class LeakyReLU(Activation):
    """x where x > 0, else slope x. Raises ModelError unless 0 < slope <= 1."""

    slope: float = 0.01

    def __post_init__(self) -> None:
        self.check_name()
        slope = real(self.slope)
        if slope is None or not 0 < slope <= 1:
            raise ModelError(f"{self.name}: slope = {self.slope!r}: must be above 0 and at most 1")
        self.settle("slope", slope)

    def function(self, x: Floats) -> Floats:
        return values.leaky_relu(x, np.float32(self.slope))

    def derivative(self, dy: Floats, at: Floats) -> Floats:
        return values.leaky_relu_backward(dy, at, np.float32(self.slope))

    def function_call(self, x: int, y: int, n: int, cores: int) -> Call:
        return activations.leaky_relu_forward(x, y, self.slope, n, cores)

    def derivative_call(self, dy: int, at: int, dx: int, n: int, cores: int) -> Call:
        return activations.leaky_relu_backward(dy, at, dx, self.slope, n, cores)


@dataclass(frozen=True, slots=True)
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    def function(self, x: Floats) -> Floats:
        return values.sigmoid(x)

    def derivative(self, dy: Floats, at: Floats) -> Floats:
        return values.sigmoid_backward(dy, at)

    def function_call(self, x: int, y: int, n: int, cores: int) -> Call:
        return activations.sigmoid_forward(x, y, n, cores)

    def derivative_call(self, dy: int, at: int, dx: int, n: int, cores: int) -> Call:
        return activations.sigmoid_backward(dy, at, dx, n, cores)


@dataclass(frozen=True, slots=True)
class Tanh(Activation):
    """The hyperbolic tangent."""

    def function(self, x: Floats) -> Floats:
        return values.tanh(x)

    def derivative(self, dy: Floats, at: Floats) -> Floats:
        return values.tanh_backward(dy, at)

    def function_call(self, x: int, y: int, n: int, cores: int) -> Call:
        return activations.tanh_forward(x, y, n, cores)

    def derivative_call(self, dy: int, at: int, dx: int, n: int, cores: int) -> Call:
        return activations.tanh_backward(dy, at, dx, n, cores)


@dataclass(frozen=True, slots=True)
class ReLU6(Activation):
    """min(max(x, 0), 6): of a NaN +0. No gradient passes at 0 and 6 and beyond."""

    def function(self, x: Floats) -> Floats:
        return values.relu6(x)

    def derivative(self, dy: Floats, at: Floats) -> Floats:
        return values.relu6_backward(dy, at)

    def function_call(self, x: int, y: int, n: int, cores: int) -> Call:
        return activations.relu6_forward(x, y, n, cores)

    def derivative_call(self, dy: int, at: int, dx: int, n: int, cores: int) -> Call:
        return activations.relu6_backward(dy, at, dx, n, cores)


@dataclass(frozen=True, slots=True)
class HardSwish(Activation):
    """x min(max(x + 3, 0), 6) / 6."""

    SLOPE_FROM: ClassVar[Literal["x", "y"]] = "x"

    def function(self, x: Floats) -> Floats:
        return values.hard_swish(x)

    def derivative(self, dy: Floats, at: Floats) -> Floats:
        return values.hard_swish_backward(dy, at)

    def function_call(self, x: int, y: int, n: int, cores: int) -> Call:
        return activations.hard_swish_forward(x, y, n, cores)

    def derivative_call(self, dy: int, at: int, dx: int, n: int, cores: int) -> Call:
        return activations.hard_swish_backward(dy, at, dx, n, cores)


@dataclass(frozen=True, slots=True)
class GELU(Activation):
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) or, with approximate="none", x / 2 (1 + erf(x / sqrt(2))).

    Both as PyTorch calls them, where "none" is the default. Raises ModelError for another word.
    """

    approximate: Literal["tanh", "none"] = "tanh"

    SLOPE_FROM: ClassVar[Literal["x", "y"]] = "x"

    def __post_init__(self) -> None:
        self.check_name()
        word = text(self.approximate)
        if word not in APPROXIMATIONS:
            accepted = " or ".join(f'"{accepted}"' for accepted in APPROXIMATIONS)
            raise ModelError(f"{self.name}: approximate = {self.approximate!r}: must be {accepted}")
        self.settle("approximate", word)

    def function(self, x: Floats) -> Floats:
        return values.gelu_erf(x) if self.approximate == "none" else values.gelu(x)

    def derivative(self, dy: Floats, at: Floats) -> Floats:
        return values.gelu_erf_backward(dy, at) if self.approximate == "none" else values.gelu_backward(dy, at)

    def function_call(self, x: int, y: int, n: int, cores: int) -> Call:
        forward = activations.gelu_erf_forward if self.approximate == "none" else activations.gelu_forward
        return forward(x, y, n, cores)

    def derivative_call(self, dy: int, at: int, dx: int, n: int, cores: int) -> Call:
        backward = activations.gelu_erf_backward if self.approximate == "none" else activations.gelu_backward
        return backward(dy, at, dx, n, cores)
