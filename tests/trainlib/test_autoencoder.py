"""Protects the autoencoder's figures: its cycles to the cycle, its bits, its gradients, and that it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pulpsim.platform import Platform
from tests.regenerate_golden import CASES, COMMAND, case_of, load, measure
from tests.trainlib.arrays import assert_same_bits
from trainlib import models
from trainlib.data import load_features
from trainlib.trainer import Trainer

PUBLISHED_CYCLES = 405_000  # 0.9 ms at 450 MHz, there with all data in L1 already

Doubles = NDArray[np.float64]


def with_random_weights(seed: int = 0, platform: str = "pulp-2022") -> Trainer:
    """Random weights in the last layer too, where the shipped initialisation has zeros."""
    trainer, rng = Trainer(models.get("autoencoder"), Platform.preset(platform)), np.random.default_rng(seed)
    trainer.parameters = [
        (rng.standard_normal(w.shape) * np.sqrt(2 / w.shape[1])).astype(np.float32)
        for w in trainer.parameters
    ]
    return trainer


def samples(count: int) -> NDArray[np.float32]:
    """Standardised training vectors in the order of the command line."""
    features = load_features()
    order = np.random.default_rng(0).permutation(len(features.train))[:count]
    return features.standardise(features.train)[order]


# -- sizes and cycles ------------------------------------------------------------------------------
def test_the_network_has_the_published_size() -> None:
    model = models.get("autoencoder")
    assert (model.weights, model.step_macs, model.inputs, model.outputs) == (264_192, 710_656, 640, 640)
    assert [layer.out_features for layer in model.layers] == [128, 128, 128, 128, 8, 128, 128, 128, 128, 640]


@pytest.mark.parametrize("golden", load(), ids=lambda case: "-".join(case_of(case)))
def test_cycles_are_the_golden_ones(golden: dict[str, Any]) -> None:
    found = measure(*case_of(golden))
    assert found == golden, f"if the change is meant: {COMMAND}"
    assert sum(found["phases"].values()) == found["cycles"]


def test_the_golden_file_holds_what_its_command_writes() -> None:
    assert [case_of(case) for case in load()] == list(CASES)


@pytest.mark.parametrize(("plan", "limit"), [("by rule", PUBLISHED_CYCLES), ("tuned", 360_000)])
def test_a_step_takes_no_longer_than_the_published_one(plan: str, limit: int) -> None:
    assert measure("autoencoder", "pulp-2022", plan)["cycles"] <= limit


# -- bits ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("platform", ["pulp-2022", "pulp-open"])
def test_a_timed_step_after_functional_ones_leaves_the_same_bits(platform: str) -> None:
    timed, functional = with_random_weights(1, platform), with_random_weights(1, platform)
    data = samples(6)
    for x in data[:4]:
        assert timed.functional_step(x) == functional.functional_step(x)
    assert timed.timed_step(data[4]).loss == functional.functional_step(data[4])
    assert timed.functional_step(data[5]) == functional.functional_step(data[5])
    for i, (one, other) in enumerate(zip(timed.parameters, functional.parameters, strict=True)):
        assert_same_bits(one, other, f"w{i}")


def test_cycles_do_not_depend_on_the_data() -> None:
    assert with_random_weights(2).timed_step(samples(1)[0]).cycles == load()[0]["cycles"]


# -- gradients -------------------------------------------------------------------------------------
def loss_and_gradients(weights: list[Doubles], x: Doubles) -> tuple[float, list[Doubles]]:
    """A step of plain textbook back-propagation in float64."""
    outputs, last = [x], len(weights) - 1
    for i, w in enumerate(weights):
        y = w @ outputs[-1]
        outputs.append(np.maximum(y, 0) if i < last else y)
    error = outputs[-1] - x
    d, gradients = 2 * error / len(x), []
    for i in reversed(range(len(weights))):
        gradients.append(np.outer(d, outputs[i]))
        d = (weights[i].T @ d) * (outputs[i] > 0)
    return float(np.mean(error**2)), gradients[::-1]


def test_a_step_is_gradient_descent_as_float64_computes_it() -> None:
    trainer, x = with_random_weights(3), samples(1)[0]
    before = [w.astype(np.float64) for w in trainer.parameters]
    expected, gradients = loss_and_gradients(before, x.astype(np.float64))
    loss = trainer.functional_step(x)
    assert abs(loss - expected) < 1e-5 * expected
    for old, gradient, new in zip(before, gradients, trainer.parameters, strict=True):
        exact = old - trainer.lr * gradient
        assert np.abs(gradient).max() > 0
        bound = 2**-23 * np.abs(exact) + 1e-5 * trainer.lr * np.abs(gradient).max()
        assert (np.abs(new - exact) <= bound).all()


def test_the_textbook_gradient_is_the_slope_of_the_loss() -> None:
    rng, x = np.random.default_rng(4), samples(1)[0].astype(np.float64)
    weights = [w.astype(np.float64) for w in with_random_weights(4).parameters]
    _, gradients = loss_and_gradients(weights, x)
    for layer in range(len(weights)):
        direction, small = rng.standard_normal(weights[layer].shape), 1e-7
        ends = []
        for sign in (1, -1):
            moved = list(weights)
            moved[layer] = weights[layer] + sign * small * direction
            ends.append(loss_and_gradients(moved, x)[0])
        slope = (ends[0] - ends[1]) / (2 * small)
        assert slope == pytest.approx(float(np.sum(gradients[layer] * direction)), rel=1e-4)


# -- learning --------------------------------------------------------------------------------------
def test_two_hundred_steps_take_thirty_percent_off_the_held_out_loss() -> None:
    trainer, features = Trainer(models.get("autoencoder")), load_features()
    unseen = features.standardise(features.held_out)

    def held_out() -> float:
        return float(np.mean([trainer.loss(x) for x in unseen]))

    before = held_out()
    for x in samples(200):
        trainer.functional_step(x)
    assert held_out() <= 0.7 * before


def test_the_last_layer_starts_at_zero_and_the_others_by_he() -> None:
    model = models.get("autoencoder")
    parameters = model.initial_parameters()
    assert not parameters[-1].any() and all(w.dtype == np.float32 for w in parameters)
    for layer, w in zip(model.layers[:-1], parameters, strict=False):
        assert w.shape == (layer.out_features, layer.in_features)
        assert float(w.std()) == pytest.approx(np.sqrt(2 / layer.in_features), rel=0.1)
    for one, other in zip(parameters, model.initial_parameters(0), strict=True):
        assert_same_bits(one, other)
    assert not np.array_equal(parameters[0], model.initial_parameters(1)[0])
