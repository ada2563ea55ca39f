"""What the fast engine notes when it is watched (`pulpsim.engine`, "Watching"); otherwise it is compiled without.

`watch` is (counts, log): cycles by row and cause, int64 [cores, rows * ROW], in which row and cause are added up, and
entries, int64 [LOG, ENTRY].
"""

from __future__ import annotations

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import ENTRY, Entry
from pulpsim.engine import layout as at
from pulpsim.jit import heapless, inlined

# Numba freezes plain integers: the enumerations' members as such.
TIME, CORE, ROW, CAUSE, VALUE, RD, BASE = (int(field) for field in Entry)
ISSUE, BARRIER = int(Cause.ISSUE), int(Cause.BARRIER)

#: entries of a log; what one cycle may add to it
LOG, MOST = 1 << 16, 1 << 11
LOG_FULL = LOG - MOST
MASK = 0xFFFFFFFF

assert len(Entry) <= ENTRY and BARRIER < at.ROW


@inlined
def _written(c, register, registers):
    """The pattern in a register that an instruction has written, 0 if it writes none."""
    return np.int64(0) if register == at.SINK else np.int64(registers[c * at.REGISTER_STRIDE + register]) & MASK


@inlined
def _stored(c, row, address, fields, registers):
    """The pattern that a store has stored, the whole register; a post-increment may have moved it since."""
    source = fields[row + at.R_RS2]
    moved = source == fields[row + at.R_BASE]
    return address if moved else np.int64(registers[c * at.REGISTER_STRIDE + source]) & MASK


@inlined
def executed(c, row, time, address, s, fields, registers, watch):
    """An instruction has had its effect. address: of its access to memory, -1 if it makes none."""
    counts, log = watch
    counts[c, row] += 1
    if s[at.LOGGING]:
        entry = log[s[at.LOGGED]]
        s[at.LOGGED] += 1
        entry[TIME], entry[CORE], entry[ROW], entry[CAUSE], entry[VALUE] = time, c, row // at.ROW, ISSUE, address
        kind = fields[row + at.R_KIND] & at.KIND
        if kind == at.K_STORE or kind == at.K_STORE_WORD:
            entry[RD] = _stored(c, row, address, fields, registers)
        elif kind == at.K_LOOP or kind == at.K_SLOW_LOOP:  # whose R_RD is its level
            entry[RD] = 0
        else:
            entry[RD] = _written(c, fields[row + at.R_RD], registers)
        entry[BASE] = _written(c, fields[row + at.R_BASE], registers)


@heapless
def waited(c, row, cause, cycles, s, watch):
    """The instruction at a row takes so many cycles more."""
    counts, log = watch
    if cycles == 0:
        return
    counts[c, row + cause] += cycles
    if s[at.LOGGING]:
        entry = log[s[at.LOGGED]]
        s[at.LOGGED] += 1
        entry[TIME], entry[CORE], entry[ROW], entry[CAUSE], entry[VALUE] = s[at.NOW], c, row // at.ROW, cause, cycles
        entry[RD] = entry[BASE] = 0


@inlined
def remember(k, s):
    """What a core has waited until now, up to barriers."""
    for cause in range(ISSUE + 1, BARRIER):
        s[at.BEFORE + cause] = s[k + at.COUNT + cause]


@inlined
def waited_since(c, k, row, s, watch):
    """What a core has waited since `remember` was for the instruction at this row."""
    for cause in range(ISSUE + 1, BARRIER):
        waited(c, row, cause, s[k + at.COUNT + cause] - s[at.BEFORE + cause], s, watch)
