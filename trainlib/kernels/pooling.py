"""Average and maximum pooling without padding, forward and backward.

Windows of (kernel_h, kernel_w) every (stride_h, stride_w) of x [C, H, W]: y [C, Ho, Wo] with Ho =
(H - kernel_h) // stride_h + 1. Sums and the search for a maximum run over a window in row-major order, and go on
where they were left: a window may come in parts, some of its rows at a time. A NaN is no maximum unless there is
nothing else, and is then the canonical one. No timing depends on the data: a backward pass stores to every element
of a window.

A pool with padding is one of an image that `layout.pad` has framed: with NaN for a maximum, which is then that of the
elements in the image and has its gradient in one of them; with zeros for an average, which counts them as elements or,
if only the image's are to count, is a sum (mean=False) until `per_element` has divided it. `layout.pad` with negative
margins cuts the image's gradient out of the frame's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Call, Words, chunk_of
from trainlib.kernels.partition import advance_pointer, take_share
from trainlib.kernels.pieces import (
    FILL_UNROLL,
    MAX_IMMEDIATE,
    add_constant,
    add_scaled,
    constant_loop,
    divide,
    repeat,
    store_words,
)
from trainlib.kernels.touched import Given, Touched, array, touches
from trainlib.kernels.vector import bits

#: windows of up to so many elements are straight-line code; elements in the body of a hardware loop else
MAX_UNROLLED_WINDOW, UNROLL = 9, 4
NAN = 0x7FC00000


@dataclass(frozen=True)
class Geometry:
    """What a program is made for; kernel and stride: (height, width). tall: of windows of which these are parts.

    mean: of an average, whether an element counts by its share, or whole.
    """

    h: int
    w: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    tall: int = 0
    mean: bool = True

    @property
    def ho(self) -> int:
        return (self.h - self.kernel[0]) // self.stride[0] + 1

    @property
    def wo(self) -> int:
        return (self.w - self.kernel[1]) // self.stride[1] + 1

    @property
    def share(self) -> int:
        """FP32(1 / elements of a whole window)."""
        return bits(1.0 / ((self.tall or self.kernel[0]) * self.kernel[1]))

    @property
    def unrolled(self) -> bool:
        """Is a window straight-line code? Its elements are then addressed by immediates."""
        reach = 4 * (self.kernel[0] * self.w + self.stride[1])
        return self.kernel[0] * self.kernel[1] <= MAX_UNROLLED_WINDOW and reach <= MAX_IMMEDIATE

    @property
    def offsets(self) -> list[int]:
        """Byte offsets of a window's elements from the first element of the window to its right."""
        rows, columns = range(self.kernel[0]), range(self.kernel[1])
        return [4 * (i * self.w + j - self.stride[1]) for i in rows for j in columns]

    @property
    def rows_overlap(self) -> bool:
        """May a row be in windows of two rows of windows?"""
        return self.kernel[0] > self.stride[0] and self.ho > 1

    @property
    def overlap(self) -> bool:
        """May an element be in two windows?"""
        return self.rows_overlap or (self.kernel[1] > self.stride[1] and self.wo > 1)

    @property
    def covered(self) -> bool:
        """Is every element of a row of windows in one?"""
        if self.wo == 1:
            return self.kernel[1] == self.w
        return self.kernel[1] >= self.stride[1] and (self.w - self.kernel[1]) % self.stride[1] == 0


# -- emitters --------------------------------------------------------------------------------------
def _over_window(
    b: Builder, g: Geometry, pointers: tuple[Register, ...], unroll: int, body: Callable[[int], None]
) -> None:
    """Emit `body(n)` for all elements of a window; it moves each pointer by n elements."""
    (rows, columns), skip = g.kernel, 4 * (g.w - g.kernel[1])
    if skip == 0:
        rows, columns = 1, rows * columns
    with constant_loop(b, 1, rows):
        repeat(b, columns, unroll, body)
        for pointer in pointers:
            add_constant(b, pointer, pointer, skip)


