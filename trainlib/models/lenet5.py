"""LeNet-5 with maximum pooling and ReLUs, as it is trained on 28 x 28 digits."""

from __future__ import annotations

from trainlib.layers import Conv2D, Flatten, FullyConnected, MaxPool
from trainlib.model import Model


def lenet5() -> Model:
    """1x28x28: Conv 5x5 padded to 6, pool 2, Conv 5x5 to 16, pool 2, FC 400-120-84-10."""
    layers = (
        Conv2D("conv1", 1, 6, kernel=5, padding=2),
        MaxPool("pool1", 2),
        Conv2D("conv2", 6, 16, kernel=5),
        MaxPool("pool2", 2),
        Flatten("flatten"),
        FullyConnected("fc1", 400, 120),
        FullyConnected("fc2", 120, 84),
        FullyConnected("fc3", 84, 10, relu=False),
    )
    return Model("lenet5", layers, input_shape=(1, 28, 28), loss="cross-entropy")
