"""Protects the functional step: every layer's values and gradients, those of whole networks, and the optimizer.

The oracle is float64: values by definition, gradients as differences of values (`textbook`). PyTorch, where it
is installed, gives a second opinion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainlib import textbook
from tests.trainlib.arrays import Floats, assert_same_bits, seeds
from tests.trainlib.textbook import Doubles, normalisations, parametric_layers, plain_layers, slopes
from trainlib import counterpart, functional, numerics
from trainlib.errors import DataError, ModelError
from trainlib.functional import SGD
from trainlib.layers import (
    GELU,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv2D,
    DepthWise,
    Dropout,
    Flatten,
    FullyConnected,
    GlobalAveragePool,
    HardSwish,
    InstanceNorm,
    Layer,
    LayerNorm,
    LayerNorm2D,
    LeakyReLU,
    MatMul,
    MaxPool,
    Offset,
    Parametric,
    PointWise,
    ReLU,
    ReLU6,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
    Transpose,
)
from trainlib.model import Model, Parameters
from trainlib.operators import values as values_of_layers


def random(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.standard_normal(shape).astype(np.float32)


def random_own(rng: np.random.Generator, layer: Layer) -> dict[str, Floats]:
    """Parameters; what is the inverse of a deviation is positive."""
    drawn = {name: random(rng, shape) for name, shape in layer.parameters.items()}
    return {name: np.abs(array) if name == "inverse" else array for name, array in drawn.items()}


def assert_near(found: Floats, expected: Doubles, what: str) -> None:
    """Within rounding: of sums of fewer than 200 products of numbers around 1, and of the differences' own."""
    assert found.dtype == np.float32 and found.shape == expected.shape and found.flags.c_contiguous, what
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(found - expected).max() < 2e-5 * scale, what


# -- layers ----------------------------------------------------------------------------------------
@settings(max_examples=80)
@given(case=st.one_of(parametric_layers(), parametric_layers(), normalisations()), seed=seeds)
def test_a_layer_with_parameters_computes_its_definition_and_its_slopes(
    case: tuple[Parametric, tuple[int, ...]], seed: int
) -> None:
    layer, shape = case
    rng = np.random.default_rng(seed)
    own = random_own(rng, layer)
    x, exact = random(rng, shape), [array.astype(np.float64) for array in own.values()]
    y = layer.forward(own, x)
    assert y.shape == layer.output_shape(shape)
    assert_near(y, textbook.forward_layer(layer, exact, x.astype(np.float64)), "forward")
    dy = random(rng, y.shape)
    d = values_of_layers.through_relu(layer, dy, y)
    linear: Any = replace(layer, relu=False) if layer.relu else layer  # differences across a ReLU's bend are no slopes
    assert_same_bits(d, np.where(y > 0, dy, np.float32(0)) if layer.relu else dy, "through the ReLU")
    d64, x64 = d.astype(np.float64), x.astype(np.float64)

    def of(place: int) -> Callable[[Doubles], Doubles]:
        return lambda value: textbook.forward_layer(linear, [*exact[:place], value, *exact[place + 1 :]], x64)

    found = layer.parameter_gradients(own, d, [x])
    assert set(found) == set(layer.trained_parameters)
    for place, name in enumerate(layer.trained_parameters):
        assert_near(found[name], slopes(of(place), exact[place], d64), f"gradient of {name}")
    dx = slopes(lambda value: textbook.forward_layer(linear, exact, value), x64, d64)
    assert_near(layer.input_gradients(own, d, [x], y)[0], dx, "input gradient")


@settings(max_examples=40)
@given(case=plain_layers(), seed=seeds)
def test_a_layer_without_parameters_computes_its_definition_and_its_slopes(
    case: tuple[Layer, tuple[int, ...]], seed: int
) -> None:
    layer, shape = case
    rng = np.random.default_rng(seed)
    wide = 8 if isinstance(layer, ReLU6 | HardSwish) else 2
    x = rng.permutation(np.linspace(-wide, wide, int(np.prod(shape)) + 1)[1:]).reshape(shape).astype(np.float32)
    for bend in (0, 3, -3, 6):
        x[np.abs(x - bend) < 1e-2] += np.float32(0.05)  # bends and ties have no slope
    x += np.float32(1e-3) * random(rng, shape)
    y = layer.forward({}, x)
    assert_near(y, textbook.forward_layer(layer, [], x.astype(np.float64)), "forward")
    dy = random(rng, y.shape)
    assert values_of_layers.through_relu(layer, dy, y) is dy
    dx = slopes(lambda value: textbook.forward_layer(layer, [], value), x.astype(np.float64), dy.astype(np.float64))
    assert_near(layer.input_gradients({}, dy, [x], y)[0], dx, "input gradient")


