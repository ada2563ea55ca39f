"""Xpulp as the RI5CY core encodes and computes it (its user manual; 16-bit and vector instructions are left out).

Hardware loops at opcode 1111011, post-increment by immediate at 0001011 and 0101011, register forms in
free rows of the standard opcodes, products of half-words and normalised sums at 1011011.
"""

from __future__ import annotations

from collections.abc import Callable

from pulpsim.isa.table import MASK, Instruction, Unit, Variant, row, signed

Function = Callable[..., int]
_SIZES = {"b": 1, "h": 2, "w": 4}


# -- arithmetic ------------------------------------------------------------------------------
def _clip(a: int, bits: int) -> int:
    """p.clip: to -2**(bits-1) .. 2**(bits-1)-1; bits 0 and 1 give -1..0."""
    bound = 1 << max(bits - 1, 0)
    low, high = (-1, 0) if bits == 0 else (-bound, bound - 1)
    return min(max(signed(a), low), high) & MASK


def _clipu(a: int, bits: int) -> int:
    bound = 1 << max(bits - 1, 0)
    return min(max(signed(a), 0), 0 if bits == 0 else bound - 1)


def _clip_to(a: int, bound: int) -> int:
    """p.clipr: to -(bound + 1) .. bound; the lower bound counts where they cross."""
    low = signed(~bound & MASK)
    return (low if signed(a) <= low else min(signed(a), signed(bound))) & MASK


def _clipu_to(a: int, bound: int) -> int:
    return (0 if signed(a) <= 0 else min(signed(a), signed(bound))) & MASK


def _extend(a: int, bits: int) -> int:
    """The sign of the lowest `bits` bits, extended."""
    low = a & (1 << bits) - 1
    return low - (1 << bits) & MASK if low >> bits - 1 else low


def _leading_signs(a: int) -> int:
    """p.clb: how many bits below the top one repeat it; 0 of zero."""
    return 31 - (a ^ MASK if a >> 31 else a).bit_length() if a else 0


def _rotate(a: int, b: int) -> int:
    return (a >> (b & 31) | a << (-b & 31)) & MASK


def _alu(mnemonic: str, function: Function, funct7: str, funct3: str, accumulates: bool = False) -> Instruction:
    pattern = f"{funct7} rs2 rs1 {funct3} rd 0110011"
    return row(mnemonic, "rd rs1 rs2", Unit.ALU, pattern, function, accumulates=accumulates)


def _unary(mnemonic: str, function: Function, funct7: str, funct3: str) -> Instruction:
    return row(mnemonic, "rd rs1", Unit.ALU, f"{funct7} 00000 rs1 {funct3} rd 0110011", function)


_ARITHMETIC = (
    _alu("p.mac", lambda a, b, d: d + a * b & MASK, "0100001", "000", accumulates=True),
    _alu("p.msu", lambda a, b, d: d - a * b & MASK, "0100001", "001", accumulates=True),
    _alu("p.min", lambda a, b: a if signed(a) < signed(b) else b, "0000010", "100"),
    _alu("p.minu", min, "0000010", "101"),
    _alu("p.max", lambda a, b: a if signed(a) > signed(b) else b, "0000010", "110"),
    _alu("p.maxu", max, "0000010", "111"),
    _alu("p.slet", lambda a, b: int(signed(a) <= signed(b)), "0000010", "010"),
    _alu("p.sletu", lambda a, b: int(a <= b), "0000010", "011"),
    _alu("p.ror", _rotate, "0000100", "101"),
    _unary("p.abs", lambda a: abs(signed(a)) & MASK, "0000010", "000"),
    row("p.clip", "rd rs1 u5", Unit.ALU, "0001010 u[4:0] rs1 001 rd 0110011", _clip),
    row("p.clipu", "rd rs1 u5", Unit.ALU, "0001010 u[4:0] rs1 010 rd 0110011", _clipu),
    _alu("p.clipr", _clip_to, "0001010", "101"),
    _alu("p.clipur", _clipu_to, "0001010", "110"),
    _unary("p.exths", lambda a: _extend(a, 16), "0001000", "100"),
    _unary("p.exthz", lambda a: a & 0xFFFF, "0001000", "101"),
    _unary("p.extbs", lambda a: _extend(a, 8), "0001000", "110"),
    _unary("p.extbz", lambda a: a & 0xFF, "0001000", "111"),
    _unary("p.ff1", lambda a: (a & -a).bit_length() - 1 if a else 32, "0001000", "000"),
    _unary("p.fl1", lambda a: a.bit_length() - 1 if a else 32, "0001000", "001"),
    _unary("p.clb", _leading_signs, "0001000", "010"),
    _unary("p.cnt", lambda a: a.bit_count(), "0001000", "011"),
)


