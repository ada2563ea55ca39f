"""Protects the Cortex-M4F model's cycles: small programs against counts by hand from the manual's tables."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cortex_m4.assembler import assemble
from benchmarks.cortex_m4.core import Core
from benchmarks.cortex_m4.costs import COSTS, REFILL, Cycles
from benchmarks.cortex_m4.instructions import INSTRUCTIONS

RETURN = np.array([2, 3, 4])  # bx lr: 1, and the refill


def cycles(body: str) -> Cycles:
    """Of a body, without the return; r0 and r1 point to zeros, r2 is 1."""
    core = Core(assemble(f"f: {body}\n bx lr\nzero: .word 0"))
    address = core.place(np.zeros(64, np.uint32))
    low, middle, high = (int(x) for x in np.array(core.call("f", address, address, 1).cycles) - RETURN)
    return low, middle, high


def test_every_class_of_cost_has_a_row_and_is_used() -> None:
    """A row that no instruction has would be a row that nobody checks."""
    used = {instruction.cost for instruction in INSTRUCTIONS} | {
        "literal",
        "vliteral",
        "store indexed",
        "it",
        "vtransfer",
    }
    assert used == set(COSTS)
    for name, cost in COSTS.items():
        assert cost.cycles == tuple(sorted(cost.cycles)) and "TRM" in cost.source, name
    assert REFILL.cycles == (1, 2, 3)


@pytest.mark.parametrize(
    ("body", "low", "middle", "high"),
    [
        ("add r3, r3, #1", 1, 1, 1),
        ("mul r3, r2, r2; mla r3, r2, r2, r2", 2, 2, 2),
        ("udiv r3, r2, r2", 2, 7, 12),
        ("ldr r3, [r0]", 2, 2, 2),
        ("str r3, [r0]", 1, 2, 2),
        ("str r3, [r0, r2, lsl #2]", 2, 2, 2),
        ("ldr r3, zero", 2, 2, 3),
        ("vldr.32 s0, zero", 2, 2, 3),
        ("ldrd r3, r2, [r0]", 3, 3, 3),
        ("ldm r0, {r2, r3, r12}", 4, 4, 4),
        ("push {r2, r3}; pop {r2, r3}", 6, 6, 6),
        ("vldr.32 s0, [r0]", 2, 2, 2),
        ("vstr.32 s0, [r0]", 2, 2, 2),
        ("vldmia r0!, {s0-s3}", 5, 5, 5),
        ("vpush.64 {d8, d9}; vpop.64 {d8, d9}", 10, 10, 10),
        ("vadd.f32 s0, s1, s2", 1, 1, 1),
        ("vfma.f32 s0, s1, s2", 3, 3, 3),
        ("vmls.f32 s0, s1, s2", 3, 3, 3),
        ("vdiv.f32 s0, s1, s2", 14, 14, 14),
        ("vcmp.f32 s0, #0; vmrs APSR_nzcv, FPSCR", 2, 2, 2),
        ("vmov s0, r2; vmov.f32 s1, #1.0; vabs.f32 s2, s1; vneg.f32 s2, s3", 5, 5, 5),
        ("b l; l: nop", 3, 4, 5),
        ("cmp r2, r2; bne l; l: nop", 3, 3, 3),
        ("cmp r2, r2; beq l; l: nop", 4, 5, 6),
        ("cbz r2, l; l: nop", 2, 2, 2),
        ("cbnz r2, l; l: nop", 3, 4, 5),
        ("cmp r2, r2; it eq; moveq r3, #1", 2, 3, 3),
        ("cmp r2, r2; it ne; vdivne.f32 s0, s1, s2", 2, 3, 3),
    ],
)
def test_what_an_instruction_takes(body: str, low: int, middle: int, high: int) -> None:
    """One row of the tables each; a branch that is not taken, and an instruction left out, one cycle."""
    assert cycles(body) == (low, middle, high)


@pytest.mark.parametrize(
    ("body", "low", "middle", "high"),
    [
        ("ldr r3, [r0]; ldr r2, [r1]", 3, 4, 4),
        ("ldr r3, [r0]; str r3, [r1]", 2, 4, 4),
        ("vldr.32 s0, [r0]; vldr.32 s1, [r1]; vldr.32 s2, [r0]", 4, 6, 6),
        ("vldmia r0!, {s0}; vldmia r1!, {s1}", 3, 4, 4),
        ("vldmia r0!, {s0, s1}; vldmia r1!, {s2}", 5, 5, 5),
        ("str r3, [r0]; ldr r2, [r1]", 3, 4, 4),
        ("ldr r3, [r0]; nop; ldr r2, [r1]", 5, 5, 5),
        ("mov r3, r0; ldr r2, [r3]", 3, 4, 4),
        ("mov r3, r0; nop; ldr r2, [r3]", 4, 4, 4),
        ("mov r3, #0; ldr r2, [r0, r3]", 3, 4, 4),
        ("vadd.f32 s0, s1, s2; vmul.f32 s3, s0, s0", 2, 3, 3),
        ("vadd.f32 s0, s1, s2; vstr.32 s0, [r0]", 3, 4, 4),
        ("vmul.f32 s0, s1, s2; vfma.f32 s0, s3, s4", 4, 4, 4),
        ("vmul.f32 s0, s1, s2; vfma.f32 s5, s0, s4", 4, 5, 5),
        ("vfma.f32 s0, s1, s2; vfma.f32 s0, s3, s4", 6, 6, 6),
        ("vfma.f32 s0, s1, s2; vmov r3, s0", 5, 6, 6),
        ("mov r3, r0; b l; l: ldr r2, [r3]", 5, 6, 7),
    ],
)
def test_what_neighbours_change(body: str, low: int, middle: int, high: int) -> None:
    """Loads that pipeline, addresses and results that come early; nothing across a taken branch."""
    assert cycles(body) == (low, middle, high)


def test_a_load_whose_address_was_just_loaded_does_not_pipeline() -> None:
    """The exception of the manual's rule."""
    core = Core(assemble("f: ldr r3, [r0]; ldr r2, [r3]; bx lr"))
    inner = core.place(np.zeros(1, np.uint32))
    run = core.call("f", core.place(np.array([inner], np.uint32)))
    assert tuple(np.array(run.cycles) - RETURN) == (4, 4, 4)


