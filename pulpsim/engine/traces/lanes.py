"""Many cycles in which cores ask for nothing but banks and FPUs: each core is a lane of vectors of bytes.

Entries are also kept as pairs of bytes: what one asks for, its place behind FPU_FREE, and the cycles from then to the
next entry, without the one that it takes. In a pair that is for `turns`, of anything else or before a long gap, one of
them has its highest bit set.

Of each lane in a cycle: `time` till its next entry; what it `asked` for last, 255 once it has been served; how long it
`holds` that, until the cycle after it is served. A bank serves one a cycle, in the order in which they asked. So a lane
waits as many cycles as there are lanes that hold what it asks for, and lanes that ask for the same in this cycle and
come before it in the order of cores, which is that of the lanes.
"""

from __future__ import annotations

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import layout as at
from pulpsim.engine.calendar import ONE, queue
from pulpsim.jit import heapless, inlined, lowest_bit, vectors

BANK_CONFLICT, FPU_CONTENTION = int(Cause.BANK_CONFLICT), int(Cause.FPU_CONTENTION)
#: cycles: a stride that was shorter does not pay; after one of those the next one is a short trial, some time later
PAYS, TRIAL, LONGEST_PAUSE = 32, 64, 4096


@heapless
def pair(c, traces):
    """Make the pairs of a core's new entries, and perhaps again those of the next core that lie behind them. The gap
    behind the last entry is not known: it is for `turns`."""
    entries, heads, pairs, none = traces[0], traces[1], traces[8][0], vectors.sixteen_bytes()
    first, last = heads[c * at.HEAD_FIELDS + at.H_NEXT], heads[c * at.HEAD_FIELDS + at.H_END]
    entries[last] = 0
    for place in range(first, last, 16):
        gaps = vectors.upper_halves(entries, place + 1, none) - vectors.spread(1, none)
        vectors.store_bytes(vectors.pairs(vectors.lower_halves(entries, place, none), gaps), pairs, place)


# -- lanes and the calendar ------------------------------------------------------------------------
@inlined
def _clear(s, lanes):
    """Nobody is due. Lanes are cores in their order; those beyond them have none, -1."""
    _, lane_bytes, numbers = lanes
    for lane in range(at.LANES):
        lane_bytes[at.L_TIME + lane], lane_bytes[at.L_ASKED + lane] = 255, 255
        lane_bytes[at.L_STEP + lane] = lane_bytes[at.L_HOLDS + lane] = 0
        numbers[at.L_PLACES + lane] = numbers[at.L_WAITS + lane] = numbers[at.L_FPU_WAITS + lane] = 0
        numbers[at.L_CORES + lane] = -1
    lane, first = 0, np.int64(-1)
    if s[at.FIRST] != 0:
        first = at.LAST_CORE - lowest_bit(np.uint64(s[at.FIRST]))
        numbers[at.L_CORES], lane = first, 1
    for c in range(s[at.CORES] - 1, -1, -1):
        if c != first:
            numbers[at.L_CORES + lane] = c
            lane += 1


@heapless
def _take(c, ahead, traces):
    """A core that is due so many cycles ahead joins the lanes. Returns whether it holds something; -1 if it cannot
    join, as its trace has not begun."""
    entries, heads, lane_bytes, numbers = traces[0], traces[1], traces[8][1], traces[8][2]
    head, lane = c * at.HEAD_FIELDS, 0
    place = heads[head + at.H_NEXT]
    if place == heads[head + at.H_END]:
        return -1
    while numbers[at.L_CORES + lane] != c:
        lane += 1
    lane_bytes[at.L_TIME + lane], lane_bytes[at.L_STEP + lane] = ahead, 1
    numbers[at.L_PLACES + lane] = place
    before = entries[place - 1] if place > c * at.TRACE else heads[head + at.H_LAST]
    holds = ahead + 1 - (entries[place] >> at.E_GAP)
    if before & at.E_KIND != at.E_SHARED or holds <= 0:
        return 0
    lane_bytes[at.L_ASKED + lane], lane_bytes[at.L_HOLDS + lane] = before & at.E_OPERANDS, holds
    return 1


@heapless
def _enter(now, until, s, traces):
    """All cores join the lanes, and stay in the calendar. Returns up to which cycle nobody else is due; `now` if some
    core cannot join, or others hold something."""
    end, far, held = until, np.uint64(s[at.FAR]), 0
    while far != 0:
        agent = lowest_bit(far)
        far &= far - ONE
        end = min(end, s[at.WHEN + agent] - at.SLOTS)
    _clear(s, traces[8])
    for ahead in range(at.SLOTS):
        due = np.uint64(s[at.MASKS + (now + ahead & at.SLOTS - 1)])
        if due >> np.uint64(at.STREAMS):
            end = min(end, now + ahead)
        due &= np.uint64(at.CORE_AGENTS)
        while due != 0:
            agent = lowest_bit(due)
            due &= due - ONE
            holds = _take(at.LAST_CORE - agent, ahead, traces)
            if holds < 0:
                return now
            held += holds
    for place in range(at.FPU_FREE, at.BANK_FREE + s[at.BANKS]):
        held -= max(s[place] - now, 0)
    return end if held == 0 else now


