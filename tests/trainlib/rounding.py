"""A functional step against float64, layer by layer, within what FP32 rounding explains.

Every operation is given the FP32 numbers that the functional step gave it, so that a network may be as deep as it
likes: signs and maxima are the step's own, and no error of one layer is excused by another's. A sum of products may
be off by its number of roundings times the sum of the products' magnitudes, which `textbook` computes like the sum
itself, from magnitudes; and their number likewise, from ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.trainlib import near_normalisation, near_optimizers, textbook
from tests.trainlib.arrays import TINY, UNIT, Floats, assert_same_bits, ulps
from tests.trainlib.near import LARGEST, Near, assert_near, double, summed, unless
from tests.trainlib.textbook import Doubles
from trainlib import functional
from trainlib.graph import SAMPLE, Node
from trainlib.layers import (
    GELU,
    Add,
    BatchNorm,
    Concat,
    Dropout,
    Flatten,
    FullyConnected,
    HardSwish,
    InstanceNorm,
    Layer,
    LeakyReLU,
    MatMul,
    MaxPool,
    Offset,
    Parametric,
    ReLU,
    ReLU6,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
    Transpose,
)
from trainlib.model import Model, Parameters
from trainlib.operators.layer import Host
from trainlib.operators.norms import Norm
from trainlib.optimizers import Batch, Optimizer

#: ulps by which a function of its own may be off, as its kernel states
FUNCTION_ULPS = {Sigmoid: 2.5, Tanh: 2.8, HardSwish: 2.5, GELU: 2.5}
#: what a slope that is found from x may be off by, likewise
SLOPES = {HardSwish: 2.0**-23, GELU: 2.0**-22}


# -- forward -----------------------------------------------------------------------------------------
def forward(host: Host, layer: Layer, own: list[Floats], x: Floats, *others: Floats) -> Near:
    if isinstance(layer, Add):
        near = summed(lambda *values: sum(values[1:], start=values[0]), x, *others)
        return replace(near, exact=np.maximum(near.exact, 0)) if layer.relu else near
    if isinstance(layer, Concat | Flatten | Reshape | Transpose):
        exact = textbook.forward_layer(layer, [], double(x), *map(double, others))
        return Near(exact, np.zeros_like(exact), -1)
    if isinstance(layer, MatMul):
        return _scaled(layer, summed(lambda a, b: textbook.multiplied(layer, a, b), x, *others))
    if isinstance(layer, Softmax):
        return _softmax(double(x))
    if isinstance(layer, Dropout):
        return _masked(host, layer, x)
    if type(layer) in textbook.ACTIVATIONS:
        exact = textbook.forward_layer(layer, [], double(x))
        return Near(exact, np.abs(exact), _off_by(layer, exact))
    if isinstance(layer, MaxPool):
        exact = textbook.forward_layer(layer, [], double(x))
        return Near(exact, np.zeros_like(exact), -1)
    if not isinstance(layer, Parametric):  # means: a rounding an element, their share of the sum
        taps = layer.window(x.shape).taps  # type: ignore[attr-defined]
        return replace(summed(lambda values: textbook.forward_layer(layer, [], values), x), roundings=taps + 2)
    near = _linear(layer, own, x)
    return replace(near, exact=np.maximum(near.exact, 0)) if layer.relu else near


def _linear(layer: Parametric, own: list[Floats], x: Floats) -> Near:
    """Before the layer's own ReLU."""
    linear: Any = replace(layer, relu=False) if layer.relu else layer  # type: ignore[type-var]
    if isinstance(layer, BatchNorm):
        return _affine(linear, [double(array) for array in own], double(x))
    if isinstance(layer, Norm):
        w, b = (textbook.along(layer, double(array)) for array in own)
        near = near_normalisation.normal(textbook.rows(layer, double(x)), w, b, layer.eps)
        return _from_rows(layer, near, x)
    if isinstance(layer, Offset):
        return summed(np.add, x, *own)
    return summed(lambda values, *mine: textbook.forward_layer(linear, mine, values), x, *own)


def _from_rows(layer: Layer, near: Near, x: Floats) -> Near:
    exact, size = (textbook.from_rows(layer, array, x.shape) for array in (near.exact, near.size))
    return Near(exact, size, near.roundings)


