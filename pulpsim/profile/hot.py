"""The hottest loops: what a turn of each takes, what limits it, and what would remove that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.counters import Cause
from pulpsim.isa import Unit
from pulpsim.platform import Platform
from pulpsim.profile import ISSUE, Part
from pulpsim.profile.loops import Loop, innermost, loops_of
from pulpsim.program import OP, Program
from pulpsim.program.rows import LINE_BYTES

#: what would remove a loss; {lines}: the instructions that lose most
REMEDIES = {
    Cause.LOAD_USE: "an instruction that needs nothing just loaded, between the load and {lines}",
    Cause.BANK_CONFLICT: "rows that begin in other banks (pad them by a word), or l1.banks; most at {lines}",
    Cause.FPU_CONTENTION: "an FPU for each core (cluster.fpus), or other work between {lines}",
    Cause.MULDIV: "mul, div and fdiv out of the loop; at {lines}",
    Cause.BRANCH: "a hardware loop (lp.setup) in the place of {lines}",
    Cause.MISALIGNED: "addresses that are multiples of 4; at {lines}",
    Cause.L2: "a copy in L1, brought by DMA; at {lines}",
    Cause.ICACHE: "code that stays in the private cache: a shorter body, less unrolled; at {lines}",
    Cause.BARRIER: "an even share of work for each core before {lines}",
}
#: of an instruction cache's refills that happen once for each line and core, as in every first turn
COLD = "nothing in the loop: each core's first turn brings its code, more turns a call make less of it"
#: what would remove a bound
LIMITS = {
    "issue": "of {all} instructions a turn {fp} are FP, {accesses} load or store: unroll, so that a load serves more",
    "load-use": "instructions that need nothing just loaded, between loads and their uses",
    "banks": "fewer of the {accesses} loads and stores a turn, or l1.banks",
    "FPUs": "more FPUs (cluster.fpus)",
}
#: of a loop's cycles, what is worth a remedy
WORTH = 0.05


@dataclass(frozen=True)
class HotLoop:
    """A loop's own cycles, without those of loops inside it, of all cores. turns: how often it went round, likewise.

    accesses, fp_operations: executed in it. refills: cycles that bring its code once into each core's cache. limits:
    least cycles of a turn by what limits it, were nothing else to. by_row: cycles by cause, [rows, ENGINE_CAUSES], of
    its own rows alone.
    """

    program: Program
    loop: Loop
    turns: int
    cores: int
    by_row: NDArray[np.int64]
    accesses: int
    fp_operations: int
    limits: dict[str, float]
    refills: int

    @property
    def cycles(self) -> int:
        return int(self.by_row.sum())

    @property
    def instructions(self) -> int:
        return int(self.by_row[:, ISSUE].sum())

    @property
    def cycles_per_turn(self) -> float:
        return self.cycles / self.turns

    @property
    def loss(self) -> Cause | None:
        """The cause that most cycles beyond issue go to, if it is worth a remedy."""
        lost = self.by_row.sum(axis=0)
        lost[ISSUE] = 0
        cause = Cause(int(lost.argmax()))
        return cause if lost[cause] > WORTH * self.cycles else None

    @property
    def bound(self) -> str:
        """What limits it most."""
        return max(self.limits, key=lambda name: self.limits[name])

    @property
    def bound_cycles(self) -> float:
        """Of a turn, below which nothing goes while that limits it."""
        return self.limits[self.bound]

    @property
    def remedy(self) -> str:
        """What would make it faster: against its largest loss, or against its limit."""
        if (loss := self.loss) is not None:
            if loss is Cause.ICACHE and self.by_row[:, loss].sum() <= self.refills:
                return COLD
            return REMEDIES[loss].format(lines=self._worst(loss))
        counts = {"all": self.instructions, "fp": self.fp_operations, "accesses": self.accesses}
        return LIMITS[self.bound].format(**{name: f"{count / self.turns:.3g}" for name, count in counts.items()})

    def _worst(self, cause: Cause) -> str:
        """The rows that lose most by a cause, as text."""
        lost = self.by_row[:, cause]
        rows = [int(row) for row in np.argsort(-lost, kind="stable")[:2] if lost[row] > 0]
        return " and ".join(written(self.program, row) for row in rows)


def written(program: Program, row: int) -> str:
    """An instruction as its author wrote it, with the source's line if there is one."""
    line = program.lines[row] if row < len(program.lines) else 0
    return f"`{program.statement(row)}`" + (f" (line {line})" if line else "")


def hot_loops(parts: Sequence[Part], platform: Platform) -> list[HotLoop]:
    """Of all parts, by their own cycles, the hottest first. Loops that nobody entered are left out."""
    found = [hot for part in parts for loop in loops_of(part.program) if (hot := _hot(part, loop, platform))]
    return sorted(found, key=lambda hot: (-hot.cycles, hot.loop.name))


def _hot(part: Part, loop: Loop, platform: Platform) -> HotLoop | None:
    program, inside = part.program, innermost(part.program)
    own = np.zeros(len(program), bool)
    own[[row for row in range(loop.first, loop.last + 1) if inside[row][-1] == loop]] = True
    counts = np.where(own[:, None], part.counts, 0)
    by_row = counts.sum(axis=0)
    executed = by_row[own, ISSUE]
    if not executed.size or not executed.any():
        return None
    turns, busy = int(executed.max()), int((counts.sum(axis=(1, 2)) > 0).sum())
    units = [isa.INSTRUCTIONS[op].unit for op in program.rows[:, OP].tolist()]
    accesses = _sum(by_row, units, Unit.LOAD, Unit.STORE)
    fp = _sum(by_row, units, Unit.FPU, Unit.FDIV)
    issue, stalls = int(executed.sum()) / turns, int(by_row[:, Cause.LOAD_USE].sum()) / turns
    limits = {
        "issue": issue, "load-use": issue + stalls if stalls else 0.0,
        "banks": accesses / turns * busy / platform.l1.banks,
        "FPUs": fp / turns * busy / min(platform.cluster.fpus, busy),
    }  # fmt: skip
    lines = -(-(loop.last - loop.first + 1) * 4 // LINE_BYTES) + 1
    refills = lines * busy * platform.icache.shared_refill_cycles
    return HotLoop(program, loop, turns, busy, by_row, accesses, fp, limits, refills)


def _sum(by_row: NDArray[np.int64], units: Sequence[Unit], *wanted: Unit) -> int:
    return int(by_row[[unit in wanted for unit in units], ISSUE].sum())
