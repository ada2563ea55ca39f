"""A training step on the host in the cluster's own arithmetic: every network, layer by layer, without timing.

Values come from `numerics` alone, the kernels' twins, in the order in which the cluster computes them:

- convolutions are matrix products. FW: W im2row(x)^T, then the bias, one addition each, then the ReLU.
  WG: dy im2row(x). IG: W' im2row(dy)^T with W' the transposed, flipped weights and dy dilated by the stride.
- a stored gradient is applied as w = fma(-lr, dw, w); a fully-connected layer's under plain SGD is not
  stored, w = fma(-lr dy, x, w), unless `stored_gradients` names the layer.
- a loss sums over the elements of each core, and these sums over the cores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pulpsim.arguments import real
from trainlib import DEFAULT_LEARNING_RATE
from trainlib.errors import DataError, ModelError, unknown_kind, unknown_loss
from trainlib.layers import (
    AveragePool,
    Conv2D,
    DepthWise,
    FullyConnected,
    GlobalAveragePool,
    Layer,
    LeakyReLU,
    MaxPool,
    Parametric,
    PointWise,
    ReLU,
    Shape,
    Sigmoid,
    Tanh,
    require_known,
)
from trainlib.model import Model, Parameters
from trainlib.numerics import (
    activations,
    bias,
    classification,
    depthwise,
    elementwise,
    fully_connected,
    im2row,
    layout,
    matmul,
    pooling,
)
from trainlib.numerics import (
    loss as losses,
)
from trainlib.numerics import (
    optimizer as optimizers,
)

Floats = NDArray[np.float32]
#: a layer's own parameters, "w" and "b"
Own = dict[str, Floats]

#: those of the default platform
DEFAULT_CORES = 8


def _single(value: float) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(value)


@dataclass(eq=False)
class SGD:
    """Stochastic gradient descent: g = dw + weight_decay w; v = momentum v + g; w -= lr v.

    Biases are parameters like others. velocity: v of each array in `Parameters`, by its place, once it has
    one; it belongs to one network's training. Raises ModelError for a number out of range.
    """

    lr: float = DEFAULT_LEARNING_RATE
    momentum: float = 0.0
    weight_decay: float = 0.0
    velocity: dict[int, Floats] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        lr, momentum, decay = real(self.lr), real(self.momentum), real(self.weight_decay)
        if lr is None or not 0 < _single(lr) < np.inf:
            raise ModelError(f"SGD: lr = {self.lr!r}: must be a positive number, one that FP32 holds")
        if momentum is None or not 0 <= momentum < 1 or _single(momentum) == 1:
            raise ModelError(f"SGD: momentum = {self.momentum!r}: must be at least 0 and below 1")
        if decay is None or not 0 <= _single(decay) < np.inf:
            raise ModelError(
                f"SGD: weight_decay = {self.weight_decay!r}: must be at least 0 and a number that FP32 holds"
            )
        self.lr, self.momentum, self.weight_decay = lr, momentum, decay

    @property
    def minus_lr(self) -> np.float32:
        return np.float32(-np.float32(self.lr))

    @property
    def plain(self) -> bool:
        """Neither momentum nor weight decay: gradients need not be stored."""
        return np.float32(self.momentum) == 0 == np.float32(self.weight_decay)

    def check_velocity(self, parameters: Parameters) -> None:
        """Raises ModelError unless the velocity is that of these parameters."""
        for slot, v in sorted(self.velocity.items()):
            if slot >= len(parameters) or v.shape != parameters[slot].shape:
                raise ModelError(f"SGD: the velocity of parameter array {slot} is that of another network")

    def update(self, slot: int, w: Floats, dw: Floats) -> None:
        """Change parameter array `slot` in place."""
        v = self.velocity.setdefault(slot, np.zeros_like(w)) if np.float32(self.momentum) else np.empty(0, np.float32)
        optimizers.sgd(
            w.reshape(-1), dw.reshape(-1), v.reshape(-1), self.minus_lr,
            np.float32(self.momentum), np.float32(self.weight_decay),
        )  # fmt: skip


# -- one layer -------------------------------------------------------------------------------------
def _pixels(x: Floats) -> Floats:
    """[channels, pixels]."""
    return x.reshape(x.shape[0], -1)


def _rows(layer: Conv2D, x: Floats) -> Floats:
    """[output pixels, inputs x taps]."""
    at = layer.window(x.shape)
    return im2row.im2row(
        x, at.kernel_h, at.kernel_w, at.stride_h, at.stride_w, at.top, at.left, at.out_h, at.out_w
    )  # fmt: skip


def _padded(layer: DepthWise, x: Floats) -> Floats:
    at = layer.window(x.shape)
    return layout.pad(x, at.padded_h, at.padded_w, at.top, at.left, 1, 1)


def forward_layer(layer: Layer, own: Own, x: Floats) -> Floats:
    """A layer's output, through its ReLU if it has one; x and the output in the layer's shapes.

    Raises ModelError for a kind that is not known.
    """
    require_known(layer, "computed")
    match layer:
        case FullyConnected():
            y = fully_connected.fc_forward(own["w"], x.reshape(-1), False)
        case Conv2D():
            y = matmul.matmul(_pixels(own["w"]), _rows(layer, x), True)
        case PointWise():
            y = matmul.matmul(own["w"], _pixels(x), False)
        case DepthWise():
            at = layer.window(x.shape)
            y = depthwise.dw_forward(_padded(layer, x), own["w"], at.stride_h, at.stride_w)
        case AveragePool() | GlobalAveragePool():
            at = layer.window(x.shape)
            return pooling.average_pool(x, at.kernel_h, at.kernel_w, at.stride_h, at.stride_w)
        case MaxPool():
            at = layer.window(x.shape)
            return pooling.max_pool(x, at.kernel_h, at.kernel_w, at.stride_h, at.stride_w)
        case _:
            return _activate(layer, x.reshape(-1)).reshape(x.shape)
    if "b" in own:
        y = bias.bias_forward(_pixels(y), own["b"], layer.relu)
    elif layer.relu:
        y = _relu(y.reshape(-1))
    return y.reshape(layer.output_shape(x.shape))


def _relu(x: Floats) -> Floats:
    """x where x > 0, else +0."""
    return elementwise.relu_backward(x, x)


def _activate(layer: Layer, x: Floats) -> Floats:
    match layer:
        case ReLU():
            return _relu(x)
        case LeakyReLU():
            return activations.leaky_relu(x, np.float32(layer.slope))
        case Sigmoid():
            return activations.sigmoid(x)
        case Tanh():
            return activations.tanh(x)
    raise unknown_kind(layer, "computed")


def _activation_gradient(layer: Layer, dy: Floats, y: Floats) -> Floats:
    match layer:
        case ReLU():
            return elementwise.relu_backward(dy, y)
        case LeakyReLU():
            return activations.leaky_relu_backward(dy, y, np.float32(layer.slope))
        case Sigmoid():
            return activations.sigmoid_backward(dy, y)
        case Tanh():
            return activations.tanh_backward(dy, y)
    raise unknown_kind(layer, "computed")


def through_relu(layer: Layer, dy: Floats, y: Floats) -> Floats:
    """The gradient before the layer's own ReLU, from that after it and the layer's output y."""
    if isinstance(layer, Parametric) and layer.relu:
        return elementwise.relu_backward(dy.reshape(-1), y.reshape(-1)).reshape(y.shape)
    return dy


def weight_gradient(layer: Parametric, dy: Floats, x: Floats) -> Floats:
    """dw, in the weights' shape. dy: the gradient before the layer's own ReLU, in the output's shape."""
    require_known(layer, "computed")
    match layer:
        case FullyConnected():
            return fully_connected.fc_weight_gradient(dy, x.reshape(-1))
        case Conv2D():
            return matmul.matmul(_pixels(dy), _rows(layer, x), False).reshape(layer.weight_shape)
        case PointWise():
            return matmul.matmul(_pixels(dy), _pixels(x), True)
        case DepthWise():
            at = layer.window(x.shape)
            padded = _padded(layer, x)
            return depthwise.dw_weight_gradient(padded, dy, at.kernel_h, at.kernel_w, at.stride_h, at.stride_w)
    raise unknown_kind(layer, "computed")


