"""Protects networks: their sizes and MAC counts, parameters and how they begin, what is refused, that they learn."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from math import log
from typing import Any

import numpy as np
import pytest

from tests.trainlib.arrays import assert_same_bits
from trainlib import functional, models
from trainlib.data import as_samples, load_labelled
from trainlib.errors import ModelError
from trainlib.functional import SGD
from trainlib.layers import (
    Conv2D,
    DepthWise,
    FullyConnected,
    GlobalAveragePool,
    Layer,
    MaxPool,
    Parametric,
    PointWise,
    ReLU,
    Sigmoid,
)
from trainlib.model import Model


def forward_macs(model: Model) -> int:
    return sum(model.macs(index, "fw") for index in range(len(model.layers)))


# -- the shipped ones ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "forward", "step", "weights", "sample", "outputs", "loss"),
    [
        ("autoencoder", 264_192, 710_656, 264_192, (640,), 640, "mse"),
        ("ds_cnn", 2_656_768, 7_650_304, 22_016, (1, 49, 10), 12, "cross-entropy"),
        ("ds_cnn_paper", 904_768, 2_394_304, 8_000, (1, 34, 8), 12, "cross-entropy"),
        ("tutorial_cnn", 59_904, 138_240, 19_584, (8, 8, 8), 32, "mse"),
    ],
)
def test_the_shipped_networks_have_their_published_sizes(
    name: str, forward: int, step: int, weights: int, sample: tuple[int, ...], outputs: int, loss: str
) -> None:
    model = models.get(name)
    assert (model.name, forward_macs(model), model.step_macs, model.weights) == (name, forward, step, weights)
    assert (model.input_shape, model.outputs, model.loss) == (sample, outputs, loss)
    assert model.inputs == np.prod(sample)
    assert model.target_is_input == (name == "autoencoder")


def test_every_shipped_network_is_known_by_its_name() -> None:
    assert [models.get(name).name for name in models.MODELS] == list(models.MODELS)


@pytest.mark.parametrize(("name", "blocks"), [("ds_cnn", 4), ("ds_cnn_paper", 1)])
def test_both_keyword_networks_keep_their_size_from_the_first_layer_to_the_pool(name: str, blocks: int) -> None:
    model = models.get(name)
    kinds = [Conv2D, *[DepthWise, PointWise] * blocks, GlobalAveragePool, FullyConnected]
    assert [type(layer) for layer in model.layers] == kinds
    assert {output for _, output in model.shapes[: 1 + 2 * blocks]} == {(64, 25, 5)}
    assert [output for _, output in model.shapes[1 + 2 * blocks :]] == [(64, 1, 1), (12,)]
    assert all(layer.relu for layer in model.layers[: 1 + 2 * blocks] if isinstance(layer, Parametric))


def test_the_tutorial_network() -> None:
    model = models.get("tutorial_cnn")
    assert model.shapes == (((8, 8, 8), (16, 6, 6)), ((16, 6, 6), (32,)))
    assert [model.macs(0, "fw"), model.macs(1, "fw")] == [41_472, 18_432]


# -- frozen layers ---------------------------------------------------------------------------------
def frozen(model: Model, *names: str) -> Model:
    layers = (replace(layer, trainable=False) if layer.name in names else layer for layer in model.layers)
    return replace(model, layers=tuple(layers))


def wanted(model: Model) -> list[int]:
    """Layers whose output's gradient is needed."""
    return [node.number for node in model.nodes if model.graph.wanted(node.output)]


def test_a_step_counts_no_gradients_that_it_does_not_compute() -> None:
    model = models.get("ds_cnn_paper")
    conv, dw, pw, fc = (model.macs(index, "fw") for index in (0, 1, 2, 4))
    assert wanted(model) == [0, 1, 2, 3, 4]
    assert model.step_macs == 2 * conv + 3 * (dw + pw + fc)
    first = frozen(model, "conv")
    assert wanted(first) == [1, 2, 3, 4]
    assert first.step_macs == conv + 2 * dw + 3 * (pw + fc)
    middle = frozen(model, "pw0")
    assert middle.step_macs == model.step_macs - pw
    last_only = frozen(model, "conv", "dw0", "pw0")
    assert wanted(last_only) == [4]
    assert last_only.step_macs == forward_macs(model) + fc


