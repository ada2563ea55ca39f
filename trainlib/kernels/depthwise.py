"""The depthwise convolution, batch 1: y, dw and dx, channel by channel.

Operands are compact CHW arrays in L1, padded beforehand: xp [C, Hp, Wp], w and dw [C, Hk, Wk], y and dy
[C, Ho, Wo] with Ho = (Hp - Hk) // stride_h + 1, Wo likewise. The input gradient is a correlation of stride 1
with the flipped taps, over dy that was dilated by the stride and padded: one program serves both.

A variant takes so many neighbouring outputs ("pixels") and so many neighbouring taps of a row at a time:
  dw                        one output, one tap
  dw_u2, dw_u3              2 or 3 taps: no multiplication waits for its load
  dw_1x2, dw_1x4            2 or 4 outputs share the load of a tap
  dw_1x2_u2, dw_1x4_u2      both: taps also share the inputs where the outputs' windows overlap
In the weight gradient the taps share the load of dy, and the outputs' products are added one after the
other in one go. Where an output is alone, its window slides: columns that the last one had are not loaded.

dw_u3, dw_1x2_u2 and dw_1x4_u2 keep all taps of a kernel (or their gradients) in registers if these suffice,
else those of a row if these do. With all taps there, outputs are computed in columns, downwards: an input
is loaded once a column and goes into the sums of all rows of outputs that it belongs to.

Forward, cores share the rows of outputs of all channels; for the weight gradient they share the channels, or
the taps where the slowest core then has less to do. A sum is always one core's, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import gcd

from pulpsim import Builder, Program
from pulpsim.program import Label, Register
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.matmul_blocks import add_product
from trainlib.kernels.partition import take_share
from trainlib.kernels.pieces import MAX_IMMEDIATE, add_constant, constant_loop, step
from trainlib.kernels.touched import Given, Touched, array, touches

#: the ids of those that the published library, PULP-TrainLib, has too
PUBLISHED_IDS = {"dw": 0, "dw_u2": 1, "dw_u3": 2, "dw_1x2": 3, "dw_1x4": 4, "dw_1x2_u2": 5, "dw_1x4_u2": 6}
#: all variants there are, by their numbers
NAMES = ("dw", "dw_u2", "dw_u3", "dw_1x2", "dw_1x4", "dw_1x2_u2", "dw_1x4_u2")
#: (pixels, taps) of each variant
UNROLLS = ((1, 1), (1, 2), (1, 3), (2, 1), (4, 1), (2, 2), (4, 2))
#: variants that keep all taps, or a row of them, in registers where they fit
RESIDENT = (2, 5, 6)
#: registers for taps and sums: those a Builder hands out, less five pointers and counters and two inputs
DATA_REGISTERS = len(Builder.FREE) - 7
WORD = 4

Registers = tuple[Register, ...]


@dataclass(frozen=True)
class Shape:
    """A channel, in elements."""

    in_h: int
    in_w: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int

    @property
    def out_h(self) -> int:
        return (self.in_h - self.kernel_h) // self.stride_h + 1

    @property
    def out_w(self) -> int:
        return (self.in_w - self.kernel_w) // self.stride_w + 1

    @property
    def taps(self) -> int:
        return self.kernel_h * self.kernel_w

    def columns(self, pixels: int, taps: int) -> list[int]:
        """Input columns that neighbouring outputs meet with neighbouring taps, the first being 0."""
        return sorted({self.stride_w * p + j for p in range(pixels) for j in range(taps)})


@cache
def resolve(variant: int, kernel_w: int, out_w: int) -> int:
    """The variant that runs: with fewer taps or outputs in a row than it takes, the next smaller one."""
    pixels, taps = min(UNROLLS[variant][0], out_w), min(UNROLLS[variant][1], kernel_w)
    return UNROLLS.index(max(unroll for unroll in UNROLLS if unroll[0] <= pixels and unroll[1] <= taps))


def _blocks(size: int, width: int, merged: bool = False) -> list[tuple[int, int]]:
    """`size` neighbours as blocks of `width` and the rest, which `merged` adds to the last: (width, count)."""
    count, rest = divmod(size, width)
    if rest == 0:
        return [(width, count)]
    if not merged:
        return [(width, count), (rest, 1)]
    return [(width, count - 1), (width + rest, 1)][count == 1 :]


def _name(step: str, variant: int) -> str:
    return NAMES[variant].replace("dw", f"dw_{step}", 1)


# -- pieces of programs ----------------------------------------------------------------------------
def _advance(b: Builder, pointer: Register, words: int) -> None:
    add_constant(b, pointer, pointer, WORD * words)


def _advance_by(b: Builder, pointer: Register, count: Register, words: int) -> None:
    add_product(b, pointer, count, WORD * words)


def _load(b: Builder, value: Register, pointer: Register, words: int) -> None:
    """Load a word, then advance the pointer."""
    with step(b, WORD * words) as distance:
        b("p.lw", value, (pointer, distance, "!"))


def _count_down(b: Builder, count: Register, begin: Label) -> None:
    """Back to `begin` unless this was the last time; the count is lost."""
    b("addi", count, count, -1)
    b("bne", count, "x0", begin)


def _split(b: Builder, index: Register, size: int, quotient: Register) -> None:
    """quotient = index // size, index %= size."""
    if size == 1:
        b.mv(quotient, index)
        b.mv(index, "x0")
        return
    with b.temporary("size") as [register]:
        b.li(register, size)
        b("divu", quotient, index, register)
        b("p.msu", index, quotient, register)


