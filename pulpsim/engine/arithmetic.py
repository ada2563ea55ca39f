"""What the instructions compute, for the fast engine: scalars in, scalars out.

Integer registers travel as sign-extended int64, floats as float32; results are truncated by the caller's
int32 register file. The reference engine has the same meaning in `isa` and `float32`.
"""

from __future__ import annotations

import numpy as np

from pulpsim.engine import layout as at
from pulpsim.jit import as_bits, as_float, fma, heapless, inlined

MASK = 0xFFFFFFFF
SIGN = 0x80000000
CANONICAL_NAN = 0x7FC00000


@heapless
def branch_taken(sub, a, b):  # type: ignore[no-untyped-def]
    if sub == at.B_NE:
        return a != b
    if sub == at.B_EQ:
        return a == b
    if sub == at.B_LT:
        return a < b
    if sub == at.B_GE:
        return a >= b
    if sub == at.B_LTU:
        return (a & MASK) < (b & MASK)
    if sub == at.B_GEU:
        return (a & MASK) >= (b & MASK)
    return False


@heapless
def alu(sub, a, b, d):  # type: ignore[no-untyped-def]
    """All of K_ALU but the reads of the machine's state; d is the accumulator of p.mac."""
    if sub == at.A_SUB:
        return a - b
    if sub == at.A_AND:
        return a & b
    if sub == at.A_OR:
        return a | b
    if sub == at.A_XOR:
        return a ^ b
    if sub == at.A_SLL:
        return a << (b & 31)
    if sub == at.A_SRL:
        return (a & MASK) >> (b & 31)
    if sub == at.A_SRA:
        return a >> (b & 31)
    if sub == at.A_SLT:
        return np.int64(a < b)
    if sub == at.A_SLTU:
        return np.int64((a & MASK) < (b & MASK))
    if sub == at.A_MAC:
        return d + a * b
    if sub == at.A_MSU:
        return d - a * b
    if sub == at.A_MIN:
        return min(a, b)
    if sub == at.A_MAX:
        return max(a, b)
    if sub == at.A_MINU:
        return a if (a & MASK) < (b & MASK) else b
    if sub == at.A_MAXU:
        return a if (a & MASK) > (b & MASK) else b
    if sub == at.A_ABS:
        return abs(a)
    if sub == at.A_CLIP or sub == at.A_CLIPU:
        bound = np.int64(1) << max(b - 1, 0)
        high = bound - 1 if b > 0 else np.int64(0)
        low = -bound if sub == at.A_CLIP else np.int64(0)
        return min(max(a, low), high)
    return b  # a constant


@heapless
def multiply(sub, a, b):  # type: ignore[no-untyped-def]
    if sub == at.M_MUL:
        return a * b
    if sub == at.M_MULH:
        return (a * b) >> 32
    if sub == at.M_MULHSU:
        return (a * (b & MASK)) >> 32
    return np.int64((np.uint64(a & MASK) * np.uint64(b & MASK)) >> np.uint64(32))


@heapless
def divide(sub, a, b):  # type: ignore[no-untyped-def]
    if sub == at.D_DIV or sub == at.D_REM:
        if b == 0:
            return np.int64(-1) if sub == at.D_DIV else a
        quotient = abs(a) // abs(b)
        if (a < 0) != (b < 0):
            quotient = -quotient
        return quotient if sub == at.D_DIV else a - quotient * b
    a, b = a & MASK, b & MASK
    if b == 0:
        return np.int64(-1) if sub == at.D_DIVU else a
    return a // b if sub == at.D_DIVU else a % b


@inlined
def _canonical(value):  # type: ignore[no-untyped-def]
    return np.int64(as_bits(value)) if value == value else np.int64(CANONICAL_NAN)


@inlined
def fused(sub, a, b, c):  # type: ignore[no-untyped-def]
    """fmadd family on patterns: bit 0 of sub negates the addend, bit 1 the product."""
    x, z = as_float(np.int32(a)), as_float(np.int32(c))
    if sub & 2:
        x = -x
    if sub & 1:
        z = -z
    return _canonical(fma(x, as_float(np.int32(b)), z))


@heapless
def quotient_or_root(sub, a, b):  # type: ignore[no-untyped-def]
    x = as_float(np.int32(a))
    return _canonical(np.sqrt(x) if sub else x / as_float(np.int32(b)))


@heapless
def _smaller(a, b):  # type: ignore[no-untyped-def]
    """fmin.s on patterns: -0 < +0, a number before a NaN."""
    x, y = as_float(np.int32(a)), as_float(np.int32(b))
    if x != x:
        return b if y == y else np.int64(CANONICAL_NAN)
    if y != y or x < y:
        return a
    if y < x:
        return b
    return a if a < 0 else b


@heapless
def _larger(a, b):  # type: ignore[no-untyped-def]
    x, y = as_float(np.int32(a)), as_float(np.int32(b))
    if x != x:
        return b if y == y else np.int64(CANONICAL_NAN)
    if y != y or x > y:
        return a
    if y > x:
        return b
    return b if a < 0 else a


@heapless
def _to_integer(value, toward_zero, low, high):  # type: ignore[no-untyped-def]
    if value != value:
        return high
    wide = np.float64(value)
    wide = np.trunc(wide) if toward_zero else np.rint(wide)
    if wide <= low:
        return low
    if wide >= high:
        return high
    return np.int64(wide)


@heapless
def _classify(bits):  # type: ignore[no-untyped-def]
    magnitude = bits & 0x7FFFFFFF
    if magnitude > 0x7F800000:
        return np.int64(1) << (9 if magnitude & 0x400000 else 8)
    if magnitude == 0x7F800000:
        kind = 0
    elif magnitude == 0:
        kind = 3
    else:
        kind = 1 if magnitude >> 23 else 2
    return np.int64(1) << (kind if bits < 0 else 7 - kind)


@heapless
def fpu(sub, a, b, rounding):  # type: ignore[no-untyped-def]
    """Single-cycle operations but the fused ones; patterns in, pattern or integer out."""
    x, y = as_float(np.int32(a)), as_float(np.int32(b))
    if sub == at.F_ADD:
        return _canonical(x + y)
    if sub == at.F_SUB:
        return _canonical(x - y)
    if sub == at.F_MUL:
        return _canonical(x * y)
    if sub == at.F_MIN:
        return _smaller(a, b)
    if sub == at.F_MAX:
        return _larger(a, b)
    if sub == at.F_SGNJ:
        return (a & 0x7FFFFFFF) | (b & SIGN)
    if sub == at.F_SGNJN:
        return (a & 0x7FFFFFFF) | (~b & SIGN)
    if sub == at.F_SGNJX:
        return a ^ (b & SIGN)
    if sub == at.F_EQ:
        return np.int64(x == y)
    if sub == at.F_LT:
        return np.int64(x < y)
    if sub == at.F_LE:
        return np.int64(x <= y)
    if sub == at.F_FROM_INT:
        return np.int64(as_bits(np.float32(a)))
    if sub == at.F_FROM_UINT:
        return np.int64(as_bits(np.float32(a & MASK)))
    if sub == at.F_TO_INT:
        return _to_integer(x, rounding, np.int64(-(1 << 31)), np.int64((1 << 31) - 1))
    if sub == at.F_TO_UINT:
        return _to_integer(x, rounding, np.int64(0), np.int64(MASK))
    if sub == at.F_CLASS:
        return _classify(a)
    return a  # moves
