"""Moving data: fill, padding and dilation, interleaving, transposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

import numpy as np

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.partition import advance_pointer, take_share
from trainlib.kernels.pieces import (
    BANKS,
    FILL_UNROLL,
    MAX_IMMEDIATE,
    Step,
    add_constant,
    add_scaled,
    add_step,
    divide,
    repeat,
    repeat_counted,
    step,
    store_words,
)
from trainlib.kernels.touched import Given, Touched, array, tile, touches
from trainlib.kernels.vector import bits

#: load-store pairs, or those of a block of taps, in the body of a hardware loop
COPY_UNROLL, BLOCK_UNROLL = 4, 8


# -- fill ------------------------------------------------------------------------------------------
@touches(lambda a: ([], [array(a.target, a.words)]))
def fill(target: int, words: int, pattern: int, cores: int) -> Call:
    """target[words] = pattern, 32 bits each."""
    return Call(fill_program(), "fill", (target, words, pattern, chunk_of(words, cores, FILL_UNROLL)))


@cache
def fill_program() -> Program:
    b = Builder("fill")
    b.entry("fill")
    target, words, pattern, chunk = b.arguments("target", "words", "pattern", "chunk")
    done, leftover = b.label("done"), b.label("leftover")
    first, count = take_share(b, words, chunk, done)
    advance_pointer(b, target, first, 2)
    with b.temporary("blocks") as [blocks]:
        b("srli", blocks, count, FILL_UNROLL.bit_length() - 1)
        b("beq", blocks, "x0", leftover)
        with b.loop(0, blocks):
            for _ in range(FILL_UNROLL):
                b("p.sw", pattern, (target, 4, "!"))
    b.place(leftover)
    b("andi", count, count, FILL_UNROLL - 1)
    b("beq", count, "x0", done)
    with b.loop(0, count):
        b("sw", pattern, (target, 0))
        b("addi", target, target, 4)  # apart: a hardware loop has two instructions at least
    b.place(done)
    b.ret()
    return b.build()


# -- padding and dilation --------------------------------------------------------------------------
@dataclass(frozen=True)
class Axis:
    """Where `size` elements go among `padded`: element i to offset + dilation * i; some may be dropped."""

    size: int
    padded: int
    offset: int
    dilation: int

    @cached_property
    def kept(self) -> range:
        """The elements that are not dropped."""
        begin = max(0, -(self.offset // self.dilation))
        end = min(self.size, (self.padded - 1 - self.offset) // self.dilation + 1)
        return range(begin, max(begin, end))

    @property
    def first(self) -> int:
        """Where the first kept element goes."""
        return self.offset + self.dilation * self.kept.start

    @property
    def span(self) -> int:
        """From there up to where the last one goes, both included."""
        return self.dilation * (len(self.kept) - 1) + 1


@touches(lambda a: ([array(a.x, *a.shape)], [array(a.padded, a.shape[0], a.hp, a.wp)]))
def pad(
    x: int, padded: int, shape: tuple[int, int, int], hp: int, wp: int, top: int, left: int, cores: int,
    dilation_h: int = 1, dilation_w: int = 1, value: float = 0.0,
) -> Call:  # fmt: skip
    """x [C, H, W] -> padded [C, hp, wp]: (y, x) goes to (top + dilation_h * y, left + dilation_w * x).

    All else is `value`; what falls outside hp x wp is dropped (top and left may be negative: a window is cut out). A
    kept row of x is a unit of work: its core writes the padding that follows, too.
    """
    c, h, w = shape
    rows, columns = Axis(h, hp, top, dilation_h), Axis(w, wp, left, dilation_w)
    if not rows.kept or not columns.kept:
        return fill(padded, c * hp * wp, bits(value), cores)
    if c * len(rows.kept) == 1:  # one row is no work for many cores: take it as a column
        x += 4 * (rows.kept.start * w + columns.kept.start)
        start = rows.first * wp + columns.first
        rows, columns = Axis(len(columns.kept), hp * wp, start, dilation_w), Axis(1, 1, 0, 1)
    units = c * len(rows.kept)
    return Call(pad_program(rows, columns, bits(value)), "pad", (x, padded, units, chunk_of(units, cores)))


@cache
def pad_program(rows: Axis, columns: Axis, pattern: int) -> Program:
    """A channel's rows but the last, each with the padding up to the next, are a hardware loop; then comes
    the last with the padding up to the channel's end. A share may begin and end anywhere in a channel."""
    b = Builder("pad")
    b.entry("pad")
    x, padded, units, chunk = b.arguments("x", "padded", "units", "chunk")
    done, channel, inside, last = (b.label(name) for name in ("done", "channel", "inside", "last"))
    kept, line = len(rows.kept), rows.dilation * columns.padded
    lead = rows.first * columns.padded + columns.first
    first, count = take_share(b, units, chunk, done)
    c, y = divide(b, first, kept)
    b.free(units, first)
    value: Register | str = "x0"
    if pattern:
        b.li(value := b.register("value"), pattern)
    add_constant(b, x, x, 4 * (rows.kept.start * columns.size + columns.kept.start))
    for pointer, channel_words, row_words in (
        (x, rows.size * columns.size, columns.size),
        (padded, rows.padded * columns.padded, line),
    ):
        add_scaled(b, pointer, c, 4 * channel_words)
        add_scaled(b, pointer, y, 4 * row_words)
    b.free(c)
    b("beq", y, "x0", channel)
    add_constant(b, padded, padded, 4 * lead)
    b("jal", "x0", inside)
    b.place(channel)
    store_words(b, padded, lead, value)
    b.place(inside)
    with b.temporary("n") as [n]:
        b.li(n, kept - 1)
        b("sub", n, n, y)
        b("p.min", n, n, count)
        b("sub", count, count, n)
        b("beq", n, "x0", last)
        with b.loop(1, n):
            _copy_row(b, x, padded, columns, value)
            store_words(b, padded, line - columns.span, value)
    b.place(last)
    b("beq", count, "x0", done)
    _copy_row(b, x, padded, columns, value)
    store_words(b, padded, rows.padded * columns.padded - lead - (kept - 1) * line - columns.span, value)
    add_constant(b, x, x, 4 * (rows.size - kept) * columns.size)
    b.mv(y, "x0")
    b("addi", count, count, -1)
    b("bne", count, "x0", channel)
    b.place(done)
    b.ret()
    return b.build()