def test_trained_parts_are_named_or_counted_from_the_end() -> None:
    model = models.get("ds_cnn_paper")
    assert model.trained(("pw0", "fc")) == frozen(model, "conv", "dw0")
    assert model.last(1) == model.trained(["fc"]) == frozen(model, "conv", "dw0", "pw0")
    assert model.last(4) == model == model.last(1).last(4)
    for given, message in (
        ((), "ds_cnn_paper: no layer has parameters to train"),
        (("pool",), "ds_cnn_paper: no layer 'pool' with parameters; layers: conv, dw0, pw0, fc"),
        (("pw",), "ds_cnn_paper: no layer 'pw' with parameters (did you mean 'pw0'?); layers: conv, dw0, pw0, fc"),
        ("fc", """ds_cnn_paper: trained layers = 'fc': must be names, as in ("fc",) for one"""),
    ):
        with pytest.raises(ModelError) as error:
            model.trained(given)
        assert str(error.value) == message
    for count in (0, 5, True, "1"):
        with pytest.raises(ModelError, match=r"^ds_cnn_paper: the last .* layers: must be a whole number from 1 to 4$"):
            model.last(count)  # type: ignore[arg-type]


# -- parameters ------------------------------------------------------------------------------------
SMALL = Model(
    "small",
    (
        Conv2D("conv", 1, 4, kernel=3, bias=True),
        ReLU("relu"),
        PointWise("pw", 4, 200, bias=True),
        MaxPool("pool", 2),
        FullyConnected("fc", 800, 3, relu=False, bias=True),
    ),
    input_shape=(1, 6, 6),
    loss="cross-entropy",
)


def test_parameters_are_each_layers_weights_and_then_its_bias() -> None:
    assert SMALL.parameter_shapes == [(4, 1, 3, 3), (4,), (200, 4), (200,), (3, 800), (3,)]
    assert SMALL.slots == ({"w": 0, "b": 1}, {}, {"w": 2, "b": 3}, {}, {"w": 4, "b": 5})
    parameters = SMALL.initial_parameters()
    assert [array.shape for array in parameters] == SMALL.parameter_shapes
    SMALL.check_parameters(parameters)
    assert SMALL.weights == 36 + 800 + 2400


def test_weights_begin_by_he_and_biases_at_zero() -> None:
    parameters = SMALL.initial_parameters()
    for slot, fan_in in ((2, 4), (4, 800)):
        assert float(parameters[slot].std()) == pytest.approx(np.sqrt(2 / fan_in), rel=0.1)
        assert not parameters[slot + 1].any()
    for one, other in zip(parameters, SMALL.initial_parameters(0), strict=True):
        assert_same_bits(one, other)
    assert not np.array_equal(parameters[0], SMALL.initial_parameters(1)[0])


def test_a_fully_connected_networks_first_numbers_are_these() -> None:
    rng, model = np.random.default_rng(3), models.get("autoencoder")
    for layer, w in zip(model.layers[:-1], model.initial_parameters(3), strict=False):
        assert isinstance(layer, FullyConnected)
        normal = rng.standard_normal((layer.out_features, layer.in_features))
        assert_same_bits(w, (normal * np.sqrt(2.0 / layer.in_features)).astype(np.float32))


@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_the_last_layer_begins_at_zero_where_the_loss_is_a_distance(loss: Any) -> None:
    regression = replace(SMALL, loss=loss)
    for slot, (one, other) in enumerate(zip(regression.initial_parameters(), SMALL.initial_parameters(), strict=True)):
        assert_same_bits(one, np.zeros_like(other) if slot == 4 else other)
    for one, other in zip(
        frozen(regression, "fc").initial_parameters(), SMALL.initial_parameters(), strict=True
    ):  # zeros that are never trained would hide all layers below
        assert_same_bits(one, other)


