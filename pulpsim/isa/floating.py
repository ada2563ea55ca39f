"""RV32F: single precision. Operands are x registers where the platform's register file is shared."""

from __future__ import annotations

from collections.abc import Callable

from pulpsim import float32 as fp
from pulpsim.float32 import RNE, UNHEARD, Flags
from pulpsim.isa.table import MASK, Instruction, Unit, Variant, row, signed

_OPCODE = "1010011"
_INT_MIN, _INT_MAX = -(1 << 31), (1 << 31) - 1


def _arithmetic(mnemonic: str, function: Callable[..., int], funct7: str, unit: Unit = Unit.FPU) -> Instruction:
    return row(mnemonic, "fd fs1 fs2 rm", unit, f"{funct7} rs2 rs1 u[2:0] rd {_OPCODE}", function, raises=True)


def _fused(mnemonic: str, product: int, addend: int, opcode: str) -> Instruction:
    """fmadd.s with the signs of the product and of the addend changed or not."""

    def function(a: int, b: int, c: int, mode: int = RNE, flags: Flags = UNHEARD) -> int:
        return fp.fma(a ^ product, b, c ^ addend, mode, flags)

    pattern = f"rs3 00 rs2 rs1 u[2:0] rd {opcode}"
    variant = Variant(Variant.NEGATED_PRODUCT * bool(product) | Variant.NEGATED_ADDEND * bool(addend))
    return row(
        mnemonic, "fd fs1 fs2 fs3 rm", Unit.FPU, pattern, function,
        operation="fused", raises=True, variant=variant,
    )  # fmt: skip


def _selection(
    mnemonic: str, result: str, function: Callable[..., int], funct7: str, funct3: str, raises: bool = True
) -> Instruction:
    pattern = f"{funct7} rs2 rs1 {funct3} rd {_OPCODE}"
    return row(mnemonic, f"{result} fs1 fs2", Unit.FPU, pattern, function, raises=raises)


def _to_integer(low: int, high: int) -> Callable[..., int]:
    def function(a: int, mode: int = RNE, flags: Flags = UNHEARD) -> int:
        return fp.to_integer(a, mode, low, high, flags) & MASK

    return function


def _from_signed(a: int, mode: int = RNE, flags: Flags = UNHEARD) -> int:
    return fp.from_integer(signed(a), mode, flags)


def _conversion(mnemonic: str, operands: str, function: Callable[..., int], bits: str) -> Instruction:
    return row(mnemonic, f"{operands} rm", Unit.FPU, f"{bits} rs1 u[2:0] rd {_OPCODE}", function, raises=True)


def _move(mnemonic: str, operands: str, function: Callable[[int], int], bits: str, funct3: str) -> Instruction:
    return row(mnemonic, operands, Unit.FPU, f"{bits} 00000 rs1 {funct3} rd {_OPCODE}", function)


INSTRUCTIONS = (
    row("flw", "fd i12(rs1)", Unit.LOAD, "i[11:0] rs1 010 rd 0000111", size=4, signed=True),
    row("fsw", "fs2 i12(rs1)", Unit.STORE, "i[11:5] rs2 rs1 010 i[4:0] 0100111", size=4),
    _arithmetic("fadd.s", fp.add, "0000000"),
    _arithmetic("fsub.s", fp.sub, "0000100"),
    _arithmetic("fmul.s", fp.mul, "0001000"),
    _selection("fmin.s", "fd", fp.minimum, "0010100", "000"),
    _selection("fmax.s", "fd", fp.maximum, "0010100", "001"),
    _selection("fsgnj.s", "fd", lambda a, b: a & ~fp.SIGN & MASK | b & fp.SIGN, "0010000", "000", False),
    _selection("fsgnjn.s", "fd", lambda a, b: a & ~fp.SIGN & MASK | (b ^ fp.SIGN) & fp.SIGN, "0010000", "001", False),
    _selection("fsgnjx.s", "fd", lambda a, b: a ^ b & fp.SIGN, "0010000", "010", False),
    _fused("fmadd.s", 0, 0, "1000011"),
    _fused("fmsub.s", 0, fp.SIGN, "1000111"),
    _fused("fnmsub.s", fp.SIGN, 0, "1001011"),
    _fused("fnmadd.s", fp.SIGN, fp.SIGN, "1001111"),
    _selection("feq.s", "rd", fp.equal, "1010000", "010"),
    _selection("flt.s", "rd", fp.less, "1010000", "001"),
    _selection("fle.s", "rd", fp.less_equal, "1010000", "000"),
    _conversion("fcvt.s.w", "fd rs1", _from_signed, "1101000 00000"),
    _conversion("fcvt.s.wu", "fd rs1", fp.from_integer, "1101000 00001"),
    _conversion("fcvt.w.s", "rd fs1", _to_integer(_INT_MIN, _INT_MAX), "1100000 00000"),
    _conversion("fcvt.wu.s", "rd fs1", _to_integer(0, MASK), "1100000 00001"),
    _move("fmv.x.w", "rd fs1", lambda a: a, "1110000", "000"),
    _move("fmv.w.x", "fd rs1", lambda a: a, "1111000", "000"),
    _move("fclass.s", "rd fs1", fp.classify, "1110000", "001"),
    _arithmetic("fdiv.s", fp.div, "0001100", Unit.FDIV),
    row("fsqrt.s", "fd fs1 rm", Unit.FDIV, f"0101100 00000 rs1 u[2:0] rd {_OPCODE}", fp.sqrt, raises=True),
)
