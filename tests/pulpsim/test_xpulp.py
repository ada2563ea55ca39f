"""Protects what Xpulp's integer instructions compute, on every engine: said a second time, bit by bit.

Bits are lists of 0 and 1, the lowest first. Sources: the RI5CY user manual's tables.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim import isa
from pulpsim.program import Builder
from tests.pulpsim.conftest import Bench

BenchFactory = Callable[..., Bench]
Bits = list[int]
EDGES = [0, 1, 2, 31, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFF0000, 0xFFFFFFFF]
PATTERNS = st.sampled_from(EDGES) | st.integers(0, 0xFFFFFFFF)
NUMBERS = st.sampled_from([0, 1, 15, 16, 30, 31]) | st.integers(0, 31)


def bits(value: int, count: int = 32) -> Bits:
    return [value >> i & 1 for i in range(count)]


def unsigned(of: Bits) -> int:
    return sum(bit << i for i, bit in enumerate(of))


def signed(of: Bits) -> int:
    return unsigned(of) - (of[-1] << len(of))


def i32(value: int) -> int:
    return signed(bits(value))


UNARY: dict[str, Callable[[int], int]] = {
    "p.abs": lambda a: abs(i32(a)),
    "p.exths": lambda a: signed(bits(a)[:16]),
    "p.exthz": lambda a: unsigned(bits(a)[:16]),
    "p.extbs": lambda a: signed(bits(a)[:8]),
    "p.extbz": lambda a: unsigned(bits(a)[:8]),
    "p.ff1": lambda a: [*bits(a), 1].index(1),
    "p.fl1": lambda a: 31 - bits(a)[::-1].index(1) if a else 32,
    "p.clb": lambda a: [*[bit != bits(a)[31] for bit in bits(a)[::-1]], True].index(True) - 1 if a else 0,
    "p.cnt": lambda a: sum(bits(a)),
}


def by_bound(a: int, b: int) -> int:
    return i32(~b) if i32(a) <= i32(~b) else i32(b) if i32(a) >= i32(b) else i32(a)


BINARY: dict[str, Callable[[int, int], int]] = {
    "p.slet": lambda a, b: int(not i32(a) > i32(b)),
    "p.sletu": lambda a, b: int(not a > b),
    "p.ror": lambda a, b: unsigned((bits(a) * 2)[b % 32 : b % 32 + 32]),
    "p.clipr": by_bound,
    "p.clipur": lambda a, b: 0 if i32(a) <= 0 else i32(b) if i32(a) >= i32(b) else i32(a),
}


# -- fields: `more` + 1 bits from bit `low` on, as far as there are bits -------------------------------
def insert(a: int, more: int, low: int, d: int) -> int:
    out = bits(d)
    for i, bit in enumerate(bits(a)[: more + 1]):
        if low + i < 32:
            out[low + i] = bit
    return unsigned(out)


def filled(a: int, more: int, low: int, bit: int) -> int:
    return unsigned([bit if low <= i <= low + more else old for i, old in enumerate(bits(a))])


FIELDS: dict[str, Callable[[int, int, int, int], int]] = {
    "p.extract": lambda a, more, low, d: signed(bits(a)[low : low + more + 1]),
    "p.extractu": lambda a, more, low, d: unsigned(bits(a)[low : low + more + 1]),
    "p.insert": insert,
    "p.bclr": lambda a, more, low, d: filled(a, more, low, 0),
    "p.bset": lambda a, more, low, d: filled(a, more, low, 1),
}


# -- shifted, and rounded by half a unit of what is left ------------------------------------------------
def shifted(value: int, shift: int, rounds: bool) -> int:
    return (value + (2**shift // 2 if rounds else 0)) // 2**shift


def total(sign: int, is_signed: bool, rounds: bool, a: int, b: int, shift: int) -> int:
    """The sum wraps at 32 bits, half a unit included, before it is shifted."""
    wrapped = bits(a + sign * b + (2**shift // 2 if rounds else 0))
    return shifted(signed(wrapped) if is_signed else unsigned(wrapped), shift, False)


def product(upper: bool, is_signed: bool, rounds: bool, a: int, b: int, d: int, shift: int) -> int:
    """Signed ones keep all their bits until they are shifted, unsigned ones wrap at 32."""
    halves = [bits(value)[16:] if upper else bits(value)[:16] for value in (a, b)]
    left, right = (signed(half) if is_signed else unsigned(half) for half in halves)
    value = left * right + (i32(d) if is_signed else d) + (2**shift // 2 if rounds else 0)
    return shifted(value if is_signed else unsigned(bits(value)), shift, False)


FORMS = [(is_signed, rounds) for is_signed in (True, False) for rounds in (False, True)]


def suffix(is_signed: bool, rounds: bool) -> str:
    return ("" if is_signed else "u") + ("R" if rounds else "") + "N"


def expected(a: int, b: int, d: int, n: int, m: int) -> dict[tuple[object, ...], int]:
    """(mnemonic, operands behind rd) -> result."""
    out: dict[tuple[object, ...], int] = {(name, "x6"): f(a) for name, f in UNARY.items()}
    out |= {(name, "x6", "x7"): f(a, b) for name, f in BINARY.items()}
    for name, field in FIELDS.items():
        out[name, "x6", n, m] = field(a, n, m, d)
        out[name + "r", "x6", "x7"] = field(a, b >> 5 & 31, b & 31, d)
    for is_signed, rounds in FORMS:
        for name, sign in (("add", 1), ("sub", -1)):
            mnemonic = f"p.{name}{suffix(is_signed, rounds)}"
            out[mnemonic, "x6", "x7", n] = total(sign, is_signed, rounds, a, b, n)
            out[mnemonic + "r", "x6", "x7"] = total(sign, is_signed, rounds, d, a, b & 31)
        for name, addend in (("mul", 0), ("mac", d)):
            for upper in (False, True):
                mnemonic = f"p.{name}{'hh' * upper}{'s' if is_signed else 'u'}"
                value = product(upper, is_signed, rounds, a, b, addend, n)
                out[f"{mnemonic}{'R' * rounds}N", "x6", "x7", n] = value
                if not rounds:
                    out[mnemonic, "x6", "x7"] = product(upper, is_signed, False, a, b, addend, 0)
    return out


@settings(max_examples=60)
@given(a=PATTERNS, b=PATTERNS, d=PATTERNS, n=NUMBERS, m=NUMBERS)
def test_values(bench: BenchFactory, a: int, b: int, d: int, n: int, m: int) -> None:
    results = expected(a, b, d, n, m)
    builder = Builder()
    for mnemonic, *operands in results:
        builder("mv", "x5", "x8")
        builder(str(mnemonic), "x5", *operands)
        builder("p.sw", "x5", ("x10", 4, "!"))
    builder.ret()
    b_ = bench()
    cycles = b_.cycles(builder.build(), x6=a, x7=b, x8=d)
    assert cycles == 3 * len(results)  # each takes one cycle, and nothing waits for it
    stored = b_.memory.l1[: 4 * len(results)].view("uint32").tolist()
    assert dict(zip(results, stored, strict=True)) == {key: value % (1 << 32) for key, value in results.items()}


def test_all_are_tested() -> None:
    mnemonics = {row.mnemonic for row in isa.INSTRUCTIONS if row.mnemonic.startswith("p.")}
    tested = {str(mnemonic) for mnemonic, *_ in expected(0, 0, 0, 0, 0)}
    elsewhere = {row.mnemonic for row in isa.INSTRUCTIONS if row.unit is not isa.Unit.ALU}
    assert mnemonics - tested - elsewhere == {
        "p.mac", "p.msu", "p.min", "p.minu", "p.max", "p.maxu", "p.clip", "p.clipu",
    }  # fmt: skip


@pytest.mark.parametrize("value", [-16, -1, 0, 15])
def test_branches_on_a_number(bench: BenchFactory, value: int) -> None:
    """Three cycles where taken, one where not, as other branches."""
    for mnemonic, taken_if_equal in (("p.beqimm", True), ("p.bneimm", False)):
        for other in (value, value + 1, value ^ 1 << 31):
            builder = Builder()
            out = builder.label()
            builder(mnemonic, "x5", value, out)
            builder("addi", "x6", "x0", 1)
            builder.place(out)
            builder.ret()
            b = bench()
            taken = (other == value) == taken_if_equal
            assert b.cycles(builder.build(), x5=other, x6=0) == (3 if taken else 2)
            assert b.register("x6") == (0 if taken else 1)
