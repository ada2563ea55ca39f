"""Protects networks made wider or narrower: they fit together, and only what lies between input and output changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainlib import models
from trainlib.errors import ModelError
from trainlib.layers import BatchNorm, Conv2D, FullyConnected, Offset, Softmax
from trainlib.model import Model
from trainlib.models.width import widened


@pytest.mark.parametrize("name", sorted(models.MODELS))
@given(factor=st.floats(0.1, 2.0))
def test_shipped_networks_keep_their_ends_and_their_layers(name: str, factor: float) -> None:
    model = models.get(name)
    other = widened(model, factor)
    assert other.input_shape == model.input_shape and other.shapes[-1][1] == model.shapes[-1][1]
    assert [(type(layer), layer.name) for layer in other.layers] == [
        (type(layer), layer.name) for layer in model.layers
    ]
    for (_, own), (_, made) in zip(model.shapes, other.shapes, strict=True):
        assert made[1:] == own[1:]  # heights and widths of images


def test_what_is_read_follows_what_is_given() -> None:
    layers = (Conv2D("c", 1, 4, kernel=3), BatchNorm("n", 4), FullyConnected("a", 16, 10), FullyConnected("b", 10, 3,
              relu=False), Softmax("s"))  # fmt: skip
    other = widened(Model("net", layers, input_shape=(1, 4, 4)), 1.5)
    assert other.layers == (
        Conv2D("c", 1, 6, kernel=3), BatchNorm("n", 6), FullyConnected("a", 24, 15),
        FullyConnected("b", 15, 3, relu=False), Softmax("s"),
    )  # fmt: skip


def test_a_network_of_the_same_width_is_itself() -> None:
    model = models.get("ds_cnn")
    assert widened(model, 1) is model
    assert widened(model, 1.001) == model  # rounded


def test_layers_whose_shape_is_fixed_are_refused() -> None:
    layers = (FullyConnected("a", 4, 4), Offset("o", (4,)), FullyConnected("b", 4, 2, relu=False))
    with pytest.raises(ModelError, match="o"):
        widened(Model("net", layers), 2)
