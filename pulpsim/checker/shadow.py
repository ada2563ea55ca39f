"""What is known of every byte, and the accesses held against it, in the order in which they happened.

Bytes of L1, then of L2, are one array; a place is an index of it. Between two barriers of a team - and between its fork
and its first barrier, or its last one and its join - nothing orders accesses of two cores: that is an epoch.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import Entry
from pulpsim.jit import heapless, inlined, native
from pulpsim.memory import L1_BASE, L2_BASE

TIME, CORE, ROW, CAUSE, VALUE, RD, _BASE = (int(field) for field in Entry)
ISSUE = int(Cause.ISSUE)


class Kind(IntEnum):
    """What is wrong with an access."""

    UNWRITTEN = 0  # reads what nobody wrote
    OUTSIDE = 1  # touches what its call was not given
    READ_ONLY = 2  # writes what its call was given to read
    BOTH_WRITE = 3  # writes another number than another core did in this epoch
    READS_WRITTEN = 4  # reads what another core wrote in this epoch
    WRITES_READ = 5  # writes what another core read in this epoch
    ARRIVING = 6  # touches what a transfer may still be writing
    LEAVING = 7  # writes what a transfer may still be reading
    # of transfers and of whole runs, found elsewhere
    TRANSFER_UNWRITTEN = 8
    TRANSFERS_MEET = 9
    TRANSFER_RACE = 10
    ORDER = 11


KINDS = 8  #: those of accesses
(UNWRITTEN, OUTSIDE, READ_ONLY, BOTH_WRITE, READS_WRITTEN, WRITES_READ, ARRIVING, LEAVING) = (
    int(kind) for kind in list(Kind)[:KINDS]
)

# what a row does to memory: bytes in the lowest three bits, and
STORES, MEETS = 8, 16
# what a call may do to a byte
READABLE, WRITABLE = 1, 2
# the scalars
(EPOCH, TEAM, ARRIVED, BOUNDED, L1_BYTES, BYTES, STACKS, STACK_BYTES, SERIAL, FOUND, *_spare) = range(16)
SCALARS = 16
# one finding
(F_KIND, F_TIME, F_CORE, F_ROW, F_ADDRESS, F_OTHER, F_OTHER_ROW, F_SIZE) = range(8)
FINDING = 8
MOST = 4096  #: findings that are kept; each instruction has one of a kind
NOBODY = -1
# who touched a byte last: epoch, row and core in one number
ROW_BITS, CORE_BITS = 24, 5


@inlined
def _party(epoch, row, core):
    return epoch << (ROW_BITS + CORE_BITS) | row << CORE_BITS | core


@inlined
def _core_of(party):
    return party & ((1 << CORE_BITS) - 1)


@inlined
def _row_of(party):
    return party >> CORE_BITS & ((1 << ROW_BITS) - 1)


@inlined
def _epoch_of(party):
    return party >> (ROW_BITS + CORE_BITS)


@inlined
def _place(address, s):
    """Where a byte's knowledge is, -1 if it is in neither memory."""
    inside, beyond = address - L1_BASE, address - L2_BASE
    if 0 <= inside < s[L1_BYTES]:
        return inside
    return s[L1_BYTES] + beyond if 0 <= beyond < s[BYTES] - s[L1_BYTES] else np.int64(-1)


@heapless
def _find(kind, entry, other, other_row, size, s, seen, found):
    """Keep a finding, the first of its kind and instruction; count the others."""
    row = entry[ROW]
    if seen[row, KINDS + kind] == s[SERIAL]:
        return  # of another byte of the same access
    seen[row, KINDS + kind] = s[SERIAL]
    seen[row, kind] += 1
    if seen[row, kind] > 1 or s[FOUND] >= MOST:
        return
    new = found[s[FOUND]]
    s[FOUND] += 1
    new[F_KIND], new[F_TIME], new[F_CORE], new[F_ROW] = kind, entry[TIME], entry[CORE], row
    new[F_ADDRESS], new[F_OTHER], new[F_OTHER_ROW], new[F_SIZE] = entry[VALUE], other, other_row, size


