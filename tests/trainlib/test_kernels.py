"""Protects the kernels: right numbers for every shape and core count, the bits of `numerics`, nothing else written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

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
    learning_rates,
    seeds,
    sizes,
    values,
)
from tests.trainlib.bench import Bench
from trainlib import numerics
from trainlib.kernels import Call, elementwise, fully_connected, loss
from trainlib.kernels.optimizer import PLAIN, Rule
from trainlib.kernels.vector import bits
from trainlib.numerics import elementwise as elementwise_twin
from trainlib.numerics.optimizer import sgd

BACKWARD = ("ig", "wg", "wg+update", "ig+wg+update")
kinds = st.sampled_from(ALL_KINDS)
paddings = st.integers(0, 8)
lengths = st.one_of(st.integers(1, 200), st.sampled_from([1, 3, 4, 5, 31, 32, 33, 36, 127, 128, 129]))


# -- fully connected, forward ----------------------------------------------------------------------
@dataclass(frozen=True)
class Layer:
    """A random layer in one or two tiles: columns are cut forward, rows backward."""

    rows: int
    columns: int
    cut: float  # where the second tile begins, as a share; 0: one tile
    padding: int
    cores: int
    kind: str
    lr: float
    seed: int

    def cuts(self, size: int) -> list[tuple[int, int]]:
        middle = int(self.cut * size)
        return [(0, middle), (middle, size)] if middle else [(0, size)]


layers = st.builds(
    Layer, sizes, sizes, st.sampled_from([0.0, 0.3, 0.5, 0.97]), paddings, core_counts, kinds, learning_rates, seeds
)


def forward(
    layer: Layer, unroll: int, relu: bool, engine: Literal["traces", "jit", "reference"] = "traces"
) -> list[Result]:
    bench = Bench(layer.cores, layer.seed, engine)
    w = values(bench.rng, (layer.rows, layer.columns), layer.kind)
    x = values(bench.rng, layer.columns, layer.kind)
    expected = numerics.fc_forward(w, x, relu)
    at_x, at_y = bench.place(x), bench.space(layer.rows)
    calls = [
        fully_connected.forward(
            bench.place_tile(w[:, a:b], layer.padding), at_x + 4 * a, at_y, layer.rows, b - a,
            4 * (b - a + layer.padding), layer.cores, unroll, accumulate=a > 0, relu=relu and b == layer.columns,
        )
        for a, b in layer.cuts(layer.columns)
    ]  # fmt: skip
    bench.expect(at_y, expected)
    results = bench.run(*calls)
    if layer.kind in FINITE:
        exact = w.astype(np.float64) @ x
        bound = layer.columns * (1.01 * UNIT * (np.abs(w).astype(np.float64) @ np.abs(x)) + TINY)
        assert_within(bench.machine.memory.read(at_y, layer.rows), np.maximum(exact, 0) if relu else exact, bound)
    return results


@pytest.mark.parametrize("unroll", fully_connected.ROW_UNROLLS)
@given(layer=layers, relu=st.booleans())
def test_forward_gives_the_product_and_writes_nothing_else(unroll: int, layer: Layer, relu: bool) -> None:
    forward(layer, unroll, relu)


# -- fully connected, backward ---------------------------------------------------------------------
def backward(
    layer: Layer, step: str, unroll: int, engine: Literal["traces", "jit", "reference"] = "traces", rule: Rule = PLAIN
) -> list[Result]:
    """rule: of the update; the velocities of a tile lie behind it."""
    bench = Bench(layer.cores, layer.seed, engine)
    rows, columns, padding = layer.rows, layer.columns, layer.padding
    w, x = values(bench.rng, (rows, columns), layer.kind), values(bench.rng, columns, layer.kind)
    d, minus_lr = values(bench.rng, rows, layer.kind), -np.float32(layer.lr)
    with np.errstate(over="ignore", under="ignore"):
        scaled = d * minus_lr
    parts = step.split("+")
    at_x, at_dx = bench.place(x), bench.space(columns)
    at_pairs = bench.place(np.stack([d, scaled], axis=1))
    new_w, dw = w.copy(), numerics.fc_weight_gradient(d, x)
    v = new_v = values(bench.rng, (rows if rule.momentum else 0, columns), layer.kind)
    if rule.plain:
        numerics.fc_fused_update(new_w, d, x, minus_lr)
    else:
        rule, new_v = replace(rule, lr=layer.lr), v.copy()
        velocities = new_v if rule.momentum else new_w
        sgd(new_w, dw, velocities, minus_lr, rule.momentum, rule.weight_decay, rule.nesterov)
    calls, tiles = [], []
    for a, b in layer.cuts(rows):
        at_w = bench.place_tile(np.concatenate([w[a:b], v[a:b]]), padding)
        at_dw = bench.space((b - a) * (columns + padding)) if step == "wg" else 0
        tiles.append(at_dw or at_w)
        if step == "wg":
            bench.expect_tile(at_dw, dw[a:b], padding)
        elif "update" in parts:
            bench.expect_tile(at_w, np.concatenate([new_w[a:b], new_v[a:b]]), padding)
        calls.append(
            fully_connected.backward(
                step, at_w, at_pairs + 8 * a, at_x, at_dx if "ig" in parts else 0, at_dw, b - a, columns,
                4 * (columns + padding), layer.cores, unroll, a > 0, rule,
            )
        )  # fmt: skip
    if "ig" in parts:
        bench.expect(at_dx, numerics.fc_input_gradient(w, d))
    results = bench.run(*calls)
    if layer.kind not in FINITE or not rule.plain:
        return results
    w64, x64, d64 = (array.astype(np.float64) for array in (w, x, d))
    if "ig" in parts:
        bound = rows * (1.01 * UNIT * (np.abs(d64) @ np.abs(w64)) + TINY)
        assert_within(bench.machine.memory.read(at_dx, columns), d64 @ w64, bound, "dx")
    if "wg" in parts:
        cuts = zip(tiles, layer.cuts(rows), strict=True)
        found = np.concatenate([bench.read_tile(at, b - a, columns, padding) for at, (a, b) in cuts])
        gradient = np.outer(d64, x64)
        exact = w64 - float(np.float32(layer.lr)) * gradient if "update" in parts else gradient
        change = np.abs(exact) + layer.lr * np.abs(gradient) if "update" in parts else np.abs(exact)
        underflow = TINY * (1 + np.abs(x64))  # that of lr * d is multiplied by x
        assert_within(found, exact, 1.01 * UNIT * change + underflow, "w or dw")
    return results


@pytest.mark.parametrize("unroll", fully_connected.COLUMN_UNROLLS)
@pytest.mark.parametrize("step", BACKWARD)
@settings(max_examples=60)
@given(layer=layers)
def test_backward_gives_gradients_and_weights_and_writes_nothing_else(step: str, unroll: int, layer: Layer) -> None:
    backward(layer, step, unroll)


@pytest.mark.parametrize(
    "rule", [Rule(0, 0.9), Rule(0, 0, 0.01), Rule(0, 0.9, 0.01), Rule(0, 0.9, 0, True), Rule(0, 0.9, 0.01, True)]
)
@pytest.mark.parametrize("unroll", fully_connected.COLUMN_UNROLLS)
@pytest.mark.parametrize("step", ["wg+update", "ig+wg+update"])
@settings(max_examples=25)
@given(layer=layers)
def test_a_fused_update_with_momentum_or_decay_is_that_of_a_stored_gradient(
    step: str, unroll: int, rule: Rule, layer: Layer
) -> None:
    backward(layer, step, unroll, rule=rule)


def test_accumulating_is_not_a_matter_of_the_steps_that_only_write_weights() -> None:
    make = fully_connected.backward
    for step in ("wg", "wg+update"):
        one, other = (make(step, 0, 0, 0, 0, 0, 4, 4, 16, 8, 4, accumulate) for accumulate in (False, True))
        assert one.program is other.program


# -- element by element ----------------------------------------------------------------------------
@dataclass(frozen=True)
class Vectors:
    n: int
    cores: int
    kind: str
    lr: float
    seed: int
    in_place: bool


vectors = st.builds(Vectors, lengths, core_counts, kinds, learning_rates, seeds, st.booleans())


def masked(dy: Floats, y: Floats) -> Floats:
    """dy where y > 0, else +0, in NumPy's words."""
    return np.where(y > 0, dy, np.float32(0)).astype(np.float32)


