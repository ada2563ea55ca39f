"""The L1 domain: what the engine does between SimPy's events.

When all events of a cycle have been handled, the commands given in it go to the engine in a fixed order. Then the
engine advances to SimPy's next event, or to the cycle in which something is reported that others wait for: a transfer's
end, the return of a team's last core. Every reaction takes effect at least a cycle after its cause, so this is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy
from numpy.typing import NDArray

from pulpsim.engine import Kind, Report, Transfer
from pulpsim.machine import limits

if TYPE_CHECKING:
    from pulpsim.machine.machine import Machine

RETURNED, TRANSFER = Kind.RETURNED, Kind.TRANSFER
Process = Generator[simpy.Event, Any, Any]


class Domain:
    """Commands to the engine, and its reports.

    returned: called in the cycle in which a team's last core returns; core -> cycle of its return. deliver: called with
    each other report, in its cycle; with the end of a transfer that is not `awaited`, by its number, once it is known.
    """

    def __init__(
        self, env: simpy.Environment, machine: Machine, returned: Callable[[dict[int, int]], None],
        deliver: Callable[[Report], None], awaited: Callable[[int], bool],
    ):  # fmt: skip
        self._env, self._machine, self._engine = env, machine, machine.engine
        self._returned, self._deliver, self._awaited = returned, deliver, awaited
        self._start: tuple[int, Sequence[int], NDArray[np.uint32]] | None = None
        self._transfers: list[tuple[int, Transfer]] = []
        self._cores = 0  # of the team
        self._ends: dict[int, int] = {}  # of those that have returned

    def start(self, row: int, times: Sequence[int], files: NDArray[np.uint32]) -> None:
        """Start a team's cores, each with its registers, uint32 [cores, 64], at its time."""
        self._start = row, times, files

    def transfer(self, submitted: int, transfer: Transfer) -> None:
        """submitted: the cycle of its command."""
        self._transfers.append((submitted, transfer))

    def advance(self, now: int, limit: int) -> None:
        """Once all events of cycle `now` have been handled: see above. limit: the last cycle that may be reached."""
        if self._start is not None or self._transfers:
            self._hand_over()
        env, engine = self._env, self._engine
        if engine.idle():
            return
        following, until = env.peek(), now
        horizon = limit + 1 if following > limit else int(following)
        horizon = horizon if horizon > now else now + 1  # max and min take as long as all of this
        while until < horizon:
            until = horizon if horizon - until <= limits.SLICE else until + limits.SLICE
            while reports := engine.advance(until):
                if self._matter(reports):
                    env.timeout(reports[-1].time - now, reports).callbacks.append(self._reached)
                    return
                if reports[-1].kind is TRANSFER:
                    self._tell(reports)
                    if engine.idle():
                        return
        if env.peek() > horizon:
            env.timeout(horizon - now)  # the limit: time passes, though nothing happens

    def _hand_over(self) -> None:
        if self._start is not None:
            row, times, files = self._start
            self._machine.start_team(row, times, files)
            self._start, self._cores, self._ends = None, len(times), {}
        if self._transfers:
            for _, transfer in sorted(self._transfers, key=_order):
                self._engine.transfer(transfer)
            self._transfers.clear()

    def _matter(self, reports: list[Report]) -> bool:
        """Whether one is more than the return of a core while others of its team run, or the end of a transfer for
        which nobody waits. Notes who has returned."""
        matter = False
        for report in reports:
            if report.kind is RETURNED:
                self._ends[report.subject] = report.time
            else:
                matter = matter or report.kind is not TRANSFER or self._awaited(report.subject)
        return matter or self._team_ends(reports)

    def _team_ends(self, reports: list[Report]) -> bool:
        """The team's last core is among those that have returned."""
        return reports[0].kind is RETURNED and len(self._ends) == self._cores

    def _reached(self, event: simpy.Event) -> None:
        """The cycle of the last of the reports that are the event's value: a team returns before transfers end."""
        reports: Any = event.value
        if self._team_ends(reports):
            self._returned(self._ends)
        self._tell(reports)

    def _tell(self, reports: list[Report]) -> None:
        if reports[-1].kind is RETURNED:
            return
        for report in reports:
            if report.kind is not RETURNED:
                self._deliver(report)


def _order(command: tuple[int, Transfer]) -> tuple[int, ...]:
    """In which order transfers begin that became ready in the same cycle."""
    submitted, t = command
    return submitted, t.outward, t.l1, t.l2, t.line_bytes, t.size_bytes, t.l1_stride, t.l2_stride
