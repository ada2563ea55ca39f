"""Protects the execution of image layers: any tiles, halos, kernels and buffering leave the functional step's bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pulpsim.machine import Machine
from pulpsim.platform import Platform
from tests.regenerate_golden import case_of, load
from tests.trainlib.arrays import assert_same_bits, seeds
from tests.trainlib.hazards import meetings
from trainlib import models, trainer
from trainlib.errors import ModelError
from trainlib.kernels.fully_connected import COLUMN_UNROLLS, ROW_UNROLLS
from trainlib.layers import (
    Activation,
    AveragePool,
    Conv2D,
    DepthWise,
    FullyConnected,
    GlobalAveragePool,
    Layer,
    LeakyReLU,
    MaxPool,
    PointWise,
    ReLU,
    Sigmoid,
    Tanh,
)
from trainlib.model import Model
from trainlib.plan import LayerStep, Plan, Tile, backward_choices, kernels_of, residents_of, tile_limits
from trainlib.schedule import compile_schedule
from trainlib.tiling import default_plan
from trainlib.trainer import Trainer

PLATFORM = Platform.preset("pulp-2022")
flags = st.booleans()


@st.composite
def layers(draw: st.DrawFn, name: str, shape: tuple[int, ...], last: bool) -> Layer:
    channels = shape[0]
    common: dict[str, Any] = {
        "relu": not last and draw(flags),
        "bias": draw(flags),
        "trainable": draw(st.sampled_from([True, True, False])),
    }
    outputs = draw(st.integers(1, 6))
    window = {
        "kernel": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        "stride": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
    }
    padding = draw(st.sampled_from([0, 1, "same", (1, 0, 0, 1)]))
    kinds = {
        "conv": lambda: Conv2D(name, channels, outputs, **window, padding=padding, **common),
        "pw": lambda: PointWise(name, channels, outputs, **common),
        "dw": lambda: DepthWise(name, channels, **window, padding=padding, **common),
        "avg": lambda: AveragePool(name, **window),
        "max": lambda: MaxPool(name, **window),
        "gap": lambda: GlobalAveragePool(name),
        "relu": lambda: ReLU(name),
        "leaky": lambda: LeakyReLU(name, 0.1),
        "sigmoid": lambda: Sigmoid(name),
        "tanh": lambda: Tanh(name),
        "fc": lambda: FullyConnected(name, int(np.prod(shape)), outputs, **common),
    }
    images = ["conv", "pw", "dw", "avg", "max", "gap", "fc"] if len(shape) == 3 else ["fc"]
    return kinds[draw(st.sampled_from([*images, "relu", "leaky", "sigmoid", "tanh"]))]()


@st.composite
def networks(draw: st.DrawFn) -> Model:
    shape: tuple[int, ...] = (draw(st.integers(1, 4)), draw(st.integers(2, 8)), draw(st.integers(2, 7)))
    given_shape, chosen, count = shape, [], draw(st.integers(1, 4))
    try:
        for i in range(count):
            layer = draw(layers(f"l{i}", shape, i == count - 1))
            shape = layer.output_shape(shape)
            chosen.append(layer)
        loss = draw(st.sampled_from(["mse", "l1", "cross-entropy"]))
        return Model("random", tuple(chosen), input_shape=given_shape, loss=loss)
    except ModelError:
        assume(False)
        raise


@st.composite
def plans(draw: st.DrawFn, model: Model) -> Plan:
    steps = []

    def add(index: int, step: str) -> None:
        layer, (rows, columns, lines) = model.layers[index], tile_limits(model, index, step)
        names = () if step == "update" else kernels_of(layer)
        unrolls = (1,)
        if isinstance(layer, FullyConnected):
            unrolls = ROW_UNROLLS if step == "fw" else COLUMN_UNROLLS
        fewest = 12 if isinstance(layer, Activation) else 3  # parts of a row of [channels, pixels], too
        tile = Tile(
            rows=draw(st.integers(-(-rows // 3), rows)),
            columns=draw(st.integers(-(-columns // fewest), columns)),
            padding=draw(st.integers(0, 1)),
            lines=draw(st.integers(0, lines)),
        )
        steps.append(
            LayerStep(
                layer=layer.name, step=step, tile=tile, unroll=draw(st.sampled_from(unrolls)),
                kernel=draw(st.sampled_from(names)) if names else "",
                buffering=draw(st.sampled_from(["single", "double"])),
                resident=draw(st.sampled_from(["", *residents_of(layer, step)])),  # type: ignore[arg-type]
                relu=draw(st.sampled_from(["fused", "separate"])),
            )
        )  # fmt: skip

    for index in range(len(model.layers)):
        add(index, "fw")
    for index in reversed(range(len(model.layers))):
        for step in draw(st.sampled_from(backward_choices(model, index))):
            add(index, step)
    stores, loss_tile = draw(st.sampled_from(["overlapped", "awaited"])), draw(st.integers(0, model.outputs))
    return Plan(
        model=model.name, platform="pulp-2022", steps=tuple(steps), stores=stores,  # type: ignore[arg-type]
        loss_tile=loss_tile,
    )  # fmt: skip


def sample(model: Model, rng: np.random.Generator) -> tuple[Any, Any]:
    x = rng.standard_normal(model.input_shape).astype(np.float32)
    if model.loss == "cross-entropy":
        return x, int(rng.integers(model.outputs))
    return x, None if model.target_is_input else rng.standard_normal(model.outputs).astype(np.float32)


def assert_steps_agree(
    model: Model, plan: Plan | None, platform: Platform, seed: int, momentum: float = 0.0, weight_decay: float = 0.0
) -> None:
    """Timed and functional steps from random parameters: the same loss and parameters, bit for bit."""
    timed, functional = (
        Trainer(model, platform, plan, lr=0.05, momentum=momentum, weight_decay=weight_decay) for _ in range(2)
    )
    rng = np.random.default_rng(seed)
    for one, other in zip(timed.parameters, functional.parameters, strict=True):
        one[:] = other[:] = rng.standard_normal(one.shape).astype(np.float32) * 0.5
    x, target = sample(model, rng)

    def dirty(platform: Platform) -> Machine:
        """Memories full of random bytes: what is read before it is written becomes a wrong number."""
        machine = Machine(platform)
        for memory in (machine.memory.l1, machine.memory.l2):
            memory[:] = np.frombuffer(np.random.default_rng(seed).bytes(memory.size), np.uint8)
        return machine

    if momentum:  # velocities that are not zero
        assert timed.functional_step(x, target) == functional.functional_step(x, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "Machine", dirty)
        report = timed.timed_step(x, target)
    assert_same_bits(np.float32(report.loss), np.float32(functional.functional_step(x, target)), "loss")
    for number, (one, other) in enumerate(zip(timed.parameters, functional.parameters, strict=True)):
        assert_same_bits(one, other, f"parameters {number}")
    assert report.cycles == sum(phase.cycles for phase in report.phases)
    assert sum(report.causes.values()) == report.cycles * report.cores


@settings(max_examples=160)
@given(data=st.data(), cores=st.integers(1, 16), seed=seeds)
def test_any_plan_leaves_the_bits_of_the_functional_step(data: st.DataObject, cores: int, seed: int) -> None:
    model = data.draw(networks())
    platform = Platform.preset("pulp-2022", {"cluster.cores": cores, "l2.size_bytes": 256 << 10})
    assert_steps_agree(model, data.draw(plans(model)), platform, seed)


@settings(max_examples=100)
@given(data=st.data(), cores=st.integers(1, 16))
def test_no_transfer_meets_another_the_other_way(data: st.DataObject, cores: int) -> None:
    """Rows of a tile amid others, halos, outputs taken as a matrix of the cores' shares."""
    model = data.draw(networks())
    platform = Platform.preset("pulp-2022", {"cluster.cores": cores, "l2.size_bytes": 256 << 10})
    assert not meetings(compile_schedule(model, data.draw(plans(model)), platform, 0.05))


