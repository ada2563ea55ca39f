"""The L1 domain: what the engine does between SimPy's events.

When all events of a cycle have been handled, the commands given in it go to the engine in a fixed order. Then the
engine advances to SimPy's next event, or to the cycle in which something is reported that a process may wait for: a
transfer's end, the return of a team's last core. Every reaction takes effect at least a cycle after its cause, so
this is exact.
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

Process = Generator[simpy.Event, Any, Any]


class Domain:
    """Commands to the engine, and its reports. deliver: called with each report in its cycle; with the return of a
    core that is not its team's last, for which nobody waits, when it is known."""

    def __init__(self, env: simpy.Environment, machine: Machine, deliver: Callable[[Report], None]):
        self._env, self._machine, self._engine, self._deliver = env, machine, machine.engine, deliver
        self._start: tuple[int, Sequence[int], NDArray[np.uint32]] | None = None
        self._transfers: list[tuple[int, Transfer]] = []
        self._running = 0  # cores of the team

    def start(self, row: int, times: Sequence[int], files: NDArray[np.uint32]) -> None:
        """Start a team's cores, each with its registers, uint32 [cores, 64], at its time."""
        self._start = row, times, files

    def transfer(self, submitted: int, transfer: Transfer) -> None:
        """submitted: the cycle of its command."""
        self._transfers.append((submitted, transfer))

    def advance(self, limit: int) -> None:
        """Once all events of this cycle have been handled: see above. limit: the last cycle that may be reached."""
        self._hand_over()
        env, engine, now = self._env, self._engine, int(self._env.now)
        horizon = max(int(min(env.peek(), limit + 1)), now + 1)
        while not engine.idle() and engine.now < horizon:
            reports = engine.advance(min(horizon, engine.now + limits.SLICE))
            returned = [report.kind for report in reports].count(Kind.RETURNED)
            self._running -= returned
            if returned < len(reports) or (returned and not self._running):
                env.timeout(reports[0].time - now, reports).callbacks.append(self._reached)
                return
            for report in reports:
                self._deliver(report)
        if not engine.idle() and env.peek() > horizon:
            env.timeout(horizon - now)  # the limit: time passes, though nothing happens

    def _hand_over(self) -> None:
        if self._start is not None:
            row, times, files = self._start
            self._machine.start_team(row, times, files)
            self._start, self._running = None, len(times)
        for _, transfer in sorted(self._transfers, key=_order):
            self._engine.transfer(transfer)
        self._transfers.clear()

    def _reached(self, event: simpy.Event) -> None:
        reports: Any = event.value
        for report in reports:
            self._deliver(report)


def _order(command: tuple[int, Transfer]) -> tuple[int, ...]:
    """In which order transfers begin that became ready in the same cycle."""
    submitted, t = command
    return submitted, t.outward, t.l1, t.l2, t.line_bytes, t.size_bytes, t.l1_stride, t.l2_stride
