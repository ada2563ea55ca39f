"""The cluster as a whole: SimPy owns what happens rarely, the engine owns every cycle.

A `Machine` runs a program directly (`run`), or lets a controller - a generator - fork programs on the
cores and move data by DMA (`simulate`). The contract between SimPy and the engine: the L1 domain is one
SimPy process; it lets the queue drain at the current time, hands over the commands given in this cycle
in a fixed order, advances the engine to the next SimPy event or to the cycle in which something is
reported, and sleeps for the cycles that passed. Every reaction takes effect at least a cycle after its
cause, so this is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import simpy
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.code import RETURN_ROW, Code, address_of, check_registers
from pulpsim.counters import Cause, CoreCounters
from pulpsim.dma import Copy, DmaQueue
from pulpsim.engine import FOREVER, Engine, Kind, Report, Status, Transfer, Trap
from pulpsim.errors import CycleLimitError, DeadlockError, ProgramError, TrapError, nearest
from pulpsim.memory import EVENT_UNIT_BASE, L1_BASE, L2_BASE, Memory, stack_pointer
from pulpsim.platform import Platform
from pulpsim.program import Program

#: cycles simulated between looks at the keyboard
SLICE = 4_000_000

Registers = Mapping[str, int] | Callable[[int], Mapping[str, int]]
Process = Generator[simpy.Event, Any, Any]


@dataclass(frozen=True)
class Result:
    """What a run cost.

    cycles: first instruction to return (`ret` included) of the slowest core; no fork cost.
    cores: counters of every core of the platform; each adds up to `cycles`.
    """

    cycles: int
    clock_hz: int
    cores: tuple[CoreCounters, ...]

    @property
    def milliseconds(self) -> float:
        return 1e3 * self.cycles / self.clock_hz

    @property
    def instructions(self) -> int:
        return sum(core.instructions for core in self.cores)


class Machine:
    """A cluster with its memories. `engine`: "jit" (fast) or "reference" (plain Python)."""

    def __init__(self, platform: Platform | None = None, engine: Literal["jit", "reference"] = "jit"):
        self.platform = platform or Platform.preset("pulp-2022")
        self.memory = Memory(self.platform)
        self.code = Code()
        self.engine: Engine
        if engine == "jit":
            from pulpsim.engine.jit import JitEngine

            self.engine = JitEngine(self.platform, self.memory, self.code)
        elif engine == "reference":
            from pulpsim.engine.reference import ReferenceEngine

            self.engine = ReferenceEngine(self.platform, self.memory, self.code)
        else:
            raise ProgramError(f"no engine {engine!r}: jit or reference")

    def load(self, program: Program) -> int:
        """Place a program in L2 (once); returns its first row. Raises ProgramError."""
        check_registers(program, self.platform.cluster.fp_registers == "separate")
        return self.code.load(program)

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
        DeadlockError, CycleLimitError, ProgramError.
        """
        count = self._team_size(cores)
        delays = list(start_delays or [0] * count)
        if len(delays) != count or min(delays) < 0:
            raise ProgramError(f"start_delays = {delays}: must be {count} numbers of cycles, none negative")
        row = self.load(program) + program.entry(entry)
        engine, begin = self.engine, self.engine.now
        before = engine.counters()
        engine.begin_team(list(range(count)))
        for core in range(count):
            engine.start(core, row, begin + delays[core], self._register_file(core, registers))
        ends = self._finish(count, begin, max_cycles)
        first, last = begin + min(delays), max(ends)
        spent = engine.counters() - before
        spent[:, Cause.IDLE] += last - first
        for core in range(count):
            spent[core, Cause.IDLE] -= ends[core] - begin - delays[core]
        return Result(last - first, self.platform.clock_hz, tuple(CoreCounters.from_row(row) for row in spent))

    def _team_size(self, cores: int | None) -> int:
        available = self.platform.cluster.cores
        count = available if cores is None else cores
        if not 1 <= count <= available:
            raise ProgramError(f"cores = {count}: {self.platform.name} has 1 to {available}")
        return count

    def _register_file(self, core: int, registers: Registers | None) -> NDArray[np.uint32]:
        values = np.zeros(isa.REGISTERS, np.uint32)
        values[1] = address_of(RETURN_ROW)
        values[2] = stack_pointer(self.platform, core)
        given = registers(core) if callable(registers) else registers or {}
        for name, value in given.items():
            if name not in isa.REGISTER_NUMBERS:
                raise ProgramError(f"no register {name!r}{nearest(name, isa.REGISTER_NUMBERS)}")
            if not -(1 << 31) <= value < 1 << 32:
                raise ProgramError(f"register {name} = {value}: must fit in 32 bits")
            values[isa.REGISTER_NUMBERS[name]] = value & isa.MASK
        return values

    def _finish(self, count: int, begin: int, max_cycles: int | None) -> list[int]:
        """Advance until `count` cores have returned; the cycle of each core's return."""
        limit = FOREVER if max_cycles is None else begin + max_cycles
        ends: dict[int, int] = {}
        while len(ends) < count:
            for report in self.engine.advance(min(limit, self.engine.now + SLICE)):
                self.check(report)
                if report.kind is Kind.RETURNED:
                    ends[report.subject] = report.time
            if self.engine.now >= limit and len(ends) < count:
                where = "\n".join(f"  core {core}: {self._where(core)}" for core in range(count))
                raise CycleLimitError(f"not finished after {max_cycles:,} cycles\n{where}")
        return [ends[core] for core in range(count)]

    # -- faults ------------------------------------------------------------------------------------
    def _where(self, core: int) -> str:
        if self.engine.status(core) is Status.OFF:
            return "returned"
        waits = "waits at the barrier, " if self.engine.status(core) is Status.WAITING else ""
        return waits + self.code.describe(self.engine.row(core))

    def check(self, report: Report) -> None:
        """Raises TrapError or DeadlockError if the report is one."""
        if report.kind is Kind.DEADLOCK:
            cores = range(self.platform.cluster.cores)
            where = "\n".join(f"  core {core}: {self._where(core)}" for core in cores)
            raise DeadlockError(f"cycle {report.time:,}: a barrier can never complete\n{where}")
        if report.kind is not Kind.TRAP:
            return
        trap, address = Trap(report.value >> 32), report.value & 0xFFFFFFFF
        sizes = self.platform.l1.size_bytes, self.platform.l2.size_bytes
        reason = {
            Trap.END: "ran off the end of the program (no ret?)",
            Trap.ADDRESS: (
                f"address {address:#010x} is outside L1 ({L1_BASE:#010x}, {sizes[0]:,} bytes), "
                f"L2 ({L2_BASE:#010x}, {sizes[1]:,} bytes) and the event unit ({EVENT_UNIT_BASE:#010x})"
            ),
            Trap.TARGET: f"jump to {address:#010x}, which is no instruction of a loaded program",
            Trap.EVENT: f"p.elw of {address:#010x}: only the barrier register is modelled",
        }[trap]
        place = self.code.describe(self.engine.row(report.subject))
        raise TrapError(f"core {report.subject}, cycle {report.time:,}, {place}: {reason}")

    # -- running a schedule ------------------------------------------------------------------------
    def simulate(self, controller: Callable[[Cluster], Process]) -> Result:
        """Run a controller to its end, and the transfers it started; cycles include everything."""
        cluster = Cluster(self)
        return cluster.simulate(controller)


