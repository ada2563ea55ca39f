"""The L1 domain: what the engine does between SimPy's events.

When all events of a cycle have been handled, the commands given in it go to the engine in a fixed order. Then the
engine advances to SimPy's next event, or to the cycle in which something is reported that others wait for: a transfer's
end, the return of a team's last core. Every reaction takes effect at least a cycle after its cause, so this is exact.

A process whose turn it is need not go through SimPy for what comes before all that is scheduled: it sets the clock
(`passes`, `happens`). The engine may then lag behind it, until somebody asks what has ended or a team starts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy
from numpy.typing import NDArray

from pulpsim.dma import DmaQueue
from pulpsim.engine import EVERY, NONE, Kind, Report, Transfer
from pulpsim.machine import limits

if TYPE_CHECKING:
    from pulpsim.machine.machine import Machine

RETURNED, TRANSFER = Kind.RETURNED, Kind.TRANSFER
Process = Generator[simpy.Event, Any, Any]


class Clock(simpy.Environment):
    """SimPy's, which a process may set to a cycle before which nothing is scheduled."""

    def set(self, cycle: int) -> None:
        self._now = cycle

    def peek(self) -> float:
        """SimPy's own raises an exception inside where nothing is scheduled, which is the rule here."""
        return self._queue[0][0] if self._queue else simpy.core.Infinity


class Domain:
    """Commands to the engine, and its reports. dma: the commands' queue.

    returned: called in the cycle in which a team's last core returns; core -> cycle of its return. deliver: called with
    each other report, in its cycle; with the end of a transfer for which nobody waits, once it is known. limit: the
    last cycle that may be reached.
    """

    def __init__(
        self, machine: Machine, returned: Callable[[dict[int, int]], None], deliver: Callable[[Report], None],
        limit: int,
    ):  # fmt: skip
        self._machine, self._engine, self._limit = machine, machine.engine, limit
        self._env = self.env = Clock(initial_time=machine.engine.now)
        self.dma = DmaQueue(self.env, machine.platform, self._transfer)
        self._returned, self._deliver = returned, deliver
        self._start: tuple[int, Sequence[int], NDArray[np.uint32]] | None = None
        self._transfers: list[tuple[int, Transfer]] = []
        self._cores = 0  # of the team, while one runs
        self._ends: dict[int, int] = {}  # of those that have returned
        self._lags = False  # the engine, behind the clock

    def start(self, row: int, times: Sequence[int], files: NDArray[np.uint32]) -> None:
        """Start a team's cores, each with its registers, uint32 [cores, 64], at its time."""
        self._start, self._cores, self._ends = (row, times, files), len(times), {}

    def _transfer(self, submitted: int, transfer: Transfer) -> None:
        """submitted: the cycle of its command."""
        self._transfers.append((submitted, transfer))

    def close(self) -> None:
        """Nobody is told any more: who was, and the machine, need not wait for the garbage collector."""
        self._engine.awaited = EVERY
        del self._returned, self._deliver, self.dma

    # -- past SimPy ----------------------------------------------------------------------------------
    def passes(self, cycles: int) -> bool:
        """Let cycles pass in which nothing is scheduled and nobody waits for anything; False where that is not so."""
        until = int(self._env.now) + cycles
        if self._cores or self._env.peek() <= until or until > self._limit or self.dma.is_waited_for:
            return False
        self._env.set(until)
        self._lags = True
        return True

    def happens(self, transfer: int = NONE) -> int:
        """Let the next thing happen that somebody waits for, beside the transfer's end, which may have been; its cycle.
        -1 where SimPy has something before that, or nothing will happen."""
        now = int(self._env.now)
        if self._env.peek() <= now:
            return -1
        reports = self._advanced(now, self._horizon(now), transfer)
        if not reports:
            return -1
        cycle = reports[-1].time
        if cycle > now:
            self._env.set(cycle)
        self._lags = cycle < now
        self._react(reports)
        return cycle

    def catch_up(self) -> None:
        """The engine is where the clock is, and what has ended before now is known."""
        if self._lags:
            self._lags, now = False, int(self._env.now)
            self._hand_over(now - 1)
            if not self._engine.idle():
                self._engine.awaited = NONE
                self._tell(self._engine.advance(now))

    # -- between SimPy's events ----------------------------------------------------------------------
    def advance(self) -> None:
        """Once all events of this cycle have been handled: see above."""
        self.catch_up()
        env, now = self._env, int(self._env.now)
        horizon = self._horizon(now)
        if reports := self._advanced(now, horizon):
            env.timeout(reports[-1].time - now, reports).callbacks.append(self._reached)
        elif not self._engine.idle() and env.peek() > horizon:
            env.timeout(horizon - now)  # the limit: time passes, though nothing happens

    def _horizon(self, now: int) -> int:
        """The cycle of SimPy's next event, or that after the limit."""
        following = self._env.peek()
        horizon = self._limit + 1 if following > self._limit else int(following)
        return horizon if horizon > now else now + 1  # max and min take as long as all of this

    def _advanced(self, now: int, horizon: int, awaited: int = NONE) -> list[Report]:
        """The engine advances as far as something is reported that matters, which it returns; none before `horizon`,
        or for good. awaited: a transfer whose end does, beside those that processes or the queue wait for."""
        self._lags = False
        if self._start is not None or self._transfers:
            self._hand_over(now)
        engine, until = self._engine, now
        engine.awaited = awaited = EVERY if self.dma.is_waited_for else awaited
        while until < horizon and not engine.idle():
            until = horizon if horizon - until <= limits.SLICE else until + limits.SLICE
            reports = engine.advance(until)
            if self._matter(reports, awaited):
                return reports
            self._tell(reports)
        return []

    def _hand_over(self, last: int) -> None:
        """What has been commanded up to this cycle."""
        if self._start is not None:
            row, times, files = self._start
            self._machine.start_team(row, times, files)
            self._start = None
        if len(self._transfers) > 1:
            self._transfers.sort(key=_order)
        while self._transfers and self._transfers[0][0] <= last:
            self._engine.transfer(self._transfers.pop(0)[1])

    def _matter(self, reports: list[Report], awaited: int) -> bool:
        """Whether one is more than the return of a core while others of its team run, or the end of a transfer that is
        not awaited. Notes who has returned."""
        matter = False
        for report in reports:
            if report.kind is RETURNED:
                self._ends[report.subject] = report.time
            else:
                matter = matter or report.kind is not TRANSFER or awaited in (EVERY, report.subject)
        return matter or self._team_ends()

    def _team_ends(self) -> bool:
        """All of its cores have returned, and nobody has been told so."""
        return 0 < self._cores == len(self._ends)

    def _reached(self, event: simpy.Event) -> None:
        """The cycle of the last of the reports that are the event's value."""
        reports: Any = event.value
        self._react(reports)

    def _react(self, reports: list[Report]) -> None:
        """A team returns before transfers end."""
        if self._team_ends():
            self._cores = 0
            self._returned(self._ends)
        self._tell(reports)

    def _tell(self, reports: list[Report]) -> None:
        for report in reports:
            if report.kind is not RETURNED:
                self._deliver(report)


def _order(command: tuple[int, Transfer]) -> tuple[int, ...]:
    """In which order transfers begin that became ready in the same cycle."""
    submitted, t = command
    return submitted, t.outward, t.l1, t.l2, t.line_bytes, t.size_bytes, t.l1_stride, t.l2_stride
