"""A functional step against float64, layer by layer, within what FP32 rounding explains.

Every operation is given the FP32 numbers that the functional step gave it, so that a network may be as deep as it
likes: signs and maxima are the step's own, and no error of one layer is excused by another's. A sum of products may
be off by its number of roundings times the sum of the products' magnitudes, which `textbook` computes like the sum
itself, from magnitudes; and their number likewise, from ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.trainlib import textbook
from tests.trainlib.arrays import TINY, UNIT, Floats, assert_same_bits, assert_within, ulps
from tests.trainlib.textbook import Doubles
from trainlib import functional
from trainlib.graph import SAMPLE, Node
from trainlib.layers import (
    Add,
    Concat,
    Flatten,
    FullyConnected,
    Layer,
    LeakyReLU,
    MaxPool,
    Parametric,
    ReLU,
    Sigmoid,
    Tanh,
)
from trainlib.model import Model, Parameters
from trainlib.operators.layer import Host
from trainlib.optimizers import SGD

#: ulps by which a function of its own may be off, as its kernel states
FUNCTION_ULPS = {Sigmoid: 2.5, Tanh: 2.8}
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Near:
    """An exact value, the magnitudes that were added up for it, and how many roundings it took."""

    exact: Doubles
    size: Doubles
    roundings: Doubles | float

    @property
    def bound(self) -> Doubles:
        return (self.roundings + 1) * (1.001 * UNIT * self.size + TINY)


def double(array: Floats) -> Doubles:
    return array.astype(np.float64)


def summed(function: Callable[..., Doubles], *factors: Floats, more: int = 0) -> Near:
    """A function that adds up products of its arguments. more: roundings beside one a product."""
    exact = [double(factor) for factor in factors]
    terms = function(*(np.ones(factor.shape) for factor in factors))
    return Near(function(*exact), function(*(np.abs(factor) for factor in exact)), terms + more)


# -- forward -----------------------------------------------------------------------------------------
def forward(layer: Layer, own: list[Floats], x: Floats, *others: Floats) -> Near:
    if isinstance(layer, Add):
        near = summed(lambda *values: sum(values[1:], start=values[0]), x, *others)
        return replace(near, exact=np.maximum(near.exact, 0)) if layer.relu else near
    if isinstance(layer, Concat | Flatten):
        exact = textbook.forward_layer(layer, [], double(x), *map(double, others))
        return Near(exact, np.zeros_like(exact), -1)
    if type(layer) in textbook.ACTIVATIONS:
        exact = textbook.forward_layer(layer, [], double(x))
        return Near(exact, np.abs(exact), _off_by(layer, exact))
    if isinstance(layer, MaxPool):
        exact = textbook.forward_layer(layer, [], double(x))
        return Near(exact, np.zeros_like(exact), -1)
    if not isinstance(layer, Parametric):  # means: a rounding an element, their share of the sum
        taps = layer.window(x.shape).taps  # type: ignore[attr-defined]
        return replace(summed(lambda values: textbook.forward_layer(layer, [], values), x), roundings=taps + 2)
    linear: Any = replace(layer, relu=False)  # type: ignore[type-var]
    near = summed(lambda values, *mine: textbook.forward_layer(linear, mine, values), x, *own)
    return replace(near, exact=np.maximum(near.exact, 0)) if layer.relu else near


def _off_by(layer: Layer, exact: Doubles) -> Doubles | float:
    """The error of an activation, in roundings of its result."""
    if isinstance(layer, ReLU):
        return -1.0
    if isinstance(layer, LeakyReLU):
        return 0.0
    ulp = np.where(exact == 0, 0, ulps(exact))
    return FUNCTION_ULPS[type(layer)] * ulp / (UNIT * np.maximum(np.abs(exact), TINY))


# -- backward ----------------------------------------------------------------------------------------
def input_gradient(layer: Layer, own: list[Floats], d: Floats, x: Floats, y: Floats) -> Near:
    if type(layer) in textbook.ACTIVATIONS:
        return _through_activation(layer, double(d), double(x), double(y))
    w = own[0] if own else x
    if isinstance(layer, Parametric):
        return summed(lambda d, w: textbook.input_gradient(layer, w, d, double(x)), d, w)
    near = summed(lambda d: textbook.input_gradient(layer, double(w), d, double(x)), d)
    taps = 0 if isinstance(layer, MaxPool) else layer.window(x.shape).taps  # type: ignore[attr-defined]
    return replace(near, roundings=near.roundings * max(taps, 1) + 3)


def _through_activation(layer: Layer, d: Doubles, x: Doubles, y: Doubles) -> Near:
    """The kernels take the slope from y, which may be off by some ulps."""
    if isinstance(layer, ReLU):
        return Near(np.where(y > 0, d, 0), np.zeros_like(d), -1)
    if isinstance(layer, LeakyReLU):
        exact = np.where(y > 0, d, d * float(np.float32(layer.slope)))
        return Near(exact, np.abs(exact), 0)
    exact_y = textbook.ACTIVATIONS[type(layer)](x, layer)
    error = FUNCTION_ULPS[type(layer)] * ulps(exact_y)
    if isinstance(layer, Sigmoid):
        slope, size, change = exact_y * (1 - exact_y), exact_y, error * (np.abs(1 - 2 * exact_y) + error)
    else:
        slope, size, change = 1 - exact_y**2, np.ones_like(exact_y), error * (2 * np.abs(exact_y) + error)
    return Near(d * slope, np.abs(d) * (size + change / UNIT), 3)


def weight_gradient(layer: Parametric, d: Floats, x: Floats) -> Near:
    return summed(lambda d, x: textbook.weight_gradient(layer, d, x), d, x)


def bias_gradient(d: Floats) -> Near:
    return summed(lambda d: d.reshape(d.shape[0], -1).sum(axis=1), d)


# -- losses ------------------------------------------------------------------------------------------
def loss(model: Model, y: Floats, target: Any, cores: int) -> tuple[Near, Near]:
    """The loss, and its gradient by y."""
    exact, n = double(y.reshape(-1)), y.size
    if model.loss == "cross-entropy":
        return _cross_entropy(exact, int(target), cores)
    difference = exact - double(np.reshape(target, -1))
    terms = difference**2 if model.loss == "mse" else np.abs(difference)
    value = Near(np.mean(terms), np.mean(terms), n + cores + 5)
    gradient = difference * 2 / n if model.loss == "mse" else np.sign(difference) / n
    return value, Near(gradient, np.abs(gradient), 3)


def _cross_entropy(y: Doubles, label: int, cores: int) -> tuple[Near, Near]:
    """A difference from the largest rounds, and its exponential by as much of itself."""
    below = y - y.max()
    share = np.exp(below) / np.exp(below).sum()
    size = np.log(np.exp(below).sum()) + 2 * np.abs(y.max()) + np.abs(y[label]) + 1
    value = Near(np.log(np.exp(below).sum()) - below[label], size, y.size + cores + 8)
    wanted = np.arange(y.size) == label
    roundings = y.size + cores + 8 + 2 * np.abs(below).max()
    return value, Near(share - wanted, share + wanted, roundings)


# -- a step ------------------------------------------------------------------------------------------
def assert_near(found: Any, near: Near, what: str) -> None:
    """Where a sum may leave FP32's range on its way, anything is near."""
    value = np.where(near.size < LARGEST / 2, np.asarray(found).reshape(near.exact.shape), near.exact)
    assert_within(value, near.exact, near.bound, what)


