"""Many cycles in which cores ask for nothing but banks and FPUs: each core is a lane of vectors of bytes, and each port
of the DMA that takes words (see `port_lanes`).

Entries are also kept as pairs of bytes: what one asks for, its place behind FPU_FREE counted from 1, and the cycles
from then to the next entry. In a pair that is for `turns`, of anything else or before a long gap, one of them has its
highest bit set.

Of each lane in a cycle: `time` till its next entry; what it `asked` for last, 255 once it has been served; how long it
`holds` that, until the cycle after it is served. A bank serves one a cycle, in the order in which they asked. So a lane
waits as many cycles as there are lanes that hold what it asks for, and lanes that ask for the same in this cycle and
come before it in their order, which is that of the lanes. A lane that is due holds nothing any more.

Cycles follow upon one another by `time`, so what is done from there to the next `time` takes most of it; little else
does. Entries are looked at in windows of some cycles; where one of them is for `turns`, in every cycle.
"""

from __future__ import annotations

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import layout as at
from pulpsim.engine.calendar import ONE, queue
from pulpsim.engine.traces import port_lanes
from pulpsim.jit import heapless, inlined, lowest_bit, vectors

BANK_CONFLICT, FPU_CONTENTION = int(Cause.BANK_CONFLICT), int(Cause.FPU_CONTENTION)
MOST_COUNTED = 128  #: cycles whose waits a byte can count: no more than those and one wait
#: cycles: a stride that was shorter does not pay; after one of those the next one is a short trial, some time later
PAYS, TRIAL, LONGEST_PAUSE = 8, 64, 4096


@heapless
def pair(c, traces):
    """Make the pairs of a core's new entries, and perhaps again those of the next core that lie behind them. The gap
    behind the last entry is not known: it is for `turns`."""
    entries, heads, pairs, none = traces[0], traces[1], traces[8][0], vectors.sixteen_bytes()
    first, last = heads[c * at.HEAD_FIELDS + at.H_NEXT], heads[c * at.HEAD_FIELDS + at.H_END]
    entries[last] = -1
    from_one = vectors.pairs(vectors.spread(1, none), none)
    for place in range(first, last, 16):
        vectors.store_bytes(vectors.halves(entries, place, none) + from_one, pairs, place)


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
    lane_bytes[at.L_TIME + lane], lane_bytes[at.L_STEP + lane] = ahead, at.STEP
    numbers[at.L_PLACES + lane] = place
    before = entries[place - 1] if place > c * at.TRACE else heads[head + at.H_LAST]
    holds = ahead + 1 - (entries[place] >> at.E_GAP)
    if before & at.E_KIND != at.E_SHARED or holds <= 0:
        return 0
    lane_bytes[at.L_ASKED + lane], lane_bytes[at.L_HOLDS + lane] = (before & at.E_OPERANDS) + 1, holds
    return 1


@heapless
def _enter(now, until, s, traces):
    """All cores join the lanes, and ports that can, and stay in the calendar. Returns up to which cycle nobody else is
    due; `now` if some core cannot join, or others hold something."""
    end, far, held = until, np.uint64(s[at.FAR]), 0
    while far != 0:
        agent = lowest_bit(far)
        far &= far - ONE
        end = min(end, s[at.WHEN + agent] - at.SLOTS)
    _clear(s, traces[8])
    for slot in range(at.SLOTS):
        due, ahead = np.uint64(s[at.MASKS + slot]), slot - now & at.SLOTS - 1
        while due != 0:
            agent = lowest_bit(due)
            due &= due - ONE
            if agent < at.STREAMS:
                holds = _take(at.LAST_CORE - agent, ahead, traces)
            else:
                holds = port_lanes.join(agent - at.STREAMS, now, s, traces)
            if holds < 0:
                end = min(end, now + ahead)
            held += max(holds, 0)
    for place in range(at.FPU_FREE, at.BANK_FREE + s[at.BANKS]):
        held -= max(s[place] - now, 0)
    return end if held == 0 else now


