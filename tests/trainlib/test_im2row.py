"""Protects im2row: every window of every tile, with zeros wherever it leaves the image, and nothing else written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pulpsim.machine import Result
from tests.trainlib.arrays import ALL_KINDS, UNIT, Floats, assert_same_bits, assert_within, core_counts, seeds, values
from tests.trainlib.bench import Bench
from trainlib.kernels import im2row as kernels
from trainlib.numerics import im2row as numerics
from trainlib.numerics import layout

#: words of L1 that a case may take
ROOM = 12_000


@dataclass(frozen=True)
class Case:
    """One call of either kernel: `image` is x [C, H, W] or dy [Co, Ho, Wo], `output` (ho, wo) or (h, w)."""

    image: tuple[int, int, int]
    output: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    top: int
    left: int
    first_row: int
    row_padding: int
    cores: int
    kind: str
    seed: int
    dilation: tuple[int, int] = (1, 1)

    @property
    def columns(self) -> int:
        return self.image[0] * self.kernel[0] * self.kernel[1]

    @property
    def rows(self) -> int:
        return self.output[0] * self.output[1]


def halved(case: Case) -> Case:
    """The case with less work: the longest of what the matrix's size is a product of, halved."""
    parts = [case.image[0], *case.output, *case.kernel]
    longest = parts.index(max(parts))
    parts[longest] //= 2
    return replace(case, image=(parts[0], *case.image[1:]), output=(parts[1], parts[2]), kernel=(parts[3], parts[4]))


def that_fits(case: Case) -> Case:
    while case.rows * (case.columns + case.row_padding) + int(np.prod(case.image)) > ROOM:
        case = halved(case)
    return case


few = st.one_of(st.integers(1, 5), st.integers(1, 12))
some = st.one_of(st.integers(1, 9), st.integers(1, 40))
strides = st.one_of(st.just(1), st.integers(1, 4))
offsets = st.one_of(st.integers(0, 2), st.integers(-9, 14))
cases = st.builds(
    Case, st.tuples(some, few, few) | st.tuples(st.just(1), some, some), st.tuples(some, some), st.tuples(few, few),
    st.tuples(strides, strides), offsets, offsets, offsets, st.sampled_from([0, 0, 1, 5]), core_counts,
    st.sampled_from(ALL_KINDS), seeds, st.just((1, 1)) | st.tuples(strides, strides),
).map(that_fits)  # fmt: skip


def windows(spread: Floats, stride: tuple[int, int], begin: tuple[int, int], case: Case) -> Floats:
    """The matrix by NumPy's indexing: the image in the midst of more zeros than any window reaches."""
    margin, output = 250, case.output
    wide = np.pad(spread, ((0, 0), (margin, margin), (margin, margin)))
    y, x = (
        margin + begin[d] + stride[d] * np.arange(output[d])[:, None] + case.dilation[d] * np.arange(case.kernel[d])
        for d in range(2)
    )
    taken = wide[:, y[:, None, :, None], x[None, :, None, :]]  # [C, ho, wo, Hk, Wk]
    return np.ascontiguousarray(taken.transpose(1, 2, 0, 3, 4).reshape(output[0] * output[1], -1))


def spread(dy: Floats, stride: tuple[int, int]) -> Floats:
    co, ho, wo = dy.shape
    wide = np.zeros((co, stride[0] * (ho - 1) + 1, stride[1] * (wo - 1) + 1), np.float32)
    wide[:, :: stride[0], :: stride[1]] = dy
    return wide


def forward(case: Case, engine: Literal["traces", "jit", "reference"] = "traces") -> list[Result]:
    bench = Bench(case.cores, case.seed, engine)
    x = values(bench.rng, case.image, case.kind)
    expected = numerics.im2row(x, *case.kernel, *case.stride, case.top, case.left, *case.output, *case.dilation)
    assert_same_bits(expected, windows(x, case.stride, (-case.top, -case.left), case))
    at_x, at_rows = bench.place(x), bench.space(case.rows * (case.columns + case.row_padding))
    bench.expect_tile(at_rows, expected, case.row_padding)
    return bench.run(
        kernels.im2row(
            at_x, at_rows, case.image, case.kernel, case.stride, case.top, case.left, *case.output, case.cores,
            4 * (case.columns + case.row_padding) if case.row_padding else None, case.dilation,
        )
    )  # fmt: skip


