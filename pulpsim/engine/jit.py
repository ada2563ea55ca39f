"""The fast engine: the contract of `pulpsim.engine` as one Numba function over flat arrays.

`JitEngine` keeps the arrays (`layout`) and decodes programs into them (`decoding`); `loop` is the function.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.code import ALIGN_ROWS, RETURN_ROW, Code
from pulpsim.counters import CAUSES, ENGINE_CAUSES, WORKS
from pulpsim.engine import ENTRY, FOREVER, Kind, Report, Sink, Status, Transfer, icache, loop
from pulpsim.engine import layout as at
from pulpsim.engine.decoding import decode, needs_control
from pulpsim.engine.ports import begin
from pulpsim.engine.watching import LOG, LOG_FULL, unfold
from pulpsim.memory import Memory
from pulpsim.platform import Platform

KINDS = tuple(Kind)  #: by number
STAYS = (at.CODE_ROWS, at.LINES, at.STRETCH, at.PARTS_END)  #: of the state, when the engine is restarted
RETURN_LINE = RETURN_ROW // ALIGN_ROWS  #: `<return>` is not fetched


class JitEngine:
    """The `Engine` contract on Numba."""

    def __init__(self, platform: Platform, memory: Memory, code: Code):
        self._platform, self._memory, self._code = platform, memory, code
        self._cores = platform.cluster.cores
        self._state = at.initial_state(platform)
        self._numbers = self._state.data  # the same, of which Python reads one faster
        self._begin = begin.on(self._state)
        self._times = np.zeros(self._cores, np.int64)  # what a team is started with
        self._files = np.zeros((self._cores, isa.REGISTERS), np.uint32)
        cores = self._state[at.CORE : at.CORE + self._cores * at.CORE_FIELDS].reshape(-1, at.CORE_FIELDS)
        self._statuses, self._counters = cores[:, at.STATUS], cores[:, at.COUNT : at.COUNT + CAUSES]
        self._work = cores[:, at.DID : at.DID + WORKS]
        self._reports = self._state[at.REPORT : at.MASKS].reshape(-1, at.FIELDS)[:, :4]
        self._rows, self._version = np.zeros(0, np.int32), 0  # the code's, when it was decoded
        self._full: bool | None = None  # some program needs all of the engine
        self._counted = True if platform.power is not None else None
        self._registers = np.zeros(self._cores * at.REGISTER_STRIDE, np.int32)
        self._tags = icache.empty(platform)
        self._present = np.zeros((self._cores, 0), np.uint8)
        self._hit = not platform.icache.enabled  # without the cache every fetch hits
        self._counts: NDArray[np.int64] | None = None  # by instruction, while it is watched
        self._log = np.zeros((0, ENTRY), np.int64)
        self._sink: Sink | None = None
        self._see()

    def _see(self) -> None:
        """Put together once what `loop.advance` works on: it is called thousands of times a second."""
        l1, l2, rows = self._memory.l1, self._memory.l2, self._rows
        watch = None if self._counts is None else (self._counts, self._log)
        full = self._full if watch is None else True  # each form is compiled: one that is watched can do all,
        counted = self._counted if full is None else full  # and one that can do all counts
        self._seen = (
            self._state, rows, rows.view(np.uint32), self._registers,
            l1, l1.view(np.int32), l2, l2.view(np.int32), self._tags, self._present.reshape(-1), full, counted, watch,
        )  # fmt: skip
        self._loop = loop.advance.on(*self._seen, None)
        present = self._present.reshape(-1)
        self._start_team = loop.start_team.on(self._state, self._registers, self._times, self._files, present)

    def restart(self) -> None:
        s = self._state
        known = s[[*STAYS]]
        s[:] = at.initial_state(self._platform)
        s[[*STAYS]] = known
        self._registers[:], self._tags[:] = 0, icache.empty(self._platform, int(s[at.LINES]))
        self._present[:], self._present[:, RETURN_LINE : RETURN_LINE + 1] = self._hit, 1  # there may be no code yet
        if self._counts is not None:
            self._counts = self._sink = None
            self._see()

    @property
    def now(self) -> int:
        return self._numbers[at.NOW]

    @property
    def awaited(self) -> int:
        """The transfer whose end ends `advance`, EVERY or NONE."""
        return self._numbers[at.AWAITED]

    @awaited.setter
    def awaited(self, transfer: int) -> None:
        self._numbers[at.AWAITED] = transfer

    def _core(self, core: int) -> NDArray[np.int64]:
        first = at.CORE + core * at.CORE_FIELDS
        return self._state[first : first + at.CORE_FIELDS]

    def begin_team(self, cores: list[int]) -> None:
        """Raises ValueError if one of the cores has been started already."""
        for core in cores:
            self._require_off(core)
        self._state[at.TEAM] = sum(1 << core for core in set(cores))
        for position in (at.ARRIVED, at.GONE, at.DEADLOCKED, at.FIRST):
            self._state[position] = 0

    def start(self, core: int, row: int, time: int, registers: NDArray[np.uint32]) -> None:
        """Raises ValueError if the core is running, the time has passed or the row does not exist."""
        if self._statuses[core] != loop.OFF:
            raise ValueError(f"core {core} is running already")
        self._require_start(core, row, time)
        self._take_code()
        loop.start(core, row * at.ROW, time, self._state, self._registers, registers, self._present.reshape(-1))

    def start_team(self, row: int, times: Sequence[int], registers: NDArray[np.uint32]) -> None:
        """Raises ValueError as `begin_team` and `start` do."""
        earliest = min(times)
        self._require_start(times.index(earliest), row, earliest)
        self._take_code()
        cores = len(times)
        self._times[:cores], self._files[:cores] = times, registers
        running = self._start_team(cores, row * at.ROW)
        if running >= 0:
            self._require_off(running)

    def _require_off(self, core: int) -> None:
        if self._statuses[core] != loop.OFF:
            raise ValueError(f"core {core} is running: a team begins before its cores start")

    def _require_start(self, core: int, row: int, time: int) -> None:
        if time < self.now:
            raise ValueError(f"core {core} cannot start at {time}: it is {self.now}")
        if not 0 <= row < len(self._code.rows):
            raise ValueError(f"core {core} cannot start at row {row}: there are {len(self._code.rows)}")

    def transfer(self, transfer: Transfer) -> None:
        """Raises ValueError if the transfer is empty, its time has passed or too many are queued."""
        way, t, s = int(transfer.outward), transfer, self._numbers
        if t.size_bytes <= 0:
            raise ValueError(f"transfer {t.id} moves {t.size_bytes} bytes")
        if t.ready < self.now:
            raise ValueError(f"transfer {t.id} cannot begin at {t.ready}: it is {self.now}")
        stream = at.STREAM + way * at.STREAM_FIELDS
        if s[stream + at.D_TAIL] - s[stream + at.D_OPEN] >= at.QUEUE:
            raise ValueError(f"more than {at.QUEUE} DMA transfers queued in one direction")
        self._begin(way, t.id, t.l1, t.l2, t.size_bytes // 4, t.line_bytes // 4, t.l1_stride, t.l2_stride, t.ready)

    def _next_transfer(self, way: int) -> int:
        """Where a direction's next transfer will lie in the state."""
        number = self._numbers[at.STREAM + way * at.STREAM_FIELDS + at.D_TAIL]
        return at.TRANSFERS + (way * at.QUEUE + number % at.QUEUE) * at.FIELDS

    def advance(self, until: int) -> list[Report]:
        reports: list[Report] = []
        s, again = self._numbers, True
        until = until if until < FOREVER else FOREVER
        while again:
            trapped = self._run(until, reports)
            ends = s[at.ENDS]
            again = bool(s[at.LOGGED] and self._hand_over())
            if trapped:
                return reports
            if ends & at.STALE:
                self._refresh()
                again = True
            if ends & at.REPORTED:
                return reports
        if s[at.NOW] < until < FOREVER:
            s[at.NOW] = until
        return reports

    def _run(self, until: int, reports: list[Report]) -> bool:
        """The compiled loop. Adds what it reports; whether a core has trapped."""
        trapped = bool(self._loop(until))
        self._collect(reports)
        return trapped

    def _collect(self, reports: list[Report]) -> None:
        if count := self._numbers[at.REPORTS]:
            found = self._reports[:count].tolist()
            reports += [Report(KINDS[kind], time, subject, value) for kind, time, subject, value in found]

    def _hand_over(self) -> bool:
        """Empty the log; whether it was full, which ends `loop.advance` early."""
        count = int(self._state[at.LOGGED])
        if count and self._sink is not None:
            self._sink(self._log[:count])
        self._state[at.LOGGED] = 0
        return count > LOG_FULL

    def watch(self, sink: Sink | None) -> None:
        if self._counts is None:
            self._counts = np.zeros((self._cores, len(self._rows)), np.int64)
        self._sink, self._state[at.LOGGING] = sink, sink is not None
        self._log = np.zeros((LOG if sink is not None else 0, ENTRY), np.int64)
        self._see()

    def _unfold(self) -> None:
        """What was counted by runs of the rows as they are now decoded."""
        if self._counts is not None:
            unfold(self._counts, self._rows)

    def profile(self, first: int = 0, last: int | None = None) -> NDArray[np.int64]:
        self._unfold()
        counts = np.zeros((self._cores, 0), np.int64) if self._counts is None else self._counts
        return counts.reshape(self._cores, -1, at.ROW)[:, first:last, :ENGINE_CAUSES].copy()

    def _refresh(self) -> None:
        """fence.i: what has been written where programs lie counts from the next cycle on."""
        if self._code.refresh(self._memory.l2, self._platform.cluster.fp_registers == "separate"):
            self._take_code()

    def _take_code(self) -> None:
        """Decode the code image if it has changed; the caches keep what they hold."""
        s, rows = self._state, self._code.rows
        if self._version == self._code.version and s[at.CODE_ROWS]:
            return
        self._version = self._code.version
        self._unfold()
        decoded = decode(rows, self._platform)
        self._rows, self._full = decoded.reshape(-1), needs_control(decoded) or None
        new_lines = -(-len(rows) // ALIGN_ROWS) - int(s[at.LINES])
        s[at.CODE_ROWS], s[at.LINES] = len(rows), s[at.LINES] + new_lines
        self._present = np.hstack([self._present, np.full((self._cores, new_lines), self._hit, np.uint8)])
        self._present[:, RETURN_LINE] = 1
        self._tags = np.hstack([self._tags, np.zeros(new_lines, self._tags.dtype)])
        if self._counts is not None:
            self._counts = np.pad(self._counts, ((0, 0), (0, decoded.size - self._counts.shape[1])))
        self._see()

    def idle(self) -> bool:
        return not self._numbers[at.QUEUED]

    def at_rest(self) -> bool:
        return self.idle() and not np.count_nonzero(self._statuses != loop.OFF)

    def counters(self) -> NDArray[np.int64]:
        return self._counters.copy()

    def work(self) -> NDArray[np.int64]:
        return self._work.copy() if self._counted else np.zeros((self._cores, WORKS), np.int64)

    def registers(self, core: int) -> NDArray[np.uint32]:
        base = core * at.REGISTER_STRIDE
        return self._registers[base : base + 64].view(np.uint32).copy()

    def row(self, core: int) -> int:
        return int(self._core(core)[at.PLACE] & at.PLACES) // at.ROW

    def status(self, core: int) -> Status:
        return Status(int(self._statuses[core]))
