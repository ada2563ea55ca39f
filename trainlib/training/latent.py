"""Latent replay: what frozen layers put out is stored once, and the layers above learn from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from trainlib.errors import DataError
from trainlib.graph import SAMPLE, Value
from trainlib.layers import Layer
from trainlib.model import Model


@dataclass
class Stored:
    """steps: from stored outputs. samples, bytes: whose outputs are stored, in FP32 in L2 or beside it."""

    steps: int = 0
    samples: int = 0
    bytes: int = 0


def stored_values(model: Model) -> tuple[Value, ...]:
    """Outputs of frozen layers that trained ones, or ones above them, read. Raises DataError if nothing is frozen, or
    if what is would put out something else at every step."""
    graph = model.graph
    read = {
        value.name: value
        for node in graph.nodes
        if graph.wanted(node.output)
        for value in node.inputs
        if value.number and not graph.wanted(value)
    }
    if not read:
        raise DataError(f"{model.name}: latent: no layer below the trained ones is frozen: freeze some, as last:1")
    for node in graph.nodes:
        if not graph.wanted(node.output) and node.layer.scalars(0):
            what = f"{node.name}, which is frozen, puts out something else at every step"
            raise DataError(f"{model.name}: latent: {what}")
    return tuple(read.values())


def latent_bytes(model: Model) -> int:
    """Of a sample's stored values, in FP32."""
    return 4 * sum(prod(value.shape) for value in stored_values(model))


def head_of(model: Model) -> Model:
    """The network of what is computed at every step, on the stored value as its sample: what a step costs then. Where
    the sample is what is learned, it now is a target beside the stored value.

    Raises DataError where that reads several values.
    """
    (value, *others), graph = stored_values(model), model.graph
    wanted = [node for node in graph.nodes if graph.wanted(node.output)]
    if others or any(not read.number for node in wanted for read in node.inputs):
        names = ", ".join(other.name for other in (value, *others))
        what = f"the trained part reads {names} and more: what it costs alone cannot be told"
        raise DataError(f"{model.name}: latent: {what}")
    layers: list[Layer] = []
    for node in wanted:
        sources = tuple(SAMPLE if read.name == value.name else read.name for read in node.inputs)
        before = (layers[-1].name if layers else SAMPLE,)
        changed: dict[str, Any] = {"inputs": () if sources == before else sources}
        layers.append(replace(node.layer, **changed))
    return replace(model, layers=tuple(layers), input_shape=value.shape, target_is_input=False)
