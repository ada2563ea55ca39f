"""What a run cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pulpsim.counters import CoreCounters


@dataclass(frozen=True)
class Result:
    """What a run cost.

    cycles: first instruction to return (`ret` included) of the slowest core; no fork cost.
    cores: counters of every core of the platform; each adds up to `cycles`.
    """

    cycles: int
    clock_hz: int
    cores: tuple[CoreCounters, ...]

    @classmethod
    def of(cls, cycles: int, clock_hz: int, spent: NDArray[np.int64]) -> Result:
        """spent: cycles by cause, int64 [cores, causes]."""
        return cls(cycles, clock_hz, tuple(CoreCounters(*row) for row in spent.tolist()))

    @property
    def milliseconds(self) -> float:
        return 1e3 * self.cycles / self.clock_hz

    @property
    def instructions(self) -> int:
        return sum(core.instructions for core in self.cores)
