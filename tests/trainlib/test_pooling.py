"""Protects pooling: values, gradients and their bits for every window, stride and core count; nothing else written.

And that it may be cut anywhere: by rows of images, of windows, and of what lies between them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pulpsim.machine import Result
from pulpsim.platform import Platform
from tests.trainlib.agreement import check
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
from tests.trainlib.networks import Case as Steps
from tests.trainlib.networks import plans as plans_of
from trainlib.kernels import layout
from trainlib.kernels import pooling as kernels
from trainlib.layers import AveragePool, GlobalAveragePool, Layer, MaxPool, PointWise, Window
from trainlib.model import Model
from trainlib.numerics import pooling as numerics
from trainlib.operators.geometry import Geometry
from trainlib.plan import LayerStep, Plan, Tile, backward_choices, tile_limits

Engine = Literal["traces", "jit", "reference"]
#: of pools with padding
Kind = Literal["maximum", "mean", "mean of all"]
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


def average_pool(case: Case, engine: Engine = "traces") -> list[Result]:
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


def max_pool(case: Case, engine: Engine = "traces") -> list[Result]:
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


def average_pool_gradient(case: Case, engine: Engine = "traces") -> list[Result]:
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


def max_pool_gradient(case: Case, engine: Engine = "traces") -> list[Result]:
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


# -- with padding ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Framed:
    """A pool of the image in a frame, whose margins (top, below, left, right) are narrower than a window."""

    case: Case  # its shape is that of the image
    margins: tuple[int, int, int, int]

    @property
    def framed(self) -> Case:
        (c, h, w), (top, below, left, right) = self.case.shape, self.margins
        return replace(self.case, shape=(c, h + top + below, w + left + right))

    def around(self, x: Floats, value: float) -> Floats:
        top, below, left, right = self.margins
        return np.pad(x, ((0, 0), (top, below), (left, right)), constant_values=value)

    def inside(self, frame: Floats) -> Floats:
        (_, h, w), (top, _, left, _) = self.case.shape, self.margins
        return np.ascontiguousarray(frame[:, top : top + h, left : left + w])


@st.composite
def framed(draw: st.DrawFn) -> Framed:
    case = draw(cases)
    rows, columns = (st.integers(0, min(kernel - 1, 4)) for kernel in case.kernel)
    found = Framed(case, (draw(rows), draw(rows), draw(columns), draw(columns)))
    channels = max(1, ROOM // 5 // int(np.prod(found.framed.shape[1:])))
    return replace(found, case=replace(case, shape=(min(case.shape[0], channels), *case.shape[1:])))


def first_of_the_largest(f: Framed, x: Floats) -> Floats:
    """1 where a window's first largest element of the image is, [C, Ho, Wo, elements]."""
    there = windows(f.around(np.where(np.isnan(x), 0, 1), 0), f.framed) > 0
    parts = np.where(there, windows(f.around(x, 0.0), f.framed), -np.inf)
    hits = there & (parts == parts.max(axis=-1, keepdims=True))
    return (hits & (hits.cumsum(axis=-1) == 1)).astype(np.float64)


def shares_of(kind: Kind, f: Framed, x: Floats) -> Floats:
    """What a window's output has of each of its elements, [C, Ho, Wo, elements]."""
    if kind == "maximum":
        return first_of_the_largest(f, x)
    counted = windows(f.around(np.ones(x.shape), float(kind == "mean of all")), f.framed)
    return counted / counted.sum(axis=-1, keepdims=True)


