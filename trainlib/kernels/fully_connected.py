"""The fully-connected layer, batch 1: y = W x, dx = W^T d, dW = d x^T, W -= lr d x^T.

W is a tile of `rows` outputs by `columns` inputs, row-major with a row stride. The forward kernel splits
rows over the cores, the backward kernels split columns, so that every sum runs over its index in order on
one core: tiling never changes a bit.
"""

from __future__ import annotations

from functools import cache

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.partition import advance_pointer, take_share

ROW_UNROLLS = (1, 2, 4)
COLUMN_UNROLLS = (1, 2, 4, 8)


def forward(
    w: int,
    x: int,
    y: int,
    rows: int,
    columns: int,
    stride: int,
    cores: int,
    unroll: int,
    accumulate: bool,
    relu: bool,
) -> Call:
    """y[rows] (+)= W x, then max(y, 0) if `relu`. Addresses and stride in bytes."""
    chunk = chunk_of(rows, cores, unroll)
    name = f"fc_fw_{unroll}x1" + ("+relu" if relu else "")
    return Call(forward_program(unroll, accumulate, relu), name, (w, x, y, rows, columns, stride, chunk))


@cache
def forward_program(unroll: int, accumulate: bool, relu: bool) -> Program:
    b = Builder(f"fc_fw_{unroll}x1")
    b.entry("fc_fw")
    w, x, y, rows, columns, stride, chunk = b.arguments("w", "x", "y", "rows", "columns", "stride", "chunk")
    done = b.label("done")
    first, count = take_share(b, rows, chunk, done)
    advance_pointer(b, y, first, 2)
    b("mul", first, first, stride)
    b("add", w, w, first)
    b.free(first, rows)
    if unroll > 1:
        leftover = b.label("leftover")
        blocks = b.register("blocks")
        b("srli", blocks, count, unroll.bit_length() - 1)
        b("beq", blocks, "x0", leftover)
        _forward_rows(b, unroll, blocks, (w, x, y, columns, stride), accumulate, relu)
        b.place(leftover)
        b("andi", count, count, unroll - 1)
        b("beq", count, "x0", done)
    _forward_rows(b, 1, count, (w, x, y, columns, stride), accumulate, relu)
    b.place(done)
    b.ret()
    return b.build()


def _forward_rows(
    b: Builder, unroll: int, blocks: Register, arguments: tuple[Register, ...], accumulate: bool, relu: bool
) -> None:
    """`blocks` times `unroll` rows: x is loaded once for all of them. Frees `blocks`."""
    w, x, y, columns, stride = arguments
    with b.loop(1, blocks):
        b.free(blocks)  # the hardware counts
        sums, rows, values = (b.registers(name, unroll) for name in ("sum", "row", "value"))
        with b.temporary("px", "xk") as [px, xk]:
            b.mv(px, x)
            for u in range(unroll):
                if u == 0:
                    b.mv(rows[0], w)
                else:
                    b("add", rows[u], rows[u - 1], stride)
                if accumulate:
                    b("lw", sums[u], (y, 4 * u))
                else:
                    b.mv(sums[u], "x0")
            b("add", w, rows[-1], stride)
            with b.loop(0, columns):
                b("p.lw", xk, (px, 4, "!"))
                for u in range(unroll):
                    b("p.lw", values[u], (rows[u], 4, "!"))
                for u in range(unroll):
                    b("fmadd.s", sums[u], values[u], xk, sums[u])
            for u in range(unroll):
                if relu:
                    b("fmax.s", sums[u], sums[u], "x0")
                b("p.sw", sums[u], (y, 4, "!"))
        b.free(*sums, *rows, *values)


def backward(
    step: str, w: int, pairs: int, x: int, dx: int, dw: int, rows: int, columns: int, stride: int, cores: int,
    unroll: int, accumulate: bool,
) -> Call:  # fmt: skip
    """One backward step on a tile of W: "ig", "wg", "wg+update" or "ig+wg+update".

    pairs: (d, -(lr d)) of the tile's rows; x: inputs of its columns; dx: their gradient (accumulated into
    if `accumulate`); dw: where "wg" writes the weight gradient, same shape and stride as the tile.
    """
    chunk = chunk_of(columns, cores, unroll)
    name = f"fc_{step}_1x{unroll}"
    target = dw if step == "wg" else w
    program = backward_program(step, unroll, accumulate and "ig" in step.split("+"))
    return Call(program, name, (target, pairs, x, dx, rows, columns, stride, chunk))


