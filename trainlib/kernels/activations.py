"""Activations forward and backward, element by element: leaky ReLU, ReLU6, sigmoid, tanh, HardSwish and GELU, with
tanh or erf.

(ReLU is in `elementwise`.) Backward kernels read the layer's output, those of HardSwish and GELU its input. An
output may lie where the input of the same index is. Sigmoid, tanh and GELU are one element a turn: 20 and more
instructions hide the one load-use stall, and cold code costs more than it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from pulpsim import Builder, Program
from pulpsim.program import Register
from trainlib.kernels import Call, chunk_of
from trainlib.kernels.functions import (
    ERF_CONSTANTS,
    EXP_NOT_POSITIVE_CONSTANTS,
    UNROLL,
    Reduction,
    erf,
    exp_not_positive,
    quotient,
    reciprocal,
)
from trainlib.kernels.touched import touches, vectors
from trainlib.kernels.vector import Constants, bits, vector_program
from trainlib.numerics.activations import (
    GELU_CUBIC,
    GELU_HIGHEST,
    GELU_LINEAR,
    GELU_SLOPE,
    INVERSE_ROOT_PI,
    ROOT_HALF,
    SIX,
    SIXTH,
    TANH_LOWEST,
    THIRD,
    THREE,
    TWO,
)
from trainlib.numerics.functions import HALF, MINUS_LN2_HIGH, ONE, RECIPROCAL_COEFFICIENTS

#: any negative number lends its sign
_NEGATIVE = MINUS_LN2_HIGH
#: n + 127 is the exponent field of 2**n
_TANH = Reduction(bias=127, lowest=TANH_LOWEST)


# -- leaky ReLU ------------------------------------------------------------------------------------
@touches(vectors("x", "y"))
def leaky_relu_forward(x: int, y: int, slope: float, n: int, cores: int) -> Call:
    """y = x where x > 0, else slope * x; 0 < slope <= 1."""
    return Call(leaky_relu_forward_program(), "leaky_relu_fw", (x, y, bits(slope), n, chunk_of(n, cores, UNROLL)))


@cache
def leaky_relu_forward_program() -> Program:
    def function(b: Builder, k: Constants, x: Register, t: Register) -> None:
        b("fmul.s", t, x, k["slope"])
        b("fmax.s", x, x, t)

    return _short_forward_program("leaky_relu_fw", function, ("slope",))


@touches(vectors("dy y", "dx"))
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
@touches(vectors("x", "y"))
def sigmoid_forward(x: int, y: int, n: int, cores: int) -> Call:
    """y = 1 / (1 + exp(-x)), within 2.5 ulp."""
    return Call(sigmoid_forward_program(), "sigmoid_fw", (x, y, n, chunk_of(n, cores)))


@cache
def sigmoid_forward_program() -> Program:
    def function(b: Builder, k: Constants, x: Register, e: Register, y: Register, t: Register) -> None:
        b("fsgnjn.s", y, x, x)
        b("fmin.s", y, x, y)  # -|x|, of a NaN the positive one
        exp_not_positive(b, k, y, e, t)
        _one_or(b, t, x, e)  # the numerator
        b("fadd.s", e, e, k[ONE])
        quotient(b, k, t, e, y, x)

    return _forward_program("sigmoid_fw", function, (*EXP_NOT_POSITIVE_CONSTANTS, *RECIPROCAL_COEFFICIENTS))


@touches(vectors("dy y", "dx"))
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
@touches(vectors("x", "y"))
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


@touches(vectors("dy y", "dx"))
def tanh_backward(dy: int, y: int, dx: int, n: int, cores: int) -> Call:
    """dx = dy * (1 - y**2), the bracket rounded once; y is the output of the forward kernel."""
    return Call(tanh_backward_program(), "tanh_bw", (dy, y, dx, n, chunk_of(n, cores, UNROLL)))


@cache
def tanh_backward_program() -> Program:
    def derivative(b: Builder, k: Constants, dy: Register, y: Register) -> None:
        b("fnmsub.s", y, y, y, k[ONE])
        b("fmul.s", dy, dy, y)

    return _backward_program("tanh_bw", derivative, (), (ONE,))


# -- ReLU6 -----------------------------------------------------------------------------------------
#: the largest number below 6; among patterns that are not negative order is that of the numbers
_BELOW_SIX = np.nextafter(SIX, np.float32(0))


@touches(vectors("x", "y"))
def relu6_forward(x: int, y: int, n: int, cores: int) -> Call:
    """y = min(max(x, 0), 6), a NaN giving +0."""
    return Call(relu6_forward_program(), "relu6_fw", (x, y, n, chunk_of(n, cores, UNROLL)))


@cache
def relu6_forward_program() -> Program:
    def function(b: Builder, k: Constants, x: Register, t: Register) -> None:
        b("fmax.s", x, x, "x0")
        b("fmin.s", x, x, k[SIX])

    return _short_forward_program("relu6_fw", function, (), (SIX,))


@touches(vectors("dy y", "dx"))
def relu6_backward(dy: int, y: int, dx: int, n: int, cores: int) -> Call:
    """dx = dy, moved as it is, where 0 < y < 6, else +0; y is the output of the forward kernel."""
    return Call(relu6_backward_program(), "relu6_bw", (dy, y, dx, n, chunk_of(n, cores, UNROLL)))


@cache
def relu6_backward_program() -> Program:
    def derivative(b: Builder, k: Constants, dy: Register, y: Register) -> None:
        b("addi", y, y, -1)  # the pattern of 0 becomes the largest
        b("sltu", y, y, k[_BELOW_SIX])
        b("sub", y, "x0", y)
        b("and", dy, dy, y)

    return _backward_program("relu6_bw", derivative, (), (_BELOW_SIX,))


# -- HardSwish -------------------------------------------------------------------------------------
@touches(vectors("x", "y"))
def hard_swish_forward(x: int, y: int, n: int, cores: int) -> Call:
    """y = x * min(max(x + 3, 0), 6) / 6, within 2.5 ulp; x itself from 3 on."""
    return Call(hard_swish_forward_program(), "hard_swish_fw", (x, y, n, chunk_of(n, cores, UNROLL)))


@cache
def hard_swish_forward_program() -> Program:
    def function(b: Builder, k: Constants, x: Register, t: Register) -> None:
        b("fadd.s", t, x, k[THREE])
        b("fmax.s", t, t, "x0")
        b("fmin.s", t, t, k[SIX])
        b("fmul.s", t, t, k[SIXTH])
        b("fmul.s", x, x, t)

    return _short_forward_program("hard_swish_fw", function, (), (THREE, SIX, SIXTH))


@touches(vectors("dy x", "dx"))
def hard_swish_backward(dy: int, x: int, dx: int, n: int, cores: int) -> Call:
    """dx = dy * s, s = x / 3 + 1/2 where |x| < 3, within 2**-23, else 1 where x > 0, else 0; x is the layer's input."""
    return Call(hard_swish_backward_program(), "hard_swish_bw", (dy, x, dx, n, chunk_of(n, cores, UNROLL)))


