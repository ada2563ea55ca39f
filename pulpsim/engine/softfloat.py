"""Floating point with exceptions and all rounding modes, for the fast engine.

Used where a program can see exceptions, or rounds in another mode than to nearest; `arithmetic` has the fast
way. The host computes the result to nearest; how the exact value lies to that, and to the few other numbers
that matter, is found in double precision without error: a sum as a double and what it lacks, a product
as a double, a quotient or root by multiplying back.
"""

from __future__ import annotations

import numpy as np

from pulpsim.engine import layout as at
from pulpsim.engine.arithmetic import NEGATED_ADDEND, NEGATED_PRODUCT, fpu, fused, quotient_or_root, to_integral
from pulpsim.engine.operations import FUSED, FDiv, Fpu
from pulpsim.float32 import DZ, NV, NX, OF, RDN, RMM, RNE, RUP, UF
from pulpsim.jit import as_float, heapless

SIGN = 0x80000000
INFINITY = 0x7F800000
SIZE = 0x7FFFFFFF
MASK = 0xFFFFFFFF
FLAGS = at.OUT  # where the exceptions of an operation are left
SUM, QUOTIENT, ROOT = range(3)
OVERFLOW = 2.0**128
TINY = 2.0**-126
#: the steps between numbers of 24 bits below TINY
STEP = 2.0**-150


@heapless
def _compare(kind, x, y, v):
    """The sign of the exact value less v: of x + y, whose sum is x; of x / y; of the root of x."""
    if kind == SUM:
        return y if x == v else x - v
    if kind == QUOTIENT:
        return x - v * y if y > 0 else v * y - x
    return x - v * v


@heapless
def _finish(kind, x, y, bits, mode, s):
    """The pattern in a rounding mode, from the one to nearest: of a finite exact value."""
    sign = bits & SIGN
    direction = -1.0 if sign else 1.0
    away = (mode == RUP and sign == 0) or (mode == RDN and sign != 0)
    nearest = mode == RNE or mode == RMM
    if bits & SIZE == INFINITY:
        s[FLAGS] |= NX
        if nearest or away or _compare(kind, x, y, direction * OVERFLOW) * direction >= 0:
            s[FLAGS] |= OF
        return bits if nearest or away else bits - 1
    value = np.float64(as_float(np.int32(bits)))
    difference = _compare(kind, x, y, value) * direction  # above 0: the exact value is further from 0
    if difference == 0:
        return bits
    s[FLAGS] |= NX
    if difference > 0 and mode == RMM:
        beyond = np.float64(as_float(np.int32(bits + 1)))
        away = _compare(kind, x, y, (value + beyond) / 2) == 0
    result = bits
    if difference > 0 and away:
        result = bits + 1
    elif difference < 0 and not nearest and not away:
        result = bits - 1
    if result & SIZE == INFINITY:
        s[FLAGS] |= OF
    if result & SIZE <= 0x00800000:
        if nearest:
            tiny = _compare(kind, x, y, direction * (TINY - STEP / 2)) * direction < 0
        elif away:
            tiny = _compare(kind, x, y, direction * (TINY - STEP)) * direction <= 0
        else:
            tiny = _compare(kind, x, y, direction * TINY) * direction < 0
        if tiny:
            s[FLAGS] |= UF
    return result


@heapless
def _round_sum(x, y, bits, mode, s):
    """As _finish, of x + y; a sum that is exactly 0 is -0 when rounding is down, unless both are +0."""
    total = x + y
    part = total - x
    lost = (x - (total - part)) + (y - part)
    if total == 0 and lost == 0:
        negative = np.signbit(x) or np.signbit(y)
        return np.int64(SIGN) if mode == RDN and negative else bits
    return _finish(SUM, total, lost, bits, mode, s)


@heapless
def _is_nan(a):
    return a & SIZE > INFINITY


@heapless
def _is_signaling(a):
    return a & SIZE > INFINITY and a & 0x400000 == 0