def _copy_row(b: Builder, x: Register, padded: Register, columns: Axis, padding: Register | str) -> None:
    """Emit the copy of a row's kept elements, dilated; x ends at those of the row below."""

    def body(n: int, gap: int = columns.dilation - 1) -> None:
        values = b.registers("value", n)
        for value in values:
            b("p.lw", value, (x, 4, "!"))
        for value in values:
            b("p.sw", value, (padded, 4, "!"))
            for _ in range(gap):
                b("p.sw", padding, (padded, 4, "!"))
        b.free(*values)

    kept = len(columns.kept)
    if columns.dilation == 1:
        repeat(b, kept, COPY_UNROLL, body)
    else:
        repeat(b, kept - 1, COPY_UNROLL, body)
        body(1, 0)
    add_constant(b, x, x, 4 * (columns.size - kept))


# -- interleaving ----------------------------------------------------------------------------------
def _interleave_touches(a: Given) -> Touched:
    places = array(a.whole, 1)
    for size, apart in zip(a.shape, a.steps, strict=True):
        places = np.add.outer(places, apart * np.arange(size))
    return [array(a.part, *a.shape)], [places.reshape(-1)]


@touches(_interleave_touches)
def interleave(part: int, whole: int, shape: tuple[int, int, int], steps: tuple[int, int, int], cores: int) -> Call:
    """part [C, H, W] -> (c, y, x) goes steps[0] c + steps[1] y + steps[2] x words behind `whole`; all else stays."""
    c, h, w = shape
    return Call(interleave_program(h, w, steps), "interleave", (part, whole, c * h, chunk_of(c * h, cores)))


