"""Protects what every instruction of the Cortex-M4F model computes: values, flags, conditions, addresses."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cortex_m4.assembler import assemble
from benchmarks.cortex_m4.core import CODE_BASE, MEMORY_BASE, Core
from benchmarks.cortex_m4.instructions import BY_NAME, CONDITIONS
from pulpsim import float32 as fp
from pulpsim.errors import AddressError, CycleLimitError, ProgramError, TrapError

MASK = 0xFFFFFFFF
EDGES = [0, 1, 2, 31, 32, 255, 256, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF]
word = st.integers(0, MASK) | st.sampled_from(EDGES)
single = word | st.sampled_from([0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00001, 0x00000001, 0x807FFFFF])
#: operands of like magnitude, where sums cancel and round
close = st.builds(lambda sign, bits: sign << 31 | bits, st.integers(0, 1), st.integers(0x3E000000, 0x41FFFFFF))
few = settings(max_examples=25)

#: after the body: r8 to r11 become N, Z, C, V
FLAGS = "".join(
    f"it {condition}; mov{condition} r{8 + place}, #1;" for place, condition in enumerate(("mi", "eq", "cs", "vs"))
)


@dataclass
class State:
    """After a run: core registers and floating-point registers as patterns, flags, memory."""

    r: list[int]
    s: list[int]
    flags: tuple[int, int, int, int]
    core: Core


def execute(body: str, r: dict[int, int] | None = None, s: dict[int, int] | None = None, memory: bytes = b"") -> State:
    """Run a body with registers set; memory stands from r12 on, if there is any."""
    core = Core(assemble(f"f: mov r8, #0; mov r9, #0; mov r10, #0; mov r11, #0; {body}\n {FLAGS} bx lr\n"))
    for number, value in (s or {}).items():
        core.s[number] = signed(value)
    if memory:
        core.r[12] = core.place(np.frombuffer(memory, np.uint8))
    for number, value in (r or {}).items():
        core.r[number] = signed(value)
    core.call("f")
    flags = (int(core.r[8]), int(core.r[9]), int(core.r[10]), int(core.r[11]))
    return State([int(x) & MASK for x in core.r], [int(x) & MASK for x in core.s], flags, core)


def signed(value: int) -> int:
    return (value & MASK) - ((value & 0x80000000) << 1)


# -- the same in plain Python ----------------------------------------------------------------------------
def add(a: int, b: int, carry: int = 0) -> tuple[int, tuple[int, int, int, int]]:
    """Sum and flags by their definition."""
    total, result = a + b + carry, (a + b + carry) & MASK
    overflow = signed(a) + signed(b) + carry != signed(result)
    return result, (result >> 31, int(result == 0), int(total > MASK), int(overflow))


def compare(a: int, b: int) -> tuple[int, int, int, int]:
    return add(a, ~b & MASK, 1)[1]


def shift(kind: str, value: int, amount: int, carry: int) -> tuple[int, int]:
    """Value and carry, bit by bit."""
    for _ in range(amount):
        if kind == "lsl":
            carry, value = value >> 31, value << 1 & MASK
        else:
            top = {"lsr": 0, "asr": value >> 31, "ror": value & 1}[kind]
            carry, value = value & 1, value >> 1 | top << 31
    return value, carry


SUMS: dict[str, Callable[[int, int], tuple[int, tuple[int, int, int, int]]]] = {
    "add": add,
    "sub": lambda a, b: add(a, ~b & MASK, 1),
    "rsb": lambda a, b: add(b, ~a & MASK, 1),
}
LOGIC: dict[str, Callable[[int, int], int]] = {
    "and": lambda a, b: a & b,
    "orr": lambda a, b: a | b,
    "eor": lambda a, b: a ^ b,
    "bic": lambda a, b: a & ~b & MASK,
}
MOVES: dict[str, Callable[[int], int]] = {"mov": lambda b: b, "mvn": lambda b: ~b & MASK}
COMPARISONS = ("cmp", "cmn", "tst", "teq")
SHIFTS = ("lsl", "lsr", "asr", "ror")
WIDE = ("movw", "movt")
PRODUCTS = ("mul", "mla", "mls")
QUOTIENTS = ("udiv", "sdiv")
EXTENSIONS = {"uxtb": (8, 0), "uxth": (16, 0), "sxtb": (8, 1), "sxth": (16, 1)}
LOADS = {"ldr": "<I", "ldrh": "<H", "ldrb": "<B", "ldrsh": "<h", "ldrsb": "<b"}
STORES = {"str": 4, "strh": 2, "strb": 1}
LISTS = ("ldm", "ldmia", "ldmdb", "stm", "stmia", "stmdb", "push", "pop", "ldrd", "strd")
VLISTS = ("vldm", "vldmia", "vldmdb", "vstm", "vstmia", "vstmdb", "vpush", "vpop")
FLOW = ("b", "bl", "blx", "bx", "cbz", "cbnz", "nop")
ARITHMETIC: dict[str, Callable[[int, int, int], int]] = {
    "vadd": lambda d, a, b: fp.add(a, b),
    "vsub": lambda d, a, b: fp.sub(a, b),
    "vmul": lambda d, a, b: fp.mul(a, b),
    "vdiv": lambda d, a, b: fp.div(a, b),
    "vfma": lambda d, a, b: fp.fma(a, b, d),
    "vfms": lambda d, a, b: fp.fma(a ^ fp.SIGN, b, d),
    "vmla": lambda d, a, b: fp.add(d, fp.mul(a, b)),
    "vmls": lambda d, a, b: fp.sub(d, fp.mul(a, b)),
}
SIGNS: dict[str, Callable[[int], int]] = {"vabs": lambda a: a & ~fp.SIGN & MASK, "vneg": lambda a: a ^ fp.SIGN}
MOVED = ("vldr", "vstr", "vmov", "vcmp", "vcmpe", "vmrs")


def test_every_instruction_is_tested_here() -> None:
    """A new name in the table needs a test."""
    tested = [SUMS, LOGIC, MOVES, COMPARISONS, SHIFTS, WIDE, PRODUCTS, QUOTIENTS, EXTENSIONS, LOADS, STORES, LISTS]
    assert set().union(*tested, VLISTS, FLOW, ARITHMETIC, SIGNS, MOVED) == set(BY_NAME)


# -- integers --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SUMS)
@few
@given(a=word, b=word, amount=st.integers(0, 31))
def test_sums_and_their_flags(name: str, a: int, b: int, amount: int) -> None:
    """Registers, shifted ones and constants; flags only with an s."""
    result, flags = SUMS[name](a, b << amount & MASK)
    state = execute(f"{name}s r2, r0, r1, lsl #{amount}", {0: a, 1: b})
    assert (state.r[2], state.flags) == (result, flags)
    assert execute(f"{name} r0, r1", {0: a, 1: b}).r[0] == SUMS[name](a, b)[0]
    result, flags = SUMS[name](a, 0xAB00)
    state = execute(f"{name}s r2, r0, #0xab00", {0: a})
    assert (state.r[2], state.flags) == (result, flags)


@pytest.mark.parametrize("name", LOGIC)
@few
@given(a=word, b=word, kind=st.sampled_from(SHIFTS), amount=st.integers(1, 31), x=word, y=word)
def test_logic_and_its_flags(name: str, a: int, b: int, kind: str, amount: int, x: int, y: int) -> None:
    """The carry is the shifter's, the overflow stays."""
    second, carry = shift(kind, b, amount, 0)
    result, overflow = LOGIC[name](a, second), compare(x, y)[3]
    state = execute(f"cmp r3, r4; {name}s r2, r0, r1, {kind} #{amount}", {0: a, 1: b, 3: x, 4: y})
    assert (state.r[2], state.flags) == (result, (result >> 31, int(result == 0), carry, overflow))