@settings(max_examples=40)
@given(data=st.data(), kib=st.sampled_from([16, 20, 24, 32]), seed=seeds)
def test_the_default_plan_runs_where_it_fits(data: st.DataObject, kib: int, seed: int) -> None:
    model = data.draw(networks())
    platform = Platform.preset("pulp-open", {"l1.size_bytes": kib << 10, "l2.size_bytes": 256 << 10})
    assert_steps_agree(model, None, platform, seed)


@settings(max_examples=40)
@given(data=st.data(), momentum=st.sampled_from([0.0, 0.9]), decay=st.sampled_from([0.0, 0.01]), seed=seeds)
def test_momentum_and_weight_decay(data: st.DataObject, momentum: float, decay: float, seed: int) -> None:
    platform = Platform.preset("pulp-2022", {"l2.size_bytes": 256 << 10})
    assert_steps_agree(data.draw(networks()), None, platform, seed, momentum, decay)


@pytest.mark.parametrize("name", ["tutorial_cnn", "ds_cnn_paper", "ds_cnn"])
def test_shipped_models(name: str) -> None:
    assert_steps_agree(models.get(name), None, Platform.preset("pulp-2022"), 0)


def test_small_l1_means_more_and_smaller_tiles() -> None:
    """Halos, parts of the channels, single buffering: ds_cnn in an L1 that holds no image."""
    platform = Platform.preset("pulp-2022", {"l1.size_bytes": 24 << 10})
    plan = default_plan(models.get("ds_cnn_paper"), platform)
    assert any(step.tile.lines for step in plan.steps)
    assert_steps_agree(models.get("ds_cnn_paper"), plan, platform, 1)