@cache
def hard_swish_backward_program() -> Program:
    def derivative(b: Builder, k: Constants, dy: Register, x: Register) -> None:
        with b.temporary("inside", "above") as [inside, above]:
            b("fsgnjx.s", inside, x, x)
            b("flt.s", inside, inside, k[THREE])
            b("sub", inside, "x0", inside)
            b("fle.s", above, k[THREE], x)
            b("fcvt.s.w", above, above)  # 1 or 0
            b("fmadd.s", x, x, k[THIRD], k[HALF])
            b("and", x, x, inside)
            b("or", x, x, above)
        b("fmul.s", dy, dy, x)

    return _backward_program("hard_swish_bw", derivative, (), (THREE, THIRD, HALF))


# -- GELU ------------------------------------------------------------------------------------------
_SHARE_CONSTANTS = (*EXP_NOT_POSITIVE_CONSTANTS, *RECIPROCAL_COEFFICIENTS, GELU_LINEAR, GELU_CUBIC)


@touches(vectors("x", "y"))
def gelu_forward(x: int, y: int, n: int, cores: int) -> Call:
    """y = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x**3))), within 2.5 ulp where x >= 0, below within 2**-24.

    That is PyTorch's `approximate="tanh"`, up to 4.8e-4 from the form with erf.
    """
    return Call(gelu_forward_program(), "gelu_fw", (x, y, n, chunk_of(n, cores)))


