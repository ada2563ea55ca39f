"""Protects pooling: values, gradients and their bits for every window, stride and core count; nothing else written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
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
    sizes,
    values,
)
from tests.trainlib.bench import Bench
from trainlib.kernels import pooling as kernels
from trainlib.numerics import pooling as numerics

Engine = Literal["jit", "reference"]
#: words of L1 that a case may take
ROOM = 12_000


@dataclass(frozen=True)
class Case:
    shape: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    cores: int
    kind: str
    seed: int

    @property
    def output(self) -> tuple[int, int, int]:
        c, *size = self.shape
        ho, wo = ((n - k) // s + 1 for n, k, s in zip(size, self.kernel, self.stride, strict=True))
        return c, ho, wo

    @property
    def elements(self) -> int:
        return self.kernel[0] * self.kernel[1]


def that_fits(case: Case) -> Case:
    """The case with windows inside the image, and with as many channels as there is room for."""
    c, h, w = case.shape
    c = min(c, max(1, ROOM // (4 * h * w)))
    return replace(case, shape=(c, h, w), kernel=(min(case.kernel[0], h), min(case.kernel[1], w)))


sides = st.one_of(st.integers(1, 7), st.integers(1, 40))
edges = st.one_of(st.integers(1, 3), st.integers(1, 40))
steps = st.one_of(st.integers(1, 3), st.integers(1, 9))
cases = st.builds(
    Case, st.tuples(sizes, sides, sides), st.tuples(edges, edges), st.tuples(steps, steps), core_counts,
    st.sampled_from([*ALL_KINDS, "ties", "nan"]), seeds,
).map(that_fits)  # fmt: skip
PLAIN = Case((3, 6, 6), (2, 2), (2, 2), 8, "plain", 0)
GLOBAL = Case((40, 25, 5), (25, 5), (1, 1), 8, "plain", 0)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Floats:
    """Two more kinds: few different values, with zeros of both signs; and a third of them NaN."""
    if kind == "ties":
        return np.copysign(rng.integers(0, 3, shape), rng.standard_normal(shape)).astype(np.float32)
    if kind == "nan":
        return np.where(rng.random(shape) < 0.3, np.float32(np.nan), values(rng, shape, "zeros")).astype(np.float32)
    return values(rng, shape, kind)


def windows(x: Floats, case: Case) -> Floats:
    """[C, Ho, Wo, elements]."""
    view = np.lib.stride_tricks.sliding_window_view(x, case.kernel, (1, 2))
    return view[:, :: case.stride[0], :: case.stride[1]].reshape(*case.output, -1)


def average_pool(case: Case, engine: Engine = "jit") -> list[Result]:
    bench, rng = Bench(case.cores, case.seed, engine), np.random.default_rng(case.seed)
    x = numbers(rng, case.shape, case.kind)
    expected = numerics.average_pool(x, *case.kernel, *case.stride)
    if case.kind in FINITE:
        parts = windows(x, case).astype(np.float64)
        bound = 1.01 * (case.elements + 2) * UNIT * np.abs(parts).mean(axis=-1) + 2 * TINY
        assert_within(expected, parts.mean(axis=-1), bound)
    at_x, at_y = bench.place(x), bench.space(expected.size)
    bench.expect(at_y, expected)
    return bench.run(kernels.average_pool(at_x, at_y, case.shape, case.kernel, case.stride, case.cores))


def max_pool(case: Case, engine: Engine = "jit") -> list[Result]:
    bench, rng = Bench(case.cores, case.seed, engine), np.random.default_rng(case.seed)
    x = numbers(rng, case.shape, case.kind)
    expected = numerics.max_pool(x, *case.kernel, *case.stride)
    exact = windows(x, case)
    without = np.where(np.isnan(exact), -np.inf, exact).max(axis=-1)
    assert (expected == np.where(np.isnan(exact).all(axis=-1), expected, without)).sum() == np.isfinite(expected).sum()
    assert (np.isnan(expected) == np.isnan(exact).all(axis=-1)).all()
    at_x, at_y = bench.place(x), bench.space(expected.size)
    bench.expect(at_y, expected)
    return bench.run(kernels.max_pool(at_x, at_y, case.shape, case.kernel, case.stride, case.cores))


def scattered(shares: Floats, case: Case) -> Floats:
    """dx in float64: shares [C, Ho, Wo, elements] added to the elements of the windows."""
    dx = np.zeros(case.shape)
    _, ho, wo = case.output
    for i, j in np.ndindex(case.kernel):
        rows, columns = (
            slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip((i, j), case.stride, (ho, wo), strict=True)
        )
        dx[:, rows, columns] += shares[..., i * case.kernel[1] + j]
    return dx


def average_pool_gradient(case: Case, engine: Engine = "jit") -> list[Result]:
    bench, rng = Bench(case.cores, case.seed, engine), np.random.default_rng(case.seed)
    dy = numbers(rng, case.output, case.kind)
    expected = numerics.average_pool_gradient(dy, *case.shape[1:], *case.kernel, *case.stride)
    if case.kind in FINITE:
        shares = np.broadcast_to(dy[..., None].astype(np.float64), (*case.output, case.elements)) / case.elements
        rounding = UNIT * (case.elements + 2)  # an element is in no more windows than a window has elements
        bound = 1.01 * rounding * scattered(np.abs(shares), case) + TINY * case.elements
        assert_within(expected, scattered(shares, case), bound)
    at_dy, at_dx = bench.place(dy), bench.space(expected.size)
    bench.expect(at_dx, expected)
    return bench.run(kernels.average_pool_gradient(at_dy, at_dx, case.shape, case.kernel, case.stride, case.cores))


def max_pool_gradient(case: Case, engine: Engine = "jit") -> list[Result]:
    bench, rng = Bench(case.cores, case.seed, engine), np.random.default_rng(case.seed)
    x, dy = numbers(rng, case.shape, case.kind), values(rng, case.output)
    expected = numerics.max_pool_gradient(dy, x, *case.kernel, *case.stride)
    parts = windows(x, case)
    largest = np.where(np.isnan(parts), -np.inf, parts).max(axis=-1, keepdims=True)
    hits = parts == largest
    shares = np.where(hits & (hits.cumsum(axis=-1) == 1), dy[..., None].astype(np.float64), 0)
    bound = 1.01 * UNIT * case.elements * scattered(np.abs(shares), case)
    assert_within(expected, scattered(shares, case), bound)
    at_dy, at_x, at_dx = bench.place(dy), bench.place(x), bench.space(expected.size)
    bench.expect(at_dx, expected)
    return bench.run(kernels.max_pool_gradient(at_dy, at_x, at_dx, case.shape, case.kernel, case.stride, case.cores))


KERNELS = [average_pool, max_pool, average_pool_gradient, max_pool_gradient]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
@settings(max_examples=90)
@given(case=cases)
@example(case=PLAIN)
@example(case=replace(PLAIN, kind="ties"))
@example(case=replace(PLAIN, kind="nan", kernel=(1, 1), stride=(1, 1)))
@example(case=replace(PLAIN, kernel=(3, 3), stride=(2, 2), kind="ties"))  # windows overlap
@example(case=replace(PLAIN, kernel=(2, 2), stride=(4, 3)))  # elements in no window
@example(case=replace(PLAIN, shape=(1, 40, 3), kernel=(10, 3), stride=(10, 1)))  # windows as wide as the image
@example(case=replace(PLAIN, shape=(2, 3, 700), kernel=(2, 2)))  # further apart than immediates reach
@example(case=GLOBAL)
@example(case=replace(GLOBAL, shape=(5, 25, 5), kernel=(24, 5), stride=(3, 3)))
def test_pooling_gives_the_bits_of_numerics_and_writes_nothing_else(kernel, case: Case) -> None:  # type: ignore[no-untyped-def]
    kernel(case)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
@settings(max_examples=5)
@given(case=cases.filter(lambda case: case.shape[0] * case.shape[1] * case.shape[2] < 600))
def test_both_engines_pool_alike(kernel, case: Case) -> None:  # type: ignore[no-untyped-def]
    assert kernel(case) == kernel(case, "reference")


def test_the_first_of_equal_elements_gets_the_gradient() -> None:
    x = np.array([[[-0.0, 0.0, 3.0, 3.0], [0.0, -1.0, 3.0, np.nan], [np.nan] * 4, [np.nan, np.nan, -np.inf, -np.inf]]])
    dx = np.array([[[5.0, 0, 6.0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 8.0, 0]]], np.float32)
    x, dy = x.astype(np.float32), np.array([[[5.0, 6.0], [7.0, 8.0]]], np.float32)
    assert_same_bits(numerics.max_pool_gradient(dy, x, 2, 2, 2, 2), dx)
    bench = Bench(8, 0)
    at_dy, at_x, at_dx = bench.place(dy), bench.place(x), bench.space(dx.size)
    bench.expect(at_dx, dx)
    bench.run(kernels.max_pool_gradient(at_dy, at_x, at_dx, x.shape, (2, 2), (2, 2), 8))


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
def test_timing_does_not_depend_on_data(kernel) -> None:  # type: ignore[no-untyped-def]
    def cycles(kind: str) -> int:
        return kernel(replace(PLAIN, shape=(3, 9, 9), kernel=(3, 3), kind=kind))[0].cycles

    assert cycles("plain") == cycles("ties") == cycles("nan")


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
@pytest.mark.parametrize("case", [replace(PLAIN, shape=(1, 48, 48)), GLOBAL], ids=["one channel", "global"])
def test_pooling_is_work_for_all_cores(kernel, case: Case) -> None:  # type: ignore[no-untyped-def]
    alone, together = kernel(replace(case, cores=1))[0].cycles, kernel(replace(case, cores=8))[0].cycles
    assert together < alone / 4
