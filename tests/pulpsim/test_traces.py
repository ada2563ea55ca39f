"""Protects the engine of traces: it is as the fast engine where cores hear of each other, and where somebody looks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulpsim import Controller, Copy, Machine, Program, assemble
from pulpsim.engine import layout as at
from pulpsim.engine.traces import translations
from pulpsim.engine.traces.engine import FAILURES, TraceEngine
from pulpsim.engine.traces.translation import Translation
from pulpsim.errors import CycleLimitError
from pulpsim.machine import Process
from pulpsim.memory import L1_BASE, L2_BASE
from tests import conformance

DATA = L1_BASE + 0x8000
ENGINES = ("traces", "jit", "reference")

#: each core sums 64 words of its own, over and over, and stores the sum behind them
SUMS = """
    slli t0, a1, 9
    add t0, t0, a0
    li t2, 20
outer:
    mv t3, t0
    li t1, 0
    lp.setupi x0, 64, end
    p.lw t4, 4(t3!)
end: add t1, t1, t4
    sw t1, 0(t3)
    addi t2, t2, -1
    bnez t2, outer
"""
#: then it reads what the next core has stored
NEIGHBOURS = "addi t5, a1, 1\nandi t5, t5, 7\nslli t5, t5, 9\nadd t5, t5, a0\nlw t6, 256(t5)\nsw t6, 260(t0)\n"
MEETS = "li t5, 0x10204000\np.elw x0, 572(t5)\n"
CLOCK = "csrr t6, mcycle\nsw t6, 264(t0)\n"


def machine(engine: Any, **overrides: object) -> Machine:
    made = Machine(conformance.platform_with({"icache.enabled": True, **overrides}), engine)
    made.memory.write(DATA, np.random.default_rng(0).integers(-1000, 1000, 8 * 128).astype(np.int32))
    return made


def registers(core: int) -> dict[str, int]:
    return {"a0": DATA, "a1": core}


def ran(made: Machine, program: Program, delays: list[int]) -> tuple[Any, ...]:
    result = made.run(program, registers=registers, start_delays=delays)
    state = [made.engine.registers(core).tolist() for core in range(8)]
    return result, state, made.memory.l1.tobytes()


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The cycles at which stretches failed."""
    found: list[int] = []
    give_up = TraceEngine._give_up

    def noting(self: TraceEngine) -> None:
        found.append(self.now)
        give_up(self)

    monkeypatch.setattr(TraceEngine, "_give_up", noting)
    return found


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        (SUMS, False),
        (SUMS + MEETS + NEIGHBOURS, False),  # the barrier lies between
        (SUMS + NEIGHBOURS, True),
        (SUMS + CLOCK, True),
        (SUMS + "csrw fcsr, t1\nfrflags t6\n", False),  # such programs are not tried at all
        ("sw a1, 0(a0)\n", True),  # all write one word
        ("lw t0, 0(a0)\n", False),  # all read it
    ],
)
def test_cores_that_hear_of_each_other_are_run_in_order(text: str, fails: bool, failures: list[int]) -> None:
    program = assemble(text + "ret")
    for delays in ([0] * 8, [3 * core * core for core in range(8)]):
        found, *others = (ran(machine(engine), program, delays) for engine in ENGINES)
        assert [found, found] == others
    assert bool(failures) == fails


def moving(at: int, when: int, outward: bool) -> Callable[[Controller], Process]:
    """While the cores sum, 512 bytes move from or to L1, after so many cycles."""

    def controller(cluster: Controller) -> Process:
        def late() -> Process:
            yield from cluster.pause(when)
            yield from cluster.copy(Copy(outward, at, L2_BASE + 0x40000, 512))

        moves = cluster.env.process(late())
        yield from cluster.fork(PROGRAM, registers)
        yield moves

    return controller


PROGRAM = assemble(SUMS + "ret")


@settings(max_examples=20)
@given(
    at=st.sampled_from([DATA, DATA + 0x200, DATA + 0x300, DATA + 0x1000]),
    when=st.integers(0, 4000),
    outward=st.booleans(),
)
def test_transfers_that_meet_the_cores_words(at: int, when: int, outward: bool) -> None:
    """A transfer under way when they begin, or commanded while they run; of their words, or of others."""

    def outcome(engine: Any) -> tuple[Any, ...]:
        made = machine(engine)
        result = made.simulate(moving(at, when, outward))
        return result, made.memory.l1.tobytes(), made.memory.l2.tobytes()

    assert outcome("traces") == outcome("jit")


