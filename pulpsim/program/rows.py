"""Programs: flat immutable rows of decoded instructions, the data that comes with them, and listings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.arguments import text
from pulpsim.errors import ProgramError, nearest
from pulpsim.isa import COLUMNS
from pulpsim.memory import L1_BASE, L2_BASE
from pulpsim.program.words import encode

OP, RD, RS1, RS2, RS3, IMM, TARGET = range(len(COLUMNS))

#: programs start at a multiple of this many bytes: a line of the instruction cache
LINE_BYTES = 16

#: which memory a place is in; "fixed": it is a plain number
Region = Literal["l2", "l1", "fixed"]

#: bytes of the return stub that L2 begins with: a program that is loaded first lies behind it
STUB_BYTES = LINE_BYTES
#: where L1 and what programs have of L2 begin
HOME: dict[Region, int] = {"l1": L1_BASE, "l2": L2_BASE + STUB_BYTES}


class Place(NamedTuple):
    """What a symbol means: bytes from the program's first instruction, from the start of its L1 data, or a number."""

    memory: Region
    offset: int


class Segment(NamedTuple):
    """Bytes that are in memory before the program starts."""

    place: Place
    data: bytes
    name: str = ".data"


class Relocation(NamedTuple):
    """A number in a program that depends on where it lies.

    kind: "hi", "lo" and "pcrel_hi", "pcrel_lo" for the upper 20 and lower 12 bits in the immediate of the
    instruction at `where`; "word" for four bytes at `where`. target: what it is the address of. origin:
    the auipc's place for the two relative ones.
    """

    kind: Literal["hi", "lo", "pcrel_hi", "pcrel_lo", "word"]
    where: Place
    target: Place
    origin: Place = Place("fixed", 0)


