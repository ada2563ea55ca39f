"""Protects instance and layer normalisation: values, gradients and their bits for every shape and core count, rows in
tiles or shared by all cores; nothing else written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pulpsim.machine import Result
from tests.trainlib import near_normalisation as near
from tests.trainlib.arrays import ALL_KINDS, FINITE, Floats, core_counts, seeds, values
from tests.trainlib.bench import Bench
from tests.trainlib.near import assert_near, double
from trainlib.kernels import Call
from trainlib.kernels import normalisation as kernels
from trainlib.kernels import pixel_normalisation as pixel_kernels
from trainlib.numerics import fc_forward
from trainlib.numerics import normalisation as numerics

Engine = Literal["traces", "jit", "reference"]
#: words of L1 that a case may take
ROOM = 12_000


@dataclass(frozen=True)
class Case:
    """layer: one row, with gamma and beta for each number."""

    layer: bool
    rows: int
    n: int
    shared: bool
    cuts: tuple[int, ...]  # where tiles of rows begin
    eps: float
    offset: float
    in_place: bool
    cores: int
    kind: str
    seed: int

    @property
    def shares(self) -> int:
        return self.cores if self.shared or self.layer else 1

    @property
    def parameters(self) -> tuple[int, int]:
        """The shape of gamma and beta that NumPy takes along rows."""
        return (1, self.n) if self.layer else (self.rows, 1)

    @property
    def tiles(self) -> list[tuple[int, int]]:
        return list(pairwise([0, *sorted({cut for cut in self.cuts if 0 < cut < self.rows}), self.rows]))

    def x(self, rng: np.random.Generator) -> Floats:
        with np.errstate(over="ignore"):
            return values(rng, (self.rows, self.n), self.kind) + np.float32(self.offset)


def that_fits(case: Case) -> Case:
    rows = 1 if case.layer else case.rows
    return replace(case, rows=rows, n=min(case.n, ROOM // (6 if case.layer else 3) // rows))


counts = st.one_of(st.integers(1, 12), st.integers(1, 40))
lengths = st.one_of(st.integers(1, 40), st.integers(1, 300), st.sampled_from([16, 64, 128, 1000]))
cases = st.builds(
    Case, st.booleans(), counts, lengths, st.booleans(), st.lists(st.integers(1, 40), max_size=3).map(tuple),
    st.sampled_from([1e-5, 1e-3, 1.0]), st.sampled_from([0.0, 0.0, 3.0, -100.0]), st.booleans(), core_counts,
    st.sampled_from(ALL_KINDS), seeds,
).map(that_fits)  # fmt: skip
INSTANCES = Case(False, 16, 25, False, (), 1e-5, 0.0, False, 8, "plain", 0)
LAYER = Case(True, 1, 400, True, (), 1e-5, 0.0, False, 8, "plain", 0)


# -- in float64 --------------------------------------------------------------------------------------
def assert_near_float64(case: Case, x: Floats, gamma: Floats, beta: Floats, y: Floats, statistics: Floats) -> None:
    assert_near(statistics, near.statistics(double(x), case.eps), "statistics")
    assert_near(y, near.normal(double(x), double(gamma), double(beta), case.eps), "y")


def assert_gradient_near_float64(
    case: Case, operands: tuple[Floats, Floats, Floats, Floats], found: tuple[Floats, Floats, Floats]
) -> None:
    dy, x, gamma, statistics = map(double, operands)
    dx, dgamma, dbeta = found
    expected = near.parameter_gradients(dy, x, statistics, not case.layer)
    assert_near(dgamma, expected["w"], "dgamma")
    assert_near(dbeta, expected["b"], "dbeta")
    assert_near(dx, near.input_gradient(dy, x, gamma, statistics), "dx")


# -- the kernels -------------------------------------------------------------------------------------
def forward(case: Case, engine: Engine = "traces") -> list[Result]:
    bench = Bench(case.cores, case.seed, engine)
    x = case.x(bench.rng)
    gamma, beta = (values(bench.rng, case.parameters, "zeros") for _ in range(2))
    eps = np.float32(case.eps)
    if case.layer:
        y, statistics = numerics.layer_norm(x[0], gamma[0], beta[0], eps, case.shares)
        y, statistics = y[None], statistics[None]
    else:
        y, statistics = numerics.instance_norm(x, gamma[:, 0].copy(), beta[:, 0].copy(), eps, case.shares)
    if case.kind in FINITE:
        assert_near_float64(case, x, gamma, beta, y, statistics)
    at_x, at_gamma, at_beta = bench.place(x), bench.place(gamma), bench.place(beta)
    at_y, at_statistics = at_x if case.in_place else bench.space(x.size), bench.space(2 * case.rows)
    at_partial = bench.space(2 * case.cores) if case.shares > 1 else 0
    calls: list[Call] = []
    if case.layer:
        arrays = at_x, at_y, at_gamma, at_beta, at_statistics, at_partial
        calls.append(kernels.layer_norm(*arrays, case.n, case.eps, case.cores))
    for first, end in [] if case.layer else case.tiles:
        matrices = (at + 4 * case.n * first for at in (at_x, at_y))
        arrays = *matrices, at_gamma + 4 * first, at_beta + 4 * first, at_statistics + 8 * first, at_partial
        shape = end - first, case.n, case.eps, case.shared, case.cores
        calls.append(kernels.instance_norm(*arrays, *shape))
    bench.expect(at_y, y)
    bench.expect(at_statistics, statistics)
    if at_partial:
        with np.errstate(all="ignore"):
            bench.expect(at_partial, partial_sums(x[-1], statistics[-1, 0], case.cores))
    return bench.run(*calls)


def partial_sums(x: Floats, mean: np.float32, cores: int) -> Floats:
    """What a row leaves in `partial` forward: the cores' sums, and those of the squares."""
    away = x - mean
    return np.array(dots(np.ones_like(x), x, cores) + dots(away, away, cores), np.float32)


