"""What the reference engine notes when it is watched (`pulpsim.engine`, "Watching")."""

from __future__ import annotations

from collections import Counter

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import ENTRY, Entry, Sink


class Notes:
    """counts: executions and cycles waited by (core, row, cause). now: to be set to the cycle at hand. sink: takes
    entries, if there is one."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[int, int, int]] = Counter()
        self.now = 0
        self.sink: Sink | None = None
        self._entries: list[tuple[int, ...]] = []
        self._event = 0  # where the entries of the event at hand begin

    def begin_event(self) -> None:
        self._event = len(self._entries)

    def executed(self, core: int, row: int, address: int, rd: int, base: int) -> None:
        """rd, base: what it wrote. It comes before what the event waits for, which is known earlier."""
        self.counts[core, row, int(Cause.ISSUE)] += 1
        if self.sink is not None:
            self._entries.insert(self._event, (self.now, core, row, int(Cause.ISSUE), address, rd, base, 0))

    def waited(self, core: int, row: int, cause: int, cycles: int) -> None:
        if not cycles:
            return
        self.counts[core, row, int(cause)] += cycles
        if self.sink is None:
            return
        event = (self.now, core, row, int(cause))
        if self._entries and self._entries[-1][: Entry.VALUE] == event:  # a product's use, and what a division takes
            cycles += self._entries.pop()[Entry.VALUE]
        self._entries.append((*event, cycles, 0, 0, 0))

    def hand_over(self) -> None:
        if self.sink is not None and self._entries:
            self.sink(np.array(self._entries, np.int64).reshape(-1, ENTRY))
        self._entries, self._event = [], 0
