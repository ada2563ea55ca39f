"""Which cause every cycle of a simulation is charged to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import simpy
from numpy.typing import NDArray

from pulpsim.counters import Cause
from pulpsim.engine import Engine


class Charge(NamedTuple):
    """Cycles [begin, end) are charged to this cause on every core."""

    begin: int
    end: int
    cause: Cause


class Accounts:
    """Every cycle that passes is charged to all cores, once.

    The engine counts those of a core that runs. The others are charged here: while no team runs to what the
    controller claims, else to IDLE; while one runs, to FORK before its cores' first instructions, and to IDLE
    for a core that starts later, has returned or does not belong to it.

    charges: if they are kept, of cycles in which no team ran, on `clock`, without gaps up to the last look at the
    counters.
    """

    def __init__(self, env: simpy.Environment, engine: Engine, cores: int, keep: bool):
        self._env, self._engine = env, engine
        self._began: int | None = None  # when the team that runs was forked
        self._team_cycles = 0  # of all teams before it
        self._claims: list[tuple[int, int, Cause]] = []  # (end, begin, cause) on `clock`
        self._settled = int(env.now)
        self._keep = keep
        self.charges: list[Charge] = []
        self._by_all = [0] * len(Cause)  # cycles charged to every core
        self._idle = [0] * cores  # cycles beside them in which a core did nothing

    def counters(self) -> NDArray[np.int64]:
        """Cycles by cause so far, int64 [cores, causes]; two calls differ by what lies between."""
        for end, begin, cause in sorted(self._claims):
            self._charge(begin, Cause.IDLE)
            self._charge(end, cause)
        self._claims.clear()
        self._charge(self.clock(), Cause.IDLE)
        counters = self._engine.counters() + np.array(self._by_all)
        counters[:, Cause.IDLE] += self._idle
        return counters

    def clock(self) -> int:
        """Cycles in which no team ran: those that are charged to what the controller does."""
        return (int(self._env.now) if self._began is None else self._began) - self._team_cycles

    def claim(self, begin: int, cause: Cause) -> None:
        """What has passed of `clock` since `begin` was for this cause."""
        self._claims.append((self.clock(), begin, cause))

    def claim_latest(self, cycles: int, cause: Cause) -> None:
        """So many have just passed, for this cause."""
        end = self.clock()
        self._claims.append((end, end - cycles, cause))

    def _charge(self, until: int, cause: Cause) -> None:
        """Charge to every core what is not yet charged."""
        if until > self._settled:
            if self._keep:
                self.charges.append(Charge(self._settled, until, cause))
            self._by_all[cause] += until - self._settled
            self._settled = until

    def team_begins(self, delays: Sequence[int]) -> None:
        """delays: cycles by which each of its cores starts later than the first could."""
        self._began = int(self._env.now)
        for core, delay in enumerate(delays if any(delays) else ()):
            self._idle[core] += delay

    def team_ends(self, start_cycles: int, ends: Sequence[int]) -> None:
        """start_cycles: from its fork to its first instruction. ends: since when each core does nothing."""
        assert self._began is not None
        now = int(self._env.now)
        self._team_cycles += now - self._began
        self._began = None
        self._by_all[Cause.FORK] += start_cycles
        self._idle = [idle + now - end for idle, end in zip(self._idle, ends, strict=True)]