@settings(max_examples=40)
@given(case=st.one_of(parametric_layers(), plain_layers(), normalisations()), seed=seeds)
def test_the_rules_of_the_oracle_are_the_slopes(case: tuple[Layer, tuple[int, ...]], seed: int) -> None:
    layer, shape = case
    if isinstance(layer, Dropout):
        return
    rng = np.random.default_rng(seed)
    linear: Any = replace(layer, relu=False) if layer.relu else layer
    own = [rng.standard_normal(size) for size in linear.parameters.values()]
    x = rng.permutation(np.linspace(-2, 2, int(np.prod(shape)))).reshape(shape)  # no two alike: no tie of a maximum
    d = rng.standard_normal(layer.output_shape(shape))
    dx = slopes(lambda value: textbook.forward_layer(linear, own, value), x, d)
    if type(layer) not in textbook.ACTIVATIONS:
        np.testing.assert_allclose(textbook.input_gradient(layer, own, d, x), dx, atol=1e-6)
    elif isinstance(layer, HardSwish | GELU):
        np.testing.assert_allclose(textbook.activation_gradient(layer, d, x), dx, atol=1e-7)
    if isinstance(layer, Parametric):
        found = textbook.parameter_gradients(layer, own, d, x)
        for place, name in enumerate(layer.trained_parameters):

            def of(value: Doubles, place: int = place) -> Doubles:
                return textbook.forward_layer(linear, [*own[:place], value, *own[place + 1 :]], x)

            np.testing.assert_allclose(found[name], slopes(of, own[place], d), atol=1e-7)


def steps_of(layer: Parametric, w: Floats, x: Floats, dy: Floats) -> list[Floats]:
    own = {"w": w.reshape(layer.weight_shape)}
    y = layer.forward(own, x)
    return [
        y,
        layer.parameter_gradients({}, dy, [x])["w"].reshape(w.shape),
        layer.input_gradients(own, dy, [x], y)[0],
    ]


