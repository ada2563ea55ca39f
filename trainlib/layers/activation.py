"""Activations as layers of their own: one function of every number, for inputs of any shape."""

from __future__ import annotations

from dataclasses import dataclass

from pulpsim.arguments import real
from trainlib.errors import ModelError
from trainlib.layers.layer import Layer, Shape


@dataclass(frozen=True, slots=True)
class Activation(Layer):
    """y = f(x), element by element."""

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        if not input_shape:
            raise self.misfit("one number or more", input_shape, source)
        return input_shape


@dataclass(frozen=True, slots=True)
class ReLU(Activation):
    """max(x, 0): of a NaN +0, through which no gradient passes. Layers with parameters can do this at less cost."""


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


@dataclass(frozen=True, slots=True)
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""


@dataclass(frozen=True, slots=True)
class Tanh(Activation):
    """The hyperbolic tangent."""
