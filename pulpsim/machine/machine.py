"""The machine: a cluster with its memories and the programs loaded into them, and runs without a controller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pulpsim.arguments import text, whole
from pulpsim.code import Code, check_registers
from pulpsim.counters import Cause
from pulpsim.engine import FOREVER, Engine, Kind
from pulpsim.errors import CycleLimitError, ProgramError, nearest
from pulpsim.machine import limits
from pulpsim.machine.controller import Controller
from pulpsim.machine.domain import Process
from pulpsim.machine.faults import check, whereabouts
from pulpsim.machine.instruments import Instrument
from pulpsim.machine.limits import limit_of
from pulpsim.machine.limits import start_delays as delays_of
from pulpsim.machine.registers import Registers, presets, register_files
from pulpsim.machine.result import Result
from pulpsim.machine.simulation import simulate
from pulpsim.memory import L1_BASE, Memory, stack_base
from pulpsim.platform import Platform
from pulpsim.program import Program
from pulpsim.trace import Timeline


class Machine:
    """A cluster with its memories. `engine`: "traces" (fastest), "jit" (fast) or "reference" (plain Python).

    platform: also a preset's name or a TOML file. values: False if only cycles are wanted, and they hang on no data:
    "traces" then computes a call that comes again, with the same numbers, its operands in the same banks, but twice,
    whatever its start delays; what memories and registers hold is of no meaning. Raises PlatformError, ProgramError.
    """

    def __init__(
        self, platform: Platform | str | Path | None = None, engine: Literal["traces", "jit", "reference"] = "traces",
        values: bool = True,
    ):  # fmt: skip
        self.platform = Platform.of(platform)
        self.memory = Memory(self.platform)
        self.code = Code()
        self._presets = presets(self.platform)
        self.engine: Engine
        self.team: list[int] = []  #: cores that meet at barriers
        self.instruments: tuple[Instrument, ...] = ()
        if text(engine) == "traces":
            from pulpsim.engine.traces.engine import TraceEngine

            self.engine = TraceEngine(self.platform, self.memory, self.code, values)
        elif text(engine) == "jit":
            from pulpsim.engine.jit import JitEngine

            self.engine = JitEngine(self.platform, self.memory, self.code)
        elif text(engine) == "reference":
            from pulpsim.engine.reference import ReferenceEngine

            self.engine = ReferenceEngine(self.platform, self.memory, self.code)
        else:
            known = nearest(engine, ("traces", "jit", "reference"))
            raise ProgramError(f"no engine {engine!r}{known}: traces, jit or reference")

    def restart(self) -> None:
        """As a machine just made, with the programs that it holds in their places; nobody looks on.

        Faster than a new machine.
        """
        self.engine.restart()
        self.memory.clear()
        self.code.restore(self.memory)
        self.team, self.instruments = [], ()

    def attach(self, *instruments: Instrument) -> None:
        """From now on these look on, and no others; a machine that nobody looks at is faster."""
        self.instruments = instruments
        self.engine.watch(self._noted if any(instrument.entries for instrument in instruments) else None)

    def _noted(self, entries: NDArray[np.int64]) -> None:
        for instrument in self.instruments:
            if instrument.entries:
                instrument.noted(entries)

    def load(self, program: Program) -> int:
        """Place a program in L2 (once); returns its first row. Raises ProgramError."""
        if not isinstance(program, Program):
            kind = type(program).__name__
            raise ProgramError(f"program of type {kind}: must be a Program; assemble(text) and Builder make some")
        if not self.code.holds(program):
            check_registers(program, self.platform.cluster.fp_registers == "separate")
            self._check_room(program)
        return self.code.load(program, self.memory)

    def _check_room(self, program: Program) -> None:
        """Raises ProgramError if a program and its data do not fit into the memories, below the stacks."""
        for name, used, size, room in (
            ("L2", self.code.size_bytes, program.size_bytes("l2"), self.platform.l2.size_bytes),
            ("L1", self.code.l1_bytes, program.size_bytes("l1"), stack_base(self.platform) - L1_BASE),
        ):
            if size and used + size > room:
                raise ProgramError(
                    f"{program.source}: needs {size:,} bytes of {name}; {max(room - used, 0):,} of {room:,} are free"
                )

    def address(self, program: Program, name: str) -> int:
        """The address of a label or symbol of a program, which is loaded if it is not yet. Raises ProgramError."""
        self.load(program)
        return self.code.address(program, name)

    # -- running one program -----------------------------------------------------------------------
    def run(
        self,
        program: Program,
        entry: str | None = None,
        cores: int | None = None,
        registers: Registers | None = None,
        start_delays: Sequence[int] | None = None,
        max_cycles: int | None = None,
    ) -> Result:
        """Run `entry` on the first `cores` cores until all have returned.

        registers: names -> values, or a function of the core number that gives them; sp and ra are
        preset. start_delays: cycles after which each core starts (default 0). Raises TrapError,
        DeadlockError, CycleLimitError, ProgramError; after the first three the memories can be read,
        but cores may be under way and the machine may refuse further runs.
        """
        self.require_rest()
        count = self.team_size(cores)
        delays = delays_of(start_delays, count)
        max_cycles = limit_of(max_cycles)
        row = self.load(program) + program.entry(entry)
        files = self.register_files(count, registers)
        engine, begin = self.engine, self.engine.now
        before = engine.counters()
        self.start_team(row, [begin + delay for delay in delays], files)
        ends = self._finish(count, begin, max_cycles)
        first, last = begin + min(delays), max(ends)
        spent = engine.counters() - before
        spent[:, Cause.IDLE] += last - first
        spent[:count, Cause.IDLE] -= np.subtract(ends, delays) - begin
        return Result.of(last - first, self.platform.clock_hz, spent)

    def require_rest(self) -> None:
        """Raises ProgramError while cores or transfers of a run that was stopped are under way."""
        if not self.engine.at_rest():
            raise ProgramError("an earlier run of this machine was stopped before its end: make a new Machine")

    def register_files(self, cores: int, registers: Registers | None) -> NDArray[np.uint32]:
        """What the first cores start with, uint32 [cores, 64]. Raises ProgramError."""
        return register_files(self.platform, self._presets[:cores], registers)

    def start_team(self, row: int, times: Sequence[int], files: NDArray[np.uint32]) -> None:
        """As `Engine.start_team`."""
        self.team = list(range(len(times)))
        for instrument in self.instruments:
            instrument.team_began(self.team)
        self.engine.start_team(row, times, files)
        for instrument in self.instruments:
            for core, registers in enumerate(files):
                instrument.started(core, registers)

    def team_size(self, cores: int | None) -> int:
        available = self.platform.cluster.cores
        count = available if cores is None else whole(cores)
        if count is None or not 1 <= count <= available:
            raise ProgramError(f"cores = {cores}: {self.platform.name} has 1 to {available}")
        return count

    def _finish(self, count: int, begin: int, max_cycles: int | None) -> list[int]:
        """Advance until `count` cores have returned; the cycle of each core's return."""
        limit = FOREVER if max_cycles is None else begin + max_cycles + 1
        ends: dict[int, int] = {}
        while len(ends) < count:
            for report in self.engine.advance(min(limit, self.engine.now + limits.SLICE)):
                if report.kind is Kind.RETURNED:
                    ends[report.subject] = report.time
                else:
                    check(self, report)
            if self.engine.now >= limit and len(ends) < count:
                raise CycleLimitError(f"not finished after {max_cycles:,} cycles\n{whereabouts(self)}")
        return [ends[core] for core in range(count)]

    # -- running a schedule ------------------------------------------------------------------------
    def simulate(
        self,
        controller: Callable[[Controller], Process],
        max_cycles: int | None = None,
        timeline: Timeline | None = None,
    ) -> Result:
        """Run a controller to its end, and what it started; cycles include everything.

        timeline: collects what core, controller and DMA did when. Raises what `run` raises, AddressError
        for DMA commands, and what the controller raises.
        """
        self.require_rest()
        if not callable(controller):
            raise ProgramError(f"controller of type {type(controller).__name__}: must be a generator function")
        if timeline is not None and not isinstance(timeline, Timeline):
            raise ProgramError(f"timeline of type {type(timeline).__name__}: must be a Timeline, or None")
        return simulate(self, controller, limit_of(max_cycles), timeline)
