"""Protects the losses and softmax: the value and its gradient, the order of every reduction over elements and cores,
nothing else written, for every length, label and core count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim.machine import Result
from tests.trainlib.arrays import (
    ALL_KINDS,
    FINITE,
    TINY,
    UNIT,
    Floats,
    assert_same_bits,
    assert_within,
    core_counts,
    seeds,
    values,
)
from tests.trainlib.bench import Bench
from trainlib import numerics
from trainlib.kernels import classification, loss
from trainlib.numerics.classification import cross_entropy, softmax
from trainlib.numerics.functions import exp
from trainlib.numerics.loss import l1

Engine = Literal["jit", "reference"]
lengths = st.one_of(st.integers(1, 40), st.sampled_from([1, 2, 10, 12, 16, 17, 64, 100, 200]))


@dataclass(frozen=True)
class Vectors:
    n: int
    cores: int
    kind: str
    seed: int

    @property
    def shares(self) -> list[slice]:
        chunk = -(-self.n // self.cores)
        return [slice(core * chunk, (core + 1) * chunk) for core in range(self.cores)]


vectors = st.builds(Vectors, lengths, core_counts, st.sampled_from(ALL_KINDS), seeds)
small = st.builds(Vectors, st.integers(1, 20), core_counts, st.sampled_from(ALL_KINDS), seeds)


@numba.njit
def exponentials(x):  # type: ignore[no-untyped-def]
    y = np.empty_like(x)
    for i in range(x.shape[0]):
        y[i] = exp(x[i])
    return y


def in_order(x: Floats) -> np.float32:
    """0 + x[0] + x[1] + ..., each sum rounded."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.cumsum(np.concatenate([[0], x]), dtype=np.float32)[-1]


def largest(x: Floats) -> np.float32:
    """The largest number, +0 above -0; -infinity of none."""
    return max(x, key=lambda number: (number, not np.signbit(number)), default=-np.float32(np.inf))


# -- softmax and cross-entropy ---------------------------------------------------------------------
def normalised(x: Floats, v: Vectors) -> tuple[Floats, Floats]:
    """(softmax, what it leaves in `partial`), as NumPy says it."""
    with np.errstate(all="ignore"):
        e = exponentials(x - x.max())
        sums = np.array([in_order(e[share]) for share in v.shares])
        inverse = np.float32(1) / in_order(sums)
        maxima = np.array([largest(x[share]) for share in v.shares])
        return e * inverse, np.concatenate([sums, [inverse], maxima])


def run_softmax(v: Vectors, in_place: bool, engine: Engine = "jit") -> list[Result]:
    bench = Bench(v.cores, v.seed, engine)
    x = values(bench.rng, v.n, v.kind)
    at_x, at_partial = bench.place(x), bench.space(2 * v.cores + 1)
    at_y = at_x if in_place else bench.space(v.n)
    y, partial = normalised(x, v)
    bench.expect(at_y, y)
    bench.expect(at_partial, partial)
    assert_same_bits(softmax(x, v.cores), y)
    return bench.run(classification.softmax(at_x, at_y, at_partial, v.n, v.cores))


def run_cross_entropy(v: Vectors, engine: Engine = "jit") -> list[Result]:
    bench = Bench(v.cores, v.seed, engine)
    x, label = values(bench.rng, v.n, v.kind), int(bench.rng.integers(v.n))
    at_x, at_gradient, at_partial = bench.place(x), bench.space(v.n), bench.space(2 * v.cores + 1)
    at_label = bench.place(np.array([label], np.int32).view(np.float32))
    y, partial = normalised(x, v)
    value, gradient = cross_entropy(x, label, v.cores)
    with np.errstate(over="ignore"):
        partial[v.cores] = value
        y[label] -= np.float32(1)
    assert_same_bits(gradient, y, "gradient")
    bench.expect(at_gradient, gradient)
    bench.expect(at_partial, partial)
    return bench.run(classification.cross_entropy(at_x, at_label, at_gradient, at_partial, v.n, v.cores))


@given(v=vectors, in_place=st.booleans())
def test_softmax_adds_in_core_order_and_writes_nothing_else(v: Vectors, in_place: bool) -> None:
    run_softmax(v, in_place)


@given(v=vectors)
def test_cross_entropy_gives_the_loss_and_its_gradient_for_any_number_of_cores(v: Vectors) -> None:
    run_cross_entropy(v)


@settings(max_examples=5)
@given(v=small)
def test_both_engines_run_them_alike(v: Vectors) -> None:
    assert run_softmax(v, False) == run_softmax(v, False, "reference")
    assert run_cross_entropy(v) == run_cross_entropy(v, "reference")


