"""A core by itself, ahead of time: all that it computes, and the trace of what it asks for."""

from __future__ import annotations

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import layout as at
from pulpsim.engine.events import event
from pulpsim.engine.execution import fmadd, follow, run_ahead, word_access
from pulpsim.engine.icache import bring
from pulpsim.engine.traces.touched import find_moved
from pulpsim.jit import call_code, heapless, inlined, unlikely

ISSUE, LOAD_USE, MULDIV = int(Cause.ISSUE), int(Cause.LOAD_USE), int(Cause.MULDIV)
#: cycles in which a core asks for nothing
LONGEST = 1 << 16


@inlined
def _note(place, claim, gap, traces):
    """The next entry of a trace."""
    traces[0][place] = gap << at.E_GAP | claim
    return place + 1


@inlined
def _run_translated(c, k, place, end, gap, s, traces):
    """As far as a program's translation goes from here. Returns place, end and gap."""
    heads, codes, words, head, row = traces[1], traces[6], traces[7], c * at.HEAD_FIELDS, place // at.ROW * at.P_FIELDS
    s[k + at.PLACE], heads[head + at.H_END], heads[head + at.H_GAP] = place, end, gap
    words[0], words[1] = c, codes[row + at.P_ORIGIN]
    call_code(codes[row], words)
    return s[k + at.PLACE], heads[head + at.H_END], heads[head + at.H_GAP]


@heapless
def run_by_itself(c, s, rows, fields, registers, l1, words, l2, l2_words, tags, present, counted, traces):
    """Run a core up to the end of its part of the trace, or to what it cannot do by itself."""
    k, base, first = at.CORE + c * at.CORE_FIELDS, c * at.REGISTER_STRIDE, c * at.TRACE
    head, end, last = c * at.HEAD_FIELDS, first, first + at.TRACE - 2
    place, gap, issued = s[k + at.PLACE], traces[1][head + at.H_GAP], np.int64(0)
    find_moved(s)
    while end < last:
        translated = (place & at.PLACES) // at.ROW * at.P_FIELDS
        if traces[6][translated] != 0 and place <= at.PLACES:
            if end + traces[6][translated + at.P_ROOM] >= first + at.TRACE:
                break  # the translation goes on in the next part
            place, end, gap = _run_translated(c, k, place, end, gap, s, traces)
        if unlikely(gap >= LONGEST):  # it may go on so for ever
            end = _note(end, at.E_NOTHING, gap - 1, traces)
            gap = np.int64(1)
            break
        row, stall = place & at.PLACES, np.int64(0)
        if unlikely(place > at.PLACES):
            if place & at.FETCH:
                bring(c, k, row // at.LINE, s, tags, present, traces)
                end = _note(end, at.E_REFILL | row // at.LINE << at.E_OPERAND, gap, traces)
                gap = np.int64(0)
                place ^= at.FETCH
                continue
            stall = s[at.LOAD_USE] if place & at.AFTER_LOAD else s[at.MUL_USE]
            s[k + at.COUNT + (LOAD_USE if place & at.AFTER_LOAD else MULDIV)] += stall
        kind, cost, claim = fields[row + at.R_KIND] & at.KIND, np.int64(-1), np.int64(at.NO_CLAIM)
        if kind <= at.LAST_PRIVATE:
            begin = gap
            place, gap = run_ahead(row, gap, LONGEST, c, k, base, s, rows, fields, registers, present, counted, None)
            issued += gap - begin
            gap += stall
            continue
        if kind <= at.LAST_WORD:
            if kind == at.K_LOAD_NEXT:
                bank = word_access(at.K_LOAD_NEXT, row, 0, c, k, base, s, fields, registers, words, counted, traces)
            else:
                bank = word_access(kind, row, 0, c, k, base, s, fields, registers, words, counted, traces)
            if bank >= 0:
                cost = np.int64(1)
                if s[at.CONFLICTS]:
                    claim = at.E_SHARED | (at.FIRST_BANK + bank) << at.E_OPERAND
        elif kind == at.K_SHARED_FMADD:
            fmadd(base, row, fields, registers)
            if counted is not None:
                s[k + at.DID_FP_OPERATIONS] += 1
            cost, claim = np.int64(1), at.E_SHARED | s[k + at.FPU_INDEX] << at.E_OPERAND
        if cost > 0:
            cost += stall
            place = row + at.ROW
            if fields[row + at.R_KIND] > at.KIND:
                place = follow(row, c, k, s, fields, present)
        else:
            cost = event(
                c, k, row, stall, LOAD_USE, s, rows, registers, l1, words, l2, l2_words, fields, present, None,
                counted, None, traces,
            )  # fmt: skip
            claim, place = s[at.CLAIM], s[k + at.PLACE]
        if unlikely(cost < 0):
            end = _note(end, at.E_STOP, gap, traces)
            break
        issued += 1
        if claim >= 0:
            end = _note(end, claim, gap, traces)
            gap = np.int64(0)
            if cost == 0:  # a barrier, which has been counted, or the end
                issued -= 1
                break
        gap += cost
    s[k + at.PLACE] = place
    s[k + at.COUNT + ISSUE] += issued
    traces[1][head + at.H_NEXT], traces[1][head + at.H_END], traces[1][head + at.H_GAP] = first, end, gap
