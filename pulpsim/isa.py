"""The instruction set of a cluster core as one table.

One row an instruction form: mnemonic, operands, unit, meaning. The assembler parses and prints from
it, the reference engine executes its `semantics`, the fast engine takes its operation numbers, and
both take the timing class (`unit`) from it. RV32IM, single-precision FP and the Xpulp subset that
kernels need; encodings do not exist here, an instruction is a row of small integers.

Operand letters (what the text of an operand is stored in):
  rd rs1 rs2 rs3       integer registers, columns of the same name
  fd fs1 fs2 fs3       floating-point operands, same columns: x registers when the platform's
                       register file is shared, f registers when it is separate
  i12 u12 u5 u20       immediates, column imm;   rm: rounding mode (rne, rtz);   csr: mhartid, mcycle
  label                a label, column target, in instructions relative to this one
  loop                 hardware-loop level x0 or x1, column rs3
  i12(rs1)  i12(rs1!)  base + offset; post-increment by an immediate
  rs2(rs1)  rs2(rs1!)  base + register; post-increment by a register (stores keep the stride in rs3)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from pulpsim import float32 as fp

MASK = 0xFFFFFFFF

#: Flat register numbers: x0-x31 are 0-31, f0-f31 are 32-63.
F0 = 32
REGISTERS = 64


class Unit(IntEnum):
    """Where an instruction executes: its timing class (costs in `platform.Core`)."""

    ALU = 0
    LOAD = 1
    STORE = 2
    BRANCH = 3
    JUMP = 4
    MUL = 5
    MULH = 6
    DIV = 7
    FPU = 8
    FDIV = 9  # the cluster's one divider: fdiv.s, fsqrt.s
    LOOP = 10
    CSR = 11
    EVENT = 12  # event-unit access: the barrier
    RETURN = 13  # internal: the stub that every program returns to
    GUARD = 14  # internal: what follows the last instruction of a program


@dataclass(frozen=True, slots=True)
class Instruction:
    """One form of one mnemonic. `semantics` maps operand values to the result (32-bit patterns)."""

    op: int
    key: str
    mnemonic: str
    operands: tuple[str, ...]
    unit: Unit
    semantics: Callable[..., int] | None = None
    #: access size in bytes and whether a load extends the sign
    size: int = 0
    signed: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns whose registers are read, `rd` included where it is an accumulator."""
        columns = set()
        for operand in self.operands:
            for column in ("rs1", "rs2", "rs3"):
                if column in operand or "f" + column[1:] in operand:
                    columns.add(column)
        if self.mnemonic in ACCUMULATING:
            columns.add("rd")
        return tuple(sorted(columns))

    @property
    def writes_rd(self) -> bool:
        return self.operands[:1] in (("rd",), ("fd",))

    @property
    def post_increment(self) -> bool:
        return any(operand.endswith("!)") for operand in self.operands)


def signed(value: int) -> int:
    """32-bit pattern -> two's complement value."""
    return value - (1 << 32) if value & 0x80000000 else value


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


def _clip(a: int, bits: int) -> int:
    """p.clip: to -2**(bits-1) .. 2**(bits-1)-1; bits 0 and 1 give -1..0."""
    bound = 1 << max(bits - 1, 0)
    low, high = (-1, 0) if bits == 0 else (-bound, bound - 1)
    return min(max(signed(a), low), high) & MASK


def _clipu(a: int, bits: int) -> int:
    bound = 1 << max(bits - 1, 0)
    return min(max(signed(a), 0), 0 if bits == 0 else bound - 1)


ROUNDING_MODES = ("rne", "rtz")
CSRS = ("mhartid", "mcycle")
ACCUMULATING = ("p.mac", "p.msu")

INSTRUCTIONS: list[Instruction] = []
BY_KEY: dict[str, Instruction] = {}
BY_MNEMONIC: dict[str, list[Instruction]] = {}


