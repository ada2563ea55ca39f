"""Protects the rule that plans by default: fast for any network, right about sizes, refusing only what has no plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim.platform import Platform
from tests.trainlib.agreement import check
from tests.trainlib.arrays import assert_same_bits, seeds
from tests.trainlib.networks import Case, networks, plans
from trainlib import models, tiling
from trainlib.errors import L1Error, ModelError
from trainlib.layers import Conv2D, FullyConnected
from trainlib.lowering.schedule import cut_step, place_buffers
from trainlib.model import Model
from trainlib.optimizers import PLAIN, SGD
from trainlib.tiling import check_l2, default_plan
from trainlib.trainer import Trainer

PLATFORM = Platform.preset("pulp-2022", {"l2.size_bytes": 1 << 20})
#: nothing but what is asked of L1 decides here
ROOMY = PLATFORM.replace({"l1.size_bytes": 2 << 20})
rules = st.sampled_from([PLAIN, SGD(0.1, 0.9), SGD(0.1, 0.0, 0.01)])


# -- sizes without tiles -----------------------------------------------------------------------------
@settings(max_examples=25)
@given(data=st.data(), rule=rules)
def test_outlined_work_needs_the_buffers_of_all_of_it(data: st.DataObject, rule: SGD) -> None:
    model = data.draw(networks())
    plan = data.draw(plans(model))
    for step in plan.steps:
        index = next(i for i, layer in enumerate(model.layers) if layer.name == step.layer)
        every, outlined = (
            cut_step(model, index, step, PLATFORM, rule, plan.vectors, outlined) for outlined in (False, True)
        )
        assert outlined.sizes == every.sizes
        assert len(outlined.tasks) <= len(every.tasks)


@settings(max_examples=30)
@given(data=st.data(), rule=rules)
def test_what_does_not_fit_outlined_does_not_fit(data: st.DataObject, rule: SGD) -> None:
    """The outline may be placed in less, never in more: so it refuses nothing that fits."""
    model = data.draw(networks())
    plan = data.draw(plans(model))
    (_, every), (_, outlined) = (place_buffers(model, plan, ROOMY, rule, outlined) for outlined in (False, True))
    assert outlined <= every


# -- sizes before anything is planned ----------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            Model("wide", (Conv2D("conv", 1, 4000, kernel=3, relu=False),), input_shape=(1, 64, 64)),
            "the largest tensor is conv.y, 4,000 x 3,844 numbers, 61,504,000 bytes",
        ),
        (
            Model("tall", (Conv2D("conv", 1, 1, kernel=3, relu=False),), input_shape=(1, 999_999_999, 3)),
            "the largest tensor is sample, 1 x 2,999,999,997 numbers, 11,999,999,988 bytes",
        ),
        (
            Model("huge", (FullyConnected("fc", 999_999_999, 2, relu=False),)),
            "the largest tensor is fc.w, 2 x 999,999,999 numbers, 7,999,999,992 bytes",
        ),
    ],
)
def test_what_cannot_fit_l2_is_refused_before_it_is_planned(
    model: Model, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("planned")

    for way in ("largest", "least"):
        monkeypatch.setattr(tiling._Planner, way, never)
    for refuses in (lambda: Trainer(model), lambda: default_plan(model, PLATFORM), lambda: check_l2(model, PLATFORM)):
        with pytest.raises(ModelError, match=r"L2 is too small: .* are missing") as error:
            refuses()
        assert text in str(error.value)


def test_velocities_that_do_not_fit_are_named_as_what_is_short() -> None:
    """The autoencoder's are a second copy of 1,056,768 bytes of weights."""
    with pytest.raises(ModelError) as error:
        Trainer(models.get("autoencoder"), momentum=0.9)
    assert str(error.value) == (
        "L2 is too small: a training step needs 2,122,832 bytes there (parameters 1,056,768, activations 2,560, "
        "states 1,056,768, activations and gradients at once 6,688; the largest tensor is fc0.w, 128 x 640 numbers, "
        "327,680 bytes), pulp-2022 has 2,097,152 (l2.size_bytes): 25,680 are missing; the optimizer's states are "
        "further copies of the parameters"
    )