@heapless
def _special(a, b, d, bits, s):
    """The result is a NaN, or an operand infinite: raise what that raises. False if there is more to do."""
    if _is_nan(bits):
        quiet = _is_nan(a) or _is_nan(b) or _is_nan(d)
        if not quiet or _is_signaling(a) or _is_signaling(b) or _is_signaling(d):
            s[FLAGS] |= NV
        return True
    return a & SIZE == INFINITY or b & SIZE == INFINITY or d & SIZE == INFINITY


@heapless
def _to_whole(value, low, high, mode, s):
    """fcvt.w.s and fcvt.wu.s of a double."""
    if value != value:
        s[FLAGS] |= NV
        return high
    whole = to_integral(value, mode)
    if low <= whole <= high:
        if whole != value:
            s[FLAGS] |= NX
        return np.int64(whole)
    s[FLAGS] |= NV
    return low if whole < low else high


@heapless
def soft_quotient_or_root(sub, a, b, mode, s):
    """As `arithmetic.quotient_or_root`, on patterns; its exceptions at FLAGS."""
    s[FLAGS] = 0
    a, b = a & MASK, 0 if sub == FDiv.FSQRT_S else b & MASK
    bits = quotient_or_root(sub, a, b) & MASK
    if _special(a, b, np.int64(0), bits, s):
        return bits
    x, y = np.float64(as_float(np.int32(a))), np.float64(as_float(np.int32(b)))
    if sub == FDiv.FDIV_S and y == 0:
        s[FLAGS] |= DZ
        return bits
    return _finish(ROOT if sub == FDiv.FSQRT_S else QUOTIENT, x, y, bits, mode, s)


@heapless
def soft(sub, a, b, d, mode, s):
    """Any single-cycle operation (`arithmetic.fused`, `arithmetic.fpu`), on patterns; its exceptions at FLAGS."""
    s[FLAGS] = 0
    a, b, d = a & MASK, b & MASK, d & MASK
    x, y = np.float64(as_float(np.int32(a))), np.float64(as_float(np.int32(b)))
    if sub < FUSED:
        z = np.float64(as_float(np.int32(d)))
        bits = fused(sub, a, b, d) & MASK
        if _is_nan(d) and ((a & SIZE == INFINITY and b & SIZE == 0) or (b & SIZE == INFINITY and a & SIZE == 0)):
            s[FLAGS] |= NV
        if _special(a, b, d, bits, s):
            return bits
        return _round_sum(-x * y if sub & NEGATED_PRODUCT else x * y, -z if sub & NEGATED_ADDEND else z, bits, mode, s)
    if sub == Fpu.FCVT_W_S:
        return _to_whole(x, np.int64(-(1 << 31)), np.int64((1 << 31) - 1), mode, s)
    if sub == Fpu.FCVT_WU_S:
        return _to_whole(x, np.int64(0), np.int64(MASK), mode, s)
    bits = fpu(sub, np.int64(np.int32(a)), np.int64(np.int32(b)), np.int64(0)) & MASK
    if sub == Fpu.FCVT_S_W or sub == Fpu.FCVT_S_WU:
        x = np.float64(np.int32(a)) if sub == Fpu.FCVT_S_W else np.float64(a)
        return _finish(SUM, x, 0.0, bits, mode, s)
    if sub == Fpu.FADD_S or sub == Fpu.FSUB_S or sub == Fpu.FMUL_S:
        if _special(a, b, np.int64(0), bits, s):
            return bits
        if sub == Fpu.FMUL_S:
            return _finish(SUM, x * y, 0.0, bits, mode, s)
        return _round_sum(x, -y if sub == Fpu.FSUB_S else y, bits, mode, s)
    if sub == Fpu.FMIN_S or sub == Fpu.FMAX_S or sub == Fpu.FEQ_S:
        if _is_signaling(a) or _is_signaling(b):
            s[FLAGS] |= NV
    elif _is_nan(a) or _is_nan(b):
        s[FLAGS] |= NV
    return bits
