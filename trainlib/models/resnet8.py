"""Image classification: MLPerf Tiny ic01's residual network, batch normalisation folded or absent."""

from __future__ import annotations

from trainlib.layers import Add, Conv2D, FullyConnected, GlobalAveragePool, Layer
from trainlib.model import Model

CLASSES = 10
#: output channels and stride of each block
BLOCKS = ((16, 1), (32, 2), (64, 2))


def resnet8() -> Model:
    """3x32x32: Conv 3x3 to 16, three blocks of two 3x3 (16, 32, 64), average of 8x8, 10 classes."""
    layers: list[Layer] = [Conv2D("conv", 3, 16, kernel=3, padding="same")]
    source, channels = "conv", 16
    for number, (outputs, stride) in enumerate(BLOCKS, start=1):
        a, b, short, name = (f"block{number}_{part}" for part in ("a", "b", "short", "add"))
        layers += [
            Conv2D(a, channels, outputs, kernel=3, stride=stride, padding="same", inputs=(source,)),
            Conv2D(b, outputs, outputs, kernel=3, padding="same", relu=False),
        ]
        if stride > 1:
            layers.append(Conv2D(short, channels, outputs, kernel=1, stride=stride, relu=False, inputs=(source,)))
        layers.append(Add(name, relu=True, inputs=(b, short if stride > 1 else source)))
        source, channels = name, outputs
    layers += [GlobalAveragePool("pool"), FullyConnected("fc", channels, CLASSES, relu=False)]
    return Model("resnet8", tuple(layers), input_shape=(3, 32, 32), loss="cross-entropy")
