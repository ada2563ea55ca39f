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
from pathlib import Path
from typing import Any, Literal

import numpy as np
import simpy
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.arguments import text, whole
from pulpsim.code import RETURN_ROW, Code, address_of, check_registers
from pulpsim.counters import Cause, CoreCounters
from pulpsim.dma import Copy, DmaQueue
from pulpsim.engine import FOREVER, Engine, Kind, Report, Status, Transfer, Trap
from pulpsim.errors import CycleLimitError, DeadlockError, ProgramError, TrapError, nearest
from pulpsim.memory import BARRIER_OFFSET, EVENT_UNIT_BASE, L1_BASE, L2_BASE, Memory, stack_base, stack_pointer
from pulpsim.platform import Platform
from pulpsim.program import Program
from pulpsim.trace import Timeline

#: cycles simulated between looks at the keyboard
SLICE = 4_000_000
#: of a core's start
MAX_DELAY = 10**15

#: registers that a message about an ecall or ebreak shows
SHOWN = ("a0", "a1", "a7", "gp")

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
    """A cluster with its memories. `engine`: "jit" (fast) or "reference" (plain Python).

    platform: also a preset's name or a TOML file. Raises PlatformError, ProgramError.
    """

    def __init__(
        self, platform: Platform | str | Path | None = None, engine: Literal["jit", "reference"] = "jit"
    ):
        self.platform = Platform.of(platform)
        self.memory = Memory(self.platform)
        self.code = Code()
        self.engine: Engine
        self._team: list[int] = []
        if text(engine) == "jit":
            from pulpsim.engine.jit import JitEngine

            self.engine = JitEngine(self.platform, self.memory, self.code)
        elif text(engine) == "reference":
            from pulpsim.engine.reference import ReferenceEngine

            self.engine = ReferenceEngine(self.platform, self.memory, self.code)
        else:
            raise ProgramError(f"no engine {engine!r}{nearest(engine, ('jit', 'reference'))}: jit or reference")

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
        delays = self.delays(start_delays, count)
        max_cycles = limit_of(max_cycles)
        row = self.load(program) + program.entry(entry)
        files = [self.register_file(core, registers) for core in range(count)]
        engine, begin = self.engine, self.engine.now
        before = engine.counters()
        self.begin_team(list(range(count)))
        for core, values in enumerate(files):
            engine.start(core, row, begin + delays[core], values)
        ends = self._finish(count, begin, max_cycles)
        first, last = begin + min(delays), max(ends)
        spent = engine.counters() - before
        spent[:, Cause.IDLE] += last - first
        for core in range(count):
            spent[core, Cause.IDLE] -= ends[core] - begin - delays[core]
        rows = tuple(CoreCounters.from_row(row) for row in spent)
        return Result(last - first, self.platform.clock_hz, rows)

    def require_rest(self) -> None:
        """Raises ProgramError while cores or transfers of a run that was stopped are under way."""
        cores = range(self.platform.cluster.cores)
        if not self.engine.idle() or any(self.engine.status(core) is not Status.OFF for core in cores):
            raise ProgramError(
                "an earlier run of this machine was stopped before its end: make a new Machine"
            )

    def begin_team(self, cores: list[int]) -> None:
        """These cores meet at barriers from now on."""
        self._team = cores
        self.engine.begin_team(cores)

    def team_size(self, cores: int | None) -> int:
        available = self.platform.cluster.cores
        count = available if cores is None else whole(cores)
        if count is None or not 1 <= count <= available:
            raise ProgramError(f"cores = {cores}: {self.platform.name} has 1 to {available}")
        return count

    def delays(self, given: Sequence[int] | None, count: int) -> list[int]:
        """Cycles after which each of so many cores starts. Raises ProgramError."""
        if given is None or (isinstance(given, tuple) and not given):
            return [0] * count
        several = isinstance(given, Sequence) or getattr(given, "shape", ()) != ()
        delays = [whole(part) for part in given] if several else []
        found = [delay for delay in delays if delay is not None and 0 <= delay <= MAX_DELAY]
        if not len(found) == len(delays) == count:
            raise ProgramError(f"start_delays = {given}: must be {count} numbers of cycles, none negative")
        return found

    def register_file(self, core: int, registers: Registers | None) -> NDArray[np.uint32]:
        """A core's registers at its start, uint32 [64]. Raises ProgramError."""
        separate = self.platform.cluster.fp_registers == "separate"
        values = np.zeros(isa.REGISTERS, np.uint32)
        values[1] = address_of(RETURN_ROW)
        values[2] = stack_pointer(self.platform, core)
        given = registers(core) if callable(registers) else {} if registers is None else registers
        if not isinstance(given, Mapping):
            raise ProgramError(f'registers = {given!r}: must be names with values, as in {{"a0": 0x10000000}}')
        for name, value in given.items():
            if text(name) not in isa.REGISTER_NUMBERS:
                raise ProgramError(f"no register {name!r}{nearest(name, isa.REGISTER_NUMBERS)}")
            number = isa.REGISTER_NUMBERS[name]
            if number >= isa.F0 and not separate:
                raise ProgramError(f"register {name}: {self.platform.name} has x registers only")
            pattern = whole(value)
            if pattern is None:
                raise ProgramError(f"register {name} = {value!r}: must be a whole number")
            if not -(1 << 31) <= pattern < 1 << 32:
                raise ProgramError(f"register {name} = {value} on core {core}: must fit in 32 bits")
            if number == 0 and pattern:
                raise ProgramError(f"register {name} = {value}: is always 0")
            values[number] = pattern & isa.MASK
        return values

    def _finish(self, count: int, begin: int, max_cycles: int | None) -> list[int]:
        """Advance until `count` cores have returned; the cycle of each core's return."""
        limit = FOREVER if max_cycles is None else begin + max_cycles + 1
        ends: dict[int, int] = {}
        while len(ends) < count:
            for report in self.engine.advance(min(limit, self.engine.now + SLICE)):
                self.check(report)
                if report.kind is Kind.RETURNED:
                    ends[report.subject] = report.time
            if self.engine.now >= limit and len(ends) < count:
                raise CycleLimitError(f"not finished after {max_cycles:,} cycles\n{self.whereabouts()}")
        return [ends[core] for core in range(count)]

    # -- faults ------------------------------------------------------------------------------------
    def _where(self, core: int) -> str:
        if self.engine.status(core) is Status.OFF:
            return "returned"
        waits = "waits at the barrier, " if self.engine.status(core) is Status.WAITING else ""
        return waits + self.code.describe(self.engine.row(core))

    def whereabouts(self) -> str:
        """Where each core of the team is, a line a core."""
        return "\n".join(f"  core {core}: {self._where(core)}" for core in self._team)

    def check(self, report: Report) -> None:
        """Raises TrapError or DeadlockError if the report is one."""
        if report.kind is Kind.DEADLOCK:
            raise DeadlockError(
                f"cycle {report.time:,}: a barrier can never complete: a core returned, others wait for it\n"
                f"{self.whereabouts()}"
            )
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
            Trap.EVENT: (
                f"p.elw of {address:#010x}: only the barrier register is modelled "
                f"({EVENT_UNIT_BASE + BARRIER_OFFSET:#010x})"
            ),
            Trap.ECALL: "ecall, and mtvec is 0",
            Trap.EBREAK: "ebreak, and mtvec is 0",
            Trap.ILLEGAL: "illegal instruction, and mtvec is 0",
        }[trap]
        core = report.subject
        row, registers = self.engine.row(core), self.engine.registers(core)
        message = f"core {core}, cycle {report.time:,}, {self.code.describe(row)}: {reason}"
        if trap in (Trap.ECALL, Trap.EBREAK):
            message += "; " + ", ".join(f"{name} {registers[isa.REGISTER_NUMBERS[name]]:#x}" for name in SHOWN)
        raise TrapError(message, trap.name.lower(), core, report.time, address_of(row), registers.tolist())

    # -- running a schedule ------------------------------------------------------------------------
    def simulate(
        self,
        controller: Callable[[Cluster], Process],
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
        return Cluster(self, timeline).simulate(controller, limit_of(max_cycles))


def limit_of(max_cycles: int | None) -> int | None:
    """A limit of cycles, None for none. Raises ProgramError."""
    limit = None if max_cycles is None else whole(max_cycles)
    if max_cycles is not None and (limit is None or limit < 0):
        raise ProgramError(f"max_cycles = {max_cycles!r}: must be a whole number, at least 0, or None")
    return limit


@dataclass(frozen=True)
class _Team:
    """What runs: from where, on how many cores."""

    source: str
    cores: int


class Cluster:
    """What a controller acts on: forks, DMA commands, waiting. Used as `yield from cluster.fork(...)`.

    Every cycle that passes is charged to all cores, once: to the engine's causes while a core runs, to
    FORK, COMMAND, DMA_WAIT or IDLE while it does not. (The controller is core 0 between join and fork;
    while it programs the DMA the whole team waits for it, which is charged to COMMAND on every core. Where
    `controller.core` is "separate", a fork returns as soon as the team runs, and what the controller does
    until `join` costs the team nothing.)

    A controller may start further processes on `env`; what they do while the cores run is charged to
    nobody, and only one team runs at a time.
    """

    def __init__(self, machine: Machine, timeline: Timeline | None = None):
        self.machine, self.platform, self.timeline = machine, machine.platform, timeline
        self.env = simpy.Environment(initial_time=machine.engine.now)
        self.dma = DmaQueue(self.env, self.platform, self._transfer)
        self._commands: list[tuple[tuple[int, ...], Callable[..., None], tuple[Any, ...]]] = []
        self._asleep: simpy.Event | None = None
        self._limit = FOREVER  # the last cycle that may be reached
        self._dma_busy = [-1, -1]  # last cycle with data, inward and outward
        self._ends: dict[int, int] = {}
        self._joined: simpy.Event | None = None  # while a team runs
        self._team = _Team("", 0)  # the last one
        self._forked = 0  # when the last team was started
        self._team_cycles = 0  # of all teams before it
        self._claims: list[tuple[int, int, Cause]] = []  # (end, begin, cause) on `_clock`
        self._settled = self.now
        self._other = np.zeros((self.platform.cluster.cores, len(Cause)), np.int64)

    @property
    def now(self) -> int:
        return int(self.env.now)

    def counters(self) -> NDArray[np.int64]:
        """Cycles by cause so far, int64 [cores, causes]; two calls differ by what lies between."""
        for end, begin, cause in sorted(self._claims):
            self._charge(begin, Cause.IDLE)
            self._charge(end, cause)
        self._claims.clear()
        self._charge(self._clock(), Cause.IDLE)
        return self.machine.engine.counters() + self._other

    def work(self) -> NDArray[np.int64]:
        """What the cores did so far, by `counters.Work`, int64 [cores, WORKS]; differs as `counters` does.

        Zeros on platforms without power figures.
        """
        return self.machine.engine.work()

    def _clock(self) -> int:
        """Cycles in which no team ran: those that are charged to what the controller does."""
        return (self.now if self._joined is None else self._forked) - self._team_cycles

    def _charge(self, until: int, cause: Cause) -> None:
        """Charge to every core what is not yet charged."""
        if until > self._settled:
            self._other[:, cause] += until - self._settled
            self._settled = until

    # -- the controller's vocabulary ---------------------------------------------------------------
    def pause(self, cycles: int, cause: Cause = Cause.IDLE) -> Process:
        """Let cycles pass, charged to one cause on every core. Raises ProgramError."""
        count = whole(cycles)
        if count is None or not 0 <= count <= MAX_DELAY:
            raise ProgramError(f"pause of {cycles!r} cycles: must be a whole number, at least 0")
        if count:
            yield from self._wait(self.env.timeout(count), cause)

    def copy(self, command: Copy) -> Process:
        """Write a DMA command; returns the transfer's number. Blocks while the queue is full."""
        if not isinstance(command, Copy):
            raise ProgramError(f"DMA command of type {type(command).__name__}: must be a Copy")
        yield from self.pause(command.command_cycles(self.platform), Cause.COMMAND)
        while (space := self.dma.full()) is not None:
            yield from self._wait(space, Cause.DMA_WAIT)
        return self.dma.submit(command)

    def wait(self, transfers: Iterable[int]) -> Process:
        """Sleep until all these transfers are done; no cycle passes if they are. Raises ProgramError."""
        transfers = self.dma.known(transfers)
        if open_ones := self._open(transfers):
            yield from self._wait(simpy.AllOf(self.env, open_ones), Cause.DMA_WAIT)
            yield from self.pause(self.platform.event_unit.event_cycles, Cause.DMA_WAIT)

    def _open(self, transfers: Iterable[int]) -> list[simpy.Event]:
        """The ends of those that are not done."""
        return [done for done in map(self.dma.done, transfers) if not done.triggered]

    def _wait(self, event: simpy.Event, cause: Cause) -> Process:
        begin, since = self._clock(), self.now
        yield event
        self._claims.append((self._clock(), begin, cause))
        if self.timeline is not None:
            self.timeline.span("controller", cause.name.lower().replace("_", " "), since, self.now)

    def fork(
        self,
        program: Program,
        registers: Registers,
        entry: str | None = None,
        cores: int | None = None,
        start_delays: Sequence[int] | None = None,
    ) -> Process:
        """Run a program on the first `cores` cores (default all) and join them.

        A controller with a core of its own starts them when the team before has been joined, and does not wait.
        start_delays: cycles by which each core starts later than it would (default: none).
        """
        unit, total = self.platform.event_unit, self.platform.cluster.cores
        count = self.machine.team_size(cores)
        row = self.machine.load(program) + program.entry(entry)
        files = [self.machine.register_file(core, registers) for core in range(count)]
        yield from self.pause(self.platform.controller.fork_cycles - unit.fork_join_cycles, Cause.FORK)
        if self.platform.controller_is_separate:
            yield from self.join()
        elif self._joined is not None:
            raise ProgramError(f"cycle {self.now:,}: fork while a team runs\n{self.machine.whereabouts()}")
        self._joined, self._forked = self.env.event(), self.now
        begin = self.now + unit.start_cycles
        self._ends = dict.fromkeys(range(count, total), begin)
        delays = self.machine.delays(start_delays, count)
        self._other[:count, Cause.IDLE] += delays
        self._command((0, 0), self.machine.begin_team, list(range(count)))
        for core, values in enumerate(files):
            self._command((1, core), self.machine.engine.start, core, row, begin + delays[core], values)
        self._team = _Team(program.source, count)
        if not self.platform.controller_is_separate:
            yield from self.join()

    def join(self, unless: Iterable[int] = ()) -> Process:
        """Wait for the team that a separate controller has forked; no cycle passes if none runs.

        unless: transfers; once all of them are done the wait ends too. Raises ProgramError.
        """
        numbers = self.dma.known(unless)
        if (joined := self._joined) is None:
            return
        open_ones = self._open(numbers)
        if numbers and not open_ones:
            return
        yield self.env.any_of([joined, *([self.env.all_of(open_ones)] if numbers else [])])
        unit, jump = self.platform.event_unit, self.platform.core.jump_cycles
        if joined.triggered:
            yield from self.pause(unit.fork_join_cycles - unit.start_cycles - jump, Cause.FORK)
        else:
            yield from self.pause(unit.event_cycles, Cause.DMA_WAIT)

    @property
    def running(self) -> bool:
        """Whether a team runs."""
        return self._joined is not None

    def _end_team(self, joined: simpy.Event) -> None:
        """The last core has returned."""
        team, start_cycles, self._joined = self._team, self.platform.event_unit.start_cycles, None
        self._team_cycles += self.now - self._forked
        self._other[:, Cause.FORK] += start_cycles
        for core, end in self._ends.items():
            self._other[core, Cause.IDLE] += self.now - end
            if self.timeline is not None and core < team.cores:
                self.timeline.span(f"core {core}", team.source, self._forked + start_cycles, end)
        joined.succeed()

    # -- the L1 domain -----------------------------------------------------------------------------
    def _command(self, order: tuple[int, ...], action: Callable[..., None], *arguments: Any) -> None:
        self._commands.append((order, action, arguments))
        if self._asleep is not None:
            self._asleep.succeed()
            self._asleep = None

    def _transfer(self, submitted: int, transfer: Transfer) -> None:
        t = transfer
        order = (2, submitted, t.outward, t.l1, t.l2, t.line_bytes, t.size_bytes, t.l1_stride, t.l2_stride)
        self._command(order, self.machine.engine.transfer, transfer)

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
            horizon = min(env.peek(), self.now + SLICE, self._limit + 1)
            reports = engine.advance(max(int(horizon), self.now + 1))
            yield env.timeout((reports[0].time if reports else engine.now) - self.now)
            for report in reports:
                self._deliver(report)

    def _deliver(self, report: Report) -> None:
        self.machine.check(report)
        if report.kind is Kind.TRANSFER:
            transfer = self.dma.finished(report.subject)
            if self.timeline is not None:
                begin = max(transfer.ready, self._dma_busy[transfer.outward] + 1)
                track, size = "DMA out" if transfer.outward else "DMA in", f"{transfer.size_bytes:,} bytes"
                self.timeline.span(track, size, begin, report.time + 1, transfer=transfer.id)
            self._dma_busy[transfer.outward] = report.time
            return
        self._ends[report.subject] = report.time
        if len(self._ends) == self.platform.cluster.cores and self._joined is not None:
            self._end_team(self._joined)

    def simulate(self, controller: Callable[[Cluster], Process], max_cycles: int | None = None) -> Result:
        """As Machine.simulate; a Cluster simulates once."""
        begin, before = self.now, self.counters()

        def whole() -> Process:
            process: Any = controller(self)
            if not isinstance(process, Generator):
                raise ProgramError(f"controller gave {process!r}: must be a generator function, which yields")
            yield from process
            if self._joined is not None:
                yield self._joined
            yield from self.wait(self.dma.unfinished())

        domain = self.env.process(self._domain())
        self._limit = FOREVER if max_cycles is None else begin + max_cycles
        self._step_through(domain, self.env.process(whole()))
        # the engine may lag behind SimPy's clock: nothing was left to do
        self.machine.engine.advance(self.now)
        spent = self.counters() - before
        rows = tuple(CoreCounters.from_row(row) for row in spent)
        return Result(self.now - begin, self.platform.clock_hz, rows)

    def _step_through(self, domain: simpy.Process, whole: simpy.Process) -> None:
        """Handle SimPy's events until `whole` has ended; raises what either process raised."""
        begin = self.now
        failures: list[Any] = []

        def note(process: simpy.Event) -> None:
            if not process.ok:
                process.defused = True  # else SimPy raises a copy, made from args alone
                failures.append(process.value)

        for process in (domain, whole):
            process.callbacks.append(note)
        while not whole.processed and not failures:
            if self._limit < self.env.peek() < FOREVER:
                cycles, where = self._limit - begin, self.machine.whereabouts()
                raise CycleLimitError(f"not finished after {cycles:,} cycles\n{where}".rstrip())
            try:
                self.env.step()
            except simpy.core.EmptySchedule:
                raise DeadlockError(
                    f"cycle {self.now:,}: the controller waits for an event that nothing will trigger"
                ) from None
        if failures:
            raise failures[0]
