"""Protects the channels' affine maps: values and bits for every shape and core count, and nothing else written."""

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
    assert_same_bits,
    assert_within,
    core_counts,
    seeds,
    sizes,
    values,
)
from tests.trainlib.bench import Bench
from trainlib.kernels import affine as kernels
from trainlib.numerics import affine as numerics

Engine = Literal["traces", "jit", "reference"]


@dataclass(frozen=True)
class Case:
    channels: int
    pixels: int
    flag: bool  # forward: ReLU; gradients of the factors: accumulate
    in_place: bool
    cores: int
    kind: str
    seed: int


lengths = st.one_of(st.just(1), sizes, st.integers(1, 200))
cases = st.builds(Case, sizes, lengths, st.booleans(), st.booleans(), core_counts, st.sampled_from(ALL_KINDS), seeds)


def forward(case: Case, engine: Engine = "traces") -> list[Result]:
    bench, shape = Bench(case.cores, case.seed, engine), (case.channels, case.pixels)
    x, scale, shift = values(bench.rng, shape, case.kind), *values(bench.rng, (2, case.channels), case.kind)
    expected = numerics.affine_forward(x, scale, shift, case.flag)
    if case.kind in FINITE:
        exact = x.astype(np.float64) * scale[:, None] + shift[:, None]
        assert_within(expected, np.maximum(exact, 0) if case.flag else exact, 1.01 * UNIT * np.abs(exact) + TINY)
    at_x, at_scale, at_shift = (bench.place(array) for array in (x, scale, shift))
    at_y = at_x if case.in_place else bench.space(x.size)
    bench.expect(at_y, expected)
    return bench.run(kernels.affine_forward(at_x, at_y, at_scale, at_shift, *shape, case.flag, case.cores))


def input_gradient(case: Case, engine: Engine = "traces") -> list[Result]:
    bench, shape = Bench(case.cores, case.seed, engine), (case.channels, case.pixels)
    dy, scale = values(bench.rng, shape, case.kind), values(bench.rng, case.channels, case.kind)
    expected = numerics.affine_input_gradient(dy, scale)
    with np.errstate(all="ignore"):
        assert_same_bits(expected, dy * scale[:, None])
    at_dy, at_scale = bench.place(dy), bench.place(scale)
    at_dx = at_dy if case.in_place else bench.space(dy.size)
    bench.expect(at_dx, expected)
    return bench.run(kernels.affine_input_gradient(at_dy, at_dx, at_scale, *shape, case.cores))


def gradients(case: Case, engine: Engine = "traces") -> list[Result]:
    bench, shape = Bench(case.cores, case.seed, engine), (case.channels, case.pixels)
    dy, x = (values(bench.rng, shape, case.kind) for _ in range(2))
    mean, inverse, old_gamma, old_beta = values(bench.rng, (4, case.channels), case.kind)
    dgamma, dbeta = numerics.affine_gradients(dy, x, mean, inverse)
    if case.flag:
        dgamma, dbeta = old_gamma.copy(), old_beta.copy()
        numerics.affine_gradients_accumulate(dy, x, mean, inverse, dgamma, dbeta)
    if case.kind == "plain":
        wide, centred = dy.astype(np.float64), x.astype(np.float64) - mean[:, None]
        for found, terms, old in ((dgamma, wide * centred * inverse[:, None], old_gamma), (dbeta, wide, old_beta)):
            terms = np.concatenate([terms, (case.flag * old)[:, None]], axis=1)
            size = np.abs(terms).sum(axis=1) + (np.abs(wide) * (np.abs(x) + np.abs(mean)[:, None])).sum(axis=1)
            assert_within(found, terms.sum(axis=1), (case.pixels + 3) * UNIT * size * (1 + np.abs(inverse)))
    at_dy, at_x, at_mean, at_inverse, at_gamma, at_beta = (
        bench.place(array) for array in (dy, x, mean, inverse, old_gamma, old_beta)
    )
    bench.expect(at_gamma, dgamma)
    bench.expect(at_beta, dbeta)
    pointers = at_dy, at_x, at_mean, at_inverse, at_gamma, at_beta
    return bench.run(kernels.affine_gradients(*pointers, *shape, case.flag, case.cores))


KERNELS: list[Callable[..., list[Result]]] = [forward, input_gradient, gradients]
each = pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)


@each
@settings(max_examples=120)
@given(case=cases)
def test_maps_give_the_bits_of_numerics_and_write_nothing_else(
    kernel: Callable[..., list[Result]], case: Case
) -> None:  # fmt: skip
    kernel(case)


@each
@settings(max_examples=6)
@given(case=cases.filter(lambda case: case.channels * case.pixels < 400))
def test_both_engines_run_them_alike(kernel: Callable[..., list[Result]], case: Case) -> None:
    assert kernel(case) == kernel(case, "reference")


def test_relu_of_nan_and_of_the_two_zeros_is_plus_zero() -> None:
    x = np.array([[np.nan, -0.0, 0.0, -1.0, np.inf, -np.inf]], np.float32)
    bench = Bench(8, 0)
    at_x, at_y = bench.place(x), bench.space(x.size)
    at_scale, at_shift = (bench.place(np.array([number], np.float32)) for number in (1.0, -0.0))
    bench.expect(at_y, np.array([0, 0, 0, 0, np.inf, 0], np.float32))
    bench.run(kernels.affine_forward(at_x, at_y, at_scale, at_shift, 1, 6, True, 8))


@pytest.mark.parametrize("kernel", [forward, input_gradient], ids=lambda kernel: kernel.__name__)
@pytest.mark.parametrize("shape", [(1, 2000), (3, 700), (2000, 1), (64, 125)])
def test_mapping_is_work_for_all_cores(kernel: Callable[..., list[Result]], shape: tuple[int, int]) -> None:
    case = Case(*shape, True, True, 8, "plain", 0)
    alone, together = kernel(replace(case, cores=1))[0].cycles, kernel(case)[0].cycles
    assert together < alone / 4


def test_factors_that_fold_a_normalisation_are_that_normalisation() -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 5, 40))
    gamma, beta, mean, variance = *rng.standard_normal((3, 5)), rng.uniform(0.5, 2, 5)
    inverse = 1 / np.sqrt(variance + 1e-5)
    scale = gamma * inverse
    arrays = x, dy, mean, inverse, scale, beta - mean * scale
    narrow_x, narrow_dy, centre, factor, scale, shift = (array.astype(np.float32) for array in arrays)
    normal = (x - mean[:, None]) * inverse[:, None]
    y = numerics.affine_forward(narrow_x, scale, shift, False)
    assert_within(y, gamma[:, None] * normal + beta[:, None], 1e-5)
    dgamma, dbeta = numerics.affine_gradients(narrow_dy, narrow_x, centre, factor)
    assert_within(dgamma, (dy * normal).sum(axis=1), 1e-4)
    assert_within(dbeta, dy.sum(axis=1), 1e-4)
