"""L1's banks and who uses them, for the fast engine: core accesses, DMA ports, round-robin arbitration.

Core accesses that are not words of L1 in fifo order end up here too: L2, the event unit, parts of words.
"""

from __future__ import annotations

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import Kind
from pulpsim.engine import layout as at
from pulpsim.engine.calendar import append, queue, report
from pulpsim.jit import heapless, inlined
from pulpsim.memory import EVENT_UNIT_BASE, EVENT_UNIT_BYTES, L1_BASE, L2_BASE

WORDS = (1 << 40) - 1  # no index is larger, or negative
# Numba freezes plain integers: the enumerations' members as such.
BANK_CONFLICT, MISALIGNED, L2 = int(Cause.BANK_CONFLICT), int(Cause.MISALIGNED), int(Cause.L2)
TRANSFER = int(Kind.TRANSFER)


@inlined
def reserve(place, now, s):  # type: ignore[no-untyped-def]
    """Take the next free cycle of a bank or FPU; returns it."""
    slot = max(now, s[place])
    s[place] = slot + 1
    return slot


@inlined
def _wait_for(bank, agent, s):  # type: ignore[no-untyped-def]
    """Round-robin: an agent's access waits for a grant."""
    s[at.WAITING + bank * at.AGENTS + agent] += 1
    s[at.BANK_WAITERS] += 1


@heapless
def _get(store, offset, size):  # type: ignore[no-untyped-def]
    value = np.int64(0)
    for i in range(size):
        value |= np.int64(store[offset + i]) << (8 * i)
    return value


@heapless
def _put(store, offset, size, value):  # type: ignore[no-untyped-def]
    for i in range(size):
        store[offset + i] = np.uint8((value >> (8 * i)) & 0xFF)


@heapless
def access(c, address, size, store, value, s, l1, l2):  # type: ignore[no-untyped-def]
    """Any load (store false) or store: s[OUT] the value loaded, s[OUT + 1] cycles beyond one."""
    now, counters = s[at.NOW], at.CORE + c * at.CORE_FIELDS + at.COUNT
    s[at.OUT], s[at.OUT + 1] = 0, 0
    offset = address - L1_BASE
    if 0 <= offset <= s[at.L1_BYTES] - size:
        if store:
            _put(l1, offset, size, value)
        else:
            s[at.OUT] = _get(l1, offset, size)
        crossing = (offset & 3) + size > 4
        if crossing:
            s[at.OUT + 1] = s[at.MISALIGNED] - 1
            s[counters + MISALIGNED] += s[at.MISALIGNED] - 1
        banks = s[at.BANKS]
        bank = (offset >> 2) & (banks - 1)
        if s[at.CONFLICTS] == at.FIFO:
            slot = reserve(at.BANK_FREE + bank, now, s)
            wait = slot - now
            if crossing:
                wait = reserve(at.BANK_FREE + ((bank + 1) & (banks - 1)), slot + 1, s) - (now + 1)
            s[at.OUT + 1] += wait
            s[counters + BANK_CONFLICT] += wait
        elif s[at.CONFLICTS] == at.ROUND_ROBIN:
            _wait_for(bank, c, s)
            return at.BLOCKED
        return at.DONE
    offset = address - L2_BASE
    if 0 <= offset <= s[at.L2_BYTES] - size:
        if store:
            _put(l2, offset, size, value)
        else:
            s[at.OUT] = _get(l2, offset, size)
        s[at.OUT + 1] = s[at.L2_CYCLES] - 1
        s[counters + L2] += s[at.L2_CYCLES] - 1
        return at.DONE
    if 0 <= address - EVENT_UNIT_BASE <= EVENT_UNIT_BYTES - size:
        return at.DONE
    return at.TRAPPED


@inlined
def _move_words(way, number, first, count, inside, outside, s, words, l2_words):  # type: ignore[no-untyped-def]
    """Ports [first, first + count) of a direction each copy a word, in order, and take its bank."""
    for i in range(count):
        within, beyond = inside + i & WORDS, outside + i & WORDS
        if way:
            l2_words[beyond] = words[within]
        else:
            words[within] = l2_words[beyond]
        bank = within & s[at.BANK_MASK]
        if s[at.CONFLICTS] == at.FIFO:
            reserve(at.BANK_FREE + bank, s[at.NOW], s)
        elif s[at.CONFLICTS] == at.ROUND_ROBIN:
            _wait_for(bank, number + first + i, s)