class Cluster:
    """What a controller acts on: forks, DMA commands, waiting. All methods are SimPy processes.

    Every cycle that passes is charged to all cores: to the engine's causes while a core runs, to FORK,
    COMMAND, DMA_WAIT or IDLE while it does not. (The controller is core 0 between join and fork; while
    it programs the DMA the whole team waits for it, which is charged to COMMAND on every core.)
    """

    def __init__(self, machine: Machine):
        self.machine, self.platform = machine, machine.platform
        self.env = simpy.Environment(initial_time=machine.engine.now)
        self.dma = DmaQueue(self.env, self.platform, lambda t: self._command((2, 0, t.id), self._transfer, t))
        self._commands: list[tuple[tuple[int, int, int], Callable[..., None], tuple[Any, ...]]] = []
        self._asleep: simpy.Event | None = None
        self._ends: dict[int, int] = {}
        self._team = 0
        self._joined: simpy.Event | None = None
        self._other = np.zeros((self.platform.cluster.cores, len(Cause)), np.int64)

    @property
    def now(self) -> int:
        return int(self.env.now)

    def counters(self) -> NDArray[np.int64]:
        """Cycles by cause since the machine was made: int64 [cores, causes]."""
        return self.machine.engine.counters() + self._other

    # -- the controller's vocabulary ---------------------------------------------------------------
    def pause(self, cycles: int, cause: Cause = Cause.IDLE) -> Process:
        """Let cycles pass, charged to one cause on every core."""
        if cycles:
            yield self.env.timeout(cycles)
        self._other[:, cause] += cycles

    def copy(self, command: Copy) -> Process:
        """Write a DMA command; returns the transfer's number. Blocks while the queue is full."""
        yield from self.pause(self.dma.command_cycles(command), Cause.COMMAND)
        while (space := self.dma.full()) is not None:
            yield from self._wait(space)
        return self.dma.submit(command)

    def wait(self, transfers: Iterable[int]) -> Process:
        """Sleep until all these transfers are done; no cycle passes if they are."""
        open_ones = [self.dma.done(number) for number in transfers if not self.dma.done(number).triggered]
        if open_ones:
            yield from self._wait(simpy.AllOf(self.env, open_ones))
            yield from self.pause(self.platform.event_unit.event_cycles, Cause.DMA_WAIT)

    def _wait(self, event: simpy.Event) -> Process:
        begin = self.now
        yield event
        self._other[:, Cause.DMA_WAIT] += self.now - begin

    def fork(
        self, program: Program, registers: Registers, entry: str | None = None, cores: int | None = None
    ) -> Process:
        """Run a program on the first `cores` cores (default all) and join them."""
        unit, total = self.platform.event_unit, self.platform.cluster.cores
        count = self.machine._team_size(cores)
        row = self.machine.load(program) + program.entry(entry)
        yield from self.pause(self.platform.controller.fork_cycles - unit.fork_join_cycles, Cause.FORK)
        begin = self.now + unit.start_cycles
        self._ends, self._team, self._joined = {}, count, self.env.event()
        engine = self.machine.engine
        self._command((0, 0, 0), engine.begin_team, list(range(count)))
        for core in range(count):
            values = self.machine._register_file(core, registers)
            self._command((1, core, 0), engine.start, core, row, begin, values)
        yield self._joined
        end = self.now
        self._other[:, Cause.FORK] += unit.start_cycles
        for core in range(total):
            self._other[core, Cause.IDLE] += end - self._ends.get(core, begin)
        yield from self.pause(unit.fork_join_cycles - unit.start_cycles - self.platform.core.jump_cycles, Cause.FORK)

    # -- the L1 domain -----------------------------------------------------------------------------
    def _command(self, order: tuple[int, int, int], action: Callable[..., None], *arguments: Any) -> None:
        self._commands.append((order, action, arguments))
        if self._asleep is not None:
            self._asleep.succeed()
            self._asleep = None

    def _transfer(self, transfer: Transfer) -> None:
        self.machine.engine.transfer(transfer)

    def _domain(self) -> Process:
        env, engine = self.env, self.machine.engine
        while True:
            while env.peek() == env.now:
                yield env.timeout(0)
            for _, action, arguments in sorted(self._commands, key=lambda command: command[0]):
                action(*arguments)
            self._commands.clear()
            if engine.idle():
                self._asleep = env.event()
                yield self._asleep
                continue
            horizon = min(env.peek(), FOREVER)
            reports = engine.advance(max(int(horizon), self.now + 1))
            yield env.timeout((reports[0].time if reports else engine.now) - self.now)
            for report in reports:
                self._deliver(report)

    def _deliver(self, report: Report) -> None:
        self.machine.check(report)
        if report.kind is Kind.TRANSFER:
            self.dma.finished(report.subject)
            return
        self._ends[report.subject] = report.time
        if len(self._ends) == self._team and self._joined is not None:
            self._joined.succeed()

    def simulate(self, controller: Callable[[Cluster], Process]) -> Result:
        begin, before = self.now, self.machine.engine.counters()
        self.env.process(self._domain())

        def whole() -> Process:
            yield from controller(self)
            yield from self.wait(self.dma.unfinished())

        self.env.run(self.env.process(whole()))
        # the engine may lag behind SimPy's clock: nothing was left to do
        self.machine.engine.advance(self.now)
        spent = self.counters() - before
        return Result(
            self.now - begin, self.platform.clock_hz, tuple(CoreCounters.from_row(row) for row in spent)
        )
