"""The fast engine's compiled loop: events of cores and of the DMA, cycle by cycle, on flat arrays (`layout`).

The contract's order of events is kept without a queue entry per event (see `calendar`), so a core runs
ahead through instructions that concern nobody else (`layout.LAST_PRIVATE`), never past `until`; loads,
stores and all that is shared happen in exact order. What is rare is handled by `_event`, out of the hot loop.
"""

from __future__ import annotations

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import Status
from pulpsim.engine import layout as at
from pulpsim.engine.banks import reserve, take_turn
from pulpsim.engine.calendar import ONE, migrate, next_busy, queue
from pulpsim.engine.control import reset
from pulpsim.engine.events import event
from pulpsim.engine.execution import address, fetch_mark, fmadd, follow, run_ahead, word_access
from pulpsim.engine.icache import bring, refill
from pulpsim.engine.ports import served, stream_event
from pulpsim.engine.teams import any_runs
from pulpsim.engine.traces.kept import begin_stretch, is_full
from pulpsim.engine.traces.lanes import stride
from pulpsim.engine.traces.turns import turn
from pulpsim.engine.watching import LOG_FULL, executed, remember, waited, waited_since
from pulpsim.jit import heapless, inlined, lowest_bit, native, unlikely

# Numba freezes plain integers: the enumerations' members as such.
ISSUE, LOAD_USE, BANK_CONFLICT, FPU_CONTENTION = (int(Cause(i)) for i in range(4))
MULDIV, ICACHE = int(Cause.MULDIV), int(Cause.ICACHE)
OFF, RUNNING = int(Status.OFF), int(Status.RUNNING)


@native
def start(c, place, time, s, registers, values, present):
    """Give a core its registers and its first event."""
    queue(at.LAST_CORE - c, time, s)
    s[at.QUEUED] += 1
    s[at.GONE] &= ~(np.int64(1) << c)
    k, base = at.CORE + c * at.CORE_FIELDS, c * at.REGISTER_STRIDE
    reset(c, s)
    s[k + at.COUNT0] = s[k + at.COUNT1] = 0
    s[k + at.START0] = s[k + at.END0] = s[k + at.START1] = s[k + at.END1] = -1
    s[k + at.PLACE], s[k + at.STATUS] = place | fetch_mark(place, c, s, present), RUNNING
    for i in range(1, values.shape[0]):
        registers[base + i] = np.int32(values[i])
    registers[base] = 0


@native
def start_team(cores, place, s, registers, times, values, present):
    """Make the first cores the team, and give each its registers and its first event.

    Returns -1; if one of them runs, the first that does, and does nothing.
    """
    for c in range(cores):
        if s[at.CORE + c * at.CORE_FIELDS + at.STATUS] != OFF:
            return c
    s[at.TEAM] = (np.int64(1) << cores) - 1
    s[at.ARRIVED] = s[at.GONE] = s[at.DEADLOCKED] = s[at.FIRST] = 0
    for c in range(cores):
        start(c, place, times[c], s, registers, values[c], present)
    return -1


