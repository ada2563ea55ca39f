"""Convolutions: of all channels (W [outputs, inputs, Hk, Wk]), of single pixels, and channel by channel."""

from __future__ import annotations

from dataclasses import dataclass

from trainlib.errors import ModelError
from trainlib.layers.layer import Parametric, Shape
from trainlib.layers.window import Padding, Pair, Window, check_window, pair, window_on


def _check_channels(name: str, inputs: int, outputs: int) -> None:
    if inputs < 1 or outputs < 1:
        raise ModelError(f"{name}: {inputs} input channels, {outputs} output channels: both must be at least 1")


def _settle_window(layer: Conv2D | DepthWise) -> None:
    checked = check_window(layer.name, layer.kernel, layer.stride, layer.padding)
    for field, value in zip(("kernel", "stride", "padding"), checked, strict=True):
        layer.settle(field, value)


@dataclass(frozen=True, slots=True)
class Conv2D(Parametric):
    """y[o] = sum over channels and taps of w[o, c, i, j] x[c, stride row + i, stride column + j], + b[o].

    inputs, outputs: channels. kernel, stride: a number, or (vertical, horizontal). padding: zeros around x, a
    number, (vertical, horizontal), (top, bottom, left, right), or "same": ceil(size / stride) outputs, an odd
    zero after. Raises ModelError.
    """

    inputs: int
    outputs: int
    kernel: Pair
    stride: Pair = 1
    padding: Padding = 0
    relu: bool = True
    bias: bool = False
    trainable: bool = True

    def __post_init__(self) -> None:
        self.settle_numbers("inputs", "outputs")
        _check_channels(self.name, self.inputs, self.outputs)
        _settle_window(self)

    @property
    def weight_shape(self) -> Shape:
        return (self.outputs, self.inputs, *pair(self.kernel))

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        return window_on(self, self.inputs, input_shape, self.kernel, self.stride, self.padding, source)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        window = self.window(input_shape, source)
        return (self.outputs, window.out_h, window.out_w)


@dataclass(frozen=True, slots=True)
class PointWise(Parametric):
    """A convolution of 1 x 1: each pixel's channels through one matrix. W is [outputs, inputs]."""

    inputs: int
    outputs: int
    relu: bool = True
    bias: bool = False
    trainable: bool = True

    def __post_init__(self) -> None:
        self.settle_numbers("inputs", "outputs")
        _check_channels(self.name, self.inputs, self.outputs)

    @property
    def weight_shape(self) -> Shape:
        return (self.outputs, self.inputs)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        if len(input_shape) != 3 or input_shape[0] != self.inputs:
            raise self.misfit(f"[{self.inputs}, height, width]", input_shape, source)
        return (self.outputs, *input_shape[1:])


@dataclass(frozen=True, slots=True)
class DepthWise(Parametric):
    """Each channel convolved with a kernel of its own. W is [channels, Hk, Wk]; the rest is as in `Conv2D`."""

    channels: int
    kernel: Pair
    stride: Pair = 1
    padding: Padding = 0
    relu: bool = True
    bias: bool = False
    trainable: bool = True

    def __post_init__(self) -> None:
        self.settle_numbers("channels")
        _check_channels(self.name, self.channels, self.channels)
        _settle_window(self)

    @property
    def weight_shape(self) -> Shape:
        return (self.channels, *pair(self.kernel))

    def window(self, input_shape: Shape, source: str = "") -> Window:
        """Raises ModelError if the input does not fit."""
        return window_on(self, self.channels, input_shape, self.kernel, self.stride, self.padding, source)

    def output_shape(self, input_shape: Shape, source: str = "") -> Shape:
        window = self.window(input_shape, source)
        return (self.channels, window.out_h, window.out_w)
