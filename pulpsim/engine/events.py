"""Instructions that are events by themselves: what others share, what takes several cycles, what leads elsewhere."""

from __future__ import annotations

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import Kind, Trap
from pulpsim.engine import layout as at
from pulpsim.engine.arithmetic import branch_taken, divide, multiply, quotient_or_root
from pulpsim.engine.banks import access, reserve
from pulpsim.engine.calendar import report
from pulpsim.engine.control import exception, place_at, uncommon
from pulpsim.engine.execution import fetch_mark, follow, private
from pulpsim.engine.operations import Div, Jump
from pulpsim.engine.teams import arrive, leave
from pulpsim.engine.watching import executed
from pulpsim.jit import heapless, inlined, leading_zeros
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE, L2_BASE

MASK = 0xFFFFFFFF
BARRIER_ADDRESS = EVENT_UNIT_BASE + BARRIER_OFFSET

# Numba freezes plain integers: the enumerations' members as such.
ISSUE, FPU_CONTENTION = int(Cause.ISSUE), int(Cause.FPU_CONTENTION)
MULDIV, BRANCH = int(Cause.MULDIV), int(Cause.BRANCH)
TRAP = int(Kind.TRAP)
ADDRESS, TARGET, EVENT = int(Trap.ADDRESS), int(Trap.TARGET), int(Trap.EVENT)
ECALL = int(Trap.ECALL)  # the first of those that may have a handler


@inlined
def divided(k, now, s):
    """A core takes the divider: the cycles beyond one, counted."""
    begin = max(now, s[at.DIVIDER_FREE])
    s[at.DIVIDER_FREE] = begin + s[at.FDIV]
    extra = begin + s[at.FDIV] - now - 1
    s[k + at.COUNT + MULDIV] += extra
    return extra


