"""The same network in PyTorch, layer by layer: what ours is compared with. Only where PyTorch is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainlib.errors import unknown_kind
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
    PointWise,
    Pool,
    ReLU,
    ReLU6,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
    Transpose,
)
from trainlib.model import Model
from trainlib.operators.layer import Host


def outputs(torch: Any, model: Model, parameters: Sequence[Any], x: Any, step: int | None = None) -> dict[str, Any]:
    """Every layer's output for one sample, by name. parameters: tensors, as `Model.parameter_shapes` says.

    step: which training step it is, on which a Dropout's mask hangs, which is ours; None for none.
    """
    values = {SAMPLE: x}
    for node, slots in zip(model.nodes, model.slots, strict=True):
        own, inputs = [parameters[slot] for slot in slots.values()], [values[value.name] for value in node.inputs]
        values[node.name] = forward(torch, node.layer, own, *inputs, step=step)
    return values


def loss(torch: Any, model: Model, y: Any, target: Any) -> Any:
    """Of an output. target: the number of a class, or numbers."""
    f = torch.nn.functional
    if model.loss == "cross-entropy":
        return f.cross_entropy(y.reshape(1, -1), torch.tensor([target]))
    return (f.mse_loss if model.loss == "mse" else f.l1_loss)(y.reshape(-1), torch.as_tensor(target).reshape(-1))


def forward(torch: Any, layer: Layer, own: Sequence[Any], x: Any, *more: Any, step: int | None = None) -> Any:
    """A layer's output. own: its parameters, in their order. Raises ModelError for a kind from outside."""
    plain = _plain(torch, layer, x, more, step)
    if plain is not None:
        return plain
    y = _parametric(torch, layer, own, x, more)
    return torch.nn.functional.relu(y) if layer.relu else y


def _plain(torch: Any, layer: Layer, x: Any, more: Sequence[Any], step: int | None) -> Any:
    """Of kinds without parameters; None for others."""
    f = torch.nn.functional
    match layer:
        case Concat():
            return torch.cat([x, *more])
        case Flatten():
            return x.reshape(-1)
        case Reshape():
            return x.reshape(layer.shape)
        case Transpose():
            turned = x.reshape(layer.dims or x.shape).permute(*layer.order)
            return turned.reshape(layer.output_shape(tuple(x.shape)))
        case MatMul():
            a = x.transpose(1, 2) if layer.transpose_a else x
            b = more[0].transpose(1, 2) if layer.transpose_b else more[0]
            return (a @ b) * layer.scale
        case Softmax():
            return torch.softmax(x, -1)
        case Dropout():
            mask = layer.forward_on(Host(step), {}, [np.ones(tuple(x.shape), np.float32)])
            return x * torch.from_numpy(mask)
        case AveragePool() | MaxPool():
            return _pool(f, layer, x)
        case GlobalAveragePool():
            return f.adaptive_avg_pool2d(x[None], 1)[0]
        case ReLU():
            return f.relu(x)
        case ReLU6():
            return f.relu6(x)
        case HardSwish():
            return f.hardswish(x)
        case GELU():
            return f.gelu(x, approximate=layer.approximate)
        case LeakyReLU():
            return f.leaky_relu(x, layer.slope)
        case Sigmoid():
            return torch.sigmoid(x)
        case Tanh():
            return torch.tanh(x)
    return None


def _parametric(torch: Any, layer: Layer, own: Sequence[Any], x: Any, more: Sequence[Any]) -> Any:
    """Before the layer's own ReLU."""
    f, b = torch.nn.functional, own[1] if len(own) > 1 else None
    match layer:
        case Add():
            return sum(more, x)
        case Offset():
            return x + own[0]
        case BatchNorm():
            mean, inverse = (array.detach() for array in own[2:])
            return f.batch_norm(x[None], mean, 1 / inverse**2, own[0], b, eps=0.0)[0]
        case InstanceNorm():
            return f.instance_norm(x[None], weight=own[0], bias=b, eps=layer.eps)[0]
        case LayerNorm():
            return f.layer_norm(x.reshape(-1), (layer.features,), own[0], b, layer.eps).reshape(x.shape)
        case LayerNorm2D():
            return f.layer_norm(x.permute(1, 2, 0), (layer.channels,), own[0], b, layer.eps).permute(2, 0, 1)
        case FullyConnected():
            return f.linear(x.reshape(-1), own[0], b)
        case PointWise():
            return f.conv2d(x[None], own[0][:, :, None, None], b)[0]
        case Conv2D() | DepthWise():
            at = layer.window(tuple(x.shape))
            padded = f.pad(x[None], (at.left, at.right, at.top, at.bottom))
            groups = layer.channels if isinstance(layer, DepthWise) else layer.groups
            w = own[0][:, None] if isinstance(layer, DepthWise) else own[0]
            return f.conv2d(padded, w, b, (at.stride_h, at.stride_w), 0, (at.dilation_h, at.dilation_w), groups)[0]
    raise unknown_kind(layer, "computed by PyTorch")


def _pool(f: Any, layer: Pool, x: Any) -> Any:
    at = layer.window(tuple(x.shape))
    window = (at.kernel_h, at.kernel_w), (at.stride_h, at.stride_w)

    def padded(x: Any, value: float) -> Any:  # by itself it takes padding on both sides alike, and half a kernel
        return f.pad(x[None], (at.left, at.right, at.top, at.bottom), value=value)

    if isinstance(layer, MaxPool):
        return f.max_pool2d(padded(x, -np.inf), *window)[0]
    counted = f.avg_pool2d(padded(x.detach() * 0 + 1, float(getattr(layer, "count_padding", False))), *window)[0]
    return f.avg_pool2d(padded(x, 0.0), *window)[0] / counted
