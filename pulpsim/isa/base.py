"""RV32I and RV32M: integers, memory, control flow, multiplication and division."""

from __future__ import annotations

from collections.abc import Callable

from pulpsim.isa.table import MASK, Instruction, Unit, row, signed

Binary = Callable[[int, int], int]


def _div(a: int, b: int) -> int:
    a, b = signed(a), signed(b)
    if b == 0:
        return MASK
    return (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1) & MASK


def _rem(a: int, b: int) -> int:
    a, b = signed(a), signed(b)
    if b == 0:
        return a & MASK
    return abs(a) % abs(b) * (-1 if a < 0 else 1) & MASK


def _registers(mnemonic: str, function: Binary, funct7: str, funct3: str, unit: Unit = Unit.ALU) -> Instruction:
    return row(mnemonic, "rd rs1 rs2", unit, f"{funct7} rs2 rs1 {funct3} rd 0110011", function)


#: (mnemonic, meaning, funct3, funct7) of what also takes an immediate
_ALU: tuple[tuple[str, Binary, str, str], ...] = (
    ("add", lambda a, b: a + b & MASK, "000", "0000000"),
    ("sll", lambda a, b: a << (b & 31) & MASK, "001", "0000000"),
    ("slt", lambda a, b: int(signed(a) < signed(b)), "010", "0000000"),
    ("sltu", lambda a, b: int(a < b), "011", "0000000"),
    ("xor", lambda a, b: a ^ b, "100", "0000000"),
    ("srl", lambda a, b: a >> (b & 31), "101", "0000000"),
    ("sra", lambda a, b: signed(a) >> (b & 31) & MASK, "101", "0100000"),
    ("or", lambda a, b: a | b, "110", "0000000"),
    ("and", lambda a, b: a & b, "111", "0000000"),
)
SHIFTS = ("sll", "srl", "sra")


def immediate_twin(mnemonic: str) -> str:
    """The mnemonic that takes an immediate in the place of rs2."""
    return "sltiu" if mnemonic == "sltu" else mnemonic + "i"


#: mnemonics that take an immediate if a register's name is missing
WITH_IMMEDIATE = tuple(name for name, *_ in _ALU)


def _immediate(mnemonic: str, function: Binary, funct3: str, funct7: str) -> Instruction:
    kind, bits = ("u5", f"{funct7} u[4:0]") if mnemonic in SHIFTS else ("i12", "i[11:0]")
    pattern = f"{bits} rs1 {funct3} rd 0010011"
    return row(immediate_twin(mnemonic), f"rd rs1 {kind}", Unit.ALU, pattern, function, operation=mnemonic)


def _load(mnemonic: str, funct3: str, size: int, is_signed: bool) -> Instruction:
    return row(
        mnemonic, "rd i12(rs1)", Unit.LOAD, f"i[11:0] rs1 {funct3} rd 0000011", size=size, signed=is_signed
    )  # fmt: skip


def _store(mnemonic: str, funct3: str, size: int) -> Instruction:
    pattern = f"i[11:5] rs2 rs1 {funct3} i[4:0] 0100011"
    return row(mnemonic, "rs2 i12(rs1)", Unit.STORE, pattern, size=size)


def _branch(mnemonic: str, funct3: str, function: Binary) -> Instruction:
    pattern = f"t[12|10:5] rs2 rs1 {funct3} t[4:1|11] 1100011"
    return row(mnemonic, "rs1 rs2 label", Unit.BRANCH, pattern, function)


INSTRUCTIONS = (
    *(_registers(name, function, funct7, funct3) for name, function, funct3, funct7 in _ALU),
    *(_immediate(name, function, funct3, funct7) for name, function, funct3, funct7 in _ALU),
    _registers("sub", lambda a, b: a - b & MASK, "0100000", "000"),
    row("lui", "rd u20", Unit.ALU, "u[19:0] rd 0110111", lambda imm: imm << 12 & MASK, operation="constant"),
    row("auipc", "rd u20", Unit.ALU, "u[19:0] rd 0010111", operation="constant"),
    # multiply, divide
    _registers("mul", lambda a, b: a * b & MASK, "0000001", "000", Unit.MUL),
    _registers("mulh", lambda a, b: signed(a) * signed(b) >> 32 & MASK, "0000001", "001", Unit.MULH),
    _registers("mulhsu", lambda a, b: signed(a) * b >> 32 & MASK, "0000001", "010", Unit.MULH),
    _registers("mulhu", lambda a, b: a * b >> 32, "0000001", "011", Unit.MULH),
    _registers("div", _div, "0000001", "100", Unit.DIV),
    _registers("divu", lambda a, b: a // b if b else MASK, "0000001", "101", Unit.DIV),
    _registers("rem", _rem, "0000001", "110", Unit.DIV),
    _registers("remu", lambda a, b: a % b if b else a, "0000001", "111", Unit.DIV),
    # memory
    _load("lb", "000", 1, True),
    _load("lh", "001", 2, True),
    _load("lw", "010", 4, True),
    _load("lbu", "100", 1, False),
    _load("lhu", "101", 2, False),
    _store("sb", "000", 1),
    _store("sh", "001", 2),
    _store("sw", "010", 4),
    # control flow
    _branch("beq", "000", lambda a, b: int(a == b)),
    _branch("bne", "001", lambda a, b: int(a != b)),
    _branch("blt", "100", lambda a, b: int(signed(a) < signed(b))),
    _branch("bge", "101", lambda a, b: int(signed(a) >= signed(b))),
    _branch("bltu", "110", lambda a, b: int(a < b)),
    _branch("bgeu", "111", lambda a, b: int(a >= b)),
    row("jal", "rd label", Unit.JUMP, "t[20|10:1|11|19:12] rd 1101111"),
    row("jalr", "rd rs1 i12", Unit.JUMP, "i[11:0] rs1 000 rd 1100111", also="rd i12(rs1)"),
)
