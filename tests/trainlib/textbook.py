"""Layers, losses and slopes as a textbook has them: float64, by definition, nothing fast. The oracle of gradients.

A slope is a central difference of the function itself. `weight_gradient` and `input_gradient` are the rules, for
where a difference for every element would take too long; a test holds them to the slopes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainlib.errors import ModelError
from trainlib.graph import SAMPLE
from trainlib.layers import (
    GELU,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv2D,
    DepthWise,
    Dropout,
    Flatten,
    FullyConnected,
    GlobalAveragePool,
    HardSwish,
    InstanceNorm,
    Layer,
    LayerNorm,
    LayerNorm2D,
    LeakyReLU,
    MatMul,
    MaxPool,
    Offset,
    Parametric,
    PointWise,
    ReLU,
    ReLU6,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
    Transpose,
)
from trainlib.model import Model
from trainlib.operators.window import Window

Doubles = NDArray[np.float64]
_erfc: Callable[[Doubles], Doubles] = np.vectorize(math.erfc, otypes=[np.float64])

ACTIVATIONS: dict[type[Layer], Callable[[Doubles, Layer], Doubles]] = {
    ReLU: lambda x, layer: np.maximum(x, 0),
    LeakyReLU: lambda x, layer: np.where(x > 0, x, x * float(np.float32(layer.slope))),
    Sigmoid: lambda x, layer: 1 / (1 + np.exp(-x)),
    Tanh: lambda x, layer: np.tanh(x),
    ReLU6: lambda x, layer: np.clip(x, 0, 6),
    HardSwish: lambda x, layer: x * np.clip(x + 3, 0, 6) / 6,
    GELU: lambda x, layer: x * _gate(x, layer)[0],
}


@np.errstate(over="ignore")
def _gate(x: Doubles, layer: Layer) -> tuple[Doubles, Doubles]:
    """What GELU multiplies x by, and its slope: (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), or
    (1 + erf(x / sqrt(2))) / 2."""
    if layer.approximate == "none":
        return _erfc(-x / np.sqrt(2)) / 2, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    u, slope = x + 0.044715 * x**3, 1 + 3 * 0.044715 * x**2
    gate, factor = 1 / (1 + np.exp(-np.sqrt(8 / np.pi) * u)), np.sqrt(8 / np.pi)
    return gate, factor * slope * gate * (1 - gate)


def activation_gradient(layer: Layer, d: Doubles, x: Doubles) -> Doubles:
    """Of functions whose slope is found from x."""
    if isinstance(layer, HardSwish):
        return d * np.where(np.abs(x) < 3, x / 3 + 0.5, x >= 3)
    gate, slope = _gate(x, layer)
    return d * (gate + x * slope)


# -- normalisation ---------------------------------------------------------------------------------
def rows(layer: Layer, x: Doubles) -> Doubles:
    """[rows, numbers]: each channel, each pixel, or all numbers as one row."""
    if isinstance(layer, LayerNorm2D):
        return x.reshape(len(x), -1).T
    return x.reshape(1 if isinstance(layer, LayerNorm) else len(x), -1)


def from_rows(layer: Layer, found: Doubles, shape: tuple[int, ...]) -> Doubles:
    """The inverse."""
    return (found.T if isinstance(layer, LayerNorm2D) else found).reshape(shape)


def along(layer: Layer, own: Doubles) -> Doubles:
    """A parameter in the shape that NumPy takes along `rows`."""
    return own.reshape(1, -1) if isinstance(layer, LayerNorm | LayerNorm2D) else own.reshape(-1, 1)


def statistics(x: Doubles, eps: float) -> Doubles:
    """[rows, 2]: mean, and the inverse of the deviation."""
    return np.stack([x.mean(axis=1), 1 / np.sqrt(x.var(axis=1) + np.float32(eps))], axis=1)


def normal(x: Doubles, known: Doubles) -> Doubles:
    """Rows less their mean, by their deviation. known: `statistics`."""
    return (x - known[:, :1]) * known[:, 1:]


def normal_gradient(g: Doubles, x: Doubles, known: Doubles) -> Doubles:
    """dx of rows from g, the gradient of what is normal."""
    xhat = normal(x, known)
    return (g - g.mean(axis=1, keepdims=True) - xhat * (g * xhat).mean(axis=1, keepdims=True)) * known[:, 1:]


def _normalised(layer: Layer, own: Sequence[Doubles], x: Doubles) -> Doubles:
    """Rows before gamma and beta."""
    if isinstance(layer, BatchNorm):
        return (rows(layer, x) - along(layer, own[2])) * along(layer, own[3])
    return normal(rows(layer, x), statistics(rows(layer, x), layer.eps))


# -- dropout ---------------------------------------------------------------------------------------
def dropout_mask(first: int, n: int, key: int, rate: float) -> NDArray[np.bool_]:
    """Which of n numbers dropout keeps: a hash of each one's index, in NumPy's words."""
    i, k = (first + np.arange(n)).astype(np.uint32), np.uint32(key)
    h = i ^ k
    h = (h ^ h >> np.uint32(16)) * np.uint32(0x7FEB352D)
    h = (h ^ h >> np.uint32(15) ^ k) * np.uint32(0x846CA68B)
    return h >= min(round(rate * 2**32), 2**32 - 1)


def dropped(layer: Dropout, x: Doubles, step: int | None) -> Doubles:
    """step: of the training, None outside of it."""
    if step is None:
        return x
    [key] = layer.scalars(step).values()
    kept = dropout_mask(0, x.size, int(key), layer.rate).reshape(x.shape)
    return np.where(kept, x / (1 - layer.rate), 0)


# -- attention -------------------------------------------------------------------------------------
def softmax(x: Doubles) -> Doubles:
    """Along the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def softmax_gradient(d: Doubles, y: Doubles) -> Doubles:
    return y * (d - (y * d).sum(axis=-1, keepdims=True))


