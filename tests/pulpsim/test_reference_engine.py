"""Protects the timing model: every rule of `pulpsim.engine`, by hand-computed cycles on tiny programs.

All tests use only the Engine contract and run on every engine listed in conftest. The number in a
test's name is the rule's. Times are counted from the start at 0; a `ret` takes 2 cycles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim import isa
from pulpsim.code import address_of
from pulpsim.counters import CAUSES, Cause
from pulpsim.engine import EVERY, FOREVER, NONE, Kind, Report, Status, Trap
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE, EVENT_UNIT_BYTES, L1_BASE, L2_BASE
from pulpsim.program import TARGET, Builder, Program

BenchFactory = Callable[..., Any]
Line = tuple[Any, ...]

NOP: Line = ("addi", "x0", "x0", 0)
COUNT_UP: Line = ("addi", "x5", "x5", 1)
BARRIER: Line = ("p.elw", "x31", ("a2", BARRIER_OFFSET))
RETURN: Line = ("jalr", "x0", "ra", 0)
SHARED = {"cluster.fpus": 4}
BUSY = {"cluster.fpus": 2, "l1.banks": 4}
ROUND_ROBIN = {"l1.arbitration": "round-robin"}


def code(*lines: Line) -> Program:
    """These instructions and a return."""
    b = Builder("test")
    for line in (*lines, RETURN):
        b(*line)
    return b.build()


def load(register: str, offset: int = 0, base: str = "a0") -> Line:
    return ("lw", register, (base, offset))


def returned(reports: list[Report]) -> dict[int, int]:
    """Core -> time of its return."""
    return {r.subject: r.time for r in reports if r.kind == Kind.RETURNED}


def transfers(reports: list[Report]) -> list[tuple[int, int]]:
    """(id, time) of the ends of transfers."""
    return [(r.subject, r.time) for r in reports if r.kind == Kind.TRANSFER]


def trap(kind: Trap, address: int) -> int:
    return int(kind) << 32 | address


# -- rules 1 and 2 ---------------------------------------------------------------------------------


def test_rule_1_return_takes_no_cycle(bench: BenchFactory) -> None:
    b = bench()
    b.start(code(), time=7)
    assert b.run() == [Report(Kind.RETURNED, 9, 0)]
    assert b.engine.status(0) == Status.OFF
    assert b.count(Cause.ISSUE) == 1 and b.count(Cause.BRANCH) == 1


def test_rule_1_running_off_the_end_is_a_trap(bench: BenchFactory) -> None:
    b = bench()
    builder = Builder()
    builder(*NOP)
    program = builder.build()
    b.start(program)
    guard = b.code.load(program) + 1
    assert b.run() == [Report(Kind.TRAP, 1, 0, trap(Trap.END, address_of(guard)))]
    assert b.engine.row(0) == guard and b.count(Cause.ISSUE) == 1


@pytest.mark.parametrize("length", [1, 2, 17])
def test_rule_2_one_cycle_an_instruction(bench: BenchFactory, length: int) -> None:
    b = bench()
    assert b.cycles(code(*[("addi", "x5", "x5", 1)] * length)) == length
    assert b.count(Cause.ISSUE) == length + 1 and b.register("x5") == length


# -- rule 3: use of a result that is late ----------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "cycles", "stall"),
    [
        ([load("x5"), ("add", "x6", "x5", "x0")], 3, 1),
        ([load("x5"), ("add", "x6", "x0", "x5")], 3, 1),
        ([load("x5"), ("p.mac", "x5", "x6", "x7")], 3, 1),  # the accumulator is read
        ([load("x5"), ("sw", "x5", ("a0", 4))], 3, 1),  # stored data
        ([load("x5"), ("p.sw", "x6", ("a0", "x5"))], 3, 1),  # a store's register offset
        ([load("x5"), ("beq", "x5", "x6", "next")], 5, 1),  # and taken: 0 == 0
        ([load("x5"), ("fmadd.s", "x6", "x7", "x8", "x5")], 3, 1),
        ([load("x5"), ("add", "x5", "x6", "x6")], 2, 0),  # written, not read
        ([load("x5"), ("add", "x6", "x7", "x7")], 2, 0),
        ([load("x5"), NOP, ("add", "x6", "x5", "x5")], 3, 0),  # not the next instruction
        ([load("x0"), ("add", "x6", "x0", "x0")], 2, 0),  # x0 is never late
        ([("p.lw", "x5", ("a0", 4, "!")), ("add", "x6", "a0", "a0")], 2, 0),  # the base is in time
        ([("sw", "x5", ("a0", 0)), ("add", "x6", "x5", "x5")], 2, 0),
        ([load("x5", 0, "a1"), ("add", "x6", "x5", "x5")], 17, 1),  # after L2's wait as well
        ([load("x5", 0, "a2"), ("add", "x6", "x5", "x5")], 3, 1),  # and the event unit's
    ],
)
def test_rule_3_load_use(bench: BenchFactory, lines: list[Line], cycles: int, stall: int) -> None:
    b = bench()
    builder = Builder()
    after = builder.label()
    for line in lines:
        builder(line[0], *[after if operand == "next" else operand for operand in line[1:]])
    builder.place(after)
    builder.ret()
    assert b.cycles(builder.build()) == cycles
    assert b.count(Cause.LOAD_USE) == stall


@pytest.mark.parametrize(
    ("mnemonic", "use", "cycles"),
    [("mul", True, 4), ("mul", False, 3), ("mulh", True, 7), ("mulhu", True, 7), ("mulhsu", False, 6)],
)
def test_rule_3_use_of_a_product(bench: BenchFactory, mnemonic: str, use: bool, cycles: int) -> None:
    b = bench()
    source = "x5" if use else "x6"
    assert b.cycles(code((mnemonic, "x5", "x6", "x7"), ("add", "x8", source, "x7"))) == cycles
    assert b.count(Cause.MULDIV) == cycles - 2 and b.count(Cause.LOAD_USE) == 0


def test_rule_3_quotients_and_sums_are_in_time(bench: BenchFactory) -> None:
    for mnemonic in ("divu", "fadd.s", "p.mac", "fdiv.s"):
        alone = bench().cycles(code((mnemonic, "x5", "x6", "x7")))
        assert bench().cycles(code((mnemonic, "x5", "x6", "x7"), ("add", "x8", "x5", "x5"))) == alone + 1


def test_rule_3_costs_come_from_the_platform(bench: BenchFactory) -> None:
    b = bench({"core.load_use_cycles": 4, "core.mul_use_cycles": 0})
    assert b.cycles(code(load("x5"), ("mul", "x6", "x5", "x5"), ("add", "x7", "x6", "x6"))) == 1 + 6 + 1


def test_rule_3_a_stall_moves_only_the_next_event(bench: BenchFactory) -> None:
    """The stalled store takes its bank at 1, not at 2; waiting for the bank adds up with the stall."""
    program = code(load("x5"), ("sw", "x5", ("a0", 4)))
    other = code(load("x5", 4))
    b = bench()
    b.start(program)
    b.start(other, core=1, time=2)
    assert returned(b.run()) == {0: 3 + 2, 1: 3 + 2}
    b = bench()
    b.start(program)
    b.start(other, core=1, time=1)  # before core 0 in this cycle: the store waits
    assert returned(b.run()) == {0: 1 + 3 + 2, 1: 2 + 2}
    assert b.count(Cause.BANK_CONFLICT) == 1 and b.count(Cause.LOAD_USE) == 1


# -- rule 4: memory --------------------------------------------------------------------------------


def test_rule_4_one_bank_serves_one_core_a_cycle(bench: BenchFactory) -> None:
    b = bench()
    for core in (0, 1, 2):
        b.start(code(load("x5", 0), load("x6", 64), load("x7", 128)), core=core)
    assert returned(b.run()) == {2: 7 + 2, 1: 8 + 2, 0: 9 + 2}
    assert [b.count(Cause.BANK_CONFLICT, core) for core in (2, 1, 0)] == [4, 5, 6]


@pytest.mark.parametrize("started", [(3, 0, 7), (0, 3, 7), (7, 3, 0)])
def test_rule_4_the_highest_number_goes_first_whoever_was_started_first(
    bench: BenchFactory, started: tuple[int, ...]
) -> None:
    b = bench()
    for core in started:
        b.start(code(load("x5")), core=core)
    assert returned(b.run()) == {7: 3, 3: 4, 0: 5}


@pytest.mark.parametrize("stalling", [0, 1])
def test_rule_4_stalls_do_not_change_the_order(bench: BenchFactory, stalling: int) -> None:
    """At 5 both want a bank, one of them back from five cycles of mulh."""
    b = bench()
    b.start(code(("mulh", "x5", "x6", "x7"), load("x5")), core=stalling)
    b.start(code(*[NOP] * 5, load("x5")), core=1 - stalling)
    assert returned(b.run()) == {1: 6 + 2, 0: 7 + 2}


def test_rule_4_other_banks_do_not_wait(bench: BenchFactory) -> None:
    b = bench()
    for core in range(8):
        b.start(code(load("x5", 4 * core), ("sw", "x5", ("a0", 32 + 4 * core))), core=core)
    assert set(returned(b.run()).values()) == {1 + 2 + 2}


@pytest.mark.parametrize(("banks", "offset", "wait"), [(16, 64, 1), (32, 64, 0), (1, 4, 1), (16, 60, 0)])
def test_rule_4_banks_are_interleaved_by_words(
    bench: BenchFactory, banks: int, offset: int, wait: int
) -> None:
    b = bench({"l1.banks": banks})
    b.start(code(load("x5")), core=1)
    b.start(code(("lbu", "x5", ("a0", offset + 3))), core=0)
    b.run()
    assert b.count(Cause.BANK_CONFLICT, 0) == wait


@pytest.mark.parametrize(
    ("mnemonic", "offset", "cycles"),
    [("lw", 1, 2), ("lw", 2, 2), ("lw", 3, 2), ("lw", 0, 1), ("lh", 3, 2), ("lh", 1, 1), ("lb", 3, 1)]
    + [("sw", 3, 2), ("sh", 2, 1), ("sh", 3, 2)],
)
def test_rule_4_misaligned(bench: BenchFactory, mnemonic: str, offset: int, cycles: int) -> None:
    b = bench()
    assert b.cycles(code((mnemonic, "x5", ("a0", offset)))) == cycles
    assert b.count(Cause.MISALIGNED) == cycles - 1 and b.count(Cause.BANK_CONFLICT) == 0
    b = bench({"core.misaligned_cycles": 5})
    assert b.cycles(code((mnemonic, "x5", ("a0", offset)))) == (5 if cycles == 2 else 1)


@pytest.mark.parametrize(
    ("offset", "time", "wait"), [(0, 0, 1), (0, 1, 0), (4, 0, 2), (4, 1, 1), (4, 2, 0), (8, 0, 0)]
)
def test_rule_4_a_misaligned_access_takes_two_banks_in_turn(
    bench: BenchFactory, offset: int, time: int, wait: int
) -> None:
    b = bench()
    b.start(code(load("x5", 1)), core=1)
    b.start(code(load("x5", offset)), core=0, time=time)
    b.run()
    assert b.count(Cause.BANK_CONFLICT, 0) == wait and b.count(Cause.BANK_CONFLICT, 1) == 0


@pytest.mark.parametrize(
    ("others", "wait"),
    [([], 0), ([0], 1), ([4], 0), ([4, 4], 1), ([0, 4], 1), ([0, 4, 4, 4], 2), ([0, 0], 2)],
)
def test_rule_4_a_misaligned_access_waits_for_both_banks(
    bench: BenchFactory, others: list[int], wait: int
) -> None:
    b = bench()
    for core, offset in enumerate(others, 1):
        b.start(code(load("x5", offset)), core=core)
    b.start(code(load("x5", 2)))
    assert returned(b.run())[0] == 2 + wait + 2
    assert b.count(Cause.BANK_CONFLICT) == wait and b.count(Cause.MISALIGNED) == 1


def test_rule_4_the_last_bank_is_followed_by_the_first(bench: BenchFactory) -> None:
    for banks, offset in ((16, 62), (1, 2)):
        b = bench({"l1.banks": banks})
        b.start(code(load("x5", offset)), core=1)
        b.start(code(load("x5", 0)), core=0)
        b.run()
        assert b.count(Cause.BANK_CONFLICT, 1) == 0 and b.count(Cause.BANK_CONFLICT, 0) == 2


@pytest.mark.parametrize("arbitration", ["fifo", "round-robin"])
def test_rule_4_without_conflicts_nobody_waits(bench: BenchFactory, arbitration: str) -> None:
    b = bench({"l1.conflicts": False, "l1.arbitration": arbitration})
    for core in range(8):
        b.start(code(load("x5"), load("x5", 2)), core=core)
    b.transfer(64, line=4, l1_stride=64)
    assert set(returned(b.run()).values()) == {1 + 2 + 2}


def test_rule_4_l2_costs_its_cycles_and_no_bank(bench: BenchFactory) -> None:
    for offset in (0, 1, 3):  # however it is aligned
        b = bench()
        b.start(code(load("x5", offset, "a1"), ("sh", "x6", ("a1", offset))), core=0)
        b.start(code(load("x5", offset, "a1")), core=1)
        assert returned(b.run()) == {0: 30 + 2, 1: 15 + 2}
        assert b.count(Cause.L2) == 28 and b.count(Cause.MISALIGNED) == 0
    assert bench({"l2.access_cycles": 1}).cycles(code(load("x5", 0, "a1"))) == 1


def test_rule_4_the_event_unit_reads_as_zero_and_ignores_stores(bench: BenchFactory) -> None:
    b = bench()
    program = code(("sw", "x6", ("a2", 8)), load("x5", 8, "a2"), ("sw", "x6", ("a2", EVENT_UNIT_BYTES - 4)))
    assert b.cycles(program, x5=99, x6=77) == 3
    assert b.register("x5") == 0


# -- rule 5: floating point ------------------------------------------------------------------------

FADD: Line = ("fadd.s", "x5", "x6", "x7")
FDIV: Line = ("fdiv.s", "x5", "x6", "x7")
FSQRT: Line = ("fsqrt.s", "x5", "x6")


@pytest.mark.parametrize(("fpus", "waits"), [(8, [0, 0]), (4, [3, 2])])
def test_rule_5_cores_share_fpus(bench: BenchFactory, fpus: int, waits: list[int]) -> None:
    b = bench({"cluster.fpus": fpus})
    for core in (0, 4, 1):
        b.start(code(FADD, FADD, FADD), core=core)
    assert returned(b.run()) == {0: 3 + waits[0] + 2, 4: 3 + waits[1] + 2, 1: 3 + 2}
    assert [b.count(Cause.FPU_CONTENTION, core) for core in (0, 4, 1)] == [*waits, 0]


def test_rule_5_as_many_fpus_as_cores_are_private(bench: BenchFactory) -> None:
    b = bench({"cluster.cores": 2, "cluster.fpus": 2})
    assert b.cycles(code(FADD, ("fmadd.s", "x5", "x6", "x7", "x5"), ("feq.s", "x5", "x6", "x7"))) == 3


def test_rule_5_every_fadd_like_operation_takes_its_fpu(bench: BenchFactory) -> None:
    b = bench({"cluster.fpus": 1})
    for core, line in enumerate(
        [
            ("fmv.x.w", "x5", "x6"),
            ("fcvt.s.w", "x5", "x6"),
            ("fclass.s", "x5", "x6"),
            ("fmin.s", "x5", "x6", "x7"),
        ]
    ):
        b.start(code(line), core=core)
    assert returned(b.run()) == {core: 1 + 3 - core + 2 for core in range(4)}


def test_rule_5_one_divider_for_the_cluster(bench: BenchFactory) -> None:
    b = bench(SHARED)
    b.start(code(FDIV, FSQRT), core=1)
    b.start(code(FSQRT), core=0)
    b.start(code(FADD), core=4)  # shares core 0's FPU, which a division does not take
    assert returned(b.run()) == {4: 3, 1: 14 + 28 + 2, 0: 28 + 2}
    # core 1's square root is issued at 14, when core 0 holds the divider up to 28
    assert b.count(Cause.MULDIV, 1) == 42 - 2 and b.count(Cause.MULDIV, 0) == 28 - 1
    assert bench({"core.fdiv_cycles": 1}).cycles(code(FDIV)) == 1


def test_rule_5_the_divider_is_taken_at_the_event(bench: BenchFactory) -> None:
    """Load-use delays the core, not the division: free again at 1 + 14, though the core goes on at 16."""
    b = bench()
    b.start(code(load("x6"), FDIV))
    b.start(code(FDIV), core=1, time=3)
    assert returned(b.run()) == {0: 16 + 2, 1: 15 + 14 + 2}


# -- rule 6: multiplier and integer divider --------------------------------------------------------


@pytest.mark.parametrize(
    ("mnemonic", "divisor", "cycles"),
    [
        ("div", 1, 34),
        ("div", -1, 34),
        ("div", 0, 1),
        ("div", 1 << 31, 3),
        ("div", 9876, 18 + 3),
        ("rem", -9876, 18 + 3),
        ("rem", 0, 1),
        ("divu", -1, 3),
        ("remu", -1, 3),
        ("divu", 0, 35),
        ("remu", 1, 34),
        ("mul", 5, 2),
        ("mulh", 5, 5),
        ("mulhu", 5, 5),
        ("mulhsu", 5, 5),
        ("p.mac", 5, 1),
    ],
)
def test_rule_6_multiply_and_divide(bench: BenchFactory, mnemonic: str, divisor: int, cycles: int) -> None:
    b = bench()
    assert b.cycles(code((mnemonic, "x5", "x6", "x7")), x6=123456, x7=divisor) == cycles
    assert b.count(Cause.MULDIV) == cycles - 1


def test_rule_6_division_by_zero_costs_what_the_platform_says(bench: BenchFactory) -> None:
    costs = {"core.div_by_zero_cycles": 7, "core.div_base_cycles": 2}
    for mnemonic, cycles in (("div", 7), ("rem", 7), ("divu", 34), ("remu", 34)):
        assert bench(costs).cycles(code((mnemonic, "x5", "x6", "x0")), x6=5) == cycles
        assert bench(costs).cycles(code((mnemonic, "x5", "x6", "x7")), x6=5, x7=1) == 31 + 2


def test_rule_6_the_divisor_is_read_before_it_is_overwritten(bench: BenchFactory) -> None:
    assert bench().cycles(code(("divu", "x7", "x6", "x7")), x6=0, x7=1 << 31) == 3


# -- rule 7: branches and jumps --------------------------------------------------------------------


@pytest.mark.parametrize(("x5", "cycles", "x6"), [(1, 2, 1), (0, 3, 0)])
def test_rule_7_branches(bench: BenchFactory, x5: int, cycles: int, x6: int) -> None:
    builder = Builder()
    skip = builder.label()
    builder("beq", "x5", "x0", skip)
    builder("addi", "x6", "x0", 1)
    builder.place(skip)
    builder.ret()
    b = bench()
    assert b.cycles(builder.build(), x5=x5) == cycles
    assert b.register("x6") == x6
    assert b.count(Cause.BRANCH) == 1 + (2 if x5 == 0 else 0)  # one is the return's


def test_rule_7_backward_branch(bench: BenchFactory) -> None:
    builder = Builder()
    again = builder.here()
    builder("addi", "x5", "x5", -1)
    builder("bne", "x5", "x0", again)
    builder.ret()
    b = bench()
    assert b.cycles(builder.build(), x5=10) == 9 * 4 + 2


def test_rule_7_jumps_link_addresses(bench: BenchFactory) -> None:
    builder = Builder()
    function = builder.label()
    builder("jal", "x5", function)
    builder("addi", "x7", "x0", 1)
    builder.ret()
    builder.place(function)
    builder("addi", "x6", "x5", 1)  # bit 0 of the sum is ignored
    builder("jalr", "x6", "x6", 0)  # reads x6 before it links
    b = bench()
    program = builder.build()
    assert b.cycles(program) == 2 + 1 + 2 + 1
    first = b.code.load(program)
    assert b.register("x5") == address_of(first + 1) and b.register("x6") == address_of(first + 5)
    assert b.register("x7") == 1 and b.count(Cause.BRANCH) == 3


def test_rule_7_auipc_and_a_jump_with_an_offset(bench: BenchFactory) -> None:
    b = bench()
    program = code(
        ("auipc", "x5", 0xFFFFF), ("auipc", "x6", 0), ("jalr", "x0", "x6", 12), ("addi", "x7", "x0", 1)
    )
    assert b.cycles(program) == 4
    address = address_of(b.code.load(program))
    assert b.register("x5") == address - 0x1000 and b.register("x6") == address + 4


# -- rule 8: hardware loops ------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "runs"), [(0, 1), (1, 1), (2, 2), (3, 3), (100, 100)])
@pytest.mark.parametrize("in_register", [False, True])
@pytest.mark.parametrize("level", [0, 1])
def test_rule_8_loops_cost_their_setup(
    bench: BenchFactory, level: int, in_register: bool, count: int, runs: int
) -> None:
    builder = Builder()
    counter = builder.register("counter", at="x9")
    with builder.loop(level, counter if in_register else count):
        builder(*COUNT_UP)
        builder(*NOP)
    builder.ret()
    b = bench()
    assert b.cycles(builder.build(), x9=count) == 1 + 2 * runs
    assert b.register("x5") == runs


@pytest.mark.parametrize("tail", [0, 1])
@pytest.mark.parametrize("outer", [0, 1])
def test_rule_8_nested_loops(bench: BenchFactory, outer: int, tail: int) -> None:
    """Apart, either level may be the outer one; on a shared end, level 0 is looked at first."""
    builder = Builder()
    with builder.loop(outer, 3):
        with builder.loop(1 - outer, 2):
            builder(*COUNT_UP)
            builder(*NOP)
        for _ in range(tail):
            builder(*NOP)
    builder.ret()
    b = bench()
    cycles = b.cycles(builder.build())
    if tail or outer == 1:
        assert (cycles, b.register("x5")) == (1 + 3 * (1 + 2 * 2 + tail), 6)
    else:  # level 0 runs out first, and only then the inner loop of level 1 repeats, once
        assert (cycles, b.register("x5")) == (1 + 3 * (1 + 2) + 2, 4)


def test_rule_8_a_branch_at_the_end(bench: BenchFactory) -> None:
    builder = Builder()
    out = builder.label()
    with builder.loop(0, 5):
        builder(*COUNT_UP)
        builder("beq", "x5", "x6", out)
    builder.place(out)
    builder.ret()
    rows = builder.build().rows.copy()
    rows[0, TARGET] = 2  # no nop at the end: a Builder would add one, other programs may lack it
    program = Program(rows)
    b = bench()
    assert b.cycles(program, x6=3) == 1 + 2 + 2 + 4  # taken in the third run: the loop is left
    assert b.register("x5") == 3
    assert bench().cycles(program, x6=0) == 1 + 5 * 2 + 1  # never taken


def test_rule_8_registers_of_a_loop_one_by_one(bench: BenchFactory) -> None:
    builder = Builder()
    start, end = builder.label(), builder.label()
    builder("lp.counti", 1, 4)
    builder("lp.starti", 1, start)
    builder("lp.endi", 1, end)
    builder(*NOP)
    builder.place(start)
    builder(*COUNT_UP)
    builder.place(end)
    builder(*NOP)
    builder.ret()
    for cycles in (1, 2, 5):
        b = bench({"core.loop_immediate_cycles": cycles})
        assert b.cycles(builder.build()) == 3 * cycles + 1 + 4 * 2
        assert b.register("x5") == 4 and b.count(Cause.BRANCH) == 1 + 3 * (cycles - 1)


@pytest.mark.parametrize(
    "line", [("lp.setup", 0, "x6", "end"), ("lp.setupi", 0, 2, "end"), ("lp.count", 0, "x6")], ids=lambda line: line[0]
)
def test_rule_8_other_set_ups_take_one_cycle(bench: BenchFactory, line: Line) -> None:
    builder = Builder()
    end = builder.label()
    builder(line[0], *[end if operand == "end" else operand for operand in line[1:]])
    builder(*NOP)
    builder.place(end)
    builder(*NOP)
    builder.ret()
    runs = 1 if line[0] == "lp.count" else 2
    assert bench({"core.loop_immediate_cycles": 9}).cycles(builder.build(), x6=2) == 1 + 2 * runs


def test_rule_8_a_count_set_by_the_last_instruction_counts(bench: BenchFactory) -> None:
    builder = Builder()
    start, end = builder.label(), builder.label()
    builder("lp.starti", 0, start)
    builder("lp.endi", 0, end)
    builder.place(start)
    builder("addi", "x6", "x6", -1)
    builder.place(end)
    builder("lp.count", 0, "x6")
    builder.ret()
    b = bench()
    assert b.cycles(builder.build(), x6=3) == 2 + 2 * 2
    assert b.register("x6") == 1


def test_rule_8_counts_are_unsigned(bench: BenchFactory) -> None:
    builder = Builder()
    with builder.loop(0, builder.register("count", at="x9")):
        builder(*COUNT_UP)
    builder.ret()
    b = bench()
    b.start(builder.build(), x9=0xFFFFFFFF)
    assert b.run(until=101) == [] and b.register("x5") == 50  # and as many nops


def test_rule_8_no_loop_at_a_start(bench: BenchFactory) -> None:
    builder = Builder()
    out = builder.label()
    with builder.loop(0, 5):
        builder("bne", "x6", "x0", out)
        builder.entry("body")
        builder(*COUNT_UP)
    builder.place(out)
    builder.ret()
    program = builder.build()
    b = bench()
    assert b.cycles(program, x6=1) == 1 + 3
    assert b.cycles(program, entry="body") == 1 and b.register("x5") == 1


# -- rule 9: barriers and deadlocks ----------------------------------------------------------------


def test_rule_9_the_last_arrival_wakes_everyone(bench: BenchFactory) -> None:
    b = bench()
    b.engine.begin_team([0, 1])
    b.start(code(BARRIER), core=0, x31=5)
    b.start(code(NOP, NOP, NOP, BARRIER), core=1)
    assert b.run(until=3) == []
    assert b.engine.status(0) == Status.WAITING and b.engine.status(1) == Status.RUNNING
    assert b.register("x31") == 0
    assert b.run() == [Report(Kind.RETURNED, 3 + 5 + 2, 1), Report(Kind.RETURNED, 3 + 5 + 2, 0)]
    assert b.count(Cause.BARRIER, 0) == 7 and b.count(Cause.BARRIER, 1) == 4


def test_rule_9_a_waiting_core_stands_at_its_barrier(bench: BenchFactory) -> None:
    b = bench()
    b.engine.begin_team([0, 1])
    program = code(NOP, BARRIER)
    b.start(program)
    b.run(until=50)
    assert b.engine.row(0) == b.code.load(program) + 1
    assert b.engine.idle() and b.engine.now == 50
    b.start(program, core=1, time=50)
    b.run(until=52)
    assert b.engine.status(0) == Status.RUNNING and b.engine.row(0) == b.code.load(program) + 2
    assert returned(b.run()) == {0: 51 + 5 + 2, 1: 51 + 5 + 2}


@pytest.mark.parametrize("last", range(4))
def test_rule_9_the_last_arrival_goes_first_from_then_on(bench: BenchFactory, last: int) -> None:
    b = bench()
    b.engine.begin_team([0, 1, 2, 3])
    for core in range(4):
        late = [NOP] * (3 + core if core != last else 9)
        b.start(code(*late, BARRIER, load("x5"), *[NOP] * 9, load("x5")), core=core)
    others = [core for core in (3, 2, 1, 0) if core != last]
    assert [r.subject for r in b.run()] == [last, *others]
    waits = {core: b.count(Cause.BANK_CONFLICT, core) for core in range(4)}
    assert waits == {last: 0} | {core: 1 + place for place, core in enumerate(others)}


def test_rule_9_of_two_arrivals_in_a_cycle_the_lower_number_is_the_last(bench: BenchFactory) -> None:
    b = bench()
    b.engine.begin_team([0, 1, 2])
    for core in (0, 1, 2):
        b.start(code(NOP, BARRIER, load("x5")), core=core)
    assert [r.subject for r in b.run()] == [0, 2, 1]


def test_rule_9_every_barrier_and_every_team_makes_the_order_anew(bench: BenchFactory) -> None:
    b = bench()
    b.engine.begin_team([0, 1, 2])
    for core in (0, 1, 2):  # 0 is last at the first barrier, 1 at the second
        lines = [*[NOP] * (9 if core == 0 else 1), BARRIER, *[NOP] * (9 if core == 1 else 1), BARRIER, load("x5")]
        b.start(code(*lines), core=core)
    assert [r.subject for r in b.run()] == [1, 2, 0]
    b.engine.begin_team([0, 1])
    for core in (0, 1):
        b.start(code(load("x5")), core=core, time=100)
    assert [r.subject for r in b.run()] == [1, 0]


def test_rule_9_a_new_team_ends_the_lead_of_a_core_that_still_runs(bench: BenchFactory) -> None:
    """Core 0 came last to its team's barrier; at 100 it is behind cores 1 and 2 again, also if it is due already."""
    for begin in (50, 99, 100):
        b = bench()
        b.engine.begin_team([0])
        b.start(code(*[NOP] * 4, BARRIER, *[NOP] * 91, load("x5")), core=0)
        assert b.run(until=begin) == []
        b.engine.begin_team([1, 2])
        for core in (1, 2):
            b.start(code(load("x5")), core=core, time=100)
        assert returned(b.run()) == {2: 103, 1: 104, 0: 105}


