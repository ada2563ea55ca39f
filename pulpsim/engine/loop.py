"""The fast engine's compiled loop: events of cores and of the DMA, cycle by cycle, on flat arrays (`layout`).

The contract's order of events is kept without a queue entry per event (see `calendar`), so a core runs
ahead through instructions that concern nobody else (`layout.LAST_PRIVATE`), never past `until`; loads,
stores and all that is shared happen in exact order. What is rare is handled by `_event`, out of the hot loop.
"""

from __future__ import annotations

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import Kind, Status, Trap
from pulpsim.engine import layout as at
from pulpsim.engine.arithmetic import alu, branch_taken, divide, fpu, fused, multiply, quotient_or_root, wide
from pulpsim.engine.banks import access, reserve, take_turn
from pulpsim.engine.calendar import ONE, migrate, next_busy, queue, report
from pulpsim.engine.control import exception, place_at, reset, uncommon
from pulpsim.engine.icache import refill
from pulpsim.engine.operations import FUSED, Alu, Div, Jump, Loop
from pulpsim.engine.ports import served, stream_event
from pulpsim.engine.watching import (
    LOG_FULL,
    executed,
    executed_in_a_row,
    log_executed,
    remember,
    waited,
    waited_since,
)
from pulpsim.jit import heapless, inlined, leading_zeros, lowest_bit, unlikely
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE, L1_BASE, L2_BASE

MASK = 0xFFFFFFFF
BARRIER_ADDRESS = EVENT_UNIT_BASE + BARRIER_OFFSET

# Numba freezes plain integers: the enumerations' members as such.
ISSUE, LOAD_USE, BANK_CONFLICT, FPU_CONTENTION = (int(Cause(i)) for i in range(4))
MULDIV, BRANCH, BARRIER, ICACHE = (int(c) for c in (Cause.MULDIV, Cause.BRANCH, Cause.BARRIER, Cause.ICACHE))
RETURNED, TRAP, DEADLOCK = int(Kind.RETURNED), int(Kind.TRAP), int(Kind.DEADLOCK)
ADDRESS, TARGET, EVENT = int(Trap.ADDRESS), int(Trap.TARGET), int(Trap.EVENT)
ECALL = int(Trap.ECALL)  # the first of those that may have a handler
OFF, RUNNING, WAITING = (int(Status(i)) for i in range(3))