@heapless
def event(
    c, k, row, stall, cause, s, rows, registers, l1, words, l2, l2_words, fields, present, full, counted, watch, traces
):  # fmt: skip
    """One instruction that the hot loop does not handle itself, at its event.

    full: None if no program has instructions of `control`; that module is not compiled then. Returns the
    cycles to the core's next event, not yet counted as ISSUE; 0 if something else will queue it, -1 for a
    trap. With traces it is executed ahead of time: CLAIM says what it asks for, which takes no time here, and -1 that
    it cannot be.
    """
    now, base = s[at.NOW], c * at.REGISTER_STRIDE
    s[at.CLAIM] = at.NO_CLAIM
    kind = rows[row + at.R_KIND] & at.KIND
    rd, sub, immediate = rows[row + at.R_RD], np.int64(rows[row + at.R_SUB]), np.int64(rows[row + at.R_IMM])
    a = np.int64(registers[base + rows[row + at.R_RS1]])
    b = np.int64(registers[base + rows[row + at.R_RS2]])
    cost, following, trap, touched = 1 + stall, np.int64(-1), np.int64(-1), np.int64(-1)
    address = (a + immediate) & MASK
    if kind == at.K_LOAD or kind == at.K_STORE or at.LAST_PRIVATE < kind <= at.LAST_WORD:
        store = kind == at.K_STORE or kind == at.K_STORE_WORD
        offset = np.int64(registers[base + rows[row + at.R_RS3]]) + immediate
        address = (a + (offset & rows[row + at.R_PRE])) & MASK
        size, touched = sub & 7, address
        state = access(c, address, size, store, b, s, l1, words, l2, l2_words, traces)
        if state == at.TRAPPED:
            trap = np.int64(ADDRESS)
        else:
            cost += s[at.OUT + 1]
            registers[base + rows[row + at.R_BASE]] = np.int32(a + offset)
            if not store:
                loaded = s[at.OUT]
                if sub & 8 and loaded >> (8 * size - 1) & 1:
                    loaded -= np.int64(1) << (8 * size)
                registers[base + rd] = np.int32(loaded)
            if state == at.BLOCKED:
                s[k + at.SINCE], s[k + at.WAIT_COST] = now, cost
                cost = np.int64(0)
                if watch is not None:
                    s[k + at.HELD_ROW] = row
    elif kind <= at.LAST_PRIVATE or kind == at.K_SHARED_FPU or kind == at.K_SHARED_FMADD:
        if kind > at.LAST_PRIVATE:
            if traces is None:
                wait = reserve(at.FPU_FREE + s[k + at.FPU_INDEX], now, s) - now
                cost += wait
                s[k + at.COUNT + FPU_CONTENTION] += wait
            else:
                s[at.CLAIM] = at.E_SHARED | s[k + at.FPU_INDEX] << at.E_OPERAND
        private(kind, c, k, row, s, rows, registers, counted)
    elif kind == at.K_BRANCH:
        if branch_taken(sub, a, b + immediate):
            following = np.int64(rows[row + at.R_TARGET])
            cost += s[at.TAKEN] - 1
            s[k + at.COUNT + BRANCH] += s[at.TAKEN] - 1
            if following < 0:
                trap = np.int64(TARGET)
                s[k + at.COUNT + BRANCH] -= s[at.TAKEN] - 1
                address = (L2_BASE + 4 * (row // at.ROW + rows[row + at.R_PRE])) & MASK
    elif kind == at.K_JUMP:
        if sub == Jump.JAL:
            address = (L2_BASE + 4 * (row // at.ROW + rows[row + at.R_PRE])) & MASK
            following = np.int64(rows[row + at.R_TARGET])
        else:
            address &= 0xFFFFFFFE
            following = place_at(address, s)
        if following < 0:
            trap = np.int64(TARGET)
        else:
            cost += s[at.JUMP] - 1
            s[k + at.COUNT + BRANCH] += s[at.JUMP] - 1
            registers[base + rd] = np.int32(L2_BASE + 4 * (row // at.ROW + 1))
    elif kind == at.K_MUL:
        registers[base + rd] = np.int32(multiply(sub, a, b))
        extra = np.int64(rows[row + at.R_CYCLES]) - 1
        cost += extra
        s[k + at.COUNT + MULDIV] += extra
    elif kind == at.K_DIV:
        registers[base + rd] = np.int32(divide(sub, a, b))
        is_signed = sub == Div.DIV or sub == Div.REM
        divisor = abs(b) if is_signed else b
        extra = np.int64(leading_zeros(np.uint32(divisor & MASK))) + s[at.DIV_BASE] - 1
        if is_signed and divisor == 0:
            extra = s[at.DIV_BY_ZERO] - 1
        cost += extra
        s[k + at.COUNT + MULDIV] += extra
    elif kind == at.K_SLOW_LOOP:
        private(kind, c, k, row, s, rows, registers, counted)
        extra = np.int64(rows[row + at.R_CYCLES]) - 1
        cost += extra
        s[k + at.COUNT + BRANCH] += extra
    elif kind == at.K_FDIV:
        if traces is None:
            cost += divided(k, now, s)
        else:
            s[at.CLAIM] = at.E_DIVIDER
        if counted is not None:
            s[k + at.DID_FP_OPERATIONS] += 1
        registers[base + rd] = np.int32(quotient_or_root(sub, np.int32(a), np.int32(b)))
    elif kind == at.K_BARRIER:
        if address != BARRIER_ADDRESS:
            trap = np.int64(EVENT)
        else:
            registers[base + rd] = 0
            cost = np.int64(0)
            s[at.CLAIM] = at.E_BARRIER | stall << at.E_OPERAND
    elif kind == at.K_RETURN:
        if traces is None:
            leave(c, s)
        s[at.CLAIM] = at.E_RETURN
        return np.int64(0)
    elif kind == at.K_CLOCK:
        if traces is not None:
            return np.int64(-1)
        registers[base + rd] = np.int32(now - s[at.CSRS + c * at.CSR_FIELDS + at.C_NO_CYCLE])
    elif kind == at.K_GUARD:
        trap = sub
        address = (L2_BASE + 4 * (row // at.ROW + rows[row + at.R_PRE])) & MASK
    elif full is not None:
        extra, following, trap, address = uncommon(kind, c, k, row, a, b, s, rows, registers)
        cost += extra
    else:
        return np.int64(-1)

    if traces is not None:  # noqa: SIM102
        if trap >= 0:
            return np.int64(-1)
    if full is not None:  # noqa: SIM102 - a branch on None is left out when it is compiled
        if trap >= ECALL:
            extra, following, trap, address = exception(trap, c, k, row, s)
            cost += extra
    if trap >= 0:
        s[k + at.COUNT + cause] -= stall  # not counted: the instruction had no effect
        report(TRAP, c, trap << 32 | address, s)
        return np.int64(-1)
    if watch is not None:
        executed(c, row, now, touched, s, fields, registers, watch)
    if following < 0:
        following = follow(row, c, k, s, fields, present)
    else:
        following |= fetch_mark(following, c, s, present)
    if cost == 0:
        s[k + at.COUNT + ISSUE] += 1
    if kind == at.K_BARRIER and traces is None:
        arrive(c, following, stall, s, watch)
    else:
        s[k + at.PLACE] = following
    return cost