@cache
def backward_program(step: str, unroll: int, accumulate: bool) -> Program:
    b = Builder(f"fc_{step}_1x{unroll}")
    b.entry("fc_bw")
    w, pairs, x, dx, rows, columns, stride, chunk = b.arguments(
        "w", "pairs", "x", "dx", "rows", "columns", "stride", "chunk"
    )
    done = b.label("done")
    first, count = take_share(b, columns, chunk, done)
    b("slli", first, first, 2)
    for pointer in (w, x, dx):
        b("add", pointer, pointer, first)
    b.free(first, columns)
    arguments = (w, pairs, x, dx, rows, stride)
    if unroll > 1:
        leftover = b.label("leftover")
        blocks = b.register("blocks")
        b("srli", blocks, count, unroll.bit_length() - 1)
        b("beq", blocks, "x0", leftover)
        _columns(b, step, unroll, blocks, arguments, accumulate)
        b.place(leftover)
        b("andi", count, count, unroll - 1)
        b("beq", count, "x0", done)
    _columns(b, step, 1, count, arguments, accumulate)
    b.place(done)
    b.ret()
    return b.build()


def _columns(
    b: Builder, step: str, unroll: int, blocks: Register, arguments: tuple[Register, ...], accumulate: bool
) -> None:
    """`blocks` times `unroll` columns, all rows of the tile: sums and inputs stay in registers.

    Frees `blocks`.
    """
    w, pairs, x, dx, rows, stride = arguments
    parts = step.split("+")
    gradient, outer, update = "ig" in parts, step == "wg", "update" in parts
    group = min(unroll, 2)
    with b.loop(1, blocks):
        b.free(blocks)  # the hardware counts
        sums = b.registers("sum", unroll) if gradient else []
        inputs = b.registers("x", unroll) if outer or update else []
        values = b.registers("value", group)
        with b.temporary("row", "pair", "d", "n") as [row, pair, d, n]:
            b.mv(row, w)
            b("addi", pair, pairs, 0 if gradient or outer else 4)
            for v in range(len(inputs)):
                b("p.lw", inputs[v], (x, 4, "!"))
            for v in range(len(sums)):
                if accumulate:
                    b("lw", sums[v], (dx, 4 * v))
                else:
                    b.mv(sums[v], "x0")
            with b.loop(0, rows):
                _row_of_tile(
                    b, unroll, group, gradient, outer, update, (row, pair, d, n, stride), sums, inputs, values
                )
            for v in range(len(sums)):
                b("p.sw", sums[v], (dx, 4, "!"))
            b("addi", w, w, 4 * unroll)
        b.free(*sums, *inputs, *values)


def _row_of_tile(
    b: Builder, unroll: int, group: int, gradient: bool, outer: bool, update: bool,
    registers: tuple[Register, ...], sums: list[Register], inputs: list[Register], values: list[Register],
) -> None:  # fmt: skip
    """One row: columns in groups, the first column last, so that its access can step to the next row."""
    row, pair, d, n, stride = registers
    if gradient or outer:
        b("p.lw", d, (pair, 4 if update else 8, "!"))
    if update:
        b("p.lw", n, (pair, 4 if gradient else 8, "!"))
    for begin in reversed(range(0, unroll, group)):
        columns = range(begin, begin + group)
        if not outer:
            for v in reversed(columns):
                last = v == 0 and not update
                b("p.lw" if last else "lw", values[v - begin], (row, stride, "!") if last else (row, 4 * v))
        for v in reversed(columns):
            value = values[v - begin]
            if outer:
                b("fmul.s", value, d, inputs[v])
            if gradient:
                b("fmadd.s", sums[v], value, d, sums[v])
            if update:
                b("fmadd.s", value, n, inputs[v], value)
        if outer or update:
            for v in reversed(columns):
                b(
                    "p.sw" if v == 0 else "sw",
                    values[v - begin],
                    (row, stride, "!") if v == 0 else (row, 4 * v),
                )
