"""Protects the activations and their gradients: right numbers for every length and core count, the bits of
`numerics`, nothing else written; and tiles of any numbers of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim.machine import Result
from pulpsim.platform import Platform
from tests.trainlib.agreement import check
from tests.trainlib.arrays import (
    ALL_KINDS,
    TINY,
    UNIT,
    Floats,
    assert_same_bits,
    assert_within,
    core_counts,
    seeds,
    ulps,
    values,
)
from tests.trainlib.bench import Bench
from tests.trainlib.networks import Case
from trainlib import layers
from trainlib.kernels import Call, activations
from trainlib.lowering.schedule import cut_step
from trainlib.model import Model
from trainlib.numerics import activations as twin
from trainlib.plan import LayerStep, Plan, Tile

lengths = st.one_of(st.integers(1, 200), st.sampled_from([1, 2, 3, 15, 16, 17, 31, 32, 33]))


@dataclass(frozen=True)
class Vectors:
    n: int
    cores: int
    kind: str
    slope: float
    in_place: bool
    seed: int


vectors = st.builds(
    Vectors, lengths, core_counts, st.sampled_from(ALL_KINDS), st.sampled_from([0.01, 0.1, 1e-30, 1.0]), st.booleans(),
    seeds,
)  # fmt: skip


@dataclass(frozen=True)
class Activation:
    """A pair of kernels and their twins."""

    forward: Callable[[int, int, Vectors], Call]
    backward: Callable[[int, int, int, Vectors], Call]
    forward_twin: Callable[[Floats, Vectors], Floats]
    backward_twin: Callable[[Floats, Floats, Vectors], Floats]
    of_input: bool = False  # backward reads the layer's input instead of its output


ACTIVATIONS = {
    "leaky_relu": Activation(
        lambda x, y, v: activations.leaky_relu_forward(x, y, v.slope, v.n, v.cores),
        lambda dy, y, dx, v: activations.leaky_relu_backward(dy, y, dx, v.slope, v.n, v.cores),
        lambda x, v: twin.leaky_relu(x, np.float32(v.slope)),
        lambda dy, y, v: twin.leaky_relu_backward(dy, y, np.float32(v.slope)),
    ),
    "sigmoid": Activation(
        lambda x, y, v: activations.sigmoid_forward(x, y, v.n, v.cores),
        lambda dy, y, dx, v: activations.sigmoid_backward(dy, y, dx, v.n, v.cores),
        lambda x, v: twin.sigmoid(x),
        lambda dy, y, v: twin.sigmoid_backward(dy, y),
    ),
    "tanh": Activation(
        lambda x, y, v: activations.tanh_forward(x, y, v.n, v.cores),
        lambda dy, y, dx, v: activations.tanh_backward(dy, y, dx, v.n, v.cores),
        lambda x, v: twin.tanh(x),
        lambda dy, y, v: twin.tanh_backward(dy, y),
    ),
    "relu6": Activation(
        lambda x, y, v: activations.relu6_forward(x, y, v.n, v.cores),
        lambda dy, y, dx, v: activations.relu6_backward(dy, y, dx, v.n, v.cores),
        lambda x, v: twin.relu6(x),
        lambda dy, y, v: twin.relu6_backward(dy, y),
    ),
    "hard_swish": Activation(
        lambda x, y, v: activations.hard_swish_forward(x, y, v.n, v.cores),
        lambda dy, x, dx, v: activations.hard_swish_backward(dy, x, dx, v.n, v.cores),
        lambda x, v: twin.hard_swish(x),
        lambda dy, x, v: twin.hard_swish_backward(dy, x),
        of_input=True,
    ),
    "gelu": Activation(
        lambda x, y, v: activations.gelu_forward(x, y, v.n, v.cores),
        lambda dy, x, dx, v: activations.gelu_backward(dy, x, dx, v.n, v.cores),
        lambda x, v: twin.gelu(x),
        lambda dy, x, v: twin.gelu_backward(dy, x),
        of_input=True,
    ),
    "gelu_erf": Activation(
        lambda x, y, v: activations.gelu_erf_forward(x, y, v.n, v.cores),
        lambda dy, x, dx, v: activations.gelu_erf_backward(dy, x, dx, v.n, v.cores),
        lambda x, v: twin.gelu_erf(x),
        lambda dy, x, v: twin.gelu_erf_backward(dy, x),
        of_input=True,
    ),
}
names = pytest.mark.parametrize("name", ACTIVATIONS)


def forward(name: str, v: Vectors, engine: Literal["traces", "jit", "reference"] = "traces") -> list[Result]:
    bench, activation = Bench(v.cores, v.seed, engine), ACTIVATIONS[name]
    x = values(bench.rng, v.n, v.kind)
    at_x = bench.place(x)
    at_y = at_x if v.in_place else bench.space(v.n)
    bench.expect(at_y, activation.forward_twin(x, v))
    return bench.run(activation.forward(at_x, at_y, v))


def backward(name: str, v: Vectors, engine: Literal["traces", "jit", "reference"] = "traces") -> list[Result]:
    bench, activation = Bench(v.cores, v.seed, engine), ACTIVATIONS[name]
    dy = values(bench.rng, v.n, v.kind)
    with np.errstate(over="ignore"):
        x = values(bench.rng, v.n, v.kind) * np.float32(4)  # not all between -3 and 3
    y = x if activation.of_input else activation.forward_twin(x, v)
    at_dy, at_y = bench.place(dy), bench.place(y)
    at_dx = at_dy if v.in_place else bench.space(v.n)
    bench.expect(at_dx, activation.backward_twin(dy, y, v))
    return bench.run(activation.backward(at_dy, at_y, at_dx, v))


@names
@settings(max_examples=60)
@given(v=vectors)
def test_kernels_give_the_bits_of_numerics_and_write_nothing_else(name: str, v: Vectors) -> None:
    forward(name, v)
    backward(name, v)


@names
@settings(max_examples=4)
@given(v=st.builds(Vectors, st.integers(1, 24), core_counts, st.just("wide"), st.just(0.1), st.booleans(), seeds))
def test_both_engines_run_them_alike(name: str, v: Vectors) -> None:
    assert forward(name, v) == forward(name, v, "reference")
    assert backward(name, v) == backward(name, v, "reference")


# -- against float64 -------------------------------------------------------------------------------
def every_size(rng: np.random.Generator, n: int) -> Floats:
    """Numbers of each sign and size, and more of those whose activation is neither 0 nor 1."""
    sizes = rng.standard_normal(n) * 10.0 ** rng.uniform(-45, 38, n)
    near = [rng.uniform(-20, 20, n), rng.uniform(-1, 1, n), rng.uniform(-104, -80, n)]
    return np.clip(np.concatenate([sizes, *near]), -3e38, 3e38).astype(np.float32)


def test_sigmoid_and_tanh_are_as_exact_as_they_say() -> None:
    x = every_size(np.random.default_rng(0), 300_000)
    wide = x.astype(np.float64)
    e = np.exp(-np.abs(wide))
    sigmoid = np.where(wide >= 0, 1, e) / (1 + e)
    assert_within(twin.sigmoid(x), sigmoid, 2.5 * ulps(sigmoid), "sigmoid")
    assert_within(twin.tanh(x), np.tanh(wide), 2.8 * ulps(np.tanh(wide)), "tanh")
    assert (np.abs(twin.tanh(x)) <= 1).all()
    assert ((twin.sigmoid(x) >= 0) & (twin.sigmoid(x) <= 1)).all()
    assert_same_bits(twin.tanh(-x), -twin.tanh(x), "tanh of -x")


def test_gradients_are_those_of_the_functions() -> None:
    rng = np.random.default_rng(0)
    dy, x = rng.standard_normal(100_000).astype(np.float32), every_size(rng, 25_000)
    y = twin.sigmoid(x)
    exact = dy.astype(np.float64) * y * (1 - y.astype(np.float64))
    assert_within(twin.sigmoid_backward(dy, y), exact, 3.01 * UNIT * np.abs(exact) + 3 * TINY, "sigmoid")
    y = twin.tanh(x)
    exact = dy * (1 - y.astype(np.float64) ** 2)
    assert_within(twin.tanh_backward(dy, y), exact, 2.01 * UNIT * np.abs(exact) + TINY, "tanh")


def gelu_in_float64(x: Floats) -> tuple[np.ndarray, np.ndarray]:
    """The tanh form and its derivative, as PyTorch writes them, but for 1 + tanh(u) in a form that keeps its digits."""
    wide = x.astype(np.float64)
    root, cubic = np.sqrt(2 / np.pi), 0.044715
    u = root * (wide + cubic * wide**3)
    with np.errstate(over="ignore"):
        half = 1 / (1 + np.exp(-2 * u))
        bell = 1 / np.cosh(u) ** 2
    return wide * half, half + wide / 2 * bell * root * (1 + 3 * cubic * wide**2)


def test_gelu_is_as_exact_as_it_says_and_close_to_the_form_with_erf() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-12, 12, 300_000), 10 ** rng.uniform(-45, 2, 100_000)]).astype(np.float32)
    exact, slope = gelu_in_float64(x)
    assert_within(twin.gelu(x), exact, np.where(x >= 0, 2.5 * ulps(exact), 2.0**-24), "gelu")
    assert_within(twin.gelu_backward(np.ones_like(x), x), slope, 2.0**-22, "its slope")
    share = np.array([math.erfc(-number / math.sqrt(2)) / 2 for number in x.tolist()])
    wide, exact = x.astype(np.float64), x * share
    assert_within(twin.gelu(x), exact, 4.8e-4, "with tanh beside erf")
    assert_within(twin.gelu_erf(x), exact, np.where(x >= 0, 2.5 * ulps(exact), 2.0**-23), "with erf")
    slope = share + wide * np.exp(-(wide**2) / 2) / np.sqrt(2 * np.pi)
    assert_within(twin.gelu_erf_backward(np.ones_like(x), x), slope, 1.5e-7, "its slope")


def test_hard_swish_is_as_exact_as_it_says() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-4, 4, 300_000), rng.uniform(-3.001, -2.999, 50_000), every_size(rng, 50_000)])
    x = np.concatenate([x, [-3, 3, np.nextafter(np.float32(3), 0), -np.nextafter(np.float32(3), 0)]]).astype(np.float32)
    wide = x.astype(np.float64)
    exact = wide * (np.clip(wide + 3, 0, 6) / 6)
    assert_within(twin.hard_swish(x), exact, 2.5 * ulps(exact), "hard swish")
    assert_same_bits(twin.hard_swish(x)[x >= 3], x[x >= 3])
    slope = np.where(np.abs(wide) < 3, wide / 3 + 0.5, wide > 0)
    assert_within(twin.hard_swish_backward(np.ones_like(x), x), slope, 2.0**-23, "its slope")


@given(kind=st.sampled_from((*ALL_KINDS, "wild")), seed=seeds)
def test_relu6_is_relu_cut_off_and_lets_gradients_pass_in_between(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, dy = values(rng, (5, 20), kind), values(rng, (5, 20), kind)
    assert_same_bits(twin.relu6(x), np.where(x > 0, np.minimum(x, 6), 0).astype(np.float32))
    assert_same_bits(twin.relu6_backward(dy, x), np.where((x > 0) & (x < 6), dy, 0).astype(np.float32))


@given(kind=st.sampled_from(ALL_KINDS), seed=seeds, slope=st.sampled_from([0.01, 0.3, 1.0]))
def test_leaky_relu_keeps_what_is_positive_and_scales_the_rest(kind: str, seed: int, slope: float) -> None:
    rng, factor = np.random.default_rng(seed), np.float32(slope)
    x, dy = values(rng, (5, 20), kind), values(rng, (5, 20), kind)
    with np.errstate(under="ignore"):
        assert_same_bits(twin.leaky_relu(x, factor), np.where(x > 0, x, x * factor))
        assert_same_bits(twin.leaky_relu_backward(dy, x, factor), np.where(x > 0, dy, dy * factor))


#: number, leaky ReLU with slope 1/2, sigmoid, tanh, ReLU6, HardSwish, GELU with tanh and with erf
SPECIAL = np.array(
    [
        (0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0),
        (-0.0, -0.0, 0.5, -0.0, 0.0, -0.0, -0.0, -0.0),
        (np.inf, np.inf, 1, 1, 6, np.inf, np.inf, np.inf),
        (-np.inf, -np.inf, 0, -1, 0, np.nan, np.nan, np.nan),
        (np.nan, np.nan, np.nan, np.nan, 0, np.nan, np.nan, np.nan),
        (1e-45, 1e-45, 0.5, 1e-45, 1e-45, 0, 0, 0),
        (-3e-45, -1e-45, 0.5, -3e-45, 0, -1e-45, -1e-45, -1e-45),
        (3e38, 3e38, 1, 1, 6, 3e38, 3e38, 3e38),
        (-3e38, -1.5e38, 0, -1, 0, -0.0, -0.0, -0.0),
    ],
    np.float32,
)


def test_special_numbers() -> None:
    x, *expected = SPECIAL.T.copy()
    v = Vectors(x.size, 8, "", 0.5, False, 0)
    for activation, y in zip(ACTIVATIONS.values(), expected, strict=True):
        assert_same_bits(activation.forward_twin(x, v), y)
        bench = Bench(8, 0)
        at_x, at_y = bench.place(x), bench.space(x.size)
        bench.expect(at_y, y)
        bench.run(activation.forward(at_x, at_y, v))


# -- in tiles --------------------------------------------------------------------------------------
PLATFORM = Platform.preset("pulp-2022")


def above(layer: layers.Activation, shape: tuple[int, int, int], relu: bool = True) -> Model:
    """An activation that needs its input gradient, above a layer with a ReLU or without."""
    return Model("one", (layers.PointWise("below", 1, shape[0], relu=relu), layer), input_shape=(1, *shape[1:]))


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)), data=st.data(),
    name=st.sampled_from(["fw", "ig"]),
)  # fmt: skip
def test_a_tile_has_no_more_numbers_than_it_says_and_whole_rows_where_they_fit(
    shape: tuple[int, int, int], data: st.DataObject, name: str
) -> None:
    channels, row = shape[0], shape[1] * shape[2]
    columns = data.draw(st.integers(1, channels * row))
    step = LayerStep(layer="tanh", step=name, tile=Tile(rows=1, columns=columns))
    work = cut_step(above(layers.Tanh("tanh"), shape), 1, step, PLATFORM)
    seen = np.zeros((channels, row), int)
    for store in (store for task in work.tasks for store in task.stores):
        part = seen[slice(*store.rows), slice(*store.columns)]
        part += 1
        assert part.size <= columns
        assert columns < row or part.shape[1] == row
    assert (seen == 1).all()
    together = columns // row
    assert len(work.tasks) == (-(-channels // together) if together else channels * -(-row // columns))


@pytest.mark.parametrize("columns", [27_648, 9_216, 2_500, 333])
@pytest.mark.parametrize(
    "layer", [layers.ReLU("it"), layers.LeakyReLU("it"), layers.Sigmoid("it"), layers.Tanh("it")], ids=type
)
def test_planes_larger_than_l1(layer: layers.Activation, columns: int) -> None:
    """Three planes of 96 x 96, 110,592 bytes, on the default machine; whole planes where they fit a larger one."""
    size = {27_648: 512, 9_216: 256}.get(columns, 64)
    model, tile = above(layer, (3, 96, 96)), Tile(rows=1, columns=columns)
    product = {"tile": Tile(rows=3, columns=1, lines=4), "kernel": "mm_unroll_2x2"}
    steps = (
        LayerStep(layer="below", step="fw", **product),  # type: ignore[arg-type]
        LayerStep(layer="it", step="fw", tile=tile),
        LayerStep(layer="it", step="ig", tile=tile),
        LayerStep(layer="below", step="wg+update", **product),  # type: ignore[arg-type]
    )
    plan = Plan(model="one", platform="pulp-2022", steps=steps, loss_tile=1_500)
    check(Case(model, plan, PLATFORM.replace({"l1.size_bytes": size << 10}), 0))
