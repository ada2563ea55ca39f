"""Operands of instructions: text -> the fields of a row."""

from __future__ import annotations

import re
from collections.abc import Callable
from struct import pack, unpack

from benchmarks.cortex_m4.instructions import NOWHERE, PC, REGISTERS, SP, Instruction, Op, Shift, Syntax
from benchmarks.cortex_m4.program import AMOUNT, BEFORE, BEHIND, IMM, KIND, OFFSET, OP, RA, RD, RM, RN, SETS
from pulpsim.isa import MASK, signed

LABEL = re.compile(r"[A-Za-z_.$][\w.$]*")
NUMBER = re.compile(r"#?(-?(?:0x[0-9a-f]+|0|[1-9]\d*))", re.IGNORECASE)
REAL = re.compile(r"#?(-?\d+(?:\.\d*)?(?:e[-+]?\d+)?)", re.IGNORECASE)
_SHIFT = re.compile(r"(lsl|lsr|asr|ror)\s*#?(\d+)", re.IGNORECASE)
_SINGLE = re.compile(r"s([12]?\d|3[01])", re.IGNORECASE)


class RefusedError(Exception):
    """What is not accepted."""


def bits(value: float) -> int:
    """The pattern of a value as a float32."""
    return int(unpack("<I", pack("<f", value))[0])


class Operands:
    """The operands of an instruction, read from the left. label, count: what they named, and how many registers."""

    def __init__(self, text: str) -> None:
        self.left = [part.strip() for part in re.split(r",(?![^\[{]*[\]}])", text)] if text else []
        self.label = ""
        self.count = 1

    def take(self) -> str:
        if not self.left:
            raise RefusedError("an operand is missing")
        return self.left.pop(0)

    def register(self, *, pc: bool = False) -> int:
        return _register(self.take(), pc=pc)

    def single(self) -> int:
        return _single(self.take())

    def number(self, low: int, high: int, step: int = 1) -> int:
        return _number(self.take(), low, high, step)

    def name(self) -> None:
        self.label = self.take()
        if not LABEL.fullmatch(self.label):
            raise RefusedError(f"{self.label!r} is no label")


def _register(text: str, *, pc: bool = False) -> int:
    number = REGISTERS.get(text.lower())
    if number is None:
        raise RefusedError(f"{text!r} is no register of r0 to r12, sp, lr")
    if number == PC and not pc:
        raise RefusedError("pc stands only in pop and ldm")
    return number


def _single(text: str) -> int:
    if not (match := _SINGLE.fullmatch(text)):
        raise RefusedError(f"{text!r} is no register of s0 to s31")
    return int(match[1])


def _singles(text: str) -> list[int]:
    """The registers of a name in a list: d8 is s16 and s17."""
    if match := re.fullmatch(r"d(\d|1[0-5])", text, re.IGNORECASE):
        return [2 * int(match[1]), 2 * int(match[1]) + 1]
    return [_single(text)]


def _number(text: str, low: int, high: int, step: int = 1) -> int:
    match = NUMBER.fullmatch(text)
    if not match:
        raise RefusedError(f"{text!r} is no number")
    value = int(match[1], 0)
    if not low <= value <= high or value % step:
        raise RefusedError(f"{value} is not in {low} to {high}" + (f" in steps of {step}" if step > 1 else ""))
    return value


def encodes(value: int) -> bool:
    """Whether Thumb-2 has a constant: a byte, 0x00XY00XY, 0xXY00XY00, 0xXYXYXYXY, or 8 bits and zeros around."""
    value &= MASK
    low, high = value & 0xFF, value >> 8 & 0xFF
    if value in (low, low * 0x00010001, high * 0x01000100, low * 0x01010101):
        return True
    return _rotated(value) == value


