"""The controller's vocabulary: what the generator that schedules work and data can do."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import simpy
from numpy.typing import NDArray

from pulpsim.counters import Cause
from pulpsim.dma import Copy
from pulpsim.engine import Kind, Report
from pulpsim.errors import ProgramError
from pulpsim.machine.accounts import Accounts
from pulpsim.machine.domain import Domain, Process
from pulpsim.machine.faults import check, whereabouts
from pulpsim.machine.limits import pause_of
from pulpsim.machine.limits import start_delays as delays_of
from pulpsim.machine.log import Did, Log
from pulpsim.machine.registers import Registers
from pulpsim.machine.spans import draw
from pulpsim.program import Program
from pulpsim.trace import Label, Timeline

if TYPE_CHECKING:
    from pulpsim.machine.machine import Machine


class _Team(msgspec.Struct, frozen=True):
    """What runs, since when. first: the earliest cycle of a core's first instruction, and that from which a core
    outside the team does nothing. begins: each core's first cycle. before: for a timeline, what the engine had counted.
    """

    label: Label
    forked: int
    first: int
    begins: list[int]
    before: NDArray[np.int64] | None


class Controller:
    """What a controller acts on: forks, DMA commands, waiting. Used as `yield from cluster.fork(...)`.

    Every cycle that passes is charged to all cores, once: to the engine's causes while a core runs, to
    FORK, COMMAND, DMA_WAIT or IDLE while it does not. (The controller is core 0 between join and fork;
    while it programs the DMA the whole team waits for it, which is charged to COMMAND on every core. Where
    `controller.core` is "separate", a fork returns as soon as the team runs, and what the controller does
    until `join` costs the team nothing.)

    A controller may start further processes on `env`; what they do while the cores run is charged to
    nobody, and only one team runs at a time.

    log: what ran and moved so far.
    """

    def __init__(self, machine: Machine, timeline: Timeline | None, limit: int):
        """limit: the last cycle that may be reached."""
        self.machine, self.platform, self.timeline = machine, machine.platform, timeline
        self.domain = Domain(machine, self._end_team, self._deliver, limit)
        self.env, self.dma = self.domain.env, self.domain.dma
        cores = self.platform.cluster.cores
        self._accounts = Accounts(self.env, machine.engine, cores, keep=timeline is not None)
        self.log = Log()
        self._team: _Team | None = None  # while one runs
        self._team_ended: simpy.Event | None = None  # if anybody has asked for it

    @property
    def now(self) -> int:
        return int(self.env.now)

    @property
    def running(self) -> bool:
        """Whether a team runs."""
        return self._team is not None

    def counters(self) -> NDArray[np.int64]:
        """Cycles by cause so far, int64 [cores, causes]; two calls differ by what lies between."""
        return self._accounts.counters()

    def work(self) -> NDArray[np.int64]:
        """What the cores did so far, by `counters.Work`, int64 [cores, WORKS]; differs as `counters` does.

        Zeros on platforms without power figures.
        """
        return self.machine.engine.work()

    # -- time and data -----------------------------------------------------------------------------
    def pause(self, cycles: int, cause: Cause = Cause.IDLE) -> Process:
        """Let cycles pass, charged to one cause on every core. Raises ProgramError."""
        yield from self._pause(pause_of(cycles), cause, cause.name.lower().replace("_", " "))

    def copy(self, command: Copy, label: Label | None = None) -> Process:
        """Write a DMA command; returns the transfer's number. Blocks while the queue is full.

        label: what the transfer is called in a timeline. Raises ProgramError, AddressError.
        """
        if not isinstance(command, Copy):
            raise ProgramError(f"DMA command of type {type(command).__name__}: must be a Copy")
        of = () if (known := _checked(label)) is None else (known.name,)
        yield from self._pause(command.command_cycles(self.platform), Cause.COMMAND, "command", of)
        if self.dma.is_crowded:
            self.domain.catch_up()
        while (space := self.dma.full()) is not None:
            yield from self._wait([space], Cause.DMA_WAIT, "the queue is full", of)
        number = self.dma.submit(command)
        self.log.commanded(self.now, command)
        if known is not None:
            self.log.labels[number] = known
        for instrument in self.machine.instruments:
            instrument.submitted(number, command, "" if known is None else known.name)
        return number

    def wait(self, transfers: Iterable[int]) -> Process:
        """Sleep until all these transfers are done; no cycle passes if they are. Raises ProgramError."""
        transfers, begin, since = self.dma.known(transfers), self._accounts.clock(), self.now
        of = self._names(transfers)
        if (yield from self._until_ended(transfers)):
            self._accounts.claim(begin, Cause.DMA_WAIT)
            self._did("wait", of, since)
            yield from self._pause(self.platform.event_unit.event_cycles, Cause.DMA_WAIT, "wake up", of)
        self._tell_awaited(transfers)

    def _until_ended(self, transfers: Sequence[int]) -> Generator[simpy.Event, Any, bool]:
        """Whether some of them were not done."""
        since, last = self.now, -1
        for number in reversed(transfers):  # a direction's last one ends behind the others
            while self.dma.is_under_way(number) and (cycle := self.domain.happens(number)) >= 0:
                last = max(last, cycle)
        if not any(map(self.dma.is_under_way, transfers)):
            return last >= since
        self.domain.catch_up()
        open_ones = self._open(transfers)
        yield from open_ones
        return last >= since or bool(open_ones)

    def _tell_awaited(self, transfers: Sequence[int]) -> None:
        for instrument in self.machine.instruments:
            instrument.awaited(transfers)

    def _open(self, transfers: Iterable[int]) -> list[simpy.Event]:
        """The ends of those that are not done."""
        return [end for end in map(self.dma.end, transfers) if end is not None]

    def _names(self, transfers: list[int]) -> tuple[str, ...]:
        """For a timeline, of those that are not done."""
        if self.timeline is None:
            return ()
        self.domain.catch_up()
        found = [number for number in transfers if self.dma.is_under_way(number)]
        return tuple(self.log.labels.get(number, Label(f"transfer {number}")).name for number in found)

    def _pause(self, cycles: int, cause: Cause, what: str, of: tuple[str, ...] = ()) -> Process | tuple[()]:
        if not cycles:
            return ()
        if not self.domain.passes(cycles):
            return self._wait([self.env.timeout(cycles)], cause, what, of)
        self._accounts.claim_latest(cycles, cause)
        if self.timeline is not None:
            self._did(what, of, self.now - cycles)
        return ()

    def _wait(self, events: Iterable[simpy.Event], cause: Cause, what: str, of: tuple[str, ...] = ()) -> Process:
        """For all of them. what, of: see `Did`."""
        begin, since = self._accounts.clock(), self.now
        yield from events
        self._accounts.claim(begin, cause)
        self._did(what, of, since)

    def _did(self, what: str, of: tuple[str, ...], since: int) -> None:
        if self.timeline is not None:
            self.log.did.append(Did(what, of, since, self.now))

    # -- teams -------------------------------------------------------------------------------------
    def fork(
        self,
        program: Program,
        registers: Registers,
        entry: str | None = None,
        cores: int | None = None,
        start_delays: Sequence[int] | None = None,
        label: Label | None = None,
    ) -> Process:
        """Run a program on the first `cores` cores (default all) and join them.

        A controller with a core of its own starts them when the team before has been joined, and does not wait.
        start_delays: cycles by which each core starts later than it would (default: none). label: what the team is
        called in a timeline; else where the program comes from.
        """
        unit, separate = self.platform.event_unit, self.platform.controller_is_separate
        count = self.machine.team_size(cores)
        row = self.machine.load(program) + program.entry(entry)
        files = self.machine.register_files(count, registers)
        name = _checked(label) or Label(program.source)
        yield from self._pause(
            self.platform.controller.fork_cycles - unit.fork_join_cycles, Cause.FORK, "fork", (name.name,)
        )
        if separate:
            yield from self._join([])
        elif self._team is not None:
            raise ProgramError(f"cycle {self.now:,}: fork while a team runs\n{whereabouts(self.machine)}")
        delays, now = delays_of(start_delays, count), self.now
        first = now + unit.start_cycles
        starts = [first + delay for delay in delays]
        begins = starts + [first] * (self.platform.cluster.cores - count)
        before = None if self.timeline is None else self.machine.engine.counters()
        self._team = _Team(name, now, first, begins, before)
        self._accounts.team_begins(delays)
        self.domain.start(row, starts, files)
        if not separate:
            yield from self._join([])

    def join(self, unless: Iterable[int] = ()) -> Process:
        """Wait for the team that a separate controller has forked; no cycle passes if none runs.

        unless: transfers; once all of them are done the wait ends too. Raises ProgramError.
        """
        yield from self._join(self.dma.known(unless))

    def _join(self, numbers: list[int]) -> Process:
        if self._team is None:
            return
        if numbers:
            self.domain.catch_up()  # some may be done
        team, since, of = self._team, self.now, self._names(numbers)
        if not numbers:
            yield from self._until_joined()
        elif open_ones := self._open(numbers):
            yield self.env.any_of([self._end_of_team(), self.env.all_of(open_ones)])
        else:
            self._tell_awaited(numbers)
            return
        self._did("runs", (team.label.name,), since)
        unit, jump = self.platform.event_unit, self.platform.core.jump_cycles
        if self._team is not team:
            cycles = unit.fork_join_cycles - unit.start_cycles - jump
            yield from self._pause(cycles, Cause.FORK, "join", (team.label.name,))
        else:
            yield from self._pause(unit.event_cycles, Cause.DMA_WAIT, "wake up", of)
            self._tell_awaited(numbers)

    def _until_joined(self) -> Process:
        team = self._team
        while self._team is team and self.domain.happens() >= 0:
            pass
        if self._team is team:
            yield self._end_of_team()

    def _end_of_team(self) -> simpy.Event:
        """Of the one that runs."""
        self._team_ended = self._team_ended or self.env.event()
        return self._team_ended

    def finish(self) -> Process:
        """Wait for the team that runs, which nobody joins, and for all transfers."""
        if self._team is not None:
            yield from self._until_joined()
        yield from self.wait(self.dma.unfinished())
        self._tell_awaited(range(len(self.log.commands)))

    # -- the engine's reports ----------------------------------------------------------------------
    def _deliver(self, report: Report) -> None:
        if report.kind is Kind.TRANSFER:
            self.log.ended(self.dma.finished(report.subject), report.time)
        else:
            check(self.machine, report)

    def _end_team(self, returned: dict[int, int]) -> None:
        """The last core has returned. returned: the cycles in which they did."""
        team, self._team = self._team, None
        assert team is not None
        ends = [returned.get(core, team.first) for core in range(len(team.begins))]
        self._accounts.team_ends(self.platform.event_unit.start_cycles, ends)
        self.log.ran(team.forked, team.begins, ends)
        if team.before is not None:
            self.log.calls.append(team.label)
            self.log.spent.append(self.machine.engine.counters() - team.before)
        ended, self._team_ended = self._team_ended, None
        if ended is not None:
            ended.succeed()

    def draw(self) -> None:
        """Write what has happened into the timeline, if there is one."""
        if self.timeline is not None:
            self.counters()  # all that has passed is charged
            draw(self.timeline, self.log, self._accounts.charges, self.platform)


def _checked(label: Label | None) -> Label | None:
    """Raises ProgramError for what is no label."""
    if label is not None and not isinstance(label, Label):
        raise ProgramError(f"label of type {type(label).__name__}: must be a Label, or None")
    return label