@cache
def gelu_forward_program() -> Program:
    def function(b: Builder, k: Constants, x: Register, e: Register, y: Register, t: Register) -> None:
        b("fmul.s", t, x, x)
        b("fmadd.s", t, t, k[GELU_CUBIC], k[GELU_LINEAR])
        b("fmul.s", t, t, x)
        _exp_of_minus_size(b, k, t, e, y)
        _one_or(b, t, x, e)
        b("fadd.s", e, e, k[ONE])
        with b.temporary("r") as [r]:
            quotient(b, k, t, e, y, r)
        b("fmul.s", y, x, y)

    return _forward_program("gelu_fw", function, _SHARE_CONSTANTS)


@touches(vectors("dy x", "dx"))
def gelu_backward(dy: int, x: int, dx: int, n: int, cores: int) -> Call:
    """dx = dy times the derivative of `gelu_forward` at x, within 2**-22; x is the layer's input, |x| up to 2**123."""
    return Call(gelu_backward_program(), "gelu_bw", (dy, x, dx, n, chunk_of(n, cores)))


@cache
def gelu_backward_program() -> Program:
    def derivative(b: Builder, k: Constants, dy: Register, x: Register) -> None:
        with b.temporary("e", "t", "n", "r") as [e, t, n, r]:
            b("fmul.s", t, x, x)
            b("fmin.s", t, t, k[GELU_HIGHEST])
            b("fmadd.s", n, t, k[GELU_SLOPE], k[GELU_LINEAR])
            b("fmadd.s", t, t, k[GELU_CUBIC], k[GELU_LINEAR])
            b("fmul.s", t, t, x)
            b("fmul.s", x, n, x)
            _exp_of_minus_size(b, k, t, e, n)
            b("fadd.s", n, e, k[ONE])
            reciprocal(b, k, n, r, t)
            _one_or(b, t, x, e)
            b("fmul.s", t, t, r)
            b("fmul.s", e, e, r)
            b("fmul.s", e, e, r)
            b("fmadd.s", t, x, e, t)
            b("fmul.s", dy, dy, t)

    return _backward_program("gelu_bw", derivative, (), (*_SHARE_CONSTANTS, GELU_SLOPE, GELU_HIGHEST), 1)


@touches(vectors("x", "y"))
def gelu_erf_forward(x: int, y: int, n: int, cores: int) -> Call:
    """y = x / 2 * (1 + erf(x / sqrt(2))), within 2.5 ulp where x >= 0, below within 2**-23."""
    return Call(gelu_erf_forward_program(), "gelu_erf_fw", (x, y, n, chunk_of(n, cores)))


@cache
def gelu_erf_forward_program() -> Program:
    def function(b: Builder, k: Constants, x: Register, z: Register, y: Register, t: Register) -> None:
        b("fmul.s", z, x, k[ROOT_HALF])
        with b.temporary("n") as [n]:
            erf(b, k, z, y, t, n)
        b("fmadd.s", y, y, k[HALF], k[HALF])
        b("fmul.s", y, x, y)

    return _forward_program("gelu_erf_fw", function, (*ERF_CONSTANTS, ROOT_HALF))