def _stream(
    b: Builder, s: Shape, x: Register, rows: range, pixels: int, taps: int, end: int, use: Callable[..., None]
) -> None:
    """Load the inputs that some outputs meet with some taps in some rows, one ahead of their use.

    use(i, p, j, value): the value in row i that output p meets with tap j. x, which is at the first of
    these rows, is left `end` words further.
    """
    places = [(i, column) for i in rows for column in s.columns(pixels, taps)]
    positions = [(i - rows[0]) * s.in_w + column for i, column in places] + [end]
    steps = [positions[t + 1] - positions[t] for t in range(len(places))]
    values = b.registers("value", 2)
    _load(b, values[0], x, steps[0])
    for t, (i, column) in enumerate(places):
        if t + 1 < len(places):
            _load(b, values[(t + 1) % 2], x, steps[t + 1])
        for p in range(pixels):
            j = column - s.stride_w * p
            if 0 <= j < taps:
                use(i, p, j, values[t % 2])
    b.free(*values)


def _in_blocks(
    b: Builder, x: Register, blocks: list[tuple[int, int]], stride: int, skip: int, emit: Callable[[int, int], None]
) -> None:
    """emit(width, words that x advances) for every block, `skip` words more after the last."""
    *others, (width, count) = blocks
    for other, turns in others:
        with constant_loop(b, 0, turns):
            emit(other, other * stride)
    with constant_loop(b, 0, count):
        emit(width, width * stride + (skip if count == 1 else 0))
    if count > 1:
        _advance(b, x, skip)


# -- forward and input gradient --------------------------------------------------------------------
def _outputs_of(a: Given) -> tuple[int, int, int]:
    shape = Shape(a.hp, a.wp, a.kernel_h, a.kernel_w, a.stride_h, a.stride_w)
    return a.channels, shape.out_h, shape.out_w


def _forward_touches(a: Given) -> Touched:
    taps = array(a.w, a.channels, a.kernel_h, a.kernel_w)
    return [array(a.xp, a.channels, a.hp, a.wp), taps], [array(a.y, *_outputs_of(a))]


@touches(_forward_touches)
def forward(
    variant: int, xp: int, w: int, y: int, channels: int, hp: int, wp: int, kernel_h: int, kernel_w: int,
    stride_h: int, stride_w: int, cores: int, relu: bool = False,
) -> Call:  # fmt: skip
    """y[c, u, v] = sum over taps (i, j) of w[c, i, j] * xp[c, stride_h * u + i, stride_w * v + j].

    Then max(y, 0), a NaN giving 0, if `relu`.
    """
    shape = Shape(hp, wp, kernel_h, kernel_w, stride_h, stride_w)
    return _correlation("fw", variant, (xp, w, y), channels, shape, cores, relu)


def _input_gradient_touches(a: Given) -> Touched:
    padded = array(a.dyp, a.channels, a.height + a.kernel_h - 1, a.width + a.kernel_w - 1)
    return [padded, array(a.w, a.channels, a.kernel_h, a.kernel_w)], [array(a.dx, a.channels, a.height, a.width)]