def pool_in_a_frame(kind: Kind, f: Framed) -> None:
    """Forward and backward, against the twins and, within rounding, sums and maxima of the image alone."""
    bench, case, margins, maximum = Bench(f.case.cores, f.case.seed), f.framed, f.margins, kind == "maximum"
    x, dy = numbers(bench.rng, f.case.shape, f.case.kind), values(bench.rng, case.output)
    (_, h, w), window, corner = f.case.shape, (*case.kernel, *case.stride), margins[::2]
    shares = shares_of(kind, f, x)
    if maximum:
        y, dx = numerics.max_pool(x, *window, *margins), numerics.max_pool_gradient(dy, x, *window, *corner)
        assert (np.isnan(y) == (shares.sum(axis=-1) == 0)).all()
    else:
        every = kind == "mean of all"
        y = numerics.average_pool(x, *window, *margins, every)
        dx = numerics.average_pool_gradient(dy, h, w, *window, *corner, every)
    if f.case.kind in FINITE:
        parts = windows(f.around(x, 0.0).astype(np.float64), case)
        bound = 1.01 * (case.elements + 2) * UNIT
        assert_within(y, (shares * parts).sum(axis=-1), bound * (shares * np.abs(parts)).sum(axis=-1) + 2 * TINY)
        exact, size = (f.inside(scattered(shares * d[..., None], case)) for d in (dy.astype(np.float64), np.abs(dy)))
        assert_within(dx, exact, bound * size + TINY * case.elements)
    words = int(np.prod(case.shape))
    at_x, at_dy, at_frame, at_dframe = bench.place(x), bench.place(dy), bench.space(words), bench.space(words)
    at_y, at_dx = bench.space(dy.size), bench.space(x.size)
    shape = case.shape, case.kernel, case.stride, case.cores
    if maximum:
        pools = kernels.max_pool(at_frame, at_y, *shape), kernels.max_pool_gradient(at_dy, at_frame, at_dframe, *shape)
    else:
        pools = (
            kernels.average_pool(at_frame, at_y, *shape, mean=every),
            kernels.average_pool_gradient(at_dy, at_dframe, *shape, mean=every),
        )
    divisions = []
    if kind == "mean":
        at = (h, w), case.kernel, case.stride, (-margins[0], -margins[2]), case.cores
        divisions = [kernels.per_element(place, case.output, *at) for place in (at_y, at_dy)]
        bench.expect(at_dy, dy * shares.max(axis=-1).astype(np.float32))
    for place, expected in ((at_y, y), (at_dx, dx), (at_frame, np.zeros(words)), (at_dframe, np.zeros(words))):
        bench.expect(place, expected.astype(np.float32))
    bench.run(
        layout.pad(at_x, at_frame, f.case.shape, *case.shape[1:], *corner, case.cores, value=np.nan if maximum else 0),
        pools[0],
        *divisions,
        pools[1],
        layout.pad(at_dframe, at_dx, case.shape, h, w, *(-margin for margin in corner), case.cores),
        *(layout.fill(place, words, 0, case.cores) for place in (at_frame, at_dframe)),
    )


@pytest.mark.parametrize("kind", get_args(Kind))
@settings(max_examples=60)
@given(f=framed())
@example(f=Framed(replace(PLAIN, kernel=(3, 3)), (1, 1, 1, 1)))
@example(f=Framed(replace(PLAIN, kernel=(3, 3), kind="nan"), (0, 1, 0, 1)))
@example(f=Framed(replace(PLAIN, shape=(3, 1, 33), kernel=(1, 2), stride=(1, 4)), (0, 0, 0, 1)))  # a run of eight
@example(f=Framed(replace(PLAIN, shape=(1, 40, 3), kernel=(9, 3)), (8, 8, 2, 2)))  # rows that cores begin amid
def test_a_pool_of_a_framed_image_is_one_with_padding(kind: Kind, f: Framed) -> None:
    pool_in_a_frame(kind, f)


def test_what_is_minus_infinity_everywhere_still_has_its_maximum_in_the_image() -> None:
    x, dy = np.full((1, 2, 2), -np.inf, np.float32), np.ones((1, 2, 2), np.float32)
    assert_same_bits(numerics.max_pool(x, 3, 3, 1, 1, 1, 1, 1, 1), x)
    assert_same_bits(numerics.max_pool_gradient(dy, x, 3, 3, 1, 1, 1, 1), np.array([[[4, 0], [0, 0]]]))


def test_a_mean_leaves_padding_out_unless_it_is_told_to_count_it() -> None:
    """As TensorFlow and ONNX have it, and as PyTorch does."""
    x = np.full((1, 2, 2), 9, np.float32)
    pool = AveragePool("pool", 3, 1, padding=1)
    assert (pool.forward({}, x) == 9).all()
    assert (replace(pool, count_padding=True).forward({}, x) == 4).all()