def _second(reader: Operands, fields: list[int], *, wide: int) -> None:
    """rm with or without a shift, or a constant.

    wide: constants up to here are accepted too. Some instructions have a twin for the negative or inverted constant.
    """
    text = reader.take()
    if text.lower() in REGISTERS:
        fields[RM] = _register(text)
        if reader.left:
            shift = reader.take()
            if not (match := _SHIFT.fullmatch(shift)):
                raise RefusedError(f"{shift!r} is no shift")
            _shift(fields, Shift[match[1].upper()], int(match[2]))
        return
    value = _number(text, -(1 << 31), (1 << 32) - 1)
    op = fields[OP]
    twin = -value if op in (Op.ADD, Op.SUB) else ~value if op in (Op.MOV, Op.MVN, Op.AND, Op.BIC) else value
    if not (encodes(value) or encodes(twin) or 0 <= value <= wide):
        raise RefusedError(f"{value} is no constant that Thumb-2 encodes; use movw and movt, or ldr from a .word")
    fields[IMM] = signed(value & MASK)
    fields[KIND] = Shift.ROTATED if 255 < value & MASK == _rotated(value) else Shift.LSL


def _rotated(value: int) -> int:
    """The constant, if it is 8 bits and zeros around; else -1."""
    value &= MASK
    return value if value >> (value & -value).bit_length() - 1 < 256 else -1


def _shift(fields: list[int], kind: Shift, amount: int) -> None:
    low, high = (0, 31) if kind == Shift.LSL else (1, 31 if kind == Shift.ROR else 32)
    if not low <= amount <= high:
        raise RefusedError(f"{kind.name.lower()} #{amount} is not in {low} to {high}")
    fields[KIND], fields[AMOUNT] = kind, amount


def _three(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RD] = instruction.op, reader.register()
    shifted = len(reader.left) == 2 and _SHIFT.fullmatch(reader.left[1])
    fields[RN] = fields[RD] if len(reader.left) < 2 or shifted else reader.register()
    _second(reader, fields, wide=4095 if instruction.op in (Op.ADD, Op.SUB) else 0)
    return instruction.cost


def _move(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RD] = instruction.op, reader.register()
    _second(reader, fields, wide=65535 if instruction.op == Op.MOV else 0)
    return instruction.cost


def _wide(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RD], fields[IMM] = instruction.op, reader.register(), reader.number(0, 65535)
    return instruction.cost


def _compare(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RD], fields[RN], fields[SETS] = instruction.op, NOWHERE, reader.register(), 1
    _second(reader, fields, wide=0)
    return instruction.cost


def _shifts(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RD] = instruction.op, reader.register()
    fields[RM] = fields[RD] if len(reader.left) < 2 else reader.register()
    text, kind = reader.take(), Shift(instruction.detail)
    if text.lower() in REGISTERS:
        fields[KIND], fields[RA] = kind + Shift.LSL_REGISTER, _register(text)
    else:
        _shift(fields, kind, _number(text, 0, 32))
    return instruction.cost


def _product(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RD] = instruction.op, reader.register()
    fields[RN] = fields[RD] if len(reader.left) < 2 else reader.register()
    fields[RM] = reader.register()
    if instruction.syntax == Syntax.SUM:
        fields[RA] = reader.register()
    return instruction.cost