def _affine(layer: BatchNorm, own: list[Doubles], x: Doubles) -> Near:
    """x scale + shift, the scale being w inverse, the shift b - mean scale; a scale that underflows is off by TINY."""
    w, b, mean, inverse = (np.abs(array) for array in own)
    reach = np.abs(x) + mean.reshape(-1, *[1] * (x.ndim - 1))
    size = textbook.forward_layer(layer, [w, b, -mean, inverse], np.abs(x)) + TINY / UNIT * reach
    return unless(_too_large(layer, own, x), Near(textbook.forward_layer(layer, own, x), size, 3))


def _too_large(layer: BatchNorm, own: list[Doubles], x: Doubles) -> Doubles:
    """Whether the scale of a number may leave FP32's range."""
    return np.abs(textbook.along(layer, own[0] * own[3]) + 0 * textbook.rows(layer, x)).reshape(x.shape) > LARGEST / 2


def _masked(host: Host, layer: Dropout, x: Floats) -> Near:
    """What is kept is multiplied by a factor that is rounded."""
    exact = textbook.dropped(layer, double(x), host.step)
    return Near(exact, np.abs(exact), 1)


def _scaled(layer: MatMul, near: Near) -> Near:
    """A product, which may have left FP32's range before it is scaled."""
    scale = abs(float(np.float32(layer.scale)))
    size = near.size * scale + TINY / UNIT * scale
    return unless(near.size > LARGEST / 2, Near(near.exact * layer.scale, size, near.roundings + 2))


def _softmax(x: Doubles) -> Near:
    """A difference from the row's largest rounds, and its exponential by as much of itself."""
    below, share = x - x.max(axis=-1, keepdims=True), textbook.softmax(x)
    return Near(share, share, x.shape[-1] + 8 + 2 * np.abs(below).max(axis=-1, keepdims=True))


def _through_softmax(d: Doubles, y: Doubles) -> Near:
    """Given y in FP32, of which no error is excused."""
    sums = np.abs(d) + np.abs(y * d).sum(axis=-1, keepdims=True)
    near = Near(textbook.softmax_gradient(d, y), y * (sums + TINY / UNIT * y.shape[-1]), y.shape[-1] + 3)
    return unless(sums > LARGEST / 2, near)


def _off_by(layer: Layer, exact: Doubles) -> Doubles | float:
    """The error of an activation, in roundings of its result."""
    if isinstance(layer, ReLU | ReLU6):
        return -1.0
    if isinstance(layer, LeakyReLU):
        return 0.0
    ulp = np.where(exact == 0, 0, ulps(exact))
    if isinstance(layer, GELU):  # below 0 of its own size only
        ulp = np.where(exact < 0, np.maximum(ulp, UNIT), ulp)
    return FUNCTION_ULPS[type(layer)] * ulp / (UNIT * np.maximum(np.abs(exact), TINY))


# -- backward ----------------------------------------------------------------------------------------
def input_gradient(host: Host, layer: Layer, own: list[Floats], d: Floats, x: Floats, y: Floats) -> Near:
    if isinstance(layer, Softmax):
        return _through_softmax(double(d), double(y))
    if isinstance(layer, Dropout):
        return _masked(host, layer, d)
    if isinstance(layer, Transpose):
        exact = textbook.input_gradient(layer, [], double(d), double(x))
        return Near(exact, np.zeros_like(exact), -1)
    if type(layer) in textbook.ACTIVATIONS:
        return _through_activation(layer, double(d), double(x), double(y))
    if isinstance(layer, Norm):
        dy, rows, w, known = _of_rows(host, layer, own, d, x)
        near = near_normalisation.input_gradient(dy, rows, w, known)
        return _from_rows(layer, near, x)
    if isinstance(layer, Parametric):
        near = summed(lambda d, *own: textbook.input_gradient(layer, own, d, double(x)), d, *own)
        if not isinstance(layer, BatchNorm):
            return near
        near = Near(near.exact, near.size + TINY / UNIT * np.abs(double(d)), 2)
        return unless(_too_large(layer, [double(array) for array in own], double(x)), near)
    near = summed(lambda d: textbook.input_gradient(layer, [], d, double(x)), d)
    taps = 0 if isinstance(layer, MaxPool) else layer.window(x.shape).taps  # type: ignore[attr-defined]
    return replace(near, roundings=near.roundings * max(taps, 1) + 3)


