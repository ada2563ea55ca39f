"""A factor and an addend for each channel, as batch normalisation with frozen statistics has them.

y = gamma (x - mean) inverse + beta is y = x scale + shift with scale = gamma inverse and shift = beta - mean scale,
where inverse = 1 / sqrt(variance + epsilon). Matrices [channels, pixels] are compact; vectors have a word a channel.
"""

from __future__ import annotations

from functools import cache

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.partition import advance_pointer, take_share
from trainlib.kernels.pieces import repeat
from trainlib.kernels.touched import Given, Touched, array, touches
from trainlib.kernels.vector import Constants, vector_program

#: elements in the body of a hardware loop
UNROLL = 4
#: of the gradients' loop, which holds two operands of each
GRADIENT_UNROLL = 2


def _forward_touches(a: Given) -> Touched:
    vectors = [array(a.scale, a.channels), array(a.shift, a.channels)]
    return [array(a.x, a.channels, a.pixels), *vectors], [array(a.y, a.channels, a.pixels)]


@touches(_forward_touches)
def affine_forward(
    x: int, y: int, scale: int, shift: int, channels: int, pixels: int, relu: bool, cores: int
) -> Call:  # fmt: skip
    """y = fma(x, scale[c], shift[c]), then max(y, 0) if `relu`, a NaN giving +0; y may be x.

    The cores share the channels or, if these are fewer than cores, the pixels.
    """
    name = "affine_fw+relu" if relu else "affine_fw"
    return _call(name, (x, y, scale, shift), channels, pixels, cores)


def _input_gradient_touches(a: Given) -> Touched:
    return [array(a.dy, a.channels, a.pixels), array(a.scale, a.channels)], [array(a.dx, a.channels, a.pixels)]


@touches(_input_gradient_touches)
def affine_input_gradient(dy: int, dx: int, scale: int, channels: int, pixels: int, cores: int) -> Call:
    """dx = dy * scale[c]; dx may be dy. Shared as `affine_forward`."""
    return _call("affine_ig", (dy, dx, scale), channels, pixels, cores)


def _factors_touches(a: Given) -> Touched:
    reads, writes = (a.gamma, a.beta, a.mean, a.inverse), (a.scale, a.shift)
    return [array(at, a.channels) for at in reads], [array(at, a.channels) for at in writes]


@touches(_factors_touches)
def affine_factors(
    gamma: int, beta: int, mean: int, inverse: int, scale: int, shift: int, channels: int, cores: int
) -> Call:  # fmt: skip
    """scale = gamma inverse; shift = fma(-mean, scale, beta): a number a channel each."""
    arguments = (gamma, beta, mean, inverse, scale, shift, channels, chunk_of(channels, cores))
    return Call(affine_factors_program(), "affine_factors", arguments)


@cache
def affine_factors_program() -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        gamma, beta, mean, inverse, scale, shift = pointers
        with b.temporary("factor", "addend", "m") as [factor, addend, m]:
            b("p.lw", factor, (gamma, 4, "!"))
            b("p.lw", addend, (inverse, 4, "!"))
            b("p.lw", m, (mean, 4, "!"))
            b("fmul.s", factor, factor, addend)
            b("p.lw", addend, (beta, 4, "!"))
            b("p.sw", factor, (scale, 4, "!"))
            b("fnmsub.s", addend, m, factor, addend)
            b("p.sw", addend, (shift, 4, "!"))

    return vector_program("affine_factors", ("gamma", "beta", "mean", "inverse", "scale", "shift"), (), body, 1)


def _call(name: str, pointers: tuple[int, ...], channels: int, pixels: int, cores: int) -> Call:
    by_pixels = channels < cores and pixels > channels
    chunk = chunk_of(pixels, cores, UNROLL) if by_pixels else chunk_of(channels, cores)
    return Call(affine_program(name, by_pixels), name, (*pointers, channels, pixels, chunk))


@cache
def affine_program(name: str, by_pixels: bool) -> Program:
    """name: of the call; "affine_ig" has no shift."""
    b = Builder(name)
    b.entry(name)
    vectors = ("scale",) if name == "affine_ig" else ("scale", "shift")
    x, y, *factors, channels, pixels, chunk = b.arguments("x", "y", *vectors, "channels", "pixels", "chunk")
    done, leftover, following = b.label("done"), b.label("leftover"), b.label("following")
    skip = b.register("skip")
    if by_pixels:
        b.mv(skip, pixels)
        first, n = take_share(b, pixels, chunk, done)
        b("sub", skip, skip, n)  # of each row, what is not this core's
        b("slli", skip, skip, 2)
        b.mv(pixels, n)
    else:
        b.mv(skip, "x0")
        first, n = take_share(b, channels, chunk, done)
        for factor in factors:
            advance_pointer(b, factor, first, 2)
        b("mul", first, first, pixels)
        b.mv(channels, n)
    for matrix in (x, y):
        advance_pointer(b, matrix, first, 2)
    b.free(first, n)
    blocks, values = b.register("blocks"), b.registers("factor", len(factors))
    b("srli", blocks, pixels, UNROLL.bit_length() - 1)
    b("andi", pixels, pixels, UNROLL - 1)
    with b.loop(1, channels):
        for value, factor in zip(values, factors, strict=True):
            b("p.lw", value, (factor, 4, "!"))
        b("beq", blocks, "x0", leftover)
        with b.loop(0, blocks):
            _map(b, x, y, values, "relu" in name, UNROLL)
        b.place(leftover)
        b("beq", pixels, "x0", following)
        with b.loop(0, pixels):
            _map(b, x, y, values, "relu" in name, 1)
        b.place(following)
        b("add", x, x, skip)
        b("add", y, y, skip)
    b.place(done)
    b.ret()
    return b.build()


