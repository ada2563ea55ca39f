"""Activations forward and backward, element by element: leaky ReLU, sigmoid, tanh (ReLU is in `elementwise`).

Backward kernels read the layer's output. An output may lie where the input of the same index is. Sigmoid
and tanh are one element a turn: 20 and more instructions hide the one load-use stall, and cold code costs
more than it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.functions import (
    EXP_NOT_POSITIVE_CONSTANTS,
    UNROLL,
    Reduction,
    exp_not_positive,
    quotient,
)
from trainlib.kernels.vector import Constants, bits, vector_program
from trainlib.numerics.activations import TANH_LOWEST, TWO
from trainlib.numerics.functions import MINUS_LN2_HIGH, ONE, RECIPROCAL_COEFFICIENTS

#: any negative number lends its sign
_NEGATIVE = MINUS_LN2_HIGH
#: n + 127 is the exponent field of 2**n
_TANH = Reduction(bias=127, lowest=TANH_LOWEST)


# -- leaky ReLU ------------------------------------------------------------------------------------
def leaky_relu_forward(x: int, y: int, slope: float, n: int, cores: int) -> Call:
    """y = x where x > 0, else slope * x; 0 < slope <= 1."""
    return Call(leaky_relu_forward_program(), "leaky_relu_fw", (x, y, bits(slope), n, chunk_of(n, cores, UNROLL)))


@cache
def leaky_relu_forward_program() -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        x, y = pointers
        values = b.registers("value", unroll)
        for value in values:
            b("p.lw", value, (x, 4, "!"))
        with b.temporary("scaled") as [scaled]:
            for value in values:
                b("fmul.s", scaled, value, k["slope"])
                b("fmax.s", value, value, scaled)
        for value in values:
            b("p.sw", value, (y, 4, "!"))
        b.free(*values)

    return vector_program("leaky_relu_fw", ("x", "y"), ("slope",), body, UNROLL)


def leaky_relu_backward(dy: int, y: int, dx: int, slope: float, n: int, cores: int) -> Call:
    """dx = dy where y > 0, else dy * slope; y is the output of the forward kernel."""
    arguments = (dy, y, dx, bits(slope), n, chunk_of(n, cores, UNROLL))
    return Call(leaky_relu_backward_program(), "leaky_relu_bw", arguments)


@cache
def leaky_relu_backward_program() -> Program:
    def derivative(b: Builder, k: Constants, dy: Register, y: Register) -> None:
        b("flt.s", y, "x0", y)
        b("fcvt.s.w", y, y)  # 1 or 0
        b("fmax.s", y, y, k["slope"])
        b("fmul.s", dy, dy, y)

    return _backward_program("leaky_relu_bw", derivative, ("slope",))


# -- sigmoid ---------------------------------------------------------------------------------------
def sigmoid_forward(x: int, y: int, n: int, cores: int) -> Call:
    """y = 1 / (1 + exp(-x)), within 2.5 ulp."""
    return Call(sigmoid_forward_program(), "sigmoid_fw", (x, y, n, chunk_of(n, cores)))


@cache
def sigmoid_forward_program() -> Program:
    def function(b: Builder, k: Constants, x: Register, e: Register, y: Register, t: Register) -> None:
        b("fsgnjn.s", y, x, x)
        b("fmin.s", y, x, y)  # -|x|, of a NaN the positive one
        exp_not_positive(b, k, y, e, t)
        b("fle.s", t, "x0", x)
        b("fcvt.s.w", t, t)
        b("fmax.s", t, t, e)  # the numerator: 1 where x >= 0, else e
        b("fadd.s", e, e, k[ONE])
        quotient(b, k, t, e, y, x)

    return _forward_program("sigmoid_fw", function, (*EXP_NOT_POSITIVE_CONSTANTS, *RECIPROCAL_COEFFICIENTS))


def sigmoid_backward(dy: int, y: int, dx: int, n: int, cores: int) -> Call:
    """dx = (dy * y) * (1 - y); y is the output of the forward kernel."""
    return Call(sigmoid_backward_program(), "sigmoid_bw", (dy, y, dx, n, chunk_of(n, cores, UNROLL)))


@cache
def sigmoid_backward_program() -> Program:
    def derivative(b: Builder, k: Constants, dy: Register, y: Register) -> None:
        b("fmul.s", dy, dy, y)
        b("fsub.s", y, k[ONE], y)
        b("fmul.s", dy, dy, y)

    return _backward_program("sigmoid_bw", derivative, (), (ONE,))


# -- tanh ------------------------------------------------------------------------------------------
def tanh_forward(x: int, y: int, n: int, cores: int) -> Call:
    """y = tanh(x), within 2.8 ulp, of small x too; the sign is that of x."""
    return Call(tanh_forward_program(), "tanh_fw", (x, y, n, chunk_of(n, cores)))


@cache
def tanh_forward_program() -> Program:
    def function(b: Builder, k: Constants, x: Register, m: Register, y: Register, t: Register) -> None:
        b("fsgnj.s", y, x, k[_NEGATIVE])
        b("fadd.s", y, y, y)
        _TANH.emit(b, k, y, m, t)
        b("slli", t, t, 23)
        b("fmul.s", m, m, y)
        b("fsub.s", y, t, k[ONE])
        b("fmadd.s", m, m, t, y)  # exp(-2 |x|) - 1
        b("fadd.s", t, m, k[TWO])
        with b.temporary("r") as [r]:
            quotient(b, k, m, t, y, r)
        b("fsgnj.s", y, y, x)

    return _forward_program("tanh_fw", function, (*_TANH.constants, TWO, *RECIPROCAL_COEFFICIENTS))


def tanh_backward(dy: int, y: int, dx: int, n: int, cores: int) -> Call:
    """dx = dy * (1 - y**2), the bracket rounded once; y is the output of the forward kernel."""
    return Call(tanh_backward_program(), "tanh_bw", (dy, y, dx, n, chunk_of(n, cores, UNROLL)))


@cache
def tanh_backward_program() -> Program:
    def derivative(b: Builder, k: Constants, dy: Register, y: Register) -> None:
        b("fnmsub.s", y, y, y, k[ONE])
        b("fmul.s", dy, dy, y)

    return _backward_program("tanh_bw", derivative, (), (ONE,))


# -- the loops -------------------------------------------------------------------------------------
#: emits y = f(x); arguments: constants, x, a temporary, y, a temporary; all but y are lost
Function = Callable[[Builder, Constants, Register, Register, Register, Register], None]
#: emits dy = dy f'(y); arguments: constants, dy, y, which is lost
Derivative = Callable[[Builder, Constants, Register, Register], None]


def _forward_program(name: str, function: Function, constants: tuple[np.float32, ...]) -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        with b.temporary("x", "e", "y", "t") as [x, e, y, t]:
            b("p.lw", x, (pointers[0], 4, "!"))
            function(b, k, x, e, y, t)
            b("p.sw", y, (pointers[1], 4, "!"))

    return vector_program(name, ("x", "y"), (), body, 1, constants)


def _backward_program(
    name: str, derivative: Derivative, scalars: tuple[str, ...], constants: tuple[np.float32, ...] = ()
) -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        dy, y, dx = pointers
        gradients, outputs = b.registers("gradient", unroll), b.registers("output", unroll)
        for output in outputs:
            b("p.lw", output, (y, 4, "!"))
        for gradient in gradients:
            b("p.lw", gradient, (dy, 4, "!"))
        for gradient, output in zip(gradients, outputs, strict=True):
            derivative(b, k, gradient, output)
        for gradient in gradients:
            b("p.sw", gradient, (dx, 4, "!"))
        b.free(*gradients, *outputs)

    return vector_program(name, ("dy", "y", "dx"), scalars, body, UNROLL, constants)
