"""Convolution windows as the rows of a matrix, zero where a window leaves the image.

One generator for both directions. Output pixel (y, x) has the window whose first element is at
(stride_h * y - top, stride_w * x - left) of the image spread by (spread_h, spread_w), that many elements from one to
the next with zeros in between, and whose taps are (dilation_h, dilation_w) apart. The forward pass and the weight
gradient have strides, the input gradient a spread: that of dy by the layer's stride.

A pixel is a unit of work; a core takes its pixels row by row. Which columns of a window lie in the image
is known when the program is made: neighbouring pixels with the same ones are a run. Which rows do is found
once per row of pixels: first the others are zeroed for all its pixels, then each run is copied, its missing
columns as zeros. With a spread everything is zeroed first, and only what is in the image is copied. Channels are the
innermost loop, so that windows of few rows and columns have little overhead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import gcd, prod

from pulpsim import Builder, Program
from pulpsim.program import Label, Register
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.partition import take_share
from trainlib.kernels.pieces import BANKS, Step, add_constant, add_scaled, add_step, constant_loop, divide, step
from trainlib.kernels.touched import Given, Touched, array, tile, touches

#: words loaded before they are stored
BATCH = 6


def _touches(a: Given, image: int, windows: int) -> Touched:
    return [array(image, *a.shape)], [tile(a.rows, windows, a.shape[0] * prod(a.kernel), a.row_stride)]


@touches(lambda a: _touches(a, a.x, a.ho * a.wo))
def im2row(
    x: int, rows: int, shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], top: int,
    left: int, ho: int, wo: int, cores: int, row_stride: int | None = None, dilation: tuple[int, int] = (1, 1),
) -> Call:  # fmt: skip
    """x [C, H, W] -> rows [ho * wo, C * Hk * Wk], `row_stride` bytes apart (default: compact).

    rows[y * wo + x, (c * Hk + i) * Wk + j] = x[c, stride_h * y + dilation_h * i - top, stride_w * x + dilation_w * j
    - left], or +0 outside x; top and left may be anything (a tile's part of an image begins anywhere).
    """
    taps = Taps(kernel, stride, (1, 1), dilation)
    return _call("im2row", x, rows, shape, taps, top, left, ho, wo, cores, row_stride)


@touches(lambda a: _touches(a, a.dy, a.h * a.w))
def im2row_gradient(
    dy: int, rows: int, shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int], top: int,
    left: int, h: int, w: int, first_row: int, cores: int, row_stride: int | None = None,
    dilation: tuple[int, int] = (1, 1),
) -> Call:  # fmt: skip
    """dy [Co, Ho, Wo] -> rows [h * w, Co * Hk * Wk], `row_stride` bytes apart (default: compact).

    Row u * w + v has the windows of dy, spread by the stride, from (first_row + u - (dilation_h * (Hk - 1) - top),
    v - (dilation_w * (Wk - 1) - left)) on, taps `dilation` apart; stride, dilation, top and left are the forward
    layer's. dX is then W' rows^T for the weights W' of `flip_transpose`. For a dy that begins at row y0 of its layer's
    take stride_h * y0 off first_row.
    """
    top, left = dilation[0] * (kernel[0] - 1) - top - first_row, dilation[1] * (kernel[1] - 1) - left
    taps = Taps(kernel, (1, 1), stride, dilation)
    return _call("im2row_gradient", dy, rows, shape, taps, top, left, h, w, cores, row_stride)


@dataclass(frozen=True)
class Taps:
    """Which elements windows see: pairs (height, width)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    spread: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def step(self) -> tuple[int, int]:
        """From a tap that sees an element of the image to the next one that does."""
        h, w = (spread // gcd(spread, apart) for spread, apart in zip(self.spread, self.dilation, strict=True))
        return h, w

    @property
    def image_step(self) -> tuple[int, int]:
        """What lies between those elements."""
        h, w = (apart // gcd(spread, apart) for spread, apart in zip(self.spread, self.dilation, strict=True))
        return h, w


@dataclass(frozen=True)
class Run:
    """Output columns up to `end`: their windows have `count` columns in the image, from tap `tap` on.

    column: which of the image that tap sees for the run's first output column.
    """

    end: int
    tap: int
    count: int
    column: int


@dataclass(frozen=True)
class Windows(Taps):
    """What a program is made for."""

    c: int
    w: int
    wo: int
    left: int
    pixel_bytes: int  # from a row of the matrix to the next
    inside: bool  # do all windows' rows lie in the image?

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def scattered(self) -> bool:
        """Do neighbouring pixels see different taps?"""
        return self.spread[1] > 1

    @property
    def runs(self) -> list[Run]:
        runs: list[Run] = []
        for x in range(self.wo):
            run = self._column(x)
            if runs and (runs[-1].tap, runs[-1].count) == (run.tap, run.count):
                run = replace(run, column=runs.pop().column)
            runs.append(run)
        return runs

    def _column(self, x: int) -> Run:
        """The run of one output column."""
        first, apart = self.stride[1] * x - self.left, self.dilation[1]
        places = [divmod(first + apart * j, self.spread[1]) for j in range(self.kernel[1])]
        seen = [j for j, (column, between) in enumerate(places) if between == 0 and 0 <= column < self.w]
        return Run(x + 1, seen[0], len(seen), places[seen[0]][0]) if seen else Run(x + 1, 0, 0, 0)


def _call(
    name: str, x: int, rows: int, shape: tuple[int, int, int], taps: Taps, top: int, left: int, ho: int, wo: int,
    cores: int, row_stride: int | None,
) -> Call:  # fmt: skip
    c, h, w = shape
    (kernel_h, kernel_w), stride, spread, dilation = taps.kernel, taps.stride, taps.spread, taps.dilation
    pixel_bytes = 4 * c * kernel_h * kernel_w if row_stride is None else row_stride
    last = stride[0] * (ho - 1) - top + dilation[0] * (kernel_h - 1)
    inside = spread == (1, 1) and top <= 0 and last < h
    windows = Windows(taps.kernel, stride, spread, dilation, c, w, wo, left, pixel_bytes, inside)
    chunk = chunk_of(ho * wo, cores)
    # Cores whose first windows begin in the same bank would wait for each other all along: set them apart.
    image_rows, apart = divmod(stride[0] * chunk, spread[0] * wo)
    if chunk >= BANKS and apart == 0 and image_rows * w % BANKS == 0:
        chunk += 1
    return Call(im2row_program(windows), name, (x, rows, h, top, ho * wo, chunk))


@dataclass(frozen=True)
class _State:
    """The registers that live from pixel to pixel. Sizes in bytes."""

    # of the image
    x: Register
    h: Register  # in rows
    channel: Register  # from a channel to the next
    back: Register  # from behind the last channel's part of a row to the first's of the next row that is seen
    # of the matrix
    row: Register  # to be written
    end: Register  # behind this core's last row
    # of a row of pixels
    y: Register  # stride_h * y - top
    base: Register  # the matrix's row of its first pixel
    shift: Register  # from there to this core's first, in the image
    count: Register  # how many rows of the kernel see one of the image
    lead: Register  # zeros before the first of them
    line: Register  # that row of the image: its begin or, unless scattered, where tap 0 of the first pixel lies
    # of a run
    limit: Register  # the matrix's row behind its last pixel, or `end`
    source: Register  # where the next pixel finds the first tap that sees the image or, unless scattered, tap 0
    link: Register


@cache
def im2row_program(windows: Windows) -> Program:
    b = Builder("im2row")
    b.entry("im2row")
    x, row, h, y, pixels, chunk = b.arguments("x", "rows", "h", "top", "pixels", "chunk")
    done, following = b.label("done"), b.label("following")
    first, end = take_share(b, pixels, chunk, done)
    b.free(pixels)
    channel, back, base, shift, count, lead, line, limit, source, link = (
        b.register(name)
        for name in ("channel", "back", "base", "shift", "count", "lead", "line", "limit", "source", "link")
    )
    s = _State(x, h, channel, back, row, end, y, base, shift, count, lead, line, limit, source, link)
    _begin(b, windows, s, first)
    again = b.here("row of pixels")
    _rows_seen(b, windows, s)
    b("beq", s.count, "x0", following)
    copies = {(run.tap, run.count): b.label("copy") for run in windows.runs}
    for run in windows.runs:
        _run(b, windows, s, run, copies[run.tap, run.count])
    b.place(following)
    b.mv(s.shift, "x0")
    add_constant(b, s.y, s.y, windows.stride[0])
    add_constant(b, s.base, s.base, windows.wo * windows.pixel_bytes)
    b("p.min", s.row, s.base, s.end)
    b("bne", s.row, s.end, again)
    b.place(done)
    b.ret()
    for (tap, columns), label in copies.items():
        if columns or not windows.scattered:
            b.place(label)
            _copy(b, windows, s, tap, columns)
    return b.build()


def _begin(b: Builder, windows: Windows, s: _State, first: Register) -> None:
    """Emit the state before the pixel `first`, which is freed; `end` is still the number of pixels, y `top`."""
    y, column = divide(b, first, windows.wo)
    with b.temporary("size") as [size]:
        b.li(size, windows.pixel_bytes)
        b("mul", first, first, size)
        b("add", s.row, s.row, first)
        b("mul", s.end, s.end, size)
        b("add", s.end, s.end, s.row)
        b("mul", s.base, column, size)
        b("sub", s.base, s.row, s.base)
        b.li(size, windows.stride[0])
        b("mul", y, y, size)
        b("sub", s.y, y, s.y)
        b.li(size, 4 * windows.stride[1])
        b("mul", s.shift, column, size)
        b.li(size, 4 * windows.w)
        b("mul", s.channel, s.h, size)
        if windows.image_step[0] > 1:
            b.li(size, 4 * windows.w * windows.image_step[0])
        b.mv(s.back, size)
        add_scaled(b, s.back, s.channel, -windows.c)
    b.free(first, y, column)


def _rows_seen(b: Builder, windows: Windows, s: _State) -> None:
    """Emit what a row of pixels needs: the kernel's rows that see the image, where, and zeros for the others."""
    kernel_h, kernel_w = windows.kernel
    if windows.inside:
        b.li(s.count, kernel_h)
        b.mv(s.lead, "x0")
        _line(b, windows, s, s.y)
        return
    with b.temporary("before", "behind") as [before, behind]:  # rows of the kernel
        _first_seen(b, windows, s, before, behind)
        b.li(behind, kernel_h)
        b("p.min", before, before, behind)
        b("sub", behind, behind, before)
        _divide_up(b, behind, windows.step[0])
        b("p.min", s.count, s.count, behind)
        b("p.max", s.count, s.count, "x0")
        b("sub", behind, behind, s.count)
        b.mv(s.lead, "x0")
        _zero_rows(b, windows, s, before if windows.spread == (1, 1) else kernel_h)
        add_scaled(b, s.lead, before, 4 * kernel_w)
        if windows.spread == (1, 1):
            add_scaled(b, s.lead, s.count, 4 * kernel_w)
            _zero_rows(b, windows, s, behind)
            add_scaled(b, s.lead, s.count, -4 * kernel_w)


def _first_seen(b: Builder, windows: Windows, s: _State, before: Register, row: Register) -> None:
    """Emit `before`, how many rows of the kernel come before the first that may see the image; `line` of what it sees;
    and `count`, how many more rows it could see: 0 or less for none. `row` is free to be used."""
    spread, dilation = windows.spread[0], windows.dilation[0]
    if dilation == 1:
        b("p.max", before, s.y, "x0")
        _divide_up(b, before, spread)
        _line(b, windows, s, before)
        b("sub", s.count, s.h, before)
        if spread > 1:
            b.li(row, spread)
            b("mul", before, before, row)
        b("sub", before, before, s.y)
        return
    found, between = b.label("found"), b.label("between")
    b.mv(row, s.y)
    b.mv(before, "x0")
    with b.temporary("limit", "spread", "rest") as [limit, divisor, rest]:
        b.li(limit, windows.kernel[0])
        b.li(divisor, spread)
        again = b.here("search")
        if spread == 1:
            b("bge", row, "x0", found)
        else:
            b("blt", row, "x0", between)
            b("remu", rest, row, divisor)
            b("beq", rest, "x0", found)
            b.place(between)
        b("addi", before, before, 1)
        add_constant(b, row, row, dilation)
        b("bne", before, limit, again)
        b.mv(row, "x0")
        b.place(found)
        if spread > 1:
            b("divu", row, row, divisor)
    _line(b, windows, s, row)
    b("sub", s.count, s.h, row)
    b("p.max", s.count, s.count, "x0")
    _divide_up(b, s.count, windows.image_step[0])


def _line(b: Builder, windows: Windows, s: _State, row: Register) -> None:
    """Emit `line` and `source` for a row of the image."""
    if windows.scattered:
        b.mv(s.line, s.x)
    else:
        add_constant(b, s.line, s.x, -4 * windows.left)
        b("add", s.line, s.line, s.shift)
    add_scaled(b, s.line, row, 4 * windows.w)
    b.mv(s.source, s.line)


def _divide_up(b: Builder, value: Register, divisor: int) -> None:
    """value = ceil(value / divisor), value >= 0."""
    if divisor == 1:
        return
    add_constant(b, value, value, divisor - 1)
    if divisor & (divisor - 1) == 0:
        b("srli", value, value, divisor.bit_length() - 1)
        return
    with b.temporary("divisor") as [constant]:
        b.li(constant, divisor)
        b("divu", value, value, constant)


def _zero_rows(b: Builder, windows: Windows, s: _State, count: Register | int) -> None:
    """Emit zeros to `count` rows of the kernel, `lead` bytes on, of this core's pixels of the row."""
    none, kernel_w, channels = b.label("none"), windows.kernel[1], windows.c > 1
    if isinstance(count, Register):
        b("beq", count, "x0", none)
    with (
        b.temporary("pixel", "target") as [pixel, target],
        step(b, windows.pixel_bytes) as following,
        step(b, 4 * (windows.taps - kernel_w + 1) if channels else 4) as last,
        step(b, 4 * (kernel_w - windows.c * windows.taps)) as back,
    ):
        add_constant(b, s.limit, s.base, windows.wo * windows.pixel_bytes)
        b("p.min", s.limit, s.limit, s.end)
        b.mv(pixel, s.row)
        again = b.here("zero a pixel")
        b("add", target, pixel, s.lead)
        with b.loop(1, count) if isinstance(count, Register) else constant_loop(b, 1, count):
            with constant_loop(b, 0, windows.c):
                _kernel_row(b, target, target, [False] * kernel_w, (0, 0), 4, last)
            if channels:
                add_step(b, target, back)
        add_step(b, pixel, following)
        b("bne", pixel, s.limit, again)
    b.place(none)


def _run(b: Builder, windows: Windows, s: _State, run: Run, copy: Label) -> None:
    """Emit the call for those pixels of a run that are left and this core's."""
    following = b.label("following")
    add_constant(b, s.limit, s.base, run.end * windows.pixel_bytes)
    b("p.min", s.limit, s.limit, s.end)
    b("bge", s.row, s.limit, following)
    if windows.scattered and not run.count:
        b.mv(s.row, s.limit)
    else:
        if windows.scattered:
            add_constant(b, s.source, s.line, 4 * run.column)
        b("jal", s.link, copy)
    b.place(following)


def _copy(b: Builder, windows: Windows, s: _State, tap: int, columns: int) -> None:
    """Emit the routine for pixels up to `limit`: windows that see `columns` of the image from tap `tap` on."""
    (_, kernel_w), (step_h, step_w), channels = windows.kernel, windows.step, windows.c > 1
    image_h, image_w = windows.image_step
    stores = [True] * columns
    if not windows.scattered:  # the columns that see nothing have not been zeroed yet
        stores = [False] * tap + stores + [False] * (kernel_w - tap - columns)
    stored, row = 4 * step_w * (len(stores) - 1), 4 * step_h * kernel_w
    with (
        b.temporary("from", "to", "behind") as [source, target, behind],
        step(b, windows.pixel_bytes) as pixel,
        step(b, 4 * image_w) as apart,
        step(b, 4 * step_w) as between,
        step(b, (4 * windows.taps if channels else row) - stored) as last,
        step(b, row - 4 * windows.c * windows.taps) as back,
    ):
        if channels:
            add_constant(b, behind, s.channel, -4 * image_w * (columns - 1))
        else:
            b.li(behind, 4 * (windows.w * image_h - image_w * (columns - 1)))
        again = b.here("copy a pixel")
        add_constant(b, source, s.source, 0 if windows.scattered else 4 * image_w * tap)
        b("add", target, s.row, s.lead)
        if windows.scattered:
            add_constant(b, target, target, 4 * tap)
        with b.loop(1, s.count):
            with constant_loop(b, 0, windows.c):
                _kernel_row(b, source, target, stores, (apart, behind), between, last)
            if channels:
                b("add", source, source, s.back)
                add_step(b, target, back)
        add_step(b, s.row, pixel)
        add_constant(b, s.source, s.source, 4 * windows.stride[1])
        b("bne", s.row, s.limit, again)
        b("jalr", "x0", s.link, 0)


def _kernel_row(
    b: Builder, source: Register, target: Register, stores: list[bool], loads: tuple[Step, Step], between: Step,
    last: Step,
) -> None:  # fmt: skip
    """Emit stores of words of the image, or of zeros. Steps: from load to load, behind the last one, `between` stores
    and the `last`."""
    if stores == [False]:  # a hardware loop has two instructions at least
        b("sw", "x0", (target, 0))
        add_step(b, target, last)
        return
    values: list[Register] = []
    unread = sum(stores)
    for n, from_image in enumerate(stores):
        if unread and not values and (from_image or n == 0):
            values = b.registers("value", min(unread, BATCH))
            for value in values:
                unread -= 1
                b("p.lw", value, (source, loads[0 if unread else 1], "!"))
        move = between if n < len(stores) - 1 else last
        if from_image:
            value = values.pop(0)
            b("p.sw", value, (target, move, "!"))
            b.free(value)
        else:
            b("p.sw", "x0", (target, move, "!"))
