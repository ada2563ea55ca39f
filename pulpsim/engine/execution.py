"""What instructions do that concern only their core, and which one follows; for the fast engines."""

from __future__ import annotations

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import layout as at
from pulpsim.engine.arithmetic import alu, fpu, fused, wide
from pulpsim.engine.operations import FUSED, Alu, Loop
from pulpsim.engine.traces.touched import may_touch
from pulpsim.engine.watching import executed, executed_in_a_row, log_executed
from pulpsim.jit import inlined, unlikely
from pulpsim.memory import L1_BASE

MASK = 0xFFFFFFFF
BANK_CONFLICT = int(Cause.BANK_CONFLICT)


@inlined
def loop_end(k, place, s):
    """What follows the row at `place`, the last instruction of some hardware loop."""
    after = place + at.ROW
    first = s[k + at.END0] == place
    if first and s[k + at.COUNT0] > 1:
        s[k + at.COUNT0] -= 1
        after = s[k + at.START0]
    else:
        if first:
            s[k + at.COUNT0] = 0
        if s[k + at.END1] == place:
            if s[k + at.COUNT1] > 1:
                s[k + at.COUNT1] -= 1
                after = s[k + at.START1]
            else:
                s[k + at.COUNT1] = 0
    return after & at.PLACES


@inlined
def fetch_mark(place, c, s, present):
    """FETCH if the line of this place is not in the core's cache."""
    line = (c * s[at.LINES] + (place & at.PLACES) // at.LINE) & at.PLACES
    return np.int64(0) if present[line] else at.FETCH


@inlined
def late_mark(place, late, fields):
    """AFTER_LOAD or AFTER_MUL if the instruction at this place reads the register that is written late."""
    reads = fields[place + at.R_USES + (late >> 5 & 1)] >> (late & 31) & 1
    return np.int64(reads) * (at.AFTER_LOAD if late < 64 else at.AFTER_MUL)


@inlined
def follow(row, c, k, s, fields, present):
    """A core's next place after the row at `row`, which is no jump."""
    look = fields[row + at.R_KIND]
    place = loop_end(k, row, s) if look & at.LOOP_END else row + at.ROW
    marks = np.int64(0)
    if look & at.LATE:
        marks = late_mark(place, np.int64(fields[row + at.R_LATE]), fields)
    if look & at.LINE_END:
        marks |= fetch_mark(place, c, s, present)
    return place | marks


@inlined
def private(kind, c, k, row, s, rows, registers, counted):
    """Execute an instruction that concerns only its core (any FP operation included)."""
    base = c * at.REGISTER_STRIDE
    rd, sub = rows[row + at.R_RD], np.int64(rows[row + at.R_SUB])
    a = np.int64(registers[base + rows[row + at.R_RS1]])
    b = np.int64(registers[base + rows[row + at.R_RS2]])
    d = np.int64(registers[base + rows[row + at.R_RS3]])
    immediate = np.int64(rows[row + at.R_IMM])
    if kind == at.K_LOOP or kind == at.K_SLOW_LOOP:
        level = k + 3 * rd
        if sub == Loop.SETUP or sub == Loop.COUNT:
            s[level + at.COUNT0] = (a + immediate) & MASK
        if sub == Loop.SETUP:
            s[level + at.START0] = row + at.ROW
        if sub == Loop.START:
            s[level + at.START0] = rows[row + at.R_TARGET]
        if sub == Loop.SETUP or sub == Loop.END:
            s[level + at.END0] = rows[row + at.R_TARGET]
        return
    if kind == at.K_ADD:
        result = a + b + immediate
    elif kind == at.K_ALU:
        result = np.int64(c) if sub == Alu.MHARTID else alu(sub, a, b + immediate, d)
    elif kind == at.K_WIDE:
        result = wide(sub, a, b, d, immediate, np.int64(rows[row + at.R_CYCLES]))
    elif sub < FUSED:
        result = fused(sub, a, b, d)
    else:
        result = fpu(sub, a, b, immediate)
    if counted is not None:  # noqa: SIM102 - a branch on None is left out when it is compiled
        if kind > at.K_WIDE or kind == at.K_FMADD:
            s[k + at.DID_FP_OPERATIONS] += 1
    registers[base + rd] = np.int32(result)


@inlined
def fmadd(base, row, fields, registers):
    """Execute fmadd.s, but do not count it."""
    registers[base + np.int64(fields[row + at.R_RD])] = np.int32(
        fused(
            0,
            registers[base + np.int64(fields[row + at.R_RS1])],
            registers[base + np.int64(fields[row + at.R_RS2])],
            registers[base + np.int64(fields[row + at.R_RS3])],
        )
    )


@inlined
def address(row, base, fields, registers):
    """Of a load or store: where its access is."""
    origin = np.int64(registers[base + np.int64(fields[row + at.R_RS1])])
    offset = np.int64(registers[base + np.int64(fields[row + at.R_RS3])]) + np.int32(fields[row + at.R_IMM])
    return origin + (offset & np.int32(fields[row + at.R_PRE])) & MASK


@inlined
def run_ahead(place, time, horizon, c, k, base, s, rows, fields, registers, present, counted, watch):
    """Execute what concerns nobody else, one instruction a cycle. Returns the next place and its cycle."""
    products = np.int64(0)  # what _fmadd did: a store for each would cost time
    while time < horizon and place <= at.PLACES:
        row = place & at.PLACES
        kind = fields[row + at.R_KIND] & at.KIND
        if kind == at.K_FMADD:
            more = min(np.int64(fields[row + at.R_RUN]), horizon - time - 1)
            if counted is not None:
                products += 1 + more
            last, logged = row + at.ROW * more, False
            if watch is not None:
                executed_in_a_row(c, row, more, fields, watch)
                logged = s[at.LOGGING] != 0
            while row < last:
                fmadd(base, row, fields, registers)
                if watch is not None:  # noqa: SIM102 - a branch on None is left out when it is compiled
                    if logged:
                        log_executed(c, row, time, -1, s, fields, registers, watch)
                row = row + at.ROW & at.PLACES
                time += 1
            fmadd(base, row, fields, registers)
            if watch is not None:  # noqa: SIM102
                if logged:
                    log_executed(c, row, time, -1, s, fields, registers, watch)
        elif kind == at.K_ADD:
            registers[base + np.int64(fields[row + at.R_RD])] = np.int32(
                np.int64(registers[base + np.int64(fields[row + at.R_RS1])])
                + np.int64(registers[base + np.int64(fields[row + at.R_RS2])])
                + np.int32(fields[row + at.R_IMM])
            )
        elif kind <= at.LAST_PRIVATE:
            private(kind, c, k, row, s, rows, registers, counted)
        else:
            break
        if watch is not None:  # noqa: SIM102
            if kind != at.K_FMADD:
                executed(c, row, time, -1, s, fields, registers, watch)
        time += 1
        place = row + at.ROW
        if fields[row + at.R_KIND] > at.KIND:
            place = follow(row, c, k, s, fields, present)
    if counted is not None:
        s[k + at.DID_FP_OPERATIONS] += products
    return place, time


@inlined
def word_access(kind, row, now, c, k, base, s, fields, registers, words, counted, traces):
    """Load or store a word of L1. Returns the cycles it waits for its bank - of a core ahead of time (see
    `traces.values`) the bank -, -1 if it is not such a word, or none that may be touched ahead of time."""
    origin, offset = registers[base + np.int64(fields[row + at.R_RS1])], np.int32(fields[row + at.R_IMM])
    inside = np.uint32(np.int64(origin) - L1_BASE)
    if kind != at.K_LOAD_NEXT:
        offset = np.int32(offset + registers[base + np.int64(fields[row + at.R_RS3])])
        inside = np.uint32(inside + (offset & np.int32(fields[row + at.R_PRE])))
    word = np.int64(np.uint32(inside >> np.uint32(2)) | np.uint32(inside << np.uint32(30)))
    if word >= s[at.L1_WORDS]:
        return np.int64(-1)
    wait = np.int64(0)
    if traces is not None:
        if unlikely(not may_touch(word, kind == at.K_STORE_WORD, c, s, words, word, traces)):
            return np.int64(-1)
        wait = word & s[at.BANK_MASK]
    elif s[at.CONFLICTS]:
        bank = at.BANK_FREE + (word & s[at.BANK_MASK])
        free = s[bank]
        if free > now:
            wait = free - now
            s[k + at.COUNT + BANK_CONFLICT] += wait
            s[bank] = free + 1
        else:
            s[bank] = now + 1
    if kind == at.K_STORE_WORD:
        words[word] = registers[base + np.int64(fields[row + at.R_RS2])]
    registers[base + np.int64(fields[row + at.R_BASE])] = np.int32(origin + offset)
    if kind != at.K_STORE_WORD:
        registers[base + np.int64(fields[row + at.R_RD])] = words[word]
    if counted is not None:
        s[k + at.DID_L1_WORDS] += 1
    return wait
