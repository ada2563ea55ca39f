"""Where cycles go, instruction by instruction: counted by the engine, added up by loop and shown as text.

  profile = Profiler(machine)
  machine.run(program, ...)
  (part,) = profile.take()
  print_table(listing(part)); print_table(hot_loops([part], platform))

Cycles of a core that belong to no instruction (fork, commands, waiting for transfers, idle) are the machine's, and
in no profile; all others are in it once: over rows they add up to the cores' counters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pulpsim.counters import ENGINE_CAUSES, Cause
from pulpsim.machine import Instrument
from pulpsim.program import Program

if TYPE_CHECKING:
    from pulpsim.machine import Machine

ISSUE = int(Cause.ISSUE)
#: the causes a profile knows, in their order
CAUSES = tuple(Cause(cause) for cause in range(ENGINE_CAUSES))


@dataclass(frozen=True, eq=False)
class Part:
    """One program's share: cycles by core, row and cause, int64 [cores, rows, ENGINE_CAUSES].

    Of ISSUE, how often the instruction was executed: it takes a cycle each time. An end that is run off is no row.
    """

    program: Program
    counts: NDArray[np.int64]

    @property
    def by_row(self) -> NDArray[np.int64]:
        """Of all cores: int64 [rows, ENGINE_CAUSES]."""
        return self.counts.sum(axis=0)

    @property
    def cycles(self) -> int:
        """Of all cores."""
        return int(self.counts.sum())

    @property
    def executed(self) -> int:
        """Instructions, of all cores."""
        return int(self.counts[:, :, ISSUE].sum())


class Profiler(Instrument):
    """Counts what a machine does from now on; `take` may be called whenever it is at rest, or as phases begin."""

    entries = False

    def __init__(self, machine: Machine):
        machine.attach(*machine.instruments, self)
        self._machine = machine
        self._before: dict[int, NDArray[np.int64]] = {}
        self.take()  # of a machine that has been looked at before

    def take(self, programs: Iterable[Program] | None = None) -> list[Part]:
        """What was since the last call, of the programs that ran, in the order in which they were loaded.

        programs: those that may have run; others are not looked at.
        """
        wanted = None if programs is None else set(map(id, programs))
        parts = []
        for first, program in self._machine.code.programs():
            if wanted is None or id(program) in wanted:
                now = self._machine.engine.profile(first, first + len(program))
                own = now - self._before.get(id(program), 0)
                self._before[id(program)] = now
                if own.any():
                    parts.append(Part(program, own))
        return parts


def merged(parts: list[Part]) -> list[Part]:
    """One part a program, in order of appearance."""
    counts: dict[int, Part] = {}
    for part in parts:
        before = counts.get(id(part.program))
        counts[id(part.program)] = part if before is None else Part(part.program, before.counts + part.counts)
    return list(counts.values())
