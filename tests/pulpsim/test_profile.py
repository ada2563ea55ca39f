"""Protects profiles: every cycle of an instruction once, on either engine, and what is said of the loops."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import pytest

from benchmarks import reference as tables
from pulpsim import Machine, Platform, Result, assemble
from pulpsim.counters import ENGINE_CAUSES, Cause
from pulpsim.instructions import Tracer
from pulpsim.memory import L1_BASE
from pulpsim.profile import Part, Profiler, merged
from pulpsim.profile.flames import collapsed, speedscope, stacks
from pulpsim.profile.hot import hot_loops
from pulpsim.profile.loops import loops_of
from pulpsim.profile.tables import listing, loops_table
from pulpsim.profile.what_if import variants, what_if_table
from pulpsim.program import Builder
from pulpsim.tables import records

MATMULS = sorted({row["kernel"] for row in tables.rows("matmul")})
Engine = Literal["jit", "reference"]


def run(engine: Engine, platform: Platform, kernel: str, look: bool = True) -> tuple[Result, list[Part], bytes]:
    """A matmul of (8, 9, 10) on four cores."""
    machine = Machine(platform, engine)
    profiler = Profiler(machine) if look else None
    machine.memory.write(L1_BASE + 0x1000, np.random.default_rng(1).standard_normal(4096).astype(np.float32))
    a = L1_BASE + 0x1000
    values = {"a0": a, "a1": a + 4 * 72, "a2": a + 4 * 162, "a3": 8, "a4": 9, "a5": 10, "a7": 2}
    result = machine.run(tables.program("matmul"), kernel, 4, lambda core: values | {"a6": core})
    return result, [] if profiler is None else profiler.take(), machine.memory.l1.tobytes()


@pytest.mark.parametrize("kernel", MATMULS[::3])
@pytest.mark.parametrize("preset", ["pulp-2022", "pulp-open"])
def test_instructions_add_up_to_what_the_cores_counted_on_either_engine(preset: str, kernel: str) -> None:
    platform = Platform.preset(preset)
    (fast, (mine,), _), (slow, (theirs,), _) = (run(engine, platform, kernel) for engine in ("jit", "reference"))
    assert np.array_equal(mine.counts, theirs.counts) and fast == slow
    for core, counts in zip(fast.cores, mine.counts, strict=False):
        spent = [getattr(core, Cause(cause).name.lower()) for cause in range(ENGINE_CAUSES)]
        assert counts.sum(axis=0).tolist() == spent
    assert mine.executed == fast.instructions


def test_a_run_that_is_looked_at_is_the_same_run() -> None:
    platform = Platform.preset("pulp-open")
    for engine in ("jit", "reference"):
        (seen, _, bytes_seen), (unseen, _, bytes_unseen) = (run(engine, platform, "mm_2x2", look) for look in (1, 0))
        assert seen == unseen and bytes_seen == bytes_unseen


def test_what_was_since_the_last_time() -> None:
    """Two runs, and another program between them: parts are told apart and put together."""
    machine = Machine()
    profiler = Profiler(machine)
    one, other = assemble("one: nop\nnop\nret", "one.S"), assemble("other: nop\nret", "other.S")
    parts = []
    for program in (one, other, one):
        machine.run(program, cores=2)
        parts += profiler.take()
    assert [(part.program, part.executed) for part in parts] == [(one, 6), (other, 4), (one, 6)]
    assert [(part.program, part.executed) for part in merged(parts)] == [(one, 12), (other, 4)]
    assert profiler.take() == []


NEST = """
outer:
    li   t0, 3
1:  lp.setup x1, a0, 3f
    lp.setup x0, a1, 2f
    lw   t1, 0(a2)
    add  t2, t1, t1          # waits for the load
2:  nop
    nop
3:  nop
    addi t0, t0, -1
    bnez t0, 1b
    ret
