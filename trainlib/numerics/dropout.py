"""Dropout with a mask from a counter: twin of `kernels.dropout`, and what both compute with.

Whether an element is dropped is a hash of its index and a key, so that a mask can be made again where it is needed,
a part of it too, and nothing is kept. The hash is two rounds of xor-shift and multiplication, with the shifts and
factors of Chris Wellons' lowbias32; the last shift is left out, as the order of two hashes hangs on their high bits.
"""

from __future__ import annotations

import numpy as np

from pulpsim.jit import canonical, compiled

SHIFTS = (16, 15)
FACTORS = (0x7FEB352D, 0x846CA68B)
_WORD = 0xFFFFFFFF


def key(*numbers: int) -> int:
    """32 bits that tell a mask from others: of the seed, the step and whatever else there is more than one of.

    Of each number the low 32 bits count.
    """
    mixed = 0
    for number in numbers:
        mixed = (mixed + number + 0x9E3779B9) & _WORD  # no fixed point at 0
        for shift, factor in zip(SHIFTS, FACTORS, strict=True):
            mixed = ((mixed ^ mixed >> shift) * factor) & _WORD
        mixed ^= mixed >> 16
    return mixed


def threshold(rate: float) -> int:
    """Hashes below it are dropped; 0 <= rate < 1."""
    return min(round(rate * 2**32), _WORD)


def scale(rate: float) -> np.float32:
    """What is kept is multiplied by this: 1 / (1 - rate)."""
    return np.float32(1 / (1 - rate))


@compiled
def keeps(index, key, threshold):
    """Whether the element of an index is kept. Words are int64 of 0 to 2**32 - 1."""
    word = np.uint64(0xFFFFFFFF)
    h = (np.uint64(index) ^ np.uint64(key)) & word
    h = ((h ^ (h >> np.uint64(SHIFTS[0]))) * np.uint64(FACTORS[0])) & word
    h = ((h ^ (h >> np.uint64(SHIFTS[1])) ^ np.uint64(key)) * np.uint64(FACTORS[1])) & word
    return h >= np.uint64(threshold)


@compiled
def dropout(x, first, key, threshold, scale):
    """x * scale, or +0 whatever x is where the mask drops it; `first` is the index of the first element."""
    y = np.empty_like(x)
    flat, out = x.reshape(-1), y.reshape(-1)
    for i in range(flat.shape[0]):
        out[i] = canonical(np.float32(flat[i] * scale)) if keeps(first + i, key, threshold) else np.float32(0)
    return y