@cache
def interleave_program(h: int, w: int, steps: tuple[int, int, int]) -> Program:
    """A row is a unit of work; a channel's rows are a hardware loop."""
    b = Builder("interleave")
    b.entry("interleave")
    part, whole, units, chunk = b.arguments("part", "whole", "units", "chunk")
    done = b.label("done")
    first, count = take_share(b, units, chunk, done)
    add_scaled(b, part, first, 4 * w)
    c, y = divide(b, first, h)
    b.free(units, first)
    channel, row, column = (4 * step for step in steps)
    add_scaled(b, whole, c, channel)
    add_scaled(b, whole, y, row)
    b.free(c)
    with (
        b.temporary("n") as [n],
        step(b, column) as between,
        step(b, row - w * column) as below,
        step(b, channel - h * row) as behind,
    ):
        again = b.here("channel")
        b.li(n, h)
        b("sub", n, n, y)
        b("p.min", n, n, count)
        b("sub", count, count, n)
        with b.loop(1, n):
            _spread_row(b, part, whole, w, between)
            add_step(b, whole, below)
        add_step(b, whole, behind)
        b.mv(y, "x0")
        b("bne", count, "x0", again)
    b.place(done)
    b.ret()
    return b.build()


def _spread_row(b: Builder, part: Register, whole: Register, words: int, between: Step) -> None:
    """Emit the copy of a row to words `between` bytes apart."""

    def body(n: int) -> None:
        values = b.registers("value", n)
        for value in values:
            b("p.lw", value, (part, 4, "!"))
        for value in values:
            b("p.sw", value, (whole, between, "!"))
        b.free(*values)

    repeat(b, words, COPY_UNROLL, body)


# -- transposes ------------------------------------------------------------------------------------
def _transpose_touches(a: Given) -> Touched:
    return [tile(a.x, a.rows, a.columns, a.x_stride)], [tile(a.y, a.columns, a.rows, a.y_stride)]


@touches(_transpose_touches)
def transpose(x: int, y: int, rows: int, columns: int, x_stride: int, y_stride: int, cores: int) -> Call:
    """x [rows, columns] -> y [columns, rows]. Addresses and row strides in bytes."""
    return _transpose("transpose", x, y, rows, columns, 1, (0,), x_stride, y_stride, cores)


def _flip_transpose_touches(a: Given) -> Touched:
    return [array(a.w, a.outputs, a.inputs, a.taps)], [array(a.flipped, a.outputs, a.inputs, a.taps)]


@touches(_flip_transpose_touches)
def flip_transpose(w: int, flipped: int, outputs: int, inputs: int, taps: int, cores: int) -> Call:
    """w [Co, Ci, T] -> flipped [Ci, Co, T], the taps in reverse order: the weights of an input gradient."""
    strides = 4 * inputs * taps, 4 * outputs * taps
    return _transpose("flip_transpose", w, flipped, outputs, inputs, taps, tuple(range(taps)), *strides, cores)


def _pick_transpose_touches(a: Given) -> Touched:
    blocks = array(a.w, a.outputs, a.inputs, a.taps).reshape(-1, a.taps)
    return [blocks[:, list(a.picked)].reshape(-1)], [tile(a.flipped, a.inputs, a.outputs * len(a.picked), a.stride)]


@touches(_pick_transpose_touches)
def pick_transpose(
    w: int, flipped: int, outputs: int, inputs: int, taps: int, picked: Sequence[int], stride: int, cores: int
) -> Call:
    """w [Co, Ci, T] -> flipped [Ci, Co, P], `stride` bytes from a row to the next: of the taps those `picked`, which
    rise, in reverse order."""
    block, strides = tuple(tap - picked[0] for tap in picked), (4 * inputs * taps, stride)
    return _transpose("pick_transpose", w + 4 * picked[0], flipped, outputs, inputs, taps, block, *strides, cores)


