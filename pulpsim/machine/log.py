"""What a simulation did when: every team of cores, every transfer and, for a timeline, what the controller did.

Kept in columns: thousands of small objects would have every run collect more garbage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulpsim.dma import Copy
from pulpsim.engine import Transfer
from pulpsim.trace import Label


class Team(NamedTuple):
    """Cores that ran a program. begins, ends: each core's first cycle, and since when it did nothing; of one that did
    not run both are the first cycle of the others. spent: what the engine counted, [cores, causes]."""

    label: Label
    forked: int
    begins: Sequence[int]
    ends: Sequence[int]
    spent: NDArray[np.int64]

    @property
    def joined(self) -> int:
        """The cycle in which the last core had returned."""
        return max(self.ends)


class Moved(NamedTuple):
    """A transfer, whose direction was its own in cycles [begin, end)."""

    number: int
    copy: Copy
    commanded: int
    begin: int
    end: int


class Did(NamedTuple):
    """The controller did nothing else in cycles [begin, end). of: names of the transfers, or of the program, that it
    was about."""

    what: str
    of: tuple[str, ...]
    begin: int
    end: int


@dataclass
class Log:
    """commands: when each transfer's command was written, by number. forks: the cycle of each; begins, ends: of its
    cores one after the other, see `Team`. For a timeline, labels: of transfers that have one; did; calls, spent: of
    teams."""

    commands: list[int] = field(default_factory=list)
    forks: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    labels: dict[int, Label] = field(default_factory=dict)
    did: list[Did] = field(default_factory=list)
    calls: list[Label] = field(default_factory=list)
    spent: list[NDArray[np.int64]] = field(default_factory=list)
    _copies: list[Copy] = field(default_factory=list)
    _moved: list[int] = field(default_factory=list)  # number, begin and end of each
    _busy: list[int] = field(default_factory=lambda: [0, 0])  # until when, inward and outward

    def commanded(self, cycle: int, copy: Copy) -> None:
        self.commands.append(cycle)
        self._copies.append(copy)

    def ended(self, transfer: Transfer, last: int) -> None:
        """last: the cycle in which its last word moved."""
        begin = max(transfer.ready, self._busy[transfer.outward])
        self._busy[transfer.outward] = last + 1
        self._moved += (transfer.id, begin, last + 1)

    def ran(self, forked: int, begins: Sequence[int], ends: Sequence[int]) -> None:
        self.forks.append(forked)
        self.begins += begins
        self.ends += ends

    @property
    def moved(self) -> Iterator[Moved]:
        """As transfers ended; those of a direction one after the other, in order."""
        return self.moved_since(0)

    def moved_since(self, known: int) -> Iterator[Moved]:
        """Likewise, without the first ones, that are known."""
        moved = iter(self._moved[3 * known :])
        for number, begin, end in zip(moved, moved, moved, strict=True):
            yield Moved(number, self._copies[number], self.commands[number], begin, end)

    @property
    def teams(self) -> Iterator[Team]:
        """In order, for a timeline."""
        for place, (label, forked, spent) in enumerate(zip(self.calls, self.forks, self.spent, strict=True)):
            of = slice(place * len(spent), (place + 1) * len(spent))
            yield Team(label, forked, self.begins[of], self.ends[of], spent)
