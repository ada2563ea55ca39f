"""Networks made wider or narrower: as many times the channels and features between input and output."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from trainlib.graph import SAMPLE
from trainlib.model import Model

#: fields that say how many channels or numbers a layer reads, and how many it gives
CHANNELS_READ, FEATURES_READ = ("in_channels", "channels"), ("in_features", "features")
GIVEN = ("out_channels", "out_features")


def widened(model: Model, factor: float) -> Model:
    """The same network, of which every layer but the last that has a say gives `factor` times as many channels or
    features, rounded, at least one. Weights from outside are lost. Raises ModelError if layers then do not meet."""
    if factor == 1:
        return model
    own = [layer.name for layer in model.layers if any(hasattr(layer, name) for name in GIVEN)]
    shapes, layers = {SAMPLE: model.input_shape}, []
    for node in model.nodes:
        read = [shapes[value.name] for value in node.inputs]
        sizes: dict[str, Any] = {name: read[0][0] for name in CHANNELS_READ if hasattr(node.layer, name)}
        sizes |= {name: prod(read[0]) for name in FEATURES_READ if hasattr(node.layer, name)}
        if node.name in own[:-1]:
            given = ((name, getattr(node.layer, name)) for name in GIVEN if hasattr(node.layer, name))
            sizes |= {name: max(round(factor * count), 1) for name, count in given}
        layer = replace(node.layer, **sizes)
        shapes[node.name] = layer.joined_shape(read, [value.name for value in node.inputs])
        layers.append(layer)
    return replace(model, layers=tuple(layers), origin=None)
