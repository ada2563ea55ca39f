"""Protects products of two values and softmax along rows: kernels to the bit, gradients of both factors, any tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autotuner.space import busy_cycles, footprint, kernels, shapes, tile_bounds, tile_bytes, tiles
from pulpsim import Platform
from pulpsim.machine import Result
from tests.trainlib import textbook
from tests.trainlib.agreement import check
from tests.trainlib.arrays import ALL_KINDS, assert_same_bits, core_counts, seeds, values
from tests.trainlib.bench import Bench
from tests.trainlib.networks import Case, plans
from trainlib import functional, numerics
from trainlib.errors import L1Error, ModelError
from trainlib.kernels import classification, elementwise
from trainlib.layers import GELU, Add, DepthWise, Flatten, FullyConnected, Layer, MatMul, PointWise, Softmax
from trainlib.lowering.hazards import hazards
from trainlib.lowering.schedule import compile_schedule, compile_step
from trainlib.model import Model
from trainlib.optimizers import SGD
from trainlib.plan import backward_choices
from trainlib.tiling import default_plan
from trainlib.timing import cycles_of

flags = st.booleans()
Engine = Literal["traces", "jit", "reference"]


# -- kernels -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Rows:
    rows: int
    n: int
    cores: int
    kind: str
    in_place: bool
    seed: int


rows = st.builds(
    Rows, st.integers(1, 20), st.integers(1, 20), core_counts, st.sampled_from([*ALL_KINDS, "wild"]), flags, seeds
)


def forward(case: Rows, engine: Engine = "traces") -> list[Result]:
    bench = Bench(case.cores, case.seed, engine)
    x = values(bench.rng, (case.rows, case.n), case.kind)
    at_x = bench.place(x)
    at_y = at_x if case.in_place else bench.space(x.size)
    bench.expect(at_y, numerics.classification.softmax_rows(x))
    return bench.run(classification.softmax_rows(at_x, at_y, case.rows, case.n, case.cores))


def gradient(case: Rows, engine: Engine = "traces") -> list[Result]:
    bench = Bench(case.cores, case.seed, engine)
    dy, y = (values(bench.rng, (case.rows, case.n), case.kind) for _ in range(2))
    at_dy, at_y = bench.place(dy), bench.place(y)
    at_dx = at_dy if case.in_place else bench.space(dy.size)
    bench.expect(at_dx, numerics.classification.softmax_rows_gradient(dy, y))
    return bench.run(classification.softmax_rows_gradient(at_dy, at_y, at_dx, case.rows, case.n, case.cores))


def scale(case: Rows, engine: Engine = "traces") -> list[Result]:
    bench, n = Bench(case.cores, case.seed, engine), case.rows * case.n
    x, number = values(bench.rng, n, case.kind), np.float32(bench.rng.standard_normal())
    at_x = bench.place(x)
    at_y = at_x if case.in_place else bench.space(n)
    bench.expect(at_y, numerics.elementwise.scale(x, number))
    return bench.run(elementwise.scale(at_x, at_y, float(number), n, case.cores))


each = pytest.mark.parametrize("kernel", [forward, gradient, scale], ids=lambda kernel: kernel.__name__)


@each
@settings(max_examples=60)
@given(case=rows)
def test_kernels_give_the_bits_of_numerics_and_write_nothing_else(kernel: Callable[..., object], case: Rows) -> None:
    kernel(case)


@each
@settings(max_examples=4)
@given(case=rows)
def test_both_engines_run_them_alike(kernel: Callable[..., list[Result]], case: Rows) -> None:
    assert kernel(case) == kernel(case, "reference")


@each
def test_rows_are_work_for_all_cores(kernel: Callable[..., list[Result]]) -> None:
    case = Rows(64, 40, 8, "plain", False, 0)
    assert kernel(case)[0].cycles < kernel(replace(case, cores=1))[0].cycles / 6


@settings(max_examples=60)
@given(case=rows)
def test_a_row_is_as_the_loss_has_it(case: Rows) -> None:
    """On one core, infinite numbers and NaNs and all."""
    x = values(np.random.default_rng(case.seed), (case.rows, case.n), case.kind)
    for one, row in zip(numerics.classification.softmax_rows(x), x, strict=True):
        assert_same_bits(one, numerics.classification.softmax(row, 1))


# -- values ------------------------------------------------------------------------------------------
@st.composite
def products(draw: st.DrawFn, most: int = 7) -> tuple[MatMul, tuple[int, ...], tuple[int, ...]]:
    """A product, and the shapes of its factors."""
    batch, m, k, n = (draw(st.integers(1, most)) for _ in range(4))
    layer = MatMul("y", draw(flags), draw(flags), draw(st.sampled_from([1.0, 0.3, -2.0])), inputs=("a", "b"))
    a, b = ((m, k), (k, n))
    return layer, (batch, *(a[::-1] if layer.transpose_a else a)), (batch, *(b[::-1] if layer.transpose_b else b))


@settings(max_examples=40)
@given(case=products(5), seed=seeds)
def test_a_product_computes_its_definition_and_its_slopes(case: tuple[MatMul, Any, Any], seed: int) -> None:
    layer, *given_shapes = case
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in given_shapes)
    exact = [array.astype(np.float64) for array in (a, b)]
    y = layer.forward({}, a, b)
    assert y.shape == layer.joined_shape(given_shapes, ("a", "b"))
    np.testing.assert_allclose(y, textbook.forward_layer(layer, [], *exact), atol=1e-5)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    found = layer.input_gradients({}, dy, [a, b], y)
    rules = textbook.multiplied_gradients(layer, dy.astype(np.float64), *exact)
    for place, (array, rule) in enumerate(zip(found, rules, strict=True)):

        def of(value: textbook.Doubles, place: int = place) -> textbook.Doubles:
            return textbook.forward_layer(layer, [], *exact[:place], value, *exact[place + 1 :])

        slopes = textbook.slopes(of, exact[place], dy.astype(np.float64))
        np.testing.assert_allclose(array, slopes, atol=2e-5)
        np.testing.assert_allclose(rule * float(np.float32(layer.scale)), slopes, atol=1e-6)


def test_a_block_learns() -> None:
    """Which of six tokens is marked, at whatever place: each looks at the others."""
    model, rng = block(heads=2, depth=3, tokens=6), np.random.default_rng(0)
    parameters, optimizer = model.initial_parameters(1), SGD(0.05, 0.9)
    losses = []
    for _ in range(300):
        x, label = rng.standard_normal(model.input_shape).astype(np.float32) / 4, int(rng.integers(3))
        x[:, label, int(rng.integers(6))] += 3
        losses.append(functional.step(model, parameters, x, label, optimizer))
    assert np.mean(losses[-50:]) < 0.3 * np.mean(losses[:50])


# -- on the cluster ----------------------------------------------------------------------------------
def block(heads: int, depth: int, tokens: int, **options: Any) -> Model:
    """Attention with a residual, on samples [heads, depth, tokens]."""
    q, k, v = (PointWise(name, heads, heads, relu=False, inputs=("sample",), **options) for name in "qkv")
    layers = (
        q, k, v,
        MatMul("scores", transpose_a=True, scale=depth**-0.5, inputs=("q", "k")),
        Softmax("p"),
        MatMul("out", transpose_b=True, inputs=("v", "p")),
        Add("sum", inputs=("out", "sample")),
        FullyConnected("fc", heads * depth * tokens, 3, relu=False),
    )  # fmt: skip
    return Model("block", layers, input_shape=(heads, depth, tokens), loss="cross-entropy")


@st.composite
def networks(draw: st.DrawFn, most: int = 9) -> Model:
    """A product, at number 2, of two values or of one and itself, and softmax of it at number 3.

    A factor may be the output of a ReLU or of a frozen layer.
    """
    layer, *both = draw(products(most))
    if itself := draw(flags):
        layer, both = replace(layer, transpose_a=not layer.transpose_b, inputs=("b", "b")), both[1:] * 2
    batch, height, width = (max(sizes) for sizes in zip(*both, strict=True))
    frozen = draw(st.sampled_from(["", "", "a", "b"]))
    a, b = (
        DepthWise(
            name, batch, (height - rows + 1, width - columns + 1), relu=draw(flags), trainable=name != frozen,
            inputs=("sample",),
        )
        for name, (_, rows, columns) in zip("ab", both, strict=True)
    )  # fmt: skip
    size = int(np.prod(layer.joined_shape(both, "ab")))
    rest = Softmax("p"), FullyConnected("fc", size, 2, relu=False)
    return Model("net", (a, GELU("b") if itself else b, layer, *rest), input_shape=(batch, height, width))


@settings(max_examples=20)
@given(model=networks(), data=st.data(), cores=core_counts, seed=seeds)
def test_any_tiles_give_the_same_bits(model: Model, data: st.DataObject, cores: int, seed: int) -> None:
    platform = Platform.preset("pulp-2022", {"cluster.cores": cores})
    case = Case(model, data.draw(st.one_of(st.none(), plans(model, cores))), platform, seed)
    check(case.tight() if case.plan else case)


@settings(max_examples=40)
@given(model=networks(16), data=st.data())
def test_no_schedule_goes_below_its_bounds(model: Model, data: st.DataObject) -> None:
    cores = data.draw(st.integers(1, 8))
    fpus = data.draw(st.sampled_from(sorted({1, cores, -(-cores // 2)})))
    platform = Platform.preset("pulp-2022", {"cluster.cores": cores, "cluster.fpus": fpus, "icache.enabled": False})
    index = data.draw(st.sampled_from([2, 3]))
    step = data.draw(st.sampled_from(["fw", *backward_choices(model, index)[0]]))
    tile = data.draw(st.sampled_from(list(tiles(model, index, step))))
    shape = data.draw(st.sampled_from(list(shapes(model, index, tile))))
    chosen = replace(shape, **data.draw(st.sampled_from(kernels(model, index, step))))
    try:
        schedule = compile_step(model, index, chosen, platform)
    except L1Error:
        assume(False)
        raise
    cycles, known = cycles_of(schedule, platform, (0,) * cores), footprint(model, index, chosen, platform)
    assert tile_bytes(model, index, tile) <= known.at_once <= known.bytes
    assert tile_bounds(model, index, tile, platform)[0] <= cycles
    assert known.bound_cycles(busy_cycles(model, index, chosen, platform)) <= cycles


@pytest.mark.parametrize(("batch", "m", "k"), [(8, 64, 32), (1, 256, 64)])
@pytest.mark.parametrize("turned", [False, True])
def test_products_larger_than_l1_have_a_plan(batch: int, m: int, k: int, turned: bool) -> None:
    """[batch, m, k] by [batch, k, m], and their gradients."""
    given_shape = (batch, k, m) if turned else (batch, m, k)
    a, b = (PointWise(name, batch, batch, relu=False, inputs=("sample",)) for name in "ab")
    y = MatMul("y", turned, not turned, 0.1, inputs=("a", "b"))
    model = Model("large", (a, b, y), input_shape=given_shape)
    platform = Platform.preset("pulp-2022", {"l1.size_bytes": 64 << 10, "l2.size_bytes": 8 << 20})
    plan = default_plan(model, platform)
    assert not hazards(compile_schedule(model, plan, platform), platform)
    assert model.macs(2, "fw") == batch * m * m * k and model.macs(2, "ig") == 2 * model.macs(2, "fw")
    assert replace(model, layers=(a, replace(b, trainable=False), y)).macs(2, "ig") == model.macs(2, "fw")


# -- what is refused ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (MatMul("y", inputs=("a", "a")), (2, 3, 4), "net: y multiplies [batch, M, K] by [batch, K, N]: a gives "
         "[2, 3, 4], a gives [2, 3, 4]"),
        (MatMul("y", True, True, inputs=("a", "sample")), (2, 3, 4), "net: y multiplies [batch, M, K] by [batch, K, "
         "N]: a gives [2, 3, 4], transposed, the sample gives [2, 3, 4], transposed"),
        (MatMul("y", True, inputs=("a",)), (2, 3, 4), "net: y reads a: it takes 2 inputs, named in inputs="),
        (MatMul("y", True, inputs=("a", "flat")), (2, 3, 4), "net: y takes [batch, rows, columns], flat gives 24"),
    ],
)  # fmt: skip
def test_factors_that_do_not_meet_are_refused(layer: Layer, shape: tuple[int, ...], message: str) -> None:
    a = PointWise("a", shape[0], shape[0])
    with pytest.raises(ModelError) as error:
        Model("net", (a, Flatten("flat", inputs=("a",)), layer), input_shape=shape)
    assert str(error.value) == message


@pytest.mark.parametrize("given_scale", [float("nan"), float("inf"), 1e39, "1", True, None])
def test_a_scale_that_fp32_does_not_hold_is_refused(given_scale: Any) -> None:
    with pytest.raises(ModelError) as error:
        MatMul("y", scale=given_scale)
    assert str(error.value) == f"y: scale = {given_scale!r}: must be a finite number, one that FP32 holds"


def test_whether_to_transpose_is_asked_for_as_such() -> None:
    with pytest.raises(ModelError, match="y: transpose_b = 1: must be True or False"):
        MatMul("y", transpose_b=1)  # type: ignore[arg-type]
