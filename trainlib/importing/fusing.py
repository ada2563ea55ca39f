"""Layers that can be part of the one before: additions as its bias, factors, ReLUs."""

from __future__ import annotations

from dataclasses import fields, replace

from trainlib.importing.draft import FROZEN, Draft, by_channel
from trainlib.importing.elementwise import affine
from trainlib.importing.known import Known
from trainlib.layers import BatchNorm, Conv2D, DepthWise, FullyConnected, MatMul, Offset, PointWise, ReLU

#: kinds that may have a bias
LINEAR = (FullyConnected, Conv2D, PointWise, DepthWise)


def fuse(draft: Draft, output: str) -> str:
    """Biases and factors first, then ReLUs. The layer that gives the network's output afterwards, which feeds the loss
    and so has no ReLU of its own."""
    for into in (_bias, _scale, _affine):
        for name in list(draft.layers):
            source = _before(draft, name)
            if source and into(draft, name, source):
                draft.drop(name)
                output = source if name == output else output
    for name in list(draft.layers):
        _by_channel(draft, name)
    for name in list(draft.layers):
        source = _before(draft, name)
        if source and name != output and _relu(draft, name, source):
            draft.drop(name)
    return output


def _before(draft: Draft, name: str) -> str:
    """The layer that this one reads, and no other does; "" if there is no such."""
    source, *others = draft.layers[name].inputs
    return source if not others and source in draft.layers and draft.readers(source) == [name] else ""


def _bias(draft: Draft, name: str, source: str) -> bool:
    """An addition of one number an output channel, after a layer that may have a bias."""
    layer, given = draft.layers[source], draft.parameters[name].get("w")
    if not isinstance(draft.layers[name], Offset) or not isinstance(layer, LINEAR) or given is None or not given.tensor:
        return False
    bias = None if layer.bias or layer.relu else by_channel(given, layer.weight_shape[0])
    if bias is not None:
        draft.change(source, {"b": bias}, bias=True)
    return bias is not None


def _scale(draft: Draft, name: str, source: str) -> bool:
    """A factor after a product of two values."""
    layer, factor = draft.layers[source], _factors(draft, name)
    if not isinstance(layer, MatMul) or layer.scale != 1 or factor is None or factor.is_weight or factor.scalar is None:
        return False
    draft.change(source, scale=factor.scalar)
    return True


def _affine(draft: Draft, name: str, source: str) -> bool:
    """Learned factors and then learned addends of every channel, as normalisations in pieces end: both are trained."""
    layer, factors = draft.layers[name], _factors(draft, source)
    if not isinstance(layer, Offset) or factors is None or not factors.is_weight:
        return False
    addends = by_channel(draft.parameters[name]["w"], layer.shape[0])
    if addends is None or not addends.is_weight or addends.shape != factors.shape:
        return False
    draft.put(replace(draft.layers[source], trainable=True), affine(factors, addends))  # type: ignore[call-arg]
    draft.forget(f"{source}: factors {FROZEN}")
    return True


def _factors(draft: Draft, name: str) -> Known | None:
    """Of a layer that only multiplies, by frozen factors of its channels; None of others."""
    layer, own = draft.layers[name], draft.parameters[name]
    if not isinstance(layer, BatchNorm) or layer.trainable:
        return None
    plain = (own["b"].scalar, own["mean"].scalar, own["inverse"].scalar) == (0, 0, 1)
    return own["w"] if plain else None


def _by_channel(draft: Draft, name: str) -> None:
    """What adds one number a channel has no need of one for every element."""
    layer = draft.layers[name]
    if not isinstance(layer, Offset) or len(layer.shape) == 1:
        return
    if (addends := by_channel(draft.parameters[name]["w"], layer.shape[0])) is not None:
        if addends.is_weight:
            draft.note(f"{name}: addends by channel {FROZEN}")
        ones = affine(addends)["inverse"]
        draft.put(BatchNorm(name, layer.shape[0], trainable=False, inputs=layer.inputs), affine(ones, addends))


def _relu(draft: Draft, name: str, source: str) -> bool:
    layer = draft.layers[source]
    if not isinstance(draft.layers[name], ReLU) or layer.relu:
        return False
    if fused := any(own.name == "relu" for own in fields(layer)):
        draft.change(source, relu=True)
    return fused
