"""The small network of PULP-TrainLib's tutorial."""

from __future__ import annotations

from trainlib.layers import Conv2D, FullyConnected
from trainlib.model import Model


def tutorial_cnn() -> Model:
    """Conv 3x3 of 8x8x8 to 16x6x6, ReLU, FC 576 to 32, MSE."""
    layers = (Conv2D("conv", 8, 16, kernel=3), FullyConnected("fc", 576, 32, relu=False))
    return Model("tutorial_cnn", layers, input_shape=(8, 8, 8))