@heapless
def _leave(now, s, traces):
    """All is as if `turn` had taken the lanes' entries. Returns how many."""
    heads, lane_bytes, numbers, taken = traces[1], traces[8][1], traces[8][2], 0
    s[at.NOW] = now
    for slot in range(at.MASKS, at.MASKS + at.SLOTS):
        s[slot] &= ~at.CORE_AGENTS
    for lane in range(at.LANES):
        if lane_bytes[at.L_STEP + lane] == 0:
            continue
        c = np.int64(numbers[at.L_CORES + lane])
        head, count = c * at.HEAD_FIELDS, at.CORE + c * at.CORE_FIELDS + at.COUNT
        taken += numbers[at.L_PLACES + lane] - heads[head + at.H_NEXT]
        heads[head + at.H_NEXT] = numbers[at.L_PLACES + lane]
        s[count + BANK_CONFLICT] += numbers[at.L_WAITS + lane] - numbers[at.L_FPU_WAITS + lane]
        s[count + FPU_CONTENTION] += numbers[at.L_FPU_WAITS + lane]
        queue(at.LAST_CORE - c, now + lane_bytes[at.L_TIME + lane], s)
        if lane_bytes[at.L_HOLDS + lane] != 0:
            place = at.FPU_FREE + lane_bytes[at.L_ASKED + lane]
            s[place] = max(s[place], now + lane_bytes[at.L_HOLDS + lane])
    return taken


# -- cycles ----------------------------------------------------------------------------------------
@inlined
def _cycles(none, now, end, lanes):
    """Handle cycles up to `end`, perhaps a few less, or to one in which an entry is for `turns`. Returns the first one
    that is not handled. none: a vector of zeros, which says how many lanes there are."""
    pairs, lane_bytes, numbers = lanes
    time, step = vectors.load_bytes(lane_bytes, at.L_TIME, none), vectors.load_bytes(lane_bytes, at.L_STEP, none)
    asked, holds = vectors.load_bytes(lane_bytes, at.L_ASKED, none), vectors.load_bytes(lane_bytes, at.L_HOLDS, none)
    one, banks, more = vectors.spread(1, none), vectors.spread(at.FIRST_BANK, none), True
    while more and end - now >= vectors.WINDOW:
        entry, second, third, fourth = vectors.window(pairs, numbers, none)
        taken, waits, fpu_waits = none, none, none
        for _ in range(vectors.WINDOW):
            due = time == none
            both = vectors.doubled(due)
            if vectors.highest_bits(both & entry) != 0:
                more = False
                break
            asks = vectors.firsts(entry)
            before = asked | (holds == none)
            asked = vectors.without(before, vectors.without(due, asks))
            served = vectors.matches(asked, before) & due
            time = time - step + served + (vectors.seconds(entry) & due)
            holds = vectors.less(holds | served, one)
            wait = holds & due
            taken, waits, fpu_waits = taken - due, waits + wait, fpu_waits + (wait & (asks < banks))
            entry, second, third = (
                vectors.choose(both, second, entry),
                vectors.choose(both, third, second),
                vectors.choose(both, fourth, third),
            )
            now += 1
        vectors.add_bytes(taken, numbers, at.L_PLACES)
        vectors.add_bytes(waits, numbers, at.L_WAITS)
        vectors.add_bytes(fpu_waits, numbers, at.L_FPU_WAITS)
    vectors.store_bytes(time, lane_bytes, at.L_TIME)
    vectors.store_bytes(asked, lane_bytes, at.L_ASKED)
    vectors.store_bytes(holds, lane_bytes, at.L_HOLDS)
    return now


@heapless
def _stride(now, until, s, traces):
    """Cycles from `now` on. Returns the first one that is not handled; s[OUT] are the entries taken."""
    s[at.OUT], then = 0, now
    end = _enter(now, until, s, traces)
    if s[at.CORES] <= 8:
        then = _cycles(vectors.eight_bytes(), now, end, traces[8])
    else:
        then = _cycles(vectors.sixteen_bytes(), now, end, traces[8])
    if then > now:
        s[at.OUT] = _leave(then, s, traces)
    return then


@inlined
def stride(now, until, s, traces):
    """Handle cycles from `now` on, before `until`, if that pays. Returns the first one that is not handled."""
    if now < s[at.STRIDE_AT]:
        return now
    if s[at.STRIDE_PAUSE] > 0:
        until = min(until, now + TRIAL)
    then = _stride(now, until, s, traces)
    if then - now >= PAYS and s[at.OUT] >= then - now:
        s[at.STRIDE_PAUSE] = 0
    else:
        s[at.STRIDE_PAUSE] = min(2 * s[at.STRIDE_PAUSE] + 1, LONGEST_PAUSE)
    s[at.STRIDE_AT] = then + 1 + s[at.STRIDE_PAUSE]
    return then