# -- fields of bits: `more` bits and one, from bit `low` on, as far as the word reaches ---------
def _field_mask(more: int, low: int) -> int:
    return (2 << more) - 1 << low & MASK


def _extractu(a: int, more: int, low: int) -> int:
    return (a & _field_mask(more, low)) >> low


def _extract(a: int, more: int, low: int) -> int:
    return _extend(a >> low, min(more, 31 - low) + 1)


def _insert(a: int, more: int, low: int, d: int) -> int:
    mask = _field_mask(more, low)
    return d & ~mask | a << low & mask


def _bclr(a: int, more: int, low: int) -> int:
    return a & ~_field_mask(more, low)


def _bset(a: int, more: int, low: int) -> int:
    return a | _field_mask(more, low)


def _bits(mnemonic: str, function: Function, funct3: str, accumulates: bool = False) -> tuple[Instruction, ...]:
    """The form with both numbers in the instruction, and the one that takes them from bits 9:5 and 4:0 of rs2."""

    def by_register(a: int, b: int, *d: int) -> int:
        return function(a, b >> 5 & 31, b & 31, *d)

    pattern = f"11 u[4:0] n[4:0] rs1 {funct3} rd 0110011"
    numbers = row(mnemonic, "rd rs1 u5 n5", Unit.ALU, pattern, function, accumulates=accumulates)
    register = row(
        mnemonic + "r", "rd rs1 rs2", Unit.ALU, f"1000000 rs2 rs1 {funct3} rd 0110011", by_register,
        operation=numbers.operation, accumulates=accumulates, variant=Variant.BY_REGISTER,
    )  # fmt: skip
    return numbers, register


_BIT_FIELDS = (
    *_bits("p.extract", _extract, "000"),
    *_bits("p.extractu", _extractu, "001"),
    *_bits("p.insert", _insert, "010", accumulates=True),
    *_bits("p.bclr", _bclr, "011"),
    *_bits("p.bset", _bset, "100"),
)


# -- shifted and rounded: sums, and products of half-words ------------------------------------
def _shifted(value: int, shift: int, is_signed: bool, rounds: bool) -> int:
    """value >> shift, after half a unit of the result was added where it rounds; signed values keep their sign."""
    value += (1 << shift) >> 1 if rounds else 0
    return (value if is_signed else value & MASK) >> shift & MASK


def _variant(is_signed: bool, rounds: bool, other: bool) -> Variant:
    return Variant(Variant.SIGNED * is_signed | Variant.ROUNDED * rounds | Variant.OTHER * other)


def _sum_name(name: str, is_signed: bool, rounds: bool) -> str:
    return f"p.{name}{'' if is_signed else 'u'}{'R' if rounds else ''}N"


def _normalised(name: str, sign: int, funct3: int) -> list[Instruction]:
    """rs1 +- rs2 shifted by a number, or rd +- rs1 shifted by rs2; sums are of 32 bits before the shift."""
    out = []
    for is_signed in (True, False):
        for rounds in (False, True):

            def total(a: int, b: int, shift: int, is_signed: bool = is_signed, rounds: bool = rounds) -> int:
                value = a + sign * b + ((1 << shift) >> 1 if rounds else 0) & MASK
                return _shifted(signed(value) if is_signed else value, shift, is_signed, False)

            def by_register(a: int, b: int, d: int, total: Function = total) -> int:
                return total(d, a, b & 31)

            mnemonic = _sum_name(name, is_signed, rounds)
            variant = _variant(is_signed, rounds, sign < 0)
            top, low = "0" if is_signed else "1", f"{funct3 | 4 * rounds:03b}"
            number = f"{top}0 u[4:0] rs2 rs1 {low} rd 1011011"
            register = f"{top}1 00000 rs2 rs1 {low} rd 1011011"
            out += [
                row(mnemonic, "rd rs1 rs2 u5", Unit.ALU, number, total, operation="sum", variant=variant),
                row(
                    mnemonic + "r", "rd rs1 rs2", Unit.ALU, register, by_register,
                    operation="sum", accumulates=True, variant=variant | Variant.BY_REGISTER,
                ),
            ]  # fmt: skip
    return out


def _half(value: int, high: bool, is_signed: bool) -> int:
    half = value >> 16 * high & 0xFFFF
    return half - (1 << 16) if is_signed and half >> 15 else half


