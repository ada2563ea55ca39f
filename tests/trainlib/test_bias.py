"""Protects the bias kernels: values and bits for every shape and core count, and nothing else written."""

from __future__ import annotations

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
    assert_within,
    core_counts,
    seeds,
    sizes,
    values,
)
from tests.trainlib.bench import Bench
from trainlib.kernels import bias as kernels
from trainlib.numerics import bias as numerics

Engine = Literal["traces", "jit", "reference"]


@dataclass(frozen=True)
class Case:
    rows: int
    columns: int
    flag: bool  # forward: ReLU; backward: accumulate
    cores: int
    kind: str
    seed: int


lengths = st.one_of(st.just(1), sizes, st.integers(1, 200))
cases = st.builds(Case, sizes, lengths, st.booleans(), core_counts, st.sampled_from(ALL_KINDS), seeds)


def forward(case: Case, engine: Engine = "traces") -> list[Result]:
    bench = Bench(case.cores, case.seed, engine)
    y, b = values(bench.rng, (case.rows, case.columns), case.kind), values(bench.rng, case.rows, case.kind)
    expected = numerics.bias_forward(y, b, case.flag)
    exact = y.astype(np.float64) + b[:, None]
    if case.kind in FINITE:
        assert_within(expected, np.maximum(exact, 0) if case.flag else exact, 1.01 * UNIT * np.abs(exact))
    at_y, at_b = bench.place(y), bench.place(b)
    bench.expect(at_y, expected)
    return bench.run(kernels.bias_forward(at_y, at_b, case.rows, case.columns, case.flag, case.cores))


def backward(case: Case, engine: Engine = "traces") -> list[Result]:
    bench = Bench(case.cores, case.seed, engine)
    dy, old = values(bench.rng, (case.rows, case.columns), case.kind), values(bench.rng, case.rows, case.kind)
    expected = numerics.bias_gradient(dy)
    if case.flag:
        expected = old.copy()
        numerics.bias_gradient_accumulate(dy, expected)
    if case.kind in FINITE:
        terms = np.concatenate([old[:, None] if case.flag else dy[:, :0], dy], axis=1).astype(np.float64)
        bound = 1.01 * UNIT * terms.shape[1] * np.abs(terms).sum(axis=1) + TINY
        assert_within(expected, terms.sum(axis=1), bound)
    at_dy, at_db = bench.place(dy), bench.place(old)
    bench.expect(at_db, expected)
    return bench.run(kernels.bias_gradient(at_dy, at_db, case.rows, case.columns, case.flag, case.cores))


KERNELS = [forward, backward]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
@settings(max_examples=120)
@given(case=cases)
def test_bias_gives_the_bits_of_numerics_and_writes_nothing_else(kernel, case: Case) -> None:  # type: ignore[no-untyped-def]
    kernel(case)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.__name__)
@settings(max_examples=6)
@given(case=cases.filter(lambda case: case.rows * case.columns < 400))
def test_both_engines_run_bias_kernels_alike(kernel, case: Case) -> None:  # type: ignore[no-untyped-def]
    assert kernel(case) == kernel(case, "reference")


def test_relu_of_nan_and_of_the_two_zeros_is_plus_zero() -> None:
    y = np.array([[np.nan, -0.0, 0.0, -1.0, np.inf, -np.inf]], np.float32)
    bench = Bench(8, 0)
    at_y, at_b = bench.place(y), bench.place(np.array([-0.0], np.float32))
    bench.expect(at_y, np.array([0, 0, 0, 0, np.inf, 0], np.float32))
    bench.run(kernels.bias_forward(at_y, at_b, 1, 6, True, 8))


@pytest.mark.parametrize("shape", [(1, 2000), (2000, 1), (64, 125)])
def test_adding_a_bias_is_work_for_all_cores(shape: tuple[int, int]) -> None:
    case = Case(*shape, True, 8, "plain", 0)
    alone, together = forward(replace(case, cores=1))[0].cycles, forward(case)[0].cycles
    assert together < alone / 4