# -- windows in parts ------------------------------------------------------------------------------
@dataclass(frozen=True)
class Parts:
    """One row of windows as tall as the image or, in a backward pass, less; the rows of it where tiles begin."""

    case: Case
    cuts: tuple[int, ...]

    def tiles(self, end: int) -> list[tuple[int, int]]:
        edges = [0, *sorted({cut for cut in self.cuts if 0 < cut < end}), end]
        return list(pairwise(edges))


@st.composite
def parted(draw: st.DrawFn) -> Parts:
    case = draw(cases)
    height = case.shape[1]
    case = replace(case, kernel=(draw(st.integers(1, height)), case.kernel[1]), stride=(height, case.stride[1]))
    return Parts(case, tuple(draw(st.lists(st.integers(1, 40), max_size=4))))


PARTS = Parts(replace(PLAIN, kernel=(4, 3), stride=(6, 2)), (1, 3))  # the last tile has rows below the windows


def forward_in_parts(maximum: bool, p: Parts) -> None:
    case = replace(p.case, shape=(p.case.shape[0], p.case.kernel[0], p.case.shape[2]))
    bench = Bench(case.cores, case.seed)
    x, (c, h, w) = numbers(bench.rng, case.shape, case.kind), case.shape
    kernel, twin = (kernels.max_pool, numerics.max_pool) if maximum else (kernels.average_pool, numerics.average_pool)
    expected = twin(x, *case.kernel, *case.stride)
    at_y, calls = bench.space(expected.size), []
    for first, end in p.tiles(h):
        part = kernels.Part(h, first == 0, end == h)
        at_x, shape = bench.place(x[:, first:end].copy()), (c, end - first, w)
        window = (end - first, case.kernel[1])
        calls.append(kernel(at_x, at_y, shape, window, case.stride, case.cores, part))
    bench.expect(at_y, expected)
    bench.run(*calls)


def backward_in_parts(maximum: bool, p: Parts) -> None:
    case, bench = p.case, Bench(p.case.cores, p.case.seed)
    x, dy = numbers(bench.rng, case.shape, case.kind), numbers(bench.rng, case.output, case.kind)
    (c, h, w), (kernel_h, kernel_w) = case.shape, case.kernel
    at_dy, calls = bench.place(dy), []
    if maximum:
        y = numerics.max_pool(x, *case.kernel, *case.stride)
        at_y, expected = bench.place(y), numerics.max_pool_gradient(dy, x, *case.kernel, *case.stride)
    else:
        at_y, expected = 0, numerics.average_pool_gradient(dy, h, w, *case.kernel, *case.stride)
    for first, end in p.tiles(h):
        if first >= kernel_h:
            break  # below the windows
        rows, shape = min(end, kernel_h) - first, (c, end - first, w)
        at_x, at_dx = bench.place(x[:, first:end].copy()), bench.space(c * (end - first) * w)
        window, across = (rows, kernel_w), case.stride[1]
        if maximum:
            make, at = kernels.max_pool_gradient_part, (at_dy, at_x, at_y, at_dx)
        else:
            make, at = kernels.average_pool_gradient_part, (at_dy, at_dx)  # type: ignore[assignment]
        calls.append(make(*at, shape, window, across, kernel_h, case.cores))
        bench.expect(at_dx, expected[:, first:end])
    if maximum:  # what is left: nothing but of windows without a number
        bench.expect(at_dy, np.where(np.isnan(y), dy + np.float32(0), np.float32(0)))
    bench.run(*calls)


@pytest.mark.parametrize("maximum", [False, True], ids=["average", "maximum"])
@given(p=parted())
@example(p=PARTS)
@example(p=replace(PARTS, case=replace(PARTS.case, kind="ties")))
@example(p=replace(PARTS, case=replace(PARTS.case, kind="nan", kernel=(6, 6))))
def test_a_window_in_parts_is_the_whole_window(maximum: bool, p: Parts) -> None:
    """Sums and maxima go on where they were left; of equal elements, the first of all parts gets the gradient."""
    forward_in_parts(maximum, p)
    backward_in_parts(maximum, p)