@pytest.mark.parametrize("name", MOVES)
@few
@given(b=word, x=word, y=word)
def test_moves(name: str, b: int, x: int, y: int) -> None:
    """Carry and overflow stay when nothing is shifted."""
    result, (_, _, carry, overflow) = MOVES[name](b), compare(x, y)
    state = execute(f"cmp r3, r4; {name}s r2, r1", {1: b, 3: x, 4: y})
    assert (state.r[2], state.flags) == (result, (result >> 31, int(result == 0), carry, overflow))


@pytest.mark.parametrize(("constant", "carry"), [(0xFF, 1), (0x00AB00AB, 1), (0xFF000000, 1), (0x3FC00, 0)])
def test_a_rotated_constant_gives_its_top_bit_as_carry(constant: int, carry: int) -> None:
    """The carry of logic with constants: others leave it (here: set)."""
    state = execute(f"cmp r0, r0; movs r2, #{constant}")
    assert (state.r[2], state.flags[2]) == (constant, carry)


@few
@given(a=word, b=word)
def test_comparisons(a: int, b: int) -> None:
    """They leave flags and nothing else."""
    registers = {0: a, 1: b}
    assert execute("cmp r0, r1", registers).flags == compare(a, b)
    assert execute("cmn r0, r1", registers).flags == add(a, b)[1]
    assert execute("tst r0, r1", registers).flags[:2] == ((a & b) >> 31, int(a & b == 0))
    assert execute("teq r0, r1", registers).flags[:2] == ((a ^ b) >> 31, int(a == b))
    assert execute("cmp r0, #-1", registers).flags == compare(a, MASK)
    assert execute("cmp r0, r1", registers).r[:2] == [a, b]