def _map(b: Builder, x: Register, y: Register, factors: list[Register], relu: bool, unroll: int) -> None:
    """Emit: the next `unroll` numbers times the first factor, and plus the second if there is one."""
    totals = b.registers("total", unroll)
    for total in totals:
        b("p.lw", total, (x, 4, "!"))
    for total in totals:
        b("fmul.s" if len(factors) == 1 else "fmadd.s", total, total, *factors)
    for total in totals:
        if relu:
            b("fmax.s", total, total, "x0")
        b("p.sw", total, (y, 4, "!"))
    b.free(*totals)


def _gradients_touches(a: Given) -> Touched:
    gradients = [array(a.dgamma, a.channels), array(a.dbeta, a.channels)]
    read = [array(a.mean, a.channels), array(a.inverse, a.channels), *gradients * a.accumulate]
    return [array(a.dy, a.channels, a.pixels), array(a.x, a.channels, a.pixels), *read], gradients


@touches(_gradients_touches)
def affine_gradients(
    dy: int, x: int, mean: int, inverse: int, dgamma: int, dbeta: int, channels: int, pixels: int, accumulate: bool,
    cores: int,
) -> Call:  # fmt: skip
    """dgamma[c] (+)= inverse[c] * sum of dy (x - mean[c]), and dbeta[c] (+)= sum of dy, each in order.

    The former sum is one fma a pixel from +0 on; its product is rounded together with what it is added to. The cores
    share the channels.
    """
    arguments = (dy, x, mean, inverse, dgamma, dbeta, channels, chunk_of(channels, cores))
    return Call(affine_gradients_program(pixels, accumulate), "affine_bw", arguments)


@cache
def affine_gradients_program(pixels: int, accumulate: bool) -> Program:
    b = Builder("affine_bw")
    b.entry("affine_bw")
    dy, x, *vectors, channels, chunk = b.arguments(
        "dy", "x", "mean", "inverse", "dgamma", "dbeta", "channels", "chunk"
    )  # fmt: skip
    done = b.label("done")
    first, count = take_share(b, channels, chunk, done)
    for vector in vectors:
        advance_pointer(b, vector, first, 2)
    b.free(channels)
    with b.temporary("pixels") as [size]:
        b.li(size, pixels)
        b("mul", first, first, size)
    for matrix in (dy, x):
        advance_pointer(b, matrix, first, 2)
    b.free(first)
    with b.loop(1, count):
        _gradients(b, dy, x, vectors, pixels, accumulate)
    b.place(done)
    b.ret()
    return b.build()


def _gradients(b: Builder, dy: Register, x: Register, vectors: list[Register], pixels: int, accumulate: bool) -> None:
    """Emit a channel's two sums; all pointers step to the next channel."""
    mean, inverse, dgamma, dbeta = vectors
    with b.temporary("centre", "total", "plain", "factor") as [centre, total, plain, factor]:
        b("p.lw", centre, (mean, 4, "!"))
        b.mv(total, "x0")
        if accumulate:
            b("lw", plain, (dbeta, 0))
        else:
            b.mv(plain, "x0")

        def add(n: int) -> None:
            gradients, inputs = b.registers("gradient", n), b.registers("input", n)
            for pointer, values in ((x, inputs), (dy, gradients)):
                for value in values:
                    b("p.lw", value, (pointer, 4, "!"))
            for gradient, value in zip(gradients, inputs, strict=True):
                b("fsub.s", value, value, centre)
                b("fmadd.s", total, gradient, value, total)
                b("fadd.s", plain, plain, gradient)
            b.free(*gradients, *inputs)

        repeat(b, pixels, GRADIENT_UNROLL, add)
        b("p.lw", factor, (inverse, 4, "!"))
        b("p.sw", plain, (dbeta, 4, "!"))
        if accumulate:
            b("lw", plain, (dgamma, 0))
        else:
            b.mv(plain, "x0")
        b("fmadd.s", total, total, factor, plain)
        b("p.sw", total, (dgamma, 4, "!"))
