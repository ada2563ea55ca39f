"""The instruction cache's refills, for the fast engine.

`tags` is one int64 array: the private caches' lines [cores, sets, ways], then the shared banks' lines
[banks, sets, ways], then for every line of the code the cycle at which its refill ends. `present` is
uint8 [cores, lines]: whether a line is in a core's private cache, which is all that the hot loop asks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pulpsim.engine import layout as at
from pulpsim.engine.traces.kept import keep
from pulpsim.jit import heapless, inlined
from pulpsim.platform import Platform


def empty(platform: Platform, lines: int = 0) -> NDArray[np.int64]:
    """Tags of empty caches, and of so many lines the times."""
    cache = platform.icache
    private = platform.cluster.cores * cache.private_sets * cache.private_ways
    size = private + cache.shared_banks * cache.shared_sets * cache.shared_ways
    tags = np.full(size + lines, -1, np.int64)
    tags[size:] = 0
    return tags


@inlined
def _next_way(place, s):
    """Step the shift register at a place of the state."""
    register = s[place]
    feedback = (register >> 7 ^ register >> 5 ^ register >> 4 ^ register >> 3) & 1
    s[place] = (register << 1 | feedback) & 0xFF
    return s[place]


@heapless
def bring(c, k, line, s, tags, present, traces):
    """A line that is absent takes a place in a core's private cache."""
    sets, ways, lines = s[at.PRIVATE_SETS], s[at.PRIVATE_WAYS], s[at.LINES]
    place = (c * sets + line % sets) * ways + _next_way(k + at.WAY, s) % ways
    gone = tags[place]
    if traces is not None:
        keep(at.IN_TAGS, place, gone, s, traces)
        keep(at.IN_PRESENT, c * lines + line, present[c * lines + line], s, traces)
    if gone >= 0:
        if traces is not None:
            keep(at.IN_PRESENT, c * lines + gone, present[c * lines + gone], s, traces)
        present[c * lines + gone] = 0
    tags[place] = line
    present[c * lines + line] = 1


@heapless
def refill(line, s, tags, traces):
    """The cycles that it takes to bring a line to a core, which the shared cache has from then on."""
    now, inner_sets, inner_ways, banks = s[at.NOW], s[at.SHARED_SETS], s[at.SHARED_WAYS], s[at.SHARED_BANKS]
    shared = s[at.CORES] * s[at.PRIVATE_SETS] * s[at.PRIVATE_WAYS]
    ready = shared + banks * inner_sets * inner_ways + line
    bank = line % banks
    first = shared + (bank * inner_sets + line // banks % inner_sets) * inner_ways
    for way in range(inner_ways):
        if tags[first + way] == line:
            return max(s[at.PRIVATE_REFILL], tags[ready] - now)
    place = first + _next_way(at.SHARED_WAY + bank, s) % inner_ways
    if traces is not None:
        keep(at.IN_TAGS, place, tags[place], s, traces)
        keep(at.IN_TAGS, ready, tags[ready], s, traces)
    tags[place] = line
    tags[ready] = now + s[at.SHARED_REFILL]
    return max(s[at.PRIVATE_REFILL], s[at.SHARED_REFILL])
