"""IEEE-754 single precision on bit patterns, computed exactly in Python integers.

This is the specification that the fast engine is compared with: every function takes and returns
32-bit patterns (`int` in 0..2**32-1), works on exact rationals and rounds once, in one of RISC-V's five
modes (to nearest, ties to even, unless another is given), and raises exceptions in `flags`. Any NaN result
is the canonical 0x7fc00000; subnormals are kept (no flush to zero), tininess is seen after rounding;
minimum, maximum and the saturating conversions follow the RISC-V unprivileged manual, chapter "F".
"""

from __future__ import annotations

from math import isqrt

NAN = 0x7FC00000
INFINITY = 0x7F800000
SIGN = 0x80000000

#: rounding modes: to nearest, ties to even; towards zero; down; up; to nearest, ties away from zero
RNE, RTZ, RDN, RUP, RMM = range(5)
#: exceptions: inexact, underflow, overflow, division by zero, invalid operation
NX, UF, OF, DZ, NV = 1, 2, 4, 8, 16


class Flags:
    """Exceptions raised so far."""

    __slots__ = ("raised",)

    def __init__(self) -> None:
        self.raised = 0


#: where exceptions go that nobody asked for
UNHEARD = Flags()

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


def _up(mode: int, negative: bool, odd: int, rest: int, half: int) -> int:
    """1 if a magnitude of which `rest` was cut off, of 2 * half, is rounded away from zero."""
    if mode == RNE:
        return int(rest > half or (rest == half and odd))
    if mode == RMM:
        return int(rest >= half)
    return int(rest > 0 and mode == (RDN if negative else RUP))


def _cut(magnitude: int, drop: int, mode: int, negative: bool) -> tuple[int, bool]:
    """(magnitude without its `drop` lowest bits, rounded; whether anything was lost)."""
    kept, rest = magnitude >> drop, magnitude & (1 << drop) - 1
    return kept + _up(mode, negative, kept & 1, rest, 1 << drop - 1), rest != 0


def _round(significand: int, exponent: int, zero_sign: int, mode: int, flags: Flags) -> int:
    """Round the exact number significand * 2**exponent; `zero_sign` is the sign of an exact zero."""
    if significand == 0:
        return zero_sign
    negative, exact = significand < 0, abs(significand)
    sign, magnitude, inexact = SIGN if negative else 0, exact, False
    drop = max(exact.bit_length() - 24, _MIN_EXPONENT - exponent)
    if drop > 0:
        magnitude, inexact = _cut(exact, drop, mode, negative)
    else:  # widen to a full significand where the exponent range allows it
        magnitude <<= -drop
    exponent += drop
    if inexact:
        flags.raised |= NX
        if drop > exact.bit_length() - 24 and _is_tiny(exact, exponent - drop, mode, negative):
            flags.raised |= UF
    if magnitude >> 24:
        magnitude >>= 1
        exponent += 1
    if magnitude < 0x800000:
        return sign | magnitude  # subnormal: exponent is -149 here
    biased = exponent + 150
    if biased < 255:
        return sign | biased << 23 | magnitude & 0x7FFFFF
    flags.raised |= OF | NX
    to_infinity = mode in (RNE, RMM) or mode == (RDN if negative else RUP)
    return sign | (INFINITY if to_infinity else INFINITY - 1)


def _is_tiny(magnitude: int, exponent: int, mode: int, negative: bool) -> bool:
    """Below the smallest normal number also if it were rounded with any exponent."""
    drop = magnitude.bit_length() - 24
    if drop > 0:
        magnitude, _ = _cut(magnitude, drop, mode, negative)
        exponent += drop
    return magnitude.bit_length() + exponent < _MIN_EXPONENT + 24


def _sum_of(pairs: list[tuple[int, int]], signs: tuple[int, int], mode: int, flags: Flags) -> int:
    """The rounded sum; a zero is -0 if both terms are negative, or rounding is down and one is."""
    low = min(exponent for _, exponent in pairs)
    zero_sign = (signs[0] | signs[1] if mode == RDN else signs[0] & signs[1]) & SIGN
    return _round(sum(s << e - low for s, e in pairs), low, zero_sign, mode, flags)


def is_signaling(a: int) -> bool:
    return is_nan(a) and not a & 0x400000


def _nan_of(operands: tuple[int, ...], flags: Flags, invalid: bool = False) -> int:
    """The canonical NaN; an invalid operation if that is said, or an operand is a signaling NaN."""
    if invalid or any(is_signaling(a) for a in operands):
        flags.raised |= NV
    return NAN


def add(a: int, b: int, mode: int = RNE, flags: Flags = UNHEARD) -> int:
    if is_nan(a) or is_nan(b):
        return _nan_of((a, b), flags)
    if is_infinite(a) or is_infinite(b):
        if is_infinite(a) and is_infinite(b) and a != b:
            return _nan_of((), flags, invalid=True)
        return a if is_infinite(a) else b
    return _sum_of([_split(a), _split(b)], (a, b), mode, flags)


def sub(a: int, b: int, mode: int = RNE, flags: Flags = UNHEARD) -> int:
    return _nan_of((a, b), flags) if is_nan(b) else add(a, b ^ SIGN, mode, flags)


