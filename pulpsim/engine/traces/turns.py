"""A core's events by its trace: who waits how long for what."""

from __future__ import annotations

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import layout as at
from pulpsim.engine.banks import reserve_both
from pulpsim.engine.events import divided
from pulpsim.engine.icache import refill
from pulpsim.engine.teams import any_runs, arrive, leave
from pulpsim.engine.traces.kept import is_full
from pulpsim.engine.traces.lanes import pair
from pulpsim.engine.traces.recalled import RECALLING, begin_part, end_part, recall
from pulpsim.engine.traces.values import run_by_itself
from pulpsim.jit import heapless, inlined, unlikely

BANK_CONFLICT, FPU_CONTENTION, ICACHE = int(Cause.BANK_CONFLICT), int(Cause.FPU_CONTENTION), int(Cause.ICACHE)
assert BANK_CONFLICT == FPU_CONTENTION - 1


@heapless
def _rare(c, now, entry, s, tags, traces):
    """An entry that is not for a bank or an FPU: the cycles that it waits, or as `turn` returns."""
    kind, operand, k = entry & at.E_KIND, entry & at.E_OPERANDS, at.CORE + c * at.CORE_FIELDS
    if kind == at.E_NOTHING:
        return np.int64(0)
    if kind == at.E_CROSSING:
        wait = reserve_both(operand - at.FIRST_BANK, now, s)
        s[k + at.COUNT + BANK_CONFLICT] += wait
        return wait
    if kind == at.E_DIVIDER:
        return divided(k, now, s)
    if kind == at.E_REFILL and not is_full(s, traces):
        wait = refill(operand, s, tags, traces)
        s[k + at.COUNT + ICACHE] += wait
        return wait
    if kind == at.E_BARRIER:
        arrive(c, s[k + at.PLACE], operand, s, None)
        return np.int64(-2)
    if kind == at.E_RETURN:
        leave(c, s)
        s[at.AHEAD] = any_runs(s)  # when all have returned, values are those of now
        return np.int64(-2)
    s[at.STOPPED] = 1
    return np.int64(-1)


@inlined
def _next_part(c, s, rows, fields, registers, l1, words, l2, l2_words, tags, present, counted, traces):
    """A core's trace goes on. Returns where, now."""
    if s[at.RECALL] == RECALLING:
        recall(c, s, registers, tags, present, traces)
    else:
        begin_part(c, s, traces)
        run_by_itself(c, s, rows, fields, registers, l1, words, l2, l2_words, tags, present, counted, traces)
        end_part(c, s, registers, traces)
    pair(c, traces)
    return traces[1][c * at.HEAD_FIELDS + at.H_NEXT]


@inlined
def turn(c, now, s, rows, fields, registers, l1, words, l2, l2_words, tags, present, counted, traces):
    """A core's next entry. Returns the cycle of the one after it; 0 if something else will queue that, -1 if its trace
    cannot go on."""
    entries, heads, head = traces[0], traces[1], c * at.HEAD_FIELDS
    place, wait = heads[head + at.H_NEXT], np.int64(0)
    if unlikely(place == heads[head + at.H_END]):
        place = _next_part(c, s, rows, fields, registers, l1, words, l2, l2_words, tags, present, counted, traces)
        gap = entries[place] >> at.E_GAP
        if gap > 0:
            return now + gap
    entry = entries[place]
    if unlikely(entry & at.E_KIND != at.E_SHARED):
        wait = _rare(c, now, entry, s, tags, traces)
    else:
        shared = at.FPU_FREE + (entry & at.E_OPERANDS)
        served = max(s[shared], now)
        wait = served - now
        s[shared] = served + 1
        cause = FPU_CONTENTION - (shared >= at.BANK_FREE)
        s[at.CORE + c * at.CORE_FIELDS + at.COUNT + cause] += wait
    place += 1
    heads[head + at.H_NEXT] = place
    if unlikely(wait < 0):
        return wait + 2 if wait == -2 else wait
    if unlikely(place == heads[head + at.H_END]):
        heads[head + at.H_LAST] = entry
        place = _next_part(c, s, rows, fields, registers, l1, words, l2, l2_words, tags, present, counted, traces)
    return now + wait + (entries[place] >> at.E_GAP)