# -- images in tiles -------------------------------------------------------------------------------
windows_of = st.builds(
    lambda h, w, kh, kw, sh, sw: Window(h, w, min(kh, h), min(kw, w), sh, sw, 0, 0, 0, 0),
    st.integers(1, 14), st.integers(1, 9), edges, edges, steps, steps,
)  # fmt: skip


@st.composite
def padded_windows(draw: st.DrawFn) -> Window:
    """Also kernels that are larger than the image."""
    at = draw(windows_of)
    if not draw(st.integers(0, 3)):
        return at
    sides: list[int] = []
    for size, kernel in ((at.height, at.kernel_h), (at.width, at.kernel_w)):
        more = draw(st.integers(0, 2)) if kernel == size else 0
        before = draw(st.integers(min(more, kernel + more - 1), kernel + more - 1))
        sides += [before, draw(st.integers(max(kernel + more - size - before, 0), kernel + more - 1)), more]
    top, bottom, taller, left, right, wider = sides
    kernel = at.kernel_h + taller, at.kernel_w + wider
    return Window(at.height, at.width, *kernel, at.stride_h, at.stride_w, top, bottom, left, right)


@given(at=padded_windows())
def test_every_window_meets_the_image_and_rows_of_the_frame_are_the_image_s_or_padding(at: Window) -> None:
    frame = at.framed
    assert (frame.out_h, frame.out_w, frame.padded) == (at.out_h, at.out_w, False)
    inside = np.arange(-at.top, at.height + at.bottom)
    for rows in [
        *((at.stride_h * window, at.stride_h * window + at.kernel_h) for window in range(at.out_h)),
        *pairwise(range(at.padded_h + 1)),
    ]:
        seen = inside[slice(*rows)]
        first, end = at.image_rows(rows)
        assert list(range(first, end)) == list(seen[(seen >= 0) & (seen < at.height)])
        assert end > first or rows[1] - rows[0] == 1


@given(at=windows_of, lines=st.integers(0, 14))
@example(at=Window(9, 4, 2, 2, 4, 2, 0, 0, 0, 0), lines=1)  # rows between windows
@example(at=Window(7, 4, 2, 2, 2, 2, 0, 0, 0, 0), lines=2)  # a last row without window
@example(at=Window(12, 4, 5, 2, 2, 2, 0, 0, 0, 0), lines=1)
def test_tiles_cover_the_image_once_and_compute_nothing_twice_where_windows_do_not_overlap(
    at: Window, lines: int
) -> None:
    lines = min(lines, at.height)
    tiles = Geometry(at).spread(lines)
    assert [row for tile in tiles for row in range(*tile.rows)] == list(range(at.height))
    assert all(tile.rows[1] - tile.rows[0] <= (lines or at.height) for tile in tiles)
    computed = [row for tile in tiles for row in range(*tile.computed)]
    if at.out_h == 1 or at.kernel_h <= at.stride_h:
        assert computed == list(range(at.height))
        whole = [window for tile in tiles if tile.part < 0 for window in range(*tile.windows)]
        parts = [window for tile in tiles if tile.part > 0 for window in range(*tile.windows)]
        assert len(set(whole)) == len(whole) and not set(whole) & set(parts)
        assert sorted({*whole, *parts}) == list(range(at.out_h))
    for tile in tiles:
        assert tile.computed[0] <= tile.rows[0] and tile.rows[1] <= tile.computed[1] <= at.height
        for row in range(*tile.rows):  # every window that meets it is there, whole or as a part
            meets = {w for w in range(at.out_h) if 0 <= row - w * at.stride_h < at.kernel_h}
            assert meets <= set(range(*tile.windows))
            for window in meets if tile.part < 0 else ():
                assert tile.computed[0] <= window * at.stride_h
                assert window * at.stride_h + at.kernel_h <= tile.computed[1]


@st.composite
def pools(draw: st.DrawFn) -> Model:
    """A pool of any window above a layer that needs its input gradient, through a ReLU or not."""
    at, c = draw(padded_windows()), draw(st.integers(1, 4))
    window = (at.kernel_h, at.kernel_w), (at.stride_h, at.stride_w), (at.top, at.bottom, at.left, at.right)
    means = [AveragePool("pool", *window, count_padding) for count_padding in (False, True)]
    pool = draw(st.sampled_from([MaxPool("pool", *window), *means, GlobalAveragePool("pool")]))
    layers = PointWise("below", 2, c, relu=draw(st.booleans())), pool
    loss = draw(st.sampled_from(["mse", "l1", "cross-entropy"]))
    return Model("pools", layers, input_shape=(2, at.height, at.width), loss=loss)