@touches(vectors("dy x", "dx"))
def gelu_erf_backward(dy: int, x: int, dx: int, n: int, cores: int) -> Call:
    """dx = dy times the derivative of `gelu_erf_forward` at x, within 2**-22; x is the layer's input."""
    return Call(gelu_erf_backward_program(), "gelu_erf_bw", (dy, x, dx, n, chunk_of(n, cores)))


@cache
def gelu_erf_backward_program() -> Program:
    def derivative(b: Builder, k: Constants, dy: Register, x: Register) -> None:
        with b.temporary("share", "bell", "t", "n") as [share, bell, t, n]:
            b("fmul.s", x, x, k[ROOT_HALF])
            erf(b, k, x, share, t, n)
            b("fmadd.s", share, share, k[HALF], k[HALF])
            b("fnmsub.s", t, x, x, "x0")
            exp_not_positive(b, k, t, bell, n)
            b.li(t, bits(INVERSE_ROOT_PI))
            b("fmul.s", x, x, t)
            b("fmadd.s", share, x, bell, share)
            b("fmul.s", dy, dy, share)

    return _backward_program("gelu_erf_bw", derivative, (), (*ERF_CONSTANTS, ROOT_HALF), 1)


# -- pieces ----------------------------------------------------------------------------------------
def _exp_of_minus_size(b: Builder, k: Constants, x: Register, e: Register, t: Register) -> None:
    """e = exp(-|x|). Needs EXP_NOT_POSITIVE_CONSTANTS; x and t are lost."""
    b("fsgnjn.s", t, x, x)
    b("fmin.s", x, x, t)  # of a NaN the positive one
    exp_not_positive(b, k, x, e, t)


def _one_or(b: Builder, y: Register, x: Register, e: Register) -> None:
    """y = 1 where x >= 0, else e, which is at most 1."""
    b("fle.s", y, "x0", x)
    b("fcvt.s.w", y, y)
    b("fmax.s", y, y, e)


# -- the loops -------------------------------------------------------------------------------------
#: emits x = f(x); arguments: constants, x, a temporary
ShortFunction = Callable[[Builder, Constants, Register, Register], None]
#: emits y = f(x); arguments: constants, x, a temporary, y, a temporary; all but y are lost
Function = Callable[[Builder, Constants, Register, Register, Register, Register], None]
#: emits dy = dy f'; arguments: constants, dy, the layer's output or input, which is lost
Derivative = Callable[[Builder, Constants, Register, Register], None]


def _short_forward_program(
    name: str, function: ShortFunction, scalars: tuple[str, ...], constants: tuple[np.float32, ...] = ()
) -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        values = b.registers("value", unroll)
        for value in values:
            b("p.lw", value, (pointers[0], 4, "!"))
        with b.temporary("t") as [t]:
            for value in values:
                function(b, k, value, t)
        for value in values:
            b("p.sw", value, (pointers[1], 4, "!"))
        b.free(*values)

    return vector_program(name, ("x", "y"), scalars, body, UNROLL, constants)


def _forward_program(name: str, function: Function, constants: tuple[np.float32, ...]) -> Program:
    def body(b: Builder, pointers: list[Register], k: Constants, unroll: int) -> None:
        with b.temporary("x", "e", "y", "t") as [x, e, y, t]:
            b("p.lw", x, (pointers[0], 4, "!"))
            function(b, k, x, e, y, t)
            b("p.sw", y, (pointers[1], 4, "!"))

    return vector_program(name, ("x", "y"), (), body, 1, constants)


def _backward_program(
    name: str, derivative: Derivative, scalars: tuple[str, ...], constants: tuple[np.float32, ...] = (),
    unroll: int = UNROLL,
) -> Program:  # fmt: skip
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

    return vector_program(name, ("dy", "y", "dx"), scalars, body, unroll, constants)