def bias_gradient(dy: Floats) -> Floats:
    """db: each channel's sum of dy, the gradient before the layer's own ReLU; of a vector dy itself, -0 and all."""
    return dy.copy() if dy.ndim == 1 else bias.bias_gradient(_pixels(dy))


def input_gradient(layer: Layer, own: Own, dy: Floats, x: Floats, y: Floats) -> Floats:
    """dx, in x's shape. dy: the gradient before the layer's own ReLU; x, y: the layer's input and output."""
    require_known(layer, "computed")
    match layer:
        case FullyConnected():
            return fully_connected.fc_input_gradient(own["w"], dy).reshape(x.shape)
        case Conv2D():
            at = layer.window(x.shape)
            flipped = layout.flip_transpose(own["w"].reshape(layer.outputs, layer.inputs, at.taps))
            rows = im2row.im2row_gradient(
                dy, at.kernel_h, at.kernel_w, at.stride_h, at.stride_w, at.top, at.left, at.height, at.width, 0
            )
            return matmul.matmul(_pixels(flipped), rows, True).reshape(x.shape)
        case PointWise():
            return matmul.matmul(layout.transpose(own["w"]), _pixels(dy), False).reshape(x.shape)
        case DepthWise():
            at = layer.window(x.shape)
            padded = layout.pad(
                dy, at.height + at.kernel_h - 1, at.width + at.kernel_w - 1,
                at.kernel_h - 1 - at.top, at.kernel_w - 1 - at.left, at.stride_h, at.stride_w,
            )  # fmt: skip
            return depthwise.dw_input_gradient(padded, own["w"])
        case AveragePool() | GlobalAveragePool():
            at = layer.window(x.shape)
            return pooling.average_pool_gradient(
                dy, at.height, at.width, at.kernel_h, at.kernel_w, at.stride_h, at.stride_w
            )
        case MaxPool():
            at = layer.window(x.shape)
            return pooling.max_pool_gradient(dy, x, at.kernel_h, at.kernel_w, at.stride_h, at.stride_w)
    return _activation_gradient(layer, dy.reshape(-1), y.reshape(-1)).reshape(x.shape)