@settings(max_examples=20)
@given(when=st.lists(st.integers(0, 3000), min_size=1, max_size=4))
def test_who_looks_in_the_middle_sees_what_is_there_then(when: list[int]) -> None:
    def seen(engine: Any) -> list[Any]:
        made, found = machine(engine), list[Any]()

        def controller(cluster: Controller) -> Process:
            def looking() -> Process:
                for cycles in when:
                    yield from cluster.pause(cycles)
                    found.append((cluster.now, made.memory.l1.tobytes(), made.memory.read(DATA, 1024).tobytes()))
                    found.append((cluster.counters().tolist(), made.engine.registers(3).tolist(), made.engine.row(5)))
                    made.memory.write(DATA + 0x4000, np.zeros(1, np.int32))

            looks = cluster.env.process(looking())
            yield from cluster.fork(PROGRAM, registers)
            yield looks

        made.simulate(controller)
        return found

    assert seen("traces") == seen("reference")


def test_a_program_whose_stretches_fail_is_left_to_the_fast_engine(failures: list[int]) -> None:
    made, program = machine("traces"), assemble(SUMS + NEIGHBOURS + "ret")
    for _ in range(8):
        made.run(program, registers=registers)
    assert 0 < len(failures) <= FAILURES


@pytest.mark.parametrize(
    "spin", ["j spin", "beq x0, x0, spin", "lw t0, 0(a2)\nj spin", "addi t0, t0, 1\nbgeu t0, x0, spin"]
)
@pytest.mark.parametrize("translated", [False, True])
def test_cores_that_never_ask_for_anything_meet_the_limit(spin: str, translated: bool) -> None:
    program = assemble(f"spin: {spin}\nret")

    def message(engine: Any) -> str:
        made = machine(engine, **{"l1.conflicts": False})
        with pytest.raises(CycleLimitError) as caught:
            made.run(program, registers={"a2": L2_BASE + 0x40000}, max_cycles=200_000)
        return str(caught.value)

    with translations.translated_at_once() if translated else nullcontext():
        assert message("traces") == message("jit")


# -- translations ------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(8))
def test_translated_programs_do_the_same(seed: int) -> None:
    """Random ones, as in the conformance of engines."""
    cases = (conformance.generate(100 * seed + number, 16) for number in range(100))
    case = next(case for case in cases if case.overrides["l1.arbitration"] == "fifo" and not case.outsiders)
    with translations.translated_at_once():
        assert conformance.disagreement(case) == []


def test_a_translation_is_entered_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translations, "_translations", {})
    made: list[str] = []
    address = Translation.address

    def noting(self: Translation, arguments: tuple[Any, ...]) -> int:
        made.append(self.region.digest)
        return address(self, arguments)

    monkeypatch.setattr(Translation, "address", noting)
    with translations.translated_at_once():
        first = ran(machine("traces"), PROGRAM, [0] * 8)
        again = ran(machine("traces"), PROGRAM, [0] * 8)  # another machine, the same content
    assert len(made) == 1
    assert first == again == ran(machine("jit"), PROGRAM, [0] * 8)


def test_what_a_translation_has_no_room_for_is_left_to_the_next_part() -> None:
    made, program = machine("traces"), assemble(SUMS.replace("li t2, 20", "li t2, 2000") + "ret")
    with translations.translated_at_once(), pytest.raises(CycleLimitError):
        made.run(program, registers=registers, max_cycles=10000)
    ends = made.engine._traces[1].reshape(8, -1)[:, at.H_END] - np.arange(8) * at.TRACE
    assert (at.TRACE - 2 * len(program) < ends).all()
    assert (ends < at.TRACE - len(program)).all()  # a round has one entry


def test_what_does_not_pay_is_not_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translations, "_translations", {})
    ran(machine("traces"), assemble("li t0, 12345\n" + SUMS + "ret"), [0] * 8)
    assert not translations._translations
