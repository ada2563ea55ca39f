"""The axes of an array in another order: the numbers of the result, row by row, from the whole array in L1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import prod

import numpy as np

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.partition import take_share
from trainlib.kernels.pieces import BANKS, add_constant, add_scaled, divide, repeat, step
from trainlib.kernels.touched import Given, Touched, array, touches

#: load-store pairs in the body of a hardware loop
COPY_UNROLL = 4
#: words in a row of the result: longer ones are cut in equal parts, if there are such, so that all cores have some
LEAST_ROW, LONGEST_ROW = 8, 64

#: of the result, from the first axis to the last: how many, and how many words from one to the next in the array
Axes = tuple[tuple[int, int], ...]


def axes_of(dims: Sequence[int], order: Sequence[int]) -> Axes:
    """Two or more. Axes that stay neighbours are one, and those of a single number none."""
    found: list[tuple[int, int]] = []
    for axis in order:
        size, apart = dims[axis], prod(dims[axis + 1 :])
        if size > 1 and found and found[-1][1] == size * apart:
            found[-1] = found[-1][0] * size, apart
        elif size > 1:
            found.append((size, apart))
    *outer, (size, apart) = found or [(1, 1)]
    part = next((part for part in range(LONGEST_ROW, LEAST_ROW - 1, -1) if size % part == 0), size)
    if size > LONGEST_ROW or not outer:
        outer.append((size // part, part * apart))
        size = part
    return (*outer, (size, apart))


def _touches(a: Given) -> Touched:
    places = np.zeros(1, np.int64)
    for size, apart in a.axes:
        places = np.add.outer(places, apart * np.arange(size)).reshape(-1)
    width = a.axes[-1][0]
    read = places[a.first * width : (a.first + a.rows) * width]
    return [array(a.x, 1) + read], [array(a.y, a.rows, width)]


@touches(_touches)
def permute(x: int, y: int, axes: Axes, first: int, rows: int, cores: int) -> Call:
    """Of the rows along the last axis of the result, those from `first` on -> y [rows, numbers of a row]."""
    chunk = chunk_of(rows, cores)
    if chunk % (BANKS // 2) == 0:  # odd shares set the cores apart where rows begin in one bank
        chunk += 1
    return Call(permute_program(axes), "permute", (x, y, first, rows, chunk))


@cache
def permute_program(axes: Axes) -> Program:
    """A row is a unit of work. Of the axes around it all but the first have a counter of what is still to come."""
    b = Builder("permute")
    b.entry("permute")
    x, y, start, rows, chunk = b.arguments("x", "y", "start", "rows", "chunk")
    done = b.label("done")
    *outer, (words, apart) = axes
    first, count = take_share(b, rows, chunk, done)
    add_scaled(b, y, first, 4 * words)
    b("add", start, start, first)
    b.free(rows, first)
    counters = _counters(b, x, start, outer)
    source = b.register("source")
    again = b.here("again")
    b.mv(source, x)
    with step(b, 4 * apart) as between:

        def body(n: int) -> None:
            values = b.registers("value", n)
            for value in values:
                b("p.lw", value, (source, between, "!"))
            for value in values:
                b("p.sw", value, (y, 4, "!"))
            b.free(*values)

        repeat(b, words, COPY_UNROLL, body)
    b("addi", count, count, -1)
    b("beq", count, "x0", done)
    behind = 0  # words from where the axis before began to where it has ended
    for (size, stride), counter in zip(reversed(outer), counters, strict=False):
        add_constant(b, x, x, 4 * (stride - behind))
        behind = size * stride
        b("addi", counter, counter, -1)
        b("bne", counter, "x0", again)
        b.li(counter, size)
    add_constant(b, x, x, 4 * (outer[0][1] - behind))
    b("jal", "x0", again)
    b.place(done)
    b.ret()
    return b.build()


def _counters(b: Builder, x: Register, row: Register, outer: list[tuple[int, int]]) -> list[Register]:
    """Emit: x points to where a row begins; gives what is still to come of every axis but the first, the last axis
    first. `row` is lost."""
    counters: list[Register] = []
    for size, stride in reversed(outer[1:]):
        quotient, counter = divide(b, row, size)
        add_scaled(b, x, counter, 4 * stride)
        b("sub", counter, "x0", counter)
        add_constant(b, counter, counter, size)
        b.mv(row, quotient)
        b.free(quotient)
        counters.append(counter)
    add_scaled(b, x, row, 4 * outer[0][1])
    b.free(row)
    return counters
