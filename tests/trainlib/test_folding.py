"""Protects the folding of batch normalisation: the same function, for every kind that takes it in, and only where it
may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.trainlib.arrays import seeds
from trainlib import functional
from trainlib.errors import ModelError
from trainlib.folding import folded
from trainlib.layers import Add, BatchNorm, Conv2D, DepthWise, Flatten, FullyConnected, Layer, PointWise, ReLU
from trainlib.model import Model, Parameters

Floats = NDArray[np.float32]


def random_parameters(model: Model, rng: np.random.Generator) -> Parameters:
    """inverse > 0, as 1 / sqrt(variance) is."""
    found = [rng.standard_normal(shape).astype(np.float32) for shape in model.parameter_shapes]
    for layer, slots in zip(model.layers, model.slots, strict=True):
        if isinstance(layer, BatchNorm):
            found[slots["inverse"]] = rng.uniform(0.2, 3, layer.channels).astype(np.float32)
    return found


def assert_same_function(model: Model, seed: int) -> Model:
    """In 1e-4 of the largest output: each rounds elsewhere."""
    rng = np.random.default_rng(seed)
    parameters = random_parameters(model, rng)
    simpler, arrays = folded(model, parameters)
    simpler.check_parameters(arrays)
    x = rng.standard_normal(model.input_shape).astype(np.float32)
    expected = functional.forward(model, parameters, x)[-1]
    given = functional.forward(simpler, arrays, x)[-1]
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-4 * float(np.abs(expected).max() + 1))
    return simpler


@given(relu=st.booleans(), bias=st.booleans(), groups=st.sampled_from([1, 2]), seed=seeds)
def test_every_linear_kind_takes_it_in(relu: bool, bias: bool, groups: int, seed: int) -> None:
    layers: list[Layer] = [
        Conv2D("conv", 2, 4, 3, padding=1, groups=groups, relu=False, bias=bias), BatchNorm("n0", 4, relu=relu),
        DepthWise("dw", 4, 3, relu=False, bias=bias), BatchNorm("n1", 4, relu=relu),
        PointWise("pw", 4, 3, relu=False, bias=bias), BatchNorm("n2", 3, relu=relu),
        FullyConnected("fc", 3 * 3 * 2, 5, relu=False, bias=bias), BatchNorm("n3", 5),
    ]  # fmt: skip
    model = assert_same_function(Model("all", tuple(layers), input_shape=(2, 5, 4)), seed)
    assert [layer.name for layer in model.layers] == ["conv", "dw", "pw", "fc"]
    assert [layer.relu for layer in model.layers] == [relu, relu, relu, False]
    assert all(layer.bias for layer in model.layers)


@given(seed=seeds)
def test_a_branch_keeps_its_edges(seed: int) -> None:
    """n0 goes into conv, and the sum reads conv's output then; the sample's n1 has no layer to go into, n2's layer is
    read by two, n3 follows a ReLU."""
    layers: list[Layer] = [
        BatchNorm("n1", 2, inputs=("sample",)),
        Conv2D("conv", 2, 2, 1, relu=False), BatchNorm("n0", 2),
        PointWise("pw", 2, 2, relu=False, inputs=("n1",)), BatchNorm("n2", 2),
        Add("add", inputs=("pw", "n2", "n0")),
        PointWise("pw2", 2, 2), BatchNorm("n3", 2), ReLU("relu"), Flatten("flat"),
        FullyConnected("fc", 18, 2, relu=False),
    ]  # fmt: skip
    model = assert_same_function(Model("branches", tuple(layers), input_shape=(2, 3, 3)), seed)
    assert sorted(layer.name for layer in model.layers if isinstance(layer, BatchNorm)) == ["n1", "n2", "n3"]
    assert {layer.name: layer.inputs for layer in model.layers}["add"] == ("pw", "n2", "conv")


def test_parameters_of_another_network_are_refused() -> None:
    model = Model("one", (FullyConnected("fc", 3, 2, relu=False), BatchNorm("norm", 2)))
    with pytest.raises(ModelError, match="one: 1 parameter arrays: must be 5"):
        folded(model, [np.zeros((2, 3), np.float32)])


def test_a_network_without_one_stays_as_it_is() -> None:
    model = Model("plain", (FullyConnected("fc", 3, 2, relu=False),))
    parameters = model.initial_parameters()
    same, arrays = folded(model, parameters)
    assert same == model
    np.testing.assert_array_equal(arrays[0], parameters[0])