def scaled_pairs(d: Floats, lr: float) -> Floats:
    with np.errstate(over="ignore", under="ignore"):
        return np.stack([d, -(np.float32(lr) * d)], axis=1)


def copy(bench: Bench, v: Vectors) -> Call:
    x = values(bench.rng, v.n, v.kind)
    at_x, at_y = bench.place(x), bench.space(v.n)
    bench.expect(at_y, x)
    return elementwise.copy(at_x, at_y, v.n, v.cores)


def relu_forward(bench: Bench, v: Vectors) -> Call:
    x = values(bench.rng, v.n, v.kind)
    at_x = bench.place(x)
    at_y = at_x if v.in_place else bench.space(v.n)
    bench.expect(at_y, np.where(x > 0, x, np.float32(0)).astype(np.float32))
    return elementwise.relu_forward(at_x, at_y, v.n, v.cores)


def relu_backward(bench: Bench, v: Vectors) -> Call:
    dy, y = values(bench.rng, v.n, v.kind), np.maximum(values(bench.rng, v.n, v.kind), 0)
    at_dy, at_y = bench.place(dy), bench.place(y)
    at_dx = at_dy if v.in_place else bench.space(v.n)
    bench.expect(at_dx, numerics.relu_backward(dy, y))
    assert_same_bits(numerics.relu_backward(dy, y), masked(dy, y))
    return elementwise.relu_backward(at_dy, at_y, at_dx, v.n, v.cores)