@inlined
def _loop_end(k, place, s):
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
def _fetch_mark(place, c, s, present):
    """FETCH if the line of this place is not in the core's cache."""
    line = (c * s[at.LINES] + (place & at.PLACES) // at.LINE) & at.PLACES
    return np.int64(0) if present[line] else at.FETCH


@inlined
def _late_mark(place, late, fields):
    """AFTER_LOAD or AFTER_MUL if the instruction at this place reads the register that is written late."""
    reads = fields[place + at.R_USES + (late >> 5 & 1)] >> (late & 31) & 1
    return np.int64(reads) * (at.AFTER_LOAD if late < 64 else at.AFTER_MUL)


@inlined
def _follow(row, c, k, s, fields, present):
    """A core's next place after the row at `row`, which is no jump."""
    look = fields[row + at.R_KIND]
    place = _loop_end(k, row, s) if look & at.LOOP_END else row + at.ROW
    marks = np.int64(0)
    if look & at.LATE:
        marks = _late_mark(place, np.int64(fields[row + at.R_LATE]), fields)
    if look & at.LINE_END:
        marks |= _fetch_mark(place, c, s, present)
    return place | marks


@heapless
def _check_deadlock(c, s):
    """Report once if one core of the team has returned while another waits."""
    if s[at.ARRIVED] != 0 and s[at.GONE] != 0 and s[at.DEADLOCKED] == 0:
        s[at.DEADLOCKED] = 1
        report(DEADLOCK, c, 0, s)


@heapless
def _arrive(c, next_place, stall, s, watch):
    """A core reaches the barrier; the last one releases all, and is the first from then on."""
    now, k = s[at.NOW], at.CORE + c * at.CORE_FIELDS
    s[k + at.STATUS], s[k + at.NEXT], s[k + at.SINCE], s[k + at.STALL] = WAITING, next_place, now, stall
    s[at.QUEUED] -= 1
    if s[at.TEAM] >> c & 1 == 0:
        report(DEADLOCK, c, 0, s)  # nobody will ever wake it
        return
    s[at.ARRIVED] |= np.int64(1) << c
    if s[at.ARRIVED] != s[at.TEAM]:
        _check_deadlock(c, s)
        return
    release = now + s[at.BARRIER]
    s[at.FIRST] = np.int64(1) << at.LAST_CORE - c
    for other in range(s[at.CORES]):
        if s[at.TEAM] >> other & 1:
            k = at.CORE + other * at.CORE_FIELDS
            s[k + at.COUNT + BARRIER] += release - s[k + at.SINCE] - 1
            if watch is not None:
                waited(other, s[k + at.PLACE] & at.PLACES, BARRIER, release - s[k + at.SINCE] - 1, s, watch)
            s[k + at.STATUS], s[k + at.PLACE] = RUNNING, s[k + at.NEXT]
            s[at.QUEUED] += 1
            queue(at.LAST_CORE - other, release + s[k + at.STALL], s)
    s[at.ARRIVED] = 0


@heapless
def _leave(c, s):
    """A core returns."""
    s[at.CORE + c * at.CORE_FIELDS + at.STATUS] = OFF
    s[at.QUEUED] -= 1
    report(RETURNED, c, 0, s)
    s[at.GONE] |= s[at.TEAM] & (np.int64(1) << c)
    _check_deadlock(c, s)


@heapless
def _private(kind, c, k, row, time, s, rows, registers, counted):
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
        if sub == Alu.MHARTID:
            result = c
        elif sub == Alu.MCYCLE:
            result = time - s[at.CSRS + c * at.CSR_FIELDS + at.C_NO_CYCLE]
        else:
            result = alu(sub, a, b + immediate, d)
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
def _fmadd(base, row, fields, registers):
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
def _run_ahead(place, time, horizon, c, k, base, s, rows, fields, registers, present, counted, watch):
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
                _fmadd(base, row, fields, registers)
                if watch is not None:  # noqa: SIM102 - a branch on None is left out when it is compiled
                    if logged:
                        log_executed(c, row, time, -1, s, fields, registers, watch)
                row = row + at.ROW & at.PLACES
                time += 1
            _fmadd(base, row, fields, registers)
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
            _private(kind, c, k, row, time, s, rows, registers, counted)
        else:
            break
        if watch is not None:  # noqa: SIM102
            if kind != at.K_FMADD:
                executed(c, row, time, -1, s, fields, registers, watch)
        time += 1
        place = row + at.ROW
        if fields[row + at.R_KIND] > at.KIND:
            place = _follow(row, c, k, s, fields, present)
    if counted is not None:
        s[k + at.DID_FP_OPERATIONS] += products
    return place, time


@inlined
def _word_access(kind, row, now, base, k, s, fields, registers, words, counted):
    """Load or store a word of L1. Returns the cycles it waits for its bank; -1 if it is not such a word."""
    origin, offset = registers[base + np.int64(fields[row + at.R_RS1])], np.int32(fields[row + at.R_IMM])
    inside = np.uint32(np.int64(origin) - L1_BASE)
    if kind != at.K_LOAD_NEXT:
        offset = np.int32(offset + registers[base + np.int64(fields[row + at.R_RS3])])
        inside = np.uint32(inside + (offset & np.int32(fields[row + at.R_PRE])))
    word = np.int64(np.uint32(inside >> np.uint32(2)) | np.uint32(inside << np.uint32(30)))
    if word >= s[at.L1_WORDS]:
        return np.int64(-1)
    wait = np.int64(0)
    if s[at.CONFLICTS]:
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


@inlined
def _address(row, base, fields, registers):
    """Of a load or store: where its access is."""
    origin = np.int64(registers[base + np.int64(fields[row + at.R_RS1])])
    offset = np.int64(registers[base + np.int64(fields[row + at.R_RS3])]) + np.int32(fields[row + at.R_IMM])
    return origin + (offset & np.int32(fields[row + at.R_PRE])) & MASK


@heapless
def _event(c, k, row, stall, cause, s, rows, registers, l1, l2, fields, present, full, counted, watch):
    """One instruction that the hot loop does not handle itself, at its event.

    full: None if no program has instructions of `control`; that module is not compiled then. Returns the
    cycles to the core's next event, not yet counted as ISSUE; 0 if something else will queue it, -1 for a
    trap.
    """
    now, base = s[at.NOW], c * at.REGISTER_STRIDE
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
        state = access(c, address, size, store, b, s, l1, l2)
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
            wait = reserve(at.FPU_FREE + s[k + at.FPU_INDEX], now, s) - now
            cost += wait
            s[k + at.COUNT + FPU_CONTENTION] += wait
        _private(kind, c, k, row, now, s, rows, registers, counted)
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
        _private(kind, c, k, row, now, s, rows, registers, counted)
        extra = np.int64(rows[row + at.R_CYCLES]) - 1
        cost += extra
        s[k + at.COUNT + BRANCH] += extra
    elif kind == at.K_FDIV:
        begin = max(now, s[at.DIVIDER_FREE])
        s[at.DIVIDER_FREE] = begin + s[at.FDIV]
        extra = begin + s[at.FDIV] - now - 1
        cost += extra
        s[k + at.COUNT + MULDIV] += extra
        if counted is not None:
            s[k + at.DID_FP_OPERATIONS] += 1
        registers[base + rd] = np.int32(quotient_or_root(sub, np.int32(a), np.int32(b)))
    elif kind == at.K_BARRIER:
        if address != BARRIER_ADDRESS:
            trap = np.int64(EVENT)
        else:
            registers[base + rd] = 0
            cost = np.int64(0)
    elif kind == at.K_RETURN:
        _leave(c, s)
        return np.int64(0)
    elif kind == at.K_GUARD:
        trap = sub
        address = (L2_BASE + 4 * (row // at.ROW + rows[row + at.R_PRE])) & MASK
    elif full is not None:
        extra, following, trap, address = uncommon(kind, c, k, row, a, b, s, rows, registers)
        cost += extra

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
        following = _follow(row, c, k, s, fields, present)
    else:
        following |= _fetch_mark(following, c, s, present)
    if cost == 0:
        s[k + at.COUNT + ISSUE] += 1
    if kind == at.K_BARRIER:
        _arrive(c, following, stall, s, watch)
    else:
        s[k + at.PLACE] = following
    return cost


@heapless
def start(c, place, time, s, registers, values, present):
    """Give a core its registers and its first event."""
    queue(at.LAST_CORE - c, time, s)
    s[at.QUEUED] += 1
    s[at.GONE] &= ~(np.int64(1) << c)
    k, base = at.CORE + c * at.CORE_FIELDS, c * at.REGISTER_STRIDE
    reset(c, s)
    s[k + at.COUNT0] = s[k + at.COUNT1] = 0
    s[k + at.START0] = s[k + at.END0] = s[k + at.START1] = s[k + at.END1] = -1
    s[k + at.PLACE], s[k + at.STATUS] = place | _fetch_mark(place, c, s, present), RUNNING
    for i in range(1, values.shape[0]):
        registers[base + i] = np.int32(values[i])
    registers[base] = 0


@heapless
def start_team(place, times, s, registers, values, present):
    """Make the first cores the team, and give each its registers and its first event.

    Returns -1; if one of them runs, the first that does, and does nothing.
    """
    for c in range(times.shape[0]):
        if s[at.CORE + c * at.CORE_FIELDS + at.STATUS] != OFF:
            return c
    s[at.TEAM] = (np.int64(1) << times.shape[0]) - 1
    s[at.ARRIVED] = s[at.GONE] = s[at.DEADLOCKED] = s[at.FIRST] = 0
    for c in range(times.shape[0]):
        start(c, place, times[c], s, registers, values[c], present)
    return -1


@inlined
def _rare(c, k, base, now, s, rows, fields, registers, l1, l2, tags, present, full, counted, watch):
    """A core's event that `_turn` has no short way for. Returns as `_turn` does."""
    place = s[k + at.PLACE]
    row = place & at.PLACES
    if place & at.FETCH:
        cost = refill(c, k, row // at.LINE, s, tags, present)
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
        _fmadd(base, row, fields, registers)
        if watch is not None:
            executed(c, row, now, -1, s, fields, registers, watch)
            waited(c, row, cause, stall, s, watch)
        s[k + at.PLACE] = _follow(row, c, k, s, fields, present)
    else:
        if watch is not None:
            remember(k, s)
        s[k + at.COUNT + cause] += stall
        cost = _event(c, k, row, stall, cause, s, rows, registers, l1, l2, fields, present, full, counted, watch)
        if watch is not None:
            waited_since(c, k, row, s, watch)
    s[k + at.COUNT + ISSUE] += cost > 0
    return now + cost if cost > 0 else cost


@inlined
def _turn(c, now, horizon, s, rows, fields, registers, l1, words, l2, tags, present, full, counted, watch):
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
                touched = _address(row, base, fields, registers)
        if kind == at.K_LOAD_NEXT:
            wait = _word_access(at.K_LOAD_NEXT, row, now, base, k, s, fields, registers, words, counted)
        elif kind <= at.LAST_WORD:
            wait = _word_access(kind, row, now, base, k, s, fields, registers, words, counted)
        elif kind == at.K_SHARED_FMADD:
            wait, cause = reserve(at.FPU_FREE + s[k + at.FPU_INDEX], now, s) - now, FPU_CONTENTION
            s[k + at.COUNT + FPU_CONTENTION] += wait
            if counted is not None:
                s[k + at.DID_FP_OPERATIONS] += 1
            _fmadd(base, row, fields, registers)
        if unlikely(wait < 0):
            return _rare(c, k, base, now, s, rows, fields, registers, l1, l2, tags, present, full, counted, watch)
        if watch is not None:
            executed(c, row, now, touched, s, fields, registers, watch)
            if unlikely(wait > 0):
                waited(c, row, cause, wait, s, watch)
        place = row + at.ROW
        if fields[row + at.R_KIND] > at.KIND:
            place = _follow(row, c, k, s, fields, present)
        time = now + 1
        if unlikely(wait > 0):
            time, issued = time + wait, now + wait
    place, time = _run_ahead(place, time, horizon, c, k, base, s, rows, fields, registers, present, counted, watch)
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


@heapless
def advance(
    until, s, rows, fields, registers, l1, words, l2, l2_words, tags, present, full, counted, watch
):  # fmt: skip
    """Handle events before `until`. Returns True if a core trapped.

    rows and fields are the decoded rows as int32 and as uint32: what cannot be negative is read from
    the latter. l1, words and l2, l2_words are the memories as bytes and as int32; tags, present: see
    `icache`. full: True or None, see `_event`. counted: True to count
    what `Work` names, None to leave that out. watch: see `watching`, or None. Watched, it also ends when the log
    might not hold what the next cycle adds.
    """
    now, soon = s[at.NOW], np.uint64(0)  # soon: agents with an event in the next cycle, beside those in MASKS
    s[at.REPORTS] = 0
    while now < until and s[at.REPORTS] == 0 and s[at.QUEUED] > 0:
        if watch is not None:  # noqa: SIM102 - a branch on None is left out when it is compiled
            if s[at.LOGGED] > LOG_FULL:
                break
        s[at.NOW] = now
        if unlikely(s[at.FAR] != 0):
            migrate(s)
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
                when = _turn(
                    c, now, horizon, s, rows, fields, registers, l1, words, l2, tags, present, full, counted, watch
                )
                if when == now + 1:
                    soon |= ONE << np.uint64(agent)
                elif when > 0:
                    queue(agent, when, s)
                elif when < 0:
                    return True
            if later == 0:
                break
            due, later = later, due
        if unlikely(streams != 0):
            for way in range(2):
                if streams >> np.uint64(way) & ONE:
                    when = stream_event(way, now, s, words, l2_words)
                    if when == now + 1:
                        soon |= ONE << np.uint64(at.STREAMS + way)
                    elif when > 0:
                        queue(at.STREAMS + way, when, s)
        if s[at.BANK_WAITERS] > 0:
            _grant(s, watch)
        now += 1
    s[at.NOW] = now
    s[at.MASKS + (now & (at.SLOTS - 1))] |= np.int64(soon)
    return False