def gradient(case: Case, engine: Literal["traces", "jit", "reference"] = "traces") -> list[Result]:
    bench = Bench(case.cores, case.seed, engine)
    dy = values(bench.rng, case.image, case.kind)
    last = [case.dilation[d] * (case.kernel[d] - 1) - (case.top, case.left)[d] for d in range(2)]
    expected = numerics.im2row_gradient(
        dy, *case.kernel, *case.stride, case.top, case.left, *case.output, case.first_row, *case.dilation
    )
    assert_same_bits(expected, windows(spread(dy, case.stride), (1, 1), (case.first_row - last[0], -last[1]), case))
    at_dy, at_rows = bench.place(dy), bench.space(case.rows * (case.columns + case.row_padding))
    bench.expect_tile(at_rows, expected, case.row_padding)
    return bench.run(
        kernels.im2row_gradient(
            at_dy, at_rows, case.image, case.kernel, case.stride, case.top, case.left, *case.output, case.first_row,
            case.cores, 4 * (case.columns + case.row_padding) if case.row_padding else None, case.dilation,
        )
    )  # fmt: skip


PLAIN = Case((1, 4, 4), (4, 4), (3, 3), (1, 1), 1, 1, 0, 0, 8, "plain", 0)


@settings(max_examples=120)
@given(case=cases)
@example(case=replace(PLAIN, image=(1, 34, 8), output=(25, 5), kernel=(10, 4), top=0, left=0))
@example(case=replace(PLAIN, image=(8, 8, 8), output=(8, 8)))
@example(case=replace(PLAIN, image=(1, 1, 40), output=(1, 40), kernel=(1, 3), top=0))
@example(case=replace(PLAIN, image=(1, 1, 600), output=(1, 600), kernel=(1, 3), top=0))  # steps too long for immediates
@example(case=replace(PLAIN, image=(1, 2, 3), output=(4, 4), top=5, left=5))  # no window sees the image
@example(case=replace(PLAIN, image=(2, 9, 9), output=(3, 3), kernel=(7, 7), top=0, left=0))  # too large to unroll
@example(case=replace(PLAIN, image=(3, 9, 9), output=(9, 9), top=2, left=2, dilation=(2, 2)))
@example(case=replace(PLAIN, image=(1, 3, 1200), output=(3, 5), top=0, left=0, dilation=(1, 520)))  # far apart
def test_im2row_gives_every_window_and_writes_nothing_else(case: Case) -> None:
    forward(case)


@settings(max_examples=120)
@given(case=cases)
@example(case=replace(PLAIN, image=(8, 6, 6), output=(8, 8), top=0, left=0))
@example(case=replace(PLAIN, image=(3, 5, 5), output=(10, 10), stride=(2, 2)))
@example(case=replace(PLAIN, image=(3, 5, 5), output=(10, 10), kernel=(1, 1), stride=(2, 2), top=0, left=0))
@example(case=replace(PLAIN, image=(2, 4, 4), output=(11, 11), kernel=(2, 2), stride=(3, 3), top=0, left=0))
@example(case=replace(PLAIN, image=(3, 9, 9), output=(9, 9), top=2, left=2, dilation=(2, 2)))
@example(case=replace(PLAIN, image=(3, 5, 5), output=(9, 9), stride=(2, 2), top=3, left=3, dilation=(3, 3)))
@example(case=replace(PLAIN, image=(3, 5, 5), output=(9, 9), stride=(2, 4), top=2, left=2, dilation=(2, 2)))
@example(case=replace(PLAIN, image=(2, 3, 3), output=(7, 9), stride=(3, 1), left=-3))  # spread in one direction
@example(case=replace(PLAIN, image=(2, 3, 3), output=(7, 9), stride=(1, 3), left=-3))
def test_im2row_of_the_input_gradient_gives_every_window_of_the_spread_gradient(case: Case) -> None:
    gradient(case)


