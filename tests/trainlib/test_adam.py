"""Protects Adam and AdamW: PyTorch's rule and its rounding, the bits of `numerics`, nothing else written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim import float32
from pulpsim.machine import Result
from tests.trainlib.arrays import (
    ALL_KINDS,
    TINY,
    UNIT,
    Floats,
    assert_same_bits,
    assert_within,
    core_counts,
    patterns,
    seeds,
    ulps,
    values,
)
from tests.trainlib.bench import Bench
from trainlib.kernels import adam as kernels
from trainlib.kernels.adam import Decay
from trainlib.kernels.vector import bits
from trainlib.numerics import adam as numerics

BETAS, EPS, WEIGHT_DECAY = (0.9, 0.999), 1e-8, 0.01
lengths = st.one_of(st.integers(1, 200), st.sampled_from([1, 2, 3, 15, 16, 17, 31, 32, 33]))
decays = pytest.mark.parametrize("decay", get_args(Decay))


@dataclass(frozen=True)
class Update:
    n: int
    cores: int
    kind: str
    t: int
    lr: float
    seed: int

    def scalars(self, decay: Decay) -> list[tuple[np.float32, ...]]:
        """Of two steps."""
        return [numerics.scalars(self.lr, BETAS, EPS, WEIGHT_DECAY, t, decay) for t in (self.t, self.t + 1)]


rates, steps = st.sampled_from([1e-3, 3e-2, 1.0]), st.sampled_from([1, 2, 10, 1000, 10**6])
updates = st.builds(Update, lengths, core_counts, st.sampled_from(ALL_KINDS), steps, rates, seeds)


def squares(rng: np.random.Generator, n: int, kind: str) -> Floats:
    """Means of squares are not negative; those of a wild kind may be anything."""
    v = values(rng, n, kind)
    return v if kind == "wild" else np.abs(v)


def run(u: Update, decay: Decay, engine: Literal["traces", "jit", "reference"] = "traces") -> list[Result]:
    """Two steps with one gradient: the second meets what the first left, and has other numbers."""
    bench = Bench(u.cores, u.seed, engine)
    w, dw, m = (values(bench.rng, u.n, u.kind) for _ in range(3))
    v = squares(bench.rng, u.n, u.kind)
    at_w, at_dw, at_m, at_v = (bench.place(array) for array in (w, dw, m, v))
    calls = []
    for scalars in u.scalars(decay):
        numerics.adam(w, dw, m, v, np.array(scalars), decay)
        given = tuple(bits(scalar) for scalar in scalars)
        calls.append(kernels.adam(at_w, at_dw, at_m, at_v, given, u.n, u.cores, decay))
    for at, array in ((at_w, w), (at_m, m), (at_v, v)):
        bench.expect(at, array)
    return bench.run(*calls)


@decays
@settings(max_examples=60)
@given(u=updates)
def test_every_weight_is_updated_once(decay: Decay, u: Update) -> None:
    run(u, decay)


@decays
@settings(max_examples=4)
@given(u=st.builds(Update, st.integers(1, 40), core_counts, st.sampled_from(ALL_KINDS), steps, rates, seeds))
def test_both_engines_run_it_alike(decay: Decay, u: Update) -> None:
    assert run(u, decay) == run(u, decay, "reference")


def test_nothing_of_a_step_is_in_the_program_and_what_is_given_is_passed_on() -> None:
    placeholders = (object(),) * 4
    one, other = (kernels.adam(4, 8, 12, 16, scalars, 9, 2) for scalars in ((1, 2, 3, 4), placeholders))  # type: ignore[arg-type]
    assert one.program is other.program
    assert other.arguments[4:8] == placeholders


# -- the rule --------------------------------------------------------------------------------------
@decays
@settings(max_examples=40)
@given(kind=st.sampled_from(ALL_KINDS), seed=seeds, lr=rates)
def test_means_and_weights_are_sums_rounded_as_it_says(decay: Decay, kind: str, seed: int, lr: float) -> None:
    rng = np.random.default_rng(seed)
    old_w, dw, old_m = (values(rng, 12, kind) for _ in range(3))
    old_v = squares(rng, 12, kind)
    scalars = numerics.scalars(lr, BETAS, EPS, WEIGHT_DECAY, 3, decay)
    w, m, v = old_w.copy(), old_m.copy(), old_v.copy()
    numerics.adam(w, dw, m, v, np.array(scalars), decay)
    new_m, new_v, rate, _, *decaying = (bits(scalar) for scalar in scalars)
    for i in range(12):
        weight, g, mean, square, old_mean, old_square = (
            int(pattern) for pattern in patterns(np.array([old_w[i], dw[i], m[i], v[i], old_m[i], old_v[i]]))
        )
        if decay == "gradient":
            g = float32.fma(decaying[0], weight, g)
        if decay == "weights":
            weight = float32.fma(decaying[0] ^ float32.SIGN, weight, weight)
        assert mean == float32.fma(new_m, float32.sub(g, old_mean), old_mean)
        assert square == float32.fma(new_v, float32.fma(g, g, old_square ^ float32.SIGN), old_square)
        change = int(patterns(np.atleast_1d(numerics.change(m[i], v[i], scalars[3])))[0])
        assert patterns(w[i : i + 1])[0] == float32.fma(rate ^ float32.SIGN, change, weight)


def exact_change(mean: Floats, square: Floats, eps: np.float32) -> np.ndarray:
    return mean.astype(np.float64) / (np.sqrt(square.astype(np.float64)) + float(eps))


@pytest.mark.parametrize("eps", [1e-8, 3e-10, 2.0**-41, 1e-3, 1.0])
def test_the_quotient_is_as_exact_as_it_says(eps: float) -> None:
    """Of squares of every size, above all those whose root is about eps, and of zeros."""
    rng, n, small = np.random.default_rng(0), 300_000, np.float32(eps)
    square = np.concatenate(
        [10.0 ** rng.uniform(-46, 38.5, n), (eps * 10.0 ** rng.uniform(-3, 3, n)) ** 2, np.zeros(100)]
    ).astype(np.float32)
    root = np.sqrt(square.astype(np.float64)) + eps
    mean = np.clip(rng.standard_normal(square.size) * root, -3e38, 3e38).astype(np.float32)
    found = np.array([numerics.change(*pair, small) for pair in zip(mean, square, strict=True)])
    exact = exact_change(mean, square, small)
    known = np.abs(mean) > 2.0**-100
    assert_within(found[known], exact[known], 2.6 * ulps(exact[known]), "change")


def test_a_weight_without_gradient_stays() -> None:
    w, zeros = np.array([3.0, -1e-40, 0.0], np.float32), np.zeros(3, np.float32)
    new, m, v = w.copy(), zeros.copy(), zeros.copy()
    numerics.adam(new, zeros, m, v, np.array(numerics.scalars(0.1, BETAS, EPS, 0.0, 1, "")), "")
    for found, expected in ((new, w), (m, zeros), (v, zeros)):
        assert_same_bits(found, expected)


@decays
def test_ten_steps_are_those_of_pytorchs_rule_in_float64_but_for_rounding(decay: Decay) -> None:
    rng, lr, (one, two) = np.random.default_rng(0), 0.01, BETAS
    w = values(rng, (7, 9))
    m, v = np.zeros_like(w), np.zeros_like(w)
    exact_w, exact_m, exact_v = (array.astype(np.float64) for array in (w, m, v))
    for t in range(1, 11):
        dw = values(rng, (7, 9))
        numerics.adam(w, dw, m, v, np.array(numerics.scalars(lr, BETAS, EPS, WEIGHT_DECAY, t, decay)), decay)
        g = dw + WEIGHT_DECAY * exact_w if decay == "gradient" else dw.astype(np.float64)
        if decay == "weights":
            exact_w = exact_w - lr * WEIGHT_DECAY * exact_w
        exact_m, exact_v = one * exact_m + (1 - one) * g, two * exact_v + (1 - two) * g**2
        root = np.sqrt(exact_v / (1 - two**t)) + EPS
        exact_w = exact_w - lr * exact_m / (1 - one**t) / root
    assert_within(w, exact_w, 100 * UNIT * (np.abs(exact_w) + lr) + TINY)