def mul(a: int, b: int, mode: int = RNE, flags: Flags = UNHEARD) -> int:
    sign = (a ^ b) & SIGN
    if is_nan(a) or is_nan(b):
        return _nan_of((a, b), flags)
    if is_infinite(a) or is_infinite(b):
        if is_zero(a) or is_zero(b):
            return _nan_of((), flags, invalid=True)
        return sign | INFINITY
    (sa, ea), (sb, eb) = _split(a), _split(b)
    return _round(sa * sb, ea + eb, sign, mode, flags)


def fma(a: int, b: int, c: int, mode: int = RNE, flags: Flags = UNHEARD) -> int:
    """a * b + c with one rounding; infinity times zero is invalid also if c is a NaN."""
    impossible = (is_infinite(a) and is_zero(b)) or (is_zero(a) and is_infinite(b))
    if is_nan(a) or is_nan(b) or is_nan(c) or impossible:
        return _nan_of((a, b, c), flags, impossible)
    sign = (a ^ b) & SIGN
    if is_infinite(a) or is_infinite(b):
        if is_infinite(c) and c & SIGN != sign:
            return _nan_of((), flags, invalid=True)
        return sign | INFINITY
    if is_infinite(c):
        return c
    (sa, ea), (sb, eb) = _split(a), _split(b)
    return _sum_of([(sa * sb, ea + eb), _split(c)], (sign, c), mode, flags)


def div(a: int, b: int, mode: int = RNE, flags: Flags = UNHEARD) -> int:
    sign = (a ^ b) & SIGN
    if is_nan(a) or is_nan(b):
        return _nan_of((a, b), flags)
    if is_infinite(a) or is_zero(b):
        if is_infinite(b) or is_zero(a):
            return _nan_of((), flags, invalid=True)
        flags.raised |= 0 if is_infinite(a) else DZ
        return sign | INFINITY
    if is_infinite(b) or is_zero(a):
        return sign
    (sa, ea), (sb, eb) = _split(a), _split(b)
    quotient, rest = divmod(abs(sa) << 64, abs(sb))
    quotient = quotient << 1 | (rest != 0)  # the sticky bit decides ties
    return _round(-quotient if sign else quotient, ea - eb - 65, sign, mode, flags)


def sqrt(a: int, mode: int = RNE, flags: Flags = UNHEARD) -> int:
    if is_nan(a) or (a & SIGN and not is_zero(a)):
        return _nan_of((a,), flags, not is_nan(a))
    if is_zero(a) or is_infinite(a):
        return a
    significand, exponent = _split(a)
    shift = 64 + (exponent & 1)
    scaled = significand << shift
    root = isqrt(scaled)
    return _round(root << 1 | (root * root != scaled), (exponent - shift) // 2 - 1, 0, mode, flags)


def _order(a: int) -> int:
    """A key that sorts numbers; -0 directly below +0."""
    return -(a & 0x7FFFFFFF) - 1 if a & SIGN else a


def minimum(a: int, b: int, flags: Flags = UNHEARD) -> int:
    if is_nan(a) or is_nan(b):
        _nan_of((a, b), flags)
        return NAN if is_nan(a) and is_nan(b) else b if is_nan(a) else a
    return a if _order(a) <= _order(b) else b


def maximum(a: int, b: int, flags: Flags = UNHEARD) -> int:
    if is_nan(a) or is_nan(b):
        _nan_of((a, b), flags)
        return NAN if is_nan(a) and is_nan(b) else b if is_nan(a) else a
    return a if _order(a) >= _order(b) else b


def equal(a: int, b: int, flags: Flags = UNHEARD) -> int:
    if is_nan(a) or is_nan(b):
        _nan_of((a, b), flags)
        return 0
    return int(a == b or (is_zero(a) and is_zero(b)))


def less(a: int, b: int, flags: Flags = UNHEARD) -> int:
    if is_nan(a) or is_nan(b):
        _nan_of((), flags, invalid=True)
        return 0
    return int(not equal(a, b) and _order(a) < _order(b))


def less_equal(a: int, b: int, flags: Flags = UNHEARD) -> int:
    return less(a, b, flags) | equal(a, b)


def from_integer(value: int, mode: int = RNE, flags: Flags = UNHEARD) -> int:
    return _round(value, 0, 0, mode, flags)


def from_fraction(numerator: int, denominator: int) -> int:
    """The number nearest to a fraction that is not negative."""
    shift = max(160 - numerator.bit_length() + denominator.bit_length(), 0)
    quotient, rest = divmod(numerator << shift, denominator)
    return _round(quotient << 1 | (rest != 0), -shift - 1, 0, RNE, UNHEARD)


def to_integer(a: int, mode: int, low: int, high: int, flags: Flags = UNHEARD) -> int:
    """Saturating conversion to low..high, invalid outside; NaN and +infinity give `high`."""
    if is_nan(a) or is_infinite(a):
        flags.raised |= NV
        return low if is_infinite(a) and a & SIGN else high
    significand, exponent = _split(a)
    value, inexact = abs(significand), False
    if exponent >= 0:
        value <<= exponent
    else:
        value, inexact = _cut(value, -exponent, mode, significand < 0)
    value = -value if significand < 0 else value
    if low <= value <= high:
        flags.raised |= NX if inexact else 0
        return value
    flags.raised |= NV
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