@touches(_input_gradient_touches)
def input_gradient(
    variant: int, dyp: int, w: int, dx: int, channels: int, height: int, width: int, kernel_h: int, kernel_w: int,
    cores: int,
) -> Call:  # fmt: skip
    """dx[c, u, v] = sum over (i, j) of w[c, kernel_h - 1 - i, kernel_w - 1 - j] * dyp[c, u + i, v + j].

    dyp [C, height + kernel_h - 1, width + kernel_w - 1]: dy, dilated and padded; dx [C, height, width].
    """
    shape = Shape(height + kernel_h - 1, width + kernel_w - 1, kernel_h, kernel_w, 1, 1)
    return _correlation("ig", variant, (dyp, w, dx), channels, shape, cores)


def _correlation(
    step: str, variant: int, operands: tuple[int, ...], channels: int, shape: Shape, cores: int, relu: bool = False
) -> Call:
    variant = resolve(variant, shape.kernel_w, shape.out_w)
    rows = channels * shape.out_h
    program = correlation_program(step, variant, shape, relu)
    return Call(program, _name(step, variant) + ("+relu" if relu else ""), (*operands, rows, chunk_of(rows, cores)))


@cache
def correlation_program(step: str, variant: int, shape: Shape, relu: bool) -> Program:
    """Arguments: x, w, y, rows of outputs in all channels, rows per core. Step "ig" flips the taps."""
    s, (pixels, taps), flipped = shape, UNROLLS[variant], step == "ig"
    b = Builder(_name(step, variant))
    b.entry(b.name)
    x, w, y, rows, chunk = b.arguments("x", "w", "y", "rows", "chunk")
    done = b.label("done")
    row, left = take_share(b, rows, chunk, done)
    b.free(rows)
    _advance_by(b, y, row, s.out_w)
    with b.temporary("channel") as [channel]:
        _split(b, row, s.out_h, channel)
        _advance_by(b, x, channel, s.in_h * s.in_w)
        _advance_by(b, w, channel, s.taps)
    _advance_by(b, x, row, s.stride_h * s.in_w)
    n = b.register("n")
    b.li(n, s.out_h)
    b("sub", n, n, row)
    b.free(row)
    channel_begins = b.here("channel")
    b("p.min", n, n, left)
    b("sub", left, left, n)
    under_way = -(-s.kernel_h // s.stride_h)  # rows of outputs that an input row belongs to
    fits = s.taps + under_way * pixels <= DATA_REGISTERS and WORD * s.stride_h * s.in_w <= MAX_IMMEDIATE
    if variant in RESIDENT and fits:
        _rows_by_columns(b, s, pixels, flipped, relu, (x, w, y, n))
    else:
        whole_row = variant in RESIDENT and s.kernel_w + pixels <= DATA_REGISTERS - 3
        _rows(b, s, pixels, s.kernel_w if whole_row else taps, flipped, relu, (x, w, y, n))
    _advance(b, x, (s.in_h - s.out_h * s.stride_h) * s.in_w)
    b.li(n, s.out_h)
    b("bne", left, "x0", channel_begins)
    b.place(done)
    b.ret()
    return b.build()


def _rows(b: Builder, s: Shape, pixels: int, taps: int, flipped: bool, relu: bool, arguments: Registers) -> None:
    """n rows of a channel, `pixels` outputs and `taps` taps at a time.

    Leaves x and y at the next row and w at the next channel; n is lost.
    """
    x, w, y, n = arguments
    tap_step = -1 if flipped else 1
    _advance(b, w, s.taps - 1 if flipped else 0)
    row = b.here("row")
    for width, blocks in _blocks(s.out_w, pixels):
        with b.temporary("blocks") as [left]:
            b.li(left, blocks)
            block = b.here("block")
            _outputs(b, s, width, taps, tap_step, relu, (x, w, y))
            if blocks > 1:
                _count_down(b, left, block)
    _advance(b, x, s.stride_h * s.in_w - s.out_w * s.stride_w)
    _count_down(b, n, row)
    _advance(b, w, 1 if flipped else s.taps)


def _outputs(b: Builder, s: Shape, pixels: int, taps: int, tap_step: int, relu: bool, pointers: Registers) -> None:
    """Neighbouring outputs of a row. Leaves x at the window of the next, and w where it was."""
    x, w, y = pointers
    sums = b.registers("sum", pixels)

    def products(width: int, end: int) -> None:
        weights = b.registers("weight", width)
        for weight in weights:
            _load(b, weight, w, tap_step)

        def use(i: int, p: int, j: int, value: Register) -> None:
            b("fmadd.s", sums[p], weights[j], value, sums[p])

        _stream(b, s, x, range(1), pixels, width, end, use)
        b.free(*weights)

    for total in sums:
        b.mv(total, "x0")
    with constant_loop(b, 1, s.kernel_h):
        _in_blocks(b, x, _blocks(s.kernel_w, taps), 1, s.in_w - s.kernel_w, products)
    _advance(b, x, pixels * s.stride_w - s.kernel_h * s.in_w)
    _advance(b, w, -tap_step * s.taps)
    for total in sums:
        _store(b, total, y, 1, relu)
    b.free(*sums)


def _store(b: Builder, total: Register, y: Register, words: int, relu: bool) -> None:
    """Store an output, through the ReLU or not, then advance y."""
    if relu:
        b("fmax.s", total, total, "x0")
    b("p.sw", total, (y, WORD * words, "!"))


def _rows_by_columns(b: Builder, s: Shape, pixels: int, flipped: bool, relu: bool, arguments: Registers) -> None:
    """n rows of a channel in columns of `pixels` outputs, all taps in registers.

    Leaves x and y at the next row and w at the next channel.
    """
    x, w, y, n = arguments
    taps = b.registers("tap", s.taps)
    for tap in reversed(taps) if flipped else taps:
        b("p.lw", tap, (w, WORD, "!"))
    for width, columns in _blocks(s.out_w, pixels):
        with constant_loop(b, 1, columns):
            _column(b, s, width, taps, relu, (x, y, n))
    b.free(*taps)
    _advance_by(b, x, n, s.stride_h * s.in_w)
    _advance_by(b, y, n, s.out_w)
    _advance(b, x, -s.out_w * s.stride_w)
    _advance(b, y, -s.out_w)


def _column(b: Builder, s: Shape, width: int, taps: list[Register], relu: bool, arguments: Registers) -> None:
    """n rows of `width` outputs, downwards; leaves x and y at the top of the column to the right.

    A step finishes a row of outputs: it takes the input rows that this one needs beyond those of the one
    above, and adds them to its sums and to those of the rows below that they belong to.
    """
    x, y, n = arguments
    under_way = -(-s.kernel_h // s.stride_h)
    ahead = max(0, s.kernel_h - s.stride_h)  # input rows that are used before the first step
    sums = [b.registers(f"sum{k}_", width) for k in range(under_way)]

    def use(i: int, p: int, j: int, value: Register) -> None:
        """Add what input row i of the first step, or before it, gives to the rows of outputs under way."""
        step, place = divmod(i - ahead, s.stride_h)
        last = j == s.kernel_w - 1 and ahead + place == s.kernel_h - 1
        for k in range(max(0, -step), under_way if s.out_h > 1 else 1 - step):
            tap_row = ahead + place - k * s.stride_h
            if tap_row < 0:
                break
            total = sums[k - 1 if last and k else k][p]  # it is one row nearer in the next step
            addend = "x0" if tap_row == j == 0 else sums[k][p]
            b("fmadd.s", total, taps[tap_row * s.kernel_w + j], value, addend)
            if last and k == 0:
                _store(b, total, y, 1 if p < width - 1 else s.out_w - p, relu)

    if s.out_h == 1:
        _stream(b, s, x, range(s.kernel_h), width, s.kernel_w, (ahead + s.stride_h) * s.in_w, use)
    else:
        if ahead:
            _stream(b, s, x, range(ahead), width, s.kernel_w, ahead * s.in_w, use)
        with b.loop(0, n):
            _stream(b, s, x, range(ahead, s.kernel_h), width, s.kernel_w, s.stride_h * s.in_w, use)
    b.free(*(total for row in sums for total in row))
    _advance_by(b, x, n, -s.stride_h * s.in_w)
    _advance_by(b, y, n, -s.out_w)
    _advance(b, x, width * s.stride_w - ahead * s.in_w)
    _advance(b, y, width)


# -- weight gradient -------------------------------------------------------------------------------
def _weight_gradient_touches(a: Given) -> Touched:
    dw = array(a.dw, a.channels, a.kernel_h, a.kernel_w)
    x, dy = array(a.xp, a.channels, a.hp, a.wp), array(a.dy, *_outputs_of(a))
    return [x, dy, *[dw] * a.accumulate], [dw]


@touches(_weight_gradient_touches)
def weight_gradient(
    variant: int, xp: int, dy: int, dw: int, channels: int, hp: int, wp: int, kernel_h: int, kernel_w: int,
    stride_h: int, stride_w: int, cores: int, accumulate: bool = False,
) -> Call:  # fmt: skip
    """dw[c, i, j] (+)= sum over outputs (u, v) of dy[c, u, v] * xp[c, stride_h * u + i, stride_w * v + j]."""
    shape = Shape(hp, wp, kernel_h, kernel_w, stride_h, stride_w)
    variant = resolve(variant, kernel_w, shape.out_w)
    rows, columns = _tap_block(variant, shape, channels, cores)
    units = channels * (kernel_h // rows) * -(-kernel_w // columns)
    program = weight_gradient_program(variant, shape, rows, columns, accumulate)
    return Call(program, _name("wg", variant), (xp, dy, dw, units, chunk_of(units, cores)))


@cache
def _tap_block(variant: int, s: Shape, channels: int, cores: int) -> tuple[int, int]:
    """Rows and columns of the taps whose sums a core computes at a time: the largest that registers hold.

    (At most what the variant says, unless it keeps all or a row.) Smaller ones where the slowest core,
    by its loads and multiplications, then has less to do.
    """
    pixels, taps = UNROLLS[variant]
    choices = [(1, columns) for columns in range(taps, 0, -1)]
    for rows in (1, s.kernel_h) if variant in RESIDENT else ():
        others = rows * s.kernel_w - 1 if _slides(s, pixels, s.kernel_w) else 2 * pixels - 1
        if rows * s.kernel_w + others <= DATA_REGISTERS - 3:
            choices.insert(0, (rows, s.kernel_w))

    def slowest(block: tuple[int, int]) -> int:
        rows, columns = block
        costs = []
        for width, count in _blocks(s.kernel_w, columns):
            inputs = s.stride_w if _slides(s, pixels, width) else len(s.columns(pixels, width))
            costs += count * [pixels + rows * (inputs + pixels * width)]
        costs *= s.kernel_h // rows * channels
        chunk = chunk_of(len(costs), cores)
        return max(sum(costs[i : i + chunk]) for i in range(0, len(costs), chunk))

    return min(choices, key=slowest)


def _slides(s: Shape, pixels: int, columns: int) -> bool:
    """An output is alone, and its window has columns of the last one's."""
    return pixels == 1 and columns > s.stride_w


@cache
def weight_gradient_program(variant: int, shape: Shape, rows: int, columns: int, accumulate: bool) -> Program:
    """Arguments: x, dy, dw, blocks of rows x columns taps in all channels, blocks per core.

    A block has one row, or is the kernel.
    """
    s, pixels = shape, UNROLLS[variant][0]
    wide, rest = divmod(s.kernel_w, columns)
    b = Builder(_name("wg", variant))
    b.entry(b.name)
    x, dy, dw, units, chunk = b.arguments("x", "dy", "dw", "units", "chunk")
    done, narrow = b.label("done"), b.label("narrow")
    first, left = take_share(b, units, chunk, done)
    b.free(units)
    wide_left, rows_left = _go_to_block(b, s, first, rows, columns, (x, dy, dw))
    b.free(first)
    block_begins = b.here("block")

    def block(width: int) -> None:
        _gradients(b, s, pixels, rows, width, accumulate, (x, dy, dw))
        b("addi", left, left, -1)
        b("beq", left, "x0", done)
        _advance(b, x, width - s.out_h * s.stride_h * s.in_w)
        _advance(b, dy, -s.out_h * s.out_w)

    if rest:
        b("beq", wide_left, "x0", narrow)
    block(columns)
    _count_down(b, wide_left, block_begins)
    if rest:
        b.place(narrow)
        block(rest)
    b.li(wide_left, wide)
    _advance(b, x, s.in_w - s.kernel_w)
    _count_down(b, rows_left, block_begins)
    b.li(rows_left, s.kernel_h // rows)
    _advance(b, x, (s.in_h - s.kernel_h // rows) * s.in_w)
    _advance(b, dy, s.out_h * s.out_w)
    b("jal", "x0", block_begins)
    b.place(done)
    b.ret()
    return b.build()


def _go_to_block(
    b: Builder, s: Shape, block: Register, rows: int, columns: int, pointers: Registers
) -> tuple[Register, Register]:
    """Move the pointers to a block of taps; the block's number is lost.

    Returns how many blocks of full width are left in the row of blocks, and how many such rows.
    """
    x, dy, dw = pointers
    wide_left, rows_left = b.register("wide left"), b.register("rows left")
    b.li(wide_left, s.kernel_w // columns)
    b.li(rows_left, s.kernel_h // rows)
    with b.temporary("row", "channel") as [row, channel]:
        _split(b, block, -(-s.kernel_w // columns), row)
        b("sub", wide_left, wide_left, block)
        _advance_by(b, x, block, columns)
        _advance_by(b, dw, block, columns)
        _advance_by(b, dw, row, rows * s.kernel_w)
        _split(b, row, s.kernel_h // rows, channel)
        b("sub", rows_left, rows_left, row)
        _advance_by(b, x, row, s.in_w)
        _advance_by(b, x, channel, s.in_h * s.in_w)
        _advance_by(b, dy, channel, s.out_h * s.out_w)
    return wide_left, rows_left


def _gradients(
    b: Builder, s: Shape, pixels: int, rows: int, columns: int, accumulate: bool, pointers: Registers
) -> None:
    """The gradients of rows x columns taps: their sums over all outputs, row by row.

    A row of outputs goes `pixels` at a time, what is left over with the last of them. Leaves x and dy
    behind the rows, dw at the next block of taps.
    """
    x, dy, dw = pointers
    sums = b.registers("sum", rows * columns)

    def outputs(width: int, end: int) -> None:
        gradients = b.registers("dy", width)
        for gradient in gradients:
            b("p.lw", gradient, (dy, WORD, "!"))

        def use(i: int, p: int, j: int, value: Register) -> None:
            total = sums[i * columns + j]
            b("fmadd.s", total, gradients[p], value, total)

        _stream(b, s, x, range(rows), width, columns, end, use)
        b.free(*gradients)

    for t, total in enumerate(sums):
        if accumulate:
            b("lw", total, (dw, WORD * t))
        else:
            b.mv(total, "x0")
    with constant_loop(b, 1, s.out_h):
        if _slides(s, pixels, columns):
            _row_sliding(b, s, columns, sums, x, dy)
        else:
            to_next_row = s.stride_h * s.in_w - s.out_w * s.stride_w
            _in_blocks(b, x, _blocks(s.out_w, pixels, merged=True), s.stride_w, to_next_row, outputs)
    for total in sums:
        b("p.sw", total, (dw, WORD, "!"))
    b.free(*sums)


def _row_sliding(b: Builder, s: Shape, columns: int, sums: list[Register], x: Register, dy: Register) -> None:
    """A row of outputs one by one; a window's columns stay in registers as long as a window has them."""
    rows, gradient = len(sums) // columns, b.register("dy")
    window = [b.registers(f"window{i}_", columns) for i in range(rows)]
    old = columns - s.stride_w

    def load(begin: int, stop: int) -> None:
        """Columns into the places of those that are gone; x goes along."""
        for column in range(begin, stop):
            for i in range(rows):
                _load(b, window[i][column % columns], x, s.in_w if i < rows - 1 else 1 - i * s.in_w)

    def outputs(count: int) -> None:
        for begin in range(0, count * s.stride_w, s.stride_w):
            b("p.lw", gradient, (dy, WORD, "!"))
            load(begin + old, begin + columns)
            for t, total in enumerate(sums):
                i, j = divmod(t, columns)
                b("fmadd.s", total, gradient, window[i][(begin + j) % columns], total)

    load(0, old)
    period = columns // gcd(columns, s.stride_w)  # after so many outputs every column has its old place
    periods, rest = divmod(s.out_w, period)
    if periods:
        with constant_loop(b, 0, periods):
            outputs(period)
    outputs(rest)
    _advance(b, x, s.stride_h * s.in_w - s.out_w * s.stride_w - old)
    b.free(gradient, *(value for row in window for value in row))
