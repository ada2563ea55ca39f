"""Parts of traces that are kept and taken again: where only cycles are wanted, a call that is equal to another one, but
for where its operands lie, is not computed again.

`parts` is int64, flat: one part of one core's trace behind the other. Of each: where the core's next one is, how many
entries it has and the gap behind them; what the core is like after it, from PLACE to COUNT1; by how much its counters
and what it did grow; its registers; the entries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pulpsim.engine import layout as at
from pulpsim.engine.icache import bring
from pulpsim.jit import heapless
from pulpsim.memory import L1_BASE
from pulpsim.platform import Platform

#: numbers of all parts of an engine
PARTS = 1 << 21
#: calls whose numbers are remembered
SAME = 1 << 12
#: what RECALL says: parts are noted down, or taken again
NOTING, RECALLING = 1, 2
(NEXT, ENTRIES, GAP, LIKE) = range(4)
COUNTED = LIKE + at.COUNT1 + 1
REGISTERS = COUNTED + at.CORE_FIELDS - at.COUNT
FIRST_ENTRY = REGISTERS + at.REGISTER_STRIDE


@heapless
def begin_part(c, s, traces):
    """A part of a core's trace begins, which is to be noted down."""
    parts, k, part = traces[9], at.CORE + c * at.CORE_FIELDS, s[at.PARTS_END]
    if s[at.RECALL] != NOTING:
        return
    if part + FIRST_ENTRY + at.TRACE > parts.shape[0]:
        s[at.RECALL] = 0
        return
    for field in range(at.COUNT, at.CORE_FIELDS):
        parts[part + COUNTED + field - at.COUNT] = -s[k + field]


@heapless
def end_part(c, s, registers, traces):
    """It has ended. Nothing of a call that stopped is kept."""
    if s[at.RECALL] != NOTING:
        return
    entries, heads, parts, head = traces[0], traces[1], traces[9], c * at.HEAD_FIELDS
    k, part, first = at.CORE + c * at.CORE_FIELDS, s[at.PARTS_END], heads[head + at.H_NEXT]
    count = heads[head + at.H_END] - first
    for entry in range(count):
        parts[part + FIRST_ENTRY + entry] = entries[first + entry]
        if entries[first + entry] & at.E_KIND == at.E_STOP:
            s[at.RECALL] = 0
            return
    parts[part + NEXT], parts[part + ENTRIES], parts[part + GAP] = -1, count, heads[head + at.H_GAP]
    for field in range(at.COUNT1 + 1):
        parts[part + LIKE + field] = s[k + field]
    for field in range(at.COUNT, at.CORE_FIELDS):
        parts[part + COUNTED + field - at.COUNT] += s[k + field]
    for register in range(at.REGISTER_STRIDE):
        parts[part + REGISTERS + register] = registers[c * at.REGISTER_STRIDE + register]
    parts[heads[head + at.H_PART] + NEXT] = part
    heads[head + at.H_PART] = part
    s[at.PARTS_END] = part + FIRST_ENTRY + count


@heapless
def recall(c, s, registers, tags, present, traces):
    """A core's next part is one that was kept. The lines of code that it brings are brought again."""
    entries, heads, parts, head = traces[0], traces[1], traces[9], c * at.HEAD_FIELDS
    k, part, first = at.CORE + c * at.CORE_FIELDS, parts[heads[head + at.H_PART] + NEXT], c * at.TRACE
    heads[head + at.H_PART] = part
    count = parts[part + ENTRIES]
    for place in range(count):
        entry = parts[part + FIRST_ENTRY + place]
        entries[first + place] = entry
        if entry & at.E_KIND == at.E_REFILL:
            bring(c, k, entry & at.E_OPERANDS, s, tags, present, traces)
    status = s[k + at.STATUS]
    for field in range(at.COUNT1 + 1):
        s[k + field] = parts[part + LIKE + field]
    s[k + at.STATUS] = status
    for field in range(at.COUNT, at.CORE_FIELDS):
        s[k + field] += parts[part + COUNTED + field - at.COUNT]
    for register in range(at.REGISTER_STRIDE):
        registers[c * at.REGISTER_STRIDE + register] = np.int32(parts[part + REGISTERS + register])
    heads[head + at.H_NEXT], heads[head + at.H_END], heads[head + at.H_GAP] = first, first + count, parts[part + GAP]


