"""Twin of `kernels.functions`: exp, log, erf, quotients and a square root, and the constants that both compute with.

All are free of branches on the cores, where time must not depend on data; what is chosen between here has
the same value there. Polynomials are minimax fits whose coefficients were rounded one after the other, the
later ones making up for the earlier; those of high degree have 12 significant bits, one instruction to load.
The errors of exp, log and erf were measured on every FP32 number.
"""

from __future__ import annotations

import numpy as np

from pulpsim.jit import as_bits, as_float, canonical, compiled, fma


def _constants(*patterns: int) -> tuple[np.float32, ...]:
    return tuple(np.array(patterns, np.uint32).view(np.float32))


ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)

#: exp(x) = 2**n exp(r), r = x - n ln 2; log2(e) only picks n, so that 12 bits of it are enough
EXP_LOWEST = np.float32(-104)  # exp of this and less rounds to 0
LOG2_E, MINUS_LN2_HIGH, MINUS_LN2_LOW = _constants(0x3FB8B000, 0xBF317000, 0xB805FDF4)
#: exp(r) = 1 + r (1 + r (1/2 + r (c3 + r (c4 + r (c5 + r c6))))) to 2**-27.7 for |r| < 0.349; c6 first
EXP_COEFFICIENTS = (*_constants(0x3AB5B000, 0x3C092000, 0x3D2AAB58, 0x3E2AAA47), HALF, ONE)
#: adding it to a number below 2**21 rounds that to an integer, which is then in the low bits of the sum
ROUNDER = np.float32(1.5 * 2**23)

#: log(x) = k ln 2 + log(1 + f) with 1 + f between 2/3 (of which 12 bits) and 4/3
LOG_SPLIT, LN2 = _constants(0x3F2AB000, 0x3F317218)
SMALLEST_NORMAL = np.float32(2.0**-126)
#: log(1 + f) = f + f**2 (-1/2 + f (c3 + ... + f c10)) to 2**-27.2; c10 first
LOG_COEFFICIENTS = (
    *_constants(0xBE041000, 0x3E0F4000, 0xBDF98000, 0x3E0F7000, 0xBE2AD000, 0x3E4CE735, 0xBE7FFF67, 0x3EAAAA87),
    -HALF,
)

#: log(erfc(x)) = x (c1 + x (c2 + ... + x c8)) for x in [0, 3.95], so that erfc is off by 3.1e-8; above it falls on. Own
#: fit, as those above, but that errors were weighted by erfc; c8 first
ERF_COEFFICIENTS = _constants(
    0xB803E000, 0x39A1F000, 0xBA876000, 0xBA0C7A04, 0x3CA06BE0, 0xBDD2C71E, 0xBF22F815, 0xBF906EC4
)

#: 1/d to 1/98 for d in [1, 2]: (32 d**2 - 144 d + 210) / 99, which is 1/d at the nodes of Chebyshev's T3
RECIPROCAL_COEFFICIENTS = _constants(0x3EA58000, 0xBFBA3000, 0x4007C000)

#: 1/d to 1/628: r (STEP - d r), where the pattern of r is that of START minus that of d
INVERSE_START, INVERSE_STEP = _constants(0x7EF33000, 0x40001000)
#: 1/(2 sqrt(x)) to 1/1187: r (STEP - x r**2), where the pattern of r is that of START minus half of that of x
ROOT_START, ROOT_STEP = _constants(0x5EDFB000, 0x3F987000)

#: powers of two beyond are infinite anyway
_HIGHEST_POWER = np.int32(254)


@compiled
def reduced_exp(x):
    """(q, r, n): exp(x) = 2**n (1 + q r), |r| < 0.349; x is taken to be at least EXP_LOWEST, n is at most 254."""
    if x < EXP_LOWEST:
        x = EXP_LOWEST
    shifted = fma(x, LOG2_E, ROUNDER)
    n = as_bits(shifted) - as_bits(ROUNDER)
    if not n < _HIGHEST_POWER:
        n = _HIGHEST_POWER
    power = np.float32(n)
    r = fma(power, MINUS_LN2_LOW, fma(power, MINUS_LN2_HIGH, x))
    q = EXP_COEFFICIENTS[0]
    for c in EXP_COEFFICIENTS[1:]:
        q = fma(q, r, c)
    return q, r, n


