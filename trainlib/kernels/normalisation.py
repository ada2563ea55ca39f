"""Normalisation of rows: a matrix x [rows, n], of every row its mean and 1 / sqrt(variance + eps), its `statistics`.

Instance normalisation has a row for each channel, and gamma and beta one for each row; layer normalisation one row for
all numbers, with gamma and beta for each of them. xhat = (x - mean) * inverse, y = fma(xhat, gamma, beta).

A row is a unit of work or, where it is `shared`, all cores take a part of every row: the cores' sums are added in core
order. partial: FP32 [2 * cores] in L1 for these, not touched where rows are not shared. The variance is taken around
the mean, in a pass of its own. Rows may come in tiles, whole: no bit hangs on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import chain

from pulpsim import Builder, Program
from pulpsim.program import Label, Register
from trainlib.kernels import Call, Words, chunk_of
from trainlib.kernels.loss import add_partials, barrier, store_partial
from trainlib.kernels.partition import advance_pointer, take_share
from trainlib.kernels.pieces import add_scaled, repeat_counted
from trainlib.kernels.touched import Given, Touched, array, touches
from trainlib.kernels.vector import bits

#: two elements a turn fill the load-use slots
UNROLL = 2


@dataclass(frozen=True)
class Shape:
    """What a program is made for. per_element: gamma and beta have n numbers, for the one row that there is."""

    rows: int
    n: int
    cores: int
    shared: bool
    per_element: bool

    @property
    def chunk(self) -> int:
        return chunk_of(self.n if self.shared else self.rows, self.cores)


# -- forward ---------------------------------------------------------------------------------------
def _partial(a: Given, shared: bool) -> list[Words]:
    return [array(a.partial, 2 * a.cores)] if shared and a.cores > 1 else []


def _forward_touches(a: Given, rows: int, parameters: int, shared: bool) -> Touched:
    """parameters: numbers in gamma and in beta."""
    reads = [array(a.x, rows, a.n), array(a.gamma, parameters), array(a.beta, parameters)]
    return reads, [array(a.y, rows, a.n), array(a.statistics, 2 * rows), *_partial(a, shared)]


@touches(lambda a: _forward_touches(a, a.rows, a.rows, a.shared))
def instance_norm(
    x: int, y: int, gamma: int, beta: int, statistics: int, partial: int, rows: int, n: int, eps: float, shared: bool,
    cores: int,
) -> Call:  # fmt: skip
    """x [rows, n], gamma and beta [rows] -> y and statistics [rows, 2]: mean, inverse; y may be x.

    shared: a matter of the layer, not of the tile: sums have other bits. It pays where a layer has fewer rows than
    cores.
    """
    program = forward_program(Shape(rows, n, cores, shared and cores > 1, False), bits(eps))
    return Call(program, "instance_norm_fw", (x, y, gamma, beta, statistics, partial))


@touches(lambda a: _forward_touches(a, 1, a.n, True))
def layer_norm(
    x: int, y: int, gamma: int, beta: int, statistics: int, partial: int, n: int, eps: float, cores: int
) -> Call:
    """x, gamma and beta [n] -> y and statistics [2]: mean, inverse; y may be x. The row is shared."""
    program = forward_program(Shape(1, n, cores, cores > 1, True), bits(eps))
    return Call(program, "layer_norm_fw", (x, y, gamma, beta, statistics, partial))


@cache
def forward_program(shape: Shape, eps: int) -> Program:
    b = Builder("normalise_fw")
    b.entry("normalise_fw")
    x, y, gamma, beta, statistics, partial = b.arguments("x", "y", "gamma", "beta", "statistics", "partial")
    done = b.label("done")
    per_number, per_row = ((x, y, gamma, beta), ()) if shape.per_element else ((x, y), (gamma, beta))
    s = _take(b, shape, per_number, per_row, statistics, partial, done)
    row = b.here("row")
    mean, inverse = b.register("mean"), b.register("inverse")
    _sum(b, s, x, mean, None)
    _join(b, shape, s, (mean,), 0)
    _divide(b, shape, mean)
    _sum(b, s, x, inverse, mean)
    _join(b, shape, s, (inverse,), 1)
    _invert(b, shape, s, mean, inverse, eps)
    _normalise(b, shape, s, (x, y, gamma, beta), (mean, inverse))
    b.free(mean, inverse)
    _next_row(b, shape, s, (x, y), row)
    b.place(done)
    b.ret()
    return b.build()


def _sum(b: Builder, s: _Share, x: Register, total: Register, mean: Register | None) -> None:
    """Emit: total = the sum of the core's numbers of a row or, with a mean, of the squares around it."""

    def body(n: int) -> None:
        [values] = _load(b, n, source)
        if mean is None:
            for value in values:
                b("fadd.s", total, total, value)
        else:
            for value in values:
                b("fsub.s", value, value, mean)
            for value in values:
                b("fmadd.s", total, value, value, total)
        b.free(*values)

    b.mv(total, "x0")
    with b.temporary("source") as [source]:
        b.mv(source, x)
        repeat_counted(b, s.count, UNROLL, body)