def _sum(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    if len(reader.left) < 4:
        raise RefusedError("an operand is missing")
    return _product(instruction, reader, fields)


def _inside(text: str) -> list[str]:
    """What stands between brackets."""
    if not (text.startswith("[") and text.endswith("]")):
        raise RefusedError(f"{text!r} is no address")
    return [part.strip() for part in text[1:-1].split(",")]


def _memory(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RD] = instruction.op, reader.register()
    if instruction.op == Op.LOAD and reader.left and reader.left[0][:1] not in "[":
        reader.name()
        return "literal"
    text = reader.take()
    fields[KIND] = BEFORE if text.endswith("!") else OFFSET
    parts = _inside(text.removesuffix("!").strip())
    fields[RN] = _register(parts[0])
    if len(parts) > 1 and parts[1].lower() in REGISTERS and fields[KIND] == OFFSET:
        return _indexed(instruction, parts, fields)
    if len(parts) > 2:
        raise RefusedError(f"{parts[2]!r} is too much")
    if len(parts) == 2:
        fields[IMM] = _number(parts[1], -255, 4095 if fields[KIND] == OFFSET else 255)
    elif reader.left and fields[KIND] == OFFSET:
        fields[KIND], fields[IMM] = BEHIND, reader.number(-255, 255)
    if fields[KIND] != OFFSET and fields[RN] == fields[RD]:
        raise RefusedError("the base and the data are one register")
    return instruction.cost


def _indexed(instruction: Instruction, parts: list[str], fields: list[int]) -> str:
    """[rn, rm{, lsl #n}]"""
    fields[RM] = _register(parts[1])
    if len(parts) > 2:
        match = _SHIFT.fullmatch(parts[2])
        if not match or match[1].lower() != "lsl" or int(match[2]) > 3 or len(parts) > 3:
            raise RefusedError(f"{parts[2]!r} is not lsl #0 to #3")
        fields[AMOUNT] = int(match[2])
    return "store indexed" if instruction.cost == "store" else instruction.cost


def _two_words(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RD], fields[RA] = instruction.op, reader.register(), reader.register()
    parts = _inside(reader.take())
    fields[RN] = _register(parts[0])
    if len(parts) == 2:
        fields[IMM] = _number(parts[1], -1020, 1020, 4)
    elif len(parts) > 2:
        raise RefusedError(f"{parts[2]!r} is too much")
    if instruction.op == Op.LOAD_PAIR and fields[RD] == fields[RA]:
        raise RefusedError("both words go to one register")
    reader.count = 2
    return instruction.cost


def _base(reader: Operands, fields: list[int]) -> None:
    text = reader.take()
    fields[RN], fields[SETS] = _register(text.removesuffix("!").strip()), int(text.endswith("!"))


def _listed(reader: Operands) -> list[str]:
    """The names of a list in braces, ranges written out."""
    text = reader.take()
    if not (text.startswith("{") and text.endswith("}")) or not text[1:-1].strip():
        raise RefusedError(f"{text!r} is no list of registers")
    names = []
    for part in (part.strip() for part in text[1:-1].split(",")):
        match = re.fullmatch(r"([rsd])(\d+)\s*-\s*\1(\d+)", part, re.IGNORECASE)
        names += [f"{match[1]}{n}" for n in range(int(match[2]), int(match[3]) + 1)] if match else [part]
    return names


def _list(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    if instruction.syntax == Syntax.STACK:
        fields[RN], fields[SETS] = SP, 1
    else:
        _base(reader, fields)
    loads = instruction.op == Op.LOAD_MANY
    numbers = [_register(name, pc=loads) for name in _listed(reader)]
    if numbers != sorted(set(numbers)):
        raise RefusedError("registers must stand in rising order, each once")
    if fields[SETS] and fields[RN] in numbers:
        raise RefusedError("the base that changes is in the list")
    fields[OP], fields[KIND], fields[IMM] = instruction.op, instruction.detail, sum(1 << n for n in numbers)
    reader.count = len(numbers)
    return instruction.cost


def _vlist(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    if instruction.syntax == Syntax.VSTACK:
        fields[RN], fields[SETS] = SP, 1
    else:
        _base(reader, fields)
        if instruction.detail and not fields[SETS]:
            raise RefusedError("the ! is missing")
    numbers = [number for name in _listed(reader) for number in _singles(name)]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise RefusedError("registers must be neighbours in rising order")
    fields[OP], fields[KIND], fields[RD] = instruction.op, instruction.detail, numbers[0]
    fields[AMOUNT] = reader.count = len(numbers)
    return instruction.cost


def _label(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP] = instruction.op
    reader.name()
    return instruction.cost


def _jump(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RM] = instruction.op, reader.register()
    return instruction.cost


def _register_label(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RN] = instruction.op, reader.register()
    if fields[RN] > 7:
        raise RefusedError(f"r{fields[RN]} is not of r0 to r7")
    reader.name()
    return instruction.cost


def _vmemory(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RD] = instruction.op, reader.single()
    if instruction.op == Op.VLOAD and reader.left and reader.left[0][:1] not in "[":
        reader.name()
        return "vliteral"
    parts = _inside(reader.take())
    fields[RN] = _register(parts[0])
    if len(parts) == 2:
        fields[IMM] = _number(parts[1], -1020, 1020, 4)
    elif len(parts) > 2:
        raise RefusedError(f"{parts[2]!r} is too much")
    return instruction.cost


def _extend(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RD] = instruction.op, reader.register()
    fields[RM] = reader.register() if reader.left else fields[RD]
    return instruction.cost


def _vthree(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RD] = instruction.op, reader.single()
    fields[RN] = fields[RD] if len(reader.left) < 2 else reader.single()
    fields[RM] = reader.single()
    return instruction.cost


def _vtwo(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RD], fields[RM] = instruction.op, reader.single(), reader.single()
    return instruction.cost


def _vmov(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    target, source = reader.take(), reader.take()
    if target.lower() in REGISTERS:
        fields[OP], fields[RD], fields[RM] = Op.VTO_CORE, _register(target), _single(source)
        return "vtransfer"
    if source.lower() in REGISTERS:
        fields[OP], fields[RD], fields[RM] = Op.VFROM_CORE, _single(target), _register(source)
        return "vtransfer"
    if _SINGLE.fullmatch(source):
        fields[OP], fields[RD], fields[RM] = Op.VMOV, _single(target), _single(source)
    else:
        fields[OP], fields[RD], fields[IMM] = Op.VSET, _single(target), signed(_constant(source))
    return instruction.cost


def _constant(text: str) -> int:
    """The bits of a constant that VMOV has."""
    match = REAL.fullmatch(text)
    if not match:
        raise RefusedError(f"{text!r} is no register and no number")
    size = abs(float(match[1]))
    if not any(size == n / 16 * 2.0**e for n in range(16, 32) for e in range(-3, 5)):
        raise RefusedError(f"{match[1]} is no constant of vmov")
    return bits(float(match[1]))


def _vcompare(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP], fields[RD] = instruction.op, reader.single()
    text = reader.take()
    fields[KIND] = int(bool(re.fullmatch(r"#0(\.0*)?", text)))
    fields[RM] = fields[RD] if fields[KIND] else _single(text)
    return instruction.cost


def _vflags(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP] = instruction.op
    if (reader.take().lower(), reader.take().lower()) != ("apsr_nzcv", "fpscr"):
        raise RefusedError("not these registers")
    return instruction.cost


def _none(instruction: Instruction, reader: Operands, fields: list[int]) -> str:
    fields[OP] = instruction.op
    return instruction.cost


#: fills in the fields of a row; returns the class of its cost; raises RefusedError
Reader = Callable[[Instruction, Operands, list[int]], str]
READERS: dict[Syntax, Reader] = {
    Syntax.THREE: _three, Syntax.MOVE: _move, Syntax.WIDE: _wide, Syntax.COMPARE: _compare, Syntax.SHIFT: _shifts,
    Syntax.PRODUCT: _product, Syntax.SUM: _sum, Syntax.QUOTIENT: _product, Syntax.MEMORY: _memory,
    Syntax.TWO_WORDS: _two_words, Syntax.LIST: _list, Syntax.STACK: _list, Syntax.LABEL: _label,
    Syntax.REGISTER: _jump, Syntax.REGISTER_LABEL: _register_label, Syntax.VMEMORY: _vmemory, Syntax.VLIST: _vlist,
    Syntax.VSTACK: _vlist, Syntax.EXTEND: _extend, Syntax.VTHREE: _vthree, Syntax.VTWO: _vtwo, Syntax.VMOV: _vmov,
    Syntax.VCOMPARE: _vcompare, Syntax.VFLAGS: _vflags, Syntax.NONE: _none,
}  # fmt: skip