@settings(max_examples=40)
@given(options=textbook.window_options(), seed=seeds)
def test_a_convolution_of_one_channel_is_a_depthwise_one_to_the_bit(options: dict[str, Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    conv, depthwise = Conv2D("c", 1, 1, relu=False, **options), DepthWise("d", 1, relu=False, **options)
    x, w = random(rng, (1, 6, 5)), random(rng, depthwise.weight_shape)
    dy = random(rng, conv.output_shape(x.shape))
    for one, other in zip(steps_of(conv, w, x, dy), steps_of(depthwise, w, x, dy), strict=True):
        assert_same_bits(one, other)


def test_a_convolution_of_one_pixel_is_a_pointwise_one_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    x, w, dy = random(rng, (5, 3, 4)), random(rng, (7, 5)), random(rng, (7, 3, 4))
    conv, pointwise = Conv2D("c", 5, 7, kernel=1, relu=False), PointWise("p", 5, 7, relu=False)
    for one, other in zip(steps_of(conv, w, x, dy), steps_of(pointwise, w, x, dy), strict=True):
        assert_same_bits(one, other)


def test_a_convolution_of_the_whole_image_is_a_fully_connected_layer_to_the_bit() -> None:
    rng = np.random.default_rng(1)
    x, w, dy = random(rng, (5, 3, 4)), random(rng, (7, 60)), random(rng, (7, 1, 1))
    conv = steps_of(Conv2D("c", 5, 7, kernel=(3, 4), relu=False), w, x, dy)
    dense = steps_of(FullyConnected("f", 60, 7, relu=False), w, x, dy.reshape(-1))
    for one, other in zip(conv, dense, strict=True):
        assert_same_bits(one.reshape(other.shape), other)


# -- networks --------------------------------------------------------------------------------------
NETWORKS = {
    "separable": Model(
        "separable",
        (
            Conv2D("conv", 1, 3, kernel=(4, 3), stride=2, padding="same", bias=True),
            DepthWise("dw", 3, kernel=3, padding=1),
            PointWise("pw", 3, 4, bias=True),
            GlobalAveragePool("pool"),
            FullyConnected("fc", 4, 3, relu=False, bias=True),
        ),
        input_shape=(1, 9, 6),
        loss="cross-entropy",
    ),
    "strided": Model(
        "strided",
        (
            DepthWise("dw", 2, kernel=(2, 3), stride=(2, 1), padding=(1, 0, 2, 1), relu=False, bias=True),
            LeakyReLU("leaky", 0.2),
            Conv2D("conv", 2, 3, kernel=(3, 2), stride=(1, 2), padding=(1, 1), relu=False),
            MaxPool("max", 2, 1),
            Tanh("tanh"),
            FullyConnected("fc", 18, 4, relu=False),
            Sigmoid("sigmoid"),
        ),
        input_shape=(2, 5, 5),
    ),
    "absolute": Model(
        "absolute",
        (
            PointWise("pw", 2, 3, relu=False),
            ReLU("relu"),
            AveragePool("average", (2, 1)),
            Conv2D("conv", 3, 2, kernel=2, relu=False, bias=True),
        ),
        input_shape=(2, 6, 4),
        loss="l1",
    ),
    "normalised": Model(
        "normalised",
        (
            Conv2D("conv", 2, 3, kernel=3, padding="same", relu=False),
            BatchNorm("batch", 3),
            HardSwish("swish"),
            Dropout("dropout", 0.25),
            PointWise("pw", 3, 4, relu=False, bias=True),
            InstanceNorm("instance", 4, relu=True),
            LayerNorm2D("pixels", 4, eps=0.1, relu=True),
            GELU("gelu", "none"),
            FullyConnected("fc", 80, 5, relu=False),
            LayerNorm("norm", 5),
            ReLU6("relu6"),
            FullyConnected("last", 5, 3, relu=False, bias=True),
        ),
        input_shape=(2, 5, 4),
        loss="cross-entropy",
    ),
    "residual": Model(
        "residual",
        (
            Conv2D("conv", 2, 3, kernel=3, padding="same"),
            DepthWise("dw", 3, kernel=3, padding=1, relu=False),
            PointWise("short", 3, 3, relu=False, inputs=("conv",)),
            Add("add", relu=True, inputs=("conv", "dw", "short")),
            Concat("both", inputs=("add", "sample", "conv")),
            PointWise("pw", 8, 2, bias=True),
            Tanh("tanh", inputs=("both",)),
            Flatten("flat", inputs=("pw",)),
            Reshape("tall", (4, 40, 1), inputs=("tanh",)),
            Offset("offset", (4, 40, 1)),
            Transpose("turned", (2, 0, 3, 1), (4, 5, 8, 1), inputs=("offset",)),
            Flatten("wide", inputs=("turned",)),
            Concat("ends", inputs=("flat", "wide")),
            FullyConnected("fc", 200, 3, relu=False),
        ),
        input_shape=(2, 5, 4),
        loss="cross-entropy",
    ),
    "attention": Model(
        "attention",
        (
            PointWise("q", 2, 2, relu=False, bias=True),
            PointWise("k", 2, 2, relu=False, inputs=("sample",)),
            PointWise("v", 2, 2, inputs=("sample",)),
            MatMul("scores", transpose_a=True, scale=3**-0.5, inputs=("q", "k")),
            Softmax("p"),
            MatMul("out", transpose_b=True, inputs=("v", "p")),
            Add("sum", inputs=("out", "sample")),
            MatMul("squares", transpose_b=True, scale=0.5, inputs=("sum", "sum")),
            FullyConnected("fc", 18, 3, relu=False),
        ),
        input_shape=(2, 3, 5),
        loss="cross-entropy",
    ),
    "autoencoder": Model(
        "autoencoder",
        (FullyConnected("in", 6, 9, bias=True), FullyConnected("out", 9, 6, relu=False, bias=True)),
        target_is_input=True,
    ),
}

Case = tuple[Model, Parameters, Floats, Any]


def case(name: str, seed: int = 0) -> Case:
    """(network, random parameters, sample, target)."""
    model, rng = NETWORKS[name], np.random.default_rng(seed)
    parameters = [
        (array * np.sqrt(2 / max(np.prod(array.shape[1:]), 1))).astype(np.float32)
        for layer in model.layers
        for array in random_own(rng, layer).values()
    ]
    target: Any = random(rng, model.shapes[-1][1])
    if model.target_is_input:
        target = None
    elif model.loss == "cross-entropy":
        target = seed % model.outputs
    return model, parameters, random(rng, model.input_shape), target


def expected_gradients(model: Model, parameters: Parameters, x: Floats, target: Any) -> tuple[float, list[Doubles]]:
    exact, x64 = [array.astype(np.float64) for array in parameters], x.astype(np.float64)
    wanted = x64 if target is None else target

    def of(place: int) -> Callable[[Doubles], float]:
        return lambda value: textbook.loss(model, [*exact[:place], value, *exact[place + 1 :]], x64, wanted)

    found = [slopes(of(place), array) for place, array in enumerate(exact)]
    return textbook.loss(model, exact, x64, wanted), found


def trained_slots(model: Model) -> set[int]:
    pairs = zip(model.layers, model.slots, strict=True)
    return {slots[name] for layer, slots in pairs for name in layer.trained_parameters}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETWORKS)
def test_a_networks_gradients_are_the_slopes_of_its_loss(name: str, seed: int) -> None:
    model, parameters, x, target = case(name, seed)
    value, found = functional.gradients(model, parameters, x, target)
    expected, gradients = expected_gradients(model, parameters, x, target)
    assert value == pytest.approx(expected, rel=1e-5)
    assert set(found) == trained_slots(model)
    assert all(np.abs(gradient).max() > 0 for gradient in gradients[-len(model.layers[-1].parameters) :])
    for slot in found:
        assert_near(found[slot], gradients[slot], f"array {slot}")


@pytest.mark.parametrize("frozen", [("conv",), ("conv", "dw"), ("fc",), ("dw", "fc"), ("conv", "pw")])
def test_frozen_layers_keep_their_parameters_and_change_nothing_else(frozen: tuple[str, ...]) -> None:
    model, parameters, x, target = case("separable")
    layers = (replace(layer, trainable=False) if layer.name in frozen else layer for layer in model.layers)
    some = replace(model, layers=tuple(layers))
    everything, left = (
        functional.gradients(model, parameters, x, target)[1],
        functional.gradients(some, parameters, x, target)[1],
    )
    expected = {
        slot
        for layer, slots in zip(model.layers, model.slots, strict=True)
        for slot in slots.values()
        if layer.name not in frozen
    }
    assert set(left) == expected
    for slot in left:
        assert_same_bits(left[slot], everything[slot])
    before = [array.copy() for array in parameters]
    functional.step(some, parameters, x, target)
    assert {slot for slot, old in enumerate(before) if not np.array_equal(old, parameters[slot])} == expected


def test_no_input_gradient_is_computed_up_to_the_lowest_trained_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, parameters, x, target = case("separable")
    some = replace(model, layers=(replace(model.layers[0], trainable=False), *model.layers[1:]))
    computed: list[str] = []
    for kind in (FullyConnected, GlobalAveragePool, PointWise, DepthWise, Conv2D):
        original = kind.input_gradients
        monkeypatch.setattr(
            kind, "input_gradients",
            lambda layer, *rest, original=original: (computed.append(layer.name), original(layer, *rest))[1],
        )  # fmt: skip
    functional.step(model, parameters, x, target)
    assert computed == ["fc", "pool", "pw", "dw"]
    computed.clear()
    functional.step(some, parameters, x, target)
    assert computed == ["fc", "pool", "pw"]


# -- updates ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.0, 0.1), (0.8, 0.01)])
def test_steps_are_the_optimizers_formula(name: str, momentum: float, decay: float) -> None:
    model, parameters, x, target = case(name)
    optimizer, rate = SGD(0.05, momentum, decay), float(np.float32(0.05))
    velocity = [np.zeros(array.shape) for array in parameters]
    for _ in range(3):
        before = [array.astype(np.float64) for array in parameters]
        value, gradients = functional.gradients(model, parameters, x, target)
        assert functional.step(model, parameters, x, target, optimizer) == value
        for slot in gradients:
            w = before[slot]
            g = gradients[slot].astype(np.float64) + float(np.float32(decay)) * w
            velocity[slot] = float(np.float32(momentum)) * velocity[slot] + g
            exact = w - rate * velocity[slot]
            assert np.abs(parameters[slot] - exact).max() <= 1e-6 * max(1.0, float(np.abs(w).max()))
            if momentum:
                velocity[slot] = optimizer.state[slot]["velocity"].astype(np.float64)
    assert bool(optimizer.state) == bool(momentum)


def test_an_update_from_a_stored_gradient_rounds_once_more() -> None:
    model, parameters, x, target = case("separable")
    fused, stored = [w.copy() for w in parameters], [w.copy() for w in parameters]
    gradients = functional.gradients(model, parameters, x, target)[1]
    functional.step(model, fused, x, target)
    functional.step(model, stored, x, target, stored_gradients=("fc",))
    slot = model.slots[-1]["w"]
    rate = SGD().minus_lr
    exact = (parameters[slot].astype(np.float64) + float(rate) * gradients[slot].astype(np.float64)).astype(np.float32)
    assert_same_bits(stored[slot], exact)
    assert np.abs(fused[slot] - exact).max() < 1e-7
    for other in range(len(parameters)):
        if other != slot:
            assert_same_bits(fused[other], stored[other])


@pytest.mark.parametrize("stored", [(), ("a", "c"), ("a", "b", "c")])
@pytest.mark.parametrize("itself", [True, False])
def test_a_fully_connected_networks_step_is_these_operations_to_the_bit(itself: bool, stored: tuple[str, ...]) -> None:
    layers = (FullyConnected("a", 20, 9), FullyConnected("b", 9, 12), FullyConnected("c", 12, 20, relu=False))
    model, rng = Model("net", layers, target_is_input=itself), np.random.default_rng(0)
    parameters = [random(rng, shape) / np.float32(3) for shape in model.parameter_shapes]
    expected = [w.copy() for w in parameters]
    for _ in range(3):
        x, target = random(rng, (20,)), None if itself else random(rng, (20,))
        inputs = [x]
        for layer, w in zip(layers, expected, strict=True):
            inputs.append(numerics.fc_forward(w, inputs[-1], layer.relu))
        loss, d = numerics.mse(inputs[-1], x if target is None else target, 4)
        assert functional.step(model, parameters, x, target, SGD(0.05), 4, stored) == loss
        for layer, w, below in reversed(list(zip(layers, expected, inputs, strict=False))):
            dx = numerics.fc_input_gradient(w, d)
            if layer.name in stored:
                numerics.sgd_update(w, numerics.fc_weight_gradient(d, below), np.float32(-0.05))
            else:
                numerics.fc_fused_update(w, d, below, np.float32(-0.05))
            d = numerics.relu_backward(dx, below)
    for one, other in zip(parameters, expected, strict=True):
        assert_same_bits(one, other)


def test_the_number_of_cores_moves_the_last_bits_of_the_loss_only() -> None:
    model, parameters, x, target = case("strided")
    y = functional.forward(model, parameters, x)[-1]
    found = [functional.loss(model, y, target, cores)[0] for cores in (1, 2, 8, 16)]
    assert np.ptp(found) < 1e-6 * found[0]
    assert all(
        (functional.loss(model, y, target, cores)[1] == functional.loss(model, y, target, 1)[1]).all()
        for cores in (2, 8, 16)
    )


# -- slips -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0}, "SGD: lr = 0: must be a positive number, one that FP32 holds"),
        ({"lr": float("nan")}, "SGD: lr = nan: must be a positive number, one that FP32 holds"),
        ({"lr": 1e39}, "SGD: lr = 1e+39: must be a positive number, one that FP32 holds"),
        ({"momentum": 1.0}, "SGD: momentum = 1.0: must be at least 0 and below 1"),
        ({"momentum": -0.5}, "SGD: momentum = -0.5: must be at least 0 and below 1"),
        ({"weight_decay": -1}, "SGD: weight_decay = -1: must be at least 0 and a number that FP32 holds"),
        ({"weight_decay": 1e39}, "SGD: weight_decay = 1e+39: must be at least 0 and a number that FP32 holds"),
    ],
)
def test_an_optimizer_out_of_range_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        SGD(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "x", "target", "message"),
    [
        ("separable", (1, 9, 5), 0, "separable: a sample of shape [1, 9, 5]: must be [1, 9, 6]"),
        ("separable", (9, 6), 0, "separable: a sample of shape [9, 6]: must be [1, 9, 6]"),
        ("separable", (1, 9, 6), None, "separable needs a target with every sample"),
        ("separable", (1, 9, 6), 3, "separable: target 3: must be the number of a class, 0 to 2"),
        ("separable", (1, 9, 6), -1, "separable: target -1: must be the number of a class, 0 to 2"),
        ("separable", (1, 9, 6), 1.0, "separable: target 1.0: must be the number of a class, 0 to 2"),
        ("strided", (2, 5, 5), np.zeros(5), "strided: a target of shape [5]: must be [4]"),
        ("autoencoder", (6,), np.zeros(6), "autoencoder learns its input: it takes no other target"),
    ],
)
@pytest.mark.parametrize("action", [functional.step, functional.gradients])
def test_what_cannot_be_learned_from_is_refused_and_nothing_learned(
    name: str, x: tuple[int, ...], target: Any, message: str, action: Callable[..., Any]
) -> None:
    model, parameters, _, _ = case(name)
    before = [array.copy() for array in parameters]
    with pytest.raises(DataError) as caught:
        action(model, parameters, np.zeros(x), target)
    assert str(caught.value) == message
    assert all(np.array_equal(one, other) for one, other in zip(before, parameters, strict=True))