@np.errstate(over="ignore")
def assert_step_is_near(
    model: Model, before: Parameters, after: Parameters, x: Floats, target: Any, cores: int, optimizer: SGD,
    value: float,
) -> None:  # fmt: skip
    """before, after: the parameters; optimizer: with the velocities from before the step; value: the loss it gave."""
    host = Host(0, cores)
    outputs = functional.forward(model, before, x, host)
    values = {SAMPLE: x.reshape(model.input_shape)} | dict(zip((n.name for n in model.nodes), outputs, strict=True))
    for node in model.nodes:
        inputs = [values[value.name] for value in node.inputs]
        near = forward(node.layer, _own(model, node.number, before), *inputs)
        assert_near(values[node.name], near, f"output of {named(node.layer)}")
    wanted = x if target is None else target
    expected, gradient = loss(model, outputs[-1], wanted, cores)
    assert_near(value, expected, f"loss {model.loss}")
    for layer, slots in zip(model.layers, model.slots, strict=True):
        for name, slot in slots.items():
            if name not in layer.trained_parameters:
                assert_same_bits(after[slot], before[slot], f"{name} of the frozen {named(layer)}")
    dy = functional.loss(model, outputs[-1], wanted, cores)[1]
    given: dict[str, list[Near]] = {model.nodes[-1].name: [gradient]}
    for node, d, inputs in functional.Backward(model, before, values[SAMPLE], outputs, dy, host):
        if not np.isfinite(d).all():  # from here on down nothing is
            return
        near, y = _through(node, given[node.name], values[node.name])
        assert_near(d, near, f"gradient of the output of {named(node.layer)}")
        _assert_updates(model, node.number, d, inputs[0], before, after, optimizer)
        for which, near in enumerate(_input_gradients(model, node, before, d, inputs, y)):
            given.setdefault(node.inputs[which].name, []).append(near)


