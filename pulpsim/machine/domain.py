"""The L1 domain: the SimPy process that advances the engine.

It lets the queue drain at the current time, hands over the commands given in this cycle in a fixed order,
advances the engine to the next SimPy event or to the cycle in which something is reported, and sleeps for
the cycles that passed. Every reaction takes effect at least a cycle after its cause, so this is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy
from numpy.typing import NDArray

from pulpsim.engine import Report, Transfer
from pulpsim.machine import limits

if TYPE_CHECKING:
    from pulpsim.machine.machine import Machine

Process = Generator[simpy.Event, Any, Any]


class Domain:
    """Commands to the engine, and its reports. deliver: called with each report, in its cycle."""

    def __init__(self, env: simpy.Environment, machine: Machine, deliver: Callable[[Report], None]):
        self._env, self._machine, self._engine, self._deliver = env, machine, machine.engine, deliver
        self._commands: list[tuple[tuple[int, ...], Callable[..., None], tuple[Any, ...]]] = []
        self._asleep: simpy.Event | None = None

    def start(self, row: int, times: Sequence[int], files: Sequence[NDArray[np.uint32]]) -> None:
        """Start a team's cores, each with its registers at its time."""
        self._command((0, 0), self._machine.begin_team, list(range(len(files))))
        for core, (time, registers) in enumerate(zip(times, files, strict=True)):
            self._command((1, core), self._machine.start, core, row, time, registers)

    def transfer(self, submitted: int, transfer: Transfer) -> None:
        t = transfer
        order = (2, submitted, t.outward, t.l1, t.l2, t.line_bytes, t.size_bytes, t.l1_stride, t.l2_stride)
        self._command(order, self._engine.transfer, transfer)

    def _command(self, order: tuple[int, ...], action: Callable[..., None], *arguments: Any) -> None:
        self._commands.append((order, action, arguments))
        if self._asleep is not None:
            self._asleep.succeed()
            self._asleep = None

    def run(self, limit: int) -> Process:
        """limit: the last cycle that may be reached."""
        env, engine = self._env, self._engine
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
            now = int(env.now)
            horizon = min(env.peek(), now + limits.SLICE, limit + 1)
            reports = engine.advance(max(int(horizon), now + 1))
            yield env.timeout((reports[0].time if reports else engine.now) - now)
            for report in reports:
                self._deliver(report)
