"""Protects steps on the host: what is worked out once hangs on the model alone, and threads change no bit."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim.platform import Platform
from tests.trainlib.arrays import assert_same_bits, seeds
from tests.trainlib.networks import RULES, Case, Rule, networks
from trainlib import functional, models
from trainlib.errors import DataError
from trainlib.layers import FullyConnected
from trainlib.model import Model
from trainlib.optimizers import Batch
from trainlib.trainer import Trainer


@settings(max_examples=40)
@given(
    model=networks(), rule=st.sampled_from(RULES), accumulate=st.integers(1, 2), in_place=st.booleans(), seed=seeds
)
def test_parameters_may_be_edited_and_replaced_between_steps(
    model: Model, rule: Rule, accumulate: int, in_place: bool, seed: int
) -> None:
    case = Case(model, None, Platform.preset("pulp-2022"), seed, momentum=0.9, rule=rule)
    rng, optimizer, batch = np.random.default_rng(seed), case.optimizer(), Batch(accumulate)
    parameters, x, target = case.data()
    for number in range(accumulate):
        functional.step(model, parameters, x, target, optimizer, batch=batch, number=number)
    for slot, array in enumerate(parameters):
        changed = array + rng.standard_normal(array.shape).astype(np.float32)
        if in_place:
            array[:] = changed
        else:
            parameters[slot] = changed
    twins = [array.copy() for array in parameters]
    their_optimizer, their_batch = optimizer.copy(), deepcopy(batch)
    x, target = case.sample(rng)
    found = functional.step(model, parameters, x, target, optimizer, batch=batch, number=2)
    anew = replace(model)  # of which nothing has been worked out yet
    expected = functional.step(anew, twins, x, target, their_optimizer, batch=their_batch, number=2)
    assert_same_bits(np.float32(found), np.float32(expected), "loss")
    for slot, (one, other) in enumerate(zip(parameters, twins, strict=True)):
        assert_same_bits(one, other, f"parameter array {slot}")


@st.composite
def chains(draw: st.DrawFn) -> Model:
    widths = draw(st.lists(st.integers(1, 45), min_size=2, max_size=5))
    trained = draw(st.lists(st.booleans(), min_size=len(widths) - 1, max_size=len(widths) - 1).filter(any))
    layers = tuple(
        FullyConnected(f"fc{number}", *pair, relu=number < len(trained) - 1 and draw(st.booleans()), trainable=free)
        for number, (pair, free) in enumerate(zip(pairwise(widths), trained, strict=True))
    )
    return Model("chain", layers, loss=draw(st.sampled_from(["mse", "l1", "cross-entropy"])))


@settings(max_examples=60)
@given(model=chains(), scale=st.sampled_from([1.0, 1e20]), seed=seeds)
def test_a_chain_in_one_call_is_layer_by_layer(model: Model, scale: float, seed: int) -> None:
    """Shapes that leave parts of vectors over, layers that are frozen in between, weights that overflow."""
    one_by_one, rng = replace(model), np.random.default_rng(seed)
    one_by_one.__dict__["chain"] = None
    parameters = [(scale * rng.standard_normal(shape)).astype(np.float32) for shape in model.parameter_shapes]
    twins = [array.copy() for array in parameters]
    x = rng.standard_normal(model.input_shape).astype(np.float32)
    target = rng.integers(model.outputs) if model.loss == "cross-entropy" else rng.standard_normal(model.outputs)
    assert model.chain is not None
    for one, other in zip(
        functional.forward(model, parameters, x), functional.forward(one_by_one, twins, x), strict=True
    ):
        assert_same_bits(one, other, "outputs")
    found, expected = (
        functional.stepped(of, own, x, target) for of, own in ((model, parameters), (one_by_one, twins))
    )
    assert_same_bits(np.float32(found.loss), np.float32(expected.loss), "loss")
    assert found.finite == expected.finite
    for slot, (one, other) in enumerate(zip(parameters, twins, strict=True)):
        assert_same_bits(one, other, f"parameter array {slot}")


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_many_samples_on_threads_are_those_one_by_one(threads: int) -> None:
    model = models.get("tutorial_cnn")
    parameters, rng = model.initial_parameters(), np.random.default_rng(0)
    xs = rng.standard_normal((7, *model.input_shape)).astype(np.float32)
    expected = np.array([functional.forward(model, parameters, x)[-1] for x in xs])
    assert_same_bits(functional.forward_all(model, parameters, xs, threads), expected)
    assert_same_bits(functional.forward_all(model, parameters, list(xs.reshape(7, -1)), threads), expected)
    assert functional.forward_all(model, parameters, [], threads).shape == (0, *expected.shape[1:])
    trainer = Trainer(model)
    trainer.parameters = parameters
    assert_same_bits(trainer.predict_all(xs, threads), expected)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "two"])
def test_threads_that_are_no_number_of_them_are_refused(threads: Any) -> None:
    model = models.get("tutorial_cnn")
    with pytest.raises(DataError, match=r"tutorial_cnn: threads = .*: must be a whole number, at least 1"):
        functional.forward_all(model, model.initial_parameters(), [], threads)


def test_a_sample_that_does_not_fit_is_refused_on_threads_too() -> None:
    model = models.get("tutorial_cnn")
    samples = [np.zeros(model.input_shape), np.zeros(5)]
    with pytest.raises(DataError, match=r"tutorial_cnn: a sample of shape \[5\]"):
        functional.forward_all(model, model.initial_parameters(), samples, 2)
