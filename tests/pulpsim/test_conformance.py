"""Protects the engines' equality: the fast one does what the reference does, and horizons change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import reference as tables
from pulpsim import Machine, Platform, Program, Result, assemble
from pulpsim.code import Code, address_of
from pulpsim.engine import FOREVER, Engine, Kind, Report, Trap
from pulpsim.engine.jit import JitEngine
from pulpsim.engine.reference import ReferenceEngine
from pulpsim.memory import L1_BASE, L2_BASE, Memory
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
    for engine_class in (ReferenceEngine, JitEngine):
        platform, code = conformance.platform_with({"icache.enabled": False}), Code()
        engine = engine_class(platform, Memory(platform), code)
        first = code.load(Program(rows))
        engine.start(0, first, 3, np.zeros(64, np.uint32))
        fault = int(Trap.TARGET) << 32 | address_of(first + target) & 0xFFFFFFFF
        assert engine.advance(FOREVER) == [Report(Kind.TRAP, 3, 0, fault)]
        assert engine.row(0) == first and not engine.counters().any()


# -- the programs of the measured tables -------------------------------------------------------------
PLATFORMS = {
    "pulp-2022": Platform.preset("pulp-2022"),
    "pulp-open": Platform.preset("pulp-open"),
    "round-robin": Platform.preset("pulp-open", {"l1.arbitration": "round-robin"}),
}
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
        reference, fast = (
            run(engine, platform, "matmul", kernel, cores, **values) for engine in ("reference", "jit")
        )
        assert reference == fast


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=PLATFORMS)
@pytest.mark.parametrize("kernel", MICRO)
def test_micro_benchmarks(platform: Platform, kernel: str) -> None:
    values = {"a1": L2_BASE + 0x10000, "a2": 0x10204000}
    for cores in (1, 6):
        reference, fast = (
            run(engine, platform, "micro", kernel, cores, **values) for engine in ("reference", "jit")
        )
        assert reference == fast