@inlined
def stream_event(agent, s, words, l2_words):  # type: ignore[no-untyped-def]
    """One beat of a DMA direction: a word of each of its ports. Returns the next event's cycle, or -1."""
    way, ports = agent - s[at.CORES] & 1, s[at.PORTS]
    stream = at.STREAM + way * at.FIELDS
    if s[stream + at.D_PLAIN] == 0:
        return _beat(way, stream, s, words, l2_words)
    inside, outside = s[stream + at.D_INSIDE], s[stream + at.D_OUTSIDE]
    _move_words(way, s[at.CORES] + way * ports, 0, ports, inside, outside, s, words, l2_words)
    s[stream + at.D_INSIDE], s[stream + at.D_OUTSIDE] = inside + ports, outside + ports
    s[stream + at.D_PLAIN] -= 1
    s[stream + at.D_BEAT] += 1
    return s[at.NOW] + 1


@inlined
def _place_of(word, move, s):  # type: ignore[no-untyped-def]
    """Where a word of a transfer lies: indices into L1 and L2."""
    line, column = word // s[move + at.T_LINE_WORDS], 4 * (word % s[move + at.T_LINE_WORDS])
    inside = (s[move + at.T_L1] + line * s[move + at.T_L1_STRIDE] + column) >> 2
    outside = (s[move + at.T_L2] + line * s[move + at.T_L2_STRIDE] + column) >> 2
    return inside, outside


@inlined
def _plain_beats(way, beat, move, s):  # type: ignore[no-untyped-def]
    """How many beats from this one on lie in one line and have their successor in the next cycle."""
    ports = s[at.PORTS]
    word = beat * ports
    in_transfer = (s[move + at.T_WORDS] - 1) // ports - beat
    in_line = (s[move + at.T_LINE_WORDS] - word % s[move + at.T_LINE_WORDS]) // ports
    plain = min(in_transfer, in_line)
    if way:
        plain = min(plain, s[at.BURST_BEATS] - 1 - beat % s[at.BURST_BEATS])
    return max(plain, 0)


@heapless
def _beat(way, stream, s, words, l2_words):  # type: ignore[no-untyped-def]
    """A beat that may cross a line or end a burst or the transfer."""
    now, ports = s[at.NOW], s[at.PORTS]
    move = at.TRANSFERS + (way * at.QUEUE + s[stream + at.D_SEQUENCE] % at.QUEUE) * at.FIELDS
    for lane in range(ports):
        word = s[stream + at.D_BEAT] * ports + lane
        if word < s[move + at.T_WORDS]:
            inside, outside = _place_of(word, move, s)
            _move_words(way, s[at.CORES] + way * ports, lane, 1, inside, outside, s, words, l2_words)
    beat = s[stream + at.D_BEAT] + 1
    s[stream + at.D_BEAT] = beat
    if beat * ports < s[move + at.T_WORDS]:
        s[stream + at.D_INSIDE], s[stream + at.D_OUTSIDE] = _place_of(beat * ports, move, s)
        s[stream + at.D_PLAIN] = _plain_beats(way, beat, move, s)
        new_burst = way == 1 and beat % s[at.BURST_BEATS] == 0
        return now + 2 if new_burst else now + 1
    report(TRANSFER, s[move + at.T_ID], 0, s)
    s[stream + at.D_SEQUENCE] += 1
    s[stream + at.D_BEAT] = 0
    if s[stream + at.D_SEQUENCE] == s[at.TAIL + way]:
        s[stream + at.D_ASLEEP] = 1
        s[at.QUEUED] -= 1
        return np.int64(-1)
    move = at.TRANSFERS + (way * at.QUEUE + s[stream + at.D_SEQUENCE] % at.QUEUE) * at.FIELDS
    return max(now + 1, s[move + at.T_READY]) + way


@heapless
def grant(s):  # type: ignore[no-untyped-def]
    """Round-robin: every bank serves one waiting access."""
    now, agents = s[at.NOW], s[at.CORES] + 2 * s[at.PORTS]
    for bank in range(s[at.BANKS]):
        for step in range(1, agents + 1):
            agent = (s[at.BANK_FREE + bank] + step) % agents
            waiting = at.WAITING + bank * at.AGENTS + agent
            if s[waiting] == 0:
                continue
            s[waiting] -= 1
            s[at.BANK_WAITERS] -= 1
            s[at.BANK_FREE + bank] = agent
            if agent < s[at.CORES]:
                k = at.CORE + agent * at.CORE_FIELDS
                s[k + at.COUNT + BANK_CONFLICT] += now - s[k + at.SINCE]
                if s[k + at.WAIT_COST] == 1:
                    append(agent, now + 1, s)
                else:
                    queue(agent, now + s[k + at.WAIT_COST], s)
            break