def multiplied(layer: MatMul, a: Doubles, b: Doubles) -> Doubles:
    """Before the scale."""
    return np.einsum(_letters(layer), a, b)


def multiplied_gradients(layer: MatMul, d: Doubles, a: Doubles, b: Doubles) -> tuple[Doubles, Doubles]:
    """Of a and of b, before the scale."""
    operands, made = _letters(layer).split("->")
    of_a, of_b = operands.split(",")
    return np.einsum(f"{made},{of_b}->{of_a}", d, b), np.einsum(f"{made},{of_a}->{of_b}", d, a)


def _letters(layer: MatMul) -> str:
    return f"{'ikm' if layer.transpose_a else 'imk'},{'ink' if layer.transpose_b else 'ikn'}->imn"


# -- layers ----------------------------------------------------------------------------------------


def windows(x: Doubles, layer: Layer, padding: float = 0) -> Doubles:
    """[channels, out rows, out columns, kernel rows, kernel columns] of a padded image, element by element."""
    at = layer.window(x.shape)
    padded = np.full((x.shape[0], at.padded_h, at.padded_w), float(padding))
    padded[:, at.top : at.top + at.height, at.left : at.left + at.width] = x
    found = np.empty((x.shape[0], at.out_h, at.out_w, at.kernel_h, at.kernel_w))
    for row, column in product(range(at.out_h), range(at.out_w)):
        found[:, row, column] = padded[:, *_taps(at, row, column)]
    return found


def _taps(at: Window, row: int, column: int) -> tuple[slice, slice]:
    """What one window sees of a padded image."""
    u, v = at.stride_h * row, at.stride_w * column
    return slice(u, u + at.extent_h, at.dilation_h), slice(v, v + at.extent_w, at.dilation_w)


