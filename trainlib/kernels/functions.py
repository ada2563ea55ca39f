"""What kernels over vectors share: exp, log, erf, quotients and a square root.

An emitter takes a Builder and registers and emits a function of one number, without a branch: time never
depends on data. It takes its constants from registers that `load_constants` filled before the loop. Where
the divider of the cluster would serve one core at a time for 14 cycles, `quotient` takes 7 on every core,
`division` 8 and `square_root` 11.
`numerics.functions` has the same operations, the constants and the errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pulpsim import Builder
from pulpsim.program import Register
from trainlib.kernels.vector import Constants, bits
from trainlib.numerics.functions import (
    ERF_COEFFICIENTS,
    EXP_COEFFICIENTS,
    EXP_LOWEST,
    INVERSE_START,
    INVERSE_STEP,
    LN2,
    LOG2_E,
    LOG_COEFFICIENTS,
    LOG_SPLIT,
    MINUS_LN2_HIGH,
    MINUS_LN2_LOW,
    ONE,
    RECIPROCAL_COEFFICIENTS,
    ROOT_START,
    ROOT_STEP,
    ROUNDER,
    SMALLEST_NORMAL,
)

#: two elements a turn fill the load-use slots; more would only be more code to fetch
UNROLL = 2


# -- exp -------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Reduction:
    """exp(x) = 2**n (1 + q r): how n is limited, and what is added to it in the register it comes in."""

    bias: int
    lowest: np.float32 = EXP_LOWEST  # smaller x count as this
    highest: int | None = None  # larger n count as this; None: x is not positive

    @property
    def constants(self) -> tuple[np.float32, ...]:
        limit = () if self.highest is None else (self._rounder(self.highest),)
        reduction = (self.lowest, LOG2_E, self._rounder(), *limit, MINUS_LN2_HIGH, MINUS_LN2_LOW)
        return (*reduction, *EXP_COEFFICIENTS)

    def _rounder(self, n: int = 0) -> np.float32:
        return np.float32(ROUNDER + np.float32(self.bias + n))

    def emit(self, b: Builder, k: Constants, x: Register, q: Register, n: Register) -> None:
        """x becomes r; q is q; the low bits of n are n + bias, all others of the low 16 are 0.

        A NaN in x must be positive, as arithmetic leaves it; it becomes r and q, and n is any.
        """
        rounder = k[self._rounder()]
        b("p.minu", x, x, k[self.lowest])  # among negative numbers, the smaller pattern is the larger number
        b("fmadd.s", n, x, k[LOG2_E], rounder)
        if self.highest is not None:
            b("p.min", n, n, k[self._rounder(self.highest)])
        b("fsub.s", q, n, rounder)
        b("fmadd.s", x, q, k[MINUS_LN2_HIGH], x)
        b("fmadd.s", x, q, k[MINUS_LN2_LOW], x)
        first, *others = EXP_COEFFICIENTS
        for power, c in enumerate(others):
            b("fmadd.s", q, q if power else k[first], x, k[c])


_EXP = Reduction(bias=254, highest=254)
_EXP_NOT_POSITIVE = Reduction(bias=32)
_UNBIAS = np.float32(2.0**-_EXP_NOT_POSITIVE.bias)

EXP_CONSTANTS = _EXP.constants
EXP_NOT_POSITIVE_CONSTANTS = (*_EXP_NOT_POSITIVE.constants, _UNBIAS)


def exp(b: Builder, k: Constants, x: Register, y: Register, n: Register) -> None:
    """y = e**x, within 0.91 ulp, over the whole range. Needs EXP_CONSTANTS; x and n are lost.

    A NaN in x must be positive, as arithmetic leaves it. The power of two is two factors, the halves of
    n, so that only the last product rounds: to a subnormal, zero or infinity where it must.
    """
    _EXP.emit(b, k, x, y, n)
    b("fmadd.s", y, y, x, k[ONE])
    b("srli", x, n, 1)
    b("sub", n, n, x)
    for half in (x, n):
        b("slli", half, half, 23)
        b("fmul.s", y, y, half)


def exp_not_positive(b: Builder, k: Constants, x: Register, y: Register, n: Register) -> None:
    """As `exp`, for x <= 0 or NaN: 14 instructions. Needs EXP_NOT_POSITIVE_CONSTANTS; x and n are lost.

    n + bias is added to the exponent, which keeps it normal; the product that takes the bias away rounds.
    """
    _EXP_NOT_POSITIVE.emit(b, k, x, y, n)
    b("fmadd.s", y, y, x, k[ONE])
    b("slli", n, n, 23)
    b("add", y, y, n)
    b("fmul.s", y, y, k[_UNBIAS])


# -- erf -------------------------------------------------------------------------------------------
ERF_CONSTANTS = (*EXP_NOT_POSITIVE_CONSTANTS, *ERF_COEFFICIENTS[2:])


def erf(b: Builder, k: Constants, x: Register, y: Register, q: Register, n: Register) -> None:
    """y = erf(x), within 1.0e-7: 28 instructions. Needs ERF_CONSTANTS; q and n are lost.

    The first two coefficients are loaded as it goes, one instruction each: there are few registers.
    """
    first, second, *others = ERF_COEFFICIENTS
    b("fsgnjx.s", y, x, x)
    b.li(q, bits(first))
    b.li(n, bits(second))
    b("fmadd.s", q, q, y, n)
    for c in others:
        b("fmadd.s", q, q, y, k[c])
    b("fmul.s", q, q, y)
    exp_not_positive(b, k, q, y, n)
    b("fsub.s", y, k[ONE], y)
    b("fsgnj.s", y, y, x)


# -- quotients -------------------------------------------------------------------------------------
def quotient(b: Builder, k: Constants, a: Register, d: Register, y: Register, r: Register) -> None:
    """y = a / d for d in [1, 2], within 1 ulp. Needs RECIPROCAL_COEFFICIENTS and ONE; r and a are lost."""
    reciprocal(b, k, d, r, y, 1)
    b("fmul.s", y, a, r)
    b("fnmsub.s", a, d, y, a)
    b("fmadd.s", y, a, r, y)


def reciprocal(b: Builder, k: Constants, d: Register, r: Register, t: Register, steps: int = 2) -> None:
    """r = 1 / d for d in [1, 2], within 0.69 ulp. Needs RECIPROCAL_COEFFICIENTS and ONE; t is lost.

    steps: of Newton; one leaves an error of 1/9600.
    """
    first, second, third = (k[c] for c in RECIPROCAL_COEFFICIENTS)
    b("fmadd.s", r, first, d, second)
    b("fmadd.s", r, r, d, third)
    for _ in range(steps):
        b("fnmsub.s", t, d, r, k[ONE])
        b("fmadd.s", r, r, t, r)


DIVISION_CONSTANTS = (INVERSE_START, INVERSE_STEP)


def division(b: Builder, k: Constants, a: Register, d: Register, y: Register, r: Register, t: Register) -> None:
    """y = a / d for |d| of 2**-125 to 2**125, within 0.57 ulp. Needs DIVISION_CONSTANTS; r and t are lost."""
    b("sub", r, k[INVERSE_START], d)
    b("fnmsub.s", t, d, r, k[INVERSE_STEP])
    b("fmul.s", r, r, t)
    b("fmul.s", y, a, r)
    for _ in range(2):
        b("fnmsub.s", t, d, y, a)
        b("fmadd.s", y, t, r, y)


# -- square root -----------------------------------------------------------------------------------
ROOT_CONSTANTS = (ROOT_START, ROOT_STEP)


def square_root(b: Builder, k: Constants, x: Register, y: Register, r: Register, t: Register) -> None:
    """y = sqrt(x) of a finite x >= 0, within 0.52 ulp from 2**-120 on. Needs ROOT_CONSTANTS; r and t are lost."""
    b("srli", r, x, 1)
    b("sub", r, k[ROOT_START], r)
    b("fmul.s", y, x, r)
    b("fnmsub.s", t, y, r, k[ROOT_STEP])
    b("fmul.s", r, r, t)
    b("fmul.s", y, y, t)
    b("fadd.s", y, y, y)
    for _ in range(2):
        b("fnmsub.s", t, y, y, x)
        b("fmadd.s", y, t, r, y)


# -- log -------------------------------------------------------------------------------------------
def log(b: Builder, x: Register, normal: bool) -> None:
    """x = the natural logarithm of x, within 0.94 ulp: for once in a kernel, loading constants as it goes.

    normal: x is NaN or a positive number that is neither subnormal nor infinite, and the rest is left out.
    """
    special, down = b.register("special"), b.register("down")
    if normal:
        b("fsub.s", special, x, x)  # 0, or NaN
    else:
        _special_logarithm(b, x, special, down)
        _make_normal(b, x, down)
    with b.temporary("k", "q", "constant") as [k, q, constant]:
        b.li(constant, bits(LOG_SPLIT))
        b("sub", k, x, constant)
        b("srai", k, k, 23)
        b("slli", q, k, 23)
        b("sub", x, x, q)
        b.li(constant, bits(ONE))
        b("fsub.s", x, x, constant)
        first, *others = LOG_COEFFICIENTS
        b.li(q, bits(first))
        for c in others:
            b.li(constant, bits(c))
            b("fmadd.s", q, q, x, constant)
        b("fmul.s", q, q, x)
        b("fmadd.s", x, q, x, x)
        if not normal:
            b("sub", k, k, down)
        b("fcvt.s.w", k, k)
        b.li(constant, bits(LN2))
        b("fmadd.s", x, k, constant, x)
    b("fadd.s", x, x, special)
    b.free(special, down)


def _make_normal(b: Builder, x: Register, down: Register) -> None:
    """Emit: down = 32 where x is subnormal (or none that has a logarithm), else 0; x *= 2**down."""
    with b.temporary("factor", "one") as [factor, one]:
        b.li(factor, bits(SMALLEST_NORMAL))
        b("flt.s", down, x, factor)
        b("slli", down, down, 5)
        b("slli", factor, down, 23)
        b.li(one, bits(ONE))
        b("add", factor, factor, one)
        b("fmul.s", x, x, factor)


def _special_logarithm(b: Builder, x: Register, special: Register, kind: Register) -> None:
    """Emit: special = log(x) if x is not a positive number, else 0. By the bits of fclass.s."""
    with b.temporary("mask") as [mask]:
        b("fclass.s", kind, x)
        b("andi", special, kind, 0b0001100000)  # positive, finite
        b("sltiu", special, special, 1)
        b("sub", special, "x0", special)
        b("srli", special, special, 24)
        b("slli", special, special, 23)  # infinity, or 0
        for classes, bit in ((0b0000011000, 31), (0b1100000111, 22)):  # zeros: -infinity; below, NaN: NaN
            b("andi", mask, kind, classes)
            b("sltu", mask, "x0", mask)
            b("slli", mask, mask, bit)
            b("or", special, special, mask)
