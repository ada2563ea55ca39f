"""A Builder: writes a Program in Python, instruction by instruction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.arguments import text, whole
from pulpsim.errors import ProgramError, nearest
from pulpsim.isa import COLUMNS, IMMEDIATES, Unit
from pulpsim.program.limits import MAX_SHORT_BODY, MIN_BODY, violations
from pulpsim.program.rows import IMM, OP, RS3, TARGET, Program, disassemble_row, load_immediate

Row = list[int]
_OPPOSITES = (("beq", "bne"), ("blt", "bge"), ("bltu", "bgeu"), ("p.beqimm", "p.bneimm"))
OPPOSITE = dict(_OPPOSITES) | {other: one for one, other in _OPPOSITES}


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


Call = tuple[str, tuple[object, ...]]  #: a mnemonic and its operands


class _Written(Sequence[str]):
    """The calls that a Builder was given, as text; made when somebody reads it."""

    def __init__(self, calls: Sequence[Call], labels: Sequence[str]):
        self._calls, self._labels = calls, labels

    def __len__(self) -> int:
        return len(self._calls)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return [self._text(call) for call in self._calls[place]]
        return self._text(self._calls[place])

    def _text(self, call: Call) -> str:
        mnemonic, operands = call
        return f"{mnemonic} {', '.join(map(self._operand, operands))}".strip()

    def _operand(self, operand: object) -> str:
        if isinstance(operand, tuple):
            base, offset, *after = map(self._operand, operand)
            return f"{offset}({base}{''.join(after)})"
        if isinstance(operand, Label):
            return self._labels[operand.number]
        if isinstance(operand, Register):  # no value is taken for the register of that name
            return f"{operand.name}'" if operand.name in isa.REGISTER_NUMBERS else operand.name
        return str(operand)


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
        self._rows: list[Row] = []
        self._calls: list[Call] = []  # one of each row
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
        """A hardware loop around the instructions emitted in the block.

        A count of 0 runs the body once, as the hardware does: branch around it where that matters. A known
        count is part of the set-up where the body and the count are short enough for it. Bodies of one
        instruction, or with a branch at their end, get a nop.
        """
        if whole(level) not in (0, 1):
            raise ProgramError(f"{self.name}: loop level {level!r}: 0 or 1")
        end, spare = self.label("loop end"), self._free[:1]
        setup, number = len(self._rows), whole(count)
        if number is not None and not 0 <= number < 1 << 32:
            raise ProgramError(f"{self.name}: a loop of {number:,} turns: must be 0 to {(1 << 32) - 1:,}")
        if number is not None:
            self("lp.setupi", level, 0, end)
        else:
            self("lp.setup", level, count, end)
        yield
        if len(self._rows) == setup + 1:
            raise ProgramError(f"{self.name}: a hardware loop needs a body")
        while len(self._rows) - setup - 1 < MIN_BODY or self._ends_on_jump():
            self("addi", "x0", "x0", 0)
        self._labels[end.number] = len(self._rows) - 1
        if number is not None:
            self._set_count(setup, level, number, end, spare)

    def _ends_on_jump(self) -> bool:
        unit = isa.INSTRUCTIONS[self._rows[-1][OP]].unit
        return unit in (Unit.BRANCH, Unit.JUMP)

    def _set_count(self, setup: int, level: int, count: int, end: Label, spare: list[int]) -> None:
        """Give the loop set up at a row its count, which is known; `spare`: a register that was free there."""
        body = len(self._rows) - setup - 1
        low, high = IMMEDIATES["u12"]
        if body <= MAX_SHORT_BODY and low <= count <= high:
            self._rows[setup][IMM] = count
            self._calls[setup] = ("lp.setupi", (level, count, end))
            return
        rows, calls, fixups = self._rows, self._calls, self._fixups
        self._rows, self._calls, self._fixups = [], [], []  # the set-up alone
        if spare:
            register = Register(spare[0], "count")
            self.li(register, count)
            self("lp.setup", level, register, end)
        elif low <= count <= high:
            start = self.label("loop start")
            self("lp.counti", level, count)
            self("lp.endi", level, end)
            self("lp.starti", level, start)
            self._labels[start.number] = setup + 1
        else:
            held = ", ".join(f"{isa.register_name(n)}={text}" for n, text in sorted(self._names.items()))
            raise ProgramError(f"{self.name}: no register left for a count of {count:,}; in use: {held}")
        written, new, own = self._rows, self._calls, self._fixups
        self._rows, self._calls = rows, calls
        self._fixups = [fixup for fixup in fixups if fixup[0] != setup]
        self._replace(setup, written, new)
        self._fixups += [(setup + row, number) for row, number in own]

    def _replace(self, row: int, rows: list[Row], calls: list[Call]) -> None:
        """Put one or more rows in the place of one; what is behind it moves."""
        more = len(rows) - 1
        self._rows[row : row + 1], self._calls[row : row + 1] = rows, calls

        def moved(place: int) -> int:
            return place + more if place > row else place

        self._labels = [None if place is None else moved(place) for place in self._labels]
        self._entries = {name: moved(place) for name, place in self._entries.items()}
        self._fixups = [(moved(place), number) for place, number in self._fixups]

    # -- instructions ----------------------------------------------------------------------------
    def __call__(self, mnemonic: str, *operands: object) -> None:
        """Emit one instruction. Raises ProgramError if no form of it takes these operands."""
        for instruction in isa.BY_MNEMONIC.get(text(mnemonic) or "", ()):
            for form in instruction.forms:
                if len(form) == len(operands):
                    row = [instruction.op, 0, 0, 0, 0, isa.DYNAMIC if instruction.rounds else 0, 0]
                    if all(self._operand(row, o, v) for o, v in zip(form, operands, strict=True)):
                        self._rows.append(row)
                        self._calls.append((mnemonic, operands))
                        return
        aliases = () if text(mnemonic) in isa.BY_MNEMONIC else isa.PSEUDO.get(text(mnemonic) or "", ())
        for count, template in aliases:
            if count == len(operands) and ";" not in template:
                name, _, slots = template.partition(" ")
                self(name, *(_filled(slot, operands) for slot in slots.split(",")))
                return
        known = "" if text(mnemonic) in isa.BY_MNEMONIC else nearest(mnemonic, isa.BY_MNEMONIC)
        given = ", ".join(map(str, operands))
        raise ProgramError(f"{self.name}: no instruction {mnemonic!r} with operands ({given}){known}")

    def _operand(self, row: Row, kind: str, value: object) -> bool:
        if "(" in kind:
            return self._memory_operand(row, kind, value)
        if kind == "label":
            if not isinstance(value, Label):
                return False
            self._fixups.append((len(self._rows), value.number))
            return True
        if kind == "rm":
            if value not in isa.ROUNDING_MODES:
                return False
            row[IMM] = isa.ROUNDING_MODES.index(str(value))
            return True
        if kind == "csr":
            row[IMM] = isa.CSR_NUMBERS.get(str(value), -1)
            return row[IMM] >= 0
        if kind in ("pred", "succ"):
            bits = isa.fence_set(str(value))
            row[IMM] |= (bits or 0) << (4 if kind == "pred" else 0)
            return bits is not None
        if kind == "loop":
            row[RS3] = int(whole(value) == 1)
            return whole(value) in (0, 1)
        if kind not in IMMEDIATES:
            number = _number(value)
            if number is None or (kind[0] == "r" and number >= isa.F0):
                return False
            row[COLUMNS.index("r" + kind[1:])] = number
            return True
        low, high = IMMEDIATES[kind]
        number = whole(value)
        if number is None or not low <= number <= high:
            return False
        row[RS3 if kind == "n5" else IMM] = number
        return True

    def _memory_operand(self, row: Row, kind: str, value: object) -> bool:
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
        """The finished Program.

        A branch whose target is out of its reach becomes the opposite one around a jump. Raises ProgramError
        if a label was never placed, or another target is out of reach.
        """
        rows = self._settled()
        while far := [at for at, _ in violations(rows) if isa.INSTRUCTIONS[rows[at, OP]].unit is Unit.BRANCH]:
            for at in reversed(far):
                self._stretch(at)
            rows = self._settled()
        for at, what in violations(rows):
            raise ProgramError(f"{self.name}: instruction {at}, {disassemble_row(rows[at])}: {what}")
        return Program(rows, dict(self._entries), source=self.name, written=_Written(self._calls, self._label_texts()))

    def _label_texts(self) -> list[str]:
        """What labels are called in texts: by an entry that is there, by their names, else by their places."""
        entries = {row: name for name, row in self._entries.items()}
        return [
            entries.get(row, name if name and " " not in name else f".L{row}") if row is not None else name
            for row, name in zip(self._labels, self._label_names, strict=True)
        ]

    def _settled(self) -> NDArray[np.int32]:
        """The rows with all targets. Raises ProgramError."""
        for row, number in self._fixups:
            goal = self._labels[number]
            if goal is None:
                raise ProgramError(f"{self.name}: label {self._label_names[number] or number!r} was never placed")
            self._rows[row][TARGET] = goal - row
        return np.array(self._rows, np.int32).reshape(-1, len(COLUMNS))

    def _stretch(self, at: int) -> None:
        """Make a branch the opposite one around a jump to its target."""
        (number,) = [number for row, number in self._fixups if row == at]
        self._fixups.remove((at, number))
        branch = list(self._rows[at])
        branch[OP], branch[TARGET] = isa.OP[OPPOSITE[isa.INSTRUCTIONS[branch[OP]].key]], 2
        *operands, goal = self._calls[at][1]
        opposite = isa.INSTRUCTIONS[branch[OP]].mnemonic
        calls = [(opposite, (*operands, ".+8")), ("j", (goal,))]
        self._replace(at, [branch, [isa.OP["jal"], 0, 0, 0, 0, 0, 0]], calls)
        self._fixups.append((at + 1, number))


def _filled(slot: str, operands: tuple[object, ...]) -> object:
    """What a pseudo-instruction has in an operand's place: one of its own operands, a number or a name."""
    if slot[0] == "{":
        return operands[int(slot[1:-1])]
    return int(slot) if slot.lstrip("-").isdigit() else slot


def _known_register(builder: str, name: str) -> str:
    """Raises ProgramError for what is no register's name."""
    if text(name) not in isa.REGISTER_NUMBERS:
        raise ProgramError(f"{builder}: no register {name!r}{nearest(name, isa.REGISTER_NUMBERS)}")
    return name


def _number(value: object) -> int | None:
    if isinstance(value, Register):
        return value.number
    return isa.REGISTER_NUMBERS.get(value) if isinstance(value, str) else None
