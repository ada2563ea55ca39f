"""Protects the descriptions of layers: shapes, padding, parameters, multiply-accumulates, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainlib.textbook import parametric_layers, plain_layers, window_options
from trainlib.errors import ModelError
from trainlib.layers import (
    GELU,
    AveragePool,
    AveragePool1D,
    Conv1D,
    Conv2D,
    DepthWise,
    FullyConnected,
    GlobalAveragePool,
    Layer,
    LeakyReLU,
    MaxPool,
    MaxPool1D,
    Offset,
    Parametric,
    PointWise,
    ReLU,
    Reshape,
    Sigmoid,
    Tanh,
    Transpose,
    Window,
)

PARAMETRIC: tuple[Parametric, ...] = (
    FullyConnected("fc", 12, 5),
    Conv2D("conv", 3, 5, kernel=(3, 2)),
    PointWise("pw", 3, 5),
    DepthWise("dw", 3, kernel=(3, 2)),
)


def refused(action: Callable[[], Any]) -> str:
    with pytest.raises(ModelError) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


# -- shapes ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("layer", "given", "expected"),
    [
        (FullyConnected("a", 24, 7), (24,), (7,)),
        (FullyConnected("a", 24, 7), (2, 3, 4), (7,)),
        (Conv2D("a", 1, 64, kernel=(10, 4), stride=2, padding="same"), (1, 49, 10), (64, 25, 5)),
        (Conv2D("a", 1, 64, kernel=(10, 4)), (1, 34, 8), (64, 25, 5)),
        (Conv2D("a", 8, 16, kernel=3), (8, 8, 8), (16, 6, 6)),
        (Conv2D("a", 2, 3, kernel=3, padding=1), (2, 5, 6), (3, 5, 6)),
        (Conv2D("a", 2, 3, kernel=3, padding=(2, 0)), (2, 5, 6), (3, 7, 4)),
        (Conv2D("a", 2, 3, kernel=3, padding=(1, 0, 2, 0)), (2, 5, 6), (3, 4, 6)),
        (Conv2D("a", 2, 3, kernel=2, stride=(2, 3)), (2, 5, 6), (3, 2, 2)),
        (Conv2D("a", 2, 3, kernel=3, dilation=2), (2, 5, 6), (3, 1, 2)),
        (Conv2D("a", 2, 3, kernel=(3, 2), dilation=(1, 4), padding=(1, 1, 4, 0)), (2, 5, 6), (3, 5, 6)),
        (Conv2D("a", 4, 6, kernel=3, stride=2, dilation=3, padding="same", groups=2), (4, 5, 6), (6, 3, 3)),
        (Conv1D("a", 2, 3, kernel=5, stride=2, padding=(4, 0)), (2, 1, 16), (3, 1, 8)),
        (Conv1D("a", 2, 4, kernel=3, padding="same", dilation=8, groups=2), (2, 1, 16), (4, 1, 16)),
        (Transpose("a", (1, 2, 0)), (4, 3, 2), (3, 2, 4)),
        (Transpose("a", (1, 2, 0), (6, 2, 2)), (24,), (2, 2, 6)),
        (Transpose("a", (1, 0), (6, 4)), (4, 3, 2), (24,)),
        (PointWise("a", 4, 9), (4, 3, 2), (9, 3, 2)),
        (DepthWise("a", 4, kernel=3, padding=1), (4, 25, 5), (4, 25, 5)),
        (DepthWise("a", 4, kernel=3, stride=2, padding="same"), (4, 5, 6), (4, 3, 3)),
        (AveragePool("a", 2), (4, 5, 6), (4, 2, 3)),
        (MaxPool("a", (3, 2), 1), (4, 5, 6), (4, 3, 5)),
        (MaxPool("a", 3, 2, 1), (4, 5, 6), (4, 3, 3)),
        (AveragePool("a", 3, 2, "same"), (4, 5, 6), (4, 3, 3)),
        (AveragePool("a", 9, padding=(2, 2, 8, 0)), (4, 5, 6), (4, 1, 1)),
        (MaxPool1D("a", 3, 2, (0, 2)), (4, 1, 6), (4, 1, 3)),
        (AveragePool1D("a", 3, padding=1), (4, 2, 6), (4, 2, 2)),
        (AveragePool1D("a", 3, 1, "same"), (4, 1, 6), (4, 1, 6)),
        (GlobalAveragePool("a"), (4, 5, 6), (4, 1, 1)),
        (ReLU("a"), (4, 5, 6), (4, 5, 6)),
        (LeakyReLU("a"), (4,), (4,)),
        (Sigmoid("a"), (4,), (4,)),
        (Tanh("a"), (4, 1, 1), (4, 1, 1)),
    ],
)
def test_output_shapes(layer: Layer, given: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert layer.output_shape(given) == expected


def test_a_convolution_along_a_signal_is_one_of_a_row() -> None:
    row = Conv2D("a", 4, 6, (1, 5), (1, 2), (0, 0, 4, 1), bias=True, dilation=(1, 3), groups=2, inputs=("b",))
    assert Conv1D("a", 4, 6, 5, 2, (4, 1), dilation=3, groups=2, bias=True, inputs=("b",)) == row


def test_a_window_tells_all_that_a_kernel_needs() -> None:
    window = Conv2D("a", 1, 1, kernel=(10, 4), stride=(2, 1), padding="same").window((1, 49, 10))
    assert window == Window(49, 10, 10, 4, 2, 1, top=4, bottom=5, left=1, right=2)
    assert (window.padded_h, window.padded_w, window.out_h, window.out_w, window.taps) == (58, 13, 25, 10, 40)


@given(size=st.integers(1, 30), kernel=st.integers(1, 9), stride=st.integers(1, 5))
def test_same_padding_is_as_small_as_the_outputs_allow_and_odd_zeros_come_after(
    size: int, kernel: int, stride: int
) -> None:
    window = DepthWise("a", 1, kernel=kernel, stride=stride, padding="same").window((1, size, size))
    assert window.out_h == window.out_w == -(-size // stride)
    assert (window.top, window.bottom) == (window.left, window.right)
    assert 0 <= window.bottom - window.top <= 1
    zeros = window.top + window.bottom
    assert zeros == 0 or (size + zeros - 1 - kernel) // stride + 1 < window.out_h  # one less is too few


@given(options=window_options(), height=st.integers(1, 9), width=st.integers(1, 9))
def test_every_output_sees_a_whole_window_of_the_padded_image(options: dict[str, Any], height: int, width: int) -> None:
    layer = DepthWise("a", 1, **options)
    try:
        at = layer.window((1, height, width))
    except ModelError:
        assert options["padding"] != "same"
        return
    assert layer.output_shape((1, height, width)) == (1, at.out_h, at.out_w)
    for out, padded, kernel, stride in (
        (at.out_h, at.padded_h, at.kernel_h, at.stride_h),
        (at.out_w, at.padded_w, at.kernel_w, at.stride_w),
    ):
        assert out >= 1
        assert stride * (out - 1) + kernel <= padded < stride * out + kernel


# -- parameters ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("layer", "shape", "fan_in"),
    list(zip(PARAMETRIC, [(5, 12), (5, 3, 3, 2), (5, 3), (3, 3, 2)], [12, 18, 3, 6], strict=True)),
)
def test_parameters(layer: Parametric, shape: tuple[int, ...], fan_in: int) -> None:
    assert layer.parameters == {"w": shape}
    assert (layer.weights, layer.fan_in) == (np.prod(shape), fan_in)
    assert layer.relu and layer.trainable and layer.trained and not layer.bias
    biased = replace(layer, bias=True)
    assert list(biased.parameters.items()) == [("w", shape), ("b", shape[:1])]
    assert biased.weights == layer.weights
    assert not replace(layer, trainable=False).trained


@given(made=plain_layers())
def test_layers_without_parameters_have_no_weights_and_count_nothing(made: tuple[Layer, tuple[int, ...]]) -> None:
    layer, shape = made
    assert layer.parameters == {} and layer.weights == 0 and not layer.trained
    assert layer.macs("fw+wg+ig", shape) == 0


@pytest.mark.parametrize("layer", PARAMETRIC)
def test_layers_are_values(layer: Parametric) -> None:
    assert len({layer, replace(layer)}) == 1
    with pytest.raises(AttributeError):
        layer.name = "other"  # type: ignore[misc]


# -- multiply-accumulates --------------------------------------------------------------------------
def products(layer: Parametric, shape: tuple[int, ...]) -> int:
    """Weight by output, those on padding included, counted one by one."""
    if isinstance(layer, FullyConnected):
        return len(list(product(range(layer.out_features), range(layer.in_features))))
    channels, rows, columns = layer.output_shape(shape)
    return sum(layer.fan_in for _ in product(range(channels), range(rows), range(columns)))


@given(made=parametric_layers())
def test_each_step_counts_one_mac_for_each_product_of_the_forward_step(
    made: tuple[Parametric, tuple[int, ...]],
) -> None:
    layer, shape = made
    count = products(layer, shape)
    for step in ("fw", "wg", "ig", "wg+update"):
        assert layer.macs(step, shape) == count
    assert layer.macs("ig+wg+update", shape) == 2 * count and layer.macs("update", shape) == 0


def test_a_fully_connected_layer_counts_without_a_shape() -> None:
    layer = FullyConnected("a", 12, 5)
    assert (layer.macs("fw"), layer.macs("ig+wg+update"), layer.macs("update")) == (60, 120, 0)


# -- what is refused -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("layer", "given", "message"),
    [
        (FullyConnected("a", 12, 5), (11,), "a takes 12 inputs, given 11"),
        (FullyConnected("a", 12, 5), (2, 3, 4), "a takes 12 inputs, given [2, 3, 4]"),
        (FullyConnected("a", 1, 5), (), "a takes 1 inputs, given []"),
        (Conv2D("a", 3, 5, kernel=3), (2, 9, 9), "a takes [3, height, width], given [2, 9, 9]"),
        (Conv2D("a", 3, 5, kernel=3), (27,), "a takes [3, height, width], given 27"),
        (
            Conv2D("a", 3, 5, kernel=(3, 4), padding=(1, 0)),
            (3, 1, 3),
            "a takes [3, height, width] of at least 1 x 4, given [3, 1, 3]",
        ),
        (Conv2D("a", 3, 5, kernel=3), (), "a takes [3, height, width], given []"),
        (PointWise("a", 3, 5), (4, 3, 3), "a takes [3, height, width], given [4, 3, 3]"),
        (PointWise("a", 3, 5), (3,), "a takes [3, height, width], given 3"),
        (DepthWise("a", 3, 3), (1, 9, 9), "a takes [3, height, width], given [1, 9, 9]"),
        (AveragePool("a", 4), (3, 3, 9), "a takes [channels, height, width] of at least 4 x 4, given [3, 3, 9]"),
        (MaxPool("a", 6, 2, 1), (3, 3, 9), "a takes [channels, height, width] of at least 4 x 4, given [3, 3, 9]"),
        (MaxPool("a", 2), (9,), "a takes [channels, height, width], given 9"),
        (GlobalAveragePool("a"), (9,), "a takes [channels, height, width], given 9"),
        (ReLU("a"), (), "a takes one number or more, given []"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(layer: Layer, given: tuple[int, ...], message: str) -> None:
    assert refused(lambda: layer.output_shape(given)) == message
    assert refused(lambda: layer.output_shape(given, "below")) == message.replace("given", "below gives")


PADDING = (
    "must be 'same' or whole numbers, at least 0: one, two (vertical, horizontal) or four (top, bottom, left, right)"
)
PAIR = "must be a whole number, at least 1, or two (vertical, horizontal)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FullyConnected("a", 3, 0), "a: 3 inputs, 0 outputs: both must be at least 1"),
        (lambda: Conv2D("a", 0, 3, 3), "a: 0 input channels, 3 output channels: both must be at least 1"),
        (lambda: PointWise("a", 3, -1), "a: 3 input channels, -1 output channels: both must be at least 1"),
        (lambda: DepthWise("a", 0, 3), "a: 0 input channels, 0 output channels: both must be at least 1"),
        (lambda: Conv2D("a", 1, 1, kernel=0), f"a: kernel = 0: {PAIR}"),
        (lambda: Conv2D("a", 1, 1, kernel=(3, 3, 3)), f"a: kernel = (3, 3, 3): {PAIR}"),
        (lambda: Conv2D("a", 1, 1, kernel=2.5), f"a: kernel = 2.5: {PAIR}"),
        (lambda: DepthWise("a", 1, kernel=3, stride=(1, 0)), f"a: stride = (1, 0): {PAIR}"),
        (lambda: AveragePool("a", 0), f"a: kernel = 0: {PAIR}"),
        (lambda: MaxPool("a", 2, -1), f"a: stride = -1: {PAIR}"),
        (lambda: Conv2D("a", 1, 1, 3, padding=-1), f"a: padding = -1: {PADDING}"),
        (lambda: Conv2D("a", 1, 1, 3, padding=(1, 1, 1)), f"a: padding = (1, 1, 1): {PADDING}"),
        (lambda: Conv2D("a", 1, 1, 3, padding="valid"), f"a: padding = 'valid': {PADDING}"),
        (lambda: Conv2D("a", 1, 1, 3, padding=1.5), f"a: padding = 1.5: {PADDING}"),
        (
            lambda: DepthWise("a", 1, (3, 2), padding=(0, 0, 0, 2)),
            "a: padding = (0, 0, 0, 2): must be less than the kernel, 3 x 2, on every side: "
            "outputs would see padding only",
        ),
        (
            lambda: Conv2D("a", 1, 1, (3, 2), padding=(0, 0, 0, 5), dilation=(1, 4)),
            "a: padding = (0, 0, 0, 5): must be less than the dilated kernel, 3 x 5, on every side: "
            "outputs would see padding only",
        ),
        (lambda: Conv2D("a", 1, 1, 3, dilation=0), f"a: dilation = 0: {PAIR}"),
        (
            lambda: Conv2D("a", 4, 6, 3, groups=4),
            "a: groups = 4: must divide 4 input channels and 6 output channels",
        ),
        (lambda: Conv2D("a", 4, 6, 3, groups=0), "a: groups = 0: must divide 4 input channels and 6 output channels"),
        (lambda: Conv2D("a", 4, 6, 3, groups=1.5), "a: groups = 1.5: must be a whole number, at least 1"),
        (lambda: MaxPool("a", 3, padding=(1, -1)), f"a: padding = (1, -1): {PADDING}"),
        (
            lambda: AveragePool1D("a", 2, padding=(0, 2)),
            "a: padding = (0, 0, 0, 2): must be less than the kernel, 1 x 2, on every side: "
            "outputs would see padding only",
        ),
        (lambda: MaxPool1D("a", 0), f"a: kernel = (1, 0): {PAIR}"),
        (lambda: AveragePool("a", 2, count_padding=1), "a: count_padding = 1: must be True or False"),
        (lambda: LeakyReLU("a", 0), "a: slope = 0: must be above 0 and at most 1"),
        (
            lambda: Reshape("a", (3, 4)),
            "a: shape = (3, 4): must be (n,) or (channels, height, width), each at least 1",
        ),
        (lambda: Offset("a", (3, 4, 1)).output_shape((12,), "b"), "a takes [3, 4, 1], b gives 12"),
        (lambda: Transpose("a", (0, 2)), "a: order = (0, 2): must be the numbers of all axes, each once, as in (1, 0)"),
        (
            lambda: Transpose("a", (1, 0), (3,)),
            "a: dims = (3,): must be whole numbers of at least 1, one for each axis in order = (1, 0)",
        ),
        (lambda: Transpose("a", (1, 0)).output_shape((12,), "b"), "a takes an array of 2 axes, b gives 12"),
        (
            lambda: Transpose("a", (1, 0), (3, 5)).output_shape((12,), "b"),
            "a takes 15 numbers, for [3, 5], b gives 12",
        ),
        (lambda: GELU("a", "erf"), "a: approximate = 'erf': must be \"tanh\" or \"none\""),
        (lambda: LeakyReLU("a", float("nan")), "a: slope = nan: must be above 0 and at most 1"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(make: Callable[[], Layer], message: str) -> None:
    assert refused(make) == message