def _add(
    mnemonic: str,
    operands: str,
    unit: Unit,
    semantics: Callable[..., int] | None = None,
    *,
    key: str | None = None,
    size: int = 0,
    sign: bool = False,
) -> None:
    row = Instruction(
        len(INSTRUCTIONS), key or mnemonic, mnemonic, tuple(operands.split()), unit, semantics, size, sign
    )
    INSTRUCTIONS.append(row)
    BY_KEY[row.key] = row
    BY_MNEMONIC.setdefault(mnemonic, []).append(row)


def _alu(mnemonic: str, semantics: Callable[[int, int], int], unit: Unit = Unit.ALU) -> None:
    _add(mnemonic, "rd rs1 rs2", unit, semantics)


# -- integer: register and immediate forms ---------------------------------------------------
_ALU: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b & MASK,
    "sll": lambda a, b: a << (b & 31) & MASK,
    "slt": lambda a, b: int(signed(a) < signed(b)),
    "sltu": lambda a, b: int(a < b),
    "xor": lambda a, b: a ^ b,
    "srl": lambda a, b: a >> (b & 31),
    "sra": lambda a, b: signed(a) >> (b & 31) & MASK,
    "or": lambda a, b: a | b,
    "and": lambda a, b: a & b,
}
_IMMEDIATE_NAMES = {"sltu": "sltiu"}
for _name, _function in _ALU.items():
    _alu(_name, _function)
for _name, _function in _ALU.items():
    _kind = "u5" if _name in ("sll", "srl", "sra") else "i12"
    _add(_IMMEDIATE_NAMES.get(_name, _name + "i"), f"rd rs1 {_kind}", Unit.ALU, _function)
_alu("sub", lambda a, b: a - b & MASK)
_add("lui", "rd u20", Unit.ALU, lambda imm: imm << 12 & MASK)
_add("auipc", "rd u20", Unit.ALU)