def add(bench: Bench, v: Vectors, relu: bool = False, factor: float = 1.0) -> Call:
    one, other = values(bench.rng, v.n, v.kind), values(bench.rng, v.n, v.kind)
    at_one, at_other = bench.place(one), bench.place(other)
    at_y = int(bench.rng.choice([at_one, at_other]) if v.in_place else bench.space(v.n))
    with np.errstate(over="ignore"):
        total = (one + other) * np.float32(factor)
    expected = elementwise_twin.add(one, other)
    if factor != 1:
        expected = elementwise_twin.add_scaled(one, other, np.float32(factor))
    assert_same_bits(expected, total)
    bench.expect(at_y, masked(total, total) if relu else total)
    if factor != 1:
        return elementwise.add_scaled(at_one, at_other, at_y, bits(factor), v.n, v.cores)
    return (elementwise.add_relu if relu else elementwise.add)(at_one, at_other, at_y, v.n, v.cores)


def add_relu(bench: Bench, v: Vectors) -> Call:
    return add(bench, v, relu=True)


def add_scaled(bench: Bench, v: Vectors) -> Call:
    return add(bench, v, factor=0.3)


def relu_backward_pairs(bench: Bench, v: Vectors) -> Call:
    dy, y = values(bench.rng, v.n, v.kind), np.maximum(values(bench.rng, v.n, v.kind), 0)
    at_dy, at_y, at_pairs = bench.place(dy), bench.place(y), bench.space(2 * v.n)
    bench.expect(at_pairs, scaled_pairs(masked(dy, y), v.lr))
    return elementwise.relu_backward_pairs(at_dy, at_y, at_pairs, v.lr, v.n, v.cores)


def linear_pairs(bench: Bench, v: Vectors) -> Call:
    dy = values(bench.rng, v.n, v.kind)
    at_dy, at_pairs = bench.place(dy), bench.space(2 * v.n)
    bench.expect(at_pairs, scaled_pairs(dy, v.lr))
    return elementwise.linear_pairs(at_dy, 0, at_pairs, v.lr, v.n, v.cores)


def sgd_update(bench: Bench, v: Vectors) -> Call:
    w, dw = values(bench.rng, (1, v.n), v.kind), values(bench.rng, (1, v.n), v.kind)
    at_w, at_dw = bench.place(w), bench.place(dw)
    new = w.copy()
    numerics.sgd_update(new, dw, -np.float32(v.lr))
    if v.kind in FINITE:
        exact = w.astype(np.float64) - float(np.float32(v.lr)) * dw.astype(np.float64)
        assert_within(new, exact, 1.01 * UNIT * np.abs(exact) + TINY)
    bench.expect(at_w, new)
    return elementwise.sgd_update(at_w, at_dw, v.lr, v.n, v.cores)


ELEMENTWISE: list[Callable[[Bench, Vectors], Call]] = [
    copy, relu_forward, relu_backward, relu_backward_pairs, linear_pairs, sgd_update, add, add_relu, add_scaled,
]  # fmt: skip


