"""Layers, losses and slopes as a textbook has them: float64, by definition, nothing fast. The oracle of gradients.

A slope is a central difference of the function itself. `weight_gradient` and `input_gradient` are the rules, for
where a difference for every element would take too long; a test holds them to the slopes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainlib.graph import SAMPLE
from trainlib.layers import (
    Add,
    AveragePool,
    Concat,
    Conv2D,
    DepthWise,
    Flatten,
    FullyConnected,
    GlobalAveragePool,
    Layer,
    LeakyReLU,
    MaxPool,
    Parametric,
    PointWise,
    ReLU,
    Sigmoid,
    Tanh,
)
from trainlib.model import Model

Doubles = NDArray[np.float64]

ACTIVATIONS: dict[type[Layer], Callable[[Doubles, Layer], Doubles]] = {
    ReLU: lambda x, layer: np.maximum(x, 0),
    LeakyReLU: lambda x, layer: np.where(x > 0, x, x * float(np.float32(layer.slope))),
    Sigmoid: lambda x, layer: 1 / (1 + np.exp(-x)),
    Tanh: lambda x, layer: np.tanh(x),
}


def windows(x: Doubles, layer: Layer, padding: float = 0) -> Doubles:
    """[channels, out rows, out columns, kernel rows, kernel columns] of a padded image, element by element."""
    at = layer.window(x.shape)
    padded = np.full((x.shape[0], at.padded_h, at.padded_w), float(padding))
    padded[:, at.top : at.top + at.height, at.left : at.left + at.width] = x
    found = np.empty((x.shape[0], at.out_h, at.out_w, at.kernel_h, at.kernel_w))
    for row, column in product(range(at.out_h), range(at.out_w)):
        u, v = at.stride_h * row, at.stride_w * column
        found[:, row, column] = padded[:, u : u + at.kernel_h, v : v + at.kernel_w]
    return found


def shares(x: Doubles, layer: AveragePool | GlobalAveragePool) -> Doubles:
    """Of every window's elements in its mean, laid out as `windows`."""
    counted = windows(np.ones(x.shape), layer, float(layer.count_padding))
    return counted / counted.sum(axis=(3, 4), keepdims=True)


def forward_layer(layer: Layer, own: Sequence[Doubles], x: Doubles, *others: Doubles) -> Doubles:
    """own: the layer's arrays, w and then b. others: further inputs, of layers that read several."""
    match layer:
        case Add():
            total = x + sum(others)
            return np.maximum(total, 0) if layer.relu else total
        case Concat():
            return np.concatenate([x, *others])
        case Flatten():
            return x.reshape(-1)
        case FullyConnected():
            y = own[0] @ x.reshape(-1)
        case Conv2D():
            y = np.einsum("ocij,cyxij->oyx", own[0], windows(x, layer))
        case PointWise():
            y = np.einsum("oc,cyx->oyx", own[0], x)
        case DepthWise():
            y = np.einsum("cij,cyxij->cyx", own[0], windows(x, layer))
        case AveragePool():
            return (windows(x, layer) * shares(x, layer)).sum(axis=(3, 4))
        case MaxPool():
            return windows(x, layer, -np.inf).max(axis=(3, 4))
        case GlobalAveragePool():
            return x.mean(axis=(1, 2), keepdims=True)
        case _:
            return ACTIVATIONS[type(layer)](x, layer)
    if layer.bias:
        y = y + own[1].reshape(-1, *[1] * (y.ndim - 1))
    return np.maximum(y, 0) if layer.relu else y


def _gather(parts: Doubles, layer: Layer, shape: tuple[int, ...]) -> Doubles:
    """The inverse of `windows`: what each window gives to its elements, added up on an image of `shape`."""
    at = layer.window(shape)
    padded = np.zeros((shape[0], at.padded_h, at.padded_w))
    for row, column in product(range(at.out_h), range(at.out_w)):
        u, v = at.stride_h * row, at.stride_w * column
        padded[:, u : u + at.kernel_h, v : v + at.kernel_w] += parts[:, row, column]
    return padded[:, at.top : at.top + at.height, at.left : at.left + at.width]


def weight_gradient(layer: Parametric, d: Doubles, x: Doubles) -> Doubles:
    """d: the gradient before the layer's own ReLU."""
    match layer:
        case FullyConnected():
            return np.outer(d, x.reshape(-1))
        case PointWise():
            return np.einsum("oyx,cyx->oc", d, x)
        case DepthWise():
            return np.einsum("cyx,cyxij->cij", d, windows(x, layer))
    return np.einsum("oyx,cyxij->ocij", d, windows(x, layer))


