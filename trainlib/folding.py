"""Batch normalisation taken into the layer before it: fewer layers, the same function."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainlib.graph import Graph, Node
from trainlib.layers import BatchNorm, Conv2D, DepthWise, FullyConnected, Layer, PointWise
from trainlib.model import Model, Parameters

#: kinds that can take in a factor and an addend for every output channel
LINEAR = (FullyConnected, Conv2D, PointWise, DepthWise)


def folded(
    model: Model, parameters: Parameters, names: Collection[str] | None = None
) -> tuple[Model, Parameters]:
    """The network without those BatchNorms that the layer before can take in, and its parameters. names: of these only.

    That is a fully-connected layer or a convolution of any kind, without a ReLU of its own, whose output nobody else
    reads. It keeps its name and what is trained of it, and gets a bias, and the ReLU of the BatchNorm if that has one:
    w' = w gamma inverse, b' = beta + (b - mean) gamma inverse, computed in FP64 and rounded once. What is learned from
    there on differs: gamma is no parameter any more. Raises ModelError for parameters that are not the network's.
    """
    model.check_parameters(parameters)
    taken = {node.inputs[0].name: node for node in model.nodes
             if _can_fold(model.graph, node) and (names is None or node.name in names)}  # fmt: skip
    renamed = {norm.name: name for name, norm in taken.items()}
    layers: list[Layer] = []
    arrays: Parameters = []
    for node, slots in zip(model.nodes, model.slots, strict=True):
        if node.name in renamed:
            continue
        own, options = {name: parameters[slot] for name, slot in slots.items()}, dict[str, Any]()
        if norm := taken.get(node.name):
            options = {"bias": True, "relu": norm.layer.relu}
            own = _with_norm(own, {name: parameters[slot] for name, slot in model.slots[norm.number].items()})
        sources = tuple(renamed.get(value.name, value.name) for value in node.inputs)
        before = (layers[-1].name if layers else model.nodes[0].inputs[0].name,)
        layers.append(replace(node.layer, inputs=() if sources == before else sources, **options))
        arrays += [array.copy() for array in own.values()]
    return replace(model, layers=tuple(layers)), arrays


def _can_fold(graph: Graph, norm: Node) -> bool:
    source = norm.inputs[0]
    if not isinstance(norm.layer, BatchNorm) or not source.number:
        return False
    before = graph.nodes[source.number - 1].layer
    return isinstance(before, LINEAR) and not before.relu and len(graph.readers[source.name]) == 1


def _with_norm(own: dict[str, NDArray[np.float32]], norm: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Weights and bias of the layer that does both."""
    gamma, beta, mean, inverse = (norm[name].astype(np.float64) for name in ("w", "b", "mean", "inverse"))
    factor, w = gamma * inverse, own["w"]
    bias = own["b"] if "b" in own else np.zeros(len(w))
    scaled = w * factor.reshape(-1, *[1] * (w.ndim - 1))
    return {"w": scaled.astype(np.float32), "b": (beta + (bias - mean) * factor).astype(np.float32)}