@pytest.mark.parametrize("kernel", ELEMENTWISE, ids=lambda kernel: kernel.__name__)
@given(v=vectors)
def test_elementwise_kernels_treat_every_element_once(kernel: Callable[[Bench, Vectors], Call], v: Vectors) -> None:
    bench = Bench(v.cores, v.seed)
    bench.run(kernel(bench, v))


def test_relu_of_nan_and_of_the_two_zeros_is_plus_zero() -> None:
    x = np.array([np.nan, -0.0, 0.0, -1.0, np.inf, -np.inf, 1e-45, -1e-45], np.float32)
    bench = Bench(8, 0)
    at_x, at_y = bench.place(x), bench.space(x.size)
    bench.expect(at_y, np.array([0, 0, 0, 0, np.inf, 0, 1e-45, 0], np.float32))
    bench.run(elementwise.relu_forward(at_x, at_y, x.size, 8))


# -- loss ------------------------------------------------------------------------------------------
def mse(v: Vectors, engine: Literal["traces", "jit", "reference"] = "traces") -> list[Result]:
    bench = Bench(v.cores, v.seed, engine)
    y, target = values(bench.rng, v.n, v.kind), values(bench.rng, v.n, v.kind)
    at_y, at_target, at_pairs = bench.place(y), bench.place(target), bench.space(2 * v.n)
    at_partial = bench.space(v.cores + 1)
    value, gradient = numerics.mse(y, target, v.cores)
    chunk = -(-v.n // v.cores)
    bench.expect(at_pairs, scaled_pairs(gradient, v.lr))
    bench.expect(at_partial, partial_sums(y, target, chunk, v.cores))
    bench.expect(at_partial + 4 * v.cores, np.atleast_1d(value))
    results = bench.run(loss.mse(at_y, at_target, at_pairs, at_partial, v.n, v.lr, v.cores))
    if v.kind in FINITE:
        difference = y.astype(np.float64) - target
        square = float(np.sum(difference**2) / v.n)
        terms = chunk + v.cores + 4
        assert_within(np.atleast_1d(value), np.array(square), 1.01 * terms * (UNIT * square + TINY), "loss")
        exact = 2 * difference / v.n
        assert_within(gradient, exact, 3.01 * UNIT * np.abs(exact) + 3 * TINY, "gradient")
    return results


def partial_sums(y: Floats, target: Floats, chunk: int, cores: int) -> Floats:
    """Each core's sum of squares, by the forward kernel's twin: a dot product of the differences."""
    with np.errstate(over="ignore", invalid="ignore"):
        difference = y - target
    sums = np.zeros(cores, np.float32)
    for core in range(cores):
        share = difference[core * chunk : (core + 1) * chunk]
        if len(share):
            sums[core] = numerics.fc_forward(share[None], share, False)[0]
    return sums


@given(v=vectors)
def test_mse_gives_the_loss_and_its_gradient_for_any_number_of_cores(v: Vectors) -> None:
    mse(v)


# -- both engines ----------------------------------------------------------------------------------
small = st.integers(1, 9)


@settings(max_examples=12)
@given(
    layer=st.builds(
        Layer, small, small, st.sampled_from([0.0, 0.5]), paddings, core_counts, kinds, learning_rates, seeds
    ),
    step=st.sampled_from(BACKWARD),
    unrolls=st.tuples(st.sampled_from(fully_connected.ROW_UNROLLS), st.sampled_from(fully_connected.COLUMN_UNROLLS)),
)
def test_both_engines_run_layer_kernels_alike(layer: Layer, step: str, unrolls: tuple[int, int]) -> None:
    assert forward(layer, unrolls[0], True) == forward(layer, unrolls[0], True, "reference")
    assert backward(layer, step, unrolls[1]) == backward(layer, step, unrolls[1], "reference")


@settings(max_examples=8)
@given(v=st.builds(Vectors, st.integers(1, 40), core_counts, kinds, learning_rates, seeds, st.booleans()))
def test_both_engines_run_vector_kernels_alike(v: Vectors) -> None:
    assert mse(v) == mse(v, "reference")
    for kernel in ELEMENTWISE:
        jit, reference = Bench(v.cores, v.seed), Bench(v.cores, v.seed, "reference")
        assert jit.run(kernel(jit, v)) == reference.run(kernel(reference, v))
