"""Every engine behind one fixture, and a bench that runs small programs on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from pulpsim import isa
from pulpsim.code import RETURN_ROW, Code, address_of
from pulpsim.counters import Cause
from pulpsim.engine import FOREVER, Engine, Kind, Report, Transfer
from pulpsim.engine.jit import JitEngine
from pulpsim.engine.reference import ReferenceEngine
from pulpsim.memory import EVENT_UNIT_BASE, L1_BASE, L2_BASE, Memory
from pulpsim.platform import Platform
from pulpsim.program import Program

EngineClass = Callable[[Platform, Memory, Code], Engine]

#: what every test of the contract runs on
ENGINES: list[EngineClass] = [ReferenceEngine, JitEngine]


@cache
def platform(overrides: tuple[tuple[str, object], ...]) -> Platform:
    return Platform.preset("pulp-2022", dict(overrides))


class Bench:
    """One engine with its memory and code. Programs find a0 = L1, a1 = L2 data, a2 = event unit.

    Without the instruction cache unless asked for: cycles counted by hand are the instructions' own.
    """

    def __init__(self, engine_class: EngineClass, overrides: dict[str, object] | None = None):
        self.platform = platform(tuple(({"icache.enabled": False} | (overrides or {})).items()))
        self.memory = Memory(self.platform)
        self.code = Code()
        self.engine = engine_class(self.platform, self.memory, self.code)
        self._started: dict[int, int] = {}  # core -> its start less the cycles counted before

    def start(
        self, program: Program, core: int = 0, time: int = 0, entry: str | None = None, **values: int
    ) -> None:
        registers = np.zeros(isa.REGISTERS, np.uint32)
        defaults = {
            "ra": address_of(RETURN_ROW),
            "a0": L1_BASE,
            "a1": L2_BASE + 0x10000,
            "a2": EVENT_UNIT_BASE,
        }
        for name, value in (defaults | values).items():
            registers[isa.REGISTER_NUMBERS[name]] = value & isa.MASK
        self._started[core] = time - int(self.engine.counters()[core].sum())
        self.engine.start(core, self.code.load(program) + program.entry(entry), time, registers)

    def transfer(
        self,
        size: int,
        *,
        ready: int = 0,
        outward: bool = False,
        number: int = 0,
        l1: int = 0,
        l2: int = 0x10000,
        line: int | None = None,
        l1_stride: int = 0,
        l2_stride: int = 0,
    ) -> None:
        shape = (size, line or size, l1_stride, l2_stride)
        self.engine.transfer(Transfer(number, outward, l1, l2, *shape, ready))

    def run(self, until: int = FOREVER) -> list[Report]:
        """All reports up to `until`, or to a trap. The causes of every core that returns add up."""
        reports: list[Report] = []
        while True:
            new = self.engine.advance(until)
            reports += new
            for report in new:
                if report.kind == Kind.RETURNED:
                    cycles = int(self.engine.counters()[report.subject].sum())
                    assert cycles == report.time - self._started[report.subject]
            if not new or new[-1].kind == Kind.TRAP:
                return reports

    def cycles(self, program: Program, entry: str | None = None, **values: int) -> int:
        """Cycles of a program alone on core 0, without its `ret`."""
        start = self.engine.now
        self.start(program, time=start, entry=entry, **values)
        (report,) = self.run()
        assert report.kind == Kind.RETURNED
        return report.time - start - self.platform.core.jump_cycles

    def count(self, cause: Cause, core: int = 0) -> int:
        return int(self.engine.counters()[core, cause])

    def register(self, name: str, core: int = 0) -> int:
        return int(self.engine.registers(core)[isa.REGISTER_NUMBERS[name]])


@pytest.fixture(scope="session", params=ENGINES, ids=lambda engine: engine.__name__)
def engine_class(request: pytest.FixtureRequest) -> EngineClass:
    chosen: EngineClass = request.param
    return chosen


@pytest.fixture(scope="session")
def bench(engine_class: EngineClass) -> Callable[..., Bench]:
    """bench(overrides): a fresh Bench on pulp-2022 with dotted keys replaced."""
    return lambda overrides=None: Bench(engine_class, overrides)
