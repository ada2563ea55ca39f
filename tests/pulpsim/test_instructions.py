"""Protects the trace of instructions: values, addresses, waits and their order, as lines, waves and slices."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import reference as tables
from pulpsim import Machine, Platform, Result, assemble
from pulpsim.counters import Cause
from pulpsim.instructions import Step, Tracer, Waves, add_spans, line_of
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE, L1_BASE
from pulpsim.trace import Timeline
from tests.trace_events import read

MATMULS = sorted({row["kernel"] for row in tables.rows("matmul")})


def trace(
    kernel: str, preset: str = "pulp-open", engine: Literal["jit", "reference"] = "jit", cores: int = 4, **window: Any
) -> tuple[list[Step], Machine, Result]:
    machine = Machine(Platform.preset(preset), engine)
    steps: list[Step] = []
    tracer = Tracer(machine, steps.append, **window)
    a = L1_BASE + 0x1000
    machine.memory.write(a, np.random.default_rng(1).standard_normal(512).astype(np.float32))
    values = {"a0": a, "a1": a + 4 * 40, "a2": a + 4 * 96, "a3": 5, "a4": 8, "a5": 7, "a7": cores.bit_length() - 1}
    result = machine.run(tables.program("matmul"), kernel, cores, lambda core: values | {"a6": core})
    tracer.close()
    return steps, machine, result


@given(st.sampled_from(MATMULS), st.sampled_from(["pulp-2022", "pulp-open", "vega"]), st.sampled_from([1, 2, 4, 8]))
def test_it_holds_every_cycle_and_every_value(kernel: str, preset: str, cores: int) -> None:
    steps, machine, result = trace(kernel, preset, cores=cores)
    assert [step.cycle for step in steps] == sorted(step.cycle for step in steps)
    for core in range(cores):
        own = [step for step in steps if step.core == core]
        waits = Counter[str]()
        for step in own:
            waits += Counter({cause.name.lower(): cycles for cause, cycles in step.waits.items()})
        counted = {cause.name.lower(): getattr(result.cores[core], cause.name.lower()) for cause in Cause}
        assert len(own) == counted.pop("issue")
        assert waits == {name: cycles for name, cycles in counted.items() if cycles and name != "idle"}
        registers = machine.engine.registers(core)
        known: dict[int, int] = {}
        for step in own:
            assert all(known.get(number, value) == value for number, value in step.reads)
            known |= dict(step.writes)
        assert all(int(registers[number]) == value for number, value in known.items())
        ends = [step.cycle + 1 + sum(n for cause, n in step.waits.items() if cause != Cause.ICACHE) for step in own]
        begins = [step.cycle - step.waits.get(Cause.ICACHE, 0) for step in own]
        assert ends[:-1] == begins[1:]  # no cycle of a core lies between two of its instructions


@pytest.mark.parametrize("preset", ["pulp-2022", "pulp-open"])
def test_both_engines_tell_the_same(preset: str) -> None:
    fast, slow = (trace("mm_2x2", preset, engine)[0] for engine in ("jit", "reference"))
    assert list(map(line_of, fast)) == list(map(line_of, slow))


def test_a_window_and_some_cores() -> None:
    everything, *_ = trace("mm_2x2")
    some, *_ = trace("mm_2x2", begin=50, end=200)
    assert list(map(line_of, some)) == [line_of(step) for step in everything if 50 <= step.cycle < 200]
    machine = Machine()
    told: list[Step] = []
    tracer = Tracer(machine, told.append, cores={2})
    machine.run(assemble("nop\nret"), cores=4)
    tracer.close()
    assert {step.core for step in told} == {2} and len(told) == 2


def test_a_line() -> None:
    machine, lines = Machine(Platform.preset("pulp-2022", {"icache.enabled": False})), list[str]()
    tracer = Tracer(machine, lambda step: lines.append(line_of(step)))
    machine.memory.write(L1_BASE + 8, np.array([0x1234], np.int32))
    program = assemble("go: p.lw t1, 4(a0!)\nadd t2, t1, a0\nsw t2, -4(a0)\nret")
    machine.run(program, cores=1, registers={"a0": L1_BASE + 8})
    tracer.close()
    assert [" ".join(line.split()) for line in lines] == [
        "0 0 0x1c000010 p.lw t1, 4(a0!) a0=0x10000008 [0x10000008] a0=0x1000000c t1=0x1234",
        "1 0 0x1c000014 add t2, t1, a0 t1=0x1234 a0=0x1000000c t2=0x10001240 load use 1",
        "3 0 0x1c000018 sw t2, -4(a0) a0=0x1000000c t2=0x10001240 [0x10000008]",
        "4 0 0x1c00001c ret ra=0x1c000000 branch 1",
    ]


def test_barriers_are_known_when_they_end() -> None:
    """A core that waits holds nothing back but what comes later."""
    text = "bnez a6, 1f\nli t0, 40\nlp.setup x0, t0, 2f\nnop\n2: nop\n1: p.elw x0, 0(a1)\nret"
    machine, told = Machine(), list[Step]()
    tracer = Tracer(machine, told.append)
    result = machine.run(
        assemble(text), cores=4, registers=lambda core: {"a1": EVENT_UNIT_BASE + BARRIER_OFFSET, "a6": core}
    )
    tracer.close()
    waits = {step.core: step.waits.get(Cause.BARRIER, 0) for step in told if step.text.startswith("p.elw")}
    assert waits == {core: result.cores[core].barrier for core in range(4)} and waits[1] > 80
    assert [step.cycle for step in told] == sorted(step.cycle for step in told)


def test_waves() -> None:
    """A VCD file: times rise, and each core's causes last as long as it waited."""
    steps, _, result = trace("mm_2x2")
    lines: list[str] = []
    waves = Waves(range(4), lines.append, late=20)
    for step in steps:
        waves.add(step)
    waves.close()
    text = "".join(lines)
    marks = dict(re.findall(r"\$scope module core(\d) .*?\$var wire 4 (\S+) waits", text.replace("\n", " ")))
    body = text.partition("$enddefinitions $end\n")[2]
    times = [int(line[1:]) for line in body.splitlines() if line.startswith("#")]
    assert times == sorted(set(times)) and times[-1] >= steps[-1].cycle
    for core, mark in marks.items():
        spent, now, since, value = Counter[int](), 0, 0, 15
        for line in body.splitlines():
            if line.startswith("#"):
                now = int(line[1:])
            elif line.startswith("b") and line.endswith(f" {mark}"):
                spent[value] += now - since
                since, value = now, int(line[1:].split()[0], 2)
        own = result.cores[int(core)]
        assert all(spent[cause] == getattr(own, Cause(cause).name.lower()) for cause in range(10)), core


def test_slices() -> None:
    """A timeline: each core's instructions, a cycle long, and their waits, one behind the other."""
    steps, _, result = trace("mm_2x2")
    timeline = Timeline()
    for step in steps:
        add_spans(step, timeline)
    shown = read(timeline.to_json())
    for core in range(4):
        slices = shown.tracks["cluster", f"core {core}"]
        own = result.cores[core]
        assert slices[-1].end - slices[0].begin == own.total - own.idle
        assert sum(one.end - one.begin for one in slices if one.name == "icache") == own.icache


def test_a_trace_of_a_program_that_traps_ends_there() -> None:
    machine, told = Machine(), list[Step]()
    tracer = Tracer(machine, told.append)
    with pytest.raises(Exception, match="outside L1"):
        machine.run(assemble("nop\nlw t0, 0(x0)\nret"), cores=1)
    tracer.close()
    assert [step.text for step in told] == ["nop"]