def test_rule_9_each_core_adds_its_own_stall(bench: BenchFactory) -> None:
    b = bench()
    b.memory.write(L1_BASE, np.array([EVENT_UNIT_BASE], np.uint32))
    b.engine.begin_team([0, 1])
    b.start(code(load("a2"), BARRIER), core=0)
    b.start(code(NOP, NOP, NOP, BARRIER), core=1)
    assert returned(b.run()) == {1: 3 + 5 + 2, 0: 3 + 5 + 1 + 2}
    assert b.count(Cause.LOAD_USE, 0) == 1 and b.count(Cause.BARRIER, 0) == 6


def test_rule_9_a_team_of_one_and_repeated_barriers(bench: BenchFactory) -> None:
    b = bench({"event_unit.barrier_cycles": 7})
    b.engine.begin_team([0])
    assert b.cycles(code(BARRIER, BARRIER)) == 14
    assert b.count(Cause.BARRIER) == 12


def test_rule_9_a_barrier_may_end_a_loop(bench: BenchFactory) -> None:
    builder = Builder()
    with builder.loop(0, 3):
        builder(*COUNT_UP)
        builder(*BARRIER)
    builder.ret()
    b = bench()
    b.engine.begin_team([0, 1])
    for core in (0, 1):
        b.start(builder.build(), core=core)
    assert returned(b.run()) == {0: 1 + 3 * 6 + 2, 1: 1 + 3 * 6 + 2}
    assert b.register("x5", 0) == b.register("x5", 1) == 3


