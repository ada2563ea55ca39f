"""The fast engine: the contract of `pulpsim.engine` as one Numba function over flat arrays.

The contract's order of events is kept without a queue entry per event (see `calendar`), so a core runs
ahead through instructions that concern nobody else (`layout.LAST_PRIVATE`), never past `until`; loads,
stores and all that is shared happen in exact order.

Instructions are decoded once into rows of a few kinds of operation (`layout`); what is rare is
handled by `_event`, out of the hot loop.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pulpsim.code import ALIGN_ROWS, Code
from pulpsim.counters import CAUSES, Cause
from pulpsim.engine import FOREVER, Kind, Report, Status, Transfer, Trap, icache
from pulpsim.engine import layout as at
from pulpsim.engine.arithmetic import alu, branch_taken, divide, fpu, fused, multiply, quotient_or_root
from pulpsim.engine.banks import access, first_beat, grant, port_event, reserve
from pulpsim.engine.calendar import ONE, admit, append, migrate, nearest_far, queue, report, step
from pulpsim.engine.icache import refill
from pulpsim.jit import compiled, inlined, leading_zeros, lowest_bit, unlikely
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE, L1_BASE, L2_BASE, Memory
from pulpsim.platform import Platform

MASK = 0xFFFFFFFF
BARRIER_ADDRESS = EVENT_UNIT_BASE + BARRIER_OFFSET

# Numba freezes plain integers: the enumerations' members as such.
ISSUE, LOAD_USE, BANK_CONFLICT, FPU_CONTENTION = (int(Cause(i)) for i in range(4))
MULDIV, BRANCH, BARRIER, ICACHE = (int(c) for c in (Cause.MULDIV, Cause.BRANCH, Cause.BARRIER, Cause.ICACHE))
RETURNED, TRAP, DEADLOCK = int(Kind.RETURNED), int(Kind.TRAP), int(Kind.DEADLOCK)
ADDRESS, TARGET, EVENT = int(Trap.ADDRESS), int(Trap.TARGET), int(Trap.EVENT)
OFF, RUNNING, WAITING = (int(Status(i)) for i in range(3))


@inlined
def _loop_end(k, pc, s):  # type: ignore[no-untyped-def]
    """Next row after `pc`, the last instruction of some hardware loop."""
    if s[k + at.END0] == pc:
        if s[k + at.COUNT0] > 1:
            s[k + at.COUNT0] -= 1
            return s[k + at.START0]
        s[k + at.COUNT0] = 0
    if s[k + at.END1] == pc:
        if s[k + at.COUNT1] > 1:
            s[k + at.COUNT1] -= 1
            return s[k + at.START1]
        s[k + at.COUNT1] = 0
    return pc + 1


@compiled
def _check_deadlock(c, s):  # type: ignore[no-untyped-def]
    """Report once if one core of the team has returned while another waits."""
    if s[at.ARRIVED] != 0 and s[at.GONE] != 0 and s[at.DEADLOCKED] == 0:
        s[at.DEADLOCKED] = 1
        report(DEADLOCK, c, 0, s)


@compiled
def _arrive(c, next_pc, stall, s):  # type: ignore[no-untyped-def]
    """A core reaches the barrier; the last one releases all, in order of core number."""
    now, k = s[at.NOW], at.CORE + c * at.CORE_FIELDS
    s[k + at.STATUS], s[k + at.NEXT], s[k + at.SINCE], s[k + at.STALL] = WAITING, next_pc, now, stall
    s[at.QUEUED] -= 1
    if s[at.TEAM] >> c & 1 == 0:
        report(DEADLOCK, c, 0, s)  # nobody will ever wake it
        return
    s[at.ARRIVED] |= np.int64(1) << c
    if s[at.ARRIVED] != s[at.TEAM]:
        _check_deadlock(c, s)
        return
    release = now + s[at.BARRIER]
    for other in range(s[at.CORES]):
        if s[at.TEAM] >> other & 1:
            k = at.CORE + other * at.CORE_FIELDS
            s[k + at.COUNT + BARRIER] += release - s[k + at.SINCE] - 1
            s[k + at.STATUS], s[k + at.PC] = RUNNING, s[k + at.NEXT]
            s[at.QUEUED] += 1
            queue(other, release + s[k + at.STALL], s)
    s[at.ARRIVED] = 0


@compiled
def _leave(c, s):  # type: ignore[no-untyped-def]
    """A core returns."""
    s[at.CORE + c * at.CORE_FIELDS + at.STATUS] = OFF
    s[at.QUEUED] -= 1
    report(RETURNED, c, 0, s)
    s[at.GONE] |= s[at.TEAM] & (np.int64(1) << c)
    _check_deadlock(c, s)


@compiled
def _private(kind, c, k, row, pc, time, s, rows, registers):  # type: ignore[no-untyped-def]
    """Execute an instruction that concerns only its core (any FP operation included)."""
    base = c * at.REGISTER_STRIDE
    rd, sub = rows[row + at.R_RD], np.int64(rows[row + at.R_SUB])
    a = np.int64(registers[base + rows[row + at.R_RS1]])
    b = np.int64(registers[base + rows[row + at.R_RS2]])
    d = np.int64(registers[base + rows[row + at.R_RS3]])
    immediate = np.int64(rows[row + at.R_IMM])
    if kind == at.K_LOOP:
        level = k + 3 * rd
        if sub == at.L_SETUP or sub == at.L_COUNT:
            s[level + at.COUNT0] = (a + immediate) & MASK
        if sub == at.L_SETUP:
            s[level + at.START0] = pc + 1
        if sub == at.L_START:
            s[level + at.START0] = rows[row + at.R_TARGET]
        if sub == at.L_SETUP or sub == at.L_END:
            s[level + at.END0] = rows[row + at.R_TARGET]
        return
    if kind == at.K_ADD:
        result = a + b + immediate
    elif kind == at.K_ALU:
        if sub == at.A_HARTID:
            result = c
        elif sub == at.A_MCYCLE:
            result = time
        else:
            result = alu(sub, a, b + immediate, d)
    elif sub < at.F_ADD:
        result = fused(sub, a, b, d)
    else:
        result = fpu(sub, a, b, immediate)
    registers[base + rd] = np.int32(result)


@inlined
def _fused_row(base, row, fields, registers):  # type: ignore[no-untyped-def]
    """Execute an operation of the fmadd family."""
    registers[base + np.int64(fields[row + at.R_RD])] = np.int32(
        fused(
            fields[row + at.R_SUB],
            registers[base + np.int64(fields[row + at.R_RS1])],
            registers[base + np.int64(fields[row + at.R_RS2])],
            registers[base + np.int64(fields[row + at.R_RS3])],
        )
    )


@compiled
def _event(c, k, pc, kind, stall, cause, s, rows, registers, l1, l2):  # type: ignore[no-untyped-def]
    """One instruction that the hot loop does not handle itself, at its event.

    Returns the cycles to the core's next event; 0 if something else will queue it; -1 for a trap.
    """
    now, base, row = s[at.NOW], c * at.REGISTER_STRIDE, pc * at.ROW
    rd, sub, immediate = rows[row + at.R_RD], np.int64(rows[row + at.R_SUB]), np.int64(rows[row + at.R_IMM])
    a = np.int64(registers[base + rows[row + at.R_RS1]])
    b = np.int64(registers[base + rows[row + at.R_RS2]])
    cost, following, pending, trap = 1 + stall, np.int64(-1), np.int64(0), np.int64(-1)
    address = (a + immediate) & MASK
    if kind == at.K_LOAD or kind == at.K_STORE or kind == at.K_LOAD_WORD or kind == at.K_STORE_WORD:
        store = kind == at.K_STORE or kind == at.K_STORE_WORD
        offset = np.int64(registers[base + rows[row + at.R_RS3]]) + immediate
        address = (a + (offset & rows[row + at.R_PRE])) & MASK
        size = sub & 7
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
                pending = np.int64(rd & 63)
            if state == at.BLOCKED:
                s[k + at.SINCE], s[k + at.WAIT_COST] = now, cost
                cost = np.int64(0)
    elif kind <= at.LAST_PRIVATE or kind == at.K_SHARED_FPU:
        if kind == at.K_SHARED_FPU:
            wait = reserve(at.FPU_FREE + s[k + at.FPU_INDEX], now, s) - now
            cost += wait
            s[k + at.COUNT + FPU_CONTENTION] += wait
        _private(kind, c, k, row, pc, now, s, rows, registers)
    elif kind == at.K_BRANCH:
        if branch_taken(sub, a, b):
            following = np.int64(rows[row + at.R_TARGET])
            cost += s[at.TAKEN] - 1
            s[k + at.COUNT + BRANCH] += s[at.TAKEN] - 1
            if following < 0:
                trap = np.int64(TARGET)
                s[k + at.COUNT + BRANCH] -= s[at.TAKEN] - 1
                address = (L2_BASE + 4 * (pc + rows[row + at.R_PRE])) & MASK
    elif kind == at.K_JUMP:
        if sub == at.J_JAL:
            address = (L2_BASE + 4 * (pc + rows[row + at.R_PRE])) & MASK
            following = np.int64(rows[row + at.R_TARGET])
        else:
            address &= 0xFFFFFFFE
            following = (address - L2_BASE) >> 2
            if address & 3 or following >= s[at.CODE_ROWS]:
                following = np.int64(-1)
        if following < 0:
            trap = np.int64(TARGET)
        else:
            cost += s[at.JUMP] - 1
            s[k + at.COUNT + BRANCH] += s[at.JUMP] - 1
            registers[base + rd] = np.int32(L2_BASE + 4 * (pc + 1))
    elif kind == at.K_MUL:
        registers[base + rd] = np.int32(multiply(sub, a, b))
        extra = np.int64(rows[row + at.R_CYCLES]) - 1
        cost += extra
        s[k + at.COUNT + MULDIV] += extra
        if rd != at.SINK:
            pending = np.int64(rd) + 64
    elif kind == at.K_DIV:
        registers[base + rd] = np.int32(divide(sub, a, b))
        divisor = abs(b) if sub == at.D_DIV or sub == at.D_REM else b
        extra = np.int64(leading_zeros(np.uint32(divisor & MASK))) + s[at.DIV_BASE] - 1
        cost += extra
        s[k + at.COUNT + MULDIV] += extra
    elif kind == at.K_FDIV:
        begin = max(now, s[at.DIVIDER_FREE])
        s[at.DIVIDER_FREE] = begin + s[at.FDIV]
        extra = begin + s[at.FDIV] - now - 1
        cost += extra
        s[k + at.COUNT + MULDIV] += extra
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
    else:
        trap = sub
        address = (L2_BASE + 4 * (pc + rows[row + at.R_PRE])) & MASK

    if trap >= 0:
        s[k + at.COUNT + cause] -= stall  # not counted: the instruction had no effect
        report(TRAP, c, trap << 32 | address, s)
        return np.int64(-1)
    s[k + at.COUNT + ISSUE] += 1
    if following < 0:
        following = _loop_end(k, pc, s) if rows[row + at.R_END] else pc + 1
    s[k + at.PENDING] = pending
    if kind == at.K_BARRIER:
        _arrive(c, following, stall, s)
    else:
        s[k + at.PC] = following
    return cost


@compiled
def _advance(  # type: ignore[no-untyped-def]
    until, s, rows, fields, registers, l1, words, l2, l2_words, tags, present
):  # fmt: skip
    """Handle events before `until`. Returns True if a core trapped.

    rows and fields are the decoded rows as int32 and as uint32: what cannot be negative is read from
    the latter. l1, words and l2, l2_words are the memories as bytes and as int32; tags, present: see
    `icache`.
    """
    cores, l1_bytes, bank_mask, mode = s[at.CORES], s[at.L1_BYTES], s[at.BANKS] - 1, s[at.CONFLICTS]
    lines, line_shift = s[at.LINES], s[at.LINE_SHIFT]
    now = s[at.NOW]
    s[at.REPORTS] = 0
    while now < until and s[at.REPORTS] == 0 and (s[at.QUEUED] > 0 or s[at.BANK_WAITERS] > 0):
        if unlikely(s[at.FAR_ENTRIES] > 0):
            if s[at.FAR_ENTRIES] == s[at.QUEUED] and s[at.BANK_WAITERS] == 0:
                now = max(now, min(nearest_far(s) - (at.SLOTS - 1), until - 1))
            s[at.NOW] = now
            migrate(s)
        s[at.NOW] = now
        slot = now & (at.SLOTS - 1)
        if s[at.FILL + slot] > 0:
            admit(slot, s)
        horizon = min(until, now + at.SLOTS - 1)
        due = np.uint64(s[at.MASKS + slot])
        s[at.MASKS + slot] = 0
        while due != 0:
            rank = lowest_bit(due)
            due &= due - ONE
            c = s[at.AGENT_AT + rank]
            if unlikely(c >= cores):
                when = port_event(c, s, words, l2_words)
                if when == now + 1:
                    step(rank, when, s)
                elif when > 0:
                    queue(c, when, s)
                continue
            c &= 15
            base = c * at.REGISTER_STRIDE
            k = at.CORE + c * at.CORE_FIELDS
            pc = s[k + at.PC] & 0xFFFFFF
            pending = s[k + at.PENDING]
            row = pc * at.ROW
            kind = fields[row + at.R_KIND]
            time = now
            line = pc >> line_shift
            lines_before = c * lines
            if line != s[k + at.LINE]:
                s[k + at.LINE] = line
                if unlikely(present[lines_before + line] == 0) and kind != at.K_RETURN:
                    wait = refill(c, k, line, s, tags, present)
                    s[k + at.COUNT + ICACHE] += wait
                    if wait == 1:
                        step(rank, now + 1, s)
                    else:
                        queue(c, now + wait, s)
                    continue
            stall, cause = np.int64(0), LOAD_USE
            if fields[row + at.R_USES + (pending >> 5 & 1)] >> (pending & 31) & 1:
                cause = LOAD_USE if pending < 64 else MULDIV
                stall = s[at.LOAD_USE if pending < 64 else at.MUL_USE]
                s[k + at.COUNT + cause] += stall
            if kind > at.LAST_PRIVATE or stall > 0:
                cost = 1 + stall
                address = np.int64(0)
                if kind == at.K_LOAD_WORD or kind == at.K_STORE_WORD:
                    origin = np.int64(registers[base + np.int64(fields[row + at.R_RS1])])
                    offset = np.int64(registers[base + np.int64(fields[row + at.R_RS3])]) + rows[row + at.R_IMM]
                    address = ((origin + (offset & rows[row + at.R_PRE])) & MASK) - L1_BASE
                if (
                    (kind == at.K_LOAD_WORD or kind == at.K_STORE_WORD)
                    and 0 <= address < l1_bytes
                    and address & 3 == 0
                    and mode != at.ROUND_ROBIN
                ):
                    if mode == at.FIFO:
                        place = at.BANK_FREE + ((address >> 2) & bank_mask)
                        wait = max(s[place] - now, 0)
                        s[place] = now + wait + 1
                        cost += wait
                        s[k + at.COUNT + BANK_CONFLICT] += wait
                    pending = np.int64(0)
                    if kind == at.K_LOAD_WORD:
                        rd = np.int64(fields[row + at.R_RD])
                        value = words[address >> 2]
                        registers[base + np.int64(fields[row + at.R_BASE])] = np.int32(origin + offset)
                        registers[base + rd] = value
                        pending = rd & 63
                    else:
                        words[address >> 2] = registers[base + np.int64(fields[row + at.R_RS2])]
                        registers[base + np.int64(fields[row + at.R_BASE])] = np.int32(origin + offset)
                    s[k + at.COUNT + ISSUE] += 1
                    pc = _loop_end(k, pc, s) if unlikely(fields[row + at.R_END] != 0) else pc + 1
                    if cost != 1:
                        s[k + at.PC], s[k + at.PENDING] = pc, pending
                        queue(c, now + cost, s)
                        continue
                elif kind == at.K_FMADD or kind == at.K_SHARED_FUSED:
                    if kind == at.K_SHARED_FUSED:
                        wait = reserve(at.FPU_FREE + s[k + at.FPU_INDEX], now, s) - now
                        cost += wait
                        s[k + at.COUNT + FPU_CONTENTION] += wait
                    _fused_row(base, row, fields, registers)
                    pending = np.int64(0)
                    s[k + at.COUNT + ISSUE] += 1
                    pc = _loop_end(k, pc, s) if fields[row + at.R_END] != 0 else pc + 1
                    if cost != 1:
                        s[k + at.PC], s[k + at.PENDING] = pc, pending
                        queue(c, now + cost, s)
                        continue
                else:
                    cost = _event(c, k, pc, kind, stall, cause, s, rows, registers, l1, l2)
                    if cost < 0:
                        return True
                    if cost == 0:
                        continue
                    if cost > 1:
                        queue(c, now + cost, s)
                        continue
                    pc, pending = s[k + at.PC] & 0xFFFFFF, s[k + at.PENDING]
                time = now + 1
            else:
                pending = np.int64(0)

            # run ahead through what concerns nobody else
            began = time
            while time < horizon:
                if pc >> line_shift != line:
                    if present[lines_before + (pc >> line_shift)] == 0:
                        break
                    line = pc >> line_shift
                row = (pc & 0xFFFFFF) * at.ROW
                kind = fields[row + at.R_KIND]
                if kind > at.LAST_PRIVATE or fields[row + at.R_USES + (pending >> 5 & 1)] >> (pending & 31) & 1:
                    break
                pending = np.int64(0)
                if kind == at.K_FMADD:
                    _fused_row(base, row, fields, registers)
                elif kind == at.K_ADD:
                    registers[base + np.int64(fields[row + at.R_RD])] = np.int32(
                        np.int64(registers[base + np.int64(fields[row + at.R_RS1])])
                        + np.int64(registers[base + np.int64(fields[row + at.R_RS2])])
                        + rows[row + at.R_IMM]
                    )
                else:
                    _private(kind, c, k, row, pc, time, s, rows, registers)
                time += 1
                pc = _loop_end(k, pc, s) if fields[row + at.R_END] != 0 else pc + 1
            s[k + at.COUNT + ISSUE] += time - began
            s[k + at.PC], s[k + at.PENDING], s[k + at.LINE] = pc, pending, line
            step(rank, time, s)
        if s[at.BANK_WAITERS] > 0:
            grant(s)
        now += 1
    s[at.NOW] = now
    return False


class JitEngine:
    """The `Engine` contract on Numba."""

    def __init__(self, platform: Platform, memory: Memory, code: Code):
        self._platform, self._memory, self._code = platform, memory, code
        self._cores, self._ports = platform.cluster.cores, platform.dma.bytes_per_cycle // 4
        self._state = at.initial_state(platform)
        self._rows = np.zeros(0, np.int32)
        self._registers = np.zeros(self._cores * at.REGISTER_STRIDE, np.int32)
        self._tags = icache.empty(platform)
        self._present = np.zeros((self._cores, 0), np.uint8)

    @property
    def now(self) -> int:
        return int(self._state[at.NOW])

    def _core(self, core: int) -> NDArray[np.int64]:
        first = at.CORE + core * at.CORE_FIELDS
        return self._state[first : first + at.CORE_FIELDS]

    def _enqueue(self, agent: int, when: int) -> None:
        if when == self.now:
            append(agent, when, self._state)
        else:
            migrate(self._state)
            queue(agent, when, self._state)
        self._state[at.QUEUED] += 1

    def begin_team(self, cores: list[int]) -> None:
        """Raises ValueError if one of the cores has been started already."""
        for core in cores:
            if self.status(core) is not Status.OFF:
                raise ValueError(f"core {core} is running: a team begins before its cores start")
        self._state[at.TEAM] = sum(1 << core for core in set(cores))
        self._state[at.ARRIVED] = self._state[at.GONE] = self._state[at.DEADLOCKED] = 0

    def start(self, core: int, row: int, time: int, registers: NDArray[np.uint32]) -> None:
        """Raises ValueError if the core is running, the time has passed or the row does not exist."""
        state = self._core(core)
        if state[at.STATUS] != Status.OFF:
            raise ValueError(f"core {core} is running already")
        if time < self.now:
            raise ValueError(f"core {core} cannot start at {time}: it is {self.now}")
        if not 0 <= row < len(self._code.rows):
            raise ValueError(f"core {core} cannot start at row {row}: there are {len(self._code.rows)}")
        self._enqueue(core, time)
        self._state[at.GONE] &= ~(1 << core)
        state[: at.FPU_INDEX] = 0
        state[[at.START0, at.END0, at.START1, at.END1, at.LINE]] = -1
        state[at.PC], state[at.STATUS] = row, Status.RUNNING
        base = core * at.REGISTER_STRIDE
        self._registers[base : base + 64] = registers.view(np.int32)
        self._registers[base] = 0

    def transfer(self, transfer: Transfer) -> None:
        """Raises ValueError if the transfer is empty, its time has passed or too many are queued."""
        way, t, s = int(transfer.outward), transfer, self._state
        if t.size_bytes <= 0:
            raise ValueError(f"transfer {t.id} moves {t.size_bytes} bytes")
        if t.ready < self.now:
            raise ValueError(f"transfer {t.id} cannot begin at {t.ready}: it is {self.now}")
        ports = [at.PORT + (way * self._ports + lane) * at.FIELDS for lane in range(self._ports)]
        number = int(s[at.TAIL + way])
        if number - min(int(s[port + at.P_SEQUENCE]) for port in ports) >= at.QUEUE:
            raise ValueError(f"more than {at.QUEUE} DMA transfers queued in one direction")
        row = at.TRANSFERS + (way * at.QUEUE + number % at.QUEUE) * at.FIELDS
        s[row : row + at.FIELDS] = (
            t.id, t.l1, t.l2, t.size_bytes // 4, t.line_bytes // 4, t.l1_stride, t.l2_stride, t.ready,
        )  # fmt: skip
        s[at.TAIL + way] += 1
        for lane, port in enumerate(ports):
            if s[port + at.P_ASLEEP]:
                s[port + at.P_ASLEEP] = 0
                first_beat(port, lane, way, s)
                self._enqueue(self._cores + way * self._ports + lane, t.ready + way)

    def advance(self, until: int) -> list[Report]:
        s = self._state
        if s[at.CODE_ROWS] != len(self._code.rows):
            self._take_code()
        l1, l2, until = self._memory.l1, self._memory.l2, min(until, FOREVER)
        trapped = _advance(
            until, s, self._rows, self._rows.view(np.uint32), self._registers,
            l1, l1.view(np.int32), l2, l2.view(np.int32), self._tags, self._present.reshape(-1),
        )  # fmt: skip
        if s[at.REPORTS]:
            table = s[at.REPORT : at.REPORT + at.FIELDS * s[at.REPORTS]].reshape(-1, at.FIELDS)
            return [Report(Kind(kind), *values) for kind, *values in table[:, :4].tolist()]
        if not trapped and until < FOREVER:
            s[at.NOW] = max(self.now, until)
        return []

    def _take_code(self) -> None:
        """Decode the code image, which has grown; the caches keep what they hold."""
        s, rows = self._state, self._code.rows
        self._rows = at.decode(rows, self._platform).reshape(-1)
        new_lines = -(-len(rows) // ALIGN_ROWS) - int(s[at.LINES])
        s[at.CODE_ROWS], s[at.LINES] = len(rows), s[at.LINES] + new_lines
        present = 0 if self._platform.icache.enabled else 1  # without the cache every fetch hits
        self._present = np.pad(self._present, ((0, 0), (0, new_lines)), constant_values=present)
        self._tags = np.pad(self._tags, (0, new_lines))

    def idle(self) -> bool:
        return not self._state[at.QUEUED] and not self._state[at.BANK_WAITERS]

    def counters(self) -> NDArray[np.int64]:
        table = self._state[at.CORE : at.CORE + self._cores * at.CORE_FIELDS].reshape(-1, at.CORE_FIELDS)
        return table[:, at.COUNT : at.COUNT + CAUSES].copy()

    def registers(self, core: int) -> NDArray[np.uint32]:
        base = core * at.REGISTER_STRIDE
        return self._registers[base : base + 64].view(np.uint32).copy()

    def row(self, core: int) -> int:
        return int(self._core(core)[at.PC])

    def status(self, core: int) -> Status:
        return Status(int(self._core(core)[at.STATUS]))
