"""IEEE-754 single precision on bit patterns, computed exactly in Python integers.

This is the specification that the fast engine is compared with: every function takes and returns
32-bit patterns (`int` in 0..2**32-1), works on exact rationals and rounds once, to nearest, ties to
even. Any NaN result is the canonical 0x7fc00000; subnormals are kept (no flush to zero); minimum,
maximum and the saturating conversions follow the RISC-V unprivileged manual, chapter "F".
"""

from __future__ import annotations

from math import isqrt

NAN = 0x7FC00000
INFINITY = 0x7F800000
SIGN = 0x80000000

# A finite value is the exact number  significand * 2**exponent  (significand signed).
_MIN_EXPONENT = -149  # of the smallest subnormal


def is_nan(a: int) -> bool:
    return a & 0x7FFFFFFF > INFINITY


def is_infinite(a: int) -> bool:
    return a & 0x7FFFFFFF == INFINITY


def is_zero(a: int) -> bool:
    return a & 0x7FFFFFFF == 0


def _split(a: int) -> tuple[int, int]:
    """Finite pattern -> (signed significand, exponent)."""
    biased, fraction = a >> 23 & 0xFF, a & 0x7FFFFF
    significand = fraction | 0x800000 if biased else fraction
    return (-significand if a & SIGN else significand), max(biased, 1) - 150


def _round(significand: int, exponent: int, zero_sign: int = 0) -> int:
    """Round the exact number significand * 2**exponent; `zero_sign` is the sign of an exact zero."""
    if significand == 0:
        return zero_sign
    sign, magnitude = (SIGN, -significand) if significand < 0 else (0, significand)
    drop = max(magnitude.bit_length() - 24, _MIN_EXPONENT - exponent)
    if drop > 0:
        kept, rest, half = magnitude >> drop, magnitude & (1 << drop) - 1, 1 << drop - 1
        magnitude = kept + (rest > half or (rest == half and kept & 1))
        exponent += drop
    else:  # widen to a full significand where the exponent range allows it
        magnitude <<= -drop
        exponent += drop
    if magnitude >> 24:
        magnitude >>= 1
        exponent += 1
    if magnitude < 0x800000:
        return sign | magnitude  # subnormal: exponent is -149 here
    biased = exponent + 150
    return sign | INFINITY if biased >= 255 else sign | biased << 23 | magnitude & 0x7FFFFF


def _sum_of(pairs: list[tuple[int, int]], zero_sign: int) -> int:
    low = min(exponent for _, exponent in pairs)
    return _round(sum(s << e - low for s, e in pairs), low, zero_sign)


def add(a: int, b: int) -> int:
    if is_nan(a) or is_nan(b) or (is_infinite(a) and is_infinite(b) and a != b):
        return NAN
    if is_infinite(a) or is_infinite(b):
        return a if is_infinite(a) else b
    return _sum_of([_split(a), _split(b)], a & b & SIGN)


def sub(a: int, b: int) -> int:
    return NAN if is_nan(b) else add(a, b ^ SIGN)


def mul(a: int, b: int) -> int:
    sign = (a ^ b) & SIGN
    if is_nan(a) or is_nan(b):
        return NAN
    if is_infinite(a) or is_infinite(b):
        return NAN if is_zero(a) or is_zero(b) else sign | INFINITY
    (sa, ea), (sb, eb) = _split(a), _split(b)
    return _round(sa * sb, ea + eb, sign)


def fma(a: int, b: int, c: int) -> int:
    """a * b + c with one rounding."""
    if is_nan(a) or is_nan(b) or is_nan(c):
        return NAN
    sign = (a ^ b) & SIGN
    if is_infinite(a) or is_infinite(b):
        if is_zero(a) or is_zero(b) or (is_infinite(c) and c & SIGN != sign):
            return NAN
        return sign | INFINITY
    if is_infinite(c):
        return c
    (sa, ea), (sb, eb) = _split(a), _split(b)
    return _sum_of([(sa * sb, ea + eb), _split(c)], sign & c)


def negate(a: int) -> int:
    return a ^ SIGN


def div(a: int, b: int) -> int:
    sign = (a ^ b) & SIGN
    if is_nan(a) or is_nan(b):
        return NAN
    if is_infinite(a) or is_zero(b):
        return NAN if is_infinite(b) or is_zero(a) else sign | INFINITY
    if is_infinite(b) or is_zero(a):
        return sign
    (sa, ea), (sb, eb) = _split(a), _split(b)
    quotient, rest = divmod(abs(sa) << 64, abs(sb))
    quotient = quotient << 1 | (rest != 0)  # the sticky bit decides ties
    return _round(-quotient if sign else quotient, ea - eb - 65)


def sqrt(a: int) -> int:
    if is_nan(a) or (a & SIGN and not is_zero(a)):
        return NAN
    if is_zero(a) or is_infinite(a):
        return a
    significand, exponent = _split(a)
    shift = 64 + (exponent & 1)
    scaled = significand << shift
    root = isqrt(scaled)
    return _round(root << 1 | (root * root != scaled), (exponent - shift) // 2 - 1)


def _order(a: int) -> int:
    """A key that sorts numbers; -0 directly below +0."""
    return -(a & 0x7FFFFFFF) - 1 if a & SIGN else a


def minimum(a: int, b: int) -> int:
    if is_nan(a) or is_nan(b):
        return NAN if is_nan(a) and is_nan(b) else b if is_nan(a) else a
    return a if _order(a) <= _order(b) else b


def maximum(a: int, b: int) -> int:
    if is_nan(a) or is_nan(b):
        return NAN if is_nan(a) and is_nan(b) else b if is_nan(a) else a
    return a if _order(a) >= _order(b) else b


def equal(a: int, b: int) -> int:
    return int(not is_nan(a) and not is_nan(b) and (a == b or (is_zero(a) and is_zero(b))))


def less(a: int, b: int) -> int:
    return int(not is_nan(a) and not is_nan(b) and not equal(a, b) and _order(a) < _order(b))


def less_equal(a: int, b: int) -> int:
    return less(a, b) | equal(a, b)


def from_integer(value: int) -> int:
    return _round(value, 0)


def to_integer(a: int, toward_zero: int, low: int, high: int) -> int:
    """Saturating conversion to low..high; NaN and +infinity give `high`."""
    if is_nan(a):
        return high
    if is_infinite(a):
        return low if a & SIGN else high
    significand, exponent = _split(a)
    if exponent >= 0:
        value = significand << exponent
    else:
        magnitude = abs(significand)
        value, rest = magnitude >> -exponent, magnitude & (1 << -exponent) - 1
        half = 1 << -exponent - 1
        if not toward_zero and (rest > half or (rest == half and value & 1)):
            value += 1
        value = -value if significand < 0 else value
    return min(max(value, low), high)


def classify(a: int) -> int:
    """The one-hot mask of RISC-V's fclass.s."""
    negative = bool(a & SIGN)
    if is_nan(a):
        return 1 << 9 if a & 0x400000 else 1 << 8
    if is_infinite(a):
        kind = 0
    elif is_zero(a):
        kind = 3
    else:
        kind = 1 if a >> 23 & 0xFF else 2
    return 1 << (kind if negative else 7 - kind)
