"""Protects exp, log, erf, quotients and the root of kernels: their errors, the special numbers, the bits of `numerics`,
and that neither they nor the kernels made of them take a time that depends on data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pulpsim import Builder, Program
from pulpsim.machine import Machine
from pulpsim.memory import L1_BASE
from pulpsim.program import Register
from tests.trainlib.arrays import Floats, assert_same_bits, assert_within, seeds, ulps
from tests.trainlib.bench import Bench, platform
from trainlib.kernels import Call, activations, adam, chunk_of, classification, functions, loss, optimizer, vector
from trainlib.numerics import functions as twin
from trainlib.numerics.functions import ONE, RECIPROCAL_COEFFICIENTS

INFINITY, NAN = np.float32(np.inf), np.float32(np.nan)
LARGEST = np.finfo(np.float32).max


# Not `compiled`: what it caches does not know of changes in the functions that are called.
@numba.njit
def apply(function, x):  # type: ignore[no-untyped-def]
    y = np.empty_like(x)
    for i in range(x.shape[0]):
        y[i] = function(x[i])
    return y


@numba.njit
def quotients(a, d):  # type: ignore[no-untyped-def]
    y = np.empty_like(a)
    for i in range(a.shape[0]):
        y[i] = twin.quotient(a[i], d[i])
    return y


@numba.njit
def divisions(a, d):  # type: ignore[no-untyped-def]
    y = np.empty_like(a)
    for i in range(a.shape[0]):
        y[i] = twin.division(a[i], d[i])
    return y


def every(step: int, low: float, high: float) -> Floats:
    """Every `step`-th FP32 number from low to high, which have the same sign."""
    first, last = sorted(int(np.float32(end).view(np.uint32)) for end in (low, high))
    return np.arange(first, last + 1, step, dtype=np.uint32).view(np.float32)


# -- errors, densely -------------------------------------------------------------------------------
def test_exp_is_within_an_ulp_everywhere() -> None:
    rng = np.random.default_rng(0)
    for x in (
        every(331, -0.0, -3e38),
        every(331, 0.0, 3e38),
        rng.uniform(-104, 88.8, 1_500_000).astype(np.float32),
        rng.uniform(-104, -86, 500_000).astype(np.float32),  # to subnormals
        every(1, 88.7, 88.8),
        every(1, -103.99, -103.95),
    ):
        found = apply(twin.exp, x)
        with np.errstate(over="ignore", under="ignore"):
            exact = np.exp(x.astype(np.float64))
            rounded = exact.astype(np.float32)
        finite = np.isfinite(rounded)
        assert (np.isinf(found) == ~finite).all()
        assert_within(found[finite], exact[finite], 0.91 * ulps(exact[finite]), "exp")


def test_log_is_within_an_ulp_everywhere() -> None:
    for x in (every(509, 1e-45, 3.4e38), every(5, 0.4, 1.6), every(1, 0.999, 1.001)):
        exact = np.log(x.astype(np.float64))
        assert_within(apply(twin.log, x), exact, 0.94 * ulps(exact), "log")


def test_erf_is_as_exact_as_it_says_and_has_the_sign_of_its_argument() -> None:
    for x in (every(997, 0.0, 3e38), every(331, 0.1, 4), every(3001, 1e-45, 1e-4)):
        exact = np.array([math.erf(number) for number in x.tolist()])
        assert_within(apply(twin.erf, x), exact, 1.0e-7, "erf")
        assert_same_bits(apply(twin.erf, -x), -apply(twin.erf, x), "erf of -x")


def test_the_quotient_is_within_one_ulp_and_exact_at_the_ends() -> None:
    rng = np.random.default_rng(0)
    d = np.concatenate([every(4, 1, 2), rng.uniform(1, 2, 1_000_000).astype(np.float32)])
    a = rng.uniform(-1, 1, d.size).astype(np.float32)
    exact = a.astype(np.float64) / d
    assert_within(quotients(a, d), exact, ulps(exact), "quotient")
    assert_within(apply(twin.reciprocal, d), 1 / d.astype(np.float64), 0.69 * ulps(1 / d.astype(np.float64)), "1 / d")
    for end in (1, 2):
        assert_same_bits(quotients(a, np.full_like(a, end)), a / np.float32(end))


def test_a_division_is_almost_rounded_once_whatever_the_sizes() -> None:
    rng, n = np.random.default_rng(0), 1_000_000
    d = np.concatenate([every(8, 1, 2), every(1013, -(2.0**-125), -(2.0**125)), every(1013, 2.0**-125, 2.0**125)])
    d = np.concatenate([d, rng.uniform(1, 4, n).astype(np.float32)])
    a = np.clip(d * np.ldexp(rng.uniform(1, 2, d.size), rng.integers(-125, 127, d.size)), -3e38, 3e38)
    a = np.where(np.abs(a) < 2.0**-100, 1, a).astype(np.float32)
    exact = a / d.astype(np.float64)
    normal = (np.abs(exact) < 3e38) & (np.abs(exact) >= 2.0**-126)
    assert normal.mean() > 0.9
    assert_within(divisions(a, d)[normal], exact[normal], 0.57 * ulps(exact[normal]), "division")
    zeros = np.zeros_like(d)
    assert_same_bits(divisions(zeros, np.abs(d)), zeros)


def test_the_root_is_almost_rounded_once_and_close_of_subnormal_numbers() -> None:
    for x in (every(509, 2.0**-120, LARGEST), every(3, 1, 4)):
        exact = np.sqrt(x.astype(np.float64))
        assert_within(apply(twin.square_root, x), exact, 0.52 * ulps(exact), "root")
    small = every(101, 2.0**-126, 2.0**-120)
    exact = np.sqrt(small.astype(np.float64))
    assert_within(apply(twin.square_root, small), exact, 0.75 * ulps(exact), "root of a small number")
    subnormal = every(31, 0, 2.0**-126)
    assert_within(apply(twin.square_root, subnormal), np.sqrt(subnormal.astype(np.float64)), 2.0**-66, "subnormal")
    zeros = np.array([0.0, -0.0], np.float32)
    assert_same_bits(apply(twin.square_root, zeros), zeros)


# -- special numbers -------------------------------------------------------------------------------
#: number, exp, log
SPECIAL = np.array(
    [
        (0, 1, -INFINITY),
        (-0.0, 1, -INFINITY),
        (1, np.exp(1), 0),
        (INFINITY, INFINITY, INFINITY),
        (-INFINITY, 0, NAN),
        (NAN, NAN, NAN),
        (-NAN, NAN, NAN),
        (1e-45, 1, np.log(2.0**-149)),
        (-1e-45, 1, NAN),
        (-1, np.exp(-1), NAN),
        (LARGEST, INFINITY, np.log(np.float64(LARGEST))),
        (-LARGEST, 0, NAN),
        (88.72283, np.exp(88.72283172607422), np.log(88.72283172607422)),  # the last one that is finite
        (88.72284, INFINITY, np.log(88.72283935546875)),
        (-103.97208, 2**-149, NAN),
        (-103.97209, 0, NAN),
        (1e9, INFINITY, np.log(1e9)),
        (-1e9, 0, NAN),
        (1e30, INFINITY, np.log(np.float64(np.float32(1e30)))),
        (-1e30, 0, NAN),
    ],
    np.float64,
).astype(np.float32)


def test_special_numbers() -> None:
    x, *expected = SPECIAL.T.copy()
    for function, exact in zip((twin.exp, twin.log), expected, strict=True):
        found, finite = apply(function, x), np.isfinite(exact) & (exact != 0)
        assert_same_bits(found[~finite], exact[~finite])
        assert_within(found[finite], exact[finite], ulps(exact[finite].astype(np.float64)))


# -- the cores have the same bits ------------------------------------------------------------------
Emit = Callable[[Builder, functions.Constants, Register], None]


def kernel(emit: Emit, constants: tuple[np.float32, ...]) -> Program:
    """y[n] = f(x[n]), where `emit` writes over a register x with f(x)."""

    def body(b: Builder, pointers: list[Register], k: functions.Constants, unroll: int) -> None:
        with b.temporary("x") as [x]:
            b("p.lw", x, (pointers[0], 4, "!"))
            emit(b, k, x)
            b("p.sw", x, (pointers[1], 4, "!"))

    return vector.vector_program("apply", ("x", "y"), (), body, 1, constants)


def _exp(b: Builder, k: functions.Constants, x: Register) -> None:
    with b.temporary("argument", "n") as [argument, n]:
        b("fmin.s", argument, x, x)  # makes every NaN the positive one
        functions.exp(b, k, argument, x, n)


def _exp_not_positive(b: Builder, k: functions.Constants, x: Register) -> None:
    with b.temporary("argument", "n") as [argument, n]:
        b("fmin.s", argument, x, x)
        functions.exp_not_positive(b, k, argument, x, n)


def _erf(b: Builder, k: functions.Constants, x: Register) -> None:
    with b.temporary("y", "q", "n") as [y, q, n]:
        functions.erf(b, k, x, y, q, n)
        b("fadd.s", x, y, "x0")  # makes every NaN the positive one


def _quotient(b: Builder, k: functions.Constants, x: Register) -> None:
    with b.temporary("a", "d", "r") as [a, d, r]:
        b("fsub.s", a, x, k[ONE])
        b.mv(d, x)
        functions.quotient(b, k, a, d, x, r)


def _division(b: Builder, k: functions.Constants, x: Register) -> None:
    with b.temporary("a", "d", "r", "t") as [a, d, r, t]:
        b("fsub.s", a, x, k[ONE])
        b.mv(d, x)
        functions.division(b, k, a, d, x, r, t)


def _square_root(b: Builder, k: functions.Constants, x: Register) -> None:
    with b.temporary("argument", "r", "t") as [argument, r, t]:
        b.mv(argument, x)
        functions.square_root(b, k, argument, x, r, t)


#: name -> (program, host function, the arguments it is meant for)
KERNELS: dict[str, tuple[Program, Callable[[Floats], Floats], Callable[[Floats], NDArray[np.bool_]]]] = {
    "exp": (
        kernel(_exp, functions.EXP_CONSTANTS),
        lambda x: apply(twin.exp, x),
        lambda x: np.ones(x.shape, bool),
    ),
    "exp of x <= 0": (
        kernel(_exp_not_positive, functions.EXP_NOT_POSITIVE_CONSTANTS),
        lambda x: apply(twin.exp, x),
        lambda x: ~(x > 0),
    ),
    "log": (
        kernel(lambda b, k, x: functions.log(b, x, normal=False), ()),
        lambda x: apply(twin.log, x),
        lambda x: np.ones(x.shape, bool),
    ),
    "log of normal x": (
        kernel(lambda b, k, x: functions.log(b, x, normal=True), ()),
        lambda x: apply(twin.log, x),
        lambda x: np.isnan(x) | (np.isfinite(x) & (x >= 2.0**-126)),
    ),
    "erf": (
        kernel(_erf, functions.ERF_CONSTANTS),
        lambda x: apply(twin.erf, x) + np.float32(0),
        lambda x: np.ones(x.shape, bool),
    ),
    "quotient": (
        kernel(_quotient, (*RECIPROCAL_COEFFICIENTS, ONE)),
        lambda x: quotients(x - ONE, x),
        lambda x: (x >= 1) & (x <= 2),
    ),
    "division": (
        kernel(_division, (*functions.DIVISION_CONSTANTS, ONE)),
        lambda x: divisions(x - ONE, x),
        np.isfinite,
    ),
    "square root": (
        kernel(_square_root, functions.ROOT_CONSTANTS),
        lambda x: apply(twin.square_root, x),
        lambda x: np.ones(x.shape, bool),
    ),
}
names = pytest.mark.parametrize("name", KERNELS)


def mixed(rng: np.random.Generator, n: int) -> Floats:
    """Numbers of every size and sign, the interesting ones more often, and every special one."""
    patterns = rng.integers(0, 2**32, n, np.uint32).view(np.float32)
    ranges = [(-104.5, 89.5), (-2, 2), (1, 2), (0, 1e-37), (-104.5, -87)]
    parts = [patterns, *(rng.uniform(low, high, n).astype(np.float32) for low, high in ranges), SPECIAL[:, 0]]
    return np.concatenate(parts)


def run(name: str, bench: Bench, n: int) -> Any:
    program, host, meant_for = KERNELS[name]
    x = mixed(bench.rng, n)
    x = x[meant_for(x)]
    at_x, at_y = bench.place(x), bench.space(x.size)
    bench.expect(at_y, host(x))
    return bench.run(Call(program, name, (at_x, at_y, x.size, chunk_of(x.size, bench.cores))))


@names
def test_cores_compute_the_bits_of_the_host(name: str) -> None:
    for seed in range(10):
        run(name, Bench(8, seed), 900)


@names
@settings(max_examples=4)
@given(cores=st.integers(1, 4), seed=seeds)
def test_both_engines_compute_alike(name: str, cores: int, seed: int) -> None:
    assert run(name, Bench(cores, seed), 4) == run(name, Bench(cores, seed, "reference"), 4)


# -- time ------------------------------------------------------------------------------------------
def _calls() -> list[Call]:
    """Every kernel made of these functions and its neighbours, on arrays at fixed places."""
    n, cores = 77, 8
    a, b, c, partial, label = (L1_BASE + 1024 * i for i in range(5))
    made = [Call(program, name, (a, b, n, chunk_of(n, cores))) for name, (program, _, _) in KERNELS.items()]
    return [
        *made,
        activations.leaky_relu_forward(a, b, 0.1, n, cores),
        activations.leaky_relu_backward(a, b, c, 0.1, n, cores),
        activations.sigmoid_forward(a, b, n, cores),
        activations.sigmoid_backward(a, b, c, n, cores),
        activations.tanh_forward(a, b, n, cores),
        activations.tanh_backward(a, b, c, n, cores),
        activations.relu6_forward(a, b, n, cores),
        activations.relu6_backward(a, b, c, n, cores),
        activations.hard_swish_forward(a, b, n, cores),
        activations.hard_swish_backward(a, b, c, n, cores),
        activations.gelu_forward(a, b, n, cores),
        activations.gelu_backward(a, b, c, n, cores),
        activations.gelu_erf_forward(a, b, n, cores),
        activations.gelu_erf_backward(a, b, c, n, cores),
        classification.softmax(a, b, partial, n, cores),
        classification.cross_entropy(a, label, b, partial, n, cores),
        loss.mse_gradient(a, b, c, partial, n, cores),
        loss.l1(a, b, c, partial, n, cores),
        optimizer.sgd(a, b, c, optimizer.Rule(0.1, 0.9, 0.01), n, cores),
        adam.adam(a, b, c, L1_BASE + 512, (0x3F000000,) * 5, n, cores, "weights"),
    ]


@pytest.mark.parametrize("call", _calls(), ids=lambda call: call.name)
def test_time_does_not_depend_on_data(call: Call) -> None:
    rng, found = np.random.default_rng(0), []
    for label in (0, 40, 76):
        machine = Machine(platform(8))
        size = 4 * 1024 // 4
        data = rng.standard_normal(size) if label else rng.choice(SPECIAL[:, 0], size)
        machine.memory.write(L1_BASE, data.astype(np.float32))
        machine.memory.write(L1_BASE + 4096, np.array([label], np.int32))
        found.append(machine.run(call.program, registers=call.registers()))
    assert found[0] == found[1] == found[2]
