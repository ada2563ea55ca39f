"""Kernels that treat every element alike: copies, ReLU forward and backward, sums, multiples, gradient pairs, the SGD
update."""

from __future__ import annotations

from functools import cache

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Argument, Call, chunk_of
from trainlib.kernels.touched import touches, vectors
from trainlib.kernels.vector import Constants, Rate, bits, minus, vector_program

UNROLL = 4


@touches(vectors("x", "y"))
def copy(x: int, y: int, n: int, cores: int) -> Call:
    """y = x, n words moved as they are; they must not overlap."""
    return Call(copy_program(), "copy", (x, y, n, chunk_of(n, cores, UNROLL)))


@cache
def copy_program() -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        x, y = pointers
        values = b.registers("value", unroll)
        for value in values:
            b("p.lw", value, (x, 4, "!"))
        for value in values:
            b("p.sw", value, (y, 4, "!"))
        b.free(*values)

    return vector_program("copy", ("x", "y"), (), body, UNROLL)


@touches(vectors("x", "y"))
def relu_forward(x: int, y: int, n: int, cores: int) -> Call:
    """y = max(x, 0), a NaN giving +0; y may be x."""
    return Call(relu_forward_program(), "relu_fw", (x, y, n, chunk_of(n, cores, UNROLL)))


@cache
def relu_forward_program() -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        x, y = pointers
        values = b.registers("value", unroll)
        for value in values:
            b("p.lw", value, (x, 4, "!"))
        for value in values:
            b("fmax.s", value, value, "x0")
        for value in values:
            b("p.sw", value, (y, 4, "!"))
        b.free(*values)

    return vector_program("relu_fw", ("x", "y"), (), body, UNROLL, log2=(2, 2))


@touches(vectors("a b", "y"))
def add(a: int, b: int, y: int, n: int, cores: int) -> Call:
    """y = a + b; y may be a or b."""
    return Call(add_program(False), "add", (a, b, y, n, chunk_of(n, cores, UNROLL)))


@touches(vectors("a b", "y"))
def add_scaled(a: int, b: int, y: int, factor: Argument, n: int, cores: int) -> Call:
    """y = (a + b) * factor; y may be a or b."""
    return Call(add_program(False, True), "add+scale", (a, b, y, factor, n, chunk_of(n, cores, UNROLL)))


@touches(vectors("a b", "y"))
def add_relu(a: int, b: int, y: int, n: int, cores: int) -> Call:
    """y = max(a + b, 0), a NaN giving +0; y may be a or b."""
    return Call(add_program(True), "add+relu", (a, b, y, n, chunk_of(n, cores, UNROLL)))


@cache
def add_program(relu: bool, scaled: bool = False) -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        first, second, y = pointers
        values, others = b.registers("value", unroll), b.registers("other", unroll)
        for value in values:
            b("p.lw", value, (first, 4, "!"))
        for other in others:
            b("p.lw", other, (second, 4, "!"))
        for value, other in zip(values, others, strict=True):
            b("fadd.s", value, value, other)
        for value in values:
            if scaled:
                b("fmul.s", value, value, k["factor"])
            if relu:
                b("fmax.s", value, value, "x0")
            b("p.sw", value, (y, 4, "!"))
        b.free(*values, *others)

    return vector_program("add", ("a", "b", "y"), ("factor",) * scaled, body, UNROLL)


@touches(vectors("x", "y"))
def scale(x: int, y: int, number: float, n: int, cores: int) -> Call:
    """y = x * number; y may be x."""
    return Call(scale_program(), "scale", (x, y, bits(number), n, chunk_of(n, cores, UNROLL)))


@cache
def scale_program() -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        x, y = pointers
        values = b.registers("value", unroll)
        for value in values:
            b("p.lw", value, (x, 4, "!"))
        for value in values:
            b("fmul.s", value, value, k["factor"])
        for value in values:
            b("p.sw", value, (y, 4, "!"))
        b.free(*values)

    return vector_program("scale", ("x", "y"), ("factor",), body, UNROLL)


def _masked(b: Builder, x: Register, dx: Register, unroll: int) -> list[Register]:
    """Gradients where the layer's output was positive, +0 elsewhere."""
    values, outputs = b.registers("value", unroll), b.registers("output", unroll)
    for output in outputs:
        b("p.lw", output, (x, 4, "!"))
    for value in values:
        b("p.lw", value, (dx, 4, "!"))
    _mask(b, values, outputs)
    return values


