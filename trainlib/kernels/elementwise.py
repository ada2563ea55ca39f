"""Kernels that treat every element alike: ReLU forward and backward, gradient pairs, the SGD update."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.partition import advance_pointer, take_share

UNROLL = 4


def bits(value: float | np.float32) -> int:
    """The FP32 pattern of a number, as a register argument."""
    return int(np.float32(value).view(np.uint32))


Body = Callable[[Builder, list[Register], list[Register], int], None]


def _elementwise(
    name: str, pointers: tuple[str, ...], log2: tuple[int, ...], scalar: str | None, body: Body
) -> Program:
    """A kernel over `n` elements; `body(b, pointers, scalars, unroll)` handles `unroll` of them.

    Arguments: the pointers, the scalar if there is one, n, chunk. log2: bytes per element and pointer.
    """
    b = Builder(name)
    b.entry(name)
    names = (*pointers, *([scalar] if scalar else []), "n", "chunk")
    arguments = b.arguments(*names)
    used, rest = arguments[: len(pointers)], arguments[len(pointers) :]
    n, chunk = rest[-2:]
    done, leftover = b.label("done"), b.label("leftover")
    first, count = take_share(b, n, chunk, done)
    for pointer, shift in zip(used, log2, strict=True):
        advance_pointer(b, pointer, first, shift)
    b.free(first, n)
    with b.temporary("blocks") as [blocks]:
        b("srli", blocks, count, UNROLL.bit_length() - 1)
        b("beq", blocks, "x0", leftover)
        with b.loop(0, blocks):
            body(b, used, rest[:-2], UNROLL)
    b.place(leftover)
    b("andi", count, count, UNROLL - 1)
    b("beq", count, "x0", done)
    with b.loop(0, count):
        body(b, used, rest[:-2], 1)
    b.place(done)
    b.ret()
    return b.build()


def relu_forward(x: int, y: int, n: int, cores: int) -> Call:
    """y = max(x, 0), a NaN giving 0; y may be x."""
    return Call(relu_forward_program(), "relu_fw", (x, y, n, chunk_of(n, cores, UNROLL)))


@cache
def relu_forward_program() -> Program:
    def body(b: Builder, pointers: list[Register], scalars: list[Register], unroll: int) -> None:
        x, y = pointers
        values = b.registers("value", unroll)
        for value in values:
            b("p.lw", value, (x, 4, "!"))
        for value in values:
            b("fmax.s", value, value, "x0")
        for value in values:
            b("p.sw", value, (y, 4, "!"))
        b.free(*values)

    return _elementwise("relu_fw", ("x", "y"), (2, 2), None, body)


def _masked(b: Builder, x: Register, dx: Register, unroll: int) -> list[Register]:
    """Gradients where the layer's output was positive, +0 elsewhere."""
    values, outputs = b.registers("value", unroll), b.registers("output", unroll)
    for output in outputs:
        b("p.lw", output, (x, 4, "!"))
    for value in values:
        b("p.lw", value, (dx, 4, "!"))
    for output in outputs:
        b("flt.s", output, "x0", output)
        b("sub", output, "x0", output)
    for value, output in zip(values, outputs, strict=True):
        b("and", value, value, output)
    b.free(*outputs)
    return values


def relu_backward(dy: int, y: int, dx: int, n: int, cores: int) -> Call:
    """dx = dy where y > 0, else +0; y is the ReLU's output; dx may be dy."""
    return Call(relu_backward_program(), "relu_bw", (dy, y, dx, n, chunk_of(n, cores, UNROLL)))


@cache
def relu_backward_program() -> Program:
    def body(b: Builder, pointers: list[Register], scalars: list[Register], unroll: int) -> None:
        dy, y, dx = pointers
        values = _masked(b, y, dy, unroll)
        for value in values:
            b("p.sw", value, (dx, 4, "!"))
        b.free(*values)

    return _elementwise("relu_bw", ("dy", "y", "dx"), (2, 2, 2), None, body)


def relu_backward_pairs(dy: int, y: int, pairs: int, lr: float, n: int, cores: int) -> Call:
    """ReLU backward fused with scaling: pairs[i] = (d, -(lr d)), d = dy where y > 0, else +0."""
    program = relu_backward_pairs_program()
    return Call(
        program, "relu_bw+pairs", (dy, y, pairs, bits(-np.float32(lr)), n, chunk_of(n, cores, UNROLL))
    )


@cache
def relu_backward_pairs_program() -> Program:
    def body(b: Builder, pointers: list[Register], scalars: list[Register], unroll: int) -> None:
        dy, y, pairs = pointers
        values = _masked(b, y, dy, unroll)
        store_pairs(b, values, pairs, scalars[0])
        b.free(*values)

    return _elementwise("relu_bw_pairs", ("dy", "y", "pairs"), (2, 2, 3), "minus_lr", body)


def linear_pairs(dy: int, y: int, pairs: int, lr: float, n: int, cores: int) -> Call:
    """pairs[i] = (dy, -(lr dy)): below a layer without ReLU; y is not read."""
    return Call(
        linear_pairs_program(), "pairs", (dy, pairs, bits(-np.float32(lr)), n, chunk_of(n, cores, UNROLL))
    )


@cache
def linear_pairs_program() -> Program:
    def body(b: Builder, pointers: list[Register], scalars: list[Register], unroll: int) -> None:
        dy, pairs = pointers
        values = b.registers("value", unroll)
        for value in values:
            b("p.lw", value, (dy, 4, "!"))
        store_pairs(b, values, pairs, scalars[0])
        b.free(*values)

    return _elementwise("pairs", ("dy", "pairs"), (2, 3), "minus_lr", body)


def store_pairs(b: Builder, values: list[Register], pairs: Register, minus_lr: Register) -> None:
    """Emit the stores of (d, -(lr d)) for gradients held in registers, which are lost."""
    for value in values:
        b("p.sw", value, (pairs, 4, "!"))
        b("fmul.s", value, value, minus_lr)
        b("p.sw", value, (pairs, 4, "!"))


def sgd_update(w: int, dw: int, lr: float, n: int, cores: int) -> Call:
    """w = fma(-lr, dw, w): the update alone, from a stored weight gradient."""
    return Call(sgd_update_program(), "sgd", (w, dw, bits(-np.float32(lr)), n, chunk_of(n, cores, UNROLL)))


def sgd_update_from_pairs(w: int, pairs: int, lr: float, n: int, cores: int) -> Call:
    """w = fma(-lr, d, w), d from pairs: the update of a bias."""
    return Call(sgd_update_program(8), "sgd", (w, pairs, bits(-np.float32(lr)), n, chunk_of(n, cores, UNROLL)))


@cache
def sgd_update_program(step: int = 4) -> Program:
    """step: bytes between gradients."""

    def body(b: Builder, pointers: list[Register], scalars: list[Register], unroll: int) -> None:
        w, dw = pointers
        weights, gradients = b.registers("weight", unroll), b.registers("gradient", unroll)
        for v in range(unroll):
            b("lw", weights[v], (w, 4 * v))
        for gradient in gradients:
            b("p.lw", gradient, (dw, step, "!"))
        for weight, gradient in zip(weights, gradients, strict=True):
            b("fmadd.s", weight, scalars[0], gradient, weight)
        for weight in weights:
            b("p.sw", weight, (w, 4, "!"))
        b.free(*weights, *gradients)

    return _elementwise("sgd", ("w", "dw"), (2, step.bit_length() - 1), "minus_lr", body)
