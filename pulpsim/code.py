"""The code image: programs one behind the other at the start of L2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.errors import ProgramError
from pulpsim.isa import COLUMNS
from pulpsim.memory import L1_BASE, L2_BASE, Memory
from pulpsim.program.rows import LINE_BYTES, Program, Region, disassemble_row, relocate
from pulpsim.program.words import decode, encode

ALIGN_ROWS = LINE_BYTES // 4
RETURN_ROW = 0  #: where a core's ra points at its start


class _Loaded(NamedTuple):
    """A program in the image: its first row, and the address of its L1 data."""

    first: int
    l1: int
    program: Program


class Code:
    """Rows of all loaded programs; row r lies at L2_BASE + 4 r. Row 0 is the return stub.

    rows: int32 [n, 7] as in Program. A program's data lie behind it, without rows of their own; guards stand
    there and between programs, so that running off an end traps. `version` changes with the rows.
    """

    def __init__(self) -> None:
        self.rows = self._filler(ALIGN_ROWS)
        self.rows[RETURN_ROW, 0] = isa.OP["<return>"]
        self.version = 0
        self.rewritten = False  # rows are no longer those of the programs
        self._loaded: dict[int, _Loaded] = {}
        self._l1_bytes = 0
        #: what stands in L2, where rows were made of it
        self._words = np.zeros(0, np.uint32)
        self._known = np.zeros(0, np.bool_)

    @staticmethod
    def _filler(count: int) -> NDArray[np.int32]:
        rows = np.zeros((count, len(COLUMNS)), np.int32)
        rows[:, 0] = isa.OP["<end>"]
        return rows

    def load(self, program: Program, memory: Memory | None = None) -> int:
        """First row of the program, loaded on first sight; its words and data are written to `memory`.

        Raises ProgramError if it has no encoding, AddressError if it does not fit into the memory.
        """
        known = self._loaded.get(id(program))
        if known is not None:
            return known.first
        first = len(self.rows) + -address_of(len(self.rows)) % program.alignment // 4
        bases: dict[Region, int] = {"l2": address_of(first), "l1": L1_BASE + self._l1_bytes}
        rows, data = relocate(program, bases)
        if memory is not None:
            words = program.words if rows is program.rows else encode(rows, program.source)
            self._write(memory, [(bases["l2"], words.tobytes()), *data])
        size = -(-program.size_bytes("l2") // 4)
        guard = ALIGN_ROWS - size % ALIGN_ROWS
        before, behind = self._filler(first - len(self.rows)), self._filler(size - len(rows) + guard)
        self.rows = np.concatenate([self.rows, before, rows, behind])
        self.version += 1
        self._l1_bytes += -(-program.size_bytes("l1") // LINE_BYTES) * LINE_BYTES
        self._loaded[id(program)] = _Loaded(first, bases["l1"], program)
        return first

    def restore(self, memory: Memory | None = None) -> None:
        """Rows are those of the programs again, which are written to `memory`, if it is given; it has been cleared."""
        if memory is not None and not (self.rewritten or self._l1_bytes):
            words = memory.l2[: 4 * len(self._words)].view(np.uint32)
            np.copyto(words, self._words, where=self._known)
            return
        programs, version, rewritten = self.programs(), self.version, self.rewritten
        Code.__init__(self)
        for _, program in programs:
            self.load(program, memory)
        self.version = version + rewritten

    def _write(self, memory: Memory, contents: Sequence[tuple[int, bytes]]) -> None:
        """Write a program's words and data, and remember what of them is in L2."""
        for address, content in contents:
            if content:
                memory.write(address, np.frombuffer(content, np.uint8))
            if content and address >= L2_BASE:
                self._watch((address - L2_BASE) // 4, -(-(address - L2_BASE + len(content)) // 4), memory)

    def _watch(self, begin: int, end: int, memory: Memory) -> None:
        """Remember what these words of L2 hold."""
        if end > len(self._words):
            more = end - len(self._words)
            self._words = np.concatenate([self._words, np.zeros(more, np.uint32)])
            self._known = np.concatenate([self._known, np.zeros(more, np.bool_)])
        self._words[begin:end] = memory.l2[4 * begin : 4 * end].view(np.uint32)
        self._known[begin:end] = True

    def refresh(self, l2: NDArray[np.uint8], separate: bool) -> bool:
        """Make rows of what has changed in L2 where programs lie (fence.i). True if anything has."""
        count = min(len(self._words), len(l2) // 4)
        words = l2[: 4 * count].view(np.uint32)
        changed = np.flatnonzero(self._known[:count] & (words != self._words[:count]))
        if not len(changed):
            return False
        self._words[changed] = words[changed]
        self.rows = self.rows.copy()
        self.rows[changed] = decode(words[changed], separate)
        self.version, self.rewritten = self.version + 1, True
        return True

    def programs(self) -> list[tuple[int, Program]]:
        """(first row, program) of all that are loaded, in order."""
        return [(loaded.first, loaded.program) for loaded in self._loaded.values()]

    def bases(self, program: Program) -> dict[Region, int]:
        """Where the parts of a loaded program begin."""
        loaded = self._loaded[id(program)]
        return {"l2": address_of(loaded.first), "l1": loaded.l1}

    def holds(self, program: Program) -> bool:
        """The program has been loaded."""
        return id(program) in self._loaded

    def address(self, program: Program, name: str) -> int:
        """The address of a label or symbol of a loaded program. Raises ProgramError."""
        loaded, place = self._loaded[id(program)], program.place(name)
        base = {"l2": address_of(loaded.first), "l1": loaded.l1, "fixed": 0}[place.memory]
        return base + place.offset & isa.MASK

    @property
    def size_bytes(self) -> int:
        """L2 bytes that the code occupies, data included."""
        return 4 * len(self.rows)

    @property
    def l1_bytes(self) -> int:
        """L1 bytes from the start that the programs' own data occupy."""
        return self._l1_bytes

    def where(self, row: int) -> tuple[Program | None, int]:
        """(program, row inside it) of a row; (None, row) for the stub."""
        for first, _, program in self._loaded.values():
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
        instruction = disassemble_row(self.rows[row]) if inside < len(program) else "past the last instruction"
        return f"{text} ({program.source}{line}{near}): {instruction}"


def address_of(row: int) -> int:
    return L2_BASE + 4 * row


def check_registers(program: Program, separate: bool) -> None:
    """Raises ProgramError if the program's FP operands are not in the platform's register file."""
    rows = program.rows
    wants_f = _FLOATS[rows[:, 0]] & separate
    wrong = _REGISTERS[rows[:, 0]] & ((rows >= isa.F0) != wants_f)
    for index in np.flatnonzero(wrong.any(axis=1)).tolist():
        for operand in isa.INSTRUCTIONS[rows[index, 0]].operands:
            column = _column(operand)
            if column is None or not wrong[index, column]:
                continue
            accepted = "f registers" if wants_f[index, column] else "x registers"
            kind = "separate" if separate else "shared"
            raise ProgramError(
                f"{program.source}: {program.text(index)}: operand {operand} must be one of the "
                f'{accepted} (cluster.fp_registers = "{kind}")'
            )


def _column(operand: str) -> int | None:
    """Of a row, in which the number of the register stands that an operand is."""
    name = "r" + operand[1:]
    return COLUMNS.index(name) if name in ("rd", "rs1", "rs2", "rs3") else None


def _columns(kinds: str) -> NDArray[np.bool_]:
    """Which columns hold registers that are operands, by number of the operation; kinds: first letters of these."""
    found = np.zeros((len(isa.INSTRUCTIONS), len(COLUMNS)), np.bool_)
    for number, instruction in enumerate(isa.INSTRUCTIONS):
        for operand in instruction.operands:
            if operand[0] in kinds and (column := _column(operand)) is not None:
                found[number, column] = True
    return found


_REGISTERS, _FLOATS = _columns("rf"), _columns("f")
