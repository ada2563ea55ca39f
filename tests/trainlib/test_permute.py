"""Protects the kernel that puts axes in another order: right numbers in any tile, for every number of cores."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.trainlib.arrays import core_counts, seeds
from tests.trainlib.bench import Bench
from trainlib.kernels.permute import LONGEST_ROW, axes_of, permute

Dims = tuple[int, ...]


@st.composite
def arrays(draw: st.DrawFn) -> tuple[Dims, Dims]:
    """Sizes and an order of up to six axes."""
    dims = draw(st.lists(st.one_of(st.integers(1, 3), st.integers(1, 9)), min_size=1, max_size=6))
    while prod(dims) > 3000:
        dims.pop()
    return tuple(dims), tuple(draw(st.permutations(range(len(dims)))))


def moved(dims: Dims, order: Dims, cores: int, seed: int, cuts: tuple[float, ...] = (), engine: Any = "traces") -> Any:
    """cuts: where tiles of rows begin, as parts of all. On a machine with more cores than share the work."""
    bench, axes = Bench(8, seed, engine), axes_of(dims, order)
    x = bench.rng.standard_normal(dims).astype(np.float32)
    y, rows = np.ascontiguousarray(x.transpose(order)).reshape(-1, axes[-1][0]), prod(size for size, _ in axes[:-1])
    assert len(y) == rows
    at_x, calls = bench.place(x), []
    ends = sorted({0, rows, *(int(cut * rows) for cut in cuts)})
    for first, end in pairwise(ends):
        at_y = bench.space(y[first:end].size)
        calls.append(permute(at_x, at_y, axes, first, end - first, cores))
        bench.expect(at_y, y[first:end])
    return bench.run(*calls)


@settings(max_examples=60)
@given(array=arrays(), cores=core_counts, seed=seeds, cuts=st.lists(st.floats(0, 1), max_size=2).map(tuple))
@example(array=((1,), (0,)), cores=8, seed=0, cuts=())
@example(array=((2,) * 11, tuple(range(11))[::-1]), cores=8, seed=0, cuts=(0.3,))
@example(array=((700, 3), (1, 0)), cores=8, seed=0, cuts=(0.5,))
@example(array=((3, 700), (1, 0)), cores=8, seed=0, cuts=(0.5,))
def test_every_number_comes_to_its_place_and_nothing_else_is_written(
    array: tuple[Dims, Dims], cores: int, seed: int, cuts: tuple[float, ...]
) -> None:
    moved(*array, cores, seed, cuts)


def test_both_engines_move_alike() -> None:
    for array in (((3, 4, 5), (2, 0, 1)), ((7, 2), (1, 0)), ((12,), (0,))):
        assert moved(*array, 4, 1) == moved(*array, 4, 1, engine="reference")


@pytest.mark.parametrize("array", [((64, 48), (1, 0)), ((4, 16, 3, 16), (2, 0, 3, 1)), ((3072,), (0,))])
def test_moving_is_work_for_all_cores(array: tuple[Dims, Dims]) -> None:
    [alone], [together] = (moved(*array, cores, 0) for cores in (1, 8))
    assert together.cycles < alone.cycles / 4


def test_axes_that_stay_neighbours_are_one_and_long_rows_are_cut() -> None:
    assert axes_of((2, 3, 4), (2, 0, 1)) == ((4, 1), (6, 4))
    assert axes_of((5, 1, 7), (1, 2, 0)) == ((7, 1), (5, 7))
    assert axes_of((2, 640), (1, 0)) == ((640, 1), (2, 640))
    assert axes_of((640, 2), (1, 0)) == ((2, 1), (10, 128), (LONGEST_ROW, 2))
