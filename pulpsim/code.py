"""The code image: programs one behind the other at the start of L2."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.errors import ProgramError
from pulpsim.memory import L2_BASE
from pulpsim.program import COLUMNS, Program

LINE_BYTES = 16  #: of the instruction cache; programs start on a line
ALIGN_ROWS = LINE_BYTES // 4
RETURN_ROW = 0  #: where a core's ra points at its start


class Code:
    """Rows of all loaded programs; row r lies at L2_BASE + 4 r. Row 0 is the return stub.

    rows: int32 [n, 7] as in Program. Guards stand between programs, so that running off an end traps.
    """

    def __init__(self) -> None:
        self._parts = [self._filler(ALIGN_ROWS)]
        self._parts[0][RETURN_ROW, 0] = isa.OP["<return>"]
        self._first: dict[int, tuple[int, Program]] = {}
        self.rows: NDArray[np.int32] = self._parts[0]

    @staticmethod
    def _filler(count: int) -> NDArray[np.int32]:
        rows = np.zeros((count, len(COLUMNS)), np.int32)
        rows[:, 0] = isa.OP["<end>"]
        return rows

    def load(self, program: Program) -> int:
        """First row of the program, loaded on first sight."""
        known = self._first.get(id(program))
        if known is not None:
            return known[0]
        first = len(self.rows)
        guard = ALIGN_ROWS - len(program) % ALIGN_ROWS
        self._first[id(program)] = (first, program)
        self.rows = np.concatenate([self.rows, program.rows, self._filler(guard)])
        return first

    def holds(self, program: Program) -> bool:
        """The program has been loaded."""
        return id(program) in self._first

    @property
    def size_bytes(self) -> int:
        """L2 bytes that the code occupies."""
        return 4 * len(self.rows)

    def where(self, row: int) -> tuple[Program | None, int]:
        """(program, row inside it) of a row; (None, row) for the stub."""
        for first, program in self._first.values():
            if first <= row <= first + len(program):
                return program, row - first
        return None, row

    def describe(self, row: int) -> str:
        """'pc 0x1c000010 (matmul.S:12, mm_2x2+0x20): p.lw x4,4(x5!)' of a row, for messages."""
        text = f"pc {address_of(row):#010x}"
        program, inside = self.where(row)
        if program is None:
            return text
        line = f":{program.lines[inside]}" if inside < len(program.lines) and program.lines[inside] else ""
        before = [(at, name) for name, at in program.labels.items() if at <= inside]
        named = [label for label in before if not label[1].startswith(".L")] or before
        near = ""
        if named:
            at, name = max(named)
            near = f", {name}+{4 * (inside - at):#x}" if inside > at else f", {name}"
        instruction = program.text(inside) if inside < len(program) else "past the last instruction"
        return f"{text} ({program.source}{line}{near}): {instruction}"


def address_of(row: int) -> int:
    return L2_BASE + 4 * row


def check_registers(program: Program, separate: bool) -> None:
    """Raises ProgramError if the program's FP operands are not in the platform's register file."""
    integer_columns = {"rd", "rs1", "rs2", "rs3"}
    for index, row in enumerate(program.rows.tolist()):
        for operand in isa.INSTRUCTIONS[row[0]].operands:
            column = operand if operand in integer_columns else "r" + operand[1:]
            if column not in integer_columns:
                continue
            wants_f = operand not in integer_columns and separate
            if (row[COLUMNS.index(column)] >= isa.F0) != wants_f:
                accepted = "f registers" if wants_f else "x registers"
                kind = "separate" if separate else "shared"
                raise ProgramError(
                    f"{program.source}: {program.text(index)}: operand {operand} must be one of the "
                    f'{accepted} (cluster.fp_registers = "{kind}")'
                )
