"""Layers: what they compute, on which shapes, with which parameters. See `trainlib.operators`, where each kind is."""

from trainlib.operators.activation import Activation, LeakyReLU, ReLU, Sigmoid, Tanh
from trainlib.operators.add import Add
from trainlib.operators.concat import Concat
from trainlib.operators.convolution import Conv2D, PointWise
from trainlib.operators.depthwise import DepthWise
from trainlib.operators.flatten import Flatten
from trainlib.operators.fully_connected import FullyConnected
from trainlib.operators.layer import Layer, Parametric, Shape, shape_of
from trainlib.operators.pooling import AveragePool, GlobalAveragePool, MaxPool, Pool
from trainlib.operators.window import Window

#: the kinds there are
KINDS: tuple[type[Layer], ...] = (
    FullyConnected, Conv2D, PointWise, DepthWise, AveragePool, MaxPool, GlobalAveragePool,
    ReLU, LeakyReLU, Sigmoid, Tanh, Add, Concat, Flatten,
)  # fmt: skip

__all__ = [
    "KINDS",
    "Activation",
    "Add",
    "AveragePool",
    "Concat",
    "Conv2D",
    "DepthWise",
    "Flatten",
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
    "shape_of",
]