@contextlib.contextmanager
def _over_outputs(b: Builder, g: Geometry, count: Register) -> Iterator[None]:
    """A loop around a window's code, which may hold two hardware loops unless it is straight-line."""
    if g.unrolled:
        with b.loop(0, count):
            yield
    else:
        again = b.here("window")
        yield
        b("addi", count, count, -1)
        b("bne", count, "x0", again)


def _reduce(b: Builder, maximum: bool, total: Register, values: list[Register]) -> None:
    for value in values:
        b("fmax.s" if maximum else "fadd.s", total, total, value)


def _reduce_window(b: Builder, g: Geometry, maximum: bool, total: Register, source: Register) -> None:
    """Emit total = its sum with, or maximum of it and, a window's elements in memory; source moves."""

    def body(n: int) -> None:
        values = b.registers("value", n)
        for value in values:
            b("p.lw", value, (source, 4, "!"))
        _reduce(b, maximum, total, values)
        b.free(*values)

    _over_window(b, g, (source,), UNROLL, body)


# -- forward ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Part:
    """Rows of windows of `tall` rows. begins: y holds nothing yet; ends: no rows are still to come."""

    tall: int = 0
    begins: bool = True
    ends: bool = True


WHOLE = Part()


def _pooled(a: Given, address: int) -> Words:
    """An image of an element a window."""
    geometry = Geometry(a.shape[1], a.shape[2], a.kernel, a.stride)
    return array(address, a.shape[0], geometry.ho, geometry.wo)


def _forward_touches(a: Given) -> Touched:
    y = _pooled(a, a.y)
    return [array(a.x, *a.shape), *[y] * (not a.part.begins)], [y]


@touches(_forward_touches)
def average_pool(
    x: int, y: int, shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], cores: int,
    part: Part = WHOLE, mean: bool = True,
) -> Call:  # fmt: skip
    """x [C, H, W] -> y [C, Ho, Wo]: the windows' sums, from +0 on, times FP32(1 / elements), but for mean=False.

    Of a part, kernel says the rows that there are: the sums go on from y, and the product comes at the end.
    """
    return _forward("avg_pool_fw", False, x, y, shape, kernel, stride, cores, part, mean)


@touches(_forward_touches)
def max_pool(
    x: int, y: int, shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], cores: int,
    part: Part = WHOLE,
) -> Call:  # fmt: skip
    """x [C, H, W] -> y [C, Ho, Wo]: the windows' maxima by fmax.s, NaN only if there is nothing else.

    Of a part, kernel says the rows that there are: the maxima are also those of y.
    """
    return _forward("max_pool_fw", True, x, y, shape, kernel, stride, cores, part)


def _forward(
    name: str, maximum: bool, x: int, y: int, shape: tuple[int, int, int], kernel: tuple[int, int],
    stride: tuple[int, int], cores: int, part: Part, mean: bool = False,
) -> Call:  # fmt: skip
    geometry = Geometry(shape[1], shape[2], kernel, stride, part.tall)
    outputs = shape[0] * geometry.ho * geometry.wo
    program = forward_program(geometry, maximum, not part.begins, part.ends and mean)
    return Call(program, name, (x, y, outputs, chunk_of(outputs, cores)))


@cache
def forward_program(g: Geometry, maximum: bool, accumulate: bool, multiply: bool) -> Program:
    """An output is a unit of work; a share is taken row by row of outputs."""
    b = Builder("pool_fw")
    b.entry("pool_fw")
    x, y, outputs, chunk = b.arguments("x", "y", "outputs", "chunk")
    done, row = b.label("done"), b.label("row")
    first, count = take_share(b, outputs, chunk, done)
    advance_pointer(b, y, first, 2)
    line, column = divide(b, first, g.wo)
    channel, line_of_channel = divide(b, line, g.ho)
    add_scaled(b, x, channel, 4 * g.h * g.w)
    add_scaled(b, x, line_of_channel, 4 * g.stride[0] * g.w)
    b.free(outputs, first, line, channel)
    constant = b.register("constant")
    if maximum or multiply:
        b.li(constant, NAN if maximum else g.share)
    left = line_of_channel
    with b.temporary("rows") as [rows]:
        b.li(rows, g.ho)
        b("sub", left, rows, left)  # rows of this channel, with this one
    b.place(row)
    with b.temporary("n", "source") as [n, source]:
        b.li(n, g.wo)
        b("sub", n, n, column)
        b("p.min", n, n, count)
        b("sub", count, count, n)
        b.mv(source, x)
        add_scaled(b, source, column, 4 * g.stride[1])
        with _over_outputs(b, g, n):
            start = None if accumulate else constant if maximum else "x0"
            _output(b, g, maximum, source, y, start, constant if multiply else None)
    b("beq", count, "x0", done)
    b.mv(column, "x0")
    add_constant(b, x, x, 4 * g.stride[0] * g.w)
    b("addi", left, left, -1)
    b("bne", left, "x0", row)
    b.li(left, g.ho)
    add_constant(b, x, x, 4 * (g.h - g.ho * g.stride[0]) * g.w)
    b("jal", "x0", row)
    b.place(done)
    b.ret()
    return b.build()