def test_a_place_that_is_reached_both_ways() -> None:
    """The rule for neighbours holds when the row before was executed before, and only then."""
    body = "mov r3, r0; l: ldr r12, [r3]; subs r2, r2, #1; beq l"
    # first round: mov, early address, ldr, subs, beq taken; second: ldr, subs, beq not taken
    assert cycles(body) == (1 + 2 + 1 + 2 + 2 + 1 + 1, 1 + 3 + 1 + 3 + 2 + 1 + 1, 1 + 3 + 1 + 4 + 2 + 1 + 1)


@pytest.mark.parametrize("rounds", [1, 2, 17])
def test_a_loop(rounds: int) -> None:
    """A sum of products: rounds times its iteration, less the last branch, and what surrounds it."""
    text = "f: l: vldmia r0!, {s1}; vldmia r1!, {s2}; subs r2, r2, #1; vfma.f32 s0, s1, s2; bne l; bx lr"
    program = assemble(text)
    core = Core(program)
    a, b = (core.place(np.ones(rounds, np.float32)) for _ in range(2))
    run = core.call("f", a, b, rounds)
    assert program.iteration("l") == (9, 11, 12)
    assert program.mix("l") == {"vldmia": 2, "sub": 1, "vfma": 1, "b<cond>": 1}
    assert tuple(run.cycles) == tuple(rounds * np.array((9, 11, 12)) - (1, 2, 3) + RETURN)
    assert run.instructions == 5 * rounds + 1 == run.mix().total()
    assert core.s[:1].view(np.float32) == rounds


def test_the_columns_do_not_change_what_is_computed() -> None:
    """Cycles of all columns come from one execution: the same program twice gives the same."""
    body = "mov r3, r0; ldr r2, [r3]; vldr.32 s0, [r0]; vadd.f32 s1, s0, s0; vstr.32 s1, [r0]"
    assert cycles(body) == cycles(body)
    low, middle, high = cycles(body)
    assert low <= middle <= high
