"""The anomaly-detection autoencoder: MLPerf Tiny ad01's dimensions, without batch normalisation."""

from __future__ import annotations

from itertools import pairwise

from trainlib.layers import FullyConnected
from trainlib.model import Model

WIDTHS = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)


def autoencoder() -> Model:
    """FC 640-128-128-128-128-8-128-128-128-128-640, ReLU after each but the last, MSE against the input."""
    last = len(WIDTHS) - 2
    layers = tuple(
        FullyConnected(f"fc{i}", inputs, outputs, relu=i < last) for i, (inputs, outputs) in enumerate(pairwise(WIDTHS))
    )
    return Model("autoencoder", layers, target_is_input=True)
