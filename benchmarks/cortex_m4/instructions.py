"""The instructions of the model: what they are called, how they are written, what class of cost they have.

A subset of Thumb-2 and of the single-precision floating-point extension, as compilers use it for loops over arrays, in
GNU unified syntax. `Op` is the meaning (executed in `core`), a `Syntax` the way operands are written (read in
`assembler`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto


class Op(IntEnum):
    """What is executed. The most frequent come first."""

    VLOAD = 0
    VLOAD_MANY = auto()
    VFMA = auto()
    ADD = auto()
    SUB = auto()
    BRANCH = auto()
    LOAD = auto()
    LOAD_HALF = auto()
    LOAD_BYTE = auto()
    LOAD_SIGNED_HALF = auto()
    LOAD_SIGNED_BYTE = auto()
    STORE = auto()
    STORE_HALF = auto()
    STORE_BYTE = auto()
    VSTORE = auto()
    VSTORE_MANY = auto()
    RSB = auto()
    MOV = auto()
    MVN = auto()
    MOVT = auto()
    AND = auto()
    ORR = auto()
    EOR = auto()
    BIC = auto()
    UXTB = auto()
    UXTH = auto()
    SXTB = auto()
    SXTH = auto()
    MUL = auto()
    MLA = auto()
    MLS = auto()
    UDIV = auto()
    SDIV = auto()
    LOAD_MANY = auto()
    STORE_MANY = auto()
    LOAD_PAIR = auto()
    STORE_PAIR = auto()
    CALL = auto()
    CALL_REGISTER = auto()
    JUMP_REGISTER = auto()
    BRANCH_ZERO = auto()
    BRANCH_NOT_ZERO = auto()
    VADD = auto()
    VSUB = auto()
    VMUL = auto()
    VDIV = auto()
    VFMS = auto()
    VMLA = auto()
    VMLS = auto()
    VABS = auto()
    VNEG = auto()
    VMOV = auto()
    VSET = auto()
    VFROM_CORE = auto()
    VTO_CORE = auto()
    VCMP = auto()
    VMRS = auto()
    NOP = auto()
    END = auto()


class Shift(IntEnum):
    """How the second operand is made of rm: by a constant, by a register, or it is a constant itself.

    ROTATED: a constant that an encoding rotates; its bit 31 becomes the carry of logic.
    """

    LSL = 0
    LSR = auto()
    ASR = auto()
    ROR = auto()
    LSL_REGISTER = auto()
    LSR_REGISTER = auto()
    ASR_REGISTER = auto()
    ROR_REGISTER = auto()
    ROTATED = auto()


class Syntax(IntEnum):
    """How the operands of an instruction are written."""

    THREE = 0
    MOVE = auto()
    WIDE = auto()
    COMPARE = auto()
    SHIFT = auto()
    PRODUCT = auto()
    SUM = auto()
    QUOTIENT = auto()
    MEMORY = auto()
    TWO_WORDS = auto()
    LIST = auto()
    STACK = auto()
    LABEL = auto()
    REGISTER = auto()
    REGISTER_LABEL = auto()
    VMEMORY = auto()
    VLIST = auto()
    VSTACK = auto()
    EXTEND = auto()
    VTHREE = auto()
    VTWO = auto()
    VMOV = auto()
    VCOMPARE = auto()
    VFLAGS = auto()
    NONE = auto()


#: what is accepted, for errors
ACCEPTED = {
    Syntax.THREE: "rd, {rn,} operand: operand is #constant, rm, or rm, lsl|lsr|asr|ror #n",
    Syntax.MOVE: "rd, operand: operand is #constant, rm, or rm, lsl|lsr|asr|ror #n",
    Syntax.WIDE: "rd, #constant of 0 to 65535",
    Syntax.COMPARE: "rn, operand: operand is #constant, rm, or rm, lsl|lsr|asr|ror #n",
    Syntax.SHIFT: "rd, {rm,} #n or rs, n from 0 (lsl) or 1 to 31 (lsl, ror) or 32 (lsr, asr)",
    Syntax.PRODUCT: "rd, {rn,} rm",
    Syntax.SUM: "rd, rn, rm, ra",
    Syntax.QUOTIENT: "rd, {rn,} rm",
    Syntax.MEMORY: "rt, [rn{, #offset}]{!}, or rt, [rn], #offset, or rt, [rn, rm{, lsl #0..3}]; loads of words also "
    "rt, label; offsets -255 to 4095, with ! or behind ] -255 to 255",
    Syntax.TWO_WORDS: "rt, rt2, [rn{, #offset}]: a multiple of 4 from -1020 to 1020",
    Syntax.LIST: "rn{!}, {registers}",
    Syntax.STACK: "{registers}",
    Syntax.LABEL: "label",
    Syntax.REGISTER: "rm",
    Syntax.REGISTER_LABEL: "rn, label: rn from r0 to r7",
    Syntax.VMEMORY: "sd, [rn{, #offset}], a multiple of 4 from -1020 to 1020; loads also sd, label",
    Syntax.VLIST: "rn{!}, {s-registers or d-registers}, neighbours; with db the ! must stand",
    Syntax.VSTACK: "{s-registers or d-registers}, neighbours",
    Syntax.EXTEND: "{rd,} rm",
    Syntax.VTHREE: "{sd,} sn, sm",
    Syntax.VTWO: "sd, sm",
    Syntax.VMOV: "sd, sm, or sd, rt, or rt, sn, or (.f32) sd, #constant: n/16 * 2^e, n of 16 to 31, e of -3 to 4",
    Syntax.VCOMPARE: "sd, sm, or sd, #0",
    Syntax.VFLAGS: "APSR_nzcv, FPSCR",
    Syntax.NONE: "no operands",
}

#: endings of names by which the type of data is said
PLAIN, FLOAT, WORDS, LISTS = ("", ".w", ".n"), (".f32",), ("", ".32", ".f32"), ("", ".32", ".f32", ".64")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One name. `sets`: may end in s and then sets the flags; `detail` is the number that tells its Op more.

    types: the endings that say what data it works on.
    """

    name: str
    op: Op
    syntax: Syntax
    cost: str
    sets: bool = False
    detail: int = 0
    types: tuple[str, ...] = PLAIN


