"""Protects that a kind of layer, step, kernel or loss which the code does not know is an error where it is met.

Never nothing, and never another kind's computation: neither on the host nor on the cluster nor in the search.
"""

from __future__ import annotations

import numpy as np
import pytest

from autotuner import space
from autotuner.published import layer_of
from pulpsim import Platform
from trainlib import functional
from trainlib.bounds import least_bounds
from trainlib.errors import ModelError, PlanError
from trainlib.layers import (
    GELU,
    KINDS,
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
    PointWise,
    ReLU,
    ReLU6,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
    Transpose,
)
from trainlib.learning import lessons_for
from trainlib.lowering.schedule import compile_schedule, compile_step, cut_step
from trainlib.model import Model
from trainlib.plan import STEPS, LayerStep, Tile, steps_of, tile_limits
from trainlib.tiling import default_plan
from trainlib.trainer import Trainer

PLATFORM = Platform.preset("pulp-2022")


def network(layer: Layer) -> Model:
    """With the layer between two others."""
    head, tail = PointWise("head", 1, 2), FullyConnected("tail", 24, 3, relu=False)
    return Model("net", (head, layer, tail), input_shape=(1, 3, 4))


KNOWN: list[Layer] = [
    FullyConnected("odd", 24, 24), Conv2D("odd", 2, 2, 1), PointWise("odd", 2, 2), DepthWise("odd", 2, 1),
    AveragePool("odd", 1), MaxPool("odd", 1), GlobalAveragePool("odd"), ReLU("odd"), LeakyReLU("odd"), Sigmoid("odd"),
    Tanh("odd"), ReLU6("odd"), HardSwish("odd"), GELU("odd"), BatchNorm("odd", 2), InstanceNorm("odd", 2),
    LayerNorm("odd", 24), LayerNorm2D("odd", 2), Dropout("odd"), Offset("odd", (2, 3, 4)),
    Add("odd", inputs=("head", "head")), Concat("odd", inputs=("head", "head")), Flatten("odd"),
    Reshape("odd", (4, 2, 3)), Transpose("odd", (1, 2, 0)), MatMul("odd", True, inputs=("head", "head")),
    Softmax("odd"),
]  # fmt: skip


def after(layer: Layer) -> int:
    """Numbers that come out of a layer above "head"."""
    return {GlobalAveragePool: 2, Concat: 48, MatMul: 32}.get(type(layer), 24)


def test_every_kind_that_is_known_has_a_place_in_every_dispatch() -> None:
    """So that a kind that is added is not forgotten in one of them."""
    assert [type(layer) for layer in KNOWN] == list(KINDS)
    for layer in KNOWN:
        tail = FullyConnected("tail", after(layer), 3, relu=False)
        model = Model("net", (PointWise("head", 1, 2), layer, tail), input_shape=(1, 3, 4))
        trainer = Trainer(model, PLATFORM)
        given = {step.step for step in trainer.plan.steps if step.layer == "odd"}
        assert given & set(layer.STEPS) == given and ("fw" in given) == ("fw" in layer.STEPS)
        assert {phase.layer for phase in trainer.schedule.phases} == {"head", *["odd"] * bool(given), "tail", "loss"}
        assert trainer.functional_step(np.ones(12), np.ones(3)) > 0
        for step in set(layer.STEPS) & {"fw", "ig"}:
            assert space.tile_bytes(model, 1, next(space.candidates(model, 1, step))) > 0
        assert least_bounds(model, PLATFORM)["FPUs"] > 0
        layer_of(model, 1)


# -- steps, kernels, losses ------------------------------------------------------------------------
@pytest.mark.parametrize("step", ["foo", "ig+wg", "fw+wg", "", "update+wg"])
@pytest.mark.parametrize("layer", KNOWN, ids=lambda layer: type(layer).__name__)
def test_a_step_that_is_not_known_is_refused(layer: Layer, step: str) -> None:
    tail = FullyConnected("tail", after(layer), 3, relu=False)
    model = Model("net", (PointWise("head", 1, 2), layer, tail), input_shape=(1, 3, 4))
    asked = LayerStep(layer="odd", step=step, tile=Tile(rows=1, columns=1))
    for use in (
        lambda: tile_limits(model, 1, step),
        lambda: cut_step(model, 1, asked, PLATFORM),
        lambda: compile_step(model, 1, asked, PLATFORM),
        lambda: next(space.candidates(model, 1, step)),
    ):
        with pytest.raises(PlanError, match=f"no step '{step}'".replace("+", r"\+")):
            use()


def test_a_layer_takes_no_step_of_another_kind() -> None:
    """A fused backward pass of a convolution would be its weight gradient alone, an update of a pool nothing."""
    model = network(MaxPool("odd", 1))
    for index, step in ((0, "ig+wg+update"), (1, "update"), (1, "wg")):
        with pytest.raises(PlanError, match="no step"):
            cut_step(
                model, index, LayerStep(layer="odd", step=step, tile=Tile(rows=1, columns=1)), PLATFORM
            )
    assert steps_of(FullyConnected("fc", 1, 1)) == STEPS


@pytest.mark.parametrize(("index", "kernel"), [(0, "mm_3x3"), (0, "dw"), (0, ""), (1, "mm"), (1, "dw_u9")])
def test_a_kernel_that_is_not_known_is_refused(index: int, kernel: str) -> None:
    model = network(DepthWise("odd", 2, 1))
    name = model.layers[index].name
    with pytest.raises(PlanError, match=f"no kernel '{kernel}'"):
        compile_step(
            model, index, LayerStep(layer=name, step="fw", tile=Tile(rows=1, columns=1), kernel=kernel), PLATFORM
        )


def test_a_loss_that_is_not_known_is_refused() -> None:
    model = network(ReLU("odd"))
    plan = default_plan(model, PLATFORM)
    object.__setattr__(model, "loss", "huber")
    for use in (
        lambda: functional.loss(model, np.ones(3, np.float32), np.ones(3)),
        lambda: compile_schedule(model, plan, PLATFORM),
        lambda: lessons_for(model),
    ):
        with pytest.raises(ModelError, match="net: the loss 'huber' cannot be "):
            use()


def test_a_step_that_is_not_known_has_no_multiplications() -> None:
    model = network(ReLU("odd"))
    assert model.macs(0, "fw") == model.macs(0, "wg+update") > model.macs(0, "update") == 0
    for step in ("foo", "fw,wg", ""):
        with pytest.raises(ModelError, match=f"net: no step '{step}'"):
            model.macs(0, step)
