"""The engine of traces behind the engines' contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from pulpsim.code import Code
from pulpsim.engine import FOREVER, Report, Sink, Transfer, loop
from pulpsim.engine import layout as at
from pulpsim.engine.jit import JitEngine
from pulpsim.engine.traces.kept import put_back
from pulpsim.engine.traces.recalled import PARTS, Calls
from pulpsim.engine.traces.touched import meets
from pulpsim.engine.traces.translations import Translations
from pulpsim.jit.machine_code import words
from pulpsim.memory import Memory
from pulpsim.platform import Platform

#: a stretch that failed after so many cycles is not tried again for so many times as long, and a few more
PATIENCE, FEW = 2, 64
#: so many stretches of teams that begin at the same row may fail; then the fast engine runs such teams
FAILURES = 3


def _settle(engine: ref[TraceEngine]) -> None:
    if (one := engine()) is not None:
        one.settle()


class TraceEngine(JitEngine):
    """The `Engine` contract by traces, by the fast engine where they cannot tell.

    Where L1's banks are served in turns, somebody watches or a core belongs to no team, the fast engine does all; and
    programs that are not translated, unless it is `eager`.

    values: False if only cycles are wanted, and they hang on no data: calls are recalled, see `recalled`.
    """

    eager = False

    def __init__(self, platform: Platform, memory: Memory, code: Code, values: bool = True):
        cores, state = platform.cluster.cores, at.initial_state(platform)
        words = int(state[at.L1_WORDS]) + int(state[at.L2_BYTES]) // 4
        self._traces = (
            np.empty(cores * at.TRACE + at.L_PAD, np.int64),
            np.zeros(cores * at.HEAD_FIELDS, np.int64),
            np.zeros(words, np.uint32),
            np.empty((words + 3 * at.MOST_KEPT, 2), np.int64),
            np.empty(at.STATE, np.int64),
            np.empty(cores * at.REGISTER_STRIDE, np.int32),
        )
        self._lanes = (
            np.zeros(cores * at.TRACE + at.L_PAD, np.uint16),
            np.zeros(at.L_BYTES, np.uint8),
            np.zeros(at.L_NUMBERS, np.int32),
        )
        self._parts = np.empty(0 if values else PARTS, np.int64)
        super().__init__(platform, memory, code)
        heads = self._traces[1].reshape(cores, -1)
        self._calls = None if values else Calls(platform, self._state, heads, self._parts)
        self._in_turns = bool(state[at.CONFLICTS] == at.ROUND_ROBIN)  # banks serve; the fast engine does all
        self._exact = self._in_turns
        self._exact_until = FOREVER  # no stretch is tried before this cycle
        self._began, self._begun = -1, 0  # at which row the last core began, and when
        self._failed = Counter[int]()  # stretches, by such rows
        #: since the stretch began, and perhaps before: cycle, command, where it lies in the state, what was there
        self._commands: list[tuple[int, Transfer, int, NDArray[np.int64]]] = []
        memory.settle = partial(_settle, ref(self))  # the engine goes with its machine, not when garbage is collected

    def restart(self) -> None:
        if self._calls is not None:
            self._calls.restart()
        super().restart()
        self._exact, self._exact_until = self._in_turns, FOREVER
        self._began, self._begun = -1, 0
        self._failed.clear()
        self._commands.clear()

    def _see(self) -> None:
        super()._see()
        s, _, _, registers, _, l1, _, _, _, present, *_ = self._seen
        codes = np.zeros((len(self._code.rows), at.P_FIELDS), np.int64)
        called_with = (0, 0, s, registers, l1, present, self._traces)
        self._words = words(called_with)
        traces = (*self._traces, codes.reshape(-1), self._words, self._lanes, self._parts)
        self._ahead = loop.advance.on(*self._seen, traces)
        self._meets = meets.on(s, traces)
        settings = self._platform.icache.enabled, bool(s[at.CONFLICTS])
        rows = self._rows.reshape(-1, at.ROW)
        self._translations = Translations(self._code, self._platform, rows, settings, codes, called_with)

    def _run(self, until: int, reports: list[Report]) -> bool:
        s = self._numbers
        while not (self._exact or self._full or self._counts is not None):
            if not s[at.AHEAD]:
                self._commands.clear()
                if self.now < self._exact_until:
                    trapped = super()._run(min(until, self._exact_until), reports)
                    if trapped or s[at.ENDS] or self.now < self._exact_until:
                        return trapped
            stopped = self._ahead(until)
            self._collect(reports)
            if not stopped:
                return False
            reports[:] = [report for report in reports if report.time < self.now]  # this cycle is handled again
            self._give_up()
        return super()._run(until, reports)

    def _give_up(self) -> None:
        """This stretch is for the fast engine."""
        self._failed[self._began] += 1
        again = self.now + PATIENCE * (self.now - self._since) + FEW
        self._exact_until = again if self._failed[self._began] < FAILURES else FOREVER
        self.settle()

    @property
    def _since(self) -> int:
        """When the stretch began."""
        return int(self._traces[4][at.NOW])

    def settle(self) -> None:
        """Values are those of now: what ran ahead is put back, and the fast engine runs it again."""
        s, now = self._state, self.now
        if not self._numbers[at.AHEAD]:
            return
        commands = [command for command in self._commands if command[0] >= self._since]
        for _, _, place, before in reversed(commands):
            s[place : place + at.FIELDS] = before
        _, _, _, registers, _, l1, _, l2, tags, present, *_ = self._seen
        traces = (*self._traces, self._words, self._words, self._lanes, self._parts)
        put_back(s, registers, l1, l2, tags, present, traces)
        s[at.RECALL] = 0
        for cycle, transfer, _, _ in commands:
            self._run_again(cycle)
            super().transfer(transfer)
        self._run_again(now)

    def _run_again(self, until: int) -> None:
        """By the fast engine; what it reports has been reported."""
        while self.now < until:
            self._loop(until)
            if not self._numbers[at.ENDS]:
                self._numbers[at.NOW] = until

    # -- what needs the values of now ----------------------------------------------------------------
    def transfer(self, transfer: Transfer) -> None:
        """As JitEngine's. It may meet what the cores have touched ahead of time."""
        s, way = self._state, int(transfer.outward)
        if not self._numbers[at.AHEAD]:
            super().transfer(transfer)
            return
        place = self._next_transfer(way)
        before = s[place : place + at.FIELDS].copy()
        super().transfer(transfer)
        self._commands.append((self.now, transfer, place, before))
        if self._meets(way, place):
            self._give_up()

    def begin_team(self, cores: list[int]) -> None:
        self.settle()
        super().begin_team(cores)

    def start(self, core: int, row: int, time: int, registers: NDArray[np.uint32]) -> None:
        self.settle()
        super().start(core, row, time, registers)
        self._choose(row)
        self._exact |= not self._state[at.TEAM] >> core & 1

    def _choose(self, row: int, team: NDArray[np.uint32] | None = None) -> None:
        """Cores begin at a row: by traces, if that is worth it. team: the registers of those that begin together, if
        they do; a core that is alone waits for nobody."""
        if self._began >= 0 and not self._state[at.RECALL]:
            self._translations.ran(self._began, (self.now - self._begun) * self._cores)
        self._began, self._begun = row, self.now
        if self._calls is not None:
            self._calls.end()
        able = self._failed[row] < FAILURES and not (self._exact or self._full or self._counts is not None)
        pays = able and (team is None or len(team) > 1) and (self._is_recalled(team) or self._translations.has(row))
        self._exact_until = self.now if pays or (able and self.eager) else FOREVER

    def _is_recalled(self, team: NDArray[np.uint32] | None) -> bool:
        """Or noted down, to be recalled."""
        return self._calls is not None and team is not None and self._calls.begin(self._began, team, self._tags)

    def start_team(self, row: int, times: Sequence[int], registers: NDArray[np.uint32]) -> None:
        self.settle()
        super().start_team(row, times, registers)
        self._choose(row, registers)

    def counters(self) -> NDArray[np.int64]:
        self.settle()
        return super().counters()

    def work(self) -> NDArray[np.int64]:
        self.settle()
        return super().work()

    def watch(self, sink: Sink | None) -> None:
        self.settle()
        super().watch(sink)

    def registers(self, core: int) -> NDArray[np.uint32]:
        self.settle()
        return super().registers(core)

    def row(self, core: int) -> int:
        self.settle()
        return super().row(core)
