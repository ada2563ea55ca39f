"""Programs: flat immutable rows of decoded instructions, and a Builder to write them in Python."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.arguments import text, whole
from pulpsim.errors import ProgramError, nearest

#: columns of Program.rows
COLUMNS = ("op", "rd", "rs1", "rs2", "rs3", "imm", "target")
OP, RD, RS1, RS2, RS3, IMM, TARGET = range(7)


@dataclass(frozen=True, eq=False)
class Program:
    """Machine code without encodings.

    rows: int32 [instructions, 7], columns as in COLUMNS; registers are flat numbers (isa), `target`
    counts instructions relative to the row. labels: name -> row. lines: source line of each row
    (0 if none). source: where the text came from, for messages.
    """

    rows: NDArray[np.int32]
    labels: Mapping[str, int] = field(default_factory=dict)
    lines: tuple[int, ...] = ()
    source: str = "<program>"

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

    def entry(self, name: str | None) -> int:
        """Row of an entry label (default: the first row). Raises ProgramError."""
        if name is None:
            return 0
        if text(name) not in self.labels:
            known = ", ".join(sorted(label for label in self.labels if not label.startswith(".L"))) or "none"
            raise ProgramError(
                f"{self.source}: no entry {name!r}{nearest(name, self.labels)}; labels: {known}"
            )
        return self.labels[name]

    def text(self, row: int) -> str:
        """One instruction as assembly; branch targets as row numbers relative to the row."""
        return disassemble_row(self.rows[row])

    def content(self) -> bytes:
        """What the program is, for caches and comparison: the rows' bytes."""
        return self.rows.astype("<i4").tobytes()

    def __str__(self) -> str:
        return disassemble(self)


def disassemble_row(row: NDArray[np.int32], target: str | None = None) -> str:
    instruction = isa.INSTRUCTIONS[int(row[OP])]
    names = {"rd": isa.register_name(int(row[RD]))}
    names |= {f"rs{i}": isa.register_name(int(row[RD + i])) for i in (1, 2, 3)}
    imm = int(row[IMM])
    parts = []
    for operand in instruction.operands:
        if operand in names:
            parts.append(names[operand])
        elif operand[0] == "f":
            parts.append(names["r" + operand[1:]])
        elif operand == "label":
            parts.append(target or f".{int(row[TARGET]) * 4:+d}")
        elif operand == "loop":
            parts.append(f"x{int(row[RS3])}")
        elif operand == "rm":
            parts.append(isa.ROUNDING_MODES[imm])
        elif operand == "csr":
            parts.append(isa.CSRS[imm])
        elif "(" in operand:
            offset, _, base = operand.partition("(")
            bang = "!" if base.endswith("!)") else ""
            parts.append(f"{names.get(offset, imm)}({names['rs1']}{bang})")
        else:
            parts.append(str(imm))
    return f"{instruction.mnemonic} {','.join(parts)}".strip()


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


@dataclass(frozen=True, slots=True)
class Register:
    """A register handed out by a Builder."""

    number: int
    name: str

    def __str__(self) -> str:
        return isa.register_name(self.number)


@dataclass(frozen=True, slots=True)
class Label:
    """A place in a Builder's program; `Builder.place` says where."""

    number: int
    name: str


