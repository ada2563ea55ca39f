"""Protects the engines' equality: the fast one does what the reference does, and horizons change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import reference as tables
from pulpsim import Machine, Platform, Program, Result, assemble, isa
from pulpsim.code import RETURN_ROW, Code, address_of
from pulpsim.engine import FOREVER, Engine, Kind, Report, Trap
from pulpsim.engine.jit import JitEngine
from pulpsim.engine.reference import ReferenceEngine
from pulpsim.engine.traces.engine import TraceEngine
from pulpsim.memory import EVENT_UNIT_BASE, L1_BASE, L2_BASE, Memory
from pulpsim.program import TARGET
from tests import conformance

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=max(240, settings().max_examples))
@given(seed=SEEDS, size=st.integers(1, 24))
def test_engines_agree(seed: int, size: int) -> None:
    case = conformance.generate(seed, size)
    if conformance.disagreement(case):
        small = conformance.shrink(case, conformance.fails, attempts=500)
        pytest.fail("\n".join([str(small), *conformance.disagreement(small)]))


@settings(max_examples=max(60, settings().max_examples))
@given(seed=SEEDS)
def test_horizons_change_nothing(seed: int) -> None:
    """The reference engine's end, with cuts and without; `disagreement` looks at the fast one's."""
    case = conformance.generate(seed)
    cut, whole = (conformance.play(case, ReferenceEngine, cuts)[-1] for cuts in (case.cuts, ()))
    assert list(cut.differences(whole)) == []


@pytest.mark.parametrize("engine_class", [ReferenceEngine, JitEngine, TraceEngine])
@given(seed=SEEDS, until=st.integers(0, 400), watched=st.booleans())
def test_an_engine_that_is_restarted_anywhere_is_as_new(
    engine_class: type[ReferenceEngine], seed: int, until: int, watched: bool
) -> None:
    case = conformance.generate(seed)
    player = conformance.Player(case, *conformance.build(case), engine_class, watched)
    player.begin_team()
    player.advance(until)
    player.restart()
    played = player.play(case.cuts)
    new = conformance.play(case, engine_class)
    assert len(played) == len(new)
    for mine, theirs in zip(played, new, strict=True):
        assert list(mine.differences(theirs, watched=False)) == []


def test_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert conformance.main(["--cases", "2"]) == 0
    assert "no difference" in capsys.readouterr().out

    def wrong(platform: Platform, memory: Memory, code: Code) -> Engine:
        return ReferenceEngine(
            platform.replace({"core.mul_cycles": platform.core.mul_cycles + 1}), memory, code
        )

    monkeypatch.setattr(conformance, "JitEngine", wrong)
    assert conformance.main(["--cases", "60", "--size", "4"]) == 1
    out = capsys.readouterr().out
    program = [line for line in out.splitlines() if line.startswith("mul ")]
    assert len(program) == 1 and "counters" in out  # nothing but a multiplication is left


@pytest.mark.parametrize("target", [-1000, 1000])
def test_a_loop_that_starts_outside_the_code_is_a_trap(target: int) -> None:
    """No assembly text can say this; a Program of other origin can."""
    program = assemble("lp.starti x1,.Lhere\n.Lhere: nop\nret")
    rows = program.rows.copy()
    rows[0, TARGET] = target
    for engine_class in (ReferenceEngine, JitEngine, TraceEngine):
        platform, code = conformance.platform_with({"icache.enabled": False}), Code()
        engine = engine_class(platform, Memory(platform), code)
        first = code.load(Program(rows))
        engine.start(0, first, 3, np.zeros(64, np.uint32))
        fault = int(Trap.TARGET) << 32 | address_of(first + target) & 0xFFFFFFFF
        assert engine.advance(FOREVER) == [Report(Kind.TRAP, 3, 0, fault)]
        assert engine.row(0) == first and not engine.counters().any()


@pytest.mark.parametrize("engine_class", [ReferenceEngine, JitEngine, TraceEngine])
def test_a_team_started_in_one_call_is_one_whose_cores_are_started_one_by_one(
    engine_class: type[ReferenceEngine] | type[JitEngine],
) -> None:
    program = assemble("csrr t0, mhartid\nbeq t0, x0, .Lalone\nadd a0, a0, a1\n.Lalone: p.elw t1, 0x23c(a2)\nret")
    registers = np.random.default_rng(4).integers(0, 1 << 32, (5, isa.REGISTERS), np.uint32)
    registers[:, isa.REGISTER_NUMBERS["ra"]] = address_of(RETURN_ROW)
    registers[:, isa.REGISTER_NUMBERS["a2"]] = EVENT_UNIT_BASE
    seen = []
    for at_once in (True, False):
        platform, code = conformance.platform_with({}), Code()
        engine = engine_class(platform, Memory(platform), code)
        row = code.load(program)
        for _ in range(2):
            times = [engine.now + delay for delay in (3, 0, 70, 5, 5)]
            if at_once:
                engine.start_team(row, times, registers)
            else:
                engine.begin_team([0, 1, 2, 3, 4])
                for core, time in enumerate(times):
                    engine.start(core, row, time, registers[core])
            while not engine.idle():
                seen.append((engine.advance(FOREVER), engine.counters().tolist(), engine.now))
            seen.append([engine.registers(core).tolist() for core in range(platform.cluster.cores)])
    half = len(seen) // 2
    assert half > 2 and seen[:half] == seen[half:]


@pytest.mark.parametrize("engine_class", [ReferenceEngine, JitEngine, TraceEngine])
def test_a_team_does_not_start_while_one_of_its_cores_runs_nor_in_the_past_nor_outside_the_code(
    engine_class: type[ReferenceEngine] | type[JitEngine],
) -> None:
    platform, code = conformance.platform_with({}), Code()
    engine, registers = engine_class(platform, Memory(platform), code), np.zeros((2, isa.REGISTERS), np.uint32)
    row = code.load(assemble("nop\nnop"))
    engine.start(1, row, 10, registers[0])
    with pytest.raises(ValueError, match="core 1 is running: a team begins before its cores start"):
        engine.start_team(row, [20, 20], registers)
    engine.advance(15)
    with pytest.raises(ValueError, match="core 0 cannot start at 14: it is 15"):
        engine.start_team(row, [14], registers[:1])
    with pytest.raises(ValueError, match=f"core 0 cannot start at row 999: there are {len(code.rows)}"):
        engine.start_team(999, [15], registers[:1])


# -- the programs of the measured tables -------------------------------------------------------------
PLATFORMS = {
    "pulp-2022": Platform.preset("pulp-2022"),
    "pulp-open": Platform.preset("pulp-open"),
    "round-robin": Platform.preset("pulp-open", {"l1.arbitration": "round-robin"}),
}
ENGINES = ("reference", "jit", "traces")
MATMULS = sorted({row["kernel"] for row in tables.rows("matmul")})
MICRO = sorted({row["kernel"] for row in tables.rows("micro")} | {"ub_jr_dep"})


def run(engine: Any, platform: Platform, table: str, kernel: str, cores: int, **values: int) -> Any:
    machine = Machine(platform, engine)
    floats = np.random.default_rng(1).standard_normal(4096).astype(np.float32)
    machine.memory.write(L1_BASE + 0x1000, floats)

    def registers(core: int) -> dict[str, int]:
        return {"a0": L1_BASE + 0x1000, "a6": core, "a7": cores.bit_length() - 1, **values}

    result: Result = machine.run(tables.program(table), kernel, cores, registers)
    state = [machine.engine.registers(core).tolist() for core in range(cores)]
    return result, state, machine.memory.l1.tobytes()


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=PLATFORMS)
@pytest.mark.parametrize("kernel", MATMULS)
def test_matmuls(platform: Platform, kernel: str) -> None:
    for cores, (n, k, m) in ((1, (7, 9, 5)), (8, (7, 9, 5)), (4, (8, 8, 8)), (8, (8, 16, 8))):
        b = L1_BASE + 0x1000 + 4 * n * k
        values = {"a1": b, "a2": b + 4 * k * m, "a3": n, "a4": k, "a5": m}
        reference, *others = (run(engine, platform, "matmul", kernel, cores, **values) for engine in ENGINES)
        assert others == [reference] * 2


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=PLATFORMS)
@pytest.mark.parametrize("kernel", MICRO)
def test_micro_benchmarks(platform: Platform, kernel: str) -> None:
    values = {"a1": L2_BASE + 0x10000, "a2": 0x10204000}
    for cores in (1, 6):
        reference, *others = (run(engine, platform, "micro", kernel, cores, **values) for engine in ENGINES)
        assert others == [reference] * 2