@dataclass(frozen=True, eq=False)
class Program:
    """A program: instructions and data.

    rows: int32 [instructions, 7], columns as in COLUMNS; registers are flat numbers (isa), `target`
    counts instructions relative to the row. labels: name -> row. lines: source line of each row
    (0 if none). source: where the text came from, for messages. data, symbols (what has an address and
    is no label of an instruction) and relocations: of assembled text only. alignment: of the first
    instruction, in bytes. written: the statement of each row as it was written, registers and labels by its names;
    no longer than the rows, and "" where there is none.
    """

    rows: NDArray[np.int32]
    labels: Mapping[str, int] = field(default_factory=dict)
    lines: tuple[int, ...] = ()
    source: str = "<program>"
    data: tuple[Segment, ...] = ()
    symbols: Mapping[str, Place] = field(default_factory=dict)
    relocations: tuple[Relocation, ...] = ()
    alignment: int = LINE_BYTES
    written: Sequence[str] = ()

    def __post_init__(self) -> None:
        rows: Any = self.rows
        if not isinstance(rows, np.ndarray) or rows.dtype != np.int32 or rows.shape[1:] != (len(COLUMNS),):
            given = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, np.ndarray) else type(rows).__name__
            raise ProgramError(
                f"{self.source}: rows are {given}: must be int32 [instructions, {len(COLUMNS)}]; "
                f"assemble(text) and Builder make programs"
            )
        limits = np.array([len(isa.INSTRUCTIONS), *[isa.REGISTERS] * 4])
        if rows.size and not ((rows[:, : RS3 + 1] >= 0) & (rows[:, : RS3 + 1] < limits)).all():
            raise ProgramError(f"{self.source}: rows hold operations or registers that there are not")
        rows.setflags(write=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def home(self) -> int:
        """The address of its first instruction if it is loaded first."""
        return -(-HOME["l2"] // self.alignment) * self.alignment

    def entry(self, name: str | None) -> int:
        """Row of an entry label (default: the first row). Raises ProgramError."""
        if name is None:
            return 0
        if text(name) not in self.labels:
            known = ", ".join(sorted(label for label in self.labels if not label.startswith(".L"))) or "none"
            raise ProgramError(f"{self.source}: no entry {name!r}{nearest(name, self.labels)}; labels: {known}")
        return self.labels[name]

    def place(self, name: str) -> Place:
        """What a label or symbol means. Raises ProgramError."""
        if name in self.labels:
            return Place("l2", 4 * self.labels[name])
        if name not in self.symbols:
            raise ProgramError(f"{self.source}: no symbol {name!r}{nearest(name, [*self.labels, *self.symbols])}")
        return self.symbols[name]

    def text(self, row: int) -> str:
        """One instruction as assembly; branch targets as row numbers relative to the row."""
        return disassemble_row(self.rows[row])

    def statement(self, row: int) -> str:
        """One instruction as it was written; disassembled, where it was not or is a further one of a statement."""
        written = self.written[row] if row < len(self.written) else ""
        if row and written and written == self.written[row - 1]:
            further = (self.rows[row] != self.rows[row - 1]).any()
            if further and self.lines[row : row + 1] == self.lines[row - 1 : row]:
                return self.text(row)
        return written or self.text(row)

    def content(self) -> bytes:
        """What the program is, for caches and comparison: the bytes of its rows and of its data."""
        data = b"".join(repr(segment.place).encode() + segment.data for segment in self.data)
        return self.rows.astype("<i4").tobytes() + data

    @cached_property
    def words(self) -> NDArray[np.uint32]:
        """The instructions' encodings. Raises ProgramError."""
        return encode(self.rows, self.source)

    def size_bytes(self, memory: Region) -> int:
        """Bytes that the program takes of L2, or of L1."""
        ends = [s.place.offset + len(s.data) for s in self.data if s.place.memory == memory]
        return max([4 * len(self.rows) if memory == "l2" else 0, *ends])

    def __str__(self) -> str:
        return disassemble(self)


def disassemble_row(row: NDArray[np.int32], target: str | None = None) -> str:
    instruction = isa.INSTRUCTIONS[int(row[OP])]
    parts = [_operand(row, operand, target) for operand in instruction.operands]
    if instruction.rounds and int(row[IMM]) == isa.DYNAMIC:
        parts.pop()
    return f"{instruction.mnemonic} {','.join(parts)}".strip()


def _operand(row: NDArray[np.int32], operand: str, target: str | None) -> str:
    """The text of one operand."""
    imm = int(row[IMM])
    if "(" in operand:
        offset, _, base = operand.partition("(")
        return f"{_operand(row, offset, None)}({_operand(row, 'rs1', None)}{'!' * base.endswith('!)')})"
    if operand in isa.IMMEDIATES:
        return str(int(row[RS3]) if operand == "n5" else imm) if operand != "w32" else f"{imm & isa.MASK:#x}"
    if operand == "label":
        return target or f".{int(row[TARGET]) * 4:+d}"
    if operand == "loop":
        return f"x{int(row[RS3])}"
    if operand == "rm":
        return isa.rounding_mode_name(imm)
    if operand == "csr":
        return isa.csr_name(imm)
    if operand in ("pred", "succ"):
        return isa.fence_text(imm >> 4 if operand == "pred" else imm & 15)
    return isa.register_name(int(row[COLUMNS.index("r" + operand[1:])]))


def disassemble(program: Program) -> str:
    """Assembly text that `assemble` turns back into the same rows."""
    names: dict[int, list[str]] = {}
    for name, row in program.labels.items():
        names.setdefault(row, []).append(name)
    for row in range(len(program)):
        instruction = isa.INSTRUCTIONS[int(program.rows[row, OP])]
        if "label" in instruction.operands:
            goal = row + int(program.rows[row, TARGET])
            if goal not in names:
                names[goal] = [_unused(f".L{goal}", program.labels)]
    lines = []
    for row in range(len(program) + 1):
        lines += [f"{name}:" for name in names.get(row, [])]
        if row < len(program):
            goal = row + int(program.rows[row, TARGET])
            lines.append("    " + disassemble_row(program.rows[row], names.get(goal, [None])[0]))
    return "\n".join(lines) + "\n"


def _unused(name: str, taken: Mapping[str, int]) -> str:
    while name in taken:
        name += "_"
    return name


def split_address(value: int) -> tuple[int, int]:
    """(upper 20 bits, signed lower 12 bits) whose sum after shifting is the value, modulo 2**32."""
    low = (value & 0xFFF) - (0x1000 if value & 0x800 else 0)
    return (value - low >> 12) & 0xFFFFF, low


def load_immediate(value: int) -> list[tuple[str, list[str | int]]]:
    """The instructions of `li`: [(mnemonic, operands after the target)], the target repeated by addi."""
    high, low = split_address(value & isa.MASK)
    if high == 0:
        return [("addi", ["x0", low])]
    return [("lui", [high]), ("addi", [low])] if low else [("lui", [high])]


def relocate(program: Program, bases: Mapping[Region, int]) -> tuple[NDArray[np.int32], list[tuple[int, bytes]]]:
    """(rows, [(address, bytes of data)]) of a program whose parts begin at these addresses."""

    def address(place: Place) -> int:
        return bases.get(place.memory, 0) + place.offset

    rows = program.rows
    if program.relocations:
        rows = rows.copy()
    segments = [bytearray(segment.data) for segment in program.data]
    for relocation in program.relocations:
        value = address(relocation.target) - address(relocation.origin)
        if relocation.kind != "word":
            high, low = split_address(value)
            rows[relocation.where.offset // 4, IMM] = high if relocation.kind.endswith("hi") else low
        elif not _put_word(program.data, segments, relocation.where, value):
            rows[relocation.where.offset // 4, IMM] = np.uint32(value & isa.MASK).view(np.int32)
    parts = [(address(segment.place), bytes(data)) for segment, data in zip(program.data, segments, strict=True)]
    return rows, parts


def _put_word(data: Sequence[Segment], contents: Sequence[bytearray], where: Place, value: int) -> bool:
    """Store a word in the segment that holds the place; False if none does."""
    for segment, content in zip(data, contents, strict=True):
        at = where.offset - segment.place.offset
        if segment.place.memory == where.memory and 0 <= at < len(content):
            content[at : at + 4] = (value & isa.MASK).to_bytes(4, "little")
            return True
    return False
