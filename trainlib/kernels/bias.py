"""Bias of convolutional and fully-connected layers: y[c, p] += b[c], and db[c] = sum over p of dy[c, p].

Matrices are compact; P is 1 for a fully-connected layer.
"""

from __future__ import annotations

from functools import cache

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.partition import advance_pointer, take_share
from trainlib.kernels.pieces import repeat
from trainlib.kernels.touched import Given, Touched, array, touches

#: elements in the body of a hardware loop
UNROLL = 4


def _forward_touches(a: Given) -> Touched:
    y = array(a.y, a.rows, a.columns)
    return [y, array(a.bias, a.rows)], [y]


@touches(_forward_touches)
def bias_forward(y: int, bias: int, rows: int, columns: int, relu: bool, cores: int) -> Call:
    """y [rows, columns] += bias [rows], then max(y, 0) if `relu`, a NaN giving 0; in place.

    The cores share the rows or, if these are fewer than cores, the columns.
    """
    by_columns = rows < cores and columns > rows
    chunk = chunk_of(columns, cores, UNROLL) if by_columns else chunk_of(rows, cores)
    name = "bias_fw+relu" if relu else "bias_fw"
    return Call(bias_forward_program(relu, by_columns), name, (y, bias, rows, columns, chunk))


@cache
def bias_forward_program(relu: bool, by_columns: bool) -> Program:
    b = Builder("bias_fw")
    b.entry("bias_fw")
    y, bias, rows, columns, chunk = b.arguments("y", "bias", "rows", "columns", "chunk")
    done, leftover, following = b.label("done"), b.label("leftover"), b.label("following")
    if by_columns:
        skip = b.register("skip")
        b.mv(skip, columns)
        first, n = take_share(b, columns, chunk, done)
        advance_pointer(b, y, first, 2)
        b("sub", skip, skip, n)  # of each row, what is not this core's
        b("slli", skip, skip, 2)
        b.mv(columns, n)
    else:
        first, n = take_share(b, rows, chunk, done)
        advance_pointer(b, bias, first, 2)
        b("mul", first, first, columns)
        advance_pointer(b, y, first, 2)
        b.mv(rows, n)
    b.free(first, n)
    blocks = b.register("blocks")
    b("srli", blocks, columns, UNROLL.bit_length() - 1)
    b("andi", columns, columns, UNROLL - 1)
    with b.temporary("value") as [value], b.loop(1, rows):
        b("p.lw", value, (bias, 4, "!"))
        b("beq", blocks, "x0", leftover)
        with b.loop(0, blocks):
            _add(b, y, value, relu, UNROLL)
        b.place(leftover)
        b("beq", columns, "x0", following)
        with b.loop(0, columns):
            _add(b, y, value, relu, 1)
        b.place(following)
        b("add", y, y, skip if by_columns else "x0")  # a loop cannot end on a label
    b.place(done)
    b.ret()
    return b.build()


def _add(b: Builder, y: Register, value: Register, relu: bool, unroll: int) -> None:
    totals = b.registers("total", unroll)
    for v, total in enumerate(totals):
        b("lw", total, (y, 4 * v))
    for total in totals:
        b("fadd.s", total, total, value)
    for total in totals:
        if relu:
            b("fmax.s", total, total, "x0")
        b("p.sw", total, (y, 4, "!"))
    b.free(*totals)


def _gradient_touches(a: Given) -> Touched:
    db = array(a.db, a.rows)
    return [array(a.dy, a.rows, a.columns), *[db] * a.accumulate], [db]


@touches(_gradient_touches)
def bias_gradient(dy: int, db: int, rows: int, columns: int, accumulate: bool, cores: int) -> Call:
    """db [rows] (+)= the rows' sums of dy [rows, columns], each in order."""
    arguments = (dy, db, rows, chunk_of(rows, cores))
    return Call(bias_gradient_program(columns, accumulate), "bias_bw", arguments)


@cache
def bias_gradient_program(columns: int, accumulate: bool) -> Program:
    b = Builder("bias_bw")
    b.entry("bias_bw")
    dy, db, rows, chunk = b.arguments("dy", "db", "rows", "chunk")
    done = b.label("done")
    first, count = take_share(b, rows, chunk, done)
    advance_pointer(b, db, first, 2)
    b.free(rows)
    with b.temporary("bytes") as [size]:
        b.li(size, 4 * columns)
        b("mul", first, first, size)
        b("add", dy, dy, first)
    b.free(first)
    with b.temporary("total") as [total], b.loop(1, count):
        if accumulate:
            b("lw", total, (db, 0))
        else:
            b.mv(total, "x0")

        def add(n: int) -> None:
            values = b.registers("value", n)
            for value in values:
                b("p.lw", value, (dy, 4, "!"))
            for value in values:
                b("fadd.s", total, total, value)
            b.free(*values)

        repeat(b, columns, UNROLL, add)
        b("p.sw", total, (db, 4, "!"))
    b.place(done)
    b.ret()
    return b.build()