def test_rule_9_others_do_not_meet_with_the_team(bench: BenchFactory) -> None:
    b = bench()
    b.engine.begin_team([1, 3])
    b.start(code(), core=0)
    b.start(code(*[NOP] * 50), core=2)
    b.start(code(BARRIER), core=1)
    b.start(code(*[NOP] * 9, BARRIER), core=3)
    reports = b.run()
    assert returned(reports) == {0: 2, 1: 16, 3: 16, 2: 52}
    assert all(report.kind == Kind.RETURNED for report in reports)  # core 0's return is no deadlock


def test_rule_9_deadlock_at_the_return(bench: BenchFactory) -> None:
    b = bench()
    b.engine.begin_team([0, 1])
    b.start(code(NOP), core=0)
    b.start(code(BARRIER), core=1)
    assert b.run() == [Report(Kind.RETURNED, 3, 0), Report(Kind.DEADLOCK, 3, 0)]
    assert b.engine.status(1) == Status.WAITING and b.engine.idle()


def test_rule_9_deadlock_at_an_arrival_is_reported_once(bench: BenchFactory) -> None:
    b = bench()
    b.engine.begin_team([0, 1, 2])
    b.start(code(), core=0)
    b.start(code(*[NOP] * 5, BARRIER), core=1)
    b.start(code(*[NOP] * 9, BARRIER), core=2)
    assert b.run() == [Report(Kind.RETURNED, 2, 0), Report(Kind.DEADLOCK, 5, 1)]