def _output(
    b: Builder, g: Geometry, maximum: bool, source: Register, y: Register, start: Register | str | None,
    factor: Register | None,
) -> None:  # fmt: skip
    """Emit one output; `source` moves to the next window. start: what to begin with; None: y. factor: if any."""
    with b.temporary("total") as [total]:
        if start is None:
            b("lw", total, (y, 0))
        else:
            b.mv(total, start)
        if g.unrolled:
            add_constant(b, source, source, 4 * g.stride[1])
            values = b.registers("value", len(g.offsets))
            for value, offset in zip(values, g.offsets, strict=True):
                b("lw", value, (source, offset))
            _reduce(b, maximum, total, values)
            b.free(*values)
        else:
            with b.temporary("element") as [element]:
                b.mv(element, source)
                add_constant(b, source, source, 4 * g.stride[1])
                _reduce_window(b, g, maximum, total, element)
        if factor is not None:
            b("fmul.s", total, total, factor)
        b("p.sw", total, (y, 4, "!"))


# -- backward --------------------------------------------------------------------------------------
@touches(lambda a: ([_pooled(a, a.dy)], [array(a.dx, *a.shape)]))
def average_pool_gradient(
    dy: int, dx: int, shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], cores: int,
    mean: bool = True,
) -> Call:  # fmt: skip
    """dy [C, Ho, Wo] -> dx [C, H, W] = shape: from +0 on, windows in order add dy * FP32(1 / elements); or dy."""
    geometry = Geometry(*shape[1:], kernel, stride, mean=mean)
    return _backward("avg_pool_bw", False, (dy, 0, dx), geometry, shape[0], cores)


def _row_of_windows(a: Given, address: int) -> Words:
    return array(address, a.shape[0], _part_of(a.shape, a.kernel, a.stride, a.tall).wo)


@touches(lambda a: ([_row_of_windows(a, a.dy)], [array(a.dx, *a.shape)]))
def average_pool_gradient_part(
    dy: int, dx: int, shape: tuple[int, int, int], kernel: tuple[int, int], stride: int, tall: int, cores: int,
    mean: bool = True,
) -> Call:  # fmt: skip
    """dy [C, 1, Wo] -> dx [C, H, W] = shape: rows of one row of windows, `tall` rows each, and zeros below.

    kernel: (rows of the windows that are there, width).
    """
    geometry = replace(_part_of(shape, kernel, stride, tall), mean=mean)
    return _backward("avg_pool_bw", False, (dy, 0, dx), geometry, shape[0], cores)


@touches(lambda a: ([_pooled(a, a.dy), array(a.x, *a.shape)], [array(a.dx, *a.shape)]))
def max_pool_gradient(
    dy: int, x: int, dx: int, shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], cores: int
) -> Call:
    """dy [C, Ho, Wo], x [C, H, W] = shape -> dx [C, H, W]: from +0 on, windows in order add dy to an element.

    That is the first which equals the window's maximum; none if all are NaN.
    """
    return _backward("max_pool_bw", True, (dy, x, dx), Geometry(*shape[1:], kernel, stride), shape[0], cores)


