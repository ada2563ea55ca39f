"""Protects padding, dilation, transposes and fills: every word in its place, and nothing else written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pulpsim.machine import Result
from tests.trainlib.arrays import ALL_KINDS, assert_same_bits, core_counts, seeds, sizes, values
from tests.trainlib.bench import Bench
from trainlib.kernels import layout as kernels
from trainlib.numerics import layout as numerics

#: words of L1 that a case may take
ROOM = 12_000
kinds = st.sampled_from(ALL_KINDS)


@dataclass(frozen=True)
class Padding:
    shape: tuple[int, int, int]
    hp: int
    wp: int
    top: int
    left: int
    dilation: tuple[int, int]
    cores: int
    kind: str
    seed: int
    value: float = 0.0


def that_fits(case: Padding) -> Padding:
    c, h, w = case.shape
    while c * (h * w + case.hp * case.wp) > ROOM:
        c = c // 2
    return replace(case, shape=(c, h, w))


sides = st.one_of(st.integers(1, 7), st.integers(1, 40))
margins = st.one_of(st.integers(0, 3), st.integers(-12, 30))
dilations = st.one_of(st.just(1), st.integers(1, 5))
paddings = st.builds(
    Padding, st.tuples(sizes, sides, sides), sides, sides, margins, margins, st.tuples(dilations, dilations),
    core_counts, kinds, seeds, st.sampled_from([0.0, -0.0, 1.5, -np.inf, np.nan]),
).map(that_fits)  # fmt: skip
#: with the usual meaning: as many zeros on either side, nothing dropped
all_around = st.builds(
    lambda case, below, right: that_fits(
        replace(
            case, top=abs(case.top), left=abs(case.left),
            hp=abs(case.top) + case.dilation[0] * (case.shape[1] - 1) + 1 + below,
            wp=abs(case.left) + case.dilation[1] * (case.shape[2] - 1) + 1 + right,
        )
    ),
    st.builds(
        Padding, st.tuples(sizes, st.integers(1, 9), st.integers(1, 9)), st.just(0), st.just(0), st.integers(0, 4),
        st.integers(0, 4), st.tuples(dilations, dilations), core_counts, kinds, seeds,
    ),
    st.integers(0, 4), st.integers(0, 4),
)  # fmt: skip


def pad(case: Padding, engine: Literal["traces", "jit", "reference"] = "traces") -> list[Result]:
    bench = Bench(case.cores, case.seed, engine)
    x = values(bench.rng, case.shape, case.kind)
    expected = numerics.pad(x, case.hp, case.wp, case.top, case.left, *case.dilation, case.value)
    # NumPy's way: among more padding, of which a part is taken
    (c, h, w), (dh, dw), margin = case.shape, case.dilation, 40
    y, column = margin + case.top, margin + case.left
    size = c, max(margin + case.hp, y + dh * h), max(margin + case.wp, column + dw * w)
    wide = np.full(size, case.value, np.float32)
    wide[:, y : y + dh * h : dh, column : column + dw * w : dw] = x
    assert_same_bits(expected, wide[:, margin : margin + case.hp, margin : margin + case.wp])
    at_x, at_padded = bench.place(x), bench.space(expected.size)
    bench.expect(at_padded, expected)
    return bench.run(
        kernels.pad(
            at_x, at_padded, case.shape, case.hp, case.wp, case.top, case.left, case.cores, case.dilation[0],
            case.dilation[1], case.value,
        )
    )  # fmt: skip


PLAIN = Padding((4, 5, 5), 7, 7, 1, 1, (1, 1), 8, "plain", 0)


@settings(max_examples=200)
@given(case=st.one_of(paddings, all_around))
@example(case=PLAIN)
@example(case=replace(PLAIN, shape=(30, 25, 5), hp=27))
@example(case=replace(PLAIN, shape=(1, 1, 30), hp=3, wp=70, dilation=(1, 2)))  # a single row
@example(case=replace(PLAIN, shape=(3, 2, 3), hp=30, wp=60, dilation=(20, 19)))  # gaps that are loops
@example(case=replace(PLAIN, top=-5))  # every row is dropped
@example(case=replace(PLAIN, top=-2, left=-1, hp=2, wp=3, value=np.nan))  # a window of the image
@example(case=replace(PLAIN, left=-9, top=-9, hp=3, wp=3, dilation=(4, 3)))
@example(case=replace(PLAIN, shape=(1, 3, 600), hp=4, wp=1100, left=-10, dilation=(1, 2)))  # longer than immediates
def test_pad_puts_every_element_in_its_place_among_padding(case: Padding) -> None:
    pad(case)


@dataclass(frozen=True)
class Matrix:
    rows: int
    columns: int
    taps: int
    paddings: tuple[int, int]
    cores: int
    kind: str
    seed: int


matrices = st.builds(
    Matrix, sizes, sizes, st.one_of(st.just(1), st.integers(1, 12), st.sampled_from([16, 25, 40])),
    st.tuples(st.integers(0, 8), st.integers(0, 8)), core_counts, kinds, seeds,
).filter(lambda m: 2 * m.rows * m.columns * m.taps <= ROOM)  # fmt: skip


def transpose(m: Matrix, engine: Literal["traces", "jit", "reference"] = "traces") -> list[Result]:
    bench = Bench(m.cores, m.seed, engine)
    x = values(bench.rng, (m.rows, m.columns), m.kind)
    expected = numerics.transpose(x)
    assert_same_bits(expected, x.T)
    one, other = m.paddings
    at_x, at_y = bench.place_tile(x, one), bench.space(m.columns * (m.rows + other))
    bench.expect_tile(at_y, expected, other)
    return bench.run(
        kernels.transpose(at_x, at_y, m.rows, m.columns, 4 * (m.columns + one), 4 * (m.rows + other), m.cores)
    )


def flip_transpose(m: Matrix, engine: Literal["traces", "jit", "reference"] = "traces") -> list[Result]:
    bench = Bench(m.cores, m.seed, engine)
    w = values(bench.rng, (m.rows, m.columns, m.taps), m.kind)
    expected = numerics.flip_transpose(w)
    assert_same_bits(expected, w[:, :, ::-1].transpose(1, 0, 2))
    at_w, at_flipped = bench.place(w), bench.space(w.size)
    bench.expect(at_flipped, expected)
    return bench.run(kernels.flip_transpose(at_w, at_flipped, m.rows, m.columns, m.taps, m.cores))


@settings(max_examples=80)
@given(m=matrices)
def test_transpose(m: Matrix) -> None:
    transpose(m)


@settings(max_examples=80)
@given(m=matrices)
def test_flip_transpose(m: Matrix) -> None:
    flip_transpose(m)


def fill(words: int, cores: int, seed: int, engine: Literal["traces", "jit", "reference"] = "traces") -> list[Result]:
    bench = Bench(cores, seed, engine)
    pattern = int(bench.rng.integers(1 << 32)) & 0xFF7FFFFF  # no NaN: those are all alike to the test bench
    at = bench.space(words)
    bench.expect(at, np.full(words, pattern, np.uint32).view(np.float32))
    return bench.run(kernels.fill(at, words, pattern, cores))


@settings(max_examples=60)
@given(words=st.one_of(st.integers(1, 70), st.integers(1, 2000)), cores=core_counts, seed=seeds)
def test_fill(words: int, cores: int, seed: int) -> None:
    fill(words, cores, seed)


@settings(max_examples=8)
@given(
    case=paddings.filter(lambda case: case.shape[0] * case.hp * case.wp < 600),
    m=matrices.filter(lambda m: m.rows * m.columns * m.taps < 600),
)
def test_both_engines_move_data_alike(case: Padding, m: Matrix) -> None:
    assert pad(case) == pad(case, "reference")
    assert transpose(m) == transpose(m, "reference")
    assert flip_transpose(m) == flip_transpose(m, "reference")
    assert fill(m.rows, m.cores, m.seed) == fill(m.rows, m.cores, m.seed, "reference")


@pytest.mark.parametrize("shape", [(1, 40, 40), (40, 1, 40), (1, 1, 1600)])
def test_padding_is_work_for_all_cores(shape: tuple[int, int, int]) -> None:
    case = replace(PLAIN, shape=shape, hp=shape[1], wp=shape[2] + 2, top=0)
    alone, together = pad(replace(case, cores=1))[0].cycles, pad(replace(case, cores=8))[0].cycles
    assert together < alone / 4
