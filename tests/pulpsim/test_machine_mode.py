"""Protects control and status registers, exceptions, fences, and floating point whose exceptions are seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim import Machine, Platform, Program, assemble, isa
from pulpsim.code import address_of
from pulpsim.engine import Kind, Trap
from pulpsim.errors import TrapError
from pulpsim.float32 import DZ, NV, NX, OF, UF, Flags
from pulpsim.memory import L1_BASE
from pulpsim.program import Builder
from tests.pulpsim.conftest import Bench

BenchFactory = Callable[..., Bench]
Engine = Literal["reference", "jit", "traces"]
ENGINES = ("reference", "jit", "traces")


def run(bench: BenchFactory, text: str, **values: int) -> Bench:
    b = bench()
    b.cycles(assemble(text), **values)
    return b


# -- floating point ---------------------------------------------------------------------------------
SPECIAL = [
    0, 0x80000000, 1, 0x80000001, 0x7FFFFF, 0x800000, 0x800001, 0x3F800000, 0xBF800000, 0x3F7FFFFF, 0x3F800001,
    0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFC12345, 0x4F000000, 0xCF000000,
    0x4F800000,
    0x33800000, 0x33800001, 0x00FFFFFF, 0x3F000000, 0x40200000,
]  # fmt: skip
PATTERNS = st.sampled_from(SPECIAL) | st.integers(0, 0xFFFFFFFF)
ROUNDED = [row for row in isa.INSTRUCTIONS if row.raises]
MODES = st.integers(0, len(isa.ROUNDING_MODES) - 1)


@settings(max_examples=150)
@given(a=PATTERNS, b=PATTERNS, c=PATTERNS, mode=MODES, near=st.booleans())
def test_values_and_exceptions_in_every_rounding_mode(
    bench: BenchFactory, a: int, b: int, c: int, mode: int, near: bool
) -> None:
    """The fast engine finds by the host's arithmetic what the reference computes in whole numbers."""
    if near:  # results of few different bits: ties, cancellation, the edge of the subnormal numbers
        b = b & 0xFF80000F
        c = (a ^ 0x80000000) & 0xFFFFFFF0 | c & 15
    builder, expected = Builder(), []
    builder("csrrw", "x0", "frm", "x9")
    for instruction in ROUNDED:
        values = [(a, b, c)[int(operand[-1]) - 1] for operand in instruction.operands[1:] if operand != "rm"]
        flags = Flags()
        assert instruction.semantics is not None
        result = instruction.semantics(*values, *([mode] if instruction.rounds else []), flags)
        registers = [f"x{5 + int(operand[-1])}" for operand in instruction.operands[1:] if operand != "rm"]
        builder("csrrw", "x0", "fflags", "x0")
        builder(instruction.mnemonic, "x5", *registers)
        builder("csrrs", "x10", "fflags", "x0")
        builder("p.sw", "x5", ("x11", 4, "!"))
        builder("p.sw", "x10", ("x11", 4, "!"))
        expected += [result, flags.raised]
    builder.ret()
    machine = bench()
    machine.cycles(builder.build(), x6=a, x7=b, x8=c, x9=mode, x11=L1_BASE)
    found = machine.memory.read(L1_BASE, len(expected), np.uint32).tolist()
    names = [name for row in ROUNDED for name in (row.mnemonic, f"{row.mnemonic} exceptions")]
    assert dict(zip(names, found, strict=True)) == dict(zip(names, expected, strict=True))


@pytest.mark.parametrize(
    ("text", "raised"),
    [
        ("fadd.s x5,x6,x6", 0), ("fdiv.s x5,x6,x7", NX), ("fdiv.s x5,x6,x0", DZ), ("fdiv.s x5,x0,x0", NV),
        ("fmul.s x5,x8,x8", OF | NX), ("fmul.s x5,x9,x9", UF | NX), ("fsqrt.s x5,x12", NV), ("feq.s x5,x13,x6", NV),
        ("feq.s x5,x14,x6", 0), ("flt.s x5,x14,x6", NV), ("fmin.s x5,x13,x6", NV), ("fmax.s x5,x14,x6", 0),
        ("fcvt.w.s x5,x8", NV), ("fcvt.w.s x5,x15", NX), ("fcvt.s.w x5,x16", NX), ("fmadd.s x5,x17,x0,x14", NV),
        ("fsgnj.s x5,x13,x13", 0), ("fclass.s x5,x13", 0), ("fmv.x.w x5,x13", 0),
    ],
)  # fmt: skip
def test_exceptions_of_single_instructions(bench: BenchFactory, text: str, raised: int) -> None:
    values = {
        "x6": 0x3F800000, "x7": 0x40400000, "x8": 0x7F7FFFFF, "x9": 0x00800001, "x12": 0xBF800000, "x13": 0x7F800001,
        "x14": 0x7FC00000, "x15": 0x3FC00000, "x16": 0x01000001, "x17": 0x7F800000,
    }  # fmt: skip
    assert run(bench, f"{text}; frflags x20; ret", **values).register("x20") == raised