def _of_rows(
    host: Host, layer: Norm, own: list[Floats], d: Floats, x: Floats
) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """dy, x and w as rows, and the step's own statistics, which are near to x's."""
    rows, (w, b) = textbook.rows(layer, double(x)), own
    known = layer.normal({"w": w, "b": b}, x, host.cores)[1].reshape(-1, 2)
    assert_near(known, near_normalisation.statistics(rows, layer.eps), f"statistics of {named(layer)}")
    return textbook.rows(layer, double(d)), rows, textbook.along(layer, double(w)), double(known)


def _through_activation(layer: Layer, d: Doubles, x: Doubles, y: Doubles) -> Near:
    """The kernels take the slope from y, which may be off by some ulps, or from x."""
    if isinstance(layer, ReLU | ReLU6):
        passes = (y > 0) & (y < 6) if isinstance(layer, ReLU6) else y > 0
        exact = np.where(passes, d, 0)
        return Near(exact, np.abs(exact), -1)
    if isinstance(layer, LeakyReLU):
        exact = np.where(y > 0, d, d * float(np.float32(layer.slope)))
        return Near(exact, np.abs(exact), 0)
    if type(layer) in SLOPES:
        exact = textbook.activation_gradient(layer, d, x)
        return Near(exact, np.abs(exact) + np.abs(d) * SLOPES[type(layer)] / UNIT, 1)
    exact_y = textbook.ACTIVATIONS[type(layer)](x, layer)
    error = FUNCTION_ULPS[type(layer)] * ulps(exact_y)
    if isinstance(layer, Sigmoid):
        slope, size, change = exact_y * (1 - exact_y), exact_y, error * (np.abs(1 - 2 * exact_y) + error)
    else:
        slope, size, change = 1 - exact_y**2, np.ones_like(exact_y), error * (2 * np.abs(exact_y) + error)
    return Near(d * slope, np.abs(d) * (size + change / UNIT), 3)


def parameter_gradients(
    host: Host, layer: Parametric, own: list[Floats], d: Floats, x: Floats
) -> dict[str, Near]:
    """Of w and of b, also of those that are not trained."""
    if isinstance(layer, Norm):
        dy, rows, _, known = _of_rows(host, layer, own, d, x)
        return near_normalisation.parameter_gradients(dy, rows, known, isinstance(layer, InstanceNorm))
    if isinstance(layer, Offset):
        return {"w": Near(double(d), np.abs(double(d)), -1)}
    if isinstance(layer, BatchNorm):
        return {"w": _gamma_gradient(layer, own, d, x), "b": bias_gradient(d)}
    return {"w": summed(lambda d, x: textbook.weight_gradient(layer, d, x), d, x), "b": bias_gradient(d)}


def _gamma_gradient(layer: BatchNorm, own: list[Floats], d: Floats, x: Floats) -> Near:
    """Sums of d (x - mean), each off by TINY where its terms are as small, times the inverse."""

    def sums(d: Doubles, x: Doubles, away: Doubles, inverse: Doubles) -> Doubles:
        return textbook.parameter_gradients(layer, [away, away, -away, inverse], d, x)["w"]

    near, inverse = summed(sums, d, x, -own[2], own[3]), np.abs(double(own[3]))
    return replace(near, size=near.size + TINY / UNIT * inverse, roundings=near.roundings + 1)


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
@dataclass(frozen=True)
class Moment:
    """What a training has come to: copies. number: of the step that comes next."""

    parameters: Parameters
    optimizer: Optimizer
    batch: Batch
    number: int

    @property
    def arrays(self) -> list[Floats]:
        """Parameters, states and sums."""
        states = [array for own in self.optimizer.state.values() for array in own.values()]
        return [*self.parameters, *states, *self.batch.sums.values()]


