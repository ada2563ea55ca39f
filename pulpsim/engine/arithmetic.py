"""What the instructions compute, for the fast engine: scalars in, scalars out.

Integer registers travel as sign-extended int64, floats as float32; results are truncated by the caller's
int32 register file. The reference engine has the same meaning in `isa` and `float32`.
"""

from __future__ import annotations

import numpy as np

from pulpsim.engine.operations import WIDE_BITS, WIDE_NUMBER, Alu, Branch, Div, FDiv, Fpu, Mul, Wide
from pulpsim.float32 import RDN, RNE, RTZ, RUP
from pulpsim.isa import Variant
from pulpsim.jit import as_bits, as_float, fma, heapless, inlined, leading_zeros

MASK = 0xFFFFFFFF
SIGN = 0x80000000
CANONICAL_NAN = 0x7FC00000
NEGATED_ADDEND, NEGATED_PRODUCT = int(Variant.NEGATED_ADDEND), int(Variant.NEGATED_PRODUCT)
#: bits beside the number of a `Wide`
W_SIGNED, W_ROUNDED, W_OTHER, W_REGISTER = (
    WIDE_BITS * int(bit) for bit in (Variant.SIGNED, Variant.ROUNDED, Variant.OTHER, Variant.BY_REGISTER)
)


@heapless
def branch_taken(sub, a, b):
    if sub == Branch.BNE:
        return a != b
    if sub == Branch.BEQ:
        return a == b
    if sub == Branch.BLT:
        return a < b
    if sub == Branch.BGE:
        return a >= b
    if sub == Branch.BLTU:
        return (a & MASK) < (b & MASK)
    if sub == Branch.BGEU:
        return (a & MASK) >= (b & MASK)
    return False


@inlined
def alu(sub, a, b, d):
    """All of K_ALU but the reads of the machine's state; d is the accumulator of p.mac."""
    if sub == Alu.SUB:
        return a - b
    if sub == Alu.AND:
        return a & b
    if sub == Alu.OR:
        return a | b
    if sub == Alu.XOR:
        return a ^ b
    if sub == Alu.SLL:
        return a << (b & 31)
    if sub == Alu.SRL:
        return (a & MASK) >> (b & 31)
    if sub == Alu.SRA:
        return a >> (b & 31)
    if sub == Alu.SLT:
        return np.int64(a < b)
    if sub == Alu.SLTU:
        return np.int64((a & MASK) < (b & MASK))
    if sub == Alu.MAC:
        return d + a * b
    if sub == Alu.MSU:
        return d - a * b
    if sub == Alu.MIN:
        return min(a, b)
    if sub == Alu.MAX:
        return max(a, b)
    if sub == Alu.MINU:
        return a if (a & MASK) < (b & MASK) else b
    if sub == Alu.MAXU:
        return a if (a & MASK) > (b & MASK) else b
    if sub == Alu.ABS:
        return abs(a)
    if sub == Alu.CLIP or sub == Alu.CLIPU:
        bound = np.int64(1) << max(b - 1, 0)
        high = bound - 1 if b > 0 else np.int64(0)
        low = -bound if sub == Alu.CLIP else np.int64(0)
        return min(max(a, low), high)
    if sub == Alu.CONSTANT:
        return b
    return _unusual(sub, a, b)


@heapless
def _unusual(sub, a, b):
    """The rest of K_ALU."""
    if sub == Alu.SLET:
        return np.int64(a <= b)
    if sub == Alu.SLETU:
        return np.int64((a & MASK) <= (b & MASK))
    if sub == Alu.ROR:
        return (a & MASK) >> (b & 31) | a << (-b & 31)
    if sub == Alu.CLIPR:
        return -b - 1 if a <= -b - 1 else min(a, b)
    if sub == Alu.CLIPUR:
        return np.int64(0) if a <= 0 else min(a, b)
    if sub == Alu.EXTHS:
        return np.int64(np.int16(a))
    if sub == Alu.EXTHZ:
        return a & 0xFFFF
    if sub == Alu.EXTBS:
        return np.int64(np.int8(a))
    if sub == Alu.EXTBZ:
        return a & 0xFF
    if sub == Alu.CLB:
        flipped = ~a if a < 0 else a
        return np.int64(leading_zeros(np.uint32(flipped))) - 1 if a != 0 else np.int64(0)
    if sub == Alu.CNT:
        pairs = (a & 0x55555555) + (a >> 1 & 0x55555555)
        fours = (pairs & 0x33333333) + (pairs >> 2 & 0x33333333)
        return ((fours + (fours >> 4) & 0x0F0F0F0F) * 0x01010101 & MASK) >> 24
    if a == 0:
        return np.int64(32)
    if sub == Alu.FF1:
        return 31 - np.int64(leading_zeros(np.uint32(a & -a & MASK)))
    return 31 - np.int64(leading_zeros(np.uint32(a & MASK)))


@heapless
def _field_mask(more, low):
    return (((np.int64(2) << more) - 1) << low) & MASK


@heapless
def wide(sub, a, b, d, first, last):
    """All of K_WIDE: two registers, the accumulator, and the numbers that were written."""
    operation = sub & WIDE_NUMBER
    if operation == Wide.SUM:
        return _shifted_sum(sub, a, b, d, last)
    if operation == Wide.PRODUCT:
        return _shifted_product(sub, a, b, d, last)
    if sub & W_REGISTER:
        first, last = b >> 5 & 31, b & 31
    mask = _field_mask(first, last)
    if operation == Wide.INSERT:
        return (d & ~mask) | ((a << last) & mask)
    if operation == Wide.BCLR:
        return a & ~mask
    if operation == Wide.BSET:
        return a | mask
    if operation == Wide.EXTRACTU:
        return (a & mask) >> last
    gap = 31 - min(first, 31 - last)
    return np.int64(np.int32((a >> last) << gap)) >> gap