def input_gradient(layer: Layer, w: Doubles, d: Doubles, x: Doubles) -> Doubles:
    """Of layers that are linear, and of maxima, whose first one takes all; d: before the layer's own ReLU."""
    match layer:
        case FullyConnected():
            return (w.T @ d).reshape(x.shape)
        case PointWise():
            return np.einsum("oc,oyx->cyx", w, d)
        case DepthWise():
            return _gather(np.einsum("cij,cyx->cyxij", w, d), layer, x.shape)
        case Conv2D():
            return _gather(np.einsum("ocij,oyx->cyxij", w, d), layer, x.shape)
    if not isinstance(layer, MaxPool):
        return _gather(shares(x, layer) * d[..., None, None], layer, x.shape)
    seen = windows(x, layer, -np.inf)
    flat = seen.reshape(*seen.shape[:3], -1)
    first = np.arange(flat.shape[3]) == flat.argmax(axis=3)[..., None]
    return _gather((first * d[..., None]).reshape(seen.shape), layer, x.shape)


def forward(model: Model, parameters: Sequence[Doubles], x: Doubles) -> Doubles:
    values = {SAMPLE: x.reshape(model.input_shape)}
    for node, slots in zip(model.nodes, model.slots, strict=True):
        own = [parameters[slot] for slot in slots.values()]
        values[node.name] = forward_layer(node.layer, own, *(values[value.name] for value in node.inputs))
    return values[node.name]


def loss(model: Model, parameters: Sequence[Doubles], x: Doubles, target: Doubles | int) -> float:
    y = forward(model, parameters, x).reshape(-1)
    if model.loss == "cross-entropy":
        return float(np.log(np.exp(y - y.max()).sum()) + y.max() - y[target])
    difference = y - np.reshape(target, -1)
    return float(np.mean(difference**2 if model.loss == "mse" else np.abs(difference)))


def slopes(function: Callable[[Doubles], Doubles | float], at: Doubles, d: Doubles | float = 1.0) -> Doubles:
    """The gradient of sum(d * function(x)) at x = `at`: a central difference for every element."""
    found, small = np.empty(at.shape), 1e-6
    for place in np.ndindex(*at.shape):
        ends = []
        for sign in (1, -1):
            moved = at.copy()
            moved[place] += sign * small
            ends.append(float(np.sum(d * function(moved))))
        found[place] = (ends[0] - ends[1]) / (2 * small)
    return found


# -- random layers ---------------------------------------------------------------------------------
@st.composite
def window_options(draw: st.DrawFn) -> dict[str, object]:
    """kernel, stride and padding, in any of the ways to write them."""
    kernel = draw(st.one_of(st.integers(1, 4), st.tuples(st.integers(1, 4), st.integers(1, 4))))
    stride = draw(st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3))))
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    up, left = st.integers(0, height - 1), st.integers(0, width - 1)
    padding = draw(
        st.one_of(
            st.just("same"), st.integers(0, min(height, width) - 1), st.tuples(up, left), st.tuples(up, up, left, left)
        )
    )
    return {"kernel": kernel, "stride": stride, "padding": padding}


@st.composite
def parametric_layers(draw: st.DrawFn) -> tuple[Parametric, tuple[int, ...]]:
    """A layer with parameters and a shape that it takes."""
    inputs, outputs = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    shape = (inputs, draw(st.integers(4, 7)), draw(st.integers(4, 7)))
    common = {"relu": draw(st.booleans()), "bias": draw(st.booleans())}
    kind = draw(st.sampled_from([FullyConnected, Conv2D, Conv2D, PointWise, DepthWise, DepthWise]))
    if kind is FullyConnected:
        return FullyConnected("fc", int(np.prod(shape)), outputs, **common), shape
    if kind is PointWise:
        return PointWise("pw", inputs, outputs, **common), shape
    options = draw(window_options()) | common
    if kind is DepthWise:
        return DepthWise("dw", inputs, **options), shape
    return Conv2D("conv", inputs, outputs, **options), shape


@st.composite
def plain_layers(draw: st.DrawFn) -> tuple[Layer, tuple[int, ...]]:
    """A layer without parameters and a shape that it takes."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(4, 7)), draw(st.integers(4, 7)))
    options = draw(window_options())
    options |= {"stride": draw(st.one_of(st.none(), st.integers(1, 5), st.just(options["stride"])))}
    layers: list[Layer] = [
        AveragePool("average", **options, count_padding=draw(st.booleans())), MaxPool("max", **options),
        GlobalAveragePool("global"),
        ReLU("relu"), LeakyReLU("leaky", 0.1), Sigmoid("sigmoid"), Tanh("tanh"),
    ]  # fmt: skip
    return draw(st.sampled_from(layers)), shape
