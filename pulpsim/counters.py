"""Where every cycle of a core went: one counter a cause, each counted where it happens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Cause(IntEnum):
    """Causes of a core's cycles. Up to BARRIER the engine counts them, the rest the machine."""

    ISSUE = 0  # one cycle an instruction
    LOAD_USE = 1
    BANK_CONFLICT = 2
    FPU_CONTENTION = 3
    MULDIV = 4  # multiplier and dividers: latency, use of a product, waiting for the shared divider
    BRANCH = 5  # taken branches and jumps
    MISALIGNED = 6
    L2 = 7
    ICACHE = 8  # refills of the instruction cache
    BARRIER = 9
    FORK = 10  # starting a team and joining it
    COMMAND = 11  # the controller writes DMA commands
    DMA_WAIT = 12  # the controller waits for a transfer
    IDLE = 13  # the core has returned, or was not forked; others still work


CAUSES = len(Cause)
ENGINE_CAUSES = int(Cause.BARRIER) + 1


@dataclass(frozen=True, slots=True)
class CoreCounters:
    """Cycles of one core by cause; `total` is their sum."""

    issue: int = 0
    load_use: int = 0
    bank_conflict: int = 0
    fpu_contention: int = 0
    muldiv: int = 0
    branch: int = 0
    misaligned: int = 0
    l2: int = 0
    icache: int = 0
    barrier: int = 0
    fork: int = 0
    command: int = 0
    dma_wait: int = 0
    idle: int = 0

    @property
    def instructions(self) -> int:
        """Retired instructions: each issues in one cycle."""
        return self.issue

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in self.__slots__)

    @classmethod
    def from_row(cls, row: NDArray[np.int64]) -> CoreCounters:
        return cls(*(int(value) for value in row))
