"""Random FP32 data with every kind of value in it, and comparison bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: rounding error of an FP32 operation: relative, and absolute where the result is subnormal
UNIT, TINY = 2.0**-24, 2.0**-149
CANONICAL_NAN = 0x7FC00000

#: kinds of data whose sums and products stay finite; and one whose do not
FINITE = ("plain", "zeros", "wide", "subnormal")
ALL_KINDS = (*FINITE, "overflowing")


def values(rng: np.random.Generator, shape: int | tuple[int, ...], kind: str = "plain") -> Floats:
    """Random numbers of one kind; every kind but "plain" has zeros of both signs among them.

    One more kind, "wild", has NaNs of any sign and payload, infinities and subnormals.
    """
    plain = rng.standard_normal(shape)
    if kind == "plain":
        return plain.astype(np.float32)
    if kind == "wild":
        return _wild(rng, plain.astype(np.float32))
    low, high = {"zeros": (0, 0), "wide": (-17, 17), "subnormal": (-45, -20), "overflowing": (-5, 38)}[kind]
    scaled = np.clip(plain * 10.0 ** rng.uniform(low, high, shape), -3e38, 3e38)
    zeros = rng.random(shape) < (0.5 if kind == "zeros" else 0.1)
    return np.where(zeros, np.copysign(0.0, plain), scaled).astype(np.float32)


def _wild(rng: np.random.Generator, plain: Floats) -> Floats:
    bits, signs = plain.view(np.uint32), rng.integers(0, 2, plain.shape, np.uint32) << 31
    nans = 0x7F800000 | rng.integers(1, 1 << 23, plain.shape, np.uint32) | signs
    others = [signs, signs | 0x7F800000, signs | rng.integers(1, 1 << 23, plain.shape, np.uint32)]
    chosen = np.choose(rng.integers(0, 3, plain.shape), others)
    which, share = rng.random(plain.shape), rng.choice([0.01, 0.1, 0.4])
    return np.where(which < share, nans, np.where(which > 0.8, chosen, bits)).astype(np.uint32).view(np.float32)


def patterns(array: NDArray[Any]) -> NDArray[np.uint32]:
    """The bits of FP32 numbers; every NaN is the cores' one (a host's have any sign and payload)."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).copy()
    bits[np.isnan(array)] = CANONICAL_NAN
    return bits


def assert_same_bits(found: NDArray[Any], expected: NDArray[Any], what: str = "values") -> None:
    one, other = patterns(np.atleast_1d(found)), patterns(np.atleast_1d(expected))
    assert one.shape == other.shape
    wrong = np.argwhere(one != other)
    assert not len(wrong), (
        f"{what}: {len(wrong)} of {one.size} differ, the first at {wrong[0].tolist()}: "
        f"{one[tuple(wrong[0])]:#010x}, expected {other[tuple(wrong[0])]:#010x}"
    )


def assert_within(found: NDArray[Any], exact: NDArray[Any], bound: NDArray[Any] | float, what: str = "values") -> None:
    """|found - exact| <= bound, element by element, in float64."""
    error = np.abs(found.astype(np.float64) - exact)
    assert (error <= bound).all(), f"{what}: off by {np.max(error - bound):.3g} more than rounding explains"


def ulps(exact: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance of the FP32 numbers around each number."""
    return np.maximum(np.ldexp(1.0, np.frexp(exact)[1] - 24), TINY)


#: sizes that leave something over for most unrolls and core counts
sizes = st.one_of(st.integers(1, 40), st.sampled_from([1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33]))
seeds = st.integers(0, 2**32 - 1)
core_counts = st.integers(1, 8)
learning_rates = st.sampled_from([0.03, 1e-6, 0.1, 1.0, 7.5])
