"""Protects machines of which only cycles are wanted: calls that are recalled take what computed ones take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulpsim import Controller, Copy, Machine, Platform, Result, assemble
from pulpsim.engine.traces import engine
from pulpsim.errors import CycleLimitError
from pulpsim.machine import Process
from pulpsim.memory import EVENT_UNIT_BASE, L1_BASE, L2_BASE

#: all cores walk over words, meet, and walk back; the second one divides, and is longer than a line of code or two
PROGRAMS = tuple(
    assemble(text)
    for text in (
        """csrr t0, mhartid
        slli t0, t0, 2
        add a0, a0, t0
        lp.setup x0, a1, .Lto
        p.lw t2, 32(a0!)
        .Lto: fadd.s t3, t3, t2
        p.elw t1, 0x23c(a2)
        lp.setup x0, a1, .Lfro
        p.sw t3, -32(a0!)
        .Lfro: addi t4, t4, 1
        ret""",
        """csrr t0, mhartid
        add a1, a1, t0
        .Lagain: p.lw t2, 4(a0!)
        fmadd.s t3, t2, t2, t3
        fdiv.s t4, t3, t2
        mul t5, t0, a1
        div t6, t5, t0
        addi a1, a1, -1
        bnez a1, .Lagain
        sw t4, 0(a0)
        lw t4, 1(a0)
        ret""",
    )
)


def platform(**overrides: Any) -> Platform:
    return Platform.preset("pulp-2022", {"l2.size_bytes": 64 << 10, **overrides})


@st.composite
def jobs(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """(program, operand, words, start delays, (outward, L1, bytes) of a transfer beside it or None, wait first)."""
    call = st.tuples(
        st.sampled_from(PROGRAMS),
        st.sampled_from([L1_BASE + at for at in (0, 4, 64, 128, 1024, 1028)]),
        st.sampled_from([1, 3, 20]),
        st.sampled_from([(), (0, 1, 2, 3, 4, 5, 6, 7), (3, 0, 5, 1, 7, 2, 6, 4)]),
        st.none() | st.tuples(st.booleans(), st.sampled_from([0x4000, 0x4004]), st.sampled_from([8, 260, 3000])),
        st.booleans(),
    )
    return draw(st.lists(call, min_size=1, max_size=5)) * draw(st.integers(1, 4))


def run(machine: Machine, jobs: list[tuple[Any, ...]]) -> Result:
    def controller(cluster: Controller) -> Process:
        for program, operand, words, delays, transfer, waits in jobs:
            if transfer is not None:
                outward, l1, size = transfer
                number = yield from cluster.copy(Copy(outward, L1_BASE + l1, L2_BASE + 0x8000, size // 4 * 4))
                if waits:
                    yield from cluster.wait([number])
            registers = {"a0": operand, "a1": words, "a2": EVENT_UNIT_BASE}
            yield from cluster.fork(program, registers, start_delays=delays)

    return machine.simulate(controller)


@given(
    jobs=jobs(), again=jobs(), fpus=st.sampled_from([2, 8]), banks=st.sampled_from([4, 16]), cached=st.booleans(),
    room=st.sampled_from([3000, 20_000, 1 << 20]),
)  # fmt: skip
def test_recalled_calls_take_the_cycles_of_computed_ones(
    jobs: list[tuple[Any, ...]], again: list[tuple[Any, ...]], fpus: int, banks: int, cached: bool, room: int
) -> None:
    """Of whatever programs, delays and transfers beside them; on a machine that is used again; with little room."""
    on = platform(**{"cluster.fpus": fpus, "l1.banks": banks, "icache.enabled": cached})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "PARTS", room)
        machine = Machine(on, values=False)
    for work in (jobs, again, jobs):
        assert run(machine, work) == run(Machine(on, "jit"), work)
        machine.restart()


def test_a_call_is_computed_twice_and_then_recalled() -> None:
    """Operands in the same banks are as good as the same; others, and others' numbers, are not."""
    machine, done = Machine(platform(), values=False), []
    for operand, words in [(0, 9), (0, 9), (0, 9), (128, 9), (4, 9), (0, 8)]:
        machine.memory.write(L1_BASE, np.zeros(1024, np.float32))
        machine.memory.write(L1_BASE + operand, np.ones(8 * words, np.float32))
        machine.run(PROGRAMS[0], registers={"a0": L1_BASE + operand, "a1": words, "a2": EVENT_UNIT_BASE})
        done.append(bool(np.any(machine.memory.read(L1_BASE, 1024) > 1)))
    assert done == [True, True, False, False, True, True]


def test_a_call_that_was_stopped_is_not_recalled() -> None:
    machine, registers = Machine(platform(), values=False), {"a0": L1_BASE, "a1": 500, "a2": EVENT_UNIT_BASE}
    cycles = Machine(platform(), "jit").run(PROGRAMS[0], registers=registers).cycles
    for _ in range(3):
        with pytest.raises(CycleLimitError):
            machine.run(PROGRAMS[0], registers=registers, max_cycles=cycles // 2)
        machine.restart()
        assert machine.run(PROGRAMS[0], registers=registers).cycles == cycles
        machine.restart()