# -- a network -------------------------------------------------------------------------------------
def _own(model: Model, index: int, parameters: Parameters) -> Own:
    return {name: parameters[slot] for name, slot in model.slots[index].items()}


def numbers(what: str, values: ArrayLike, shapes: Collection[Shape], accepted: str) -> Floats:
    """values in FP32, contiguous, in one of the shapes. what, accepted: for the message. Raises DataError."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        raise DataError(f"{what} that is no array: must be {accepted}") from None
    if array.shape not in shapes:
        raise DataError(f"{what} of shape {list(array.shape)}: must be {accepted}")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} of {array.dtype}: must be numbers, {accepted}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def _sample(model: Model, x: ArrayLike) -> Floats:
    shape = model.input_shape
    return numbers(f"{model.name}: a sample", x, (shape, (model.inputs,)), f"{list(shape)}").reshape(shape)


def forward(model: Model, parameters: Parameters, x: ArrayLike) -> list[Floats]:
    """Every layer's output for one sample, which may also be flat. Raises ModelError or DataError."""
    model.check_parameters(parameters)
    outputs: list[Floats] = []
    value = _sample(model, x)
    for index, layer in enumerate(model.layers):
        value = forward_layer(layer, _own(model, index, parameters), value)
        outputs.append(value)
    return outputs