def _invert(b: Builder, shape: Shape, s: _Share, mean: Register, inverse: Register, eps: int) -> None:
    """Emit: inverse, a sum of squares, becomes 1 / sqrt(it / n + eps); both are stored.

    Of a shared row by the last core, which has the smallest share: there is one divider for all.
    """
    wait = b.label("wait")
    with b.temporary("share", "number") as [share, number]:
        if shape.shared:
            b("addi", share, s.core, 1 - shape.cores)
            b("bne", share, "x0", wait)
        b.li(share, bits(1.0 / shape.n))
        b.li(number, eps)
        b("fmadd.s", inverse, inverse, share, number)
        b("fsqrt.s", inverse, inverse)
        b.li(number, bits(1.0))
        b("fdiv.s", inverse, number, inverse)
    b("sw", mean, (s.statistics, 0))
    b("sw", inverse, (s.statistics, 4))
    if shape.shared:
        b.place(wait)
        barrier(b)
        b("lw", inverse, (s.statistics, 4))
    b("addi", s.statistics, s.statistics, 8)


def _normalise(
    b: Builder, shape: Shape, s: _Share, pointers: tuple[Register, ...], statistics: tuple[Register, Register]
) -> None:
    """Emit y of the core's numbers of a row; the pointers move behind what they gave."""
    x, y, gamma, beta = pointers
    factor, offset = b.register("factor"), b.register("offset")
    sources = (x, gamma, beta) if shape.per_element else (x,)

    def body(n: int) -> None:
        values, *others = _load(b, n, *sources)
        factors, offsets = others or ([factor] * n, [offset] * n)
        _to_normal(b, values, statistics)
        for v in range(n):
            b("fmadd.s", values[v], values[v], factors[v], offsets[v])
        for value in values:
            b("p.sw", value, (y, 4, "!"))
        b.free(*values, *chain(*others))

    if not shape.per_element:
        b("p.lw", factor, (gamma, 4, "!"))
        b("p.lw", offset, (beta, 4, "!"))
    repeat_counted(b, s.count, UNROLL, body)
    b.free(factor, offset)


# -- backward --------------------------------------------------------------------------------------
def _gradient_touches(a: Given, rows: int, parameters: int, shared: bool) -> Touched:
    dy, x, dx = (array(at, rows, a.n) for at in (a.dy, a.x, a.dx))
    gamma, *gradients = (array(at, parameters) for at in (a.gamma, a.dgamma, a.dbeta))
    return [dy, x, gamma, array(a.statistics, 2 * rows)], [dx, *gradients, *_partial(a, shared)]


@touches(lambda a: _gradient_touches(a, a.rows, a.rows, a.shared))
def instance_norm_gradient(
    dy: int, x: int, dx: int, gamma: int, dgamma: int, dbeta: int, statistics: int, partial: int, rows: int, n: int,
    shared: bool, cores: int,
) -> Call:  # fmt: skip
    """dgamma [rows], dbeta [rows] = the rows' sums of dy * xhat and of dy, and with these over n as means
    dx [rows, n] = ((dy - mean of dy) - xhat * mean of dy * xhat) * (inverse * gamma); dx may be dy or x.

    statistics: as the forward kernel left them; shared: as there.
    """
    program = backward_program(Shape(rows, n, cores, shared and cores > 1, False))
    return Call(program, "instance_norm_bw", (dy, x, dx, gamma, dgamma, dbeta, statistics, partial))