def test_layers_above_the_last_parameters_do_not_matter() -> None:
    layers = (*SMALL.layers, Sigmoid("sigmoid"))
    assert not replace(SMALL, layers=layers, loss="mse").initial_parameters()[4].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:-1], "small: 5 parameter arrays: must be 6"),
        (
            lambda p: [p[0], p[1], p[2].T, *p[3:]],
            "small: w of pw, parameter array 2, is float32 [4, 200], not contiguous: must be contiguous float32 "
            "[200, 4]",
        ),
        (
            lambda p: [*p[:5], p[5].astype(np.float64)],
            "small: b of fc, parameter array 5, is float64 [3]: must be contiguous float32 [3]",
        ),
        (
            lambda p: [p[0].reshape(4, 9), *p[1:]],
            "small: w of conv, parameter array 0, is float32 [4, 9]: must be contiguous float32 [4, 1, 3, 3]",
        ),
    ],
)
def test_other_parameters_are_refused(change: Callable[..., Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        functional.forward(SMALL, change(SMALL.initial_parameters()), np.zeros((1, 6, 6)))
    assert str(caught.value) == message


# -- what is refused -------------------------------------------------------------------------------
CONV = Conv2D("conv", 1, 4, kernel=3)
FC = FullyConnected("fc", 64, 3, relu=False)


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        (
            (CONV, FC),
            {},
            "m: input_shape is missing: the first layer, conv, takes several shapes",
        ),
        (
            (CONV, FC),
            {"input_shape": (8, 8)},
            "m: input_shape = (8, 8): must be (n,) or (channels, height, width), each at least 1",
        ),
        (
            (CONV, FC),
            {"input_shape": [1, 8, 8]},
            "m: input_shape = [1, 8, 8]: must be (n,) or (channels, height, width), each at least 1",
        ),
        (
            (CONV, FC),
            {"input_shape": (1, 0, 8)},
            "m: input_shape = (1, 0, 8): must be (n,) or (channels, height, width), each at least 1",
        ),
        ((CONV, FC), {"input_shape": (2, 8, 8)}, "m: conv takes [1, height, width], the sample gives [2, 8, 8]"),
        ((CONV, FC), {"input_shape": (1, 6, 9)}, "m: fc takes 64 inputs, conv gives [4, 4, 7]"),
        (
            (CONV, MaxPool("pool", 5), FC),
            {"input_shape": (1, 6, 9)},
            "m: pool takes [channels, height, width] of at least 5 x 5, conv gives [4, 4, 7]",
        ),
        ((FC, CONV), {}, "m: conv takes [1, height, width], fc gives 3"),
        ((FC,), {"input_shape": (8, 9)}, "m: input_shape = (8, 9): must be (n,) or (channels, height, width), each"),
        ((FC,), {"input_shape": (1, 8, 9)}, "m: fc takes 64 inputs, the sample gives [1, 8, 9]"),
        ((ReLU("relu"),), {"input_shape": (4,)}, "m: no layer has parameters to train"),
        ((replace(FC, trainable=False),), {}, "m: no layer has parameters to train"),
        ((FC,), {"loss": "cross_entropy"}, "m: no loss 'cross_entropy' (did you mean 'cross-entropy'?); losses: mse"),
        ((CONV,), {"input_shape": (1, 6, 6)}, "m: the last layer, conv, feeds the loss: no ReLU there"),
        (
            (replace(FC, out_features=64),),
            {"target_is_input": True, "loss": "cross-entropy"},
            "m: cross-entropy takes a class as target, not the input",
        ),
        ((FC,), {"target_is_input": True}, "m: 64 inputs cannot be the target of 3 outputs"),
    ],
)
def test_layers_that_make_no_model_are_refused(
    layers: tuple[Layer, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match="^" + re.escape(message)):
        Model("m", layers, **options)


# -- learning --------------------------------------------------------------------------------------
def learn(model: Model, classes: tuple[str, ...], steps: int) -> list[float]:
    """On-line learning of some of the shipped words: the loss of every step."""
    words = load_labelled()
    samples = as_samples(words.standardise(words.train), model.input_shape)
    wanted = [words.classes.index(name) for name in classes or words.classes]
    chosen = np.flatnonzero(np.isin(words.train_labels, wanted))[:steps]
    parameters = model.initial_parameters()
    assert len(chosen) == steps
    return [functional.step(model, parameters, samples[i], words.train_labels[i], SGD(0.03)) for i in chosen]


def test_the_small_keyword_network_learns_twelve_words() -> None:
    losses = learn(models.get("ds_cnn_paper"), (), 1000)
    assert np.mean(losses[:20]) > log(12)  # it begins with opinions of its own
    assert np.mean(losses[-250:]) < 0.93 * log(12)


def test_the_keyword_network_learns_three_words() -> None:
    losses = learn(models.get("ds_cnn"), ("yes", "stop", "silence"), 400)
    assert np.mean(losses[:50]) > 1.5 * log(3)
    assert np.mean(losses[-50:]) < 0.9 * log(3)


@pytest.mark.parametrize("optimizer", [SGD(0.02), SGD(0.01, momentum=0.9), SGD(0.02, weight_decay=0.001)])
@pytest.mark.parametrize("loss", ["mse", "l1"])
def test_the_tutorial_network_learns_a_sample_by_heart(optimizer: SGD, loss: Any) -> None:
    rng, model = np.random.default_rng(0), replace(models.get("tutorial_cnn"), loss=loss)
    optimizer = optimizer.copy()
    parameters = model.initial_parameters()
    x, target = rng.standard_normal(model.input_shape), rng.standard_normal(model.outputs)
    losses = [functional.step(model, parameters, x, target, optimizer) for _ in range(150)]
    assert losses[-1] < 0.2 * losses[0]


def test_a_network_of_ones_own_takes_ten_lines() -> None:
    model = Model(
        "mine",
        (Conv2D("conv", 1, 4, kernel=3, stride=2, padding="same"), FullyConnected("fc", 64, 2, relu=False, bias=True)),
        input_shape=(1, 8, 8),
        loss="cross-entropy",
    )
    parameters, rng = model.initial_parameters(), np.random.default_rng(0)
    images, brighter = rng.standard_normal((200, 8, 8)), rng.integers(0, 2, 200)
    images[brighter == 1, :4] += 0.5
    losses = [functional.step(model, parameters, x[None], y) for x, y in zip(images, brighter, strict=True)]
    assert np.mean(losses[-50:]) < 0.7 * np.mean(losses[:50])
