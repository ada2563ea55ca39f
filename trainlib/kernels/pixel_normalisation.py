"""Layer normalisation of an image's pixels: every column of x [channels, pixels] has its `statistics`, mean and
1 / sqrt(variance + eps); gamma and beta have a number a channel.

Values: each core takes every `cores`-th pixel, so that cores side by side read from banks side by side. Sums over
pixels, of gamma and beta: a channel is a unit of work, and sums go on from what a tile of pixels before this one has
left. No bit hangs on the number of cores, nor on tiles. Matrices are compact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.partition import advance_pointer, take_share
from trainlib.kernels.pieces import Step, add_constant, add_scaled, repeat, step
from trainlib.kernels.touched import Given, Touched, array, touches
from trainlib.kernels.vector import bits

#: elements a turn: they fill the load-use slots
UNROLL = 2


@dataclass(frozen=True)
class Shape:
    """What a program is made for."""

    channels: int
    pixels: int
    cores: int


# -- forward ---------------------------------------------------------------------------------------
def _forward_touches(a: Given) -> Touched:
    x, y = (array(at, a.channels, a.pixels) for at in (a.x, a.y))
    return [x, array(a.gamma, a.channels), array(a.beta, a.channels)], [y, array(a.statistics, a.pixels, 2)]


@touches(_forward_touches)
def layer_norm_2d(
    x: int, y: int, gamma: int, beta: int, statistics: int, channels: int, pixels: int, eps: float, cores: int
) -> Call:
    """x [channels, pixels], gamma and beta [channels] -> y and statistics [pixels, 2]: mean, inverse; y may be x.

    y = fma((x - mean) * inverse, gamma, beta).
    """
    program = forward_program(Shape(channels, pixels, cores), bits(eps))
    return Call(program, "layer_norm_2d_fw", (x, y, gamma, beta, statistics))


@cache
def forward_program(shape: Shape, eps: int) -> Program:
    b = Builder("layer_norm_2d_fw")
    b.entry("layer_norm_2d_fw")
    x, y, gamma, beta, statistics = b.arguments("x", "y", "gamma", "beta", "statistics")
    with _pixels(b, shape, (x, y), statistics) as row, b.temporary("mean", "inverse") as [mean, inverse]:

        def add(values: list[Register]) -> None:
            for value in values:
                b("fadd.s", mean, mean, value)

        def add_square(values: list[Register]) -> None:
            for value in values:
                b("fsub.s", value, value, mean)
            for value in values:
                b("fmadd.s", inverse, value, value, inverse)

        def normalise(values: list[Register], factors: list[Register], offsets: list[Register]) -> list[Register]:
            _to_normal(b, values, mean, inverse)
            for value, factor, offset in zip(values, factors, offsets, strict=True):
                b("fmadd.s", value, value, factor, offset)
            return values

        b.mv(mean, "x0")
        _along_channels(b, shape, ((x, row),), add)
        _divide(b, shape, mean)
        b.mv(inverse, "x0")
        _along_channels(b, shape, ((x, row),), add_square)
        with b.temporary("share", "number") as [share, number]:
            b.li(share, bits(1.0 / shape.channels))
            b.li(number, eps)
            b("fmadd.s", inverse, inverse, share, number)
            b("fsqrt.s", inverse, inverse)
            b.li(number, bits(1.0))
            b("fdiv.s", inverse, number, inverse)
        b("sw", mean, (statistics, 0))
        b("sw", inverse, (statistics, 4))
        _along_channels(b, shape, ((x, row), (gamma, 4), (beta, 4)), normalise, (y, row))
    b.ret()
    return b.build()


# -- backward --------------------------------------------------------------------------------------
def _gradient_touches(a: Given) -> Touched:
    dy, x, dx = (array(at, a.channels, a.pixels) for at in (a.dy, a.x, a.dx))
    return [dy, x, array(a.gamma, a.channels), array(a.statistics, a.pixels, 2)], [dx]


@touches(_gradient_touches)
def layer_norm_2d_gradient(
    dy: int, x: int, dx: int, gamma: int, statistics: int, channels: int, pixels: int, cores: int
) -> Call:
    """With g = dy * gamma, dx = ((g - mean of g) - xhat * mean of g * xhat) * inverse; dx may be dy or x.

    statistics: as the forward kernel left them.
    """
    program = gradient_program(Shape(channels, pixels, cores))
    return Call(program, "layer_norm_2d_ig", (dy, x, dx, gamma, statistics))


@cache
def gradient_program(shape: Shape) -> Program:
    b = Builder("layer_norm_2d_ig")
    b.entry("layer_norm_2d_ig")
    dy, x, dx, gamma, statistics = b.arguments("dy", "x", "dx", "gamma", "statistics")
    names = "mean", "inverse", "total", "products"
    with _pixels(b, shape, (dy, x, dx), statistics) as row, b.temporary(*names) as [mean, inverse, total, products]:

        def add(gradients: list[Register], values: list[Register], factors: list[Register]) -> None:
            _to_normal(b, values, mean, inverse)
            for gradient, factor in zip(gradients, factors, strict=True):
                b("fmul.s", gradient, gradient, factor)
            for gradient, value in zip(gradients, values, strict=True):
                b("fadd.s", total, total, gradient)
                b("fmadd.s", products, gradient, value, products)

        def finish(gradients: list[Register], values: list[Register], factors: list[Register]) -> list[Register]:
            _to_normal(b, values, mean, inverse)
            for gradient, factor in zip(gradients, factors, strict=True):
                b("fmul.s", gradient, gradient, factor)
            for gradient, value in zip(gradients, values, strict=True):
                b("fsub.s", gradient, gradient, total)
                b("fnmsub.s", gradient, value, products, gradient)
                b("fmul.s", gradient, gradient, inverse)
            return gradients

        b("lw", mean, (statistics, 0))
        b("lw", inverse, (statistics, 4))
        b.mv(total, "x0")
        b.mv(products, "x0")
        sources = ((dy, row), (x, row), (gamma, 4))
        _along_channels(b, shape, sources, add)
        _divide(b, shape, total, products)
        _along_channels(b, shape, sources, finish, (dx, row))
    b.ret()
    return b.build()


def _parameters_touches(a: Given) -> Touched:
    dy, x = (array(at, a.channels, a.pixels) for at in (a.dy, a.x))
    gradients = [array(a.dgamma, a.channels), array(a.dbeta, a.channels)]
    return [dy, x, array(a.statistics, a.pixels, 2), *gradients * a.accumulate], gradients


@touches(_parameters_touches)
def layer_norm_2d_parameters(
    dy: int, x: int, dgamma: int, dbeta: int, statistics: int, channels: int, pixels: int, accumulate: bool, cores: int
) -> Call:
    """dgamma[c] (+)= the sum of dy * xhat, dbeta[c] (+)= that of dy, pixel by pixel. The cores share the channels.

    statistics: as the forward kernel left them.
    """
    arguments = (dy, x, dgamma, dbeta, statistics, channels, chunk_of(channels, cores))
    return Call(parameters_program(pixels, accumulate), "layer_norm_2d_wg", arguments)


@cache
def parameters_program(pixels: int, accumulate: bool) -> Program:
    b = Builder("layer_norm_2d_wg")
    b.entry("layer_norm_2d_wg")
    names = "dy", "x", "dgamma", "dbeta", "statistics", "channels", "chunk"
    dy, x, dgamma, dbeta, statistics, channels, chunk = b.arguments(*names)
    done = b.label("done")
    first, count = take_share(b, channels, chunk, done)
    for vector in (dgamma, dbeta):
        advance_pointer(b, vector, first, 2)
    for matrix in (dy, x):
        add_scaled(b, matrix, first, 4 * pixels)
    b.free(channels, first)
    total, products, source = b.register("total"), b.register("products"), b.register("source")

    def add(n: int) -> None:
        gradients, values = b.registers("gradient", n), b.registers("value", n)
        for gradient, value in zip(gradients, values, strict=True):
            b("p.lw", gradient, (dy, 4, "!"))
            b("p.lw", value, (x, 4, "!"))
        for gradient, value in zip(gradients, values, strict=True):
            with b.temporary("mean", "inverse") as [mean, inverse]:
                b("p.lw", mean, (source, 4, "!"))
                b("p.lw", inverse, (source, 4, "!"))
                _to_normal(b, [value], mean, inverse)
            b("fadd.s", total, total, gradient)
            b("fmadd.s", products, gradient, value, products)
        b.free(*gradients, *values)

    with b.loop(1, count):
        b.mv(source, statistics)
        for sum_, place in ((products, dgamma), (total, dbeta)):
            if accumulate:
                b("lw", sum_, (place, 0))
            else:
                b.mv(sum_, "x0")
        repeat(b, pixels, UNROLL, add)
        b("p.sw", products, (dgamma, 4, "!"))
        b("p.sw", total, (dbeta, 4, "!"))
    b.place(done)
    b.ret()
    return b.build()


# -- pieces ----------------------------------------------------------------------------------------
@contextmanager
def _pixels(b: Builder, shape: Shape, matrices: tuple[Register, ...], statistics: Register) -> Iterator[Step]:
    """Emit a loop over the core's pixels around what the block emits, where matrices and statistics point to the first
    numbers of one. Gives the bytes from a channel to the next."""
    done = b.label("done")
    with b.temporary("pixel", "pixels") as [pixel, pixels], step(b, 4 * shape.pixels) as row:
        b("csrr", pixel, "mhartid")
        b.li(pixels, min(shape.pixels, shape.cores))  # a machine may have more cores than share the work
        b("bge", pixel, pixels, done)
        b.li(pixels, shape.pixels)
        for matrix in matrices:
            advance_pointer(b, matrix, pixel, 2)
        advance_pointer(b, statistics, pixel, 3)
        again = b.here("pixel")
        yield row
        for matrix in matrices:
            add_constant(b, matrix, matrix, 4 * shape.cores)
        add_constant(b, statistics, statistics, 8 * shape.cores)
        add_constant(b, pixel, pixel, shape.cores)
        b("blt", pixel, pixels, again)
        b.place(done)


def _along_channels(
    b: Builder, shape: Shape, sources: tuple[tuple[Register, Step], ...],
    function: Callable[..., list[Register] | None], target: tuple[Register, Step] | None = None,
) -> None:  # fmt: skip
    """Emit `function` of registers with numbers from every source, for all channels of a pixel; what it gives goes to
    the target. Sources and target: where they begin, and the bytes from a number to the next."""
    places = [*sources, *([target] if target else [])]
    pointers = b.registers("pointer", len(places))
    for pointer, (start, _) in zip(pointers, places, strict=True):
        b.mv(pointer, start)

    def body(n: int) -> None:
        loaded = [b.registers("number", n) for _ in sources]
        for v in range(n):
            for registers, pointer, (_, apart) in zip(loaded, pointers, sources, strict=False):
                b("p.lw", registers[v], (pointer, apart, "!"))
        for value in function(*loaded) or ():
            b("p.sw", value, (pointers[-1], places[-1][1], "!"))
        b.free(*(register for registers in loaded for register in registers))

    repeat(b, shape.channels, UNROLL, body)
    b.free(*pointers)


def _to_normal(b: Builder, values: list[Register], mean: Register, inverse: Register) -> None:
    """Emit: numbers of x become xhat."""
    for value in values:
        b("fsub.s", value, value, mean)
    for value in values:
        b("fmul.s", value, value, inverse)


def _divide(b: Builder, shape: Shape, *totals: Register) -> None:
    """Emit: sums become means."""
    with b.temporary("share") as [share]:
        b.li(share, bits(1.0 / shape.channels))
        for total in totals:
            b("fmul.s", total, total, share)