def partial_products(g: Floats, x: Floats, statistics: Floats, cores: int) -> Floats:
    """And backward: those of g, and of g * xhat."""
    xhat = (x - statistics[0]) * statistics[1]
    return np.array(dots(np.ones_like(g), g, cores) + dots(g, xhat, cores), np.float32)


def dots(one: Floats, other: Floats, cores: int) -> list[np.float32]:
    """The cores' shares of a product, each by the dense layer's twin."""
    chunk = -(-one.size // cores)
    shares = [slice(core * chunk, (core + 1) * chunk) for core in range(cores)]
    return [fc_forward(one[share][None], other[share], False)[0] if one[share].size else 0 for share in shares]


def backward(case: Case, engine: Engine = "traces") -> list[Result]:
    bench = Bench(case.cores, case.seed, engine)
    x, dy = case.x(bench.rng), values(bench.rng, (case.rows, case.n), case.kind)
    gamma, eps = values(bench.rng, case.parameters), np.float32(case.eps)
    if case.layer:
        _, statistics = numerics.layer_norm(x[0], gamma[0], gamma[0], eps, case.shares)
        dx, dgamma, dbeta = numerics.layer_norm_gradient(dy[0], x[0], gamma[0], statistics, case.shares)
        dx, statistics = dx[None], statistics[None]
    else:
        own = gamma[:, 0].copy()
        _, statistics = numerics.instance_norm(x, own, own, eps, case.shares)
        dx, dgamma, dbeta = numerics.instance_norm_gradient(dy, x, own, statistics, case.shares)
    if case.kind in FINITE:
        assert_gradient_near_float64(case, (dy, x, gamma, statistics), (dx, dgamma, dbeta))
    at_dy, at_x, at_gamma, at_statistics = (bench.place(array) for array in (dy, x, gamma, statistics))
    at_dx, at_dgamma, at_dbeta = (at_dy if case.in_place else bench.space(x.size)), *map(bench.space, [gamma.size] * 2)
    at_partial = bench.space(2 * case.cores) if case.shares > 1 else 0
    calls: list[Call] = []
    if case.layer:
        arrays = at_dy, at_x, at_dx, at_gamma, at_dgamma, at_dbeta, at_statistics, at_partial
        calls.append(kernels.layer_norm_gradient(*arrays, case.n, case.cores))
    for first, end in [] if case.layer else case.tiles:
        matrices = (at + 4 * case.n * first for at in (at_dy, at_x, at_dx))
        parameters = (at + 4 * first for at in (at_gamma, at_dgamma, at_dbeta))
        arrays = *matrices, *parameters, at_statistics + 8 * first, at_partial
        calls.append(kernels.instance_norm_gradient(*arrays, end - first, case.n, case.shared, case.cores))
    for at, expected in ((at_dx, dx), (at_dgamma, dgamma), (at_dbeta, dbeta)):
        bench.expect(at, expected)
    if at_partial:
        with np.errstate(all="ignore"):
            g = dy[-1] * gamma[-1] if case.layer else dy[-1]
            bench.expect(at_partial, partial_products(g, x[-1], statistics[-1], case.cores))
    return bench.run(*calls)


# -- of pixels ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Pixels:
    """x [channels, pixels] in tiles of whole pixels. cuts: where they begin."""

    channels: int
    pixels: int
    cuts: tuple[int, ...]
    eps: float
    in_place: bool
    cores: int
    kind: str
    seed: int

    @property
    def tiles(self) -> list[tuple[int, int]]:
        return list(pairwise([0, *sorted({cut for cut in self.cuts if 0 < cut < self.pixels}), self.pixels]))


pixels = st.builds(
    Pixels, counts, counts, st.lists(st.integers(1, 40), max_size=2).map(tuple), st.sampled_from([1e-5, 1.0]),
    st.booleans(), core_counts, st.sampled_from(ALL_KINDS), seeds,
)  # fmt: skip
TOKENS = Pixels(64, 40, (), 1e-5, False, 8, "plain", 0)


def of_pixels(case: Pixels, engine: Engine = "traces") -> list[Result]:
    """Forward and backward on every tile, sums of gamma and beta from tile to tile: as if there were one. On a machine
    that may have more cores than share the work."""
    bench, shape = Bench(8, case.seed, engine), (case.channels, case.pixels)
    x, dy = values(bench.rng, shape, case.kind), values(bench.rng, shape, case.kind)
    gamma, beta = (values(bench.rng, case.channels, "zeros") for _ in range(2))
    y, statistics = numerics.layer_norm_2d(x, gamma, beta, np.float32(case.eps))
    dx, dgamma, dbeta = numerics.layer_norm_2d_gradient(dy, x, gamma, statistics)
    if case.kind in FINITE:
        wide, row, known = double(x).T, double(gamma)[None], double(statistics)
        assert_near(statistics, near.statistics(wide, case.eps), "statistics")
        assert_near(y.T, near.normal(wide, row, double(beta)[None], case.eps), "y")
        assert_near(dx.T, near.input_gradient(double(dy).T, wide, row, known), "dx")
        expected = near.parameter_gradients(double(dy).T, wide, known, summed=False)
        assert_near(dgamma, expected["w"], "dgamma")
        assert_near(dbeta, expected["b"], "dbeta")
    at_gamma, at_beta = bench.place(gamma), bench.place(beta)
    at_dgamma, at_dbeta = bench.space(case.channels), bench.space(case.channels)
    calls: list[Call] = []
    for first, end in case.tiles:
        size, n = (case.channels, end - first), case.channels * (end - first)
        at_x, at_dy = (bench.place(np.ascontiguousarray(array[:, first:end])) for array in (x, dy))
        at_y, at_statistics = bench.space(n), bench.space(2 * (end - first))
        at_dx = at_dy if case.in_place else bench.space(n)
        calls += [
            pixel_kernels.layer_norm_2d(at_x, at_y, at_gamma, at_beta, at_statistics, *size, case.eps, case.cores),
            pixel_kernels.layer_norm_2d_parameters(
                at_dy, at_x, at_dgamma, at_dbeta, at_statistics, *size, first > 0, case.cores
            ),
            pixel_kernels.layer_norm_2d_gradient(at_dy, at_x, at_dx, at_gamma, at_statistics, *size, case.cores),
        ]
        for at, array in ((at_y, y), (at_dx, dx)):
            bench.expect(at, np.ascontiguousarray(array[:, first:end]))
        bench.expect(at_statistics, statistics[first:end])
    bench.expect(at_dgamma, dgamma)
    bench.expect(at_dbeta, dbeta)
    return bench.run(*calls)


@settings(max_examples=40)
@given(case=pixels)
@example(case=TOKENS)
@example(case=replace(TOKENS, channels=1, pixels=3))
@example(case=replace(TOKENS, pixels=1, in_place=True))
def test_pixels_are_normalised_as_numerics_has_it_in_tiles_of_any_size(case: Pixels) -> None:
    of_pixels(case)


def test_pixels_are_normalised_alike_by_both_engines_and_by_all_cores() -> None:
    small = replace(TOKENS, channels=5, pixels=9, cuts=(4,))
    assert of_pixels(small) == of_pixels(small, "reference")
    for alone, together in zip(of_pixels(replace(TOKENS, cores=1)), of_pixels(TOKENS), strict=True):
        assert together.cycles < alone.cycles / 6


KERNELS = [forward, backward]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
@settings(max_examples=150)
@given(case=cases)
@example(case=INSTANCES)
@example(case=LAYER)
@example(case=replace(INSTANCES, rows=3, n=49, shared=True))
@example(case=replace(INSTANCES, rows=3, n=2, shared=True))  # cores without a share of the row
@example(case=replace(LAYER, n=1))
@example(case=replace(INSTANCES, kind="zeros", eps=1.0))
def test_normalisation_gives_the_bits_of_numerics_and_writes_nothing_else(kernel, case: Case) -> None:  # type: ignore[no-untyped-def]
    kernel(case)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
@settings(max_examples=6)
@given(case=cases.filter(lambda case: case.rows * case.n < 300))
def test_both_engines_normalise_alike(kernel, case: Case) -> None:  # type: ignore[no-untyped-def]
    assert kernel(case) == kernel(case, "reference")


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
@pytest.mark.parametrize(
    "case", [replace(INSTANCES, rows=32, n=49), replace(INSTANCES, rows=3, n=900, shared=True), replace(LAYER, n=1600)],
    ids=["rows", "shared", "layer"],
)  # fmt: skip
def test_normalisation_is_work_for_all_cores(kernel, case: Case) -> None:  # type: ignore[no-untyped-def]
    alone, together = kernel(replace(case, cores=1))[0].cycles, kernel(case)[0].cycles
    assert together < alone / 4


def test_a_row_far_from_zero_is_normalised_as_well() -> None:
    """Mean squares less squared means would have nothing left."""
    x = 1000 + np.random.default_rng(0).standard_normal((1, 400)).astype(np.float32)
    ones = np.ones(1, np.float32)
    y, _ = numerics.instance_norm(x, ones, 0 * ones, np.float32(1e-5), 1)
    wide = x.astype(np.float64)
    assert np.abs(y - (wide - wide.mean()) / np.sqrt(wide.var() + 1e-5)).max() < 1e-3


def test_a_row_of_equal_numbers_is_beta() -> None:
    x, gamma, beta = np.full((2, 8), 3.0, np.float32), np.ones(2, np.float32), np.array([0.5, -2], np.float32)
    y, statistics = numerics.instance_norm(x, gamma, beta, np.float32(1e-5), 1)
    assert (y == beta[:, None]).all() and (statistics[:, 0] == 3).all()
