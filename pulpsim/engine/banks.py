"""L1's banks for the fast engine: core accesses and arbitration.

Core accesses that are not words of L1 in fifo order end up here too: L2, the event unit, parts of words.
"""

from __future__ import annotations

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import layout as at
from pulpsim.engine.traces.touched import may_touch
from pulpsim.jit import heapless, inlined, lowest_bit
from pulpsim.memory import EVENT_UNIT_BASE, EVENT_UNIT_BYTES, L1_BASE, L2_BASE

# Numba freezes plain integers: the enumerations' members as such.
BANK_CONFLICT, MISALIGNED, L2 = int(Cause.BANK_CONFLICT), int(Cause.MISALIGNED), int(Cause.L2)


@inlined
def reserve(place, now, s):
    """Take the next free cycle of a bank or FPU; returns it."""
    slot = max(now, s[place])
    s[place] = slot + 1
    return slot


@inlined
def reserve_both(bank, now, s):
    """A bank and the next one, for an access that crosses a word's boundary; returns the cycles that it waits."""
    first = reserve(at.BANK_FREE + bank, now, s)
    return reserve(at.BANK_FREE + (bank + 1 & s[at.BANK_MASK]), first + 1, s) - (now + 1)


@inlined
def wait_for(bank, agent, s):
    """Round-robin: an agent's access waits for a grant."""
    s[at.WAITING + bank] |= np.int64(1) << agent
    s[at.BANK_WAITERS] += 1


@heapless
def _get(store, offset, size):
    value = np.int64(0)
    for i in range(size):
        value |= np.int64(store[offset + i]) << (8 * i)
    return value


@heapless
def _put(store, offset, size, value):
    for i in range(size):
        store[offset + i] = np.uint8((value >> (8 * i)) & 0xFF)


@heapless
def access(c, address, size, store, value, s, l1, words, l2, l2_words, traces):
    """Any load (store false) or store: s[OUT] the value loaded, s[OUT + 1] cycles beyond one.

    With traces no bank is taken: CLAIM says which one the access asks for.
    """
    now, counters = s[at.NOW], at.CORE + c * at.CORE_FIELDS + at.COUNT
    s[at.OUT], s[at.OUT + 1] = 0, 0
    offset = address - L1_BASE
    if 0 <= offset <= s[at.L1_BYTES] - size:
        crossing = (offset & 3) + size > 4
        if traces is not None:
            for word in range(offset >> 2, (offset >> 2) + 1 + crossing):
                if not may_touch(word, store, c, s, words, word, traces):
                    return at.TRAPPED
        if store:
            _put(l1, offset, size, value)
        else:
            s[at.OUT] = _get(l1, offset, size)
        s[counters - at.COUNT + at.DID_L1_WORDS] += 1 + crossing
        if crossing:
            s[at.OUT + 1] = s[at.MISALIGNED] - 1
            s[counters + MISALIGNED] += s[at.MISALIGNED] - 1
        bank = (offset >> 2) & s[at.BANK_MASK]
        if s[at.CONFLICTS] == at.NO_CONFLICTS:
            return at.DONE
        if traces is not None:
            s[at.CLAIM] = (at.E_CROSSING if crossing else at.E_SHARED) | (at.FIRST_BANK + bank) << at.E_OPERAND
        elif s[at.CONFLICTS] == at.FIFO:
            wait = reserve_both(bank, now, s) if crossing else reserve(at.BANK_FREE + bank, now, s) - now
            s[at.OUT + 1] += wait
            s[counters + BANK_CONFLICT] += wait
        else:
            wait_for(bank, c, s)
            return at.BLOCKED
        return at.DONE
    offset = address - L2_BASE
    if 0 <= offset <= s[at.L2_BYTES] - size:
        if traces is not None:
            for word in range(offset >> 2, (offset + size - 1 >> 2) + 1):
                if not may_touch(s[at.L1_WORDS] + word, store, c, s, l2_words, word, traces):
                    return at.TRAPPED
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
def take_turn(bank, s):
    """Round-robin: serve the first agent after the one served last, of those whose accesses wait; returns it."""
    waiting, after = np.uint64(s[at.WAITING + bank]), np.uint64(s[at.BANK_FREE + bank] + 1)
    later = waiting >> after << after
    agent = lowest_bit(later if later != 0 else waiting)
    s[at.WAITING + bank] ^= np.int64(1) << agent
    s[at.BANK_WAITERS] -= 1
    s[at.BANK_FREE + bank] = agent
    return agent
