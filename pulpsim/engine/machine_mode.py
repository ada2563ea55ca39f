"""Control and status registers, exceptions and fences of the reference engine.

`MachineMode` has the methods of the units CSR and SYSTEM, and what else ends in an exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulpsim import isa
from pulpsim.code import Code
from pulpsim.counters import Cause
from pulpsim.engine import Trap
from pulpsim.isa import MASK
from pulpsim.isa.system import (
    CAUSE_BREAKPOINT,
    CAUSE_ECALL,
    CAUSE_ILLEGAL,
    MCAUSE,
    MEPC,
    MSTATUS,
    MTVAL,
    MTVEC,
    status_after_return,
    status_after_trap,
)
from pulpsim.isa.system import Kind as CsrKind
from pulpsim.memory import L2_BASE
from pulpsim.platform import Core

if TYPE_CHECKING:
    from pulpsim.engine.reference import _Core, _Decoded

ISSUE = int(Cause.ISSUE)


class FaultError(Exception):
    """Raised before an instruction has any effect."""

    def __init__(self, trap: Trap, address: int):
        super().__init__(trap, address)
        self.value = int(trap) << 32 | address & MASK


class MachineMode:
    """What a core does with its registers of machine mode; a part of `ReferenceEngine`."""

    _code: Code
    _costs: Core
    _stale: bool  # a fence.i in this cycle

    def _csr(self, core: _Core, code: _Decoded, t: int) -> int:
        immediate = code.mnemonic.endswith("i")
        operand = code.number if immediate else core.x[code.rs1]
        access = code.mnemonic.removesuffix("i")
        writes = access == "csrrw" or bool(code.number if immediate else code.rs1)
        csr = isa.CSR_BY_NUMBER.get(code.imm)
        if csr is None or (writes and csr.number >= isa.FIRST_READ_ONLY):
            return self._illegal(core, code)
        old = self._read_csr(core, csr, t)
        if writes:
            new = {"csrrw": operand, "csrrs": old | operand, "csrrc": old & ~operand}[access]
            self._write_csr(core, csr, new, t)
        core.write(code.rd, old)
        return 0

    def _read_csr(self, core: _Core, csr: isa.Csr, t: int) -> int:
        if csr.kind is CsrKind.FLAGS:
            return core.flags.raised
        if csr.kind is CsrKind.ROUNDING:
            return core.rounding
        if csr.kind is CsrKind.FLAGS_AND_ROUNDING:
            return core.rounding << 5 | core.flags.raised
        if csr.kind is CsrKind.CORE:
            return core.number
        if csr.kind in (CsrKind.CYCLE, CsrKind.INSTRUCTIONS):
            return self._count_of(core, csr, t) >> (32 if csr.upper else 0) & MASK
        return core.csr[csr.number]

    def _count_of(self, core: _Core, csr: isa.Csr, t: int) -> int:
        """A counter of 64 bits, whose half the register is."""
        if csr.kind is CsrKind.CYCLE:
            return t - core.no_cycle
        return core.counters[ISSUE] - core.no_instruction

    def _write_csr(self, core: _Core, csr: isa.Csr, value: int, t: int) -> None:
        if csr.kind in (CsrKind.FLAGS, CsrKind.FLAGS_AND_ROUNDING):
            core.flags.raised = value & 31
        if csr.kind in (CsrKind.ROUNDING, CsrKind.FLAGS_AND_ROUNDING):
            core.rounding = (value if csr.kind is CsrKind.ROUNDING else value >> 5) & 7
        if csr.kind is CsrKind.STORED:
            core.csr[csr.number] = value
        if csr.kind in (CsrKind.CYCLE, CsrKind.INSTRUCTIONS):
            count = self._count_of(core, csr, t)
            kept, written = (count & MASK, value << 32) if csr.upper else (count & ~MASK, value)
            if csr.kind is CsrKind.CYCLE:
                core.no_cycle += count - (kept | written)
            else:
                core.no_instruction += count - (kept | written)

    def _system(self, core: _Core, code: _Decoded, t: int) -> int:
        if code.mnemonic == "ecall":
            return self._exception(core, code, CAUSE_ECALL, Trap.ECALL)
        if code.mnemonic == "ebreak":
            return self._exception(core, code, CAUSE_BREAKPOINT, Trap.EBREAK)
        if code.mnemonic == "mret":
            core.jump = self._row_at(core.csr[MEPC] & ~1)
            core.csr[MSTATUS] = status_after_return(core.csr[MSTATUS])
            return core.count(Cause.BRANCH, self._costs.jump_cycles - 1)
        self._stale |= code.mnemonic == "fence.i"
        return 0

    def _illegal(self, core: _Core, code: _Decoded) -> int:
        return self._exception(core, code, CAUSE_ILLEGAL, Trap.ILLEGAL)

    def _exception(self, core: _Core, code: _Decoded, cause: int, trap: Trap) -> int:
        """Go to the handler; a fault if there is none."""
        handler = core.csr[MTVEC] & ~3
        if not handler:
            raise FaultError(trap, code.address)
        core.jump = self._row_at(handler)
        core.csr |= {MEPC: code.address, MCAUSE: cause, MTVAL: 0, MSTATUS: status_after_trap(core.csr[MSTATUS])}
        return core.count(Cause.BRANCH, self._costs.jump_cycles - 1)

    def _row_at(self, address: int) -> int:
        """The row of an instruction's address. Raises FaultError."""
        row, rest = divmod(address - L2_BASE, 4)
        if rest or not 0 <= row < len(self._code.rows):
            raise FaultError(Trap.TARGET, address)
        return row
