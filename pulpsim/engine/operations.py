"""The numbers by which the fast engine calls what instructions do: an enumeration a kind, taken from the table.

A member is an `operation` of the rows of `isa`, in capitals, with _ for a dot: `Fpu.FCVT_S_W`. A row that
brings a new operation thereby brings its number; what it means is in `arithmetic`, in `control` or at its
kind in `loop`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from pulpsim import isa
from pulpsim.isa import Instruction, Unit, Variant


def _rows(*units: Unit) -> list[Instruction]:
    return [row for row in isa.INSTRUCTIONS if row.unit in units]


def _member(operation: str) -> str:
    return operation.upper().replace(".", "_")


def _numbered(name: str, operations: Iterable[str], first: int = 0) -> Any:
    """An enumeration of operations, each once. Any: the compiled code that asks it has no types."""
    members = list(dict.fromkeys(map(_member, operations)))
    return IntEnum(name, members, start=first, module=__name__)


def _written(row: Instruction) -> int:
    """How many registers and numbers are written as operands, the result not counted."""
    return len(row.operands) - row.writes_rd


_WIDE = {row.operation for row in _rows(Unit.ALU) if _written(row) > 2}
#: bits above the number of a `Wide`, by `Variant`
WIDE_BITS, WIDE_NUMBER = 16, 15
#: numbers below are of operation "fused": the bits of its `Variant`
FUSED = int(Variant.NEGATED_ADDEND | Variant.NEGATED_PRODUCT) + 1

#: beside the table's: the register of machine mode that concerns nobody else and never changes
Alu = _numbered("Alu", [row.operation for row in _rows(Unit.ALU) if row.operation not in _WIDE] + ["mhartid"])
#: with three numbers or registers: bit fields, shifted sums, products of half-words
Wide = _numbered("Wide", [row.operation for row in _rows(Unit.ALU) if row.operation in _WIDE])
Branch = _numbered("Branch", [row.operation for row in _rows(Unit.BRANCH)])
Jump = _numbered("Jump", [row.operation for row in _rows(Unit.JUMP)])
Loop = _numbered("Loop", [row.operation for row in _rows(Unit.LOOP)])
Mul = _numbered("Mul", [row.operation for row in _rows(Unit.MUL, Unit.MULH)])
Div = _numbered("Div", [row.operation for row in _rows(Unit.DIV)])
Fpu = _numbered("Fpu", [row.operation for row in _rows(Unit.FPU) if row.operation != "fused"], FUSED)
FDiv = _numbered("FDiv", [row.operation for row in _rows(Unit.FDIV)])
CsrAccess = _numbered("CsrAccess", [row.operation for row in _rows(Unit.CSR)])
System = _numbered("System", [row.operation for row in _rows(Unit.SYSTEM)])

_OF_UNIT = {
    Unit.ALU: Alu, Unit.BRANCH: Branch, Unit.JUMP: Jump, Unit.LOOP: Loop, Unit.MUL: Mul, Unit.MULH: Mul,
    Unit.DIV: Div, Unit.FPU: Fpu, Unit.FDIV: FDiv, Unit.CSR: CsrAccess, Unit.SYSTEM: System,
}  # fmt: skip


def is_wide(row: Instruction) -> bool:
    return row.unit is Unit.ALU and row.operation in _WIDE


def number(row: Instruction) -> int:
    """What the engine calls an instruction's operation, among those of its kind; 0 if its kind has only one."""
    if is_wide(row):
        return int(Wide[_member(row.operation)]) | WIDE_BITS * row.variant
    if row.operation == "fused":
        return int(row.variant)
    return int(_OF_UNIT[row.unit][_member(row.operation)]) if row.unit in _OF_UNIT else 0