# -- a plan where there is one -------------------------------------------------------------------------
def test_the_autoencoder_trains_with_weight_decay_on_the_default_machine() -> None:
    check(Case(models.get("autoencoder"), None, Platform.preset("pulp-2022"), 0, weight_decay=0.01))


def mlp(*widths: int, bias: bool = False) -> Model:
    last = len(widths) - 2
    layers = (FullyConnected(f"fc{i}", widths[i], widths[i + 1], i < last, bias) for i in range(last + 1))
    return Model("mlp", tuple(layers))


def test_layers_wider_than_l1_come_from_l2_in_parts() -> None:
    """15,000 numbers are 60,000 bytes: neither the sample nor the first layer's output fits L1."""
    platform = Platform.preset("pulp-2022", {"l2.size_bytes": 8 << 20})
    model = mlp(15_000, 2, 15_000, 2, bias=True)
    assert default_plan(model, platform).vectors == "streamed"
    check(Case(model, None, platform, 3, momentum=0.9))


@settings(max_examples=12)
@given(data=st.data(), seed=seeds, cores=st.integers(1, 8), momentum=st.sampled_from([0.0, 0.9]))
def test_a_little_l1_is_enough(data: st.DataObject, seed: int, cores: int, momentum: float) -> None:
    """What the smallest tiles need, and nothing more: some plan is found, and right."""
    model, rule = data.draw(networks()), SGD(0.05, momentum)
    platform = PLATFORM.replace({"cluster.cores": cores, "cluster.fpus": cores})
    planner = tiling._Planner(model, platform, rule)
    least = planner.least()
    needed = max(b.end for b in place_buffers(model, least, platform, rule)[0]) - 0x10000000
    tight = platform.replace({"l1.size_bytes": -(-(needed + 1024 * cores) // 64) * 64})
    check(Case(model, None, tight, seed, momentum=momentum))


def test_the_smallest_tiles_are_the_measure_of_what_is_refused() -> None:
    model = mlp(6, 5, 4)
    with pytest.raises(L1Error) as error:
        place_buffers(model, tiling._Planner(model, PLATFORM, PLAIN).least(), _sized(64), PLAIN)
    assert error.value.needed_bytes > error.value.available_bytes == 64


def _sized(available: int) -> Platform:
    return PLATFORM.replace({"cluster.cores": 1, "cluster.fpus": 1, "l1.size_bytes": 1024 + available})


# -- cores ---------------------------------------------------------------------------------------------
def test_a_plan_for_more_cores_than_there_are_is_refused() -> None:
    model, platform = mlp(6, 5, 4), PLATFORM.replace({"cluster.cores": 4, "cluster.fpus": 4})
    plan = replace(default_plan(model, platform), cores=5)
    with pytest.raises(Exception, match="plan: cores = 5: pulp-2022 has 4"):
        Trainer(model, platform, plan)


# -- the rule of momentum and decay within a fused update -----------------------------------------------
@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 0.0), (0.0, 0.01), (0.9, 0.01)])
def test_a_fused_update_leaves_what_one_from_a_stored_gradient_does(momentum: float, decay: float) -> None:
    model, platform = mlp(70, 30, 9), PLATFORM
    fused = default_plan(model, platform, SGD(0.1, momentum, decay))
    assert {step.step for step in fused.steps} == {"fw", "ig+wg+update", "wg+update"}
    parts = {"ig+wg+update": ("ig", "wg", "update"), "wg+update": ("wg", "update"), "fw": ("fw",)}
    tile = {"fw": {}, "ig": {}, "wg": {}, "update": {"unroll": 1}}
    steps = tuple(replace(step, step=part, **tile[part]) for step in fused.steps for part in parts[step.step])
    trainers = [
        Trainer(model, platform, plan, 0.1, momentum=momentum, weight_decay=decay)
        for plan in (fused, replace(fused, steps=steps))
    ]
    rng = np.random.default_rng(0)
    for _ in range(3):
        x, target = rng.standard_normal(70).astype(np.float32), rng.standard_normal(9).astype(np.float32)
        for trainer in trainers:
            trainer.timed_step(x, target)
    for one, other in zip(*(trainer.parameters for trainer in trainers), strict=True):
        assert_same_bits(one, other)