def _of_all(layer: Conv2D, w: Doubles) -> Doubles:
    """Weights of every output for every input: zeros where they are in different groups."""
    outputs, inputs = (channels // layer.groups for channels in (layer.out_channels, layer.in_channels))
    found = np.zeros((layer.out_channels, layer.in_channels, *w.shape[2:]))
    for group in range(layer.groups):
        of_group = slice(group * outputs, (group + 1) * outputs)
        found[of_group, group * inputs : (group + 1) * inputs] = w[of_group]
    return found


def _of_groups(layer: Conv2D, w: Doubles) -> Doubles:
    """The inverse: weights of every output for the inputs of its group."""
    outputs, inputs = (channels // layer.groups for channels in (layer.out_channels, layer.in_channels))
    firsts = [output // outputs * inputs for output in range(layer.out_channels)]
    return np.stack([of_one[first : first + inputs] for of_one, first in zip(w, firsts, strict=True)])


def shares(x: Doubles, layer: AveragePool | GlobalAveragePool) -> Doubles:
    """Of every window's elements in its mean, laid out as `windows`."""
    counted = windows(np.ones(x.shape), layer, float(layer.count_padding))
    return counted / counted.sum(axis=(3, 4), keepdims=True)


def forward_layer(
    layer: Layer, own: Sequence[Doubles], x: Doubles, *others: Doubles, step: int | None = None
) -> Doubles:
    """own: the layer's arrays, w and then b. others: further inputs, of layers that read several.

    step: see `dropped`.
    """
    match layer:
        case Dropout():
            return dropped(layer, x, step)
        case Add():
            total = x + sum(others)
            return np.maximum(total, 0) if layer.relu else total
        case Concat():
            return np.concatenate([x, *others])
        case Flatten():
            return x.reshape(-1)
        case MatMul():
            return multiplied(layer, x, *others) * float(np.float32(layer.scale))
        case Softmax():
            return softmax(x)
        case Reshape():
            return x.reshape(layer.shape)
        case Transpose():
            return x.reshape(layer.dims or x.shape).transpose(layer.order).reshape(layer.output_shape(x.shape))
        case Offset():
            y = x + own[0]
        case FullyConnected():
            y = own[0] @ x.reshape(-1)
        case Conv2D():
            y = np.einsum("ocij,cyxij->oyx", _of_all(layer, own[0]), windows(x, layer))
        case PointWise():
            y = np.einsum("oc,cyx->oyx", own[0], x)
        case DepthWise():
            y = np.einsum("cij,cyxij->cyx", own[0], windows(x, layer))
        case BatchNorm() | InstanceNorm() | LayerNorm() | LayerNorm2D():
            w, b = (along(layer, own[place]) for place in range(2))
            y = from_rows(layer, _normalised(layer, own, x) * w + b, x.shape)
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
        padded[:, *_taps(at, row, column)] += parts[:, row, column]
    return padded[:, at.top : at.top + at.height, at.left : at.left + at.width]


def parameter_gradients(layer: Parametric, own: Sequence[Doubles], d: Doubles, x: Doubles) -> dict[str, Doubles]:
    """Of what is trained; d: the gradient before the layer's own ReLU."""
    if isinstance(layer, BatchNorm | InstanceNorm | LayerNorm | LayerNorm2D):
        terms = {"w": rows(layer, d) * _normalised(layer, own, x), "b": rows(layer, d)}
        return {name: _sums(layer, term) for name, term in terms.items()}
    found = {"w": weight_gradient(layer, d, x)}
    return found | {"b": d.reshape(len(d), -1).sum(axis=1)} if layer.bias else found


def _sums(layer: Layer, terms: Doubles) -> Doubles:
    """Over all that one number of gamma or beta is used for."""
    return terms.sum(axis=0 if isinstance(layer, LayerNorm | LayerNorm2D) else 1)


def weight_gradient(layer: Layer, d: Doubles, x: Doubles) -> Doubles:
    """Of layers that are linear in x."""
    match layer:
        case Offset():
            return d
        case FullyConnected():
            return np.outer(d, x.reshape(-1))
        case PointWise():
            return np.einsum("oyx,cyx->oc", d, x)
        case DepthWise():
            return np.einsum("cyx,cyxij->cij", d, windows(x, layer))
    dw = np.einsum("oyx,cyxij->ocij", d, windows(x, layer))
    return _of_groups(layer, dw) if isinstance(layer, Conv2D) else dw


def input_gradient(layer: Layer, own: Sequence[Doubles], d: Doubles, x: Doubles) -> Doubles:
    """Of all but activations; of maxima the first one takes all. d: before the layer's own ReLU."""
    match layer:
        case Transpose():
            moved = np.arange(x.size).reshape(layer.dims or x.shape).transpose(layer.order)
            return d.reshape(-1)[np.argsort(moved.reshape(-1))].reshape(x.shape)
        case Offset():
            return d
        case FullyConnected():
            return (own[0].T @ d).reshape(x.shape)
        case PointWise():
            return np.einsum("oc,oyx->cyx", own[0], d)
        case DepthWise():
            return _gather(np.einsum("cij,cyx->cyxij", own[0], d), layer, x.shape)
        case Conv2D():
            return _gather(np.einsum("ocij,oyx->cyxij", _of_all(layer, own[0]), d), layer, x.shape)
        case BatchNorm():
            return (rows(layer, d) * along(layer, own[0] * own[3])).reshape(x.shape)
        case InstanceNorm() | LayerNorm() | LayerNorm2D():
            g, known = rows(layer, d) * along(layer, own[0]), statistics(rows(layer, x), layer.eps)
            return from_rows(layer, normal_gradient(g, rows(layer, x), known), x.shape)
        case Softmax():
            return softmax_gradient(d, softmax(x))
    if not isinstance(layer, MaxPool):
        return _gather(shares(x, layer) * d[..., None, None], layer, x.shape)
    seen = windows(x, layer, -np.inf)
    flat = seen.reshape(*seen.shape[:3], -1)
    first = np.arange(flat.shape[3]) == flat.argmax(axis=3)[..., None]
    return _gather((first * d[..., None]).reshape(seen.shape), layer, x.shape)


def forward(model: Model, parameters: Sequence[Doubles], x: Doubles, step: int | None = 0) -> Doubles:
    """In a step of a training."""
    values = {SAMPLE: x.reshape(model.input_shape)}
    for node, slots in zip(model.nodes, model.slots, strict=True):
        own = [parameters[slot] for slot in slots.values()]
        values[node.name] = forward_layer(node.layer, own, *(values[value.name] for value in node.inputs), step=step)
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


# -- optimizers ------------------------------------------------------------------------------------
def sgd(
    w: Doubles, g: Doubles, v: Doubles | float, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> tuple[Doubles, Doubles]:
    """(w, velocity) after a step."""
    g = g + weight_decay * w
    v = momentum * v + g
    return w - lr * (g + momentum * v if nesterov else v), v


def adam_means(
    g: Doubles, m: Doubles | float, v: Doubles | float, betas: tuple[float, float]
) -> tuple[Doubles, Doubles]:
    """Of gradients and of their squares, after a step."""
    one, two = betas
    return one * m + (1 - one) * g, two * v + (1 - two) * g * g


def adam_step(m: Doubles, v: Doubles, lr: float, betas: tuple[float, float], eps: float, t: int) -> Doubles:
    """What is taken off the weights in step t = 1, 2, ..."""
    one, two = betas
    return lr * m / (1 - one**t) / (np.sqrt(v / (1 - two**t)) + eps)


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
    """A layer whose parameters are multiplied by numbers of an input, and a shape that it takes."""
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
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    dilation = draw(st.sampled_from([1, 1, 2, (2, 3), (3, 1)]))
    conv = Conv2D("conv", groups * inputs, groups * outputs, **options, dilation=dilation, groups=groups)
    shape = groups * inputs, *shape[1:]
    try:
        conv.output_shape(shape)
    except ModelError:  # dilated, the kernel is larger than the image
        conv = replace(conv, dilation=1)
    return conv, shape


@st.composite
def normalisations(draw: st.DrawFn) -> tuple[Parametric, tuple[int, ...]]:
    """A normalisation, or an offset, and a shape that it takes."""
    kind = draw(st.sampled_from([BatchNorm, InstanceNorm, LayerNorm, LayerNorm2D, Offset]))
    image = draw(st.integers(1, 4)), 4, 5
    shape = image if kind in (InstanceNorm, LayerNorm2D) else draw(st.sampled_from([image, (12,)]))
    if kind is Offset:
        return Offset("offset", shape), shape
    size = int(np.prod(shape)) if kind is LayerNorm else shape[0]
    few = kind is LayerNorm2D  # numbers of a pixel: if they are almost equal, what is normal is all rounding
    eps = {} if kind is BatchNorm else {"eps": draw(st.sampled_from([1.0] if few else [1e-5, 1.0]))}
    return kind("norm", size, relu=draw(st.booleans()), **eps), shape


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
        ReLU6("relu6"), HardSwish("swish"), GELU("gelu"), GELU("erf", "none"),
        Dropout("dropout", draw(st.sampled_from([0.0, 0.3]))), Softmax("softmax"),
        Transpose("axes", tuple(draw(st.permutations(range(3))))),
        Transpose("more", (3, 1, 0, 2), (shape[0], 1, *shape[1:])),
    ]  # fmt: skip
    return draw(st.sampled_from(layers)), shape