def test_exceptions_add_up_and_are_forgotten_at_a_start(bench: BenchFactory) -> None:
    b, program = bench(), assemble("frflags x21; fdiv.s x5,x6,x0; fdiv.s x5,x6,x7; frcsr x20; ret")
    for _ in range(2):
        b.cycles(program, x6=0x3F800000, x7=0x40400000)
        assert (b.register("x20"), b.register("x21")) == (DZ | NX, 0)


def test_a_program_that_looks_at_exceptions_takes_as_long(bench: BenchFactory) -> None:
    body = "fmadd.s x5,x6,x7,x5; fdiv.s x5,x5,x6; fadd.s x8,x5,x5; fcvt.w.s x9,x8,rtz; fmin.s x5,x5,x6; ret"
    for shared in ({}, {"cluster.fpus": 4}):
        cycles = []
        for extra in ("nop", "frflags x20"):
            b = bench(shared)
            cycles.append(b.cycles(assemble(f"{extra}; {body}"), x6=0x3F800000))
        assert cycles[0] == cycles[1]


# -- control and status registers --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("csrrw x5,mscratch,x6; csrrs x7,mscratch,x8; csrrc x9,mscratch,x8; csrr x18,mscratch",
         {5: 0, 7: 12, 9: 14, 18: 12}),
        ("csrrwi x5,mscratch,31; csrrsi x7,mscratch,0; csrrci x9,mscratch,1; csrr x18,mscratch",
         {5: 0, 7: 31, 9: 31, 18: 30}),
        ("li x5,-1; csrw fcsr,x5; frcsr x7; frrm x9; frflags x18", {7: 0xFF, 9: 7, 18: 31}),
        ("fsrmi 3; fsflagsi 5; fscsr x5,x0; frcsr x7", {5: 3 << 5 | 5, 7: 0}),
        ("csrr x5,0xf14; csrr x7,misa; csrr x9,mvendorid", {5: 0, 7: 0x40801120, 9: 0}),
        ("csrw 0x340,x6; csrr x5,mscratch", {5: 12}),
    ],
)  # fmt: skip
def test_registers_are_read_and_written(bench: BenchFactory, text: str, values: dict[int, int]) -> None:
    b = run(bench, text + "; ret", x6=12, x8=2)
    assert {number: b.register(f"x{number}") for number in values} == values


def test_counters(bench: BenchFactory) -> None:
    text = """
        rdinstret x5 ; mul x6,x6,x6 ; nop ; rdinstret x7 ; rdcycle x8 ; nop ; rdcycle x9
        li x18,100 ; csrw mcycle,x18 ; csrr x19,mcycle ; li x20,7 ; csrw mcycleh,x20 ; csrr x21,mcycleh ; rdcycleh x22
        csrw minstret,x18 ; nop ; csrr x23,minstret ; csrr x24,minstreth ; ret
    """
    b = run(bench, text)
    names = ("x5", "x7", "x8", "x9", "x19", "x21", "x22", "x23", "x24")
    assert [b.register(name) for name in names] == [0, 3, 5, 7, 101, 7, 7, 102, 0]


# -- exceptions ---------------------------------------------------------------------------------------
STOPS = [
    ("ecall", Trap.ECALL, "ecall"), ("ebreak", Trap.EBREAK, "ebreak"), (".word 0", Trap.ILLEGAL, "illegal"),
    ("unimp", Trap.ILLEGAL, "illegal"), ("csrr x5,time", Trap.ILLEGAL, "illegal"),
    ("csrw mhartid,x0", Trap.ILLEGAL, "illegal"), ("fsrmi 5; fadd.s x5,x5,x5", Trap.ILLEGAL, "illegal"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "trap", "cause"), STOPS)
def test_without_a_handler_they_stop_the_run(bench: BenchFactory, text: str, trap: Trap, cause: str) -> None:
    program = assemble(f"nop; {text}; ret")
    b = bench()
    b.start(program)
    (report,) = b.run()
    at = len(program) - 2
    assert report.kind is Kind.TRAP and report.value >> 32 == trap
    assert report.value & 0xFFFFFFFF == address_of(b.code.load(program) + at) == address_of(b.engine.row(0))
    for engine in ENGINES:
        with pytest.raises(TrapError) as caught:
            Machine(engine=engine).run(program, cores=2, registers=lambda core: {"a0": 7 + core})
        error = caught.value
        assert (error.cause, error.core, error.pc) == (cause, 1, address_of(4 + at))  # which comes before core 0
        assert error.registers[10] == 8 and len(error.registers) == isa.REGISTERS
        assert ("a0 0x8, a1 0x0, a7 0x0, gp 0x0" in str(error)) == (cause in ("ecall", "ebreak"))


HANDLER = """
    la t0,handler ; csrw mtvec,t0 ; li x20,0
    {0}
    csrw mtvec,x0 ; ret
handler:
    csrr x18,mcause ; csrr x19,mepc ; csrr x21,mtval ; addi x20,x20,1
    addi x22,x19,4 ; csrw mepc,x22 ; mret
"""


