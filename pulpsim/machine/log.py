"""What a simulation did when: every team of cores, every transfer and, for a timeline, what the controller did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pulpsim.engine import Transfer
from pulpsim.trace import Label


class Team(NamedTuple):
    """Cores that ran a program. forked: the cycle of the fork. begins: of those that ran, core -> its first cycle.
    ends: of all, core -> since when it did nothing. spent: for a timeline, what the engine counted, [cores, causes]."""

    label: Label
    forked: int
    begins: Mapping[int, int]
    ends: Mapping[int, int]
    spent: NDArray[np.int64] | None

    @property
    def joined(self) -> int:
        """The cycle in which the last core had returned."""
        return max(self.ends.values())


class Moved(NamedTuple):
    """A transfer, whose direction was its own in cycles [begin, end)."""

    transfer: Transfer
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
    """teams: in order. commands: when each transfer's command was written, by number. moved: as transfers ended; those
    of a direction one after the other, in order. labels: of transfers that have one. did: only for a timeline."""

    teams: list[Team] = field(default_factory=list)
    commands: list[int] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    labels: dict[int, Label] = field(default_factory=dict)
    did: list[Did] = field(default_factory=list)
    _busy: list[int] = field(default_factory=lambda: [0, 0])  # until when, inward and outward

    def commanded(self, cycle: int, number: int, label: Label | None) -> None:
        self.commands.append(cycle)
        if label is not None:
            self.labels[number] = label

    def ended(self, transfer: Transfer, last: int) -> None:
        """last: the cycle in which its last word moved."""
        begin = max(transfer.ready, self._busy[transfer.outward])
        self._busy[transfer.outward] = last + 1
        self.moved.append(Moved(transfer, begin, last + 1))
