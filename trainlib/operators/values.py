"""Values on the host that several kinds of layer share: what ends a forward step, and gradients through it."""

from __future__ import annotations

from trainlib.numerics import bias, elementwise
from trainlib.operators.layer import Floats, Layer, Own, Shape


def pixels(x: Floats) -> Floats:
    """[channels, pixels]."""
    return x.reshape(x.shape[0], -1)


def relu(x: Floats) -> Floats:
    """x where x > 0, else +0."""
    flat = x.reshape(-1)
    return elementwise.relu_backward(flat, flat).reshape(x.shape)


def finished(layer: Layer, own: Own, y: Floats, shape: Shape) -> Floats:
    """With the layer's bias added and through its ReLU, where it has them; in the output's shape."""
    if "b" in own:
        y = bias.bias_forward(pixels(y), own["b"], layer.relu)
    elif layer.relu:
        y = relu(y)
    return y.reshape(shape)


def through_relu(layer: Layer, dy: Floats, y: Floats) -> Floats:
    """The gradient before the layer's own ReLU, from that after it and the layer's output y."""
    if not layer.relu:
        return dy
    return elementwise.relu_backward(dy.reshape(-1), y.reshape(-1)).reshape(y.shape)


def bias_gradient(dy: Floats) -> Floats:
    """db: each channel's sum of dy; of a vector dy itself, -0 and all."""
    return dy.copy() if dy.ndim == 1 else bias.bias_gradient(pixels(dy))


def with_bias(layer: Layer, dw: Floats, dy: Floats) -> dict[str, Floats]:
    """The gradients of a layer's parameters."""
    return {"w": dw, "b": bias_gradient(dy)} if layer.bias else {"w": dw}