"""


def test_loops_in_loops() -> None:
    """Branches back, and hardware loops of both levels; a turn's cycles and what limits them."""
    program, machine = assemble(NEST, "nest.S"), Machine(Platform.preset("pulp-2022", {"icache.enabled": False}))
    assert [(loop.first, loop.last) for loop in loops_of(program)] == [(1, 9), (2, 7), (3, 5)]
    profiler = Profiler(machine)
    machine.run(program, "outer", 1, {"a0": 4, "a1": 5, "a2": L1_BASE})
    hot = {hot.loop.first: hot for hot in hot_loops(profiler.take(), machine.platform)}
    assert [hot[first].turns for first in (1, 2, 3)] == [3, 12, 60]
    assert (hot[3].cycles_per_turn, hot[3].limits["issue"], hot[3].limits["load-use"]) == (4, 3, 4)
    assert (hot[3].bound, hot[3].loss) == ("load-use", Cause.LOAD_USE) and "`add t2, t1, t1`" in hot[3].remedy
    assert hot[1].loss is Cause.BRANCH and "lp.setup" in hot[1].remedy
    assert hot[2].loss is None and hot[2].bound == "issue"


def test_loops_in_parts_and_endless_ones() -> None:
    program = assemble("lp.starti x0, 1f\nlp.endi x0, 2f\nlp.count x0, a0\n1: nop\n2: nop\n3: j 3b\njal ra, 1b")
    assert [(loop.first, loop.last) for loop in loops_of(program)] == [(3, 4), (5, 5)]


@pytest.mark.parametrize(
    "text, cause, said",
    [
        ("lw t1, 0(a2)\nlw t2, 64(a2)\nnop", Cause.BANK_CONFLICT, "l1.banks"),
        ("fadd.s t1, t1, t1\nfadd.s t2, t2, t2\nnop", Cause.FPU_CONTENTION, "cluster.fpus"),
        ("div t1, t1, a0\nnop", Cause.MULDIV, "out of the loop"),
        ("lw t1, 1(a2)\nnop", Cause.MISALIGNED, "multiples of 4"),
        ("lw t1, 0(a3)\nnop", Cause.L2, "DMA"),
    ],
)
def test_every_loss_has_its_remedy(text: str, cause: Cause, said: str) -> None:
    *body, last = text.split("\n")
    program = assemble("\n".join(["lp.setup x0, a0, 1f", *body, f"1: {last}", "ret"]))
    machine = Machine(Platform.preset("pulp-open", {"icache.enabled": False}))
    profiler = Profiler(machine)
    cores = None if cause in (Cause.BANK_CONFLICT, Cause.FPU_CONTENTION) else 1
    machine.run(program, cores=cores, registers={"a0": 50, "a2": L1_BASE, "a3": 0x1C010000})
    (hot,) = hot_loops(profiler.take(), machine.platform)
    assert hot.loss is cause and said in hot.remedy


def test_code_that_is_brought_once_is_no_fault_of_the_loop() -> None:
    machine = Machine()
    profiler = Profiler(machine)
    machine.run(assemble("lp.setup x0, a0, 1f" + "\nnop" * 6 + "\n1: nop\nret"), registers={"a0": 20})
    (hot,) = hot_loops(profiler.take(), machine.platform)
    assert hot.loss is Cause.ICACHE and "first turn" in hot.remedy


def test_a_listing_says_what_was_written() -> None:
    """Registers and labels by their names, macros filled in, lines; of what never ran nothing is said."""
    text = ".macro twice r\nadd \\r, \\r, \\r\n.endm\nmain:\n li a5, 0x12345678\n twice a5\n ret\nnever: nop\n ret"
    machine = Machine()
    profiler = Profiler(machine)
    machine.run(assemble(text, "main.S"), cores=1)
    (part,) = profiler.take()
    rows = records(listing(part))
    assert [(row["line"], row["text"]) for row in rows] == [
        (5, "li a5, 0x12345678"), (5, "addi x15,x15,1656"), (6, "add a5, a5, a5"), (7, "ret"),
    ]  # fmt: skip
    assert rows[0]["labels"] == ["main"] and sum(row["cycles"] for row in rows) == part.cycles
    assert sum(sum(core.values()) for row in rows for core in row["cores"]) == part.cycles