def _max_pool_gradient_part_touches(a: Given) -> Touched:
    dy = _row_of_windows(a, a.dy)
    return [dy, array(a.x, *a.shape), _row_of_windows(a, a.y)], [array(a.dx, *a.shape), dy]


@touches(_max_pool_gradient_part_touches)
def max_pool_gradient_part(
    dy: int, x: int, y: int, dx: int, shape: tuple[int, int, int], kernel: tuple[int, int], stride: int, tall: int,
    cores: int,
) -> Call:  # fmt: skip
    """As `average_pool_gradient_part`. y [C, 1, Wo]: the maxima; dy becomes what no element has got yet."""
    return _backward("max_pool_bw", True, (dy, x, dx, y), _part_of(shape, kernel, stride, tall), shape[0], cores)


def _part_of(shape: tuple[int, int, int], kernel: tuple[int, int], stride: int, tall: int) -> Geometry:
    """With one row of windows, however few rows of them there are."""
    return Geometry(*shape[1:], kernel, (shape[1] + 1, stride), tall)


def _backward(
    name: str, maximum: bool, operands: tuple[int, ...], geometry: Geometry, channels: int, cores: int
) -> Call:
    units = channels * (1 if geometry.rows_overlap else geometry.ho)
    dy, x, dx, *y = operands
    return Call(backward_program(geometry, maximum), name, (dy, x, dx, units, chunk_of(units, cores), *y))


@dataclass(frozen=True)
class _Window:
    """Registers that live from window to window."""

    dy: Register
    dx: Register  # the window's first element
    to_x: Register  # from there to the same element of x, in bytes
    constant: Register  # NaN or FP32(1 / elements)
    to_y: Register | None  # from dy to the maxima, in bytes, if they are known


@cache
def backward_program(g: Geometry, maximum: bool) -> Program:
    """A unit of work is a channel or, where rows of windows do not overlap, one such row.

    Its core first zeroes what the windows may leave, and last the rows below, up to the next unit.
    """
    b = Builder("pool_bw")
    b.entry("pool_bw")
    names = ("dy", "x", "dx", "units", "chunk", *(["y"] if maximum and g.tall else []))
    dy, x, dx, units, chunk, *y = b.arguments(*names)
    bands, lines, height = (1, g.ho, g.h) if g.rows_overlap else (g.ho, 1, g.kernel[0])
    below = 0 if g.rows_overlap else (g.stride[0] - g.kernel[0]) * g.w
    at_end = 0 if g.rows_overlap else (g.h - g.stride[0] * (g.ho - 1) - g.kernel[0]) * g.w
    done = b.label("done")
    first, count = take_share(b, units, chunk, done)
    b("sub", x, x, dx)
    for maxima in y:
        b("sub", maxima, maxima, dy)
    channel, left = divide(b, first, bands)
    add_scaled(b, dy, first, 4 * lines * g.wo)
    add_scaled(b, dx, channel, 4 * g.h * g.w)
    add_scaled(b, dx, left, 4 * g.stride[0] * g.w)
    b.free(units, first, channel)
    with b.temporary("bands") as [all_bands]:
        b.li(all_bands, bands)
        b("sub", left, all_bands, left)  # bands of this channel, with this one
    constant = b.register("constant")
    b.li(constant, NAN if maximum else g.share)
    unit, end, following = b.here("unit"), b.label("end"), b.label("following")
    if g.overlap or not g.covered:
        with b.temporary("zeroed") as [zeroed]:
            b.mv(zeroed, dx)
            store_words(b, zeroed, height * g.w)
    _lines(b, g, maximum, lines, _Window(dy, dx, x, constant, next(iter(y), None)))
    add_constant(b, dx, dx, 4 * height * g.w)
    b("addi", left, left, -1)
    b("beq", left, "x0", end)
    store_words(b, dx, below)
    b("jal", "x0", following)
    b.place(end)
    store_words(b, dx, at_end)
    b.li(left, bands)
    b.place(following)
    b("addi", count, count, -1)
    b("bne", count, "x0", unit)
    b.place(done)
    b.ret()
    return b.build()


