"""Protects the execution of image layers: any tiles, halos, kernels and buffering leave the functional step's bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim.platform import Platform
from tests.regenerate_golden import case_of, load
from tests.trainlib.agreement import check
from tests.trainlib.arrays import seeds
from tests.trainlib.networks import Case, networks, plans
from trainlib import models
from trainlib.layers import Conv2D, PointWise
from trainlib.model import Model
from trainlib.plan import Tile, residents_of, tile_limits
from trainlib.tiling import default_plan
from trainlib.trainer import Trainer

PLATFORM = Platform.preset("pulp-2022")
L2 = {"l2.size_bytes": 512 << 10}


@settings(max_examples=120)
@given(data=st.data(), cores=st.integers(1, 16), seed=seeds)
def test_any_plan_leaves_the_bits_of_the_functional_step(data: st.DataObject, cores: int, seed: int) -> None:
    model = data.draw(networks())
    platform = Platform.preset("pulp-2022", {"cluster.cores": cores} | L2)
    check(Case(model, data.draw(plans(model, cores)), platform, seed))


@settings(max_examples=40)
@given(model=networks(), kib=st.sampled_from([16, 20, 24, 32]), seed=seeds)
def test_the_default_plan_runs_where_it_fits(model: Model, kib: int, seed: int) -> None:
    check(Case(model, None, Platform.preset("pulp-open", {"l1.size_bytes": kib << 10} | L2), seed))


@settings(max_examples=40)
@given(model=networks(), momentum=st.sampled_from([0.0, 0.9]), decay=st.sampled_from([0.0, 0.01]), seed=seeds)
def test_momentum_and_weight_decay(model: Model, momentum: float, decay: float, seed: int) -> None:
    platform = Platform.preset("pulp-2022", L2)
    check(Case(model, None, platform, seed, momentum=momentum, weight_decay=decay, steps=2))


@pytest.mark.parametrize("name", ["tutorial_cnn", "ds_cnn_paper", "ds_cnn"])
def test_shipped_models(name: str) -> None:
    check(Case(models.get(name), None, PLATFORM, 0))


def test_small_l1_means_more_and_smaller_tiles() -> None:
    """Halos, parts of the channels, single buffering: ds_cnn in an L1 that holds no image."""
    platform = Platform.preset("pulp-2022", {"l1.size_bytes": 24 << 10})
    plan = default_plan(models.get("ds_cnn_paper"), platform)
    assert any(step.tile.lines for step in plan.steps)
    check(Case(models.get("ds_cnn_paper"), plan, platform, 1))


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
    check(Case(model, replace(plan, steps=tuple(steps)), PLATFORM, 1))