def _mask(b: Builder, values: list[Register], outputs: list[Register]) -> None:
    """Emit: +0 for the values whose output is not positive. Frees `outputs`."""
    for output in outputs:
        b("flt.s", output, "x0", output)
        b("sub", output, "x0", output)
    for value, output in zip(values, outputs, strict=True):
        b("and", value, value, output)
    b.free(*outputs)


@touches(vectors("dy y", "dx"))
def relu_backward(dy: int, y: int, dx: int, n: int, cores: int) -> Call:
    """dx = dy, moved as it is, where y > 0, else +0, where y is NaN too; y is the ReLU's output; dx may be dy."""
    return Call(relu_backward_program(), "relu_bw", (dy, y, dx, n, chunk_of(n, cores, UNROLL)))


@cache
def relu_backward_program() -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        dy, y, dx = pointers
        values = _masked(b, y, dy, unroll)
        for value in values:
            b("p.sw", value, (dx, 4, "!"))
        b.free(*values)

    return vector_program("relu_bw", ("dy", "y", "dx"), (), body, UNROLL, log2=(2, 2, 2))


@touches(vectors("dy y", "pairs"))
def relu_backward_pairs(dy: int, y: int, pairs: int, lr: Rate, n: int, cores: int) -> Call:
    """ReLU backward fused with scaling: pairs[i] = (d, -(lr d)), d = dy where y > 0, else +0."""
    program = relu_backward_pairs_program()
    return Call(program, "relu_bw+pairs", (dy, y, pairs, minus(lr), n, chunk_of(n, cores, UNROLL)))


@cache
def relu_backward_pairs_program() -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        dy, y, pairs = pointers
        values = _masked(b, y, dy, unroll)
        store_pairs(b, values, pairs, k["minus_lr"])
        b.free(*values)

    return vector_program("relu_bw_pairs", ("dy", "y", "pairs"), ("minus_lr",), body, UNROLL, log2=(2, 2, 3))


@touches(vectors("dy", "pairs"))
def linear_pairs(dy: int, y: int, pairs: int, lr: Rate, n: int, cores: int) -> Call:
    """pairs[i] = (dy, -(lr dy)): below a layer without ReLU; y is not read."""
    return Call(linear_pairs_program(), "pairs", (dy, pairs, minus(lr), n, chunk_of(n, cores, UNROLL)))


@cache
def linear_pairs_program() -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        dy, pairs = pointers
        values = b.registers("value", unroll)
        for value in values:
            b("p.lw", value, (dy, 4, "!"))
        store_pairs(b, values, pairs, k["minus_lr"])
        b.free(*values)

    return vector_program("pairs", ("dy", "pairs"), ("minus_lr",), body, UNROLL, log2=(2, 3))


def store_pairs(b: Builder, values: list[Register], pairs: Register, minus_lr: Register) -> None:
    """Emit the stores of (d, -(lr d)) for gradients held in registers, which are lost."""
    for value in values:
        b("p.sw", value, (pairs, 4, "!"))
        b("fmul.s", value, value, minus_lr)
        b("p.sw", value, (pairs, 4, "!"))


@touches(vectors("w dw", "w"))
def sgd_update(w: int, dw: int, lr: Rate, n: int, cores: int) -> Call:
    """w = fma(-lr, dw, w): the update alone, from a stored weight gradient."""
    return Call(sgd_update_program(), "sgd", (w, dw, minus(lr), n, chunk_of(n, cores, UNROLL)))


@touches(vectors("w pairs", "w"))
def sgd_update_from_pairs(w: int, pairs: int, lr: Rate, n: int, cores: int) -> Call:
    """w = fma(-lr, d, w), d from pairs: the update of a bias."""
    return Call(sgd_update_program(8), "sgd", (w, pairs, minus(lr), n, chunk_of(n, cores, UNROLL)))


@cache
def sgd_update_program(step: int = 4) -> Program:
    """step: bytes between gradients."""

    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        w, dw = pointers
        weights, gradients = b.registers("weight", unroll), b.registers("gradient", unroll)
        for v in range(unroll):
            b("lw", weights[v], (w, 4 * v))
        for gradient in gradients:
            b("p.lw", gradient, (dw, step, "!"))
        for weight, gradient in zip(weights, gradients, strict=True):
            b("fmadd.s", weight, k["minus_lr"], gradient, weight)
        for weight in weights:
            b("p.sw", weight, (w, 4, "!"))
        b.free(*weights, *gradients)

    return vector_program("sgd", ("w", "dw"), ("minus_lr",), body, UNROLL, log2=(2, step.bit_length() - 1))