def test_input_gradient_of_a_pointwise_layer_multiplies_by_the_transposed_weights() -> None:
    """Where W is not square, and where it is: the gradient that reaches the layer below is W^T dy."""
    for channels in (5, 4):
        model = Model(
            "pw",
            (PointWise("a", 3, channels, relu=False), PointWise("b", channels, 4, relu=False)),
            input_shape=(3, 4, 5),
        )
        net, rng = Trainer(model, Platform.preset("pulp-2022"), lr=1.0), np.random.default_rng(channels)
        for parameter in net.parameters:
            parameter[:] = rng.standard_normal(parameter.shape)
        (a, b), x = (p.astype(np.float64) for p in net.parameters), rng.standard_normal((3, 20)).astype(np.float32)
        target = rng.standard_normal(80).astype(np.float32)
        dy = 2 / 80 * (b @ a @ x - target.reshape(4, 20))
        net.timed_step(x.reshape(3, 4, 5), target)
        np.testing.assert_allclose(a - net.parameters[0], b.T @ dy @ x.T, rtol=2e-5, atol=2e-5)


def test_the_published_steps_take_longer() -> None:
    """3 ms at 450 MHz for the network that they fit, and the tutorial's 107,356 cycles."""
    cycles = {case_of(case): case["cycles"] for case in load()}
    assert cycles["ds_cnn_paper", "pulp-2022", "by rule"] <= 1_350_000
    assert cycles["ds_cnn_paper", "pulp-2022", "tuned"] <= 1_000_000
    assert cycles["tutorial_cnn", "pulp-2022", "by rule"] <= 107_356


@pytest.mark.parametrize("resident", [0, 1])
@pytest.mark.parametrize(
    ("height", "kernel", "stride", "padding"),
    [(4, (3, 1), 1, 0), (5, (1, 1), 2, 0), (3, (3, 2), 1, 1), (2, (3, 3), 1, 1)],
)
def test_rows_of_windows_are_made_anew_for_other_lines_of_the_same_image_rows(
    height: int, kernel: tuple[int, int], stride: int, padding: int, resident: int
) -> None:
    """Tiles of one line that see the same rows of x, or of dy, as the tile before."""
    layers = (PointWise("below", 1, 2), Conv2D("conv", 2, 3, kernel=kernel, stride=stride, padding=padding, relu=False))
    model = Model("halo", layers, input_shape=(1, height, 4))
    plan = default_plan(model, PLATFORM)
    steps = []
    for step in plan.steps:
        index = int(step.layer == "conv")
        tile = Tile(
            rows=step.tile.rows, columns=step.tile.columns, lines=min(1, tile_limits(model, index, step.step)[2])
        )
        names = residents_of(model.layers[index], step.step)
        steps.append(replace(step, tile=tile, resident=names[resident] if names else ""))
    assert_steps_agree(model, replace(plan, steps=tuple(steps)), PLATFORM, 1)