def _loads_and_stores() -> list[Instruction]:
    singles = {
        "ldr": Op.LOAD, "ldrh": Op.LOAD_HALF, "ldrb": Op.LOAD_BYTE, "ldrsh": Op.LOAD_SIGNED_HALF,
        "ldrsb": Op.LOAD_SIGNED_BYTE, "str": Op.STORE, "strh": Op.STORE_HALF, "strb": Op.STORE_BYTE,
    }  # fmt: skip
    rows = [Instruction(name, op, Syntax.MEMORY, "load" if name[0] == "l" else "store") for name, op in singles.items()]
    lists = (("ld", Op.LOAD_MANY, Op.VLOAD_MANY, Op.LOAD_PAIR), ("st", Op.STORE_MANY, Op.VSTORE_MANY, Op.STORE_PAIR))
    for name, op, voperation, pair in lists:
        rows.append(Instruction(f"{name}rd", pair, Syntax.TWO_WORDS, "multiple"))
        for ending, descends in (("m", 0), ("mia", 0), ("mdb", 1)):
            rows.append(Instruction(name + ending, op, Syntax.LIST, "multiple", detail=descends))
            rows.append(
                Instruction(f"v{name}{ending}", voperation, Syntax.VLIST, "vmultiple", detail=descends, types=LISTS)
            )
    return rows