@pytest.mark.parametrize(("text", "cause"), [("ecall", 11), ("ebreak", 3), (".word 0", 2), ("csrr x5,0x7ff", 2)])
def test_a_handler_returns_behind_them(bench: BenchFactory, text: str, cause: int) -> None:
    b, program = bench(), assemble(HANDLER.format(f"here: {text}"))
    cycles = b.cycles(program)
    assert (b.register("x18"), b.register("x20"), b.register("x21")) == (cause, 1, 0)
    assert b.register("x19") == b.code.address(program, "here")
    b2 = bench()
    assert cycles == b2.cycles(assemble(HANDLER.format("nop"))) + 1 + 6 + 2  # jump there, six, jump back


def test_an_exception_at_the_end_of_a_hardware_loop_leaves_it_alone(bench: BenchFactory) -> None:
    """It is a jump; mret goes behind the loop's last instruction, which is not looked at again."""
    b = run(bench, HANDLER.format("lp.setupi x0,3,1f; addi x23,x23,1; 1: ecall"))
    assert (b.register("x20"), b.register("x23")) == (1, 1)


def test_a_handler_outside_the_code_is_a_trap(bench: BenchFactory) -> None:
    b = bench()
    b.start(assemble("li t0,0x1000; csrw mtvec,t0; ecall; ret"))
    (report,) = b.run()
    assert report.value == int(Trap.TARGET) << 32 | 0x1000
    b = bench()
    b.start(assemble("csrwi mepc,9; mret; ret"))
    (report,) = b.run()
    assert report.value == int(Trap.TARGET) << 32 | 8


# -- fences --------------------------------------------------------------------------------------------
def test_fences_take_a_cycle_and_do_nothing(bench: BenchFactory) -> None:
    assert bench().cycles(assemble("fence; fence rw,w; fence.i; wfi; ret")) == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_stores_into_code_count_after_a_fence(engine: Engine) -> None:
    program = assemble("""
        la x6,patched ; lw x7,new ; sw x7,0(x6)
        la x9,done ; j patched
    again:
        fence.i
        la x9,end
    patched: addi x5,x5,1
        jr x9
    done: j again
    new: addi x5,x5,100
    end: sw x5,result,x28 ; ret
        .data
    result: .word 0
    """)
    machine = Machine(engine=engine)
    machine.run(program, cores=1)
    assert machine.memory.read(machine.address(program, "result"), 1, np.int32).tolist() == [101]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_word_that_is_no_instruction_any_more_traps(engine: Engine) -> None:
    program = assemble("la x6,here; sw x0,0(x6); fence.i; here: nop; ret")
    with pytest.raises(TrapError, match=r"here\): \.word 0x0: illegal instruction") as caught:
        Machine(engine=engine).run(program, cores=1)
    assert caught.value.cause == "illegal"


def test_a_fence_in_memories_that_were_not_empty() -> None:
    """What lies between and behind a program's sections is no code of its."""
    program = assemble("fence.i; sb x0,x,t0; fence.i; lb a0,x; ret; .data; x: .byte 5; .section .rodata; .byte 6")
    for engine in ENGINES:
        machine = Machine(engine=engine)  # type: ignore[arg-type]
        machine.memory.l2[:] = 0xAB
        assert machine.run(program, cores=1).instructions > 0
        assert machine.engine.registers(0)[10] == 0


def test_separate_registers_stay_separate_when_code_is_looked_at_again() -> None:
    text = "la x6,here; lw x7,new; sw x7,0(x6); fence.i; here: nop; fsw f5,x,t0; ret; new: fadd.s f5,f6,f6"
    text += "; .data; x: .word 0"
    program = assemble(text)
    results = []
    for engine in ENGINES:
        machine = Machine(Platform.preset("pulp-2022", {"cluster.fp_registers": "separate"}), engine)  # type: ignore[arg-type]
        machine.run(program, cores=1, registers={"f6": 0x3F800000})
        results.append(machine.memory.read(machine.address(program, "x"), 1, np.float32).tolist())
    assert results == [[2.0]] * len(ENGINES)


def test_programs_with_and_without_exceptions_on_one_machine() -> None:
    """The fast engine changes over when the first program needs all of it, and keeps its state."""
    plain, exact = (
        assemble("fdiv.s x5,x6,x7; ret"),
        assemble("fdiv.s x5,x6,x7; frflags x8; sw x8,x,t0; ret; .data; x: .word 9"),
    )
    values = {"x6": 0x3F800000, "x7": 0x40400000}

    def cycles(engine: Engine, programs: list[Program]) -> list[int]:
        machine = Machine(engine=engine)
        out = [machine.run(program, cores=2, registers=values).cycles for program in programs]
        assert machine.memory.read(machine.address(exact, "x"), 1, np.int32).tolist() == [NX]
        return out

    found = [cycles(engine, [plain, exact, plain]) for engine in ENGINES]  # type: ignore[arg-type]
    assert found == [found[0]] * len(ENGINES)