@heapless
def _leave(now, s, words, l2_words, traces):
    """All is as if `turn` had taken the lanes' entries, and ports their words. Returns how many."""
    heads, lane_bytes, numbers, taken, agents = traces[1], traces[8][1], traces[8][2], 0, np.int64(0)
    s[at.NOW] = now
    for lane in range(s[at.CORES]):
        if lane_bytes[at.L_STEP + lane] != 0:
            agents |= np.int64(1) << at.LAST_CORE - numbers[at.L_CORES + lane]
    for way in range(2):
        agents |= port_lanes.have_joined(way, traces[8]) << at.STREAMS + way
    for slot in range(at.MASKS, at.MASKS + at.SLOTS):
        s[slot] &= ~agents
    for way in range(2):
        if port_lanes.have_joined(way, traces[8]):
            taken += port_lanes.leave(way, now, s, words, l2_words, traces)
    for lane in range(at.LANES):
        if lane_bytes[at.L_HOLDS + lane] != 0:
            place = at.FPU_FREE + lane_bytes[at.L_ASKED + lane] - 1
            s[place] = max(s[place], now + lane_bytes[at.L_HOLDS + lane])
    for lane in range(s[at.CORES]):
        if lane_bytes[at.L_STEP + lane] == 0:
            continue
        c = np.int64(numbers[at.L_CORES + lane])
        head, count = c * at.HEAD_FIELDS, at.CORE + c * at.CORE_FIELDS + at.COUNT
        taken += numbers[at.L_PLACES + lane] - heads[head + at.H_NEXT]
        heads[head + at.H_NEXT] = numbers[at.L_PLACES + lane]
        s[count + BANK_CONFLICT] += numbers[at.L_WAITS + lane] - numbers[at.L_FPU_WAITS + lane]
        s[count + FPU_CONTENTION] += numbers[at.L_FPU_WAITS + lane]
        queue(at.LAST_CORE - c, now + lane_bytes[at.L_TIME + lane], s)
    return taken


# -- cycles ----------------------------------------------------------------------------------------
@inlined
def _words_of_ports(of_ports, lane_bytes):
    """The place before the next word, and how many are left, of each port's lane."""
    place = vectors.load_bytes(lane_bytes, at.L_NEXT + at.LANE_CORES, of_ports)
    return place, vectors.load_bytes(lane_bytes, at.L_LEFT + at.LANE_CORES, of_ports)


