"""Protects that a kind of layer, step, kernel or loss which the code does not know is an error where it is met.

Never nothing, and never another kind's computation: neither on the host nor on the cluster nor in the search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from autotuner import space
from autotuner.export import export
from autotuner.published import layer_of
from autotuner.tuning import jobs_of
from pulpsim import Platform
from trainlib import functional
from trainlib.bounds import least_bounds
from trainlib.errors import ModelError, PlanError
from trainlib.layers import (
    KINDS,
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
    Pool,
    ReLU,
    Sigmoid,
    Tanh,
)
from trainlib.learning import lessons_for
from trainlib.lowering.schedule import compile_schedule, compile_step, cut_step
from trainlib.lowering.tasks import Rule
from trainlib.model import Model
from trainlib.operators import pooling
from trainlib.plan import (
    STEPS,
    LayerStep,
    Plan,
    Tile,
    backward_choices,
    kernels_of,
    residents_of,
    steps_of,
    tile_limits,
)
from trainlib.tiling import default_plan
from trainlib.trainer import Trainer

PLATFORM = Platform.preset("pulp-2022")


@dataclass(frozen=True, slots=True)
class Twice(Layer):
    """A kind that nobody knows."""

    def output_shape(self, input_shape: tuple[int, ...], source: str = "") -> tuple[int, ...]:
        return input_shape


@dataclass(frozen=True, slots=True)
class Swish(Activation):
    """An activation that nobody knows."""


@dataclass(frozen=True, slots=True)
class Steep(Tanh):
    """Derived from a kind that is known: it may compute anything."""


@dataclass(frozen=True, slots=True)
class Wide(Conv2D):
    """Likewise."""


STRANGERS: list[Layer] = [
    Twice("odd"), Swish("odd"), Steep("odd"), Activation("odd"), Pool("odd", 1), Wide("odd", 2, 2, kernel=1),
]  # fmt: skip


def network(layer: Layer) -> Model:
    """With the layer between two that are known."""
    head, tail = PointWise("head", 1, 2), FullyConnected("tail", 24, 3, relu=False)
    return Model("net", (head, layer, tail), input_shape=(1, 3, 4))


def plan_with(layer: Layer) -> Plan:
    """What would be a plan for the network, were the layer of a kind that is known."""
    stand_in = Conv2D("odd", 2, 2, kernel=1) if isinstance(layer, Wide) else MaxPool("odd", 1)
    return default_plan(network(stand_in), PLATFORM)


USES: dict[str, Callable[[Layer, Model], Any]] = {
    "forward_layer": lambda layer, model: functional.forward_layer(layer, {}, np.ones((2, 3, 4), np.float32)),
    "input_gradient": lambda layer, model: functional.input_gradient(
        layer, {}, *[np.ones((2, 3, 4), np.float32)] * 3
    ),
    "functional.step": lambda layer, model: functional.step(
        model, model.initial_parameters(), np.ones(12), np.ones(3)
    ),
    "steps_of": lambda layer, model: steps_of(layer),
    "tile_limits": lambda layer, model: tile_limits(model, 1, "fw"),
    "backward_choices": lambda layer, model: backward_choices(model, 1),
    "kernels_of": lambda layer, model: kernels_of(layer),
    "residents_of": lambda layer, model: residents_of(layer, "fw"),
    "default_plan": lambda layer, model: default_plan(model, PLATFORM),
    "Trainer": lambda layer, model: Trainer(model, PLATFORM),
    "Plan.check": lambda layer, model: plan_with(layer).check(model),
    "compile_schedule": lambda layer, model: compile_schedule(model, plan_with(layer), PLATFORM, 0.1),
    "cut_step": lambda layer, model: cut_step(
        model, 1, LayerStep(layer="odd", step="fw", tile=Tile(rows=1, columns=1)), PLATFORM, Rule(0.1)
    ),
    "compile_step": lambda layer, model: compile_step(
        model, 1, LayerStep(layer="odd", step="ig", tile=Tile(rows=1, columns=1)), PLATFORM
    ),
    "least_bounds": lambda layer, model: least_bounds(model, PLATFORM),
    "tiles": lambda layer, model: list(space.tiles(model, 1, "fw")),
    "candidates": lambda layer, model: list(space.candidates(model, 1, "fw")),
    "busy_cycles": lambda layer, model: space.busy_cycles(
        model, 1, LayerStep(layer="odd", step="fw", tile=Tile(rows=1, columns=1)), PLATFORM
    ),
    "tile_bytes": lambda layer, model: space.tile_bytes(
        model, 1, LayerStep(layer="odd", step="fw", tile=Tile(rows=1, columns=1))
    ),
    "jobs_of": lambda layer, model: jobs_of(model),
    "layer_of": lambda layer, model: layer_of(model, 1),
    "export": lambda layer, model: export(plan_with(layer), model, PLATFORM),
}


@pytest.mark.parametrize("layer", STRANGERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("use", USES.values(), ids=list(USES))
def test_a_layer_of_a_kind_that_is_not_known_is_refused(use: Callable[[Layer, Model], Any], layer: Layer) -> None:
    with pytest.raises(ModelError) as caught:
        use(layer, network(layer))
    assert f"odd: a layer of type {type(layer).__name__} cannot be " in str(caught.value)


@pytest.mark.parametrize("layer", [Steep("odd"), Wide("odd", 2, 2, kernel=1)], ids=["Steep", "Wide"])
def test_of_a_derived_kind_the_error_names_the_one_that_is_known(layer: Layer) -> None:
    with pytest.raises(ModelError, match=rf": only {type(layer).__mro__[1].__name__} itself is known$"):
        Trainer(network(layer))


@pytest.mark.parametrize("layer", [Swish("odd"), Activation("odd")], ids=["Swish", "Activation"])
def test_no_activation_runs_as_another_on_the_cluster(layer: Activation) -> None:
    for make in (
        lambda: pooling._function(layer, 0, 0, 1, 8),
        lambda: pooling._derivative(layer, 0, 0, 0, 1, 8),
    ):
        with pytest.raises(ModelError, match="odd: a layer of type"):
            make()


KNOWN: list[Layer] = [
    FullyConnected("odd", 24, 24), Conv2D("odd", 2, 2, 1), PointWise("odd", 2, 2), DepthWise("odd", 2, 1),
    AveragePool("odd", 1), MaxPool("odd", 1), GlobalAveragePool("odd"), ReLU("odd"), LeakyReLU("odd"), Sigmoid("odd"),
    Tanh("odd"),
]  # fmt: skip


def test_every_kind_that_is_known_has_a_place_in_every_dispatch() -> None:
    """So that a kind that is added is not forgotten in one of them."""
    assert [type(layer) for layer in KNOWN] == list(KINDS)
    for layer in KNOWN:
        tail = FullyConnected("tail", 2 if isinstance(layer, GlobalAveragePool) else 24, 3, relu=False)
        model = Model("net", (PointWise("head", 1, 2), layer, tail), input_shape=(1, 3, 4))
        trainer = Trainer(model, PLATFORM)
        assert [step.layer for step in trainer.plan.steps].count("odd") >= 2
        assert {phase.layer for phase in trainer.schedule.phases} == {"head", "odd", "tail", "loss"}
        assert trainer.functional_step(np.ones(12), np.ones(3)) > 0
        for step in ("fw", "ig"):
            assert space.tile_bytes(model, 1, next(space.candidates(model, 1, step))) > 0
        assert least_bounds(model, PLATFORM)["FPUs"] > 0
        layer_of(model, 1)


# -- steps, kernels, losses ------------------------------------------------------------------------
@pytest.mark.parametrize("step", ["foo", "ig+wg", "fw+wg", "", "update+wg"])
@pytest.mark.parametrize("layer", KNOWN, ids=lambda layer: type(layer).__name__)
def test_a_step_that_is_not_known_is_refused(layer: Layer, step: str) -> None:
    tail = FullyConnected("tail", 2 if isinstance(layer, GlobalAveragePool) else 24, 3, relu=False)
    model = Model("net", (PointWise("head", 1, 2), layer, tail), input_shape=(1, 3, 4))
    asked = LayerStep(layer="odd", step=step, tile=Tile(rows=1, columns=1))
    for use in (
        lambda: tile_limits(model, 1, step),
        lambda: cut_step(model, 1, asked, PLATFORM, Rule(0.1)),
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
                model, index, LayerStep(layer="odd", step=step, tile=Tile(rows=1, columns=1)), PLATFORM, Rule(0.1)
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
        lambda: compile_schedule(model, plan, PLATFORM, 0.1),
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
