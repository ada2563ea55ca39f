"""Layers that can be part of the one before: additions as its bias, factors, ReLUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from trainlib.importing.draft import Draft, by_channel
from trainlib.importing.elementwise import affine
from trainlib.layers import BatchNorm, Conv2D, DepthWise, FullyConnected, MatMul, Offset, PointWise, ReLU

#: kinds that may have a bias
LINEAR = (FullyConnected, Conv2D, PointWise, DepthWise)


def fuse(draft: Draft, output: str) -> None:
    """Biases and factors first, then ReLUs, but for one that gives the network's output, which feeds the loss."""
    for change in (_bias, _scale, _channels, _relu):
        for name in list(draft.layers):
            if name in draft.layers:
                change(draft, name, output)


Change = Callable[[Draft, str, str], None]


def _before(draft: Draft, name: str) -> str:
    """The layer that this one alone reads, "" if there is no such."""
    (source,) = draft.layers[name].inputs
    return source if source in draft.layers and draft.readers(source) == [name] else ""


def _bias(draft: Draft, name: str, output: str) -> None:
    if not isinstance(draft.layers[name], Offset) or not (source := _before(draft, name)):
        return
    layer, given = draft.layers[source], draft.parameters[name]["w"]
    if not isinstance(layer, LINEAR) or layer.bias or layer.relu or not given.tensor:
        return
    if (bias := by_channel(given, layer.weight_shape[0])) is not None:
        draft.change(source, {"b": bias}, bias=True)
        draft.drop(name)


def _scale(draft: Draft, name: str, output: str) -> None:
    """The factor of a product of two values."""
    if not isinstance(draft.layers[name], BatchNorm) or not (source := _before(draft, name)):
        return
    layer, own = draft.layers[source], draft.parameters[name]
    factor = own["w"].scalar
    alone = (own["b"].scalar, own["mean"].scalar, own["inverse"].scalar) == (0, 0, 1) and not own["w"].is_weight
    if isinstance(layer, MatMul) and layer.scale == 1 and factor is not None and alone:
        draft.change(source, scale=factor)
        draft.drop(name)


def _channels(draft: Draft, name: str, output: str) -> None:
    """What adds one number a channel has no need of one for every element."""
    layer = draft.layers[name]
    if not isinstance(layer, Offset) or len(layer.shape) == 1:
        return
    if (addends := by_channel(draft.parameters[name]["w"], layer.shape[0])) is not None:
        ones = affine(addends)["inverse"]
        if addends.is_weight:
            draft.note(f"{name}: addends by channel are not trained")
        frozen = BatchNorm(name, layer.shape[0], trainable=False, inputs=layer.inputs)
        draft.put(frozen, affine(ones, addends))


def _relu(draft: Draft, name: str, output: str) -> None:
    if not isinstance(draft.layers[name], ReLU) or name == output or not (source := _before(draft, name)):
        return
    layer = draft.layers[source]
    if any(own.name == "relu" for own in fields(layer)) and not layer.relu:
        draft.change(source, relu=True)
        draft.drop(name)