def _lines(b: Builder, g: Geometry, maximum: bool, lines: int, unit: _Window) -> None:
    """Emit `lines` rows of windows from unit.dx on, which stays."""
    with b.temporary("line", "window", "n", "lines") as [line, window, n, remaining]:
        b.mv(line, unit.dx)
        b.li(remaining, lines)
        again = b.here("line")
        b.mv(window, line)
        b.li(n, g.wo)
        with _over_outputs(b, g, n):
            _spread(b, g, maximum, replace(unit, dx=window))
        if lines > 1:
            add_constant(b, line, line, 4 * g.stride[0] * g.w)
            b("addi", remaining, remaining, -1)
            b("bne", remaining, "x0", again)


def _spread(b: Builder, g: Geometry, maximum: bool, s: _Window) -> None:
    """Emit the gradient of one window; s.dx moves to the next window, s.dy to the next gradient.

    gradient: what each element gets or, for a maximum, what has not been given to an element yet.
    """
    with b.temporary("gradient", "largest") as [gradient, largest]:
        if s.to_y is not None:
            b("add", largest, s.dy, s.to_y)
            b("lw", largest, (largest, 0))
        b("p.lw", gradient, (s.dy, 4, "!"))
        add_constant(b, s.dx, s.dx, 4 * g.stride[1])
        if not maximum and g.mean:
            b("fmul.s", gradient, gradient, s.constant)
        b("fadd.s", gradient, gradient, "x0")  # dx begins as +0: there is no -0 in it
        (_spread_unrolled if g.unrolled else _spread_rolled)(b, g, maximum, s, gradient, largest)
        if s.to_y is not None:
            b("sw", gradient, (s.dy, -4))


def _spread_rolled(b: Builder, g: Geometry, maximum: bool, s: _Window, gradient: Register, largest: Register) -> None:
    """The window as two hardware loops; for a maximum that is not known, x is read twice."""
    with b.temporary("element", "source") as [element, source]:
        add_constant(b, element, s.dx, -4 * g.stride[1])
        if maximum and s.to_y is None:
            b("add", source, element, s.to_x)
            b.mv(largest, s.constant)
            _reduce_window(b, g, True, largest, source)
        if maximum:
            b("add", source, element, s.to_x)

        def body(n: int) -> None:
            values = b.registers("value", n) if maximum else []
            for value in values:
                b("p.lw", value, (source, 4, "!"))
            _give(b, g, gradient, largest, values, element, [4 * v for v in range(n)])
            b("addi", element, element, 4 * n)
            b.free(*values)

        _over_window(b, g, (element, source) if maximum else (element,), UNROLL if maximum else FILL_UNROLL, body)


def _spread_unrolled(b: Builder, g: Geometry, maximum: bool, s: _Window, gradient: Register, largest: Register) -> None:
    """The same in straight-line code: the window's elements of x stay in registers."""
    values = b.registers("value", len(g.offsets)) if maximum else []
    if maximum:
        with b.temporary("source") as [source]:
            b("add", source, s.dx, s.to_x)
            for value, offset in zip(values, g.offsets, strict=True):
                b("lw", value, (source, offset))
    if maximum and s.to_y is None:
        b.mv(largest, s.constant)
        _reduce(b, True, largest, values)
    _give(b, g, gradient, largest, values, s.dx, g.offsets)
    b.free(*values)


def _give(
    b: Builder, g: Geometry, gradient: Register, largest: Register, values: list[Register],
    dx: Register, offsets: list[int],
) -> None:  # fmt: skip
    """Emit dx = or += the gradient, or, if there are values, that of the first which equals `largest`.

    The values are lost; the gradient is, too, once it is given.
    """
    if values:
        with b.temporary("mask", "old") as [mask, old]:
            for value, offset in zip(values, offsets, strict=True):
                if g.overlap:
                    b("lw", old, (dx, offset))
                b("feq.s", mask, value, largest)
                b("sub", mask, "x0", mask)
                b("and", value, gradient, mask)
                b("xor", gradient, gradient, value)
                if g.overlap:
                    b("fadd.s", value, old, value)
                b("sw", value, (dx, offset))
    elif g.overlap:
        olds = b.registers("old", len(offsets))
        for old, offset in zip(olds, offsets, strict=True):
            b("lw", old, (dx, offset))
        for old, offset in zip(olds, offsets, strict=True):
            b("fadd.s", old, old, gradient)
            b("sw", old, (dx, offset))
        b.free(*olds)
    else:
        for offset in offsets:
            b("sw", gradient, (dx, offset))