@inlined
def _cycles(none, of_cores, ports, now, end, s, words, l2_words, traces):
    """Handle cycles up to `end`, perhaps a few less, or to one in which an entry is for `turns` or ports cannot go on.
    Returns the first one that is not handled. none, of_cores: vectors of zeros, which say how many lanes there are and
    how many of them are cores'. ports: True if the others are those of ports, or None."""
    pairs, lane_bytes, numbers = traces[8]
    time, step = vectors.load_bytes(lane_bytes, at.L_TIME, none), vectors.load_bytes(lane_bytes, at.L_STEP, none)
    asked, holds = vectors.load_bytes(lane_bytes, at.L_ASKED, none), vectors.load_bytes(lane_bytes, at.L_HOLDS, none)
    one, banks, more = vectors.spread(1, none), vectors.spread(at.FIRST_BANK + 1, none), True
    if ports is not None:
        bank_mask = vectors.spread(s[at.BANK_MASK] if s[at.CONFLICTS] else 0, of_cores)
        first_bank = vectors.load_bytes(lane_bytes, at.L_FIRST + at.LANE_CORES, of_cores)
        place, left = _words_of_ports(of_cores, lane_bytes)
    while more and end - now >= vectors.WINDOW:
        pause, waits, fpu_waits = min(end, now + MOST_COUNTED), none, none
        while more and pause - now >= vectors.WINDOW:
            entry, second, third, fourth = vectors.window(pairs, numbers, of_cores)
            careful = vectors.highest_bits(entry | second | third | fourth) != 0
            taken, ending = none, 0
            for _ in range(vectors.WINDOW):
                due = time == none
                both = vectors.doubled(vectors.lowers(due, of_cores))
                if careful and vectors.highest_bits(both & entry) != 0:
                    more = False
                    break
                asks, gaps = vectors.firsts(entry), vectors.seconds(entry)
                if ports is not None:
                    taking = vectors.running_counts(vectors.uppers(due))
                    ending = vectors.highest_bits(vectors.uppers(due) & (vectors.less(left, taking) == of_cores))
                    if ending != 0:
                        break
                    took = vectors.fours_lasts(taking)
                    asks = vectors.joined(asks, (place + taking & bank_mask) + first_bank)
                    gaps = vectors.joined(gaps, vectors.lowers(one, of_cores))
                    place, left = place + took, left - took
                before = asked | (holds == none)
                asked = vectors.without(before, vectors.without(due, asks))
                wait = vectors.matches(asks & due, asked, before)
                time = time + step + (gaps & due) + wait
                holds = vectors.less(holds, one) + wait
                taken, waits, fpu_waits = taken - due, waits + wait, fpu_waits + (wait & (asks < banks))
                entry, second, third = (
                    vectors.choose(both, second, entry),
                    vectors.choose(both, third, second),
                    vectors.choose(both, fourth, third),
                )
                now += 1
            vectors.add_bytes(taken, numbers, at.L_PLACES)
            if ports is not None and ending != 0 and end - now >= vectors.WINDOW:
                vectors.store_bytes(time, lane_bytes, at.L_TIME)
                more = port_lanes.go_on(now, s, words, l2_words, traces)
                time = vectors.load_bytes(lane_bytes, at.L_TIME, none)
                place, left = _words_of_ports(of_cores, lane_bytes)
        vectors.add_bytes(waits, numbers, at.L_WAITS)
        vectors.add_bytes(fpu_waits, numbers, at.L_FPU_WAITS)
    vectors.store_bytes(time, lane_bytes, at.L_TIME)
    vectors.store_bytes(asked, lane_bytes, at.L_ASKED)
    vectors.store_bytes(holds, lane_bytes, at.L_HOLDS)
    return now


@heapless
def _stride(now, until, s, words, l2_words, traces):
    """Cycles from `now` on. Returns the first one that is not handled; s[OUT] are the entries and words taken."""
    s[at.OUT], lanes, eight, sixteen = 0, traces[8], vectors.eight_bytes(), vectors.sixteen_bytes()
    end = _enter(now, until, s, traces)
    if s[at.CORES] > at.LANE_CORES:
        then = _cycles(sixteen, sixteen, None, now, end, s, words, l2_words, traces)
    elif port_lanes.have_joined(0, lanes) or port_lanes.have_joined(1, lanes):
        end = min(end, now + port_lanes.LONGEST)
        then = _cycles(sixteen, eight, True, now, end, s, words, l2_words, traces)
    else:
        then = _cycles(eight, eight, None, now, end, s, words, l2_words, traces)
    if then > now:
        s[at.OUT] += _leave(then, s, words, l2_words, traces)
    return then


@inlined
def stride(now, until, s, words, l2_words, traces):
    """Handle cycles from `now` on, before `until`, if that pays. Returns the first one that is not handled."""
    if now < s[at.STRIDE_AT]:
        return now
    if s[at.STRIDE_PAUSE] > 0:
        until = min(until, now + TRIAL)
    then = _stride(now, until, s, words, l2_words, traces)
    if then - now >= PAYS and s[at.OUT] >= then - now:
        s[at.STRIDE_PAUSE] = 0
    else:
        s[at.STRIDE_PAUSE] = min(2 * s[at.STRIDE_PAUSE] + 1, LONGEST_PAUSE)
    s[at.STRIDE_AT] = then + 1 + s[at.STRIDE_PAUSE]
    return then
