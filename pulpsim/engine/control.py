"""What only some programs have: control and status registers, exceptions, exact floating point.

For the fast engine, which is compiled without this module until a program needs it.
"""

from __future__ import annotations

import numpy as np

from pulpsim import isa
from pulpsim.counters import Cause
from pulpsim.engine import Trap
from pulpsim.engine import layout as at
from pulpsim.engine.operations import CsrAccess, System
from pulpsim.engine.softfloat import FLAGS, soft, soft_quotient_or_root
from pulpsim.isa.system import CAUSE_BREAKPOINT, CAUSE_ECALL, CAUSE_ILLEGAL, MIE, MPIE, MPP
from pulpsim.jit import heapless
from pulpsim.memory import L2_BASE

MASK = 0xFFFFFFFF
DYNAMIC, MODES = isa.DYNAMIC, len(isa.ROUNDING_MODES)
ISSUE, FPU_CONTENTION, MULDIV, BRANCH = (
    int(cause) for cause in (Cause.ISSUE, Cause.FPU_CONTENTION, Cause.MULDIV, Cause.BRANCH)
)
TARGET, ECALL, EBREAK, ILLEGAL = (int(trap) for trap in (Trap.TARGET, Trap.ECALL, Trap.EBREAK, Trap.ILLEGAL))


@heapless
def reset(c, s):
    """The registers of a core that starts."""
    own = at.CSRS + c * at.CSR_FIELDS
    for i in range(at.CSR_FIELDS):
        s[own + i] = 0
    s[own + at.C_NO_INSTRUCTION] = s[at.CORE + c * at.CORE_FIELDS + at.COUNT + ISSUE]


@heapless
def _counter(own, which, c, s):
    """The 64 bits of mcycle or minstret."""
    if which == at.C_CYCLE:
        return s[at.NOW] - s[own + at.C_NO_CYCLE]
    return s[at.CORE + c * at.CORE_FIELDS + at.COUNT + ISSUE] - s[own + at.C_NO_INSTRUCTION]


@heapless
def access_csr(register, action, operand, constant, c, s):
    """Read a register, and write it if `action` says so; returns what was read. operand: a pattern."""
    own = at.CSRS + c * at.CSR_FIELDS
    which = register & ~at.C_UPPER
    count = np.int64(0)
    if which == at.C_CYCLE or which == at.C_INSTRUCTIONS:
        count = _counter(own, which, c, s)
        old = (count >> 32 if register & at.C_UPPER else count) & MASK
    elif which == at.C_BOTH:
        old = s[own + at.C_ROUNDING] << 5 | s[own + at.C_FLAGS]
    elif which == at.C_CORE:
        old = np.int64(c)
    elif which == at.C_CONSTANT:
        old = constant & MASK
    else:
        old = s[own + which]
    if action & at.X_WRITES == 0:
        return old
    new = operand & MASK
    if action & ~at.X_WRITES == CsrAccess.CSRRS:
        new = old | new
    elif action & ~at.X_WRITES == CsrAccess.CSRRC:
        new = old & ~new
    if which == at.C_CYCLE or which == at.C_INSTRUCTIONS:
        wanted = (count & MASK) | new << 32 if register & at.C_UPPER else (count & ~np.int64(MASK)) | new
        s[own + (at.C_NO_CYCLE if which == at.C_CYCLE else at.C_NO_INSTRUCTION)] += count - wanted
    elif which == at.C_BOTH:
        s[own + at.C_FLAGS], s[own + at.C_ROUNDING] = new & 31, new >> 5 & 7
    elif which == at.C_FLAGS:
        s[own + which] = new & 31
    elif which == at.C_ROUNDING:
        s[own + which] = new & 7
    elif which >= at.C_STORED:
        s[own + which] = new
    return old


@heapless
def place_at(address, s):
    """Where the row of an instruction's address begins; -1 if none is there."""
    place = (address - L2_BASE) // 4 * at.ROW
    if address & 3 or place < 0 or place >= s[at.CODE_ROWS] * at.ROW:
        return np.int64(-1)
    return place


@heapless
def _jump_cycles(k, s):
    """What a jump takes beyond its first cycle, counted."""
    s[k + at.COUNT + BRANCH] += s[at.JUMP] - 1
    return s[at.JUMP] - 1


