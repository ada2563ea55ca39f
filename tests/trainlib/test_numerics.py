"""Protects the host's arithmetic: the order of every sum, one rounding per fused multiply-add, FP32 accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim import float32
from tests.trainlib.arrays import (
    ALL_KINDS,
    FINITE,
    TINY,
    UNIT,
    Floats,
    assert_same_bits,
    assert_within,
    learning_rates,
    patterns,
    seeds,
    sizes,
    values,
)
from trainlib import numerics

small = st.integers(1, 9)
kinds = st.sampled_from(ALL_KINDS)
finite = st.sampled_from(FINITE)


def bits(array: Floats) -> list[int]:
    return [int(pattern) for pattern in patterns(array).reshape(-1)]


def dot(a: list[int], b: list[int], total: int = 0) -> int:
    """sum of a[k] b[k], k in order, each product and sum rounded once, exactly."""
    for left, right in zip(a, b, strict=True):
        total = float32.fma(left, right, total)
    return total


def from_bits(values: list[int], shape: tuple[int, ...]) -> Floats:
    return np.array(values, np.uint32).view(np.float32).reshape(shape)


# -- bit for bit against exact integers ------------------------------------------------------------
@given(rows=small, columns=small, kind=kinds, seed=seeds, relu=st.booleans())
def test_forward_sums_over_the_inputs_in_order(rows: int, columns: int, kind: str, seed: int, relu: bool) -> None:
    rng = np.random.default_rng(seed)
    w, x = values(rng, (rows, columns), kind), values(rng, columns, kind)
    sums = [dot(bits(row), bits(x)) for row in w]
    expected = [float32.maximum(total, 0) for total in sums] if relu else sums
    assert_same_bits(numerics.fc_forward(w, x, relu), from_bits(expected, (rows,)))


@given(rows=small, columns=small, kind=kinds, seed=seeds)
def test_the_input_gradient_sums_over_the_outputs_in_order(rows: int, columns: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w, d = values(rng, (rows, columns), kind), values(rng, rows, kind)
    expected = [dot(bits(column), bits(d)) for column in w.T]
    assert_same_bits(numerics.fc_input_gradient(w, d), from_bits(expected, (columns,)))


@given(rows=small, columns=small, kind=kinds, seed=seeds, lr=learning_rates)
def test_the_fused_update_scales_the_gradient_then_rounds_once(
    rows: int, columns: int, kind: str, seed: int, lr: float
) -> None:
    rng, minus_lr = np.random.default_rng(seed), -np.float32(lr)
    w, d, x = values(rng, (rows, columns), kind), values(rng, rows, kind), values(rng, columns, kind)
    scaled = [float32.mul(value, bits(np.array([minus_lr]))[0]) for value in bits(d)]
    expected = [
        float32.fma(scaled[o], value, weight)
        for o in range(rows)
        for value, weight in zip(bits(x), bits(w[o]), strict=True)
    ]
    new = w.copy()
    numerics.fc_fused_update(new, d, x, minus_lr)
    assert_same_bits(new, from_bits(expected, w.shape))


@given(rows=small, columns=small, kind=kinds, seed=seeds, lr=learning_rates)
def test_the_stored_update_rounds_the_gradient_first(
    rows: int, columns: int, kind: str, seed: int, lr: float
) -> None:
    rng, minus_lr = np.random.default_rng(seed), -np.float32(lr)
    w, d, x = values(rng, (rows, columns), kind), values(rng, rows, kind), values(rng, columns, kind)
    gradient = [float32.mul(left, right) for left in bits(d) for right in bits(x)]
    dw = numerics.fc_weight_gradient(d, x)
    assert_same_bits(dw, from_bits(gradient, w.shape))
    rate = bits(np.array([minus_lr]))[0]
    expected = [float32.fma(rate, g, weight) for g, weight in zip(gradient, bits(w), strict=True)]
    new = w.copy()
    numerics.sgd_update(new, dw, minus_lr)
    assert_same_bits(new, from_bits(expected, w.shape))


@given(n=st.integers(1, 40), cores=st.integers(1, 16), kind=kinds, seed=seeds)
def test_mse_sums_in_each_cores_share_and_then_in_core_order(n: int, cores: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, target = values(rng, n, kind), values(rng, n, kind)
    difference = [float32.sub(a, b) for a, b in zip(bits(y), bits(target), strict=True)]
    chunk, total = -(-n // cores), 0
    for core in range(cores):
        share = difference[core * chunk : (core + 1) * chunk]
        total = float32.add(total, dot(share, share))
    two_over_n, one_over_n = bits(np.array([2 / n, 1 / n], np.float32))
    loss, gradient = numerics.mse(y, target, cores)
    assert_same_bits(np.array([loss]), from_bits([float32.mul(total, one_over_n)], (1,)))
    assert_same_bits(gradient, from_bits([float32.mul(value, two_over_n) for value in difference], (n,)))


@given(n=st.integers(1, 40), kind=kinds, seed=seeds)
def test_relu_backward_lets_pass_where_the_output_was_positive(n: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dy, y = values(rng, n, kind), values(rng, n, kind)
    expected = [d if float32.less(0, out) else 0 for d, out in zip(bits(dy), bits(y), strict=True)]
    assert_same_bits(numerics.relu_backward(dy, y), from_bits(expected, (n,)))


def test_order_and_single_rounding_are_visible_in_the_bits() -> None:
    big, one = np.float32(2**24), np.float32(1)
    ones = np.ones(3, np.float32)
    assert numerics.fc_forward(np.array([[big, one, -big]]), ones, False)[0] == 0  # the 1 is lost
    assert numerics.fc_forward(np.array([[big, -big, one]]), ones, False)[0] == 1
    tight = np.float32(1 + 2**-12)  # its square needs 25 bits: rounded alone, 2**-24 is lost
    w = np.array([[-(1 + 2**-11)]], np.float32)
    numerics.fc_fused_update(w, np.array([tight]), np.array([tight]), np.float32(1))
    assert w[0, 0] == np.float32(2**-24)
    w[0, 0] = -(1 + 2**-11)
    dw = numerics.fc_weight_gradient(np.array([tight]), np.array([tight]))
    numerics.sgd_update(w, dw, np.float32(1))
    assert w[0, 0] == 0


def test_a_fused_multiply_add_does_not_go_through_float64() -> None:
    """The exact sum lies just below the middle of two floats; float64 rounds it onto the middle, then up."""
    a, b = np.float32(2**-12 * (1 + 2**-23)), np.float32(2**-12 * (1 - 2**-23))
    c = np.float32(1 + 2**-23)
    assert np.float32(float(a) * float(b) + float(c)) == np.float32(1 + 2**-22)
    w = np.array([[c]])
    numerics.sgd_update(w, np.array([[b]]), a)
    assert w[0, 0] == c
    assert numerics.fc_forward(np.array([[c, a]]), np.array([1, b], np.float32), False)[0] == c


# -- against float64 -------------------------------------------------------------------------------
@settings(max_examples=50)
@given(rows=sizes, columns=sizes, kind=finite, seed=seeds, lr=learning_rates)
def test_results_are_those_of_float64_but_for_rounding(
    rows: int, columns: int, kind: str, seed: int, lr: float
) -> None:
    rng = np.random.default_rng(seed)
    w, d, x = values(rng, (rows, columns), kind), values(rng, rows, kind), values(rng, columns, kind)
    w64, d64, x64 = (array.astype(np.float64) for array in (w, d, x))
    product = columns * (1.01 * UNIT * (np.abs(w64) @ np.abs(x64)) + TINY)
    assert_within(numerics.fc_forward(w, x, False), w64 @ x64, product, "forward")
    assert_within(numerics.fc_forward(w, x, True), np.maximum(w64 @ x64, 0), product, "forward and ReLU")
    transposed = rows * (1.01 * UNIT * (np.abs(d64) @ np.abs(w64)) + TINY)
    assert_within(numerics.fc_input_gradient(w, d), d64 @ w64, transposed, "input gradient")
    outer = np.outer(d64, x64)
    assert_within(numerics.fc_weight_gradient(d, x), outer, UNIT * np.abs(outer) + TINY, "weight gradient")
    rate = float(np.float32(lr))
    exact, slack = w64 - rate * outer, 1.01 * UNIT * rate * np.abs(outer) + TINY * (1 + rate + np.abs(x64))
    fused, stored = w.copy(), w.copy()
    numerics.fc_fused_update(fused, d, x, -np.float32(lr))
    numerics.sgd_update(stored, numerics.fc_weight_gradient(d, x), -np.float32(lr))
    for name, found in (("fused update", fused), ("stored update", stored)):
        assert_within(found, exact, 1.01 * UNIT * np.abs(exact) + slack, name)


@pytest.mark.parametrize("cores", [1, 3, 8])
@settings(max_examples=50)
@given(n=st.integers(1, 640), kind=finite, seed=seeds)
def test_mse_is_the_mean_of_squares_and_its_derivative(cores: int, n: int, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, target = values(rng, n, kind), values(rng, n, kind)
    difference = y.astype(np.float64) - target
    loss, gradient = numerics.mse(y, target, cores)
    square = float(np.mean(difference**2))
    assert abs(loss - square) <= (n + 4) * (UNIT * square + TINY)
    exact = 2 * difference / n
    assert_within(gradient, exact, 3.01 * UNIT * np.abs(exact) + 3 * TINY)