@inlined
def _rare(
    c, k, base, now, s, rows, fields, registers, l1, words, l2, l2_words, tags, present, full, counted, watch
):  # fmt: skip
    """A core's event that `_turn` has no short way for. Returns as `_turn` does."""
    place = s[k + at.PLACE]
    row = place & at.PLACES
    if place & at.FETCH:
        bring(c, k, row // at.LINE, s, tags, present, None)
        cost = refill(row // at.LINE, s, tags, None)
        s[k + at.COUNT + ICACHE] += cost
        s[k + at.PLACE] = place ^ at.FETCH
        if watch is not None:
            waited(c, row, ICACHE, cost, s, watch)
        return now + cost
    stall, cause = np.int64(0), LOAD_USE
    if place & at.AFTER_LOAD:
        stall = s[at.LOAD_USE]
    elif place & at.AFTER_MUL:
        stall, cause = s[at.MUL_USE], MULDIV
    if fields[row + at.R_KIND] & at.KIND == at.K_FMADD:
        cost = 1 + stall
        s[k + at.COUNT + cause] += stall
        if counted is not None:
            s[k + at.DID_FP_OPERATIONS] += 1
        fmadd(base, row, fields, registers)
        if watch is not None:
            executed(c, row, now, -1, s, fields, registers, watch)
            waited(c, row, cause, stall, s, watch)
        s[k + at.PLACE] = follow(row, c, k, s, fields, present)
    else:
        if watch is not None:
            remember(k, s)
        s[k + at.COUNT + cause] += stall
        cost = event(
            c, k, row, stall, cause, s, rows, registers, l1, words, l2, l2_words, fields, present, full, counted, watch,
            None,
        )  # fmt: skip
        if watch is not None:
            waited_since(c, k, row, s, watch)
    s[k + at.COUNT + ISSUE] += cost > 0
    return now + cost if cost > 0 else cost


@inlined
def _turn(
    c, now, horizon, s, rows, fields, registers, l1, words, l2, l2_words, tags, present, full, counted, watch
):  # fmt: skip
    """A core's event, and what it may do ahead of time.

    Returns the cycle of its next event; 0 if something else will queue that, -1 if the core trapped.
    """
    base, k = c * at.REGISTER_STRIDE, at.CORE + c * at.CORE_FIELDS
    place, time, issued = s[k + at.PLACE], now, now
    row = place & at.PLACES
    kind = fields[row + at.R_KIND] & at.KIND
    if unlikely(place > at.PLACES):
        kind = np.int64(at.KIND)
    if kind > at.LAST_PRIVATE:
        wait, cause, touched = np.int64(-1), BANK_CONFLICT, np.int64(-1)
        if watch is not None:  # noqa: SIM102
            if s[at.LOGGING] and kind <= at.LAST_WORD:
                touched = address(row, base, fields, registers)
        if kind == at.K_LOAD_NEXT:
            wait = word_access(at.K_LOAD_NEXT, row, now, c, k, base, s, fields, registers, words, counted, None)
        elif kind <= at.LAST_WORD:
            wait = word_access(kind, row, now, c, k, base, s, fields, registers, words, counted, None)
        elif kind == at.K_SHARED_FMADD:
            wait, cause = reserve(at.FPU_FREE + s[k + at.FPU_INDEX], now, s) - now, FPU_CONTENTION
            s[k + at.COUNT + FPU_CONTENTION] += wait
            if counted is not None:
                s[k + at.DID_FP_OPERATIONS] += 1
            fmadd(base, row, fields, registers)
        if unlikely(wait < 0):
            return _rare(
                c, k, base, now, s, rows, fields, registers, l1, words, l2, l2_words, tags, present, full, counted,
                watch,
            )  # fmt: skip
        if watch is not None:
            executed(c, row, now, touched, s, fields, registers, watch)
            if unlikely(wait > 0):
                waited(c, row, cause, wait, s, watch)
        place = row + at.ROW
        if fields[row + at.R_KIND] > at.KIND:
            place = follow(row, c, k, s, fields, present)
        time = now + 1
        if unlikely(wait > 0):
            time, issued = time + wait, now + wait
    place, time = run_ahead(place, time, horizon, c, k, base, s, rows, fields, registers, present, counted, watch)
    s[k + at.COUNT + ISSUE] += time - issued
    s[k + at.PLACE] = place
    return time


@heapless
def _grant(s, watch):
    """Round-robin: every bank serves one of the accesses that wait."""
    now = s[at.NOW]
    for bank in range(s[at.BANKS]):
        if s[at.WAITING + bank] == 0:
            continue
        number = take_turn(bank, s)
        if number >= s[at.CORES]:
            served(number - s[at.CORES], s)
            continue
        k = at.CORE + number * at.CORE_FIELDS
        s[k + at.COUNT + BANK_CONFLICT] += now - s[k + at.SINCE]
        if watch is not None:
            waited(number, s[k + at.HELD_ROW], BANK_CONFLICT, now - s[k + at.SINCE], s, watch)
        queue(at.LAST_CORE - number, now + s[k + at.WAIT_COST], s)


@native
def advance(
    until, s, rows, fields, registers, l1, words, l2, l2_words, tags, present, full, counted, watch, traces
):  # fmt: skip
    """Handle events before `until`. Returns True if a core trapped, or its trace cannot go on (STOPPED).

    rows and fields are the decoded rows as int32 and as uint32: what cannot be negative is read from
    the latter. l1, words and l2, l2_words are the memories as bytes and as int32; tags, present: see
    `icache`. full: True or None, see `_event`. counted: True to count
    what `Work` names, None to leave that out. watch: see `watching`, or None. Watched, it also ends when the log
    might not hold what the next cycle adds. traces: see `traces.kept`; with them cores run ahead of time, by
    themselves, and their events come from their traces.
    """
    now, soon = s[at.NOW], np.uint64(0)  # soon: agents with an event in the next cycle, beside those in MASKS
    s[at.REPORTS] = s[at.ENDS] = 0
    if traces is not None:  # noqa: SIM102 - a branch on None is left out when it is compiled
        if s[at.AHEAD] == 0 and any_runs(s):
            begin_stretch(s, registers, traces)
    while now < until and s[at.ENDS] == 0 and s[at.QUEUED] > 0:
        if watch is not None:  # noqa: SIM102
            if s[at.LOGGED] > LOG_FULL:
                break
        s[at.NOW] = now
        if unlikely(s[at.FAR] != 0):
            migrate(s)
        if traces is not None:
            then = stride(now, until, s, words, l2_words, traces)
            if then > now:
                now = then
                continue
        slot = at.MASKS + (now & (at.SLOTS - 1))
        later, soon = np.uint64(s[slot]) | soon, np.uint64(0)
        if later == 0 and s[at.BANK_WAITERS] == 0:
            now = min(next_busy(s), until)
            continue
        s[slot] = 0
        streams, later = later >> np.uint64(at.STREAMS), later & np.uint64(at.CORE_AGENTS)
        due = later & np.uint64(s[at.FIRST])
        later ^= due
        horizon = min(until, now + at.SLOTS - 1)
        while True:
            while due != 0:
                agent = lowest_bit(due)
                due &= due - ONE
                c = at.LAST_CORE - agent & at.LAST_CORE
                if traces is None:
                    when = _turn(
                        c, now, horizon, s, rows, fields, registers, l1, words, l2, l2_words, tags, present, full,
                        counted, watch,
                    )  # fmt: skip
                else:
                    when = turn(
                        c, now, s, rows, fields, registers, l1, words, l2, l2_words, tags, present, counted, traces
                    )
                if unlikely(when <= 0):
                    if when < 0:
                        return True
                elif traces is None and when == now + 1:
                    soon |= ONE << np.uint64(agent)
                else:
                    queue(agent, when, s)
            if later == 0:
                break
            due, later = later, due
        if unlikely(streams != 0):
            if traces is not None:  # noqa: SIM102
                if s[at.AHEAD] and is_full(s, traces):
                    s[at.STOPPED] = 1
                    return True
            for way in range(2):
                if streams >> np.uint64(way) & ONE:
                    when = stream_event(way, now, s, words, l2_words, traces)
                    if traces is None and when == now + 1:
                        soon |= ONE << np.uint64(at.STREAMS + way)
                    elif when > 0:
                        queue(at.STREAMS + way, when, s)
        if s[at.BANK_WAITERS] > 0:
            _grant(s, watch)
        now += 1
        if traces is not None:  # noqa: SIM102
            if s[at.RELEASED] and s[at.AHEAD]:
                s[at.NOW] = now
                begin_stretch(s, registers, traces)
    s[at.NOW] = now
    s[at.MASKS + (now & (at.SLOTS - 1))] |= np.int64(soon)
    return False