@pytest.mark.parametrize("name", SHIFTS)
@few
@given(value=word, amount=st.integers(0, 255), x=word)
def test_shifts(name: str, value: int, amount: int, x: int) -> None:
    """By the low byte of a register, and by constants."""
    carry = compare(x, 5)[2]
    result, out = shift(name, value, amount, carry)
    state = execute(f"cmp r3, #5; {name}s r2, r0, r1", {0: value, 1: amount | 0x300, 3: x})
    assert (state.r[2], state.flags[:3]) == (result, (result >> 31, int(result == 0), out))
    constant = max(1, amount % 32)
    result, out = shift(name, value, constant, 0)
    state = execute(f"{name}s r2, r0, #{constant}", {0: value})
    assert (state.r[2], state.flags[2]) == (result, out)


@few
@given(a=word, b=word, c=word)
def test_products_and_quotients(a: int, b: int, c: int) -> None:
    """The low word of products; quotients towards zero, by zero zero."""
    registers = {0: a, 1: b, 2: c}
    assert execute("mul r3, r0, r1", registers).r[3] == a * b & MASK
    assert execute("muls r3, r0, r1", registers).flags[:2] == ((a * b & MASK) >> 31, int(a * b & MASK == 0))
    assert execute("mla r3, r0, r1, r2", registers).r[3] == (c + a * b) & MASK
    assert execute("mls r3, r0, r1, r2", registers).r[3] == (c - a * b) & MASK
    assert execute("udiv r3, r0, r1", registers).r[3] == (a // b if b else 0)
    x, y = signed(a), signed(b)
    towards_zero = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1) if y else 0
    assert execute("sdiv r3, r0, r1", registers).r[3] == towards_zero & MASK


@few
@given(a=word, constant=st.integers(0, 65535))
def test_wide_moves_and_extensions(a: int, constant: int) -> None:
    """movw clears the top, movt keeps the bottom; extensions keep the low bits."""
    assert execute(f"movw r0, #{constant}", {0: a}).r[0] == constant
    assert execute(f"movt r0, #{constant}", {0: a}).r[0] == constant << 16 | a & 0xFFFF
    for name, (bits, extends) in EXTENSIONS.items():
        low = a & (1 << bits) - 1
        wanted = low - (1 << bits) if extends and low >> bits - 1 else low
        assert execute(f"{name} r1, r0", {0: a}).r[1] == wanted & MASK