def _transpose(
    name: str, x: int, y: int, rows: int, columns: int, taps: int, picked: tuple[int, ...], x_stride: int,
    y_stride: int, cores: int,
) -> Call:  # fmt: skip
    """Of blocks of `taps` words those picked change places. The cores share the longer side of the matrix."""
    by_columns = columns >= rows
    outer, inner = (columns, rows) if by_columns else (rows, columns)
    chunk = chunk_of(outer, cores)
    # Words a row apart may lie in one bank, for all cores: odd shares set the cores apart.
    if len(picked) == 1 and chunk % (BANKS // 2) == 0 and (x_stride if by_columns else y_stride) % (2 * BANKS) == 0:
        chunk += 1
    arguments = (x, y, outer, inner, chunk, x_stride, y_stride)
    return Call(transpose_program(taps, picked, by_columns), name, arguments)


@cache
def transpose_program(taps: int, picked: tuple[int, ...], by_columns: bool) -> Program:
    b = Builder("transpose")
    b.entry("transpose")
    x, y, outer, inner, chunk, x_stride, y_stride = b.arguments(
        "x", "y", "outer", "inner", "chunk", "x_stride", "y_stride"
    )
    done = b.label("done")
    first, count = take_share(b, outer, chunk, done)
    # from block to block along a side of the matrix: a row stride, or the block's own bytes
    block = packed = b.register("block")
    b.li(block, 4 * taps)
    if len(picked) < taps:
        packed = b.register("packed")
        b.li(packed, 4 * len(picked))
    (x_outer, x_inner), (y_outer, y_inner) = (block, x_stride), (y_stride, packed)
    if not by_columns:
        x_outer, x_inner, y_outer, y_inner = x_inner, x_outer, y_inner, y_outer
    with b.temporary("offset") as [offset]:
        for pointer, stride in ((x, x_outer), (y, y_outer)):
            b("mul", offset, first, stride)
            b("add", pointer, pointer, offset)
    b.free(first, outer)
    add_constant(b, x, x, 4 * picked[-1])  # a block is read from its last word on
    with b.temporary("source", "target", "source_step", "target_step") as [source, target, source_step, target_step]:
        if len(picked) < taps:
            add_constant(b, source_step, x_inner, 4 * picked[-1] + 4)
        else:
            b("add", source_step, x_inner, block)
        b("sub", target_step, y_inner, packed)
        again = b.here("again")
        b.mv(source, x)
        b.mv(target, y)
        b("add", x, x, x_outer)
        b("add", y, y, y_outer)
        if len(picked) == 1:
            _move_words(b, source, target, inner, x_inner, y_inner)
        else:
            with b.loop(1, inner):
                _reverse_block(b, source, target, picked, source_step, target_step)
        b("addi", count, count, -1)
        b("bne", count, "x0", again)
    b.place(done)
    b.ret()
    return b.build()


def _move_words(
    b: Builder, source: Register, target: Register, count: Register, source_step: Register, target_step: Register
) -> None:
    """Emit the copy of `count` words, steps in bytes."""

    def body(n: int) -> None:
        values = b.registers("value", n)
        for value in values:
            b("p.lw", value, (source, source_step, "!"))
        for value in values:
            b("p.sw", value, (target, target_step, "!"))
        b.free(*values)

    repeat_counted(b, count, COPY_UNROLL, body)


def _reverse_block(
    b: Builder, source: Register, target: Register, picked: tuple[int, ...], source_step: Register,
    target_step: Register,
) -> None:  # fmt: skip
    """Emit the copy of a block's words that are picked, the last first; the steps are from its end to the next."""

    def body(gaps: Sequence[int]) -> None:
        values = b.registers("value", len(gaps))
        for value, gap in zip(values, gaps, strict=True):
            if 4 * gap <= MAX_IMMEDIATE:
                b("p.lw", value, (source, -4 * gap, "!"))
            else:
                b("lw", value, (source, 0))
                add_constant(b, source, source, -4 * gap)
        for value in values:
            b("p.sw", value, (target, 4, "!"))
        b.free(*values)

    gaps = [after - before for before, after in pairwise((-1, *picked))][::-1]
    if set(gaps) == {1}:
        repeat(b, len(gaps), BLOCK_UNROLL, lambda n: body([1] * n))
    else:
        for first in range(0, len(gaps), BLOCK_UNROLL):
            body(gaps[first : first + BLOCK_UNROLL])
    b("add", source, source, source_step)
    b("add", target, target, target_step)
