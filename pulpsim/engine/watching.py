"""What the fast engine notes when it is watched (`pulpsim.engine`, "Watching"); otherwise it is compiled without.

`watch` is (counts, log): cycles by row and cause, int64 [cores, rows * ROW], in which row and cause are added up, and
entries, int64 [LOG, ENTRY]. Behind a row's causes, at RUNS, stands how often a whole run of multiply-adds began there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pulpsim.counters import Cause
from pulpsim.engine import ENTRY, Entry
from pulpsim.engine import layout as at
from pulpsim.jit import heapless, inlined, unlikely

# Numba freezes plain integers: the enumerations' members as such.
TIME, CORE, ROW, CAUSE, VALUE, RD, BASE = (int(field) for field in Entry)
ISSUE, BARRIER = int(Cause.ISSUE), int(Cause.BARRIER)

#: entries of a log; what one cycle may add to it
LOG, MOST = 1 << 16, 1 << 11
LOG_FULL = LOG - MOST
MASK = 0xFFFFFFFF
RUNS = at.ROW - 1

assert len(Entry) <= ENTRY and BARRIER < RUNS


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
    watch[0][c, row] += 1
    if s[at.LOGGING]:
        log_executed(c, row, time, address, s, fields, registers, watch)


@inlined
def executed_in_a_row(c, row, more, fields, watch):
    """A K_FMADD and so many that follow it are executed: whole runs are counted at their first row, see `unfold`."""
    counts, _ = watch
    if more == np.int64(fields[row + at.R_RUN]):
        counts[c, row + RUNS] += 1
    else:
        for place in range(row, row + at.ROW * (more + 1), at.ROW):
            counts[c, place & at.PLACES] += 1


def unfold(counts: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
    """Whole runs become executions of each of their rows; counts: of every core, rows: decoded, flat as well."""
    cores, places = np.nonzero(counts[:, RUNS :: at.ROW])
    for core, place in zip(cores.tolist(), places.tolist(), strict=True):
        first = place * at.ROW
        last = first + at.ROW * int(rows[first + at.R_RUN])
        counts[core, first : last + 1 : at.ROW] += counts[core, first + RUNS]
        counts[core, first + RUNS] = 0


@heapless
def log_executed(c, row, time, address, s, fields, registers, watch):
    """Write an instruction down."""
    entry = watch[1][s[at.LOGGED]]
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


@inlined
def waited(c, row, cause, cycles, s, watch):
    """The instruction at a row takes so many cycles more."""
    watch[0][c, row + cause] += cycles
    if s[at.LOGGING] and cycles > 0:
        _log_waited(c, row, cause, cycles, s, watch)


@heapless
def _log_waited(c, row, cause, cycles, s, watch):
    """Write a wait down."""
    entry = watch[1][s[at.LOGGED]]
    s[at.LOGGED] += 1
    entry[TIME], entry[CORE], entry[ROW], entry[CAUSE], entry[VALUE] = s[at.NOW], c, row // at.ROW, cause, cycles
    entry[RD] = entry[BASE] = 0


@heapless
def remember(k, s):
    """What a core has waited until now, up to barriers."""
    for cause in range(ISSUE + 1, BARRIER):
        s[at.BEFORE + cause] = s[k + at.COUNT + cause]


@heapless
def waited_since(c, k, row, s, watch):
    """What a core has waited since `remember` was for the instruction at this row."""
    for cause in range(ISSUE + 1, BARRIER):
        cycles = s[k + at.COUNT + cause] - s[at.BEFORE + cause]
        if unlikely(cycles > 0):
            waited(c, row, cause, cycles, s, watch)