# -- conditions ------------------------------------------------------------------------------------------
HOLDS: dict[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b,
    "cs": lambda a, b: a >= b, "cc": lambda a, b: a < b, "hs": lambda a, b: a >= b, "lo": lambda a, b: a < b,
    "mi": lambda a, b: (a - b & MASK) >> 31 == 1, "pl": lambda a, b: (a - b & MASK) >> 31 == 0,
    "vs": lambda a, b: signed(a) - signed(b) != signed(a - b),
    "vc": lambda a, b: signed(a) - signed(b) == signed(a - b),
    "hi": lambda a, b: a > b, "ls": lambda a, b: a <= b,
    "ge": lambda a, b: signed(a) >= signed(b), "lt": lambda a, b: signed(a) < signed(b),
    "gt": lambda a, b: signed(a) > signed(b), "le": lambda a, b: signed(a) <= signed(b), "al": lambda a, b: True,
}  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS)
@few
@given(a=word, b=word | st.none())
def test_conditions(condition: str, a: int, b: int | None) -> None:
    """Every condition as the comparison that it is named after, in a branch and in an it block."""
    b = a if b is None else b
    holds = HOLDS[condition](a, b)
    branch = execute(f"cmp r0, r1; mov r2, #1; b{condition} t; mov r2, #0; t: nop", {0: a, 1: b})
    assert branch.r[2] == holds
    if condition != "al":
        inverse = list(CONDITIONS)[CONDITIONS[condition] ^ 1]
        block = f"cmp r0, r1; ite {condition}; mov{condition} r2, #7; mov{inverse} r2, #9"
        assert execute(block, {0: a, 1: b}).r[2] == (7 if holds else 9)


@few
@given(a=single, b=single)
def test_comparisons_of_floats(a: int, b: int) -> None:
    """gt, ge, mi, ls, eq are false for NaN, ne and vs true; zeros of either sign are equal."""
    x, y = (struct.unpack("<f", struct.pack("<I", bits))[0] for bits in (a, b))
    wanted = {"eq": x == y, "ne": x != y, "gt": x > y, "ge": x >= y, "mi": x < y, "ls": x <= y, "vs": x != x or y != y}
    for condition, holds in wanted.items():
        for name, other in (("vcmp", "s1"), ("vcmpe", "s1")):
            text = f"{name}.f32 s0, {other}; vmrs APSR_nzcv, FPSCR; it {condition}; mov{condition} r2, #1"
            assert execute(text, {2: 0}, {0: a, 1: b}).r[2] == holds
    zero = execute("vcmpe.f32 s0, #0.0; vmrs APSR_nzcv, FPSCR", s={0: a}).flags
    assert zero == execute("vcmp.f32 s0, s1; vmrs APSR_nzcv, FPSCR", s={0: a, 1: 0}).flags


# -- memory ----------------------------------------------------------------------------------------------
#: form, what of r1 = base + 8 and r2 = 2 the address is, and what r1 becomes, both from the base
FORMS = [
    ("[r1]", 8, 8), ("[r1, #4]", 12, 8), ("[r1, #-4]", 4, 8), ("[r1, #4]!", 12, 12), ("[r1, #-8]!", 0, 0),
    ("[r1], #4", 8, 12), ("[r1], #-4", 8, 4), ("[r1, r2, lsl #1]", 12, 8), ("[r1, r3]", 12, 8),
]  # fmt: skip


@pytest.mark.parametrize(("form", "address", "after"), FORMS)
@settings(max_examples=10)
@given(memory=st.binary(min_size=24, max_size=24), value=word)
def test_addresses_of_loads_and_stores(form: str, address: int, after: int, memory: bytes, value: int) -> None:
    """Every form of address with every size: value, extension, and what becomes of the base."""
    registers = {1: 0, 2: 2, 3: 4, 4: value}
    for name, layout in LOADS.items():
        state = execute(f"add r1, r12, #8; {name} r0, {form}", registers, memory=memory)
        assert state.r[0] == struct.unpack_from(layout, memory, address)[0] & MASK
        assert state.r[1] - state.r[12] == after
    for name, size in STORES.items():
        state = execute(f"add r1, r12, #8; {name} r4, {form}", registers, memory=memory)
        wanted = memory[:address] + value.to_bytes(4, "little")[:size] + memory[address + size :]
        assert state.core.octets[:24].tobytes() == wanted
        assert state.r[1] - state.r[12] == after


