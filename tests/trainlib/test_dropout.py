"""Protects dropout: the twin's bits, whole or in parts, nothing else written; and masks as good as coins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

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
    values,
)
from tests.trainlib.bench import Bench
from tests.trainlib.textbook import dropout_mask
from trainlib.kernels import dropout as kernels
from trainlib.numerics import dropout as numerics

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    n: int
    cuts: tuple[int, ...]  # where tiles begin
    first: int
    key: int
    rate: float
    in_place: bool
    cores: int
    kind: str
    seed: int

    @property
    def tiles(self) -> list[tuple[int, int]]:
        return list(pairwise([0, *sorted({cut for cut in self.cuts if 0 < cut < self.n}), self.n]))


words = st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]) | st.integers(0, 0xFFFFFFFF)
rates = st.sampled_from([0.0, 0.1, 0.5, 0.9]) | st.floats(0, 0.999)
lengths = st.one_of(st.integers(1, 200), st.sampled_from([1, 3, 4, 5, 31, 32, 33]))
cases = st.builds(
    Case, lengths, st.lists(st.integers(1, 200), max_size=3).map(tuple), st.integers(0, 5) | st.integers(0, 1 << 20),
    words, rates, st.booleans(), core_counts, st.sampled_from(ALL_KINDS), seeds,
)  # fmt: skip


def twin(x: NDArray[np.float32], case: Case) -> NDArray[np.float32]:
    return numerics.dropout(x, case.first, case.key, numerics.threshold(case.rate), numerics.scale(case.rate))


def dropout(case: Case, engine: Literal["traces", "jit", "reference"] = "traces") -> list[Result]:
    bench = Bench(case.cores, case.seed, engine)
    x = values(bench.rng, case.n, case.kind)
    expected, kept = twin(x, case), dropout_mask(case.first, case.n, case.key, case.rate)
    assert (expected[~kept].view(np.uint32) == 0).all()
    if case.kind in FINITE:
        exact = np.where(kept, x.astype(np.float64) / (1 - case.rate), 0)
        assert_within(expected, exact, 2.01 * UNIT * np.abs(exact) + TINY)
    calls = []
    for begin, end in case.tiles:
        at_x = bench.place(x[begin:end])
        at_y = at_x if case.in_place else bench.space(end - begin)
        bench.expect(at_y, expected[begin:end])
        first = case.first + begin
        calls.append(kernels.dropout(at_x, at_y, end - begin, first, case.key, case.rate, case.cores))
    return bench.run(*calls)


PLAIN = Case(64, (), 0, 12345, 0.5, False, 8, "plain", 0)


@given(case=cases)
@example(case=replace(PLAIN, rate=0.0))
@example(case=replace(PLAIN, key=0))
@example(case=replace(PLAIN, rate=1 - 2.0**-40))
def test_dropout_gives_the_bits_of_numerics_whole_or_in_tiles(case: Case) -> None:
    dropout(case)


@settings(max_examples=6)
@given(case=cases.map(lambda case: replace(case, n=min(case.n, 40))))
def test_both_engines_drop_alike(case: Case) -> None:
    assert dropout(case) == dropout(case, "reference")


def test_what_is_dropped_is_plus_zero_whatever_it_was() -> None:
    x = np.repeat(np.array([np.nan, np.inf, -np.inf, -1.0, -0.0], np.float32), 40)
    y, kept = twin(x, replace(PLAIN, n=200)), dropout_mask(0, 200, PLAIN.key, 0.5)
    assert_same_bits(y, np.where(kept, 2 * x, np.float32(0)))


def test_the_gradient_passes_where_the_output_did() -> None:
    ones = np.ones(1000, np.float32)
    y = twin(ones, PLAIN)
    assert_same_bits(twin(ones, PLAIN), y)
    assert set(np.unique(y)) == {0.0, 2.0}


def test_dropout_is_work_for_all_cores() -> None:
    case = replace(PLAIN, n=1600)
    assert dropout(case)[0].cycles < dropout(replace(case, cores=1))[0].cycles / 6


# -- statistics --------------------------------------------------------------------------------------
#: what chance explains, in standard deviations: the largest of thousands, of few and rare events too
SIGMAS = 5.5
N = 1 << 14


def masks(keys: list[int], rate: float, first: int = 0) -> Bits:
    return np.array([dropout_mask(first, N, key, rate) for key in keys])


def keys_of(kind: str) -> list[int]:
    """256 keys: of steps, of seeds; and some that were not made by `key`."""
    return {
        "steps": [numerics.key(7, step) for step in range(256)],
        "seeds": [numerics.key(seed, 3) for seed in range(256)],
        "high": [i << 24 for i in range(256)],
        "apart": [(0x9E3779B9 * i) & 0xFFFFFFFF for i in range(256)],
    }[kind]


kinds = pytest.mark.parametrize("kind", ["steps", "seeds", "high", "apart"])
several = pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.9])


@kinds
@several
def test_as_many_are_dropped_as_should_be(kind: str, rate: float) -> None:
    """In every mask, at every index, and in all."""
    dropped = ~masks(keys_of(kind), rate)
    for axis, count in ((None, dropped.size), (0, 256), (1, N)):
        assert (np.abs(dropped.mean(axis=axis) - rate) < SIGMAS * np.sqrt(rate * (1 - rate) / count)).all()


def correlation(one: Bits, other: Bits, rate: float) -> NDArray[np.float64]:
    """Of the last axis, in standard deviations of what independent masks have."""
    a, b = (mask - (1 - rate) for mask in (one, other))
    return (a * b).mean(axis=-1) / (rate * (1 - rate)) * np.sqrt(one.shape[-1])


@kinds
@several
def test_neighbours_are_independent(kind: str, rate: float) -> None:
    mask = masks(keys_of(kind)[:32], rate)
    for lag in (*range(1, 33), 64, 100, 128, 255, 256, 1000, 1024, 4096, 8192):
        assert (np.abs(correlation(mask[:, lag:], mask[:, :-lag], rate)) < SIGMAS).all(), lag


@kinds
@several
def test_steps_and_seeds_are_independent(kind: str, rate: float) -> None:
    """Any two of 32 masks, one of them shifted too."""
    mask = masks(keys_of(kind)[:32], rate)
    for shift in (0, 1, 2, 8, 64):
        for apart in range(1, 32):
            one, other = mask[apart:, shift:], mask[:-apart, : N - shift]
            assert (np.abs(correlation(one, other, rate)) < SIGMAS).all(), (shift, apart)


@kinds
def test_all_patterns_of_eight_neighbours_are_as_frequent(kind: str) -> None:
    patterns = np.packbits(masks(keys_of(kind), 0.5), axis=1)
    counts = np.bincount(patterns.reshape(-1), minlength=256)
    expected = patterns.size / 256
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_squared - 255) < SIGMAS * np.sqrt(2 * 255)


def test_keys_differ() -> None:
    keys = [numerics.key(seed, layer, step) for seed in range(20) for layer in range(5) for step in range(1000)]
    assert all(0 <= key < 1 << 32 for key in keys)
    assert len(set(keys)) > len(keys) - 10  # of 100,000 words drawn from 2**32, about one is drawn twice
    assert numerics.key(-1, 0) != numerics.key(0, -1)