@inlined
def _on_own_stack(place, core, s):
    return s[STACKS] + core * s[STACK_BYTES] <= place < s[STACKS] + (core + 1) * s[STACK_BYTES]


@heapless
def _read(place, entry, size, s, holds, leaving, arriving, writer, reader, readers, seen, found):
    core, row = entry[CORE], entry[ROW]
    if not holds[place]:
        _find(UNWRITTEN, entry, NOBODY, 0, size, s, seen, found)
    if arriving[place]:
        _find(ARRIVING, entry, NOBODY, 0, size, s, seen, found)
    last = writer[place]
    if _epoch_of(last) == s[EPOCH] and _core_of(last) != core:
        _find(READS_WRITTEN, entry, _core_of(last), _row_of(last), size, s, seen, found)
    if _epoch_of(reader[place]) != s[EPOCH]:
        readers[place] = 0
    reader[place] = _party(s[EPOCH], row, core)
    readers[place] |= np.int64(1) << core


@heapless
def _write(place, byte, entry, size, s, holds, values, leaving, arriving, writer, reader, readers, seen, found):
    core, row, value = entry[CORE], entry[ROW], np.uint8(entry[RD] >> 8 * byte & 0xFF)
    if arriving[place]:
        _find(ARRIVING, entry, NOBODY, 0, size, s, seen, found)
    if leaving[place]:
        _find(LEAVING, entry, NOBODY, 0, size, s, seen, found)
    last = writer[place]
    if _epoch_of(last) == s[EPOCH] and _core_of(last) != core and values[place] != value:
        _find(BOTH_WRITE, entry, _core_of(last), _row_of(last), size, s, seen, found)
    last = reader[place]
    if _epoch_of(last) == s[EPOCH] and readers[place] & ~(np.int64(1) << core):
        other = _core_of(last)
        if other == core:  # who read it before, of whom no more is known
            other = np.int64(0)
            while other == core or not readers[place] >> other & 1:
                other += 1
        known = _row_of(last) if other == _core_of(last) else np.int64(NOBODY)
        _find(WRITES_READ, entry, other, known, size, s, seen, found)
    writer[place] = _party(s[EPOCH], row, core)
    holds[place], values[place] = 1, value


@native
def examine(entries, does, s, holds, values, allowed, leaving, arriving, writer, reader, readers, seen, found):
    """Hold what was noted, int64 [n, ENTRY], against what is known, and learn from it.

    does: of every row, see STORES and MEETS. holds: whether somebody wrote the byte. values: what cores wrote there
    last. allowed: what the call may do to it, if BOUNDED. leaving, arriving: transfers under way that read, or write
    it. writer, reader: who did last. readers: a bit for each core that read it in the reader's epoch. seen: how often
    each row had a finding of each kind, then the last access that had one.
    """
    for number in range(entries.shape[0]):
        entry = entries[number]
        if entry[CAUSE] != ISSUE:
            continue
        what = does[entry[ROW]]
        if what & MEETS:
            s[ARRIVED] += 1
            if s[ARRIVED] == s[TEAM]:
                s[ARRIVED] = 0
                s[EPOCH] += 1
            continue
        if entry[VALUE] < 0:
            continue
        s[SERIAL] += 1
        size, stores = what & 7, what & STORES
        for byte in range(size):
            place = _place(entry[VALUE] + byte, s)
            if place < 0:  # the event unit
                continue
            may = allowed[place]
            if s[BOUNDED] and not may & (WRITABLE if stores else READABLE) and not _on_own_stack(place, entry[CORE], s):
                kind = READ_ONLY if stores and may & READABLE else OUTSIDE
                _find(kind, entry, NOBODY, 0, size, s, seen, found)
            if stores:
                _write(
                    place, byte, entry, size, s, holds, values, leaving, arriving, writer, reader, readers, seen, found
                )
            else:
                _read(place, entry, size, s, holds, leaving, arriving, writer, reader, readers, seen, found)