# -- multiply, divide ------------------------------------------------------------------------
_alu("mul", lambda a, b: a * b & MASK, Unit.MUL)
_alu("mulh", lambda a, b: signed(a) * signed(b) >> 32 & MASK, Unit.MULH)
_alu("mulhsu", lambda a, b: signed(a) * b >> 32 & MASK, Unit.MULH)
_alu("mulhu", lambda a, b: a * b >> 32, Unit.MULH)
_alu("div", _div, Unit.DIV)
_alu("divu", lambda a, b: a // b if b else MASK, Unit.DIV)
_alu("rem", _rem, Unit.DIV)
_alu("remu", lambda a, b: a % b if b else a, Unit.DIV)

# -- Xpulp arithmetic ------------------------------------------------------------------------
_add("p.mac", "rd rs1 rs2", Unit.ALU, lambda a, b, d: d + a * b & MASK)
_add("p.msu", "rd rs1 rs2", Unit.ALU, lambda a, b, d: d - a * b & MASK)
_alu("p.min", lambda a, b: a if signed(a) < signed(b) else b)
_alu("p.minu", min)
_alu("p.max", lambda a, b: a if signed(a) > signed(b) else b)
_alu("p.maxu", max)
_add("p.abs", "rd rs1", Unit.ALU, lambda a: abs(signed(a)) & MASK)
_add("p.clip", "rd rs1 u5", Unit.ALU, _clip)
_add("p.clipu", "rd rs1 u5", Unit.ALU, _clipu)

# -- memory ----------------------------------------------------------------------------------
for _name, _size, _sign in (
    ("lb", 1, True),
    ("lbu", 1, False),
    ("lh", 2, True),
    ("lhu", 2, False),
    ("lw", 4, True),
):
    _add(_name, "rd i12(rs1)", Unit.LOAD, size=_size, sign=_sign)
    for _form, _text in (("post_imm", "i12(rs1!)"), ("post_reg", "rs2(rs1!)"), ("reg", "rs2(rs1)")):
        _add(f"p.{_name}", f"rd {_text}", Unit.LOAD, key=f"p.{_name}.{_form}", size=_size, sign=_sign)
for _name, _size in (("sb", 1), ("sh", 2), ("sw", 4)):
    _add(_name, "rs2 i12(rs1)", Unit.STORE, size=_size)
    for _form, _text in (("post_imm", "i12(rs1!)"), ("post_reg", "rs3(rs1!)"), ("reg", "rs3(rs1)")):
        _add(f"p.{_name}", f"rs2 {_text}", Unit.STORE, key=f"p.{_name}.{_form}", size=_size)
_add("flw", "fd i12(rs1)", Unit.LOAD, size=4, sign=True)
_add("fsw", "fs2 i12(rs1)", Unit.STORE, size=4)
_add("p.elw", "rd i12(rs1)", Unit.EVENT, size=4)

# -- control flow ----------------------------------------------------------------------------
_add("beq", "rs1 rs2 label", Unit.BRANCH, lambda a, b: int(a == b))
_add("bne", "rs1 rs2 label", Unit.BRANCH, lambda a, b: int(a != b))
_add("blt", "rs1 rs2 label", Unit.BRANCH, lambda a, b: int(signed(a) < signed(b)))
_add("bge", "rs1 rs2 label", Unit.BRANCH, lambda a, b: int(signed(a) >= signed(b)))
_add("bltu", "rs1 rs2 label", Unit.BRANCH, lambda a, b: int(a < b))
_add("bgeu", "rs1 rs2 label", Unit.BRANCH, lambda a, b: int(a >= b))
_add("jal", "rd label", Unit.JUMP)
_add("jalr", "rd rs1 i12", Unit.JUMP)
_add("jalr", "rd i12(rs1)", Unit.JUMP, key="jalr.offset")
_add("lp.setup", "loop rs1 label", Unit.LOOP)
_add("lp.setupi", "loop u12 label", Unit.LOOP)
_add("lp.starti", "loop label", Unit.LOOP)
_add("lp.endi", "loop label", Unit.LOOP)
_add("lp.count", "loop rs1", Unit.LOOP)
_add("lp.counti", "loop u12", Unit.LOOP)
_add("csrr", "rd csr", Unit.CSR)

# -- single-precision floating point ---------------------------------------------------------
for _name, _function in (
    ("fadd.s", fp.add),
    ("fsub.s", fp.sub),
    ("fmul.s", fp.mul),
    ("fmin.s", fp.minimum),
    ("fmax.s", fp.maximum),
    ("fsgnj.s", lambda a, b: a & ~fp.SIGN & MASK | b & fp.SIGN),
    ("fsgnjn.s", lambda a, b: a & ~fp.SIGN & MASK | (b ^ fp.SIGN) & fp.SIGN),
    ("fsgnjx.s", lambda a, b: a ^ b & fp.SIGN),
):
    _add(_name, "fd fs1 fs2", Unit.FPU, _function)
_add("fmadd.s", "fd fs1 fs2 fs3", Unit.FPU, fp.fma)
_add("fmsub.s", "fd fs1 fs2 fs3", Unit.FPU, lambda a, b, c: fp.fma(a, b, c ^ fp.SIGN))
_add("fnmsub.s", "fd fs1 fs2 fs3", Unit.FPU, lambda a, b, c: fp.fma(a ^ fp.SIGN, b, c))
_add("fnmadd.s", "fd fs1 fs2 fs3", Unit.FPU, lambda a, b, c: fp.fma(a ^ fp.SIGN, b, c ^ fp.SIGN))
_add("feq.s", "rd fs1 fs2", Unit.FPU, fp.equal)
_add("flt.s", "rd fs1 fs2", Unit.FPU, fp.less)
_add("fle.s", "rd fs1 fs2", Unit.FPU, fp.less_equal)
_add("fcvt.s.w", "fd rs1", Unit.FPU, lambda a: fp.from_integer(signed(a)))
_add("fcvt.s.wu", "fd rs1", Unit.FPU, fp.from_integer)
_add("fcvt.w.s", "rd fs1 rm", Unit.FPU, lambda a, rm: fp.to_integer(a, rm, -(1 << 31), (1 << 31) - 1) & MASK)
_add("fcvt.wu.s", "rd fs1 rm", Unit.FPU, lambda a, rm: fp.to_integer(a, rm, 0, MASK))
_add("fmv.x.w", "rd fs1", Unit.FPU, lambda a: a)
_add("fmv.w.x", "fd rs1", Unit.FPU, lambda a: a)
_add("fclass.s", "rd fs1", Unit.FPU, fp.classify)
_add("fdiv.s", "fd fs1 fs2", Unit.FDIV, fp.div)
_add("fsqrt.s", "fd fs1", Unit.FDIV, fp.sqrt)

# -- internal: never written in a program ----------------------------------------------------
_add("<return>", "", Unit.RETURN)
_add("<end>", "", Unit.GUARD)

#: key -> operation number, as the fast engine compiles it
OP: dict[str, int] = {row.key: row.op for row in INSTRUCTIONS}

ABI_NAMES = (
    "zero ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6"
).split()
_FP_ABI_NAMES = (
    "ft0 ft1 ft2 ft3 ft4 ft5 ft6 ft7 fs0 fs1 fa0 fa1 fa2 fa3 fa4 fa5 fa6 fa7 "
    "fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11 ft8 ft9 ft10 ft11"
).split()

#: every accepted register name -> flat register number
REGISTER_NUMBERS: dict[str, int] = (
    {f"x{i}": i for i in range(32)}
    | {name: i for i, name in enumerate(ABI_NAMES)}
    | {"fp": 8}
    | {f"f{i}": F0 + i for i in range(32)}
    | {name: F0 + i for i, name in enumerate(_FP_ABI_NAMES)}
)


def register_name(number: int) -> str:
    """Flat register number -> x or f name."""
    return f"x{number}" if number < F0 else f"f{number - F0}"


#: mnemonics that are written out of other instructions: alias -> (mnemonic, operand template)
PSEUDO: dict[str, list[tuple[int, str]]] = {
    "nop": [(0, "addi x0,x0,0")],
    "mv": [(2, "addi {0},{1},0")],
    "not": [(2, "xori {0},{1},-1")],
    "neg": [(2, "sub {0},x0,{1}")],
    "seqz": [(2, "sltiu {0},{1},1")],
    "snez": [(2, "sltu {0},x0,{1}")],
    "sltz": [(2, "slt {0},{1},x0")],
    "sgtz": [(2, "slt {0},x0,{1}")],
    "beqz": [(2, "beq {0},x0,{1}")],
    "bnez": [(2, "bne {0},x0,{1}")],
    "blez": [(2, "bge x0,{0},{1}")],
    "bgez": [(2, "bge {0},x0,{1}")],
    "bltz": [(2, "blt {0},x0,{1}")],
    "bgtz": [(2, "blt x0,{0},{1}")],
    "bgt": [(3, "blt {1},{0},{2}")],
    "ble": [(3, "bge {1},{0},{2}")],
    "bgtu": [(3, "bltu {1},{0},{2}")],
    "bleu": [(3, "bgeu {1},{0},{2}")],
    "j": [(1, "jal x0,{0}")],
    "jal": [(1, "jal x1,{0}")],
    "call": [(1, "jal x1,{0}")],
    "tail": [(1, "jal x0,{0}")],
    "jr": [(1, "jalr x0,{0},0")],
    "jalr": [(1, "jalr x1,{0},0")],
    "ret": [(0, "jalr x0,x1,0")],
    "fmv.s": [(2, "fsgnj.s {0},{1},{1}")],
    "fabs.s": [(2, "fsgnjx.s {0},{1},{1}")],
    "fneg.s": [(2, "fsgnjn.s {0},{1},{1}")],
    "fcvt.w.s": [(2, "fcvt.w.s {0},{1},rne")],
    "fcvt.wu.s": [(2, "fcvt.wu.s {0},{1},rne")],
}
