"""Where every cycle of a core went: one counter a cause, each counted where it happens."""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Cause(IntEnum):
    """Causes of a core's cycles. Up to BARRIER the engine counts them, the rest the machine."""

    ISSUE = 0
    LOAD_USE = 1
    BANK_CONFLICT = 2
    FPU_CONTENTION = 3
    MULDIV = 4  # also the use of a product, and waiting for the shared divider
    BRANCH = 5
    MISALIGNED = 6
    L2 = 7
    ICACHE = 8
    BARRIER = 9
    FORK = 10
    COMMAND = 11
    DMA_WAIT = 12
    IDLE = 13  # or this core was not forked


class Work(IntEnum):
    """What a core did that costs energy beside its instructions; the engine counts it."""

    FP_OPERATIONS = 0  # instructions of the FPUs and of the divider; a fused multiply-add is one
    L1_WORDS = 1  # words of L1 that loads and stores touch; a misaligned access across two touches both


CAUSES = len(Cause)
WORKS = len(Work)
ENGINE_CAUSES = int(Cause.BARRIER) + 1

#: what a cause means to a reader who has not seen the manual
MEANINGS: dict[Cause, str] = {
    Cause.ISSUE: "instructions, one cycle each",
    Cause.LOAD_USE: "next instruction needs the value just loaded",
    Cause.BANK_CONFLICT: "waiting for an L1 bank that others use",
    Cause.FPU_CONTENTION: "waiting for a shared FPU",
    Cause.MULDIV: "multiplier and divider latency",
    Cause.BRANCH: "taken branches, jumps, returns; what setting up a hardware loop takes beyond a cycle",
    Cause.MISALIGNED: "second half of a misaligned access",
    Cause.L2: "a core's own access to L2",
    Cause.ICACHE: "refilling the instruction cache",
    Cause.BARRIER: "waiting at barriers inside kernels",
    Cause.FORK: "starting and joining the team",
    Cause.COMMAND: "the controller writes DMA commands",
    Cause.DMA_WAIT: "the team waits for a transfer",
    Cause.IDLE: "this core is done, others still work",
}


class CoreCounters(msgspec.Struct, frozen=True, gc=False):
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
        return sum(msgspec.structs.astuple(self))