def test_rule_9_a_new_team_forgets_who_returned(bench: BenchFactory) -> None:
    b = bench()
    b.engine.begin_team([0, 1])
    for core in (0, 1):
        b.start(code(), core=core)
    b.run()
    b.engine.begin_team([0, 1])
    b.start(code(BARRIER), core=0, time=10)
    assert b.run(until=15) == []  # core 1 may still come
    b.start(code(BARRIER), core=1, time=15)
    assert b.run() == [Report(Kind.RETURNED, 22, 1), Report(Kind.RETURNED, 22, 0)]


def test_rule_9_a_core_started_again_has_not_returned(bench: BenchFactory) -> None:
    b = bench()
    b.engine.begin_team([0, 1])
    for core in (0, 1):
        b.start(code(), core=core)
    b.run()
    b.start(code(BARRIER), core=0, time=10)
    b.start(code(NOP, BARRIER), core=1, time=10)
    assert b.run() == [Report(Kind.RETURNED, 18, 1), Report(Kind.RETURNED, 18, 0)]


# -- traps -----------------------------------------------------------------------------------------

L1_END, L2_END = L1_BASE + 65_536, L2_BASE + 2_097_152


@pytest.mark.parametrize(
    ("mnemonic", "address", "legal"),
    [
        ("lw", L1_BASE, True),
        ("lw", L1_BASE - 1, False),
        ("lw", L1_END - 4, True),
        ("lw", L1_END - 3, False),
        ("lb", L1_END - 1, True),
        ("lb", L1_END, False),
        ("sh", L1_END - 1, False),
        ("sw", 0, False),
        ("lw", 0xFFFFFFFF, False),
        ("lw", L2_END - 4, True),
        ("sw", L2_END - 2, False),
        ("lw", L2_BASE - 2, False),
        ("lbu", EVENT_UNIT_BASE + EVENT_UNIT_BYTES, False),
        ("lhu", EVENT_UNIT_BASE + EVENT_UNIT_BYTES - 1, False),
        ("sw", EVENT_UNIT_BASE + EVENT_UNIT_BYTES - 4, True),
    ],
)
def test_trap_address(bench: BenchFactory, mnemonic: str, address: int, legal: bool) -> None:
    b = bench()
    program = code(NOP, (mnemonic, "x5", ("x6", -16)))
    b.start(program, x6=address + 16)
    (report,) = b.run()
    if legal:
        assert report.kind == Kind.RETURNED
    else:
        assert report == Report(Kind.TRAP, 1, 0, trap(Trap.ADDRESS, address))
        assert b.engine.row(0) == b.code.load(program) + 1


def test_trap_has_no_effect_and_is_not_counted(bench: BenchFactory) -> None:
    b = bench()
    b.start(code(load("x6"), ("p.lw", "x5", ("x6", 4, "!"))), x5=3)
    (report,) = b.run()
    assert report == Report(Kind.TRAP, 1, 0, trap(Trap.ADDRESS, 0))
    assert b.engine.now == 1 and b.register("x5") == 3 and b.register("x6") == 0
    assert b.engine.counters().sum() == 1


def test_trap_returns_at_once_with_the_reports_so_far(bench: BenchFactory) -> None:
    b = bench()
    b.start(code(), core=0)
    b.start(code(NOP, NOP, load("x5", 0, "x0")), core=1)
    b.start(code(), core=2)
    b.start(code(), core=3)
    reports = b.engine.advance(FOREVER)
    assert reports == [
        Report(Kind.RETURNED, 2, 3),
        Report(Kind.RETURNED, 2, 2),
        Report(Kind.TRAP, 2, 1, trap(Trap.ADDRESS, 0)),
    ]
    assert b.engine.now == 2
    b = bench()
    b.start(code(load("x5", 0, "x0")), core=1)
    b.start(code(), core=0)
    assert b.engine.advance(FOREVER) == [Report(Kind.TRAP, 0, 1, trap(Trap.ADDRESS, 0))]
    assert b.engine.now == 0 and b.count(Cause.ISSUE, 0) == 0


@pytest.mark.parametrize("target", [0, L1_BASE, L2_BASE - 4, L2_BASE + 2, L2_BASE + 0x10000, 0xFFFFFFFC])
def test_trap_target_of_a_computed_jump(bench: BenchFactory, target: int) -> None:
    b = bench()
    program = code(("jalr", "x5", "x6", 4))
    b.start(program, x5=1, x6=target - 4)
    assert b.run() == [Report(Kind.TRAP, 0, 0, trap(Trap.TARGET, target))]
    assert b.register("x5") == 1 and b.engine.row(0) == b.code.load(program)


def test_trap_target_just_behind_the_code(bench: BenchFactory) -> None:
    b = bench()
    program = code(("jalr", "x0", "x6", 0))
    rows = b.code.load(program) and len(b.code.rows)
    b.start(program, x6=address_of(rows))
    assert b.run() == [Report(Kind.TRAP, 0, 0, trap(Trap.TARGET, address_of(rows)))]
    b = bench()
    b.start(program, x6=address_of(rows - 1))  # a guard
    assert b.run() == [Report(Kind.TRAP, 2, 0, trap(Trap.END, address_of(rows - 1)))]


