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


@heapless
def first_beat(port, lane, outward, s):  # type: ignore[no-untyped-def]
    """Set a port to its word of the first beat of the transfer at its sequence number."""
    move = at.TRANSFERS + (outward * at.QUEUE + s[port + at.P_SEQUENCE] % at.QUEUE) * at.FIELDS
    words = max(s[move + at.T_LINE_WORDS], 1)
    s[port + at.P_BEAT] = 0
    s[port + at.P_LINE], s[port + at.P_COLUMN] = lane // words, lane % words


@heapless
def _move_word(agent, port, move, outward, s, words, l2_words):  # type: ignore[no-untyped-def]
    """Copy a port's word of this beat and take its bank."""
    line, column = s[port + at.P_LINE], 4 * s[port + at.P_COLUMN]
    inside = (s[move + at.T_L1] + line * s[move + at.T_L1_STRIDE] + column) >> 2
    outside = (s[move + at.T_L2] + line * s[move + at.T_L2_STRIDE] + column) >> 2
    if outward:
        l2_words[outside] = words[inside]
    else:
        words[inside] = l2_words[outside]
    bank = inside & (s[at.BANKS] - 1)
    if s[at.CONFLICTS] == at.FIFO:
        reserve(at.BANK_FREE + bank, s[at.NOW], s)
    elif s[at.CONFLICTS] == at.ROUND_ROBIN:
        _wait_for(bank, agent, s)


@heapless
def port_event(agent, s, words, l2_words):  # type: ignore[no-untyped-def]
    """One event of a DMA port: its word of this beat. Returns the next event's cycle, or -1."""
    now, ports = s[at.NOW], s[at.PORTS]
    lane = agent - s[at.CORES]
    port = at.PORT + lane * at.FIELDS
    outward = np.int64(lane >= ports)
    lane -= outward * ports
    move = at.TRANSFERS + (outward * at.QUEUE + s[port + at.P_SEQUENCE] % at.QUEUE) * at.FIELDS
    if s[port + at.P_BEAT] * ports + lane < s[move + at.T_WORDS]:
        _move_word(agent, port, move, outward, s, words, l2_words)
    s[port + at.P_COLUMN] += ports
    while s[port + at.P_COLUMN] >= s[move + at.T_LINE_WORDS]:
        s[port + at.P_COLUMN] -= s[move + at.T_LINE_WORDS]
        s[port + at.P_LINE] += 1
    s[port + at.P_BEAT] += 1
    if s[port + at.P_BEAT] * ports < s[move + at.T_WORDS]:
        new_burst = outward == 1 and s[port + at.P_BEAT] % s[at.BURST_BEATS] == 0
        return now + 2 if new_burst else now + 1
    if lane == ports - 1:
        report(TRANSFER, s[move + at.T_ID], 0, s)
    s[port + at.P_SEQUENCE] += 1
    if s[port + at.P_SEQUENCE] == s[at.TAIL + outward]:
        s[port + at.P_ASLEEP] = 1
        s[at.QUEUED] -= 1
        return np.int64(-1)
    first_beat(port, lane, outward, s)
    move = at.TRANSFERS + (outward * at.QUEUE + s[port + at.P_SEQUENCE] % at.QUEUE) * at.FIELDS
    return max(now + 1, s[move + at.T_READY]) + outward


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
