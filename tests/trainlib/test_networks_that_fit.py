"""Protects real-looking networks on the default machine: what fits is trained, and only what cannot fit is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim.platform import Platform
from tests.trainlib.agreement import check
from tests.trainlib.arrays import core_counts
from tests.trainlib.networks import Case, networks, plans, smallest_plans, smallest_step, with_l1_for
from trainlib import models
from trainlib.errors import PlanError
from trainlib.layers import (
    AveragePool,
    Conv2D,
    FullyConnected,
    GlobalAveragePool,
    Layer,
    LeakyReLU,
    MaxPool,
    ReLU,
    Tanh,
)
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import Model
from trainlib.optimizers import SGD
from trainlib.plan import Plan, Tile, tile_limits
from trainlib.tiling import default_plan
from trainlib.trainer import Trainer

MIB = 1 << 20
#: plans that are tried where one is refused
OTHERS = 30


# -- images ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Stage:
    """A convolution, what follows it, and pooling: "max 3 2" is of 3 x 3 every 2."""

    outputs: int
    kernel: int
    activation: str
    pool: str = ""
    padding: int | str = "same"

    def layers(self, name: str, inputs: int) -> Iterator[Layer]:
        yield Conv2D(
            f"conv{name}", inputs, self.outputs, self.kernel, padding=self.padding, relu=self.activation == "relu"
        )
        if self.activation != "relu":
            yield {"own relu": ReLU, "leaky": LeakyReLU, "tanh": Tanh}[self.activation](f"act{name}")
        if self.pool:
            kind, kernel, stride = self.pool.split()
            yield {"max": MaxPool, "average": AveragePool}[kind](f"pool{name}", int(kernel), int(stride))


def network(channels: int, size: int, *stages: Stage, hidden: int = 0) -> Model:
    """Ten classes. Without a hidden layer the mean of each channel goes to the last one."""
    chosen: list[Layer] = []
    shape: tuple[int, ...] = (channels, size, size)
    for number, stage in enumerate(stages):
        for layer in stage.layers(str(number), shape[0]):
            chosen.append(layer)
            shape = layer.output_shape(shape)
    if not hidden:
        chosen.append(GlobalAveragePool("mean"))
        shape = shape[0], 1, 1
    inputs = shape[0] * shape[1] * shape[2]
    if hidden:
        chosen.append(FullyConnected("hidden", inputs, hidden))
    chosen.append(FullyConnected("classes", hidden or inputs, 10, relu=False))
    return Model("images", tuple(chosen), input_shape=(channels, size, size), loss="cross-entropy")


IMAGES = {
    "24 relu max": (network(1, 24, Stage(8, 5, "relu", "max 2 2"), hidden=32), 0.0),
    "24 tanh average, mean": (network(3, 24, Stage(16, 3, "tanh", "average 2 2"), Stage(16, 3, "tanh")), 0.9),
    "24 leaky max": (network(8, 24, Stage(16, 3, "leaky", "max 3 2"), hidden=64), 0.9),
    "32 relu max, relu average": (
        network(3, 32, Stage(8, 5, "relu", "max 2 2"), Stage(16, 3, "relu", "average 2 2"), hidden=128),
        0.9,
    ),
    "32 leaky average": (network(1, 32, Stage(16, 3, "leaky", "average 3 3", padding=0), hidden=32), 0.0),
    "32 tanh, mean": (network(16, 32, Stage(16, 3, "tanh")), 0.9),
    "32 relu max, relu average, overlapping": (
        network(8, 32, Stage(8, 3, "relu", "max 3 1"), Stage(8, 3, "relu", "average 2 2"), hidden=64),
        0.0,
    ),
    "48 relu max, relu, mean": (network(1, 48, Stage(8, 3, "relu", "max 2 2"), Stage(16, 3, "relu")), 0.0),
    "48 leaky average, leaky max": (
        network(3, 48, Stage(8, 5, "leaky", "average 2 2"), Stage(16, 3, "leaky", "max 2 2"), hidden=64),
        0.9,
    ),
    "48 tanh max": (network(8, 48, Stage(16, 3, "tanh", "max 3 3"), hidden=32), 0.0),
    "48 relu average, overlapping, mean": (network(1, 48, Stage(16, 5, "relu", "average 3 1", padding=0)), 0.9),
    "64 relu max, relu max": (
        network(1, 64, Stage(8, 3, "own relu", "max 2 2"), Stage(16, 3, "own relu", "max 2 2"), hidden=32),
        0.0,
    ),
    "64 leaky average, mean": (network(3, 64, Stage(16, 3, "leaky", "average 2 2")), 0.9),
    "64 tanh max, tanh average": (
        network(8, 64, Stage(8, 3, "tanh", "max 2 2"), Stage(8, 5, "tanh", "average 3 3"), hidden=64),
        0.0,
    ),
    "64 relu average, relu max, mean": (
        network(1, 64, Stage(8, 5, "relu", "average 2 2"), Stage(8, 3, "relu", "max 2 2")),
        0.9,
    ),
    "96 relu max, relu max": (
        network(1, 96, Stage(8, 5, "relu", "max 3 3", padding=0), Stage(16, 3, "relu", "max 2 2"), hidden=64),
        0.0,
    ),
    "96 tanh average, tanh, mean": (network(3, 96, Stage(8, 3, "tanh", "average 2 2"), Stage(16, 3, "tanh")), 0.9),
    "96 leaky max, leaky average": (
        network(1, 96, Stage(16, 3, "leaky", "max 2 2"), Stage(8, 3, "leaky", "average 3 3"), hidden=32),
        0.9,
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_networks_of_images_are_trained(name: str) -> None:
    """On pulp-2022, with an L2 that holds the activations of large images."""
    model, momentum = IMAGES[name]
    settings = {"l2.size_bytes": 8 * MIB} if model.input_shape[-1] > 32 else {}
    check(Case(model, None, Platform.preset("pulp-2022", settings), 1, momentum=momentum))


# -- networks whose smallest tiles need a part of L1 only --------------------------------------------
def dense(*widths: int) -> Model:
    last = len(widths) - 2
    layers = (FullyConnected(f"fc{i}", widths[i], widths[i + 1], relu=i < last) for i in range(last + 1))
    return Model("dense", tuple(layers))


LENET = Model(
    "lenet5",
    (
        Conv2D("conv0", 1, 6, 5, padding=2),
        MaxPool("pool0", 2),
        Conv2D("conv1", 6, 16, 5),
        MaxPool("pool1", 2),
        FullyConnected("fc0", 400, 120),
        FullyConnected("fc1", 120, 84),
        FullyConnected("fc2", 84, 10, relu=False),
    ),
    input_shape=(1, 28, 28),
    loss="cross-entropy",
)
#: model, momentum, size of L2, bytes of L1 that are enough
SMALL_NEEDS = {
    "64-256-10": (dense(64, 256, 10), 0.9, 2 * MIB, 4_432),
    "LeNet-5": (LENET, 0.9, 2 * MIB, 10_192),
    "64-256-64-10": (dense(64, 256, 64, 10), 0.9, 2 * MIB, 5_376),
    "autoencoder": (models.get("autoencoder"), 0.9, 4 * MIB, 10_544),
    "48 max, mean": (network(3, 48, Stage(8, 3, "relu", "max 2 2")), 0.0, 2 * MIB, 29_952),
}


@pytest.mark.parametrize("name", SMALL_NEEDS)
def test_networks_that_need_a_part_of_l1_are_trained(name: str) -> None:
    model, momentum, l2_bytes, needed = SMALL_NEEDS[name]
    platform = Platform.preset("pulp-2022", {"l2.size_bytes": l2_bytes})
    default_plan(model, with_l1_for(platform, needed), SGD(0.01, momentum))
    check(Case(model, None, platform, 1, momentum=momentum))


def least_l1_bytes(model: Model, platform: Platform, momentum: float, width: int = 64) -> int:
    """What the best of the smallest plans takes."""
    roomy = platform.replace({"l1.size_bytes": MIB})
    return min(
        compile_schedule(model, plan, roomy, SGD(0.01, momentum)).l1_bytes
        for plan in smallest_plans(model, width)
    )


# -- refusals ----------------------------------------------------------------------------------------
def tiles(limits: tuple[int, int, int]) -> list[Tile]:
    """All that a step may have if they are few, else those of a few sizes."""
    sizes = (range(1, limit + 1) if limit <= 3 else (1, limit // 2, limit) for limit in limits)
    return [Tile(rows=rows, columns=columns, lines=lines) for rows, columns, lines in product(*sizes)]


def small_plans(model: Model) -> Iterator[Plan]:
    """The smallest plans; then those where one step has another tile."""
    indices = {layer.name: index for index, layer in enumerate(model.layers)}
    smallest = list(smallest_plans(model))
    yield from smallest
    for plan in smallest:
        for number, step in enumerate(plan.steps):
            index = indices[step.layer]
            for tile in tiles(tile_limits(model, index, step.step)):
                other = smallest_step(model, index, step.step, tile)
                yield replace(plan, steps=(*plan.steps[:number], other, *plan.steps[number + 1 :]))


def in_single_buffers(plan: Plan) -> Plan:
    return replace(plan, stores="awaited", steps=tuple(replace(step, buffering="single") for step in plan.steps))


def compiles(model: Model, plan: Plan, platform: Platform, momentum: float) -> bool:
    try:
        compile_schedule(model, plan, platform, SGD(0.01, momentum))
    except PlanError:
        return False
    return True


@settings(max_examples=12)
@given(
    data=st.data(), model=networks(3), cores=core_counts, more=st.integers(-512, 3072),
    momentum=st.sampled_from([0.0, 0.9]),
)  # fmt: skip
def test_only_what_has_no_plan_is_refused_for_want_of_l1(
    data: st.DataObject, model: Model, cores: int, more: int, momentum: float
) -> None:
    """In an L1 that the smallest tiles fill, or nearly, or not at all."""
    roomy = Platform.preset("pulp-2022", {"cluster.cores": cores})
    platform = with_l1_for(roomy, max(least_l1_bytes(model, roomy, momentum, width=1) + more, 64))
    try:
        Trainer(model, platform, momentum=momentum)
    except PlanError as error:
        drawn = (in_single_buffers(data.draw(plans(model, cores))) for _ in range(5))
        for plan in chain(islice(small_plans(model), OTHERS), drawn):
            assert not compiles(model, plan, platform, momentum), f"{error}\nyet this compiles: {plan}"
