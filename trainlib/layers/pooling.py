"""Pooling: each channel's mean or maximum, over windows or over the whole image."""

from __future__ import annotations

from dataclasses import dataclass

from trainlib.layers.layer import Layer, Shape
from trainlib.layers.window import Pair, Window, check_window, window_on


@dataclass(frozen=True, slots=True)
class Pool(Layer):
    """kernel, stride: a number, or (vertical, horizontal); without a stride, windows do not overlap."""

    kernel: Pair
    stride: Pair | None = None

    def __post_init__(self) -> None:
        self.check_name()
        kernel, stride, _ = check_window(self.name, self.kernel, self._stride)
        self.settle("kernel", kernel)
        self.settle("stride", None if self.stride is None else stride)

    @property
    def _stride(self) -> Pair:
        return self.kernel if self.stride is None else self.stride

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        return window_on(self, None, input_shape, self.kernel, self._stride, 0, source)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        window = self.window(input_shape, source)
        return (input_shape[0], window.out_h, window.out_w)


@dataclass(frozen=True, slots=True)
class AveragePool(Pool):
    """The mean of each window."""


@dataclass(frozen=True, slots=True)
class MaxPool(Pool):
    """The largest number of each window; of NaNs alone the canonical NaN, and none of them gets the gradient."""


@dataclass(frozen=True, slots=True)
class GlobalAveragePool(Layer):
    """The mean of each channel: [channels, height, width] -> [channels, 1, 1]."""

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        if len(input_shape) != 3:
            raise self.misfit("[channels, height, width]", input_shape, source)
        return window_on(self, None, input_shape, (input_shape[1], input_shape[2]), 1, 0, source)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        window = self.window(input_shape, source)
        return (input_shape[0], window.out_h, window.out_w)
