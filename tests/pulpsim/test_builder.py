"""Protects what a Builder chooses by itself: the set-up of hardware loops, and branches that reach far."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim.errors import ProgramError
from pulpsim.program import Builder, Program
from tests.pulpsim.conftest import Bench

BenchFactory = Callable[..., Bench]


def set_up(program: Program) -> list[str]:
    """The instructions before the first of a loop's body, which all begin with `add x6`."""
    texts = [program.text(row) for row in range(len(program))]
    return texts[: next(i for i, text in enumerate(texts) if text.startswith("addi x6,"))]


def counting(body: int, count: int, registers: int = 0, level: int = 0) -> Program:
    """A loop whose body adds 1 to x6 `body` times; `registers` are taken before."""
    b = Builder("k")
    b.register("total", at="x6")
    b.registers("other", registers)
    with b.loop(level, count):
        for _ in range(body):
            b("addi", "x6", "x6", 1)
    b.ret()
    return b.build()


ALL = len(Builder.FREE) - 1


@pytest.mark.parametrize(
    ("body", "count", "registers", "expected"),
    [
        (2, 4095, 0, ["lp.setupi x0,4095,.+8"]),
        (15, 7, ALL, ["lp.setupi x0,7,.+60"]),
        (16, 7, 0, ["addi x5,x0,7", "lp.setup x0,x5,.+64"]),
        (2, 4096, 0, ["lui x5,1", "lp.setup x0,x5,.+8"]),
        (16, 7, ALL, ["lp.counti x0,7", "lp.endi x0,.+68", "lp.starti x0,.+4"]),
    ],
)
def test_the_set_up_of_a_loop(body: int, count: int, registers: int, expected: list[str]) -> None:
    assert set_up(counting(body, count, registers)) == expected


def test_a_loop_that_cannot_be_set_up_says_what_is_in_the_way() -> None:
    with pytest.raises(ProgramError, match=r"k: no register left for a count of 5,000; in use: .*x6=total"):
        counting(16, 5000, ALL)
    with pytest.raises(ProgramError, match=r"k: instruction 1, lp\.setup x0,x5,.*8,192 bytes away: 0 to 8,188"):
        counting(2048, 3)
    with pytest.raises(ProgramError, match=r"k: loop level 2: 0 or 1"), Builder("k").loop(2, 3):
        pass


@settings(max_examples=40)
@given(data=st.data())
def test_loops_run_as_often_as_they_say(bench: BenchFactory, data: st.DataObject) -> None:
    """Nested, of any length, with entries and branches around and between them."""
    draw = data.draw
    outer, inner = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    before, within, after = (draw(st.sampled_from([0, 1, 3, 14, 15, 16, 20])) for _ in range(3))
    b = Builder("k")
    b.register("total", at="x6")
    b.registers("other", draw(st.sampled_from([0, ALL - 1, ALL])))
    skip, out = b.label("skip"), b.label("out")
    b.entry("start")
    b("beq", "x7", "x0", skip)
    b("jal", "x0", out)
    b.place(skip)
    with b.loop(1, outer):
        for _ in range(before):
            b("addi", "x6", "x6", 1)
        with b.loop(0, inner):
            for _ in range(within + 1):
                b("addi", "x6", "x6", 256)
        for _ in range(after):
            b("addi", "x6", "x6", 1)
    b.place(out)
    b.entry("end")
    b("addi", "x6", "x6", 0)
    b.ret()
    program = b.build()
    assert program.labels["end"] == len(program) - 2
    turns = max(outer, 1)
    runner = bench()
    runner.cycles(program, entry="start")
    assert runner.register("x6") == turns * (before + after + 256 * (within + 1) * max(inner, 1))


def test_a_body_of_one_instruction_or_with_a_branch_at_its_end_gets_a_nop() -> None:
    b = Builder()
    out = b.label()
    with b.loop(0, 3):
        b("addi", "x6", "x6", 1)
    with b.loop(0, "x9"):
        b("addi", "x6", "x6", 1)
        b("beq", "x6", "x7", out)
    b.place(out)
    b.ret()
    program = b.build()
    assert [program.text(row) for row in (0, 2, 3, 6)] == [
        "lp.setupi x0,3,.+8", "addi x0,x0,0", "lp.setup x0,x9,.+12", "addi x0,x0,0",
    ]  # fmt: skip


BRANCHES = ["beq", "bne", "blt", "bge", "bltu", "bgeu"]


@settings(max_examples=12)
@given(mnemonic=st.sampled_from(BRANCHES), a=st.integers(-1, 1), b=st.integers(-1, 1), backwards=st.booleans())
def test_far_branches_reach(bench: BenchFactory, mnemonic: str, a: int, b: int, backwards: bool) -> None:
    """A target 6 kB away costs what a near one costs, taken; it goes there, and on if not."""
    out: dict[bool, tuple[int, int]] = {}
    for far in (False, True):
        builder = Builder()
        there, on, end = builder.label(), builder.label(), builder.label()
        if backwards:
            builder("jal", "x0", on)
            builder.place(there)
            builder("addi", "x6", "x0", 1)
            builder("jal", "x0", end)
            for _ in range(1500 if far else 0):
                builder("addi", "x0", "x0", 0)
            builder.place(on)
        builder(mnemonic, "x7", "x8", there)
        builder("addi", "x6", "x0", 2)
        builder("jal", "x0", end)
        if not backwards:
            for _ in range(1500 if far else 0):
                builder("addi", "x0", "x0", 0)
            builder.place(there)
            builder("addi", "x6", "x0", 1)
        builder.place(end)
        builder.ret()
        runner = bench()
        cycles = runner.cycles(builder.build(), x7=a & 0xFFFFFFFF, x8=b & 0xFFFFFFFF)
        out[far] = cycles, runner.register("x6")
    assert out[False][1] == out[True][1]
    taken = out[True][1] == 1
    assert out[True][0] == out[False][0] + (0 if taken else 2)


def test_a_jump_out_of_reach_is_refused() -> None:
    builder = Builder("k")
    there = builder.label("there")
    builder("jal", "x0", there)
    for _ in range(1 << 18):
        builder("addi", "x0", "x0", 0)
    builder.place(there)
    builder.ret()
    with pytest.raises(ProgramError, match=r"k: instruction 0, jal x0,.*1,048,580 bytes away: -1,048,576 to 1,048,572"):
        builder.build()


def test_pseudo_instructions_of_one_instruction() -> None:
    builder = Builder()
    builder("csrr", "x5", "mhartid")
    builder("csrw", "fcsr", "x5")
    builder("nop")
    builder("fneg.s", "x5", "x6")
    program = builder.build()
    assert [program.text(row) for row in range(4)] == [
        "csrrs x5,mhartid,x0", "csrrw x0,fcsr,x5", "addi x0,x0,0", "fsgnjn.s x5,x6,x6",
    ]  # fmt: skip