@settings(max_examples=40)
@given(data=st.data(), model=pools(), cores=st.integers(1, 16), seed=seeds)
def test_pools_in_tiles_of_any_lines_leave_the_bits_of_the_functional_step(
    data: st.DataObject, model: Model, cores: int, seed: int
) -> None:
    platform = Platform.preset("pulp-2022", {"cluster.cores": cores, "l2.size_bytes": 256 << 10})
    check(Steps(model, data.draw(plans_of(model)), platform, seed))


def plan_of(model: Model, tiles: dict[tuple[str, str], Tile]) -> Plan:
    """Tiles by layer and step; of all others few rows of few channels."""
    forward = [(index, "fw") for index in range(len(model.layers))]
    backward = [(i, step) for i in reversed(range(len(model.layers))) for step in backward_choices(model, i)[0]]
    steps = []
    for index, step in forward + backward:
        name, kernel = model.layers[index].name, "mm_unroll_4x4" if index == 0 and step != "update" else ""
        rows, columns, lines = tile_limits(model, index, step)
        tile = tiles.get((name, step)) or Tile(rows=rows, columns=columns, lines=min(lines, 4))
        steps.append(LayerStep(layer=name, step=step, tile=tile, kernel=kernel))
    return Plan(model=model.name, platform="pulp-2022", steps=tuple(steps))


@pytest.mark.parametrize(
    ("pool", "forward", "backward"),
    [
        (AveragePool("pool", 2), Tile(rows=2, columns=1, lines=12), Tile(rows=2, columns=1, lines=16)),
        (AveragePool("pool", 5, 3), Tile(rows=1, columns=1, lines=12), Tile(rows=2, columns=1, lines=11)),
        (AveragePool("pool", 96, 1), Tile(rows=2, columns=1, lines=10), Tile(rows=2, columns=1, lines=10)),
        (MaxPool("pool", 2), Tile(rows=2, columns=1, lines=12), Tile(rows=2, columns=1, lines=7)),
        (MaxPool("pool", 3, 2), Tile(rows=1, columns=1, lines=12), Tile(rows=2, columns=1, lines=8)),
        (MaxPool("pool", 96, 1), Tile(rows=2, columns=1, lines=10), Tile(rows=2, columns=1, lines=10)),
        (AveragePool("pool", 2, 60), Tile(rows=2, columns=1, lines=1), Tile(rows=2, columns=1, lines=10)),
        (MaxPool("pool", 2, 60), Tile(rows=2, columns=1, lines=1), Tile(rows=2, columns=1, lines=10)),
        (GlobalAveragePool("pool"), Tile(rows=2, columns=1, lines=10), Tile(rows=2, columns=1, lines=10)),
        (MaxPool("pool", 3, 2, 1), Tile(rows=1, columns=1, lines=12), Tile(rows=1, columns=1, lines=8)),
        (AveragePool("pool", 3, 2, "same"), Tile(rows=1, columns=1, lines=12), Tile(rows=2, columns=1, lines=8)),
        (AveragePool("pool", 98, 3, 1), Tile(rows=1, columns=1, lines=9), Tile(rows=2, columns=1, lines=9)),
    ],
    ids=lambda value: str(getattr(value, "window", "") and value),
)  # fmt: skip
def test_planes_larger_than_l1(pool: Layer, forward: Tile, backward: Tile) -> None:
    """Three planes of 96 x 96, 110,592 bytes, on the default machine."""
    model = Model("large", (PointWise("below", 1, 3), pool), input_shape=(1, 96, 96))
    plan = plan_of(model, {("pool", "fw"): forward, ("pool", "ig"): backward})
    if model.outputs > 1000:
        plan = replace(plan, loss_tile=1000)
    check(Steps(model, plan, Platform.preset("pulp-2022"), 0))
