"""The kinds of layers there are, and the error for any other."""

from __future__ import annotations

from trainlib.errors import unknown_kind
from trainlib.layers.activation import LeakyReLU, ReLU, Sigmoid, Tanh
from trainlib.layers.convolution import Conv2D, DepthWise, PointWise
from trainlib.layers.fully_connected import FullyConnected
from trainlib.layers.layer import Layer
from trainlib.layers.pooling import AveragePool, GlobalAveragePool, MaxPool

KINDS: tuple[type[Layer], ...] = (
    FullyConnected, Conv2D, PointWise, DepthWise, AveragePool, MaxPool, GlobalAveragePool,
    ReLU, LeakyReLU, Sigmoid, Tanh,
)  # fmt: skip


def require_known(layer: Layer, what: str) -> None:
    """Raises ModelError, that it cannot be `what`, unless a layer is of one of KINDS.

    A class derived from one of them is not: nothing says that it computes what its parent does.
    """
    if type(layer) not in KINDS:
        parent = next((kind for kind in KINDS if isinstance(layer, kind)), None)
        raise unknown_kind(layer, what, f": only {parent.__name__} itself is known" if parent else "")