@few
@given(words=st.lists(word, min_size=8, max_size=8))
def test_lists_of_core_registers(words: list[int]) -> None:
    """Rising registers at rising addresses, from the base up or down to it; pairs; the stack."""
    memory = struct.pack("<8I", *words)
    for name in ("ldm", "ldmia"):
        state = execute(f"mov r1, r12; {name} r1!, {{r2, r4-r6}}", memory=memory)
        assert [state.r[n] for n in (2, 4, 5, 6)] == words[:4] and state.r[1] - state.r[12] == 16
    state = execute("add r1, r12, #16; ldmdb r1!, {r2, r3}", memory=memory)
    assert state.r[2:4] == words[2:4] and state.r[1] - state.r[12] == 8
    assert execute("ldrd r5, r2, [r12, #8]", memory=memory).r[5] == words[2]
    assert execute("ldrd r5, r2, [r12, #8]", memory=memory).r[2] == words[3]
    values = dict(zip((2, 4, 5), words, strict=False))
    for name, base, first in (("stm", 0, 0), ("stmia", 0, 0), ("stmdb", 12, 0)):
        state = execute(f"add r1, r12, #{base}; {name} r1, {{r2, r4, r5}}", values, memory=bytes(32))
        assert [int(x) & MASK for x in state.core.words[first : first + 3]] == words[:3]
    state = execute("strd r5, r2, [r12, #4]", values, memory=bytes(32))
    assert [int(x) & MASK for x in state.core.words[1:3]] == [words[2], words[0]]
    state = execute("mov r7, sp; push {r2, r4, r5}; mov r6, sp; pop {r0, r1, r3}", values)
    assert [state.r[n] for n in (0, 1, 3)] == words[:3]
    assert state.r[7] - state.r[6] == 12 and state.r[13] == state.r[7]


@few
@given(words=st.lists(single, min_size=6, max_size=6))
def test_loads_and_stores_of_floats(words: list[int]) -> None:
    """Patterns are moved as they are, signalling NaNs too."""
    memory, values = struct.pack("<6I", *words), {3: words[0], 4: words[1]}
    assert execute("vldr.32 s3, [r12, #8]", memory=memory).s[3] == words[2]
    assert execute("add r1, r12, #8; vldr s3, [r1, #-4]", memory=memory).s[3] == words[1]
    assert execute("vstr.32 s3, [r12, #4]", s=values, memory=memory).core.words[1] == signed(words[0])
    for name in ("vldm", "vldmia.32"):
        state = execute(f"mov r1, r12; {name} r1!, {{s5-s7}}", memory=memory)
        assert state.s[5:8] == words[:3] and state.r[1] - state.r[12] == 12
    state = execute("add r1, r12, #16; vldmdb r1!, {d2}", memory=memory)
    assert state.s[4:6] == words[2:4] and state.r[1] - state.r[12] == 8
    for name, base in (("vstm", 0), ("vstmia", 0), ("vstmdb", 8)):
        state = execute(f"add r1, r12, #{base}; {name} r1!, {{s3, s4}}", s=values, memory=bytes(24))
        assert [int(x) & MASK for x in state.core.words[:2]] == words[:2]
    assert execute("vpush {s3, s4}; vpop {s8, s9}", s=values).s[8:10] == words[:2]


def test_words_beside_the_code() -> None:
    """Literals, as numbers and as floats, for both register files."""
    state = execute("ldr r0, a; vldr.32 s1, b; b over\na: .word 0x12345678, -1\nb: .float -1.5\nover: nop")
    assert (state.r[0], state.s[1]) == (0x12345678, 0xBFC00000)


# -- floating point --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ARITHMETIC)
@given(values=st.tuples(single, single, single) | st.tuples(close, close, close))
def test_arithmetic_of_floats(name: str, values: tuple[int, int, int]) -> None:
    """The exact result rounded once (fused) or after each operation; NaN is 0x7fc00000."""
    d, a, b = values
    assert execute(f"{name}.f32 s0, s1, s2", s={0: d, 1: a, 2: b}).s[0] == ARITHMETIC[name](d, a, b)
    assert execute(f"{name}.f32 s0, s2", s={0: d, 2: b}).s[0] == ARITHMETIC[name](d, d, b)


def test_chained_and_fused_accumulation_differ() -> None:
    """A product whose rounding shows: (1 + 2^-12)^2 - 1 - 2^-11."""
    values = {0: 0xBF801000, 1: 0x3F800800, 2: 0x3F800800}
    assert execute("vfma.f32 s0, s1, s2", s=values).s[0] == 0x33800000
    assert execute("vmla.f32 s0, s1, s2", s=values).s[0] == 0