# -- means of what is in the image -----------------------------------------------------------------
@touches(lambda a: ([array(a.y, *a.shape)], [array(a.y, *a.shape)]))
def per_element(
    y: int, shape: tuple[int, int, int], image: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int],
    first: tuple[int, int], cores: int,
) -> Call:  # fmt: skip
    """y [C, rows, columns] = shape, in place: each times FP32(1 / elements of its window that are in the image).

    first: where on the image the first window begins; negative in its padding.
    """
    channels, rows, columns = shape
    begins = (first[1] + stride[1] * column for column in range(columns))
    widths = (min(begin + kernel[1], image[1]) - max(begin, 0) for begin in begins)
    runs = tuple((width, len(list(run))) for width, run in groupby(widths))
    program = per_element_program(channels, rows, runs, image[0], kernel[0], stride[0])
    return Call(program, "per_element", (y, channels * rows, chunk_of(channels * rows, cores), first[0]))


@cache
def per_element_program(
    channels: int, rows: int, runs: tuple[tuple[int, int], ...], height: int, kernel_h: int, stride_h: int
) -> Program:
    """A channel's row is a unit of work, the first rows of all channels before the second: the cluster has one
    divider, and a quotient then serves many channels.

    runs: (elements in the image, windows beside each other with so many) of a window's row. height: of the image.
    """
    b = Builder("per_element")
    b.entry("per_element")
    y, units, chunk, top = b.arguments("y", "units", "chunk", "top")
    done, width = b.label("done"), sum(n for _, n in runs)
    first, count = take_share(b, units, chunk, done)
    row, channel = divide(b, first, channels)
    add_scaled(b, y, channel, 4 * rows * width)
    add_scaled(b, y, row, 4 * width)
    add_scaled(b, top, row, stride_h)
    b.free(units, first, row)
    with b.temporary("n", "height", "factor", "target") as [n, tall, factor, target]:
        again = b.here("row")
        b.li(n, channels)
        b("sub", n, n, channel)
        b("p.min", n, n, count)
        b("sub", count, count, n)
        _rows_in_the_image(b, tall, top, height, kernel_h)
        for wide, windows in runs:
            b.li(factor, wide)
            b("mul", factor, factor, tall)
            b("fcvt.s.w", factor, factor)
            b.li(target, bits(1.0))
            b("fdiv.s", factor, target, factor)
            b.mv(target, y)
            with b.loop(1, n):
                _multiply(b, target, windows, factor)
                add_constant(b, target, target, 4 * (rows * width - windows))
            add_constant(b, y, y, 4 * windows)
        add_scaled(b, y, channel, -4 * rows * width)  # to the first channel's next row
        b.mv(channel, "x0")
        add_constant(b, top, top, stride_h)
        b("bne", count, "x0", again)
    b.place(done)
    b.ret()
    return b.build()


def _rows_in_the_image(b: Builder, rows: Register, first: Register, height: int, kernel_h: int) -> None:
    """Emit rows = those in the image of a window whose first row is `first`."""
    with b.temporary("edge") as [edge]:
        add_constant(b, rows, first, kernel_h)
        b.li(edge, height)
        b("p.min", rows, rows, edge)
        b("p.max", edge, first, "x0")
        b("sub", rows, rows, edge)


def _multiply(b: Builder, target: Register, words: int, factor: Register) -> None:
    """Emit target[words] *= factor; target ends behind them."""

    def body(n: int) -> None:
        values = b.registers("value", n)
        for number, value in enumerate(values):
            b("lw", value, (target, 4 * number))
        for value in values:
            b("fmul.s", value, value, factor)
        for value in values:
            b("p.sw", value, (target, 4, "!"))
        b.free(*values)

    repeat(b, words, UNROLL, body)