@np.errstate(over="ignore", invalid="ignore")
def assert_step_is_near(
    model: Model, before: Moment, after: Moment, x: Floats, target: Any, cores: int, value: float
) -> None:
    """value: the loss that the step gave."""
    host = Host(before.number, cores)
    outputs = functional.forward(model, before.parameters, x, host)
    values = {SAMPLE: x.reshape(model.input_shape)} | dict(zip((n.name for n in model.nodes), outputs, strict=True))
    for node in model.nodes:
        inputs = [values[value.name] for value in node.inputs]
        near = forward(host, node.layer, _own(model, node.number, before.parameters), *inputs)
        assert_near(values[node.name], near, f"output of {named(node.layer)}")
    wanted = x if target is None else target
    expected, gradient = loss(model, outputs[-1], wanted, cores)
    assert_near(value, expected, f"loss {model.loss}")
    _assert_kept(model, before, after)
    dy = functional.loss(model, outputs[-1], wanted, cores)[1]
    given: dict[str, list[Near]] = {model.nodes[-1].name: [gradient]}
    for node, d, inputs in functional.Backward(model, before.parameters, values[SAMPLE], outputs, dy, host):
        if not np.isfinite(d).all():  # from here on down nothing is
            return
        near, y = _through(node, given[node.name], values[node.name])
        assert_near(d, near, f"gradient of the output of {named(node.layer)}")
        _assert_updates(model, node, host, d, inputs[0], before, after)
        for which, near in enumerate(_input_gradients(model, node, host, before.parameters, d, inputs, y)):
            given.setdefault(node.inputs[which].name, []).append(near)


def _assert_kept(model: Model, before: Moment, after: Moment) -> None:
    """What is frozen does not change, nor does anything before a batch has ended."""
    updates = before.batch.part in ("alone", "last")
    for layer, slots in zip(model.layers, model.slots, strict=True):
        for name, slot in slots.items():
            if not updates or name not in layer.trained_parameters:
                what = f"{name} of the frozen {named(layer)}" if updates else f"{name} within a batch"
                assert_same_bits(after.parameters[slot], before.parameters[slot], what)


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
    model: Model, node: Node, host: Host, before: Parameters, d: Floats, inputs: list[Floats], y: Floats
) -> list[Near]:
    """What a node gives to each of its inputs."""
    if isinstance(node.layer, Add | Concat | Flatten | Reshape | Offset):
        own = node.layer.input_gradients({}, d, inputs, y)
        return [Near(double(part), np.abs(double(part)), -1) for part in own]
    if isinstance(layer := node.layer, MatMul):
        return [
            _scaled(layer, summed(lambda *of, w=which: textbook.multiplied_gradients(layer, *of)[w], d, *inputs))
            for which in range(2)
        ]
    return [input_gradient(host, node.layer, _own(model, node.number, before), d, inputs[0], y)]


def named(layer: Layer) -> str:
    return f"{type(layer).__name__}: {layer.name}"


def _own(model: Model, index: int, parameters: Parameters) -> list[Floats]:
    return [parameters[slot] for slot in model.slots[index].values()]


def _assert_updates(
    model: Model, node: Node, host: Host, d: Floats, x: Floats, before: Moment, after: Moment
) -> None:
    """The step's own gradients are near, and so is what they change: the sums of a batch, or states and parameters."""
    layer, slots = node.layer, model.slots[node.number]
    if not layer.trained:
        return
    assert isinstance(layer, Parametric)
    own = functional.own_of(model, node.number, before.parameters)
    near = parameter_gradients(host, layer, list(own.values()), d, x)
    found = layer.parameter_gradients_on(host, own, d, [x])
    for name in layer.trained_parameters:
        what, slot = f"{name} of {named(layer)}", slots[name]
        assert_near(found[name], near[name], f"gradient {what}")
        states = before.optimizer, before.batch, after.optimizer
        for of, expected in near_optimizers.changed(slot, own[name], found[name], *states).items():
            if of == name == "w" and before.optimizer.plain and isinstance(layer, FullyConnected):
                # lr d rounds before x, however large, makes it grow
                expected = replace(expected, size=expected.size + TINY / UNIT * np.abs(double(x)).reshape(-1))
            is_of = {"w": after.parameters, "sum": after.batch.sums}.get(of)
            value = after.optimizer.state[slot][of] if is_of is None else is_of[slot]
            assert_near(value, expected, f"new {of} of {what}" if of != "w" else f"new {what}")
