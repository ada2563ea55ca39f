"""Protects the optimiser: the update rule and its rounding, the bits of `numerics`, nothing else written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    learning_rates,
    patterns,
    seeds,
    values,
)
from tests.trainlib.bench import Bench
from trainlib import numerics
from trainlib.kernels import elementwise, optimizer
from trainlib.numerics.optimizer import sgd

lengths = st.one_of(st.integers(1, 200), st.sampled_from([1, 2, 3, 15, 16, 17, 31, 32, 33]))
#: momentum, weight decay, Nesterov's
PATHS = [
    (0.0, 0.0, False),
    (0.9, 0.0, False),
    (0.0, 1e-4, False),
    (0.5, 0.01, False),
    (0.9, 0.0, True),
    (0.5, 0.01, True),
]
paths = pytest.mark.parametrize(("momentum", "weight_decay", "nesterov"), PATHS)


@dataclass(frozen=True)
class Update:
    n: int
    cores: int
    kind: str
    lr: float
    seed: int


updates = st.builds(Update, lengths, core_counts, st.sampled_from(ALL_KINDS), learning_rates, seeds)


def run(
    u: Update, momentum: float, weight_decay: float, nesterov: bool,
    engine: Literal["traces", "jit", "reference"] = "traces",
) -> list[Result]:  # fmt: skip
    """Two steps with one gradient: the second meets the velocity that the first left."""
    bench = Bench(u.cores, u.seed, engine)
    w, dw, v = (values(bench.rng, u.n, u.kind) for _ in range(3))
    at_w, at_dw, at_v = (bench.place(array) for array in (w, dw, v))
    call = optimizer.sgd(at_w, at_dw, at_v, optimizer.Rule(u.lr, momentum, weight_decay, nesterov), u.n, u.cores)
    for _ in range(2):
        sgd(w, dw, v, -np.float32(u.lr), momentum, weight_decay, nesterov)
    bench.expect(at_w, w)
    if momentum:
        bench.expect(at_v, v)
    return bench.run(call, call)


@paths
@settings(max_examples=60)
@given(u=updates)
def test_every_weight_is_updated_once(momentum: float, weight_decay: float, nesterov: bool, u: Update) -> None:
    run(u, momentum, weight_decay, nesterov)


@paths
@settings(max_examples=4)
@given(u=st.builds(Update, st.integers(1, 40), core_counts, st.sampled_from(ALL_KINDS), learning_rates, seeds))
def test_both_engines_run_it_alike(momentum: float, weight_decay: float, nesterov: bool, u: Update) -> None:
    path = (momentum, weight_decay, nesterov)
    assert run(u, *path) == run(u, *path, "reference")


def test_without_momentum_and_decay_it_is_the_update_alone() -> None:
    for rule in (optimizer.Rule(0.5), optimizer.Rule(0.5, nesterov=True)):
        assert optimizer.sgd(4, 8, 0, rule, 9, 2) == elementwise.sgd_update(4, 8, 0.5, 9, 2)


# -- the rule --------------------------------------------------------------------------------------
def bits(array: Floats) -> list[int]:
    return [int(pattern) for pattern in patterns(np.atleast_1d(np.float32(array)))]


@paths
@settings(max_examples=40)
@given(kind=st.sampled_from(ALL_KINDS), seed=seeds, lr=learning_rates)
def test_every_step_is_one_fused_multiply_add(
    momentum: float, weight_decay: float, nesterov: bool, kind: str, seed: int, lr: float
) -> None:
    rng = np.random.default_rng(seed)
    w, dw, v = (values(rng, 12, kind) for _ in range(3))
    (rate,), (mu,), (decay,) = bits(-np.float32(lr)), bits(momentum), bits(weight_decay)
    new_w, new_v = [], []
    for weight, gradient, velocity in zip(bits(w), bits(dw), bits(v), strict=True):
        g = float32.fma(decay, weight, gradient) if weight_decay else gradient
        moved = float32.fma(mu, velocity, g) if momentum else g
        new_v.append(moved if momentum else velocity)
        new_w.append(float32.fma(rate, float32.fma(mu, moved, g) if nesterov else moved, weight))
    sgd(w, dw, v, -np.float32(lr), momentum, weight_decay, nesterov)
    assert_same_bits(w, np.array(new_w, np.uint32).view(np.float32), "w")
    assert_same_bits(v, np.array(new_v, np.uint32).view(np.float32), "v")


@paths
def test_ten_steps_are_those_of_float64_but_for_rounding(momentum: float, weight_decay: float, nesterov: bool) -> None:
    rng, lr = np.random.default_rng(0), np.float32(0.1)
    w, v = values(rng, (7, 9)), np.zeros((7, 9), np.float32)
    exact_w, exact_v = w.astype(np.float64), v.astype(np.float64)
    mu, decay = float(np.float32(momentum)), float(np.float32(weight_decay))
    for _ in range(10):
        dw = values(rng, (7, 9))
        sgd(w, dw, v, -lr, momentum, weight_decay, nesterov)
        gradient = dw + decay * exact_w
        exact_v = mu * exact_v + gradient
        exact_w = exact_w - float(lr) * (gradient + mu * exact_v if nesterov else exact_v)
    assert_within(w, exact_w, 100 * UNIT * (np.abs(exact_w) + 1) + TINY)


def test_the_plain_path_is_the_one_of_elementwise() -> None:
    rng = np.random.default_rng(0)
    w, dw = values(rng, (3, 5)), values(rng, (3, 5))
    other = w.copy()
    sgd(w, dw, w, np.float32(-0.1), 0.0, 0.0, True)
    numerics.sgd_update(other, dw, np.float32(-0.1))
    assert_same_bits(w, other)