@given(v=st.builds(Vectors, lengths, core_counts, st.sampled_from(FINITE), seeds))
def test_they_are_those_of_float64_but_for_rounding(v: Vectors) -> None:
    rng = np.random.default_rng(v.seed)
    x, label = values(rng, v.n, v.kind), int(rng.integers(v.n))
    wide = x.astype(np.float64)
    distance = wide - wide.max()
    e = np.exp(distance)
    exact, sharpness = e / e.sum(), np.minimum(np.abs(distance), 104)
    # Rounding x - max moves exp by its size; then exp, the sum, 1 / sum and the product.
    relative = 1.01 * UNIT * (v.n + 6 + sharpness + sharpness @ exact)
    bound = relative * exact + 3 * TINY
    assert_within(softmax(x, v.cores), exact, bound, "softmax")
    value, gradient = cross_entropy(x, label, v.cores)
    exact_value = np.log(e.sum()) - distance[label]
    terms = v.n + 6 + sharpness @ exact + 2 * np.log(e.sum()) + 2 * abs(wide.max()) + exact_value
    assert_within(np.array([value]), exact_value, 1.01 * UNIT * terms + TINY, "loss")
    exact[label] -= 1
    assert_within(gradient, exact, bound + UNIT * np.abs(exact), "gradient")


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([7], [1]),
        ([-np.inf, 3], [0, 1]),
        ([-0.0, 0.0], [0.5, 0.5]),
        ([3e38, -3e38, 3e38], [0.5, 0, 0.5]),
        ([np.nan, 1, 2], [np.nan] * 3),
        ([np.inf, 1], [np.nan] * 2),
        ([-np.inf, -np.inf], [np.nan] * 2),
    ],
)
def test_special_logits(x: list[float], expected: list[float]) -> None:
    logits, n = np.array(x, np.float32), len(x)
    assert_same_bits(softmax(logits, 2), np.array(expected))
    for cores in (1, 8):
        bench = Bench(cores, 0)
        at_x, at_gradient, at_partial = bench.place(logits), bench.space(n), bench.space(2 * cores + 1)
        at_label = bench.place(np.array([0], np.int32).view(np.float32))
        call = classification.cross_entropy(at_x, at_label, at_gradient, at_partial, n, cores)
        bench.machine.run(call.program, registers=call.registers())
        value, gradient = cross_entropy(logits, 0, cores)
        assert_same_bits(bench.machine.memory.read(at_gradient, n), gradient)
        assert_same_bits(bench.machine.memory.read(at_partial + 4 * cores, 1), np.array([value]))
        assert np.isnan(value) == np.isnan(gradient).any()


# -- mean squared and mean absolute error ----------------------------------------------------------
def run_regression(name: str, v: Vectors, engine: Engine = "jit") -> list[Result]:
    bench = Bench(v.cores, v.seed, engine)
    y, target = values(bench.rng, v.n, v.kind), values(bench.rng, v.n, v.kind)
    equal = bench.rng.random(v.n) < 0.1
    target[equal] = y[equal]
    at_y, at_target, at_gradient = bench.place(y), bench.place(target), bench.space(v.n)
    at_partial = bench.space(v.cores + 1)
    with np.errstate(over="ignore", under="ignore"):
        difference = y - target
        if name == "l1":
            value, gradient = l1(y, target, v.cores)
            assert_same_bits(gradient, np.sign(difference) * np.float32(1 / v.n) + np.float32(0))
            partial = np.array([in_order(np.abs(difference[share])) for share in v.shares])
            assert_same_bits(np.array([value]), np.atleast_1d(in_order(partial) * np.float32(1 / v.n)))
            kernel = loss.l1
        else:
            value, gradient = numerics.mse(y, target, v.cores)
            dots = [numerics.fc_forward(difference[None, share], difference[share], False)[0] for share in v.shares]
            partial, kernel = np.array(dots), loss.mse_gradient
    bench.expect(at_gradient, gradient)
    bench.expect(at_partial, np.append(partial, np.float32(value)))
    return bench.run(kernel(at_y, at_target, at_gradient, at_partial, v.n, v.cores))


@pytest.mark.parametrize("name", ["l1", "mse"])
@given(v=vectors)
def test_regression_losses_give_the_value_and_a_plain_gradient(name: str, v: Vectors) -> None:
    run_regression(name, v)


@pytest.mark.parametrize("name", ["l1", "mse"])
@settings(max_examples=4)
@given(v=small)
def test_both_engines_run_regression_losses_alike(name: str, v: Vectors) -> None:
    assert run_regression(name, v) == run_regression(name, v, "reference")


@given(v=st.builds(Vectors, lengths, core_counts, st.sampled_from(FINITE), seeds))
def test_l1_is_the_mean_distance_but_for_rounding(v: Vectors) -> None:
    rng = np.random.default_rng(v.seed)
    y, target = values(rng, v.n, v.kind), values(rng, v.n, v.kind)
    mean = np.abs(y.astype(np.float64) - target).mean()
    value, _ = l1(y, target, v.cores)
    assert_within(np.array([value]), mean, 1.01 * (v.n + v.cores + 4) * (UNIT * mean + TINY), "loss")