@touches(lambda a: _gradient_touches(a, 1, a.n, True))
def layer_norm_gradient(
    dy: int, x: int, dx: int, gamma: int, dgamma: int, dbeta: int, statistics: int, partial: int, n: int, cores: int
) -> Call:
    """dgamma [n] = dy * xhat, dbeta [n] = dy, moved as it is, and with g = dy * gamma
    dx [n] = ((g - mean of g) - xhat * mean of g * xhat) * inverse; dx may be dy or x.

    statistics: as the forward kernel left them.
    """
    program = backward_program(Shape(1, n, cores, cores > 1, True))
    return Call(program, "layer_norm_bw", (dy, x, dx, gamma, dgamma, dbeta, statistics, partial))


@cache
def backward_program(shape: Shape) -> Program:
    b = Builder("normalise_bw")
    b.entry("normalise_bw")
    names = ("dy", "x", "dx", "gamma", "dgamma", "dbeta", "statistics", "partial")
    dy, x, dx, gamma, dgamma, dbeta, statistics, partial = b.arguments(*names)
    done, parameters = b.label("done"), (gamma, dgamma, dbeta)
    per_number, per_row = ((dy, x, dx, *parameters), ()) if shape.per_element else ((dy, x, dx), parameters)
    s = _take(b, shape, per_number, per_row, statistics, partial, done)
    row = b.here("row")
    mean, inverse, total, products = (b.register(name) for name in ("mean", "inverse", "total", "products"))
    b("p.lw", mean, (s.statistics, 4, "!"))
    b("p.lw", inverse, (s.statistics, 4, "!"))
    _gradient_sums(b, shape, s, (dy, x, gamma, dgamma, dbeta), (mean, inverse), (total, products))
    _join(b, shape, s, (total, products), 0)
    scale = b.register("scale")
    b.mv(scale, inverse)
    if not shape.per_element:  # of a shared row all cores store the same
        b("p.sw", total, (dbeta, 4, "!"))
        b("p.sw", products, (dgamma, 4, "!"))
        with b.temporary("factor") as [factor]:
            b("p.lw", factor, (gamma, 4, "!"))
            b("fmul.s", scale, inverse, factor)
    _divide(b, shape, total, products)
    _input_gradient(b, shape, s, (dy, x, dx, gamma), (mean, inverse), (total, products), scale)
    b.free(mean, inverse, total, products, scale)
    if shape.shared and shape.rows > 1:
        barrier(b)  # all have read `partial`
    _next_row(b, shape, s, (dy, x, dx), row)
    b.place(done)
    b.ret()
    return b.build()


def _gradient_sums(
    b: Builder, shape: Shape, s: _Share, pointers: tuple[Register, ...], statistics: tuple[Register, Register],
    sums: tuple[Register, Register],
) -> None:  # fmt: skip
    """Emit the core's sums of g and of g * xhat over a row and, of each element, dgamma and dbeta."""
    (dy, x, gamma, dgamma, dbeta), (total, products) = pointers, sums

    def body(n: int) -> None:
        gradients, values, *factors = _load(b, n, *sources)
        _to_normal(b, values, statistics)
        if shape.per_element:
            for gradient, value, factor in zip(gradients, values, factors[0], strict=True):
                b("p.sw", gradient, (dbeta, 4, "!"))
                with b.temporary("product") as [product]:
                    b("fmul.s", product, gradient, value)
                    b("p.sw", product, (dgamma, 4, "!"))
                b("fmul.s", gradient, gradient, factor)
        for gradient, value in zip(gradients, values, strict=True):
            b("fadd.s", total, total, gradient)
            b("fmadd.s", products, gradient, value, products)
        b.free(*gradients, *values, *chain(*factors))

    b.mv(total, "x0")
    b.mv(products, "x0")
    sources = b.registers("source", 3 if shape.per_element else 2)
    for source, pointer in zip(sources, (dy, x, gamma), strict=False):
        b.mv(source, pointer)
    repeat_counted(b, s.count, UNROLL, body)
    b.free(*sources)