def loss(model: Model, y: Floats, target: ArrayLike, cores: int = DEFAULT_CORES) -> tuple[float, Floats]:
    """(loss, gradient by y).

    target: y's numbers, in its shape or flat (an autoencoder's: in the input's shape), or for cross-entropy the number
    of the class. cores: among which the sum is shared, which decides its last bits. Raises DataError.
    """
    if model.loss == "cross-entropy":
        given = np.asarray(target)
        if given.shape or given.dtype.kind not in "iu" or not 0 <= given < y.size:
            raise DataError(f"{model.name}: target {target!r}: must be the number of a class, 0 to {y.size - 1}")
        value, gradient = classification.cross_entropy(y.reshape(-1), int(given), cores)
    else:
        shape = model.shapes[-1][1]
        shapes = (shape, (model.outputs,), *([model.input_shape] if model.target_is_input else []))
        wanted = numbers(f"{model.name}: a target", target, shapes, f"{list(shape)}").reshape(-1)
        functions = {"mse": losses.mse, "l1": losses.l1}
        if model.loss not in functions:
            raise unknown_loss(model.name, model.loss, "computed")
        value, gradient = functions[model.loss](y.reshape(-1), wanted, cores)
    return float(value), gradient.reshape(y.shape)


def _target(model: Model, x: ArrayLike, target: ArrayLike | None) -> ArrayLike:
    if model.target_is_input:
        if target is not None:
            raise DataError(f"{model.name} learns its input: it takes no other target")
        return _sample(model, x).reshape(-1)
    if target is None:
        raise DataError(f"{model.name} needs a target with every sample")
    return target


def _backward(
    model: Model, parameters: Parameters, x: Floats, outputs: list[Floats], dy: Floats
) -> Iterator[tuple[int, Floats, Floats]]:
    """(index, gradient before the layer's own ReLU, input) of every layer, from the last to the lowest trained.

    A layer's parameters may be changed once it has been given: its input gradient is computed by then.
    """
    for index in reversed(range(model.lowest_trained, len(model.layers))):
        layer, below = model.layers[index], outputs[index - 1] if index else x
        dy = through_relu(layer, dy, outputs[index])
        dx = dy
        if index > model.lowest_trained:
            dx = input_gradient(layer, _own(model, index, parameters), dy, below, outputs[index])
        yield index, dy, below
        dy = dx


def gradients(
    model: Model, parameters: Parameters, x: ArrayLike, target: ArrayLike | None = None, cores: int = DEFAULT_CORES
) -> tuple[float, dict[int, Floats]]:
    """(loss, gradient of each array in `parameters` that is trained, by its place). Raises as `step`."""
    target = _target(model, x, target)
    outputs = forward(model, parameters, x)
    value, dy = loss(model, outputs[-1], target, cores)
    found: dict[int, Floats] = {}
    for index, d, below in _backward(model, parameters, _sample(model, x), outputs, dy):
        layer, slots = model.layers[index], model.slots[index]
        if isinstance(layer, Parametric) and layer.trained:
            found[slots["w"]] = weight_gradient(layer, d, below)
            if layer.bias:
                found[slots["b"]] = bias_gradient(d)
    return value, found


def step(
    model: Model,
    parameters: Parameters,
    x: ArrayLike,
    target: ArrayLike | None = None,
    optimizer: SGD | None = None,
    cores: int = DEFAULT_CORES,
    stored_gradients: Collection[str] = (),
) -> float:
    """One training step on one sample, changing `parameters` in place; the loss before it.

    target: as in `loss`; None where it is the input. optimizer: None is plain SGD of the default rate.
    stored_gradients: names of fully-connected layers whose update is a pass of its own, although it could
    be fused into the weight gradient. Raises ModelError or DataError, having changed nothing.
    """
    optimizer = optimizer or SGD()
    optimizer.check_velocity(parameters)
    target = _target(model, x, target)
    outputs = forward(model, parameters, x)
    value, dy = loss(model, outputs[-1], target, cores)
    for index, d, below in _backward(model, parameters, _sample(model, x), outputs, dy):
        layer, slots = model.layers[index], model.slots[index]
        if not isinstance(layer, Parametric) or not layer.trained:
            continue
        w = parameters[slots["w"]]
        if isinstance(layer, FullyConnected) and optimizer.plain and layer.name not in stored_gradients:
            fully_connected.fc_fused_update(w, d, below.reshape(-1), optimizer.minus_lr)
        else:
            optimizer.update(slots["w"], w, weight_gradient(layer, d, below))
        if layer.bias:
            optimizer.update(slots["b"], parameters[slots["b"]], bias_gradient(d))
    return value
