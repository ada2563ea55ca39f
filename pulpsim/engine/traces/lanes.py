"""Many cycles at once in which cores ask for nothing but banks and FPUs: each core is a lane of vectors of bytes.

A trace's entries are also kept as pairs of bytes: what the entry asks for, its place behind FPU_FREE, and the cycles from
then to the next entry, without the one that it takes; TURN marks one that only `turns` can take.

Of each lane in a cycle: `time` till its next entry, what it `asked` for last, and how long it `holds` that: till the
cycle after it is served. All that is asked for serves one after the other, one a cycle, so an access waits for as many
cycles as there are lanes that ask for the same: all that have not been served yet, and of those of this cycle the ones
before it in the order of cores, which is that of the lanes.
"""

from __future__ import annotations

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import layout as at
from pulpsim.engine.calendar import queue
from pulpsim.engine.layout import E_KIND as KIND, E_OPERANDS as OPERAND
from pulpsim.jit import (
    add_bytes,
    choose,
    doubled,
    eight_bytes,
    firsts,
    heapless,
    highest_bits,
    inlined,
    less,
    load_bytes,
    lowest_bit,
    matches,
    lower_halves,
    native,
    pairs,
    seconds,
    sixteen_bytes,
    spread,
    store_bytes,
    upper_halves,
    window,
    without,
)

BANK_CONFLICT, FPU_CONTENTION = int(Cause.BANK_CONFLICT), int(Cause.FPU_CONTENTION)
ONE = np.uint64(1)


@heapless
def pair(c, traces):
    """The pairs of a core's new entries. Behind the last one no gap is known: it is for `turns`."""
    entries, heads, pairs_, none = traces[0], traces[1], traces[8][0], sixteen_bytes()
    first, last = heads[c * at.HEAD_FIELDS + at.H_NEXT], heads[c * at.HEAD_FIELDS + at.H_END]
    entries[last] = 0
    for place in range(first, last, 16):
        gaps = upper_halves(entries, place + 1, none) - spread(1, none)
        store_bytes(pairs(lower_halves(entries, place, none), gaps), pairs_, place)


@inlined
def _asks(place, first, heads, head, entries):
    """What the entry before this one asked for, or -1."""
    entry = entries[place - 1] if place > first else heads[head + at.H_LAST]
    return entry & OPERAND if entry & KIND == at.E_SHARED else np.int64(-1)


@heapless
def _order(s, cores):
    """The cores in their order; lanes beyond them have none, -1."""
    lane = 0
    for lane in range(at.LANES):
        cores[lane] = -1
    lane = 0
    if s[at.FIRST] != 0:
        cores[0] = at.LAST_CORE - lowest_bit(np.uint64(s[at.FIRST]))
        lane = 1
    for c in range(s[at.CORES] - 1, -1, -1):
        if lane == 0 or c != cores[0]:
            cores[lane] = c
            lane += 1


@heapless
def _enter(now, until, s, traces):
    """Take lanes from the calendar. Returns up to which cycle nothing else is due; `now` if that cannot be."""
    entries, heads = traces[0], traces[1]
    _, bytes_, numbers = traces[8]
    end, found, far = until, np.uint64(0), np.uint64(s[at.FAR])
    while far != 0:
        agent = lowest_bit(far)
        far &= far - ONE
        found |= ONE << np.uint64(agent)
        end = min(end, s[at.WHEN + agent] - at.SLOTS)
    _order(s, numbers[at.L_CORES :])
    for place in range(at.LANES):
        bytes_[at.L_TIME + place], bytes_[at.L_STEP + place] = 255, 0
        bytes_[at.L_ASKED + place], bytes_[at.L_HOLDS + place] = 255, 0
    for place in range(3 * at.LANES):
        numbers[place] = 0
    held, running = np.int64(0), np.int64(0)
    for ahead in range(at.SLOTS):
        due = np.uint64(s[at.MASKS + (now + ahead & at.SLOTS - 1)])
        if due >> np.uint64(at.STREAMS):
            end = min(end, now + ahead)
        due &= np.uint64(at.CORE_AGENTS)
        while due != 0:
            agent = lowest_bit(due)
            due &= due - ONE
            c = at.LAST_CORE - agent
            lane = np.int64(0)
            while numbers[at.L_CORES + lane] != c:
                lane += 1
            head = c * at.HEAD_FIELDS
            place = heads[head + at.H_NEXT]
            if place == heads[head + at.H_END]:
                return now
            bytes_[at.L_TIME + lane], bytes_[at.L_STEP + lane] = ahead, 1
            numbers[at.L_PLACES + lane] = place
            asked = _asks(place, c * at.TRACE, heads, head, entries)
            holds = ahead + 1 - (entries[place] >> at.E_GAP)
            if asked >= 0 and holds > 0:
                bytes_[at.L_ASKED + lane], bytes_[at.L_HOLDS + lane] = asked, holds
                held += 1
    for place in range(at.FPU_FREE, at.BANK_FREE + s[at.BANKS]):
        held -= max(s[place] - now, 0)
    if held != 0:
        return now
    return end


