"""Keyword spotting: two depthwise-separable networks for 12 classes, without batch normalisation."""

from __future__ import annotations

from trainlib.layers import Conv2D, DepthWise, FullyConnected, GlobalAveragePool, Layer, PointWise
from trainlib.model import Model
from trainlib.operators.window import Padding, Pair

CHANNELS, CLASSES = 64, 12


def _network(name: str, input_shape: tuple[int, int, int], stride: Pair, padding: Padding, blocks: int) -> Model:
    layers: list[Layer] = [Conv2D("conv", 1, CHANNELS, kernel=(10, 4), stride=stride, padding=padding)]
    for i in range(blocks):
        layers += [
            DepthWise(f"dw{i}", CHANNELS, kernel=3, padding=1),
            PointWise(f"pw{i}", CHANNELS, CHANNELS),
        ]
    layers += [GlobalAveragePool("pool"), FullyConnected("fc", CHANNELS, CLASSES, relu=False)]
    return Model(name, tuple(layers), input_shape=input_shape, loss="cross-entropy")


def ds_cnn() -> Model:
    """MLPerf Tiny kws01's dimensions: 49 frames of 10 coefficients, Conv 10x4 stride 2, four blocks, 12 classes."""
    return _network("ds_cnn", (1, 49, 10), stride=2, padding="same", blocks=4)


def ds_cnn_paper() -> Model:
    """The smaller variant that the published 3 ms fit: 34 x 8 inputs, Conv 10x4 without padding, one block."""
    return _network("ds_cnn_paper", (1, 34, 8), stride=1, padding=0, blocks=1)