def test_a_builders_names_are_kept() -> None:
    b = Builder("kernel")
    x, total, count = b.register("x"), b.register("total"), b.register("x0")
    b.entry("sum")
    with b.loop(0, 200):
        b("p.lw", x, (total, 4, "!"))
        b("add", total, x, count)
    b.ret()
    written = list(b.build().written)
    assert "p.lw x, 4(total!)" in written and "add total, x, x0'" in written  # no value is the register x0
    assert any(re.fullmatch(r"lp.setup.*, \.L\d+", text) for text in written)


def test_stacks_hold_every_cycle_once() -> None:
    result, parts, _ = run("jit", Platform.preset("pulp-2022"), "mm_2x2")
    found = stacks(parts, ("run",))
    assert sum(found.values()) == parts[0].cycles == sum(core.total - core.idle for core in result.cores)
    assert all(stack[0] == "run" and stack[1] == "mm_2x2" for stack in found)
    assert max(found, key=lambda stack: found[stack])[-1] == "issue"
    lines = collapsed(found).splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == parts[0].cycles
    file = speedscope(found, "run")
    (profile,), frames = file["profiles"], file["shared"]["frames"]
    assert sum(profile["weights"]) == profile["endValue"] == parts[0].cycles
    assert all(0 <= frame < len(frames) for sample in profile["samples"] for frame in sample)
    assert [tuple(frames[frame]["name"] for frame in sample) for sample in profile["samples"]] == list(found)


@pytest.mark.parametrize("preset", Platform.presets())
def test_what_if_there_were_more(preset: str) -> None:
    """Each variant is a platform; what one has already is not offered."""
    platform = Platform.preset(preset)
    others = variants(platform)
    assert "all of it" in others and len(others) > 3
    assert any("FPU" in name for name in others) == (not platform.fpus_are_private)
    best = others["all of it"]
    assert not best.l1.conflicts and not best.icache.enabled and "no bank conflicts" not in variants(best)
    cycles = {name: run_cycles(other) for name, other in others.items()}
    assert min(cycles.values()) == cycles["all of it"] < run_cycles(platform)
    table = records(what_if_table(run_cycles(platform), cycles))
    assert all(row["saved"] == table[0]["cycles"] - row["cycles"] for row in table[1:])


def run_cycles(platform: Platform) -> int:
    return run("jit", platform, "mm_2x2", look=False)[0].cycles


def test_loops_as_a_table() -> None:
    _, parts, _ = run("jit", Platform.preset("pulp-2022"), "mm_2x2")
    rows = records(loops_table(hot_loops(parts, Platform.preset("pulp-2022")), parts[0].cycles))
    assert [row["cycles"] for row in rows] == sorted((row["cycles"] for row in rows), reverse=True)
    assert rows[0]["bound"] == "issue" and rows[0]["limits"]["issue"] == 8  # four loads, four multiply-adds
    assert rows[0]["cycles_per_turn"] >= rows[0]["bound_cycles"]


@pytest.mark.parametrize("engine", ["jit", "reference"])
def test_who_comes_later_takes_nothing_away(engine: Engine) -> None:
    machine, program = Machine(None, engine), assemble("nop\nnop\nret")
    profiler = Profiler(machine)
    machine.run(program, cores=1)
    tracer = Tracer(machine, lambda step: None)
    machine.run(program, cores=1)
    tracer.close()
    assert profiler.take()[0].executed == 6


def test_several_look_on_at_once() -> None:
    machine = Machine()
    profiler, told = Profiler(machine), []
    tracer = Tracer(machine, told.append)
    result = machine.run(assemble("nop\nnop\nret"), cores=3)
    tracer.close()
    assert len(told) == profiler.take()[0].executed == result.instructions == 9
