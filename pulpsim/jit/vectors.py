"""Vectors of bytes, for compiled functions: a byte in each of 8 or 16 lanes, or a pair of bytes.

Bytes are unsigned; those of a mask are 0 or 255. Vectors of one length have + - & | == and, for bytes below 128, <.
What makes a new vector is given one that it is to be like. LLVM maps all to what the host has.
"""

from __future__ import annotations

from functools import partial

from pulpsim.jit.functions import Intrinsic

_of = partial(Intrinsic, module="vector_intrinsics")

eight_bytes = _of("eight_bytes")  #: zeros
sixteen_bytes = _of("sixteen_bytes")
spread = _of("spread")  #: number, like -> that number in all lanes
load_bytes = _of("load_bytes")  #: array of bytes, place, like
store_bytes = _of("store_bytes")  #: vector, array, place: its bytes, whatever the array's numbers are
add_bytes = _of("add_bytes")  #: vector, int32 array, place: to numbers of the array
#: int64 array, place, like -> pairs: the lower half of each number and the upper half of the next one; 254 where it is
#: not less
halves = _of("halves")

less = _of("less")  #: a, b -> a - b, or 0 if that is negative
without = _of("without")  #: value, mask -> 0 where the mask says so
choose = _of("choose")  #: mask, value, other -> the value where the mask says so, else the other
highest_bits = _of("highest_bits")  #: the highest bits of all bytes, as a number
#: value, ahead, behind -> how many other lanes hold this one's value: those ahead of it in `ahead`, those behind it in
#: `behind`
matches = _of("matches")

lowers = _of("lowers")  #: value, like -> its lowest lanes
uppers = _of("uppers")  #: the upper half of the lanes
joined = _of("joined")  #: lower, upper half
running_counts = _of("running_counts")  #: mask -> of every four lanes, in how many of them up to this one it is set
fours_lasts = _of("fours_lasts")  #: the last one of every four lanes, in all of them

pairs = _of("pairs")  #: first, second
firsts = _of("firsts")
seconds = _of("seconds")
doubled = _of("doubled")  #: pairs of each byte, twice the same
#: array of pairs as uint16, places as int32, like -> the pairs at the lanes' places; those behind them; and so on,
#: WINDOW of them
window = _of("window")
WINDOW = 4