@heapless
def exception(trap, c, k, row, s):
    """What `uncommon` returns of an instruction that has a handler, if mtvec says where."""
    own, address = at.CSRS + c * at.CSR_FIELDS, np.int64(L2_BASE + 4 * (row // at.ROW))
    handler = s[own + at.C_MTVEC] & 0xFFFFFFFC
    if handler == 0:
        return np.int64(0), np.int64(-1), trap, address
    following = place_at(handler, s)
    if following < 0:
        return np.int64(0), following, np.int64(TARGET), handler
    s[own + at.C_MCAUSE] = CAUSE_ILLEGAL if trap == ILLEGAL else CAUSE_ECALL if trap == ECALL else CAUSE_BREAKPOINT
    s[own + at.C_MEPC], s[own + at.C_MTVAL] = address, 0
    status = s[own + at.C_MSTATUS]
    enabled = np.int64(MPIE) if status & MIE else np.int64(0)
    s[own + at.C_MSTATUS] = (status & ~np.int64(MIE | MPIE | MPP)) | enabled | MPP
    return _jump_cycles(k, s), following, np.int64(-1), address


@heapless
def _return(c, k, s):
    """mret, as `uncommon`."""
    own = at.CSRS + c * at.CSR_FIELDS
    address = s[own + at.C_MEPC] & 0xFFFFFFFE
    following = place_at(address, s)
    if following < 0:
        return np.int64(0), following, np.int64(TARGET), address
    status = s[own + at.C_MSTATUS]
    enabled = np.int64(MIE) if status & MPIE else np.int64(0)
    s[own + at.C_MSTATUS] = (status & ~np.int64(MIE | MPIE | MPP)) | enabled | MPIE | MPP
    return _jump_cycles(k, s), following, np.int64(-1), address


@heapless
def _soft_event(c, k, row, a, b, s, rows, registers):
    """Floating point whose exceptions are seen. Returns the cycles beyond one, -1 if there is no such mode."""
    own, base = at.CSRS + c * at.CSR_FIELDS, c * at.REGISTER_STRIDE
    mode, sub = np.int64(rows[row + at.R_IMM]), np.int64(rows[row + at.R_SUB])
    if mode == DYNAMIC:
        mode = s[own + at.C_ROUNDING]
    if mode >= MODES:
        return np.int64(-1)
    now, extra = s[at.NOW], np.int64(0)
    if rows[row + at.R_CYCLES] == at.SOFT_DIVIDES:
        result = soft_quotient_or_root(sub, a, b, mode, s)
        begin = max(now, s[at.DIVIDER_FREE])
        s[at.DIVIDER_FREE] = begin + s[at.FDIV]
        extra = begin + s[at.FDIV] - now - 1
        s[k + at.COUNT + MULDIV] += extra
    else:
        result = soft(sub, a, b, np.int64(registers[base + rows[row + at.R_RS3]]), mode, s)
        if rows[row + at.R_CYCLES] == at.SOFT_SHARED:
            fpu = at.FPU_FREE + s[k + at.FPU_INDEX]
            extra = max(now, s[fpu]) - now
            s[fpu] = now + extra + 1
            s[k + at.COUNT + FPU_CONTENTION] += extra
    s[own + at.C_FLAGS] |= s[FLAGS]
    s[k + at.DID_FP_OPERATIONS] += 1
    registers[base + rows[row + at.R_RD]] = np.int32(result)
    return extra


@heapless
def uncommon(kind, c, k, row, a, b, s, rows, registers):
    """An instruction that only some programs have, at its event, with its registers a and b.

    Returns the cycles beyond one and its stall, the place that it goes to or -1, the trap or -1, and the
    trap's address.
    """
    extra, trap = np.int64(0), np.int64(-1)
    sub = np.int64(rows[row + at.R_SUB])
    if kind == at.K_CSR:
        operand, constant = a + rows[row + at.R_CYCLES], np.int64(rows[row + at.R_PRE])
        value = access_csr(np.int64(rows[row + at.R_IMM]), sub, operand, constant, c, s)
        registers[c * at.REGISTER_STRIDE + rows[row + at.R_RD]] = np.int32(value)
    elif kind == at.K_SOFT:
        extra = _soft_event(c, k, row, a, b, s, rows, registers)
        if extra < 0:
            extra, trap = np.int64(0), np.int64(ILLEGAL)
    elif sub == System.MRET:
        return _return(c, k, s)
    elif sub == System.FENCE_I:
        s[at.ENDS] |= at.STALE
    else:
        trap = np.int64(ECALL if sub == System.ECALL else EBREAK)
    return extra, np.int64(-1), trap, np.int64(0)