INSTRUCTIONS = (
    *(Instruction(name, Op[name.upper()], Syntax.THREE, "alu", True) for name in "add sub rsb and orr eor bic".split()),
    *(Instruction(name, Op[name.upper()], Syntax.MOVE, "alu", True) for name in ("mov", "mvn")),
    Instruction("movw", Op.MOV, Syntax.WIDE, "alu"),
    Instruction("movt", Op.MOVT, Syntax.WIDE, "alu"),
    Instruction("cmp", Op.SUB, Syntax.COMPARE, "alu"),
    Instruction("cmn", Op.ADD, Syntax.COMPARE, "alu"),
    Instruction("tst", Op.AND, Syntax.COMPARE, "alu"),
    Instruction("teq", Op.EOR, Syntax.COMPARE, "alu"),
    *(Instruction(kind.name.lower(), Op.MOV, Syntax.SHIFT, "alu", True, kind) for kind in list(Shift)[:4]),
    *(Instruction(name, Op[name.upper()], Syntax.EXTEND, "alu") for name in ("uxtb", "uxth", "sxtb", "sxth")),
    Instruction("mul", Op.MUL, Syntax.PRODUCT, "multiply", True),
    Instruction("mla", Op.MLA, Syntax.SUM, "multiply"),
    Instruction("mls", Op.MLS, Syntax.SUM, "multiply"),
    Instruction("udiv", Op.UDIV, Syntax.QUOTIENT, "divide"),
    Instruction("sdiv", Op.SDIV, Syntax.QUOTIENT, "divide"),
    *_loads_and_stores(),
    Instruction("push", Op.STORE_MANY, Syntax.STACK, "multiple", detail=1),
    Instruction("pop", Op.LOAD_MANY, Syntax.STACK, "multiple"),
    Instruction("b", Op.BRANCH, Syntax.LABEL, "branch"),
    Instruction("bl", Op.CALL, Syntax.LABEL, "branch"),
    Instruction("blx", Op.CALL_REGISTER, Syntax.REGISTER, "branch"),
    Instruction("bx", Op.JUMP_REGISTER, Syntax.REGISTER, "branch"),
    Instruction("cbz", Op.BRANCH_ZERO, Syntax.REGISTER_LABEL, "branch"),
    Instruction("cbnz", Op.BRANCH_NOT_ZERO, Syntax.REGISTER_LABEL, "branch"),
    Instruction("nop", Op.NOP, Syntax.NONE, "alu"),
    Instruction("vldr", Op.VLOAD, Syntax.VMEMORY, "vload", types=WORDS),
    Instruction("vstr", Op.VSTORE, Syntax.VMEMORY, "vstore", types=WORDS),
    Instruction("vpush", Op.VSTORE_MANY, Syntax.VSTACK, "vmultiple", detail=1, types=LISTS),
    Instruction("vpop", Op.VLOAD_MANY, Syntax.VSTACK, "vmultiple", types=LISTS),
    *(
        Instruction(name, Op[name.upper()], Syntax.VTHREE, "varithmetic", types=FLOAT)
        for name in ("vadd", "vsub", "vmul")
    ),
    *(
        Instruction(name, Op[name.upper()], Syntax.VTHREE, "vaccumulate", types=FLOAT)
        for name in ("vfma", "vfms", "vmla", "vmls")
    ),
    Instruction("vdiv", Op.VDIV, Syntax.VTHREE, "vdivide", types=FLOAT),
    Instruction("vabs", Op.VABS, Syntax.VTWO, "vmove", types=FLOAT),
    Instruction("vneg", Op.VNEG, Syntax.VTWO, "vmove", types=FLOAT),
    Instruction("vmov", Op.VMOV, Syntax.VMOV, "vmove", types=("", ".f32")),
    Instruction("vcmp", Op.VCMP, Syntax.VCOMPARE, "vmove", types=FLOAT),
    Instruction("vcmpe", Op.VCMP, Syntax.VCOMPARE, "vmove", types=FLOAT),
    Instruction("vmrs", Op.VMRS, Syntax.VFLAGS, "vmove", types=("",)),
)
BY_NAME = {instruction.name: instruction for instruction in INSTRUCTIONS}

#: conditions by name, in the order of their encodings; two names for some
CONDITIONS = {name: code for code, name in enumerate("eq ne cs cc mi pl vs vc hi ls ge lt gt le al".split())}
CONDITIONS |= {"hs": CONDITIONS["cs"], "lo": CONDITIONS["cc"]}
ALWAYS = CONDITIONS["al"]

#: registers by name
REGISTERS = {f"r{number}": number for number in range(16)}
REGISTERS |= {"sb": 9, "sl": 10, "fp": 11, "ip": 12, "sp": 13, "lr": 14, "pc": 15}
SP, LR, PC = 13, 14, 15
#: two more registers: one that is always zero, rm of an instruction with a constant; one whose value nobody reads, rd
#: of a comparison
ZERO, NOWHERE = 16, 17
