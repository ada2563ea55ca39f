"""Control and status registers, traps and fences (Zicsr, Zifencei, and machine mode as far as it goes).

A core has machine mode only. Of its registers those of `CSRS` exist; one that is not there, or is read-only
and written, is an illegal instruction.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from pulpsim.isa.table import Instruction, Unit, row


class Kind(Enum):
    """What reading a register gives."""

    STORED = "what was written"
    FLAGS = "exceptions that floating-point instructions raised"
    ROUNDING = "the dynamic rounding mode"
    FLAGS_AND_ROUNDING = "the exceptions and, from bit 5 on, the rounding mode"
    CYCLE = "the cycle of the instruction"
    INSTRUCTIONS = "how many instructions the core has executed since its start"
    CORE = "the core's number"
    CONSTANT = "always the same"


class Csr(NamedTuple):
    """`upper`: bits 63 to 32 of a counter. `value`: of a constant. Numbers from 0xc00 on are read-only."""

    number: int
    name: str
    kind: Kind
    upper: bool = False
    value: int = 0


#: RV32IMFX: an X for Xpulp
_MISA = 1 << 30 | sum(1 << ord(letter) - ord("a") for letter in "imfx")
_STORED = {
    0x300: "mstatus", 0x302: "medeleg", 0x303: "mideleg", 0x304: "mie", 0x305: "mtvec", 0x306: "mcounteren",
    0x340: "mscratch", 0x341: "mepc", 0x342: "mcause", 0x343: "mtval", 0x344: "mip", 0x180: "satp",
} | {0x3A0 + i: f"pmpcfg{i}" for i in range(4)} | {0x3B0 + i: f"pmpaddr{i}" for i in range(16)}  # fmt: skip

CSRS = (
    Csr(0x001, "fflags", Kind.FLAGS),
    Csr(0x002, "frm", Kind.ROUNDING),
    Csr(0x003, "fcsr", Kind.FLAGS_AND_ROUNDING),
    *(Csr(number, name, Kind.STORED) for number, name in _STORED.items()),
    Csr(0x301, "misa", Kind.CONSTANT, value=_MISA),
    Csr(0xB00, "mcycle", Kind.CYCLE),
    Csr(0xB02, "minstret", Kind.INSTRUCTIONS),
    Csr(0xB80, "mcycleh", Kind.CYCLE, upper=True),
    Csr(0xB82, "minstreth", Kind.INSTRUCTIONS, upper=True),
    Csr(0xC00, "cycle", Kind.CYCLE),
    Csr(0xC02, "instret", Kind.INSTRUCTIONS),
    Csr(0xC80, "cycleh", Kind.CYCLE, upper=True),
    Csr(0xC82, "instreth", Kind.INSTRUCTIONS, upper=True),
    Csr(0xF11, "mvendorid", Kind.CONSTANT),
    Csr(0xF12, "marchid", Kind.CONSTANT),
    Csr(0xF13, "mimpid", Kind.CONSTANT),
    Csr(0xF14, "mhartid", Kind.CORE),
)
CSR_BY_NUMBER = {csr.number: csr for csr in CSRS}
CSR_NUMBERS = {csr.name: csr.number for csr in CSRS}
#: names that the assembler knows of registers that do not exist here
ABSENT_CSRS = {
    "sstatus": 0x100, "stvec": 0x105, "sscratch": 0x140, "sepc": 0x141, "scause": 0x142, "stval": 0x143, "time": 0xC01,
    "mnstatus": 0x744, "timeh": 0xC81,
}  # fmt: skip
FIRST_READ_ONLY = 0xC00
#: a program that touches one of these wants exact exceptions, or another rounding
FP_STATE = (0x001, 0x002, 0x003)
MSTATUS, MTVEC, MEPC, MCAUSE, MTVAL = (CSR_NUMBERS[name] for name in "mstatus mtvec mepc mcause mtval".split())

#: what mcause says of a trap that goes to mtvec
CAUSE_ILLEGAL, CAUSE_BREAKPOINT, CAUSE_ECALL = 2, 3, 11
#: bits of mstatus: interrupts enabled, enabled before the trap, mode before the trap (machine)
MIE, MPIE, MPP = 1 << 3, 1 << 7, 3 << 11


def csr_name(number: int) -> str:
    """A register's name, or its number where it has none."""
    csr = CSR_BY_NUMBER.get(number)
    return csr.name if csr else f"{number:#x}"


def status_after_trap(mstatus: int) -> int:
    """mstatus when a trap was taken: interrupts off, what they were in MPIE, the mode in MPP."""
    return mstatus & ~(MIE | MPIE | MPP) | (MPIE if mstatus & MIE else 0) | MPP


def status_after_return(mstatus: int) -> int:
    """mstatus after mret; MPP stays, as there is no other mode."""
    return mstatus & ~(MIE | MPIE | MPP) | (MIE if mstatus & MPIE else 0) | MPIE | MPP


def _csr(mnemonic: str, funct3: str) -> tuple[Instruction, Instruction]:
    return (
        row(mnemonic, "rd csr rs1", Unit.CSR, f"u[11:0] rs1 {funct3} rd 1110011"),
        row(mnemonic + "i", "rd csr n5", Unit.CSR, f"u[11:0] n[4:0] 1{funct3[1:]} rd 1110011", operation=mnemonic),
    )


def _system(mnemonic: str, word: int) -> Instruction:
    return row(mnemonic, "", Unit.SYSTEM, f"{word:032b}")


INSTRUCTIONS = (
    *_csr("csrrw", "001"),
    *_csr("csrrs", "010"),
    *_csr("csrrc", "011"),
    _system("ecall", 0x00000073),
    _system("ebreak", 0x00100073),
    _system("mret", 0x30200073),
    _system("wfi", 0x10500073),
    row("fence", "pred succ", Unit.SYSTEM, "0000 u[7:0] 00000 000 00000 0001111"),
    _system("fence.i", 0x0000100F),
    # a word that is no instruction
    row(".word", "w32", Unit.GUARD, "u[31:0]"),
    # internal: never written in a program
    row("<return>", "", Unit.RETURN, None),
    row("<end>", "", Unit.GUARD, None),
)