def _through(node: Node, given: list[Near], y: Floats) -> tuple[Near, Floats]:
    """The sum of what readers give to a node's output, back through its ReLU."""
    total = Near(np.zeros(y.shape), np.zeros(y.shape), np.full(y.shape, float(len(given) - 1)))
    for near in given:
        roundings = np.broadcast_to(near.roundings, near.exact.shape).reshape(y.shape)
        roundings = roundings if len(given) == 1 else np.maximum(roundings, 0)
        total = Near(
            total.exact + near.exact.reshape(y.shape), total.size + near.size.reshape(y.shape),
            total.roundings + roundings,
        )  # fmt: skip
    mask = y > 0 if node.output.relu else np.ones(y.shape, bool)
    return Near(np.where(mask, total.exact, 0), np.where(mask, total.size, 0), total.roundings), y


def _input_gradients(
    model: Model, node: Node, before: Parameters, d: Floats, inputs: list[Floats], y: Floats
) -> list[Near]:
    """What a node gives to each of its inputs."""
    if isinstance(node.layer, Add | Concat | Flatten):
        own = node.layer.input_gradients({}, d, inputs, y)
        return [Near(double(part), np.abs(double(part)), -1) for part in own]
    return [input_gradient(node.layer, _own(model, node.number, before), d, inputs[0], y)]


def named(layer: Layer) -> str:
    return f"{type(layer).__name__}: {layer.name}"


def _own(model: Model, index: int, parameters: Parameters) -> list[Floats]:
    return [parameters[slot] for slot in model.slots[index].values()]


def _assert_updates(
    model: Model, index: int, d: Floats, x: Floats, before: Parameters, after: Parameters, optimizer: SGD
) -> None:
    layer = model.layers[index]
    for name, slot in model.slots[index].items():
        assert isinstance(layer, Parametric)
        if name not in layer.trained_parameters:
            continue
        near = weight_gradient(layer, d, x) if name == "w" else bias_gradient(d)
        if name == "w" and isinstance(layer, FullyConnected):  # lr d rounds before x, however large, makes it grow
            near = replace(near, size=near.size + TINY / UNIT / optimizer.lr * np.abs(double(x)).reshape(-1))
        velocity = optimizer.state.get(slot, {}).get("velocity", np.zeros_like(before[slot]))
        assert_near(after[slot], _updated(near, before[slot], velocity, optimizer), f"new {name} of {named(layer)}")


def _updated(gradient: Near, w: Floats, velocity: Floats, optimizer: SGD) -> Near:
    """w after the step: each of decay, momentum and rate rounds once more, and so does w itself."""
    lr, momentum, decay = (
        float(np.float32(factor)) for factor in (optimizer.lr, optimizer.momentum, optimizer.weight_decay)
    )
    old, v = double(w), double(velocity)
    exact = old - lr * (gradient.exact.reshape(w.shape) + decay * old + momentum * v)
    size = gradient.size.reshape(w.shape) + decay * np.abs(old) + momentum * np.abs(v)
    roundings = np.reshape(gradient.roundings, w.shape) + 5
    return Near(exact, lr * size + np.abs(old) / np.maximum(roundings, 1), roundings)