def _products(accumulates: bool) -> list[Instruction]:
    """Products of two lower or upper halves, added to rd or not, then shifted and rounded or not."""
    out = []
    for is_signed in (True, False):
        for high in (False, True):
            for rounds in (False, True):

                def product(
                    a: int, b: int, shift: int, d: int = 0,
                    is_signed: bool = is_signed, high: bool = high, rounds: bool = rounds,
                ) -> int:  # fmt: skip
                    value = _half(a, high, is_signed) * _half(b, high, is_signed)
                    value += signed(d) if is_signed else d
                    return _shifted(value, shift, is_signed, rounds)

                name = f"p.{'mac' if accumulates else 'mul'}{'hh' * high}{'s' if is_signed else 'u'}"
                top, funct3 = f"{int(is_signed)}{int(high)}", f"{accumulates + 4 * rounds:03b}"
                out.append(
                    row(
                        f"{name}{'R' * rounds}N", "rd rs1 rs2 u5", Unit.ALU,
                        f"{top} u[4:0] rs2 rs1 {funct3} rd 1011011", product,
                        operation="product", accumulates=accumulates, variant=_variant(is_signed, rounds, high),
                    )
                )  # fmt: skip
    return out


#: products that are neither shifted nor rounded: the shift is 0
PLAIN_PRODUCTS = tuple(f"p.{name}{half}{sign}" for name in ("mul", "mac") for half in ("", "hh") for sign in "su")


# -- memory ----------------------------------------------------------------------------------
def _loads(name: str, funct3: str, funct7: str) -> tuple[Instruction, ...]:
    size, is_signed = _SIZES[name[1]], not name.endswith("u")

    def form(suffix: str, operand: str, pattern: str) -> Instruction:
        return row(
            f"p.{name}", f"rd {operand}", Unit.LOAD, pattern, key=f"p.{name}.{suffix}", size=size, signed=is_signed
        )

    return (
        form("post_imm", "i12(rs1!)", f"i[11:0] rs1 {funct3} rd 0001011"),
        form("post_reg", "rs2(rs1!)", f"{funct7} rs2 rs1 111 rd 0001011"),
        form("reg", "rs2(rs1)", f"{funct7} rs2 rs1 111 rd 0000011"),
    )


def _stores(name: str, code: str) -> tuple[Instruction, ...]:
    def form(suffix: str, operand: str, pattern: str) -> Instruction:
        return row(f"p.{name}", f"rs2 {operand}", Unit.STORE, pattern, key=f"p.{name}.{suffix}", size=_SIZES[name[1]])

    return (
        form("post_imm", "i12(rs1!)", f"i[11:5] rs2 rs1 0{code} i[4:0] 0101011"),
        form("post_reg", "rs3(rs1!)", f"0000000 rs2 rs1 1{code} rs3 0101011"),
        form("reg", "rs3(rs1)", f"0000000 rs2 rs1 1{code} rs3 0100011"),
    )


_MEMORY = (
    *_loads("lb", "000", "0000000"),
    *_loads("lh", "001", "0001000"),
    *_loads("lw", "010", "0010000"),
    *_loads("lbu", "100", "0100000"),
    *_loads("lhu", "101", "0101000"),
    *_stores("sb", "00"),
    *_stores("sh", "01"),
    *_stores("sw", "10"),
    row("p.elw", "rd i12(rs1)", Unit.EVENT, "i[11:0] rs1 110 rd 0001011", size=4),
)


# -- control flow ----------------------------------------------------------------------------
def _branch(mnemonic: str, funct3: str, function: Function) -> Instruction:
    pattern = f"t[12|10:5] i[4:0] rs1 {funct3} t[4:1|11] 1100011"
    operation = mnemonic.removeprefix("p.").removesuffix("imm")
    return row(mnemonic, "rs1 i5 label", Unit.BRANCH, pattern, function, operation=operation)


def _loop(mnemonic: str, operands: str, bits: str, funct3: str) -> Instruction:
    operation = mnemonic.removeprefix("lp.").removesuffix("i")
    return row(mnemonic, f"loop {operands}", Unit.LOOP, f"{bits} {funct3} 0000 n[0] 1111011", operation=operation)


#: set one register of a hardware loop from an immediate: they take longer than the others
LOOP_PARTS = ("lp.starti", "lp.endi", "lp.counti")

INSTRUCTIONS = (
    *_ARITHMETIC,
    *_BIT_FIELDS,
    *_normalised("add", 1, 0b010),
    *_normalised("sub", -1, 0b011),
    *_products(accumulates=False),
    *_products(accumulates=True),
    *_MEMORY,
    _branch("p.beqimm", "010", lambda a, b: int(a == b)),
    _branch("p.bneimm", "011", lambda a, b: int(a != b)),
    _loop("lp.setup", "rs1 label", "h[11:0] rs1", "100"),
    _loop("lp.setupi", "u12 label", "u[11:0] h[4:0]", "101"),
    _loop("lp.starti", "label", "h[11:0] 00000", "000"),
    _loop("lp.endi", "label", "h[11:0] 00000", "001"),
    _loop("lp.count", "rs1", "000000000000 rs1", "010"),
    _loop("lp.counti", "u12", "u[11:0] 00000", "011"),
)