class Calls:
    """Of one engine: which calls' parts are kept. state, heads, parts: the engine's; heads by core."""

    def __init__(
        self, platform: Platform, state: NDArray[np.int64], heads: NDArray[np.int64], parts: NDArray[np.int64]
    ):
        self._state, self._heads, self._room = state, heads, len(parts) - FIRST_ENTRY - at.TRACE
        self._ways = state[at.CORE + at.WAY : at.STREAM : at.CORE_FIELDS]
        self._private = platform.cluster.cores * platform.icache.private_sets * platform.icache.private_ways
        self._l1_bytes = platform.l1.size_bytes
        self._within_banks = np.uint32(L1_BASE | 4 * platform.l1.banks - 1)
        self._alike: dict[bytes, int] = {}  # numbers of calls, by what they are apart from where operands lie
        self._same: dict[bytes, int] = {}  # likewise by all that they are; of the latest
        self._kept: dict[bytes, int] = {}  # where the first parts are, of all cores
        self._noted: tuple[bytes, int] | None = None  # what is being noted down
        self._refused = 0  # calls for which there was no room

    def begin(self, row: int, registers: NDArray[np.uint32], tags: NDArray[np.int64]) -> bool:
        """A team starts, uint32 [cores, 64]. tags: see `icache`. Whether its parts are recalled, or noted down.

        They are noted down the second time that such a call comes: with the same numbers, its operands in the same
        banks; and recalled where the cores' own caches hold the same.
        """
        s, seen = self._state, len(self._alike)
        number = self._number(row, registers)
        if number == seen:
            return False
        key = number.to_bytes(8, "little") + tags[: self._private].tobytes() + self._ways.tobytes()
        if key in self._kept:
            s[at.RECALL], first = RECALLING, self._kept[key]
        elif s[at.PARTS_END] > self._room:
            self._refused += 1
            return False
        else:
            s[at.RECALL], first = NOTING, int(s[at.PARTS_END])
            s[at.PARTS_END] += len(registers)
            self._noted = key, first
        self._heads[: len(registers), at.H_PART] = range(first, first + len(registers))
        return True

    def end(self) -> None:
        """No core runs: what has been noted down is kept, if all of it was."""
        s = self._state
        if self._noted is not None:
            key, first = self._noted
            if s[at.RECALL] == NOTING:
                self._kept[key] = first
            else:
                s[at.PARTS_END] = first
        self._noted, s[at.RECALL] = None, 0

    def restart(self) -> None:
        """What is kept goes if more calls than that found no room since the last time."""
        self._state[at.RECALL] *= self._state[at.QUEUED] == 0  # what was stopped is not kept
        self.end()
        if self._refused > len(self._kept):
            self._kept.clear()
            self._refused = self._state[at.PARTS_END] = 0

    def _number(self, row: int, registers: NDArray[np.uint32]) -> int:
        """The same for calls that differ but in where exactly their operands lie; the next one for one that is new."""
        call = row.to_bytes(4, "little") + registers.tobytes()
        number = self._same.get(call)
        if number is None:
            number = self._alike.setdefault(self._call(row, registers), len(self._alike))
            if len(self._same) >= SAME:
                self._same.clear()
            self._same[call] = number
        return number

    def _call(self, row: int, registers: NDArray[np.uint32]) -> bytes:
        """What a call is, apart from where exactly its operands lie."""
        inside = registers - np.uint32(L1_BASE) < self._l1_bytes
        return row.to_bytes(4, "little") + np.where(inside, registers & self._within_banks, registers).tobytes()