@dataclass(frozen=True)
class Layer:
    """A convolution of x [C, H, W] with zeros of width `padding` around it."""

    image: tuple[int, int, int]
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    cores: int
    seed: int
    dilation: tuple[int, int] = (1, 1)

    @property
    def reach(self) -> tuple[int, int]:
        """From a window's first element to its last."""
        h, w = (dilation * (kernel - 1) for dilation, kernel in zip(self.dilation, self.kernel, strict=True))
        return h, w

    @property
    def output(self) -> tuple[int, int]:
        ho, wo = ((self.image[1 + d] + 2 * self.padding[d] - self.reach[d] - 1) // self.stride[d] + 1 for d in range(2))
        return ho, wo

    def patch(self, padded: Floats, y: int, x: int) -> Floats:
        """What output (y, x) sees, as a view of the padded image."""
        u, v = y * self.stride[0], x * self.stride[1]
        return padded[:, u : u + self.reach[0] + 1 : self.dilation[0], v : v + self.reach[1] + 1 : self.dilation[1]]


tiny, dilations = st.integers(1, 4), st.integers(1, 3)
layers = st.builds(
    Layer, st.tuples(tiny, st.integers(4, 9), st.integers(4, 9)), tiny, st.tuples(tiny, tiny), st.tuples(tiny, tiny),
    st.tuples(st.integers(0, 3), st.integers(0, 3)), core_counts, seeds, st.tuples(dilations, dilations),
).filter(lambda layer: min(layer.output) > 0)  # fmt: skip


@settings(max_examples=40)
@given(layer=layers)
@example(layer=Layer((8, 8, 8), 4, (3, 3), (1, 1), (1, 1), 8, 0))
def test_weight_gradient_of_a_padded_convolution(layer: Layer) -> None:
    """dW = dY im2row(X): the padding's zeros have to be there, in the places of the padding."""
    bench = Bench(layer.cores, layer.seed)
    (c, _, _), (ho, wo), (top, left) = layer.image, layer.output, layer.padding
    x, dy = values(bench.rng, layer.image), values(bench.rng, (layer.outputs, ho, wo))
    at_x, at_rows = bench.place(x), bench.space(ho * wo * c * layer.kernel[0] * layer.kernel[1])
    bench.expect(at_rows, numerics.im2row(x, *layer.kernel, *layer.stride, top, left, ho, wo, *layer.dilation))
    bench.run(
        kernels.im2row(
            at_x, at_rows, layer.image, layer.kernel, layer.stride, top, left, ho, wo, layer.cores,
            dilation=layer.dilation,
        )
    )  # fmt: skip
    rows = bench.machine.memory.read(at_rows, ho * wo * c * layer.kernel[0] * layer.kernel[1]).reshape(ho * wo, -1)
    padded = np.pad(x.astype(np.float64), ((0, 0), (top, top), (left, left)))
    expected = np.zeros((layer.outputs, c, *layer.kernel))
    for o, y, column in np.ndindex(dy.shape):
        expected[o] += float(dy[o, y, column]) * layer.patch(padded, y, column)
    found = dy.reshape(layer.outputs, -1).astype(np.float64) @ rows.astype(np.float64)
    assert_within(found, expected.reshape(layer.outputs, -1), 1e-9 * (1 + np.abs(expected).max()), "dW")


@settings(max_examples=40)
@given(layer=layers, cut=st.integers(1, 8))
def test_input_gradient_in_tiles_of_rows(layer: Layer, cut: int) -> None:
    """dX = W' im2row(dY)^T, the rows of X and those of dY cut anywhere: the transpose of the forward pass."""
    bench = Bench(layer.cores, layer.seed)
    (c, h, w), (ho, wo), (top, left) = layer.image, layer.output, layer.padding
    kernel, taps = layer.kernel, layer.kernel[0] * layer.kernel[1]
    weights, dy = values(bench.rng, (layer.outputs, c, taps)), values(bench.rng, (layer.outputs, ho, wo))
    flipped = layout.flip_transpose(weights).reshape(c, -1).astype(np.float64)
    found = np.zeros((c, h, w))
    for u0 in range(0, h, cut):
        u1 = min(u0 + cut, h)
        # the rows of dy that these rows of x were used for
        y0 = min(max(0, -(-(u0 + top - layer.reach[0]) // layer.stride[0])), ho - 1)
        y1 = max(y0 + 1, min(ho, (u1 - 1 + top) // layer.stride[0] + 1))
        tile = np.ascontiguousarray(dy[:, y0:y1])
        first_row = u0 - layer.stride[0] * y0
        expected = numerics.im2row_gradient(
            tile, *kernel, *layer.stride, top, left, u1 - u0, w, first_row, *layer.dilation
        )
        at_dy, at_rows = bench.place(tile), bench.space(expected.size)
        bench.expect(at_rows, expected)
        bench.run(
            kernels.im2row_gradient(
                at_dy, at_rows, tile.shape, kernel, layer.stride, top, left, u1 - u0, w, first_row, layer.cores,
                dilation=layer.dilation,
            )
        )  # fmt: skip
        found[:, u0:u1] = (flipped @ expected.T.astype(np.float64)).reshape(c, u1 - u0, w)
    padded = np.zeros((c, h + 2 * top, w + 2 * left))
    shaped = weights.reshape(layer.outputs, c, *kernel).astype(np.float64)
    for o, y, x in np.ndindex(dy.shape):
        layer.patch(padded, y, x)[...] += float(dy[o, y, x]) * shaped[o]
    exact = padded[:, top : top + h, left : left + w]
    assert_within(found, exact, UNIT * 1e-4 * (1 + np.abs(exact).max()), "dX")


@settings(max_examples=8)
@given(case=cases.map(lambda case: replace(case, image=(1, *case.image[1:]))).filter(lambda case: case.rows < 40))
def test_both_engines_run_im2row_alike(case: Case) -> None:
    assert forward(case) == forward(case, "reference")
    assert gradient(case) == gradient(case, "reference")


@pytest.mark.parametrize("kernel", [(3, 3), (10, 4)])
def test_a_single_channel_is_work_for_all_cores(kernel: tuple[int, int]) -> None:
    case = replace(PLAIN, image=(1, 24, 16), output=(20, 12), kernel=kernel, top=0, left=0)
    alone, together = forward(replace(case, cores=1))[0].cycles, forward(replace(case, cores=8))[0].cycles
    assert together < alone / 4