@heapless
def _shifted_sum(sub, a, b, d, shift):
    if sub & W_REGISTER:
        a, b, shift = d, a, b & 31
    total = a - b if sub & W_OTHER else a + b
    if sub & W_ROUNDED:
        total += (np.int64(1) << shift) >> 1
    return np.int64(np.int32(total)) >> shift if sub & W_SIGNED else (total & MASK) >> shift


@heapless
def _shifted_product(sub, a, b, d, shift):
    if sub & W_OTHER:
        a, b = a >> 16, b >> 16
    signed = sub & W_SIGNED
    x, y = (np.int64(np.int16(a)), np.int64(np.int16(b))) if signed else (a & 0xFFFF, b & 0xFFFF)
    total = x * y + d
    if sub & W_ROUNDED:
        total += (np.int64(1) << shift) >> 1
    return total >> shift if signed else (total & MASK) >> shift


@heapless
def multiply(sub, a, b):
    if sub == Mul.MUL:
        return a * b
    if sub == Mul.MULH:
        return (a * b) >> 32
    if sub == Mul.MULHSU:
        return (a * (b & MASK)) >> 32
    return np.int64((np.uint64(a & MASK) * np.uint64(b & MASK)) >> np.uint64(32))


@heapless
def divide(sub, a, b):
    if sub == Div.DIV or sub == Div.REM:
        if b == 0:
            return np.int64(-1) if sub == Div.DIV else a
        quotient = abs(a) // abs(b)
        if (a < 0) != (b < 0):
            quotient = -quotient
        return quotient if sub == Div.DIV else a - quotient * b
    a, b = a & MASK, b & MASK
    if b == 0:
        return np.int64(-1) if sub == Div.DIVU else a
    return a // b if sub == Div.DIVU else a % b


@inlined
def _canonical(value):
    return np.int64(as_bits(value)) if value == value else np.int64(CANONICAL_NAN)


@inlined
def fused(sub, a, b, c):
    """fmadd family on patterns; sub: bits of a `Variant`."""
    return _canonical(fused_number(sub, a, b, c))


@inlined
def fused_number(sub, a, b, c):
    """What it gives as a float32, any NaN."""
    x, z = as_float(np.int32(a)), as_float(np.int32(c))
    if sub & NEGATED_PRODUCT:
        x = -x
    if sub & NEGATED_ADDEND:
        z = -z
    return fma(x, as_float(np.int32(b)), z)


@heapless
def quotient_or_root(sub, a, b):
    x = as_float(np.int32(a))
    return _canonical(np.sqrt(x) if sub == FDiv.FSQRT_S else x / as_float(np.int32(b)))


@heapless
def _smaller(a, b):
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
def _larger(a, b):
    x, y = as_float(np.int32(a)), as_float(np.int32(b))
    if x != x:
        return b if y == y else np.int64(CANONICAL_NAN)
    if y != y or x > y:
        return a
    if y > x:
        return b
    return b if a < 0 else a


@heapless
def to_integral(value, mode):
    """A double rounded to a whole number."""
    if mode == RNE:
        return np.rint(value)
    if mode == RTZ:
        return np.trunc(value)
    if mode == RDN:
        return np.floor(value)
    if mode == RUP:
        return np.ceil(value)
    return np.floor(value + 0.5) if value > 0 else np.ceil(value - 0.5)


@heapless
def _to_integer(value, mode, low, high):
    if value != value:
        return high
    wide = to_integral(np.float64(value), mode)
    if wide <= low:
        return low
    if wide >= high:
        return high
    return np.int64(wide)


@heapless
def _classify(bits):
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


@inlined
def fpu(sub, a, b, rounding):
    """Single-cycle operations but the fused ones; patterns in, pattern or integer out."""
    x, y = as_float(np.int32(a)), as_float(np.int32(b))
    if sub == Fpu.FADD_S:
        return _canonical(x + y)
    if sub == Fpu.FSUB_S:
        return _canonical(x - y)
    if sub == Fpu.FMUL_S:
        return _canonical(x * y)
    if sub == Fpu.FMIN_S:
        return _smaller(a, b)
    if sub == Fpu.FMAX_S:
        return _larger(a, b)
    if sub == Fpu.FSGNJ_S:
        return (a & 0x7FFFFFFF) | (b & SIGN)
    if sub == Fpu.FSGNJN_S:
        return (a & 0x7FFFFFFF) | (~b & SIGN)
    if sub == Fpu.FSGNJX_S:
        return a ^ (b & SIGN)
    if sub == Fpu.FEQ_S:
        return np.int64(x == y)
    if sub == Fpu.FLT_S:
        return np.int64(x < y)
    if sub == Fpu.FLE_S:
        return np.int64(x <= y)
    if sub == Fpu.FCVT_S_W:
        return np.int64(as_bits(np.float32(a)))
    if sub == Fpu.FCVT_S_WU:
        return np.int64(as_bits(np.float32(a & MASK)))
    if sub == Fpu.FCVT_W_S:
        return _to_integer(x, rounding, np.int64(-(1 << 31)), np.int64((1 << 31) - 1))
    if sub == Fpu.FCVT_WU_S:
        return _to_integer(x, rounding, np.int64(0), np.int64(MASK))
    if sub == Fpu.FCLASS_S:
        return _classify(a)
    return a  # moves