def test_a_flat_sample_is_read_as_an_image() -> None:
    model, parameters, x, _ = case("separable")
    for one, other in zip(
        functional.forward(model, parameters, x), functional.forward(model, parameters, x.reshape(-1)), strict=True
    ):
        assert_same_bits(one, other)


def test_a_velocity_of_another_network_is_refused() -> None:
    optimizer = SGD(momentum=0.9)
    functional.step(*case("separable"), optimizer)
    model, parameters, x, target = case("absolute")
    with pytest.raises(ModelError, match="the velocity of parameter array 0 is that of another network"):
        functional.step(model, parameters, x, target, optimizer)
    assert all(np.array_equal(one, other) for one, other in zip(parameters, case("absolute")[1], strict=True))


# -- PyTorch's opinion -----------------------------------------------------------------------------
def torch_loss(torch: Any, model: Model, parameters: list[Any], x: Any, target: Any) -> Any:
    y = counterpart.outputs(torch, model, parameters, x, step=0)[model.layers[-1].name]
    return counterpart.loss(torch, model, y, x if target is None else target)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.01)])
def test_pytorch_takes_the_same_steps(name: str, momentum: float, decay: float) -> None:
    torch = pytest.importorskip("torch")
    model, parameters, x, target = case(name, 1)
    theirs = [torch.from_numpy(array.copy()).requires_grad_() for array in parameters]
    their_optimizer = torch.optim.SGD(theirs, lr=0.05, momentum=momentum, weight_decay=decay)
    optimizer = SGD(0.05, momentum, decay)
    for _ in range(4):
        their_optimizer.zero_grad()
        value = torch_loss(torch, model, theirs, torch.from_numpy(x), target)
        value.backward()
        gradients = functional.gradients(model, parameters, x, target)[1]
        for slot, gradient in gradients.items():
            assert_near(gradient, theirs[slot].grad.numpy().astype(np.float64), f"gradient {slot}")
        their_optimizer.step()
        assert functional.step(model, parameters, x, target, optimizer) == pytest.approx(
            float(value.detach()), rel=1e-5
        )
        for slot, array in enumerate(theirs):
            assert_near(parameters[slot], array.detach().numpy().astype(np.float64), f"array {slot}")


@settings(max_examples=40)
@given(made=st.one_of(parametric_layers(), plain_layers(), normalisations()), seed=seeds)
def test_pytorch_computes_the_same_layers(made: tuple[Layer, tuple[int, ...]], seed: int) -> None:
    torch = pytest.importorskip("torch")
    layer, shape = made
    rng = np.random.default_rng(seed)
    own = random_own(rng, layer)
    x = random(rng, shape)
    y = layer.forward(own, x)
    dy = random(rng, y.shape)
    theirs = [torch.from_numpy(array).requires_grad_() for array in own.values()]
    their_x = torch.from_numpy(x).requires_grad_()
    their_y = counterpart.forward(torch, layer, theirs, their_x)
    their_y.backward(torch.from_numpy(dy))
    assert_near(y, their_y.detach().numpy().astype(np.float64), "forward")
    d = values_of_layers.through_relu(layer, dy, y)
    assert_near(
        layer.input_gradients(own, d, [x], y)[0], their_x.grad.numpy().astype(np.float64), "input gradient"
    )
    found = layer.parameter_gradients(own, d, [x])
    for name, their in zip(layer.trained_parameters, theirs, strict=False):
        assert_near(found[name], their.grad.numpy().astype(np.float64), f"gradient of {name}")