@few
@given(a=single)
def test_moves_of_floats(a: int) -> None:
    """Signs change, nothing else; between the register files as patterns."""
    for name, function in SIGNS.items():
        assert execute(f"{name}.f32 s1, s0", s={0: a}).s[1] == function(a)
    assert execute("vmov.f32 s1, s0", s={0: a}).s[1] == a
    assert execute("vmov r3, s0", s={0: a}).r[3] == a
    assert execute("vmov s4, r3", {3: a}).s[4] == a


@pytest.mark.parametrize(("text", "bits"), [("1.0", 0x3F800000), ("-31", 0xC1F80000), ("0.125", 0x3E000000)])
def test_constants_of_vmov(text: str, bits: int) -> None:
    """n/16 times a power of two."""
    assert execute(f"vmov.f32 s0, #{text}").s[0] == bits


# -- the flow --------------------------------------------------------------------------------------------
def test_calls_and_jumps() -> None:
    """bl, blx, bx, pop into pc, cbz, cbnz."""
    text = """
    f:  push {r4, lr}
        mov  r0, #0
        bl   up
        mov  r4, lr
        bl   middle
        mov  lr, r4
        cbz  r0, bad
        cbnz r0, good
    bad: mov r0, #99
    good: pop {r4, pc}
    up: add  r0, r0, #1
        bx   lr
    middle:
        push {lr}
        sub  r1, r4, #0
        bl   where
        pop  {pc}
    where:
        mov  r2, lr
        add  r0, r0, #2
        bx   r2
    """
    core = Core(assemble(text))
    core.call("f")
    assert core.r[0] == 3


def test_a_call_by_register() -> None:
    """blx: the address of a row, bit 0 set, and back."""
    program = assemble("f: push {lr}; blx r0; add r1, r1, #1; pop {pc}; g: mov r1, #5; bx lr")
    core = Core(program)
    core.call("f", CODE_BASE + 4 * program.labels["g"] + 1)
    assert core.r[1] == 6


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        ("ldr r0, [r0]", TrapError, r"t\.S:1: ldr: address is not in 0x20000000 to .*r0 = 0x0"),
        ("movw r0, #2; movt r0, #0x2000; ldr r1, [r0]", TrapError, "misaligned"),
        ("movw r0, #2; movt r0, #0x2000; vldr s1, [r0]", TrapError, "misaligned"),
        ("mov r0, #0; vstmia r0!, {s1, s2}", TrapError, "vstmia: address"),
        ("mov r0, #0; ldrd r1, r2, [r0]", TrapError, "ldrd: address"),
        ("mov r0, #0; stm r0, {r1, r2}", TrapError, "stm: address"),
        ("mov r0, #0; bx r0", TrapError, "bx: goes on where no code is"),
        ("nop", TrapError, "<end>: goes on"),
        ("l: b l", CycleLimitError, "not finished after 1,000"),
    ],
)
def test_a_program_that_goes_astray(text: str, error: type[Exception], what: str) -> None:
    """One error that says where."""
    with pytest.raises(error, match=what):
        Core(assemble(f"f: {text}", "t.S")).call("f", limit=1000)


def test_a_label_that_is_not_there() -> None:
    """The entry is checked."""
    with pytest.raises(ProgramError, match=r"no label 'g'; known: f"):
        Core(assemble("f: bx lr")).call("g")


def test_more_than_there_is_room_for() -> None:
    """Arguments and arrays."""
    core = Core(assemble("f: bx lr"), 64)
    with pytest.raises(ProgramError, match="f: 5 arguments: at most 4"):
        core.call("f", 1, 2, 3, 4, 5)
    with pytest.raises(AddressError, match=r"68 B at 0x20000000: the memory ends 4096 B of stack before"):
        core.place(np.zeros(17, np.float32))


def test_memory_starts_at_its_base() -> None:
    """Arrays lie one behind the other at word boundaries."""
    core = Core(assemble("f: bx lr"))
    assert core.place(np.zeros(3, np.uint8)) == MEMORY_BASE
    assert core.place(np.ones(2, np.float32)) == MEMORY_BASE + 4
    assert core.read(MEMORY_BASE + 4, (2,)).tolist() == [1, 1]
