"""Visual wake words: MLPerf Tiny vww01's MobileNet of a quarter of the width, batch normalisation folded or absent."""

from __future__ import annotations

from trainlib.layers import Conv2D, DepthWise, FullyConnected, GlobalAveragePool, Layer, PointWise
from trainlib.model import Model

CLASSES = 2
#: output channels and stride of each depthwise-separable block
BLOCKS = (
    (16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (128, 1), (128, 1), (128, 1), (128, 1), (256, 2),
    (256, 1),
)  # fmt: skip


def mobilenet_v1() -> Model:
    """3x96x96: Conv 3x3 stride 2 to 8, 13 depthwise-separable blocks up to 256 channels, average, 2 classes."""
    channels = 8
    layers: list[Layer] = [Conv2D("conv", 3, channels, kernel=3, stride=2, padding="same")]
    for number, (outputs, stride) in enumerate(BLOCKS, start=1):
        layers += [
            DepthWise(f"dw{number}", channels, kernel=3, stride=stride, padding="same"),
            PointWise(f"pw{number}", channels, outputs),
        ]
        channels = outputs
    layers += [GlobalAveragePool("pool"), FullyConnected("fc", channels, CLASSES, relu=False)]
    return Model("mobilenet_v1", tuple(layers), input_shape=(3, 96, 96), loss="cross-entropy")
