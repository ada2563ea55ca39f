"""Layers: what they compute, on which shapes, with which parameters and how many multiply-accumulates.

Descriptions only: `functional` computes them on the host, `schedule` on the cluster. Batch 1; images are
[channels, height, width]. A fully-connected layer reads an image as a vector.
"""

from trainlib.layers.activation import Activation, LeakyReLU, ReLU, Sigmoid, Tanh
from trainlib.layers.convolution import Conv2D, DepthWise, PointWise
from trainlib.layers.fully_connected import FullyConnected
from trainlib.layers.kinds import KINDS, require_known
from trainlib.layers.layer import Layer, Parametric, Shape, shape_of
from trainlib.layers.pooling import AveragePool, GlobalAveragePool, MaxPool, Pool
from trainlib.layers.window import Window

__all__ = [
    "KINDS",
    "Activation",
    "AveragePool",
    "Conv2D",
    "DepthWise",
    "FullyConnected",
    "GlobalAveragePool",
    "Layer",
    "LeakyReLU",
    "MaxPool",
    "Parametric",
    "PointWise",
    "Pool",
    "ReLU",
    "Shape",
    "Sigmoid",
    "Tanh",
    "Window",
    "require_known",
    "shape_of",
]