@heapless
def _leave(begin, now, s, traces):
    """Lanes go back to the calendar. Returns the entries that they took."""
    heads = traces[1]
    _, bytes_, numbers = traces[8]
    for slot in range(at.MASKS, at.MASKS + at.SLOTS):
        s[slot] &= ~at.CORE_AGENTS
    s[at.NOW] = now
    taken = np.int64(0)
    for lane in range(at.LANES):
        if bytes_[at.L_STEP + lane] == 0:
            continue
        c = np.int64(numbers[at.L_CORES + lane])
        head, k = c * at.HEAD_FIELDS, at.CORE + c * at.CORE_FIELDS
        taken += numbers[at.L_PLACES + lane] - heads[head + at.H_NEXT]
        heads[head + at.H_NEXT] = numbers[at.L_PLACES + lane]
        s[k + at.COUNT + BANK_CONFLICT] += numbers[at.L_WAITS + lane] - numbers[at.L_FPU_WAITS + lane]
        s[k + at.COUNT + FPU_CONTENTION] += numbers[at.L_FPU_WAITS + lane]
        queue(at.LAST_CORE - c, now + bytes_[at.L_TIME + lane], s)
        if bytes_[at.L_HOLDS + lane]:
            place = at.FPU_FREE + bytes_[at.L_ASKED + lane]
            s[place] = max(s[place], now + bytes_[at.L_HOLDS + lane])
    return taken


@inlined
def _cycles(none, now, end, traces):
    """The lanes' cycles up to `end`, or to one in which some lane's entry is for `turns`, which is returned."""
    pairs_, bytes_, numbers = traces[8]
    time, step = load_bytes(bytes_, at.L_TIME, none), load_bytes(bytes_, at.L_STEP, none)
    asked, holds = load_bytes(bytes_, at.L_ASKED, none), load_bytes(bytes_, at.L_HOLDS, none)
    one, banks = spread(1, none), spread(at.FIRST_BANK, none)
    more = True
    while more and end - now >= 4:
        entry, second, third, fourth = window(pairs_, numbers, none)
        taken, waits, fpu_waits = none, none, none
        for _ in range(4):
            due = time == none
            both = doubled(due)
            if highest_bits(both & entry) != 0:
                more = False
                break
            asks = firsts(entry)
            before = asked | (holds == none)
            asked = without(before, without(due, asks))
            served = matches(asked, before) & due
            time = time - step + served + (seconds(entry) & due)
            holds = less(holds | served, one)
            wait = holds & due
            taken, waits, fpu_waits = taken - due, waits + wait, fpu_waits + (wait & (asks < banks))
            entry, second, third = choose(both, second, entry), choose(both, third, second), choose(both, fourth, third)
            now += 1
        add_bytes(taken, numbers, at.L_PLACES)
        add_bytes(waits, numbers, at.L_WAITS)
        add_bytes(fpu_waits, numbers, at.L_FPU_WAITS)
    store_bytes(time, bytes_, at.L_TIME)
    store_bytes(asked, bytes_, at.L_ASKED)
    store_bytes(holds, bytes_, at.L_HOLDS)
    return now


@heapless
def cycles(now, end, traces):
    return _cycles(eight_bytes(), now, end, traces)


@native
def bench(now, end, traces):
    return _cycles(eight_bytes(), now, end, traces)


@native
def benchpair(c, traces):
    pair(c, traces)
    return 0


@heapless
def stride(now, until, s, traces):
    """Handle cycles from `now` on, before `until`. Returns the first one that is not handled."""
    if until - now < at.WINDOW:
        return now
    end = _enter(now, until, s, traces)
    if end - now < at.WINDOW:
        return now
    then = cycles(now, end, traces)
    if then > now:
        s[at.TAKEN_BY_LANES] += _leave(now, then, s, traces)
    return then
