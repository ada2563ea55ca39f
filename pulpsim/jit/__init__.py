"""Compilation of hot loops with Numba.

Functions are decorated with `compiled`, `heapless` or `inlined`, and those of the fast engine that Python calls with
`native`: their machine code is loaded without Numba, which takes half a second to import. What is compiled is kept (see
`cache`).
"""

from __future__ import annotations

import numpy as np

from pulpsim.jit.cache import CACHE_VARIABLE, cache_directory, is_compiled
from pulpsim.jit.functions import Function, Intrinsic, compiled, heapless, inlined
from pulpsim.jit.machine_code import native

__all__ = [
    "CACHE_VARIABLE",
    "Function",
    "as_bits",
    "as_float",
    "cache_directory",
    "call_code",
    "canonical",
    "compiled",
    "fma",
    "heapless",
    "inlined",
    "is_compiled",
    "leading_zeros",
    "lowest_bit",
    "native",
    "unlikely",
]

call_code = Intrinsic("call_code")  #: code at an address, as `native` makes it, with words that lie in an array
as_float = Intrinsic("as_float")  #: int32 pattern -> float32
as_bits = Intrinsic("as_bits")  #: float32 -> int32 pattern
fma = Intrinsic("fma")  #: float32 a * b + c, rounded once
leading_zeros = Intrinsic("leading_zeros")  #: of a 32-bit pattern given as uint32; 32 for zero
lowest_bit = Intrinsic("lowest_bit")  #: position of the lowest set bit of a uint64 that is not zero
unlikely = Intrinsic("unlikely")  #: the condition, with a hint to the compiler that it is rarely true


@inlined
def canonical(value):
    """A float32, or 0x7fc00000 for any NaN, as the cores' arithmetic gives it; a host's hands on signs and payloads."""
    return value if value == value else np.float32(np.nan)