class Builder:
    """Writes a Program instruction by instruction.

    `b("p.lw", w, (pointer, 4, "!"))` emits `p.lw w,4(pointer!)`: operands are Registers or register
    names, integers, Labels, and tuples (base, offset[, "!"]) for memory. Registers come from a free
    list by name; asking for more than there are raises ProgramError with the names that hold them.

    Reserved from the free list: x0, ra (the return address) and sp.
    """

    #: argument registers last, so that arguments and temporaries rarely meet
    FREE = (*range(5, 8), 8, 9, *range(18, 32), 3, 4, *range(17, 9, -1))

    def __init__(self, name: str = "<builder>"):
        self.name = name
        self._rows: list[list[int]] = []
        self._free = list(self.FREE)
        self._names: dict[int, str] = {}
        self._labels: list[int | None] = []
        self._label_names: list[str] = []
        self._entries: dict[str, int] = {}
        self._fixups: list[tuple[int, int]] = []

    # -- registers -------------------------------------------------------------------------------
    def register(self, name: str, at: str | None = None) -> Register:
        """Take a free register (or the one called `at`) for the value `name`."""
        if at is not None:
            number = isa.REGISTER_NUMBERS[_known_register(self.name, at)]
            if number not in self._free:
                holder = self._names.get(number, "nothing: it is reserved")
                raise ProgramError(f"{self.name}: register {at} for {name!r} holds {holder}")
            self._free.remove(number)
        elif not self._free:
            held = ", ".join(f"{isa.register_name(n)}={text}" for n, text in sorted(self._names.items()))
            raise ProgramError(f"{self.name}: no register left for {name!r}; in use: {held}")
        else:
            number = self._free.pop(0)
        self._names[number] = name
        return Register(number, name)

    def registers(self, name: str, count: int) -> list[Register]:
        number = whole(count)
        if number is None:
            raise ProgramError(f"{self.name}: {count!r} registers for {name!r}: must be a whole number")
        return [self.register(f"{name}{i}") for i in range(number)]

    def arguments(self, *names: str) -> list[Register]:
        """The argument registers a0, a1, ... under the given names."""
        return [self.register(name, at=f"a{i}") for i, name in enumerate(names)]

    def free(self, *registers: Register) -> None:
        """Give registers back; freed ones are handed out again first."""
        for register in registers:
            number = _number(register)
            if number is None or number not in self._names:
                raise ProgramError(f"{self.name}: {register} cannot be given back: it is not in use")
            del self._names[number]
            self._free.insert(0, number)

    @contextlib.contextmanager
    def temporary(self, *names: str) -> Iterator[list[Register]]:
        """Registers for the length of a `with` block."""
        taken = [self.register(name) for name in names]
        yield taken
        self.free(*taken)

    # -- labels ----------------------------------------------------------------------------------
    def label(self, name: str = "") -> Label:
        self._labels.append(None)
        self._label_names.append(name)
        return Label(len(self._labels) - 1, name)

    def place(self, label: Label) -> None:
        """The next instruction is where `label` is."""
        if getattr(label, "number", len(self._labels)) >= len(self._labels):
            raise ProgramError(f"{self.name}: {label} cannot be placed: it is no label of this Builder")
        self._labels[label.number] = len(self._rows)

    def here(self, name: str = "") -> Label:
        label = self.label(name)
        self.place(label)
        return label

    def entry(self, name: str) -> None:
        """The next instruction is the entry `name`."""
        if not isinstance(name, str):
            raise ProgramError(f"{self.name}: entry {name!r}: must be a text")
        self._entries[name] = len(self._rows)

    @contextlib.contextmanager
    def loop(self, level: int, count: Register | int) -> Iterator[None]:
        """A hardware loop around the instructions emitted in the block (two at least for use).

        A count of 0 runs the body once, as the hardware does: branch around it where that matters.
        """
        end = self.label("loop end")
        if whole(count) is not None:
            self("lp.setupi", level, count, end)
        else:
            self("lp.setup", level, count, end)
        first = len(self._rows)
        yield
        if len(self._rows) == first:
            raise ProgramError(f"{self.name}: a hardware loop needs a body")
        self._labels[end.number] = len(self._rows) - 1

    # -- instructions ----------------------------------------------------------------------------
    def __call__(self, mnemonic: str, *operands: object) -> None:
        """Emit one instruction. Raises ProgramError if no form of it takes these operands."""
        for instruction in isa.BY_MNEMONIC.get(text(mnemonic) or "", ()):
            if len(instruction.operands) == len(operands):
                row = [instruction.op, 0, 0, 0, 0, 0, 0]
                if all(self._operand(row, o, v) for o, v in zip(instruction.operands, operands, strict=True)):
                    self._rows.append(row)
                    return
        known = "" if text(mnemonic) in isa.BY_MNEMONIC else nearest(mnemonic, isa.BY_MNEMONIC)
        given = ", ".join(map(str, operands))
        raise ProgramError(f"{self.name}: no instruction {mnemonic!r} with operands ({given}){known}")

    def _operand(self, row: list[int], kind: str, value: object) -> bool:
        if "(" in kind:
            return self._memory_operand(row, kind, value)
        if kind == "label":
            if not isinstance(value, Label):
                return False
            self._fixups.append((len(self._rows), value.number))
            return True
        if kind in ("rm", "csr"):
            names = isa.ROUNDING_MODES if kind == "rm" else isa.CSRS
            if value not in names:
                return False
            row[IMM] = names.index(str(value))
            return True
        if kind == "loop":
            row[RS3] = int(whole(value) == 1)
            return whole(value) in (0, 1)
        if kind[0] in "rf":
            number = _number(value)
            if number is None or (kind[0] == "r" and number >= isa.F0):
                return False
            row[COLUMNS.index("r" + kind[1:])] = number
            return True
        low, high = IMMEDIATES[kind]
        number = whole(value)
        if number is None or not low <= number <= high:
            return False
        row[IMM] = number
        return True

    def _memory_operand(self, row: list[int], kind: str, value: object) -> bool:
        offset, _, tail = kind.partition("(")
        if not isinstance(value, tuple) or (len(value) == 3) != tail.endswith("!)"):
            return False
        return self._operand(row, "rs1", value[0]) and self._operand(row, offset, value[1])

    def li(self, register: Register, value: int) -> None:
        """Load a 32-bit constant: one instruction if it fits in 12 bits, else lui and addi."""
        number = whole(value)
        if number is None or not -(1 << 31) <= number < 1 << 32:
            raise ProgramError(f"{self.name}: li of {value!r}: must be a whole number of 32 bits")
        for mnemonic, operands in load_immediate(number):
            self(
                mnemonic,
                register,
                *([register] if mnemonic == "addi" and len(operands) == 1 else []),
                *operands,
            )

    def mv(self, target: Register, source: Register | str) -> None:
        self("addi", target, source, 0)

    def ret(self) -> None:
        self("jalr", "x0", "ra", 0)

    def build(self) -> Program:
        """The finished Program. Raises ProgramError if a label was never placed."""
        for row, number in self._fixups:
            goal = self._labels[number]
            if goal is None:
                raise ProgramError(
                    f"{self.name}: label {self._label_names[number] or number!r} was never placed"
                )
            self._rows[row][TARGET] = goal - row
        rows = np.array(self._rows, np.int32).reshape(-1, len(COLUMNS))
        return Program(rows, dict(self._entries), (), self.name)


#: accepted range of each immediate kind
IMMEDIATES: dict[str, tuple[int, int]] = {
    "i12": (-2048, 2047),
    "u12": (0, 4095),
    "u5": (0, 31),
    "u20": (0, 0xFFFFF),
}


def _known_register(builder: str, name: str) -> str:
    """Raises ProgramError for what is no register's name."""
    if text(name) not in isa.REGISTER_NUMBERS:
        raise ProgramError(f"{builder}: no register {name!r}{nearest(name, isa.REGISTER_NUMBERS)}")
    return name


def _number(value: object) -> int | None:
    if isinstance(value, Register):
        return value.number
    return isa.REGISTER_NUMBERS.get(value) if isinstance(value, str) else None


def load_immediate(value: int) -> list[tuple[str, list[str | int]]]:
    """The instructions of `li`: [(mnemonic, operands after the target)], the target repeated by addi."""
    value &= 0xFFFFFFFF
    low = (value & 0xFFF) - (0x1000 if value & 0x800 else 0)
    high = (value - low >> 12) & 0xFFFFF
    if high == 0:
        return [("addi", ["x0", low])]
    return [("lui", [high]), ("addi", [low])] if low else [("lui", [high])]