@pytest.mark.parametrize("mnemonic", ["beq", "bne", "jal"])
@pytest.mark.parametrize("distance", [-1000, 1000])
def test_trap_target_of_a_label(bench: BenchFactory, mnemonic: str, distance: int) -> None:
    builder = Builder()
    here = builder.here()
    builder(mnemonic, *(["x0", "x0"] if mnemonic != "jal" else ["x5"]), here)
    builder.ret()
    rows = builder.build().rows.copy()
    rows[0, TARGET] = distance
    b = bench()
    program = Program(rows)
    b.start(program)
    (report,) = b.run()
    if mnemonic == "bne":  # not taken
        assert report == Report(Kind.RETURNED, 3, 0)
    else:
        address = address_of(b.code.load(program) + distance)
        assert report == Report(Kind.TRAP, 0, 0, trap(Trap.TARGET, address))
        assert b.register("x5") == 0


@pytest.mark.parametrize("address", [EVENT_UNIT_BASE, L1_BASE, 0])
def test_trap_event(bench: BenchFactory, address: int) -> None:
    b = bench()
    b.engine.begin_team([0])
    b.start(code(("p.elw", "x5", ("x6", 0))), x5=7, x6=address)
    assert b.run() == [Report(Kind.TRAP, 0, 0, trap(Trap.EVENT, address))]
    assert b.register("x5") == 7


# -- DMA -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 8, 12, 256, 260, 1024, 1000])
@pytest.mark.parametrize("width", [4, 8, 16])
@pytest.mark.parametrize("outward", [False, True])
def test_dma_one_beat_a_cycle_and_one_more_a_burst_outward(
    bench: BenchFactory, outward: bool, width: int, size: int
) -> None:
    b = bench({"dma.bytes_per_cycle": width})
    data = np.arange(size, dtype=np.uint8)
    (source, target) = (L1_BASE + 64, L2_BASE + 0x20000)
    if not outward:
        source, target = target, source
    b.memory.write(source, data)
    b.memory.write(source + size, np.full(64, 0xEE, np.uint8))
    shape = {"l1": 64, "l2": 0x20000, "l1_stride": size, "l2_stride": size}
    b.transfer(size, ready=10, outward=outward, number=5, **shape)
    bursts = math.ceil(size / 256) if outward else 0
    end = 10 + math.ceil(size / width) - 1 + bursts
    assert b.run() == [Report(Kind.TRANSFER, end, 5)]
    assert b.engine.now == end + 1 and b.engine.idle()
    assert (b.memory.read(target, size, np.uint8) == data).all()
    assert not b.memory.read(target + size, 64, np.uint8).any()  # and not a byte more


