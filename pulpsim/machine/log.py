"""What a simulation did when: every team of cores and every transfer, in cycles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Team(NamedTuple):
    """Cores that ran a program. forked: the cycle of the fork. begins, ends: core -> its first cycle, and the first one
    after its return."""

    source: str
    forked: int
    begins: Mapping[int, int]
    ends: Mapping[int, int]


class Moved(NamedTuple):
    """A transfer, whose direction was its own in cycles [begin, end)."""

    number: int
    outward: bool
    size_bytes: int
    begin: int
    end: int


@dataclass
class Log:
    """teams: in order. commands: when each transfer's command was written, by number. moved: as transfers ended; those
    of a direction one after the other, in order."""

    teams: list[Team] = field(default_factory=list)
    commands: list[int] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    _busy: list[int] = field(default_factory=lambda: [0, 0])  # until when, inward and outward

    def moves(self, number: int, outward: bool, size_bytes: int, ready: int, last: int) -> Moved:
        """ready: when its first word could have moved. last: in which cycle its last one did."""
        begin, end = max(ready, self._busy[outward]), last + 1
        self._busy[outward] = end
        self.moved.append(Moved(number, outward, size_bytes, begin, end))
        return self.moved[-1]
