"""Layers: what they compute, on which shapes, with which parameters. See `trainlib.operators`, where each kind is."""

from trainlib.operators.activation import GELU, Activation, HardSwish, LeakyReLU, ReLU, ReLU6, Sigmoid, Tanh
from trainlib.operators.add import Add
from trainlib.operators.batch_norm import BatchNorm
from trainlib.operators.concat import Concat
from trainlib.operators.convolution import Conv1D, Conv2D, PointWise
from trainlib.operators.depthwise import DepthWise
from trainlib.operators.dropout import Dropout
from trainlib.operators.fully_connected import FullyConnected
from trainlib.operators.layer import Layer, Parametric, Shape, shape_of
from trainlib.operators.layer_norm_2d import LayerNorm2D
from trainlib.operators.matmul import MatMul
from trainlib.operators.norms import InstanceNorm, LayerNorm
from trainlib.operators.offset import Offset
from trainlib.operators.pooling import AveragePool, AveragePool1D, GlobalAveragePool, MaxPool, MaxPool1D, Pool
from trainlib.operators.reshape import Flatten, Reshape
from trainlib.operators.softmax import Softmax
from trainlib.operators.transpose import Transpose
from trainlib.operators.window import Window

#: the kinds there are
KINDS: tuple[type[Layer], ...] = (
    FullyConnected, Conv2D, PointWise, DepthWise, AveragePool, MaxPool, GlobalAveragePool,
    ReLU, LeakyReLU, Sigmoid, Tanh, ReLU6, HardSwish, GELU, BatchNorm, InstanceNorm, LayerNorm, LayerNorm2D, Dropout,
    Offset, Add, Concat, Flatten, Reshape, Transpose, MatMul, Softmax,
)  # fmt: skip

__all__ = [
    "GELU",
    "KINDS",
    "Activation",
    "Add",
    "AveragePool",
    "AveragePool1D",
    "BatchNorm",
    "Concat",
    "Conv1D",
    "Conv2D",
    "DepthWise",
    "Dropout",
    "Flatten",
    "FullyConnected",
    "GlobalAveragePool",
    "HardSwish",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LayerNorm2D",
    "LeakyReLU",
    "MatMul",
    "MaxPool",
    "MaxPool1D",
    "Offset",
    "Parametric",
    "PointWise",
    "Pool",
    "ReLU",
    "ReLU6",
    "Reshape",
    "Shape",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "Transpose",
    "Window",
    "shape_of",
]