@pytest.mark.parametrize("outward", [False, True])
def test_dma_2d_with_strides_on_both_sides(bench: BenchFactory, outward: bool) -> None:
    """Lines of 12 bytes: 16 apart in L1 (padded), 40 apart in L2; the last line is shorter."""
    b = bench()
    words = np.arange(1, 12, dtype=np.uint32)
    at_l1 = [16 * (k // 3) + 4 * (k % 3) for k in range(11)]
    at_l2 = [40 * (k // 3) + 4 * (k % 3) for k in range(11)]
    source, target = ((L1_BASE, at_l1), (L2_BASE + 0x10000, at_l2))[:: 1 if outward else -1]
    for offset, word in zip(source[1], words, strict=True):
        b.memory.write(source[0] + offset, np.array([word]))
    b.transfer(44, ready=3, outward=outward, line=12, l1_stride=16, l2_stride=40)
    # 11 words, two a cycle; outward each line takes 2 beats, the last one 1, and every line loses a cycle
    assert transfers(b.run()) == [(0, 3 + (3 * 3 + 2 if outward else 6) - 1)]
    expected = np.zeros(50, np.uint32)
    expected[np.array(target[1]) // 4] = words
    assert (b.memory.read(target[0], 50, np.uint32) == expected).all()


def test_dma_negative_strides_mirror(bench: BenchFactory) -> None:
    b = bench()
    b.memory.write(L2_BASE + 0x10000, np.arange(4, dtype=np.uint32))
    b.transfer(16, l1=12, line=4, l1_stride=-4, l2_stride=4)
    b.run()
    assert b.memory.read(L1_BASE, 4, np.uint32).tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("outward", "ready", "ends"),
    [
        (False, (3, 3, 4), [4, 6, 8]),  # back to back
        (False, (3, 10, 10), [4, 11, 13]),  # waits for its own data
        (True, (3, 3, 4), [5, 8, 11]),  # each begins a burst
        (True, (3, 10, 10), [5, 12, 15]),
    ],
)
def test_dma_queue(bench: BenchFactory, outward: bool, ready: tuple[int, ...], ends: list[int]) -> None:
    b = bench()
    for number, time in enumerate(ready):
        b.transfer(16, ready=time, outward=outward, number=number, l1=16 * number)
    assert transfers(b.run()) == list(enumerate(ends))


def test_dma_sleeps_and_wakes(bench: BenchFactory) -> None:
    b = bench()
    b.transfer(8, ready=2, number=1)
    assert b.run(until=20) == [Report(Kind.TRANSFER, 2, 1)]
    assert b.engine.idle() and b.engine.now == 20
    b.transfer(8, ready=20, number=2)
    assert not b.engine.idle()
    assert b.run() == [Report(Kind.TRANSFER, 20, 2)]


def test_dma_both_directions_at_once(bench: BenchFactory) -> None:
    b = bench()
    b.transfer(1024, ready=5, number=1, l1=0)
    b.transfer(1024, ready=5, number=2, l1=4096, outward=True)
    assert transfers(b.run()) == [(1, 5 + 127), (2, 5 + 127 + 4)]


def cycles_alone(outward: bool, size: int, line: int, width: int, burst: int) -> int:
    """Of a transfer that waits for nobody: cycles with data, and those lost between bursts or lines."""
    lines = [min(line, size - first) for first in range(0, size, line)]
    if not outward:
        return max(math.ceil(size / width), len(lines))
    bursts = [min(burst, length - first) for length in lines for first in range(0, length, burst)]
    return sum(1 + math.ceil(length / width) for length in bursts)


@settings(max_examples=60)
@given(
    outward=st.booleans(),
    words=st.integers(1, 150),
    line_words=st.integers(1, 40),
    ports=st.sampled_from([1, 2, 4, 8]),
    burst_beats=st.integers(1, 6),
    conflicts=st.booleans(),
)
def test_dma_lines_and_bursts_of_a_transfer_alone(
    bench: BenchFactory, outward: bool, words: int, line_words: int, ports: int, burst_beats: int, conflicts: bool
) -> None:
    width, line = 4 * ports, 4 * line_words
    burst = burst_beats * width
    b = bench({"dma.bytes_per_cycle": width, "dma.burst_bytes": burst, "l1.conflicts": conflicts})
    # in L1 the lines lie one behind the other: no two ports meet in a bank
    b.transfer(4 * words, ready=5, outward=outward, line=line, l1_stride=line, l2_stride=line + 4)
    cycles = cycles_alone(outward, 4 * words, line, width, burst)
    assert transfers(b.run()) == [(0, 5 + cycles - 1)]


def test_dma_ports_wait_for_their_banks(bench: BenchFactory) -> None:
    """Eight words, one bank: one a cycle. The load at 3 comes before the ports of that cycle, behind those of 2."""
    b = bench({"l1.banks": 1})
    b.transfer(32)
    assert transfers(b.run()) == [(0, 7)]
    b = bench({"l1.banks": 1})
    b.transfer(32)
    b.start(code(*[NOP] * 3, load("x5")))
    reports = b.run()
    # at 0 words 0 and 1 get cycles 0 and 1, at 1 word 2 gets 2, at 2 word 3 gets 3: 4 is the load's
    assert returned(reports) == {0: 4 + 1 + 2} and b.count(Cause.BANK_CONFLICT) == 1
    assert transfers(reports) == [(0, 8)]


def test_dma_the_measured_wait_beside_eight_cores(bench: BenchFactory) -> None:
    """16 KiB inward, alone and beside cores that load one bank's word every cycle: 2,073 and 3,098 cycles on the
    virtual platform, 15 of frame included."""
    builder = Builder()
    with builder.loop(0, 500):
        for _ in range(2):
            builder(*load("x5"))
    builder.ret()
    b = bench()
    b.transfer(16384, l1=0x4000)
    assert transfers(b.run()) == [(0, 2047)]
    b = bench()
    for core in range(8):
        b.start(builder.build(), core=core)
    b.transfer(16384, ready=100, l1=0x4000)
    ((_, end),) = transfers(b.run())
    assert end - 100 == pytest.approx(2047 + 3098 - 2073, abs=2)


def test_dma_follows_the_cores_inward_before_outward(bench: BenchFactory) -> None:
    """At 10 a core, a port inward and one outward want bank 0, all of them free: cycles 10, 11 and 12."""
    b = bench({"dma.bytes_per_cycle": 4})
    b.transfer(4, ready=9, outward=True, number=1)
    b.transfer(4, ready=10, number=2)
    b.start(code(load("x5")), time=10)
    reports = b.run()
    assert transfers(reports) == [(2, 11), (1, 12)]
    assert returned(reports) == {0: 13} and b.count(Cause.BANK_CONFLICT) == 0


def test_dma_transfers_end_in_their_order(bench: BenchFactory) -> None:
    """Transfer 1 waits for bank 0 up to 4; the word of transfer 2 finds its bank free at 1, but ends with 1."""
    b = bench({"cluster.cores": 4})
    for core in range(4):
        b.start(code(load("x5")), core=core)
    b.transfer(4, number=1)
    b.transfer(4, number=2, l1=4)
    reports = b.run()
    assert transfers(reports) == [(1, 4), (2, 4)]


@pytest.mark.parametrize("command", range(8))
def test_dma_a_command_in_any_cycle_of_another_transfer(bench: BenchFactory, command: int) -> None:
    """Also in that in which its last word is served, which was taken before."""
    b = bench({"cluster.cores": 4})
    for core in range(4):
        b.start(code(load("x5")), core=core)
    b.transfer(4, number=1)
    reports = b.run(until=command)
    b.transfer(4, number=2, ready=command, l1=4)
    reports += b.run()
    assert transfers(reports) == [(1, 4), (2, max(command, 4))]


def test_dma_a_free_port_takes_the_word_whichever_it_is(bench: BenchFactory) -> None:
    """One port waits for bank 0 up to 8; the other moves the rest of the line alone."""
    b = bench()
    for core in range(8):
        b.start(code(load("x5")), core=core)
    b.transfer(24)
    assert transfers(b.run()) == [(0, 8)]
    b = bench()
    for core in range(8):
        b.start(code(load("x5")), core=core)
    b.transfer(4 * 13)  # words 1 to 9 at 0 to 8, then two a cycle
    assert transfers(b.run()) == [(0, 10)]


@pytest.mark.parametrize("outward", [False, True])
def test_dma_moves_a_word_when_it_is_taken(bench: BenchFactory, outward: bool) -> None:
    """Words 0 and 1 at 4, words 2 and 3 at 5; what a core stores in that cycle is stored before."""
    stores = [("sw", "x5", ("a0", 4)), ("sw", "x5", ("a0", 8)), ("sw", "x5", ("a0", 8))]
    for first, moved in ((3, [0, 9, 9, 0]), (4, [0, 9, 9, 0]), (5, [0, 0, 0, 0])):
        b = bench({"l1.conflicts": False})
        b.transfer(16, ready=3 if outward else 4, outward=outward)
        b.start(code(*[NOP] * first, *stores), x5=9)
        b.run()
        if outward:
            assert b.memory.read(L2_BASE + 0x10000, 4, np.uint32).tolist() == moved
        else:  # what was stored before the word came in is overwritten
            kept = [0, 0 if first <= 4 else 9, 9 if first + 2 > 5 else 0, 0]
            assert b.memory.read(L1_BASE, 4, np.uint32).tolist() == kept


# -- round-robin -----------------------------------------------------------------------------------


def test_round_robin_takes_turns(bench: BenchFactory) -> None:
    b = bench(ROUND_ROBIN)
    for core in (2, 1, 0):  # whatever order their events have
        b.start(code(load("x5", 0), load("x6", 64), load("x7", 128)), core=core)
    assert returned(b.run()) == {0: 7 + 2, 1: 8 + 2, 2: 9 + 2}
    assert [b.count(Cause.BANK_CONFLICT, core) for core in (0, 1, 2)] == [4, 5, 6]


@pytest.mark.parametrize(("first", "order"), [(0, [1, 2, 0]), (1, [2, 0, 1]), (2, [0, 1, 2]), (7, [0, 1, 2])])
def test_round_robin_goes_on_after_the_last_served(bench: BenchFactory, first: int, order: list[int]) -> None:
    b = bench(ROUND_ROBIN)
    b.start(code(load("x5", 64)), core=first)
    b.run()
    for core in (0, 1, 2):
        b.start(code(load("x5", 0)), core=core, time=10)
    assert [r.subject for r in b.run()] == order


def test_round_robin_banks_are_served_in_order(bench: BenchFactory) -> None:
    """Grants of one cycle queue the cores' next events in bank order; at 1 they meet in bank 2."""
    b = bench(ROUND_ROBIN | {"cluster.fpus": 1})
    for core, offset in ((0, 8), (1, 4), (2, 0)):
        b.start(code(load("x5", offset), FADD), core=core)
    assert [r.subject for r in b.run()] == [2, 1, 0]
    assert [b.count(Cause.FPU_CONTENTION, core) for core in (0, 1, 2)] == [2, 1, 0]


def test_round_robin_alone_costs_nothing(bench: BenchFactory) -> None:
    b = bench(ROUND_ROBIN)
    assert b.cycles(code(load("x5"), ("add", "x6", "x5", "x5"), load("x5", 3))) == 1 + 2 + 2


def test_round_robin_counts_stalls_from_the_grant(bench: BenchFactory) -> None:
    """Core 1: the store is issued at 2, one late operand, and granted at 3, after core 0's load."""
    b = bench(ROUND_ROBIN)
    b.start(code(load("x5")), core=0, time=2)
    b.start(code(NOP, load("x5", 4), ("sw", "x5", ("a0", 0))), core=1)
    assert returned(b.run()) == {0: 3 + 2, 1: 5 + 2}
    assert b.count(Cause.LOAD_USE, 1) == 1 and b.count(Cause.BANK_CONFLICT, 1) == 1


def test_round_robin_a_misaligned_access_takes_its_first_bank(bench: BenchFactory) -> None:
    b = bench(ROUND_ROBIN)
    b.start(code(load("x5", 0)), core=0)
    b.start(code(load("x5", 2)), core=1)
    b.start(code(NOP, load("x5", 4)), core=2)
    assert returned(b.run()) == {0: 1 + 2, 1: 1 + 2 + 2, 2: 2 + 2}
    assert b.count(Cause.MISALIGNED, 1) == 1 and b.count(Cause.BANK_CONFLICT, 1) == 1


def test_round_robin_dma_ports_follow_the_cores_inward_first(bench: BenchFactory) -> None:
    """At 10, with core 0 served last: port inward, port outward, core 0."""
    b = bench(ROUND_ROBIN | {"dma.bytes_per_cycle": 4})
    b.start(code(load("x5")))
    b.run()
    b.start(code(load("x5")), time=10)
    b.transfer(4, ready=9, outward=True)
    b.transfer(4, ready=10)
    b.run()
    assert b.count(Cause.BANK_CONFLICT) == 2
    b.start(code(load("x5")), core=1, time=20)  # after core 0
    b.transfer(4, ready=20)
    b.run()
    assert b.count(Cause.BANK_CONFLICT, 1) == 0
    b.transfer(4, ready=30)
    b.transfer(4, ready=39, outward=True)  # at 40, after the port inward
    b.start(code(load("x5")), core=2, time=40)
    b.run()
    assert b.count(Cause.BANK_CONFLICT, 2) == 1


def test_round_robin_dma_ports_wait_for_their_grants(bench: BenchFactory) -> None:
    """Eight words, one bank: each port is ready again the cycle after its grant."""
    b = bench(ROUND_ROBIN | {"l1.banks": 1})
    b.transfer(32)
    assert b.engine.advance(5) == [] and not b.engine.idle() and b.engine.now == 5
    assert b.engine.advance(FOREVER) == [Report(Kind.TRANSFER, 7, 0)]
    assert b.engine.idle() and b.engine.now == 8


def test_round_robin_a_transfer_ends_with_its_last_grant(bench: BenchFactory) -> None:
    """Seven cores are served before the port, which is the agent after them."""
    b = bench(ROUND_ROBIN | {"cluster.cores": 7})
    for core in range(7):
        b.start(code(load("x5")), core=core)
    b.transfer(4, number=1)
    b.transfer(4, number=2, l1=4)  # has a bank of its own, and a port at 1
    assert transfers(b.run()) == [(1, 7), (2, 7)]


# -- commands and time -----------------------------------------------------------------------------


def test_advance_stops_before_until_and_after_a_report(bench: BenchFactory) -> None:
    b = bench()
    b.start(code(NOP), core=0, time=5)
    b.start(code(NOP), core=1, time=5)
    b.start(code(*[NOP] * 20), core=2, time=5)
    assert b.engine.advance(8) == [] and b.engine.now == 8
    assert b.engine.advance(8) == [] and b.engine.advance(3) == [] and b.engine.now == 8
    assert b.engine.advance(9) == [Report(Kind.RETURNED, 8, 1), Report(Kind.RETURNED, 8, 0)]
    assert b.engine.now == 9 and not b.engine.idle()
    assert b.engine.advance(100) == [Report(Kind.RETURNED, 27, 2)]
    assert b.engine.now == 28 and b.engine.idle()
    assert b.engine.advance(FOREVER) == [] and b.engine.now == 28
    assert b.engine.advance(100) == [] and b.engine.now == 100


def test_ends_of_transfers_that_are_not_awaited_do_not_end_advance(bench: BenchFactory) -> None:
    b = bench()
    first, second, third = (Report(Kind.TRANSFER, time, number) for number, time in enumerate((4, 9, 14)))

    def begin(awaited: int) -> None:
        b.engine.awaited = awaited
        for number in range(3):
            b.transfer(4, number=number, ready=b.engine.now + 4 + 5 * number)

    begin(1)
    assert b.engine.advance(100) == [first, second] and b.engine.now == 10
    assert b.engine.advance(12) == [] and b.engine.advance(100) == [third]
    b.engine.restart()
    assert b.engine.awaited == EVERY
    begin(NONE)
    assert b.engine.advance(6) == [first] and b.engine.advance(FOREVER) == [second, third]
    assert b.engine.now == 15 and b.engine.idle()


def test_returns_do_not_end_advance_while_others_run_or_wait(bench: BenchFactory) -> None:
    b = bench()
    b.engine.begin_team([2, 3])
    for core, count in enumerate((0, 2)):
        b.start(code(*[NOP] * count), core=core)
    b.start(code(*[NOP] * 8, BARRIER), core=2)
    b.start(code(*[NOP] * 18, BARRIER), core=3)
    b.transfer(4, number=7, ready=6)
    first, second = Report(Kind.RETURNED, 2, 0), Report(Kind.RETURNED, 4, 1)
    assert b.engine.advance(100) == [first, second, Report(Kind.TRANSFER, 6, 7)] and b.engine.now == 7
    assert returned(b.engine.advance(100)) == {2: 25, 3: 25} and b.engine.now == 26


def test_returns_are_given_at_a_deadlock_and_at_a_trap(bench: BenchFactory) -> None:
    for last, reason in ((BARRIER, Report(Kind.DEADLOCK, 9, 1)), (load("x5", 0, "x0"), None)):
        b = bench()
        b.engine.begin_team([0, 1])
        b.start(code(), core=0)
        b.start(code(*[NOP] * 9, last), core=1)
        reports = b.engine.advance(100)
        expected = reason or Report(Kind.TRAP, 9, 1, trap(Trap.ADDRESS, 0))
        assert reports == [Report(Kind.RETURNED, 2, 0), expected]


def test_returns_are_given_though_the_log_was_handed_over(bench: BenchFactory) -> None:
    """Watched, the fast engine stops whenever its log is full, here after the first return."""
    builder = Builder()
    with builder.loop(0, 10_000):
        for _ in range(10):
            builder(*NOP)
    builder.ret()
    b = bench()
    seen: list[int] = []
    b.engine.watch(lambda entries: seen.append(len(entries)))
    b.start(code(), core=0)
    b.start(builder.build(), core=1)
    reports = b.engine.advance(FOREVER)
    assert [report.subject for report in reports] == [0, 1] and reports[0].time == 2
    assert sum(seen) > 100_000


def test_mistaken_commands(bench: BenchFactory) -> None:
    b = bench()
    b.start(code(NOP))
    with pytest.raises(ValueError):
        b.start(code(NOP))
    b.run(until=50)
    with pytest.raises(ValueError):
        b.start(code(NOP), time=49)
    with pytest.raises(ValueError):
        b.transfer(8, ready=49)
    b.start(code(NOP), time=50)
    assert returned(b.run()) == {0: 53}


def test_programs_may_be_loaded_while_others_run(bench: BenchFactory) -> None:
    b = bench()
    b.start(code(*[NOP] * 10))
    b.run(until=4)
    b.start(code(*[COUNT_UP] * 3), core=1, time=4)
    assert returned(b.run()) == {0: 12, 1: 9}
    assert b.register("x5", 1) == 3


def test_counters_and_registers_of_cores_that_never_ran(bench: BenchFactory) -> None:
    b = bench()
    assert b.engine.counters().shape == (8, CAUSES) and b.engine.counters().dtype == np.int64
    assert b.engine.registers(7).shape == (64,) and b.engine.registers(7).dtype == np.uint32
    b.start(code(), x0=5)
    assert b.register("x0") == 0
    b.engine.registers(0)[5] = 9  # a copy
    assert b.register("x5") == 0


def test_csr(bench: BenchFactory) -> None:
    b = bench()
    b.start(
        code(("csrr", "x5", "mhartid"), ("mul", "x6", "x5", "x5"), ("csrr", "x7", "mcycle")), core=3, time=9
    )
    b.run()
    assert b.register("x5", 3) == 3 and b.register("x7", 3) == 9 + 1 + 2
    late = (7 << 32) + 9  # the low 32 bits
    b.start(code(("csrr", "x7", "mcycle")), core=3, time=late)
    assert returned(b.run()) == {3: late + 3}
    assert b.register("x7", 3) == 9


# -- cut invariance --------------------------------------------------------------------------------


def mixed_program(rng: np.random.Generator) -> Program:
    """A hardware loop over random instructions of every unit, with a barrier in it."""
    x = [f"x{n}" for n in (5, 6, 7, 8, 9, 18, 19, 20)]

    def line() -> Line:
        d, s, u, v = rng.choice(x, 4).tolist()
        offset = int(rng.integers(0, 128))
        return [
            load(d, offset),
            load(d, 4 * offset),
            ("sw", s, ("a0", 4 * offset)),
            ("p.lw", d, ("x21", 4 * int(rng.integers(0, 17)), "!")),
            ("sh", s, ("a0", offset)),
            load(d, offset, "a1"),
            ("add", d, s, u),
            ("p.mac", d, s, u),
            ("mul", d, s, u),
            ("mulhu", d, s, u),
            ("rem", d, s, u),
            ("fmadd.s", d, s, u, v),
            ("fadd.s", d, s, u),
            ("fdiv.s", d, s, u),
            ("csrr", d, "mcycle"),
        ][int(rng.integers(0, 15))]

    b = Builder("mixed")
    with b.loop(0, 3):
        for _ in range(int(rng.integers(5, 25))):
            b(*line())
            if rng.random() < 0.2:
                skip = b.label()
                b("blt", *rng.choice(x, 2).tolist(), skip)
                b(*line())
                b.place(skip)
        b(*BARRIER)
    b.ret()
    return b.build()


def run_mixed(
    bench: BenchFactory, seed: int, overrides: dict[str, object], cuts: list[int] | None
) -> tuple[Any, ...]:
    """Everything that can be seen of a run, made in one piece or in steps as long as `cuts` says."""
    rng = np.random.default_rng(seed)
    b = bench(overrides)
    b.memory.l1[:] = rng.integers(0, 256, len(b.memory.l1))
    b.engine.begin_team([0, 1, 2, 3])
    for core in rng.permutation(4).tolist():
        values = {f"x{n}": int(rng.integers(0, 1 << 32)) for n in (5, 6, 7, 8, 9, 18, 19, 20)}
        b.start(mixed_program(rng), core=core, time=int(rng.integers(0, 6)), x21=L1_BASE, **values)
    for number in range(6):
        shape = {"line": 16, "l1_stride": int(rng.integers(4, 9)) * 4, "l2_stride": 16}
        ready = int(rng.integers(0, 60))
        b.transfer(64, number=number, outward=number % 2 == 1, ready=ready, l1=128 * number, **shape)

    reports: list[Report] = []
    step = 0
    while not b.engine.idle():
        until = FOREVER
        if cuts is not None:
            until = b.engine.now + cuts[step % len(cuts)]
            step += 1
        reports += b.engine.advance(until)
    seen = [b.engine.registers(core).tobytes() for core in range(4)]
    return reports, b.engine.counters().tolist(), seen, b.memory.l1.tobytes(), b.memory.l2.tobytes()


@pytest.mark.parametrize("overrides", [{}, BUSY, ROUND_ROBIN | BUSY])
@settings(max_examples=25)
@given(seed=st.integers(0, 1 << 32), cuts=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any))
def test_cut_invariance(
    bench: BenchFactory, overrides: dict[str, object], seed: int, cuts: list[int]
) -> None:
    overrides = {"cluster.cores": 4} | overrides
    whole = run_mixed(bench, seed, overrides, None)
    assert len(whole[0]) == 4 + 6  # every core returned, every transfer ended
    assert run_mixed(bench, seed, overrides, cuts) == whole


# -- what instructions compute ---------------------------------------------------------------------


def i32(value: int) -> int:
    return int(np.uint32(value).view(np.int32))


def u32(value: Any) -> int:
    return int(value) % (1 << 32)


def clip_bits(bits: int) -> int:
    return int(2.0 ** (bits - 1)) if bits else 0


INTEGER: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "sll": lambda a, b: a * 2 ** (b % 32),
    "srl": lambda a, b: a // 2 ** (b % 32),
    "sra": lambda a, b: math.floor(Fraction(i32(a), 2 ** (b % 32))),
    "slt": lambda a, b: int(np.int32(i32(a)) < np.int32(i32(b))),
    "sltu": lambda a, b: int(np.uint32(a) < np.uint32(b)),
    "xor": lambda a, b: (a | b) - (a & b),
    "or": lambda a, b: a + b - (a & b),
    "and": lambda a, b: a + b - (a | b),
    "mul": lambda a, b: i32(a) * i32(b),
    "mulh": lambda a, b: i32(a) * i32(b) // (1 << 32),
    "mulhsu": lambda a, b: i32(a) * b // (1 << 32),
    "mulhu": lambda a, b: int(np.uint64(a) * np.uint64(b) >> np.uint64(32)),
    "div": lambda a, b: int(Fraction(i32(a), i32(b))) if b else -1,
    "divu": lambda a, b: math.floor(Fraction(a, b)) if b else -1,
    "rem": lambda a, b: int(math.fmod(i32(a), i32(b))) if b else a,
    "remu": lambda a, b: int(math.fmod(a, b)) if b else a,
    "p.min": lambda a, b: int(np.minimum(np.int32(i32(a)), np.int32(i32(b)))),
    "p.minu": lambda a, b: int(np.minimum(np.uint32(a), np.uint32(b))),
    "p.max": lambda a, b: int(np.maximum(np.int32(i32(a)), np.int32(i32(b)))),
    "p.maxu": lambda a, b: int(np.maximum(np.uint32(a), np.uint32(b))),
}
IMMEDIATE = {
    "addi": "add",
    "slti": "slt",
    "sltiu": "sltu",
    "xori": "xor",
    "ori": "or",
    "andi": "and",
    "slli": "sll",
    "srli": "srl",
    "srai": "sra",
}
BRANCHES: dict[str, Callable[[int, int], bool]] = {
    "beq": lambda a, b: a == b,
    "bne": lambda a, b: a != b,
    "blt": lambda a, b: i32(a) < i32(b),
    "bge": lambda a, b: i32(a) >= i32(b),
    "bltu": lambda a, b: a < b,
    "bgeu": lambda a, b: a >= b,
}
EDGES = [0, 1, 2, 31, 32, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF]
PATTERNS = st.sampled_from(EDGES) | st.integers(0, 0xFFFFFFFF)


def test_every_integer_instruction_is_in_the_tables() -> None:
    units = (isa.Unit.ALU, isa.Unit.MUL, isa.Unit.MULH, isa.Unit.DIV, isa.Unit.BRANCH)
    special = {"lui", "auipc", "p.mac", "p.msu", "p.abs", "p.clip", "p.clipu"}
    known = {*INTEGER, *IMMEDIATE, *BRANCHES, *special}
    base = [r for r in isa.INSTRUCTIONS if r.unit in units and (not r.mnemonic.startswith("p.") or r.mnemonic in known)]
    assert {r.mnemonic for r in base} == known  # the rest of Xpulp: test_xpulp.py


@settings(max_examples=150)
@given(
    a=PATTERNS,
    b=PATTERNS,
    d=PATTERNS,
    i12=st.sampled_from([-2048, -1, 0, 2047]) | st.integers(-2048, 2047),
    u5=st.integers(0, 31),
    u20=st.integers(0, 0xFFFFF),
)
def test_integer_instructions(
    bench: BenchFactory, a: int, b: int, d: int, i12: int, u5: int, u20: int
) -> None:
    builder = Builder()
    expected: list[int] = []

    def store(value: int, register: str = "x5") -> None:
        builder("sw", register, ("a0", 4 * len(expected)))
        expected.append(u32(value))

    for mnemonic, function in INTEGER.items():
        builder(mnemonic, "x5", "x6", "x7")
        store(function(a, b))
    for mnemonic, name in IMMEDIATE.items():
        immediate = u5 if name in ("sll", "srl", "sra") else i12
        builder(mnemonic, "x5", "x6", immediate)
        store(INTEGER[name](a, u32(immediate)))
    for mnemonic, condition in BRANCHES.items():
        skip = builder.label()
        builder("addi", "x5", "x0", 1)
        builder(mnemonic, "x6", "x7", skip)
        builder("addi", "x5", "x0", 0)
        builder.place(skip)
        store(condition(a, b))
    for mnemonic, sign in (("p.mac", 1), ("p.msu", -1)):
        builder("addi", "x5", "x8", 0)
        builder(mnemonic, "x5", "x6", "x7")
        store(d + sign * a * b)
    builder("p.abs", "x5", "x6")
    store(abs(i32(a)))
    builder("p.clip", "x5", "x6", u5)
    store(int(np.clip(i32(a), -clip_bits(u5) if u5 else -1, clip_bits(u5) - 1 if u5 else 0)))
    builder("p.clipu", "x5", "x6", u5)
    store(int(np.clip(i32(a), 0, clip_bits(u5) - 1 if u5 else 0)))
    builder("lui", "x5", u20)
    store(u20 * 4096)
    builder("add", "x6", "x6", "x6")  # the target may be a source
    store(a + a, "x6")
    builder("add", "x0", "x7", "x7")
    store(0, "x0")
    builder.ret()
    machine = bench()
    machine.cycles(builder.build(), x6=a, x7=b, x8=d)
    assert machine.memory.read(L1_BASE, len(expected), np.uint32).tolist() == expected


LOADS = {"lb": np.int8, "lbu": np.uint8, "lh": np.int16, "lhu": np.uint16, "lw": np.int32}


@pytest.mark.parametrize("base", [L1_BASE + 256, L2_BASE + 0x10000])
@settings(max_examples=30)
@given(data=st.binary(min_size=8, max_size=8), offset=st.integers(0, 4))
def test_loads(bench: BenchFactory, base: int, data: bytes, offset: int) -> None:
    """All four addressing forms; post-increment leaves base + increment, or the loaded value."""
    for mnemonic, dtype in LOADS.items():
        expected = u32(np.frombuffer(data, dtype, 1, offset)[0])
        b = bench()
        b.memory.write(base, np.frombuffer(data, np.uint8))
        program = code(
            (mnemonic, "x5", ("x10", offset)),
            ("p." + mnemonic, "x6", ("x10", "x11")),
            ("add", "x12", "x10", "x11"),
            ("p." + mnemonic, "x7", ("x12", -5, "!")),
            ("add", "x13", "x10", "x11"),
            ("p." + mnemonic, "x8", ("x13", "x14", "!")),
            ("add", "x15", "x10", "x11"),
            ("p." + mnemonic, "x15", ("x15", 4, "!")),
            (mnemonic, "x0", ("x10", offset)),
        )
        b.cycles(program, x10=base, x11=offset, x14=-7)
        values = [b.register(f"x{n}") for n in (5, 6, 7, 8, 15)]
        assert values == [expected] * 5
        assert b.register("x12") == base + offset - 5 and b.register("x13") == base + offset - 7
        assert b.register("x0") == 0


@pytest.mark.parametrize(("mnemonic", "size"), [("sb", 1), ("sh", 2), ("sw", 4)])
@pytest.mark.parametrize("base", [L1_BASE + 256, L2_BASE + 0x10000])
def test_stores(bench: BenchFactory, base: int, mnemonic: str, size: int) -> None:
    b = bench()
    b.memory.write(base, np.full(48, 0xEE, np.uint8))
    program = code(
        (mnemonic, "x5", ("x10", 1)),
        ("p." + mnemonic, "x5", ("x10", "x11")),
        ("addi", "x12", "x10", 16),
        ("p." + mnemonic, "x5", ("x12", -3, "!")),
        ("addi", "x13", "x10", 24),
        ("p." + mnemonic, "x5", ("x13", "x11", "!")),
        ("addi", "x14", "x10", 32),
        ("p." + mnemonic, "x14", ("x14", 4, "!")),  # stores the base of before
    )
    b.cycles(program, x5=0x44332211, x10=base, x11=9)
    expected = np.full(48, 0xEE, np.uint8)
    for offset in (1, 9, 16, 24):
        expected[offset : offset + size] = [0x11, 0x22, 0x33, 0x44][:size]
    expected[32 : 32 + size] = list((base + 32).to_bytes(4, "little"))[:size]
    assert b.memory.read(base, 48, np.uint8).tolist() == expected.tolist()
    assert [b.register(f"x{n}") - base for n in (12, 13, 14)] == [13, 33, 36]


FLOATS = st.sampled_from(
    [
        0,
        1 << 31,
        0x3F800000,
        0xBF800000,
        0x7F800000,
        0xFF800000,
        0x7FC00000,
        0x7F800001,
        1,
        0x007FFFFF,
        0x4F000000,
    ]
) | st.integers(0, 0xFFFFFFFF)


@pytest.mark.parametrize("registers", ["shared", "separate"])
@settings(max_examples=60)
@given(a=FLOATS, b=FLOATS, c=FLOATS)
def test_floating_point_instructions(bench: BenchFactory, registers: str, a: int, b: int, c: int) -> None:
    """Operands in their order, from either register file, to what the table of instructions says."""
    letter = "f" if registers == "separate" else "x"
    machine = bench({"cluster.fp_registers": registers})
    builder = Builder()
    expected: list[int] = []
    for instruction in isa.INSTRUCTIONS:
        if instruction.unit not in (isa.Unit.FPU, isa.Unit.FDIV):
            continue
        assert instruction.semantics is not None
        for mode in range(len(isa.ROUNDING_MODES)) if instruction.rounds else (0,):
            operands: list[str] = []
            values: list[int] = []
            for operand in instruction.operands:
                if operand == "rm":
                    operands.append(isa.ROUNDING_MODES[mode])
                    values.append(mode)
                elif operand in ("rd", "fd"):
                    operands.append((letter if operand == "fd" else "x") + "5")
                else:
                    index = int(operand[-1])
                    operands.append((letter if operand[0] == "f" else "x") + str(5 + index))
                    values.append((a, b, c)[index - 1])
            builder(instruction.mnemonic, *operands)
            builder("fsw" if operands[0][0] == "f" else "sw", operands[0], ("a0", 4 * len(expected)))
            expected.append(instruction.semantics(*values))
    builder.ret()
    patterns = {"6": a, "7": b, "8": c}
    machine.cycles(builder.build(), **{kind + n: v for kind in {letter, "x"} for n, v in patterns.items()})
    assert machine.memory.read(L1_BASE, len(expected), np.uint32).tolist() == expected


def test_separate_registers_are_late_like_the_others(bench: BenchFactory) -> None:
    b = bench({"cluster.fp_registers": "separate"})
    assert b.cycles(code(("flw", "f5", ("a0", 0)), ("fadd.s", "f6", "f5", "f5"))) == 3
    assert b.cycles(code(("flw", "f5", ("a0", 0)), ("add", "x6", "x5", "x5"))) == 2
    assert b.cycles(code(("flw", "f0", ("a0", 0)), ("fadd.s", "f6", "f0", "f0"))) == 3  # f0 is no zero