def _input_gradient(
    b: Builder, shape: Shape, s: _Share, pointers: tuple[Register, ...], statistics: tuple[Register, Register],
    means: tuple[Register, Register], scale: Register,
) -> None:  # fmt: skip
    """Emit dx of the core's numbers of a row; the pointers move behind them. means: of g and of g * xhat."""
    dy, x, dx, gamma = pointers
    sources = (dy, x, gamma) if shape.per_element else (dy, x)

    def body(n: int) -> None:
        gradients, values, *factors = _load(b, n, *sources)
        _to_normal(b, values, statistics)
        for gradient, factor in zip(gradients, chain(*factors), strict=False):
            b("fmul.s", gradient, gradient, factor)
        for gradient, value in zip(gradients, values, strict=True):
            b("fsub.s", gradient, gradient, means[0])
            b("fnmsub.s", gradient, value, means[1], gradient)
            b("fmul.s", gradient, gradient, scale)
            b("p.sw", gradient, (dx, 4, "!"))
        b.free(*gradients, *values, *chain(*factors))

    repeat_counted(b, s.count, UNROLL, body)


# -- what both share -------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Share:
    """Registers that live from row to row."""

    core: Register  # the core's number, if rows are shared
    left: Register  # rows still to come, with this one
    count: Register  # the core's numbers of a row
    skip: Register  # bytes of a row that are not the core's, if rows are shared
    statistics: Register
    partial: Register


def _take(
    b: Builder, shape: Shape, per_number: tuple[Register, ...], per_row: tuple[Register, ...], statistics: Register,
    partial: Register, done: Label,
) -> _Share:  # fmt: skip
    """Emit the core's share, and pointers to where it begins: to arrays with a number for each number of a row, to
    those with one for each row, and to the statistics. Jumps to `done` where it has no row."""
    core, n, rows, chunk = (b.register(name) for name in ("core", "n", "rows", "chunk"))
    b.li(n, shape.n)
    b.li(rows, shape.rows)
    b.li(chunk, shape.chunk)
    if not shape.shared:
        first, left = take_share(b, rows, chunk, done)
        for pointer in per_number:
            add_scaled(b, pointer, first, 4 * shape.n)
        for pointer in per_row:
            advance_pointer(b, pointer, first, 2)
        advance_pointer(b, statistics, first, 3)
        b.free(first)
        return _Share(core, left, n, rows, statistics, partial)
    own = b.register("own")
    b("csrr", core, "mhartid")
    b("mul", own, core, chunk)
    for pointer in per_number:
        advance_pointer(b, pointer, own, 2)
    b("sub", own, n, own)
    b("p.min", own, own, chunk)
    b("p.max", own, own, "x0")
    b("sub", chunk, n, own)
    b("slli", chunk, chunk, 2)
    b.free(n)
    return _Share(core, rows, own, chunk, statistics, partial)


def _load(b: Builder, n: int, *sources: Register) -> list[list[Register]]:
    """Emit the loads of n words from each of the sources."""
    found = [b.registers(source.name, n) for source in sources]
    for v in range(n):
        for source, registers in zip(sources, found, strict=True):
            b("p.lw", registers[v], (source, 4, "!"))
    return found


def _to_normal(b: Builder, values: list[Register], statistics: tuple[Register, Register]) -> None:
    """Emit: numbers of x become xhat."""
    mean, inverse = statistics
    for value in values:
        b("fsub.s", value, value, mean)
    for value in values:
        b("fmul.s", value, value, inverse)


def _join(b: Builder, shape: Shape, s: _Share, totals: tuple[Register, ...], slot: int) -> None:
    """Emit: where rows are shared, sums become those of all cores. slot: of `partial`, for the first of them."""
    if not shape.shared:
        return
    with b.temporary("place") as [place]:
        places = [4 * shape.cores * (slot + i) for i in range(len(totals))]
        for total, offset in zip(totals, places, strict=True):
            b("addi", place, s.partial, offset)
            store_partial(b, total, place, s.core)
        barrier(b)
        for total, offset in zip(totals, places, strict=True):
            b("addi", place, s.partial, offset)
            add_partials(b, total, place, shape.cores)


def _divide(b: Builder, shape: Shape, *totals: Register) -> None:
    """Emit: sums become means."""
    with b.temporary("share") as [share]:
        b.li(share, bits(1.0 / shape.n))
        for total in totals:
            b("fmul.s", total, total, share)


def _next_row(b: Builder, shape: Shape, s: _Share, pointers: tuple[Register, ...], row: Label) -> None:
    """Emit the way to the next row, if there is one; pointers are behind the core's numbers of this one."""
    if shape.rows == 1:
        return
    for pointer in pointers if shape.shared else ():
        b("add", pointer, pointer, s.skip)
    b("addi", s.left, s.left, -1)
    b("bne", s.left, "x0", row)
