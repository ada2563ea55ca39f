"""What the reference engine notes when it is watched (`pulpsim.engine`, "Watching")."""

from __future__ import annotations

from collections import Counter

import numpy as np

from pulpsim.counters import Cause
from pulpsim.engine import ENTRY, Entry, Sink


class Notes:
    """counts: executions and cycles waited by (core, row, cause). now: to be set to the cycle at hand."""

    def __init__(self, sink: Sink | None):
        self.counts: Counter[tuple[int, int, int]] = Counter()
        self.now = 0
        self._sink = sink
        self._entries: list[tuple[int, ...]] = []

    def executed(self, core: int, row: int, address: int, rd: int, base: int) -> None:
        """rd, base: what it wrote."""
        self._note(core, row, int(Cause.ISSUE), 1, address, rd, base)

    def waited(self, core: int, row: int, cause: int, cycles: int) -> None:
        if cycles:
            self._note(core, row, int(cause), cycles, cycles, 0, 0)

    def _note(self, core: int, row: int, cause: int, cycles: int, *values: int) -> None:
        self.counts[core, row, cause] += cycles
        if self._sink is None:
            return
        entry = (self.now, core, row, cause, *values, 0)
        if self._entries and self._entries[-1][:4] == entry[:4]:  # a product's use, and what a division takes
            before = self._entries.pop()[Entry.VALUE]
            entry = (*entry[: Entry.VALUE], before + entry[Entry.VALUE], *entry[Entry.VALUE + 1 :])
        self._entries.append(entry)

    def hand_over(self) -> None:
        if self._sink is not None and self._entries:
            self._sink(np.array(self._entries, np.int64).reshape(-1, ENTRY))
        self._entries = []
