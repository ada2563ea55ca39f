"""Protects the exact single-precision arithmetic that every engine is compared with."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pulpsim import float32 as fp
from pulpsim import isa

ONE, TWO, HALF = 0x3F800000, 0x40000000, 0x3F000000
MAX, MIN_NORMAL, MIN_SUBNORMAL = 0x7F7FFFFF, 0x00800000, 0x00000001
MINUS = fp.SIGN
QUIET, SIGNALLING = 0x7FC12345, 0x7F800001
# fmt: off
POSITIVE = [
    0, MIN_SUBNORMAL, 2, 0x007FFFFF, MIN_NORMAL, 0x00800001, 0x00FFFFFF, 0x01000000, HALF, 0x3F7FFFFF,
    ONE, 0x3F800001, 0x3FC00000, TWO, 0x4AFFFFFF, 0x4B000001, 0x4EFFFFFF, 0x4F000000, 0x4F7FFFFF,
    0x4F800000, MAX, 0x7F7FFFFE, fp.INFINITY, fp.NAN, QUIET, SIGNALLING,
]
# fmt: on
SPECIAL = POSITIVE + [a | MINUS for a in POSITIVE]

any_pattern = st.integers(0, 0xFFFFFFFF) | st.sampled_from(SPECIAL)
#: operands of like magnitude, where sums cancel and round
close_pattern = st.builds(
    lambda sign, exponent, fraction: sign << 31 | exponent << 23 | fraction,
    st.integers(0, 1),
    st.integers(120, 134),
    st.integers(0, 0x7FFFFF),
)
pattern = any_pattern | close_pattern


def array(a: int) -> np.ndarray:
    return np.array([a], np.uint32).view(np.float32)


def bits(value: np.ndarray) -> int:
    """Pattern of a float32 array of one element, NaN in canonical form."""
    assert value.dtype == np.float32
    return fp.NAN if np.isnan(value[0]) else int(value.view(np.uint32)[0])


def number(a: int) -> float:
    return float(array(a)[0])


ARITHMETIC: list[tuple[Callable[[int, int], int], np.ufunc]] = [
    (fp.add, np.add),
    (fp.sub, np.subtract),
    (fp.mul, np.multiply),
    (fp.div, np.divide),
]
COMPARISONS: list[tuple[Callable[[int, int], int], np.ufunc]] = [
    (fp.equal, np.equal),
    (fp.less, np.less),
    (fp.less_equal, np.less_equal),
]


def check_pair(a: int, b: int) -> None:
    with np.errstate(all="ignore"):
        for ours, theirs in ARITHMETIC:
            assert ours(a, b) == bits(theirs(array(a), array(b))), (ours.__name__, hex(a), hex(b))
        for ours, theirs in COMPARISONS:
            assert ours(a, b) == int(theirs(array(a), array(b))[0]), (ours.__name__, hex(a), hex(b))


# -- against numpy -----------------------------------------------------------------------------
@given(pattern, pattern)
def test_arithmetic_and_comparisons_equal_numpy_bit_for_bit(a: int, b: int) -> None:
    check_pair(a, b)


def test_arithmetic_and_comparisons_equal_numpy_on_all_pairs_of_special_values() -> None:
    for a in SPECIAL:
        for b in SPECIAL:
            check_pair(a, b)


def test_arithmetic_equals_numpy_on_many_random_patterns() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 1 << 32, (2, 20_000), np.uint32)
    with np.errstate(all="ignore"):
        for ours, theirs in ARITHMETIC:
            result = theirs(a.view(np.float32), b.view(np.float32))
            expected = np.where(np.isnan(result), np.uint32(fp.NAN), result.view(np.uint32))
            assert [ours(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)] == expected.tolist()


@given(pattern)
def test_square_root_equals_numpy_bit_for_bit(a: int) -> None:
    with np.errstate(all="ignore"):
        assert fp.sqrt(a) == bits(np.sqrt(array(a)))


def test_square_root_equals_numpy_on_special_values() -> None:
    with np.errstate(all="ignore"):
        for a in SPECIAL:
            assert fp.sqrt(a) == bits(np.sqrt(array(a))), hex(a)


@given(st.integers(-(1 << 31), (1 << 32) - 1))
@example(16777217)
@example(16777219)
@example(-(1 << 31))
@example((1 << 32) - 1)
def test_conversion_from_integer_equals_numpy(value: int) -> None:
    assert fp.from_integer(value) == bits(np.array([value], np.int64).astype(np.float32))


def test_any_nan_result_is_the_canonical_one() -> None:
    for nan in (QUIET, SIGNALLING, QUIET | MINUS, SIGNALLING | MINUS):
        for function in (fp.add, fp.sub, fp.mul, fp.div):
            assert function(nan, ONE) == function(ONE, nan) == fp.NAN
        assert fp.fma(nan, ONE, ONE) == fp.fma(ONE, nan, ONE) == fp.fma(ONE, ONE, nan) == fp.NAN
        assert fp.sqrt(nan) == fp.minimum(nan, nan) == fp.maximum(nan, nan) == fp.NAN
    assert fp.sqrt(ONE | MINUS) == fp.mul(0, fp.INFINITY) == fp.div(0, MINUS) == fp.NAN


# -- fused multiply-add against exact rationals ------------------------------------------------
def exact(a: int) -> Fraction:
    """A finite pattern as a rational; +infinity as 2**128, where rounding puts it."""
    return Fraction(2) ** 128 if a == fp.INFINITY else Fraction(number(a))


def nearest_pattern(value: Fraction) -> int:
    """The pattern nearest to a rational that is not 0: search, then compare both neighbours."""
    magnitude = abs(value)
    low, high = 0, fp.INFINITY
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if exact(middle) <= magnitude else (low, middle)
    below, above = magnitude - exact(low), exact(high) - magnitude
    even = low if low % 2 == 0 else high
    return (low if below < above else high if above < below else even) | (MINUS if value < 0 else 0)


def expected_fma(a: int, b: int, c: int) -> int:
    if not all(map(np.isfinite, (number(a), number(b), number(c)))):
        with np.errstate(all="ignore"):  # the product of finite operands must not overflow here
            product = np.multiply(array(a), array(b), dtype=np.float64)
            return bits((product + array(c)).astype(np.float32))
    value = exact(a) * exact(b) + exact(c)
    if value:
        return nearest_pattern(value)
    return MINUS if (a ^ b) & c & MINUS else 0  # -0 only as the sum of two negative zeros


@given(pattern, pattern, pattern)
def test_fma_rounds_the_exact_result_once(a: int, b: int, c: int) -> None:
    assert fp.fma(a, b, c) == expected_fma(a, b, c)


@given(close_pattern, close_pattern, st.integers(-3, 3), st.integers(0, 1))
def test_fma_is_exact_where_product_and_addend_nearly_cancel(a: int, b: int, step: int, sign: int) -> None:
    c = fp.mul(a, b) + step ^ sign << 31
    assert fp.fma(a, b, c) == expected_fma(a, b, c)


def test_fma_is_exact_on_special_values() -> None:
    draw = random.Random(1)
    for _ in range(3000):
        a, b, c = draw.choices(SPECIAL, k=3)
        assert fp.fma(a, b, c) == expected_fma(a, b, c), (hex(a), hex(b), hex(c))


def from_float(value: float) -> int:
    assert float(np.float32(value)) == value
    return bits(np.array([value], np.float32))


@pytest.mark.parametrize(
    ("a", "b", "c", "result"),
    [
        # the product is half way between two neighbours, the addend decides and is below float64's reach
        (1 + 2**-12, 1 + 2**-12, 2**-60, 1 + 2**-11 + 2**-23),
        (-1 - 2**-12, 1 + 2**-12, -(2**-60), -1 - 2**-11 - 2**-23),
        (3.0, 5592409 * 2**-24, -(2**-60), 8388613 * 2**-23),
    ],
)
def test_fma_does_not_round_twice(a: float, b: float, c: float, result: float) -> None:
    twice = np.float32(a * b + c)  # a * b is exact in float64, so this is float64's fma, then float32
    assert float(twice) != result
    assert fp.fma(from_float(a), from_float(b), from_float(c)) == from_float(result)


def test_fma_keeps_what_a_separate_product_loses() -> None:
    # overflow and underflow of the product alone
    assert fp.fma(MAX, TWO, MAX | MINUS) == MAX
    assert fp.fma(MIN_SUBNORMAL, HALF, MIN_SUBNORMAL) == 2
    assert fp.fma(MIN_SUBNORMAL, HALF, 0) == 0  # half of the smallest: a tie, to even
    assert fp.fma(MIN_SUBNORMAL, MIN_SUBNORMAL, MINUS) == 0
    assert fp.fma(MIN_SUBNORMAL | MINUS, MIN_SUBNORMAL, 0) == MINUS
    assert fp.fma(fp.INFINITY, ONE, fp.INFINITY | MINUS) == fp.NAN


def test_zero_results_have_the_sign_of_the_standard() -> None:
    assert fp.add(ONE, ONE | MINUS) == fp.fma(ONE, ONE, ONE | MINUS) == 0
    assert fp.add(MINUS, MINUS) == fp.fma(MINUS, ONE, MINUS) == MINUS
    assert fp.add(MINUS, 0) == fp.fma(MINUS, ONE, 0) == fp.sub(0, 0) == 0
    assert fp.sqrt(MINUS) == fp.mul(MINUS, ONE) == fp.div(MINUS, ONE) == MINUS


@given(pattern, pattern, pattern)
def test_the_fma_family_differs_in_signs_only(a: int, b: int, c: int) -> None:
    def run(mnemonic: str) -> int:
        semantics = isa.BY_KEY[mnemonic].semantics
        assert semantics
        return semantics(a, b, c)

    assert run("fmadd.s") == fp.fma(a, b, c)
    assert run("fmsub.s") == expected_fma(a, b, c ^ MINUS)
    assert run("fnmsub.s") == expected_fma(a ^ MINUS, b, c)
    assert run("fnmadd.s") == expected_fma(a ^ MINUS, b, c ^ MINUS)


# -- RISC-V's own rules ------------------------------------------------------------------------
@given(pattern, pattern)
def test_minimum_and_maximum_follow_the_numbers(a: int, b: int) -> None:
    small, large = fp.minimum(a, b), fp.maximum(a, b)
    if fp.is_nan(a) or fp.is_nan(b):
        other = fp.NAN if fp.is_nan(a) and fp.is_nan(b) else b if fp.is_nan(a) else a
        assert small == large == other
    else:
        assert {small, large} == {a, b} and number(small) <= number(large)


def test_minimum_and_maximum_order_the_zeros() -> None:
    assert fp.minimum(0, MINUS) == fp.minimum(MINUS, 0) == MINUS
    assert fp.maximum(0, MINUS) == fp.maximum(MINUS, 0) == 0


@pytest.mark.parametrize(
    ("a", "bit"),
    [
        (fp.INFINITY | MINUS, 0),
        (ONE | MINUS, 1),
        (0x007FFFFF | MINUS, 2),
        (MINUS, 3),
        (0, 4),
        (MIN_SUBNORMAL, 5),
        (MIN_NORMAL, 6),
        (fp.INFINITY, 7),
        (SIGNALLING, 8),
        (SIGNALLING | MINUS, 8),
        (QUIET, 9),
        (fp.NAN | MINUS, 9),
    ],
)
def test_fclass_sets_the_bit_of_the_manual(a: int, bit: int) -> None:
    assert fp.classify(a) == 1 << bit


def convert(mnemonic: str, a: int, mode: str) -> int:
    semantics = isa.BY_KEY[mnemonic].semantics
    assert semantics
    return semantics(a, isa.ROUNDING_MODES.index(mode))


@given(pattern, st.sampled_from(["rne", "rtz"]))
def test_conversion_to_integer_rounds_and_saturates(a: int, mode: str) -> None:
    if fp.is_nan(a):
        signed, unsigned = (1 << 31) - 1, isa.MASK
    else:
        value = number(a)
        if np.isinf(value):
            whole = 1 << 40 if value > 0 else -(1 << 40)
        else:
            whole = round(value) if mode == "rne" else int(value)  # round() takes ties to even
        signed = min(max(whole, -(1 << 31)), (1 << 31) - 1)
        unsigned = min(max(whole, 0), isa.MASK)
    assert convert("fcvt.w.s", a, mode) == signed & isa.MASK
    assert convert("fcvt.wu.s", a, mode) == unsigned


@pytest.mark.parametrize(
    ("a", "mode", "signed", "unsigned"),
    [
        (0.5, "rne", 0, 0),
        (1.5, "rne", 2, 2),
        (2.5, "rne", 2, 2),
        (-1.5, "rne", -2, 0),
        (-1.5, "rtz", -1, 0),
        (-0.75, "rtz", 0, 0),
        (2147483648.0, "rne", 2147483647, 2147483648),
        (-2147483648.0, "rne", -2147483648, 0),
        (4294967296.0, "rtz", 2147483647, 4294967295),
        (float("inf"), "rtz", 2147483647, 4294967295),
        (float("-inf"), "rtz", -2147483648, 0),
        (float("nan"), "rne", 2147483647, 4294967295),
    ],
)
def test_conversion_to_integer_meets_the_table_of_the_manual(
    a: float, mode: str, signed: int, unsigned: int
) -> None:
    source = bits(np.array([a], np.float32))
    assert isa.signed(convert("fcvt.w.s", source, mode)) == signed
    assert convert("fcvt.wu.s", source, mode) == unsigned
