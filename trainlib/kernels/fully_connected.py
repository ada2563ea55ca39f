"""The fully-connected layer, batch 1: y = W x, dx = W^T d, dW = d x^T, W -= lr d x^T.

W is a tile of `rows` outputs by `columns` inputs, row-major with a row stride. The forward kernel splits
rows over the cores, the backward kernels split columns, so that every sum runs over its index in order on
one core: tiling never changes a bit. With momentum a tile of velocities lies right behind the tile of W, with
the same stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import ARGUMENTS, Call, chunk_of
from trainlib.kernels.optimizer import PLAIN, Rule
from trainlib.kernels.partition import advance_pointer, take_share
from trainlib.kernels.touched import Given, Touched, array, tile, touches

ROW_UNROLLS = (1, 2, 4)
COLUMN_UNROLLS = (1, 2, 4, 8)
#: columns of a block at most where sums, inputs and the numbers of an update that is not plain share the registers
MAX_CROWDED = 4


def _forward_touches(a: Given) -> Touched:
    y = array(a.y, a.rows)
    return [tile(a.w, a.rows, a.columns, a.stride), array(a.x, a.columns), *[y] * a.accumulate], [y]


@touches(_forward_touches)
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


def _backward_touches(a: Given) -> Touched:
    parts = a.step.split("+")
    w, dw = (tile(address, a.rows, a.columns, a.stride) for address in (a.w, a.dw))
    reads, writes = [array(a.pairs, 2 * a.rows)], []
    if "wg" in parts:
        reads.append(array(a.x, a.columns))
    if a.step != "wg":
        reads.append(w)
    if "ig" in parts:
        dx = array(a.dx, a.columns)
        reads += [dx] * a.accumulate
        writes.append(dx)
    if "update" in parts and a.rule.momentum:  # velocities lie behind the tile
        w = np.concatenate([w, tile(a.w + a.rows * a.stride, a.rows, a.columns, a.stride)])
        reads.append(w)
    return reads, writes + ([w] if "update" in parts else [dw] if a.step == "wg" else [])


@touches(_backward_touches)
def backward(
    step: str, w: int, pairs: int, x: int, dx: int, dw: int, rows: int, columns: int, stride: int, cores: int,
    unroll: int, accumulate: bool, rule: Rule = PLAIN,
) -> Call:  # fmt: skip
    """One backward step on a tile of W: "ig", "wg", "wg+update" or "ig+wg+update".

    pairs: (d, -(lr d)) of the tile's rows; x: inputs of its columns; dx: their gradient (accumulated into
    if `accumulate`); dw: where "wg" writes the weight gradient, same shape and stride as the tile. rule: of the
    update; one that is not plain takes `MAX_CROWDED` columns at most beside an input gradient.
    """
    kind = _Kind.of(step, rule)
    unroll = min(unroll, MAX_CROWDED) if kind.gradient and not kind.rule.plain else unroll
    chunk = chunk_of(columns, cores, unroll)
    target = dw if step == "wg" else w
    program = backward_program(step, unroll, accumulate and kind.gradient, kind.rule)
    scalars = () if kind.rule.plain else rule.arguments
    return Call(program, kind.name(unroll), (target, pairs, x, dx, rows, columns, stride, chunk, *scalars))


@dataclass(frozen=True)
class _Kind:
    """What a backward program does with a weight.

    gradient: multiplies it, for dx; outer: writes its gradient; update: changes it, by a rule.
    """

    step: str
    gradient: bool
    outer: bool
    update: bool
    rule: Rule

    @classmethod
    def of(cls, step: str, rule: Rule) -> _Kind:
        parts = step.split("+")
        update = "update" in parts
        return cls(step, "ig" in parts, step == "wg", update, rule.shape if update else PLAIN)

    def name(self, unroll: int) -> str:
        return f"fc_{self.step}_1x{unroll}{self.rule.suffix}"

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the numbers that an update which is not plain is given."""
        rule = self.rule
        given = ("momentum",) * bool(rule.momentum) + ("decay",) * bool(rule.weight_decay)
        return () if rule.plain else ("minus_lr", *given)


@cache
def backward_program(step: str, unroll: int, accumulate: bool, rule: Rule = PLAIN) -> Program:
    kind = _Kind.of(step, rule)
    b = Builder(kind.name(unroll))
    b.entry("fc_bw")
    w, pairs, x, dx, rows, columns, stride, chunk = b.arguments(
        "w", "pairs", "x", "dx", "rows", "columns", "stride", "chunk"
    )
    scalars = {name: b.register(name, at=ARGUMENTS[8 + i]) for i, name in enumerate(kind.scalars)}
    done = b.label("done")
    first, count = take_share(b, columns, chunk, done)
    b("slli", first, first, 2)
    for pointer in (w, x, dx):
        b("add", pointer, pointer, first)
    b.free(first, columns)
    if not kind.rule.plain and not kind.gradient:
        b.free(dx)
    tile = _Tile(w, pairs, x, dx, rows, stride, scalars, _to_velocities(b, kind, rows, stride))
    if unroll > 1:
        leftover = b.label("leftover")
        blocks = b.register("blocks")
        b("srli", blocks, count, unroll.bit_length() - 1)
        b("beq", blocks, "x0", leftover)
        _columns(b, kind, unroll, blocks, tile, accumulate)
        b.place(leftover)
        b("andi", count, count, unroll - 1)
        b("beq", count, "x0", done)
    _columns(b, kind, 1, count, tile, accumulate)
    b.place(done)
    b.ret()
    return b.build()


@dataclass(frozen=True)
class _Tile:
    """Registers that live as long as the program. to_velocities: bytes from a weight to its velocity."""

    w: Register
    pairs: Register
    x: Register
    dx: Register
    rows: Register
    stride: Register
    k: dict[str, Register]
    to_velocities: Register | None


