"""The instruction set of a cluster core as one table.

One row an instruction: mnemonic, operands, encoding, unit, meaning. The assembler parses and prints from
it, words are encoded and decoded by it, the reference engine executes its `semantics`, the fast engine
takes its operation numbers, and both take the timing class (`unit`) from it. The rows are in a module an
extension: RV32I and M (`base`), F (`floating`), Xpulp as on RI5CY (`xpulp`), Zicsr and traps (`system`).

Operand letters (what the text of an operand is stored in):
  rd rs1 rs2 rs3       integer registers, columns of the same name
  fd fs1 fs2 fs3       floating-point operands, same columns: x registers when the platform's
                       register file is shared, f registers when it is separate
  i12 i5 u12 u5 u20    immediates, column imm, signed (i) or not (u);   n5: a second one, column rs3
  rm                   rounding mode, column imm: rne, rtz, rdn, rup, rmm, or dyn, which is meant if
                       nothing is written: the one in the register frm, rne at first
  csr                  a control and status register's name or number, column imm
  label                a label, column target, in instructions relative to this one
  loop                 hardware-loop level x0 or x1, column rs3
  pred succ            what a fence orders, a set of i, o, r, w; column imm
  i12(rs1)  i12(rs1!)  base + offset; post-increment by an immediate
  rs2(rs1)  rs2(rs1!)  base + register; post-increment by a register (stores keep the stride in rs3)
"""

from __future__ import annotations

import dataclasses

from pulpsim.isa import base, floating, system, xpulp
from pulpsim.isa.encoding import COLUMNS, Encoding, Field
from pulpsim.isa.pseudo import PSEUDO
from pulpsim.isa.registers import (
    ABI_NAMES,
    DYNAMIC,
    F0,
    IMMEDIATES,
    REGISTER_NUMBERS,
    REGISTERS,
    ROUNDING_MODES,
    fence_set,
    fence_text,
    register_name,
    rounding_mode_name,
)
from pulpsim.isa.system import (
    ABSENT_CSRS,
    CSR_BY_NUMBER,
    CSR_NUMBERS,
    CSRS,
    FIRST_READ_ONLY,
    FP_STATE,
    Csr,
    csr_name,
)
from pulpsim.isa.table import MASK, Instruction, Unit, Variant, signed
from pulpsim.isa.xpulp import LOOP_PARTS

__all__ = [
    "ABI_NAMES", "ABSENT_CSRS", "BY_KEY", "BY_MNEMONIC", "COLUMNS", "CSRS", "CSR_BY_NUMBER", "CSR_NUMBERS",
    "DYNAMIC", "F0", "FIRST_READ_ONLY", "FP_STATE", "IMMEDIATES", "INSTRUCTIONS", "LOOP_PARTS", "MASK", "OP", "PSEUDO",
    "REGISTERS", "REGISTER_NUMBERS", "ROUNDING_MODES", "Csr", "Encoding", "Field", "Instruction", "Unit",
    "Variant", "csr_name", "fence_set", "fence_text", "register_name", "rounding_mode_name", "signed",
]  # fmt: skip

#: all rows; a row's place is its operation number
INSTRUCTIONS: list[Instruction] = [
    dataclasses.replace(instruction, op=op)
    for op, instruction in enumerate(
        (*base.INSTRUCTIONS, *xpulp.INSTRUCTIONS, *floating.INSTRUCTIONS, *system.INSTRUCTIONS)
    )
]
BY_KEY: dict[str, Instruction] = {row.key: row for row in INSTRUCTIONS}
BY_MNEMONIC: dict[str, list[Instruction]] = {}
for _row in INSTRUCTIONS:
    BY_MNEMONIC.setdefault(_row.mnemonic, []).append(_row)

#: key -> operation number, as the fast engine compiles it
OP: dict[str, int] = {row.key: row.op for row in INSTRUCTIONS}