@compiled
def power_of_two(n):
    """2**n for n of -126 to 127; infinity for 128."""
    return as_float(np.int32((n + 127) << 23))


@compiled
def exp(x):
    """e**x of a float32, within 0.91 ulp; 1 at zeros, 0 below -103.97, infinity above 88.72."""
    q, r, n = reduced_exp(x)
    half = (n + 254 >> 1) - 127
    scaled = fma(q, r, ONE) * power_of_two(half)
    return canonical(np.float32(scaled * power_of_two(n - half)))


@compiled
def log(x):
    """The natural logarithm of a float32, within 0.94 ulp; -infinity at zeros, NaN below."""
    if not x >= ZERO:
        return np.float32(np.nan)
    if x == ZERO or x == np.float32(np.inf):
        return np.float32(np.inf) if x > ZERO else np.float32(-np.inf)
    down = np.int32(0)
    if x < SMALLEST_NORMAL:
        x = np.float32(x * np.float32(2.0**32))
        down = np.int32(32)
    k = np.int32(as_bits(x) - as_bits(LOG_SPLIT)) >> 23
    f = np.float32(as_float(np.int32(as_bits(x) - (k << 23))) - ONE)
    q = LOG_COEFFICIENTS[0]
    for c in LOG_COEFFICIENTS[1:]:
        q = fma(q, f, c)
    return fma(np.float32(k - down), LN2, fma(np.float32(q * f), f, f))


@compiled
def erf(x):
    """The error function of a float32, within 1.0e-7: 1 - erfc(|x|) and the sign of x, which a NaN keeps too."""
    magnitude = abs(x)
    q = ERF_COEFFICIENTS[0]
    for c in ERF_COEFFICIENTS[1:]:
        q = fma(q, magnitude, c)
    return np.copysign(np.float32(ONE - exp(np.float32(q * magnitude))), x)


@compiled
def quotient(a, d):
    """a / d of float32, d in [1, 2], within 1 ulp: one Newton step for 1 / d, one for the quotient."""
    first, second, third = RECIPROCAL_COEFFICIENTS
    r = fma(fma(first, d, second), d, third)
    r = fma(r, fma(-d, r, ONE), r)
    y = np.float32(a * r)
    return fma(fma(-d, y, a), r, y)


@compiled
def reciprocal(d):
    """1 / d of float32, d in [1, 2], within 0.69 ulp: two Newton steps."""
    first, second, third = RECIPROCAL_COEFFICIENTS
    r = fma(fma(first, d, second), d, third)
    for _ in range(2):
        r = fma(r, fma(-d, r, ONE), r)
    return r


@compiled
def division(a, d):
    """a / d of float32, |d| of 2**-125 to 2**125, within 0.57 ulp: a Newton step for 1 / d, two for the quotient.

    (Of a normal quotient of an |a| from 2**-100 on; below, what is lost are its last bits.)
    """
    r = as_float(np.int32(as_bits(INVERSE_START) - as_bits(d)))
    r = np.float32(r * fma(-d, r, INVERSE_STEP))
    y = np.float32(a * r)
    for _ in range(2):
        y = fma(fma(-d, y, a), r, y)
    return y


@compiled
def square_root(x):
    """The square root of a float32, within 0.52 ulp: a Newton step for 1 / (2 sqrt(x)), two for the root.

    Below 2**-120 within 0.75 ulp, of a subnormal number within 2**-66, of zeros they themselves. Not meant for
    infinity, of which it is NaN, and for negative numbers.
    """
    r = as_float(np.int32(as_bits(ROOT_START) - (as_bits(x) >> 1 & np.int32(0x7FFFFFFF))))
    y = np.float32(x * r)
    step = fma(-y, r, ROOT_STEP)
    r, y = np.float32(r * step), np.float32(y * step)
    y = np.float32(y + y)
    for _ in range(2):
        y = fma(fma(-y, y, x), r, y)
    return y