def _to_velocities(b: Builder, kind: _Kind, rows: Register, stride: Register) -> Register | None:
    if not kind.rule.momentum:
        return None
    distance = b.register("to velocities")
    b("mul", distance, rows, stride)
    return distance


def _columns(b: Builder, kind: _Kind, unroll: int, blocks: Register, tile: _Tile, accumulate: bool) -> None:
    """`blocks` times `unroll` columns, all rows of the tile: sums and inputs stay in registers.

    Frees `blocks`.
    """
    with b.loop(1, blocks):
        b.free(blocks)  # the hardware counts
        sums = b.registers("sum", unroll) if kind.gradient else []
        inputs = b.registers("x", unroll) if kind.outer or kind.update else []
        values = b.registers("value", min(unroll, 2))
        with b.temporary("row", "pair", "d") as [row, pair, d]:
            b.mv(row, tile.w)
            b("addi", pair, tile.pairs, 0 if kind.gradient or kind.outer or not kind.rule.plain else 4)
            for v in range(len(inputs)):
                b("p.lw", inputs[v], (tile.x, 4, "!"))
            for v in range(len(sums)):
                if accumulate:
                    b("lw", sums[v], (tile.dx, 4 * v))
                else:
                    b.mv(sums[v], "x0")
            column = _Columns(row, pair, d, sums, inputs, values)
            (_rows if kind.rule.plain else _rows_by_rule)(b, kind, tile, column)
            for v in range(len(sums)):
                b("p.sw", sums[v], (tile.dx, 4, "!"))
            b("addi", tile.w, tile.w, 4 * unroll)
        b.free(*sums, *inputs, *values)


@dataclass(frozen=True)
class _Columns:
    """Registers of a block of columns, and how it goes through its rows: columns in groups of as many as `values`,
    the first one last, so that its access can step to the next row."""

    row: Register
    pair: Register
    d: Register
    sums: list[Register]
    inputs: list[Register]
    values: list[Register]

    def groups(self) -> list[range]:
        size = len(self.values)
        count = max(len(self.sums), len(self.inputs))
        return [range(begin, begin + size) for begin in reversed(range(0, count, size))]


def _rows(b: Builder, kind: _Kind, tile: _Tile, c: _Columns) -> None:
    """All rows of the tile; the update, if any, is w = fma(-(lr d), x, w)."""
    with b.temporary("n") as [n], b.loop(0, tile.rows):
        if kind.gradient or kind.outer:
            b("p.lw", c.d, (c.pair, 4 if kind.update else 8, "!"))
        if kind.update:
            b("p.lw", n, (c.pair, 4 if kind.gradient else 8, "!"))
        for columns in c.groups():
            group = list(zip(reversed(columns), reversed(c.values), strict=True))
            if not kind.outer:
                for v, value in group:
                    _access(b, "lw", value, c.row, v, tile.stride, step=v == 0 and not kind.update)
            for v, value in group:
                if kind.outer:
                    b("fmul.s", value, c.d, c.inputs[v])
                if kind.gradient:
                    b("fmadd.s", c.sums[v], value, c.d, c.sums[v])
                if kind.update:
                    b("fmadd.s", value, n, c.inputs[v], value)
            if kind.outer or kind.update:
                for v, value in group:
                    _access(b, "sw", value, c.row, v, tile.stride, step=v == 0)


def _rows_by_rule(b: Builder, kind: _Kind, tile: _Tile, c: _Columns) -> None:
    """All rows of the tile with an update as `optimizer.sgd` does it, from the rounded gradient d x."""
    velocities = b.registers("velocity", len(c.values)) if kind.rule.momentum else []
    changes = b.registers("change", len(c.values))
    velocity_row = b.register("velocity row") if tile.to_velocities else None
    if velocity_row and tile.to_velocities:
        b("add", velocity_row, c.row, tile.to_velocities)
    with b.loop(0, tile.rows):
        b("p.lw", c.d, (c.pair, 8, "!"))
        for columns in c.groups():
            group = list(zip(reversed(columns), reversed(c.values), reversed(changes), strict=True))
            for v, value, _ in group:
                b("lw", value, (c.row, 4 * v))
            for (v, _, _), velocity in zip(group, velocities, strict=False):
                b("lw", velocity, (velocity_row, 4 * v))
            for v, value, change in group:
                b("fmul.s", change, c.d, c.inputs[v])
                if kind.gradient:
                    b("fmadd.s", c.sums[v], value, c.d, c.sums[v])
                if kind.rule.weight_decay:
                    b("fmadd.s", change, tile.k["decay"], value, change)
            for (v, _, change), velocity in zip(group, velocities, strict=False):
                moved = velocity if kind.rule.nesterov else change
                b("fmadd.s", moved, tile.k["momentum"], velocity, change)
                assert velocity_row is not None
                _access(b, "sw", moved, velocity_row, v, tile.stride, step=v == 0)
                if kind.rule.nesterov:
                    b("fmadd.s", change, tile.k["momentum"], velocity, change)
            for v, value, change in group:
                b("fmadd.s", value, tile.k["minus_lr"], change, value)
                _access(b, "sw", value, c.row, v, tile.stride, step=v == 0)
    b.free(*velocities, *changes, *([velocity_row] if velocity_row else []))


def _access(
    b: Builder, mnemonic: str, value: Register, row: Register, column: int, stride: Register, step: bool
) -> None:
    """Load or store a column of the row; step: and go to the next row."""
    b(f"p.{mnemonic}" if step else mnemonic, value, (row, stride, "!") if step else (row, 4 * column))
