"""A program: rows that `core` executes, and what each takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.cortex_m4.costs import COSTS, REFILL, Cycles, Traits, pair
from benchmarks.cortex_m4.instructions import ALWAYS, ZERO, Op

#: columns of a program's rows; what each means hangs on the Op
OP, RD, RN, RM, RA, KIND, AMOUNT, IMM, COND, SETS = range(10)
FIELDS = 10
#: KIND of a memory access: base + offset; the same, and the base becomes it; the base, which then becomes it
OFFSET, BEFORE, BEHIND = range(3)
#: where data begins, and with it the words that stand beside the code
MEMORY_BASE = 0x2000_0000


class Row(NamedTuple):
    """One executed instruction: its fields, its class of cost, the registers of a list, and its line."""

    fields: list[int]
    cost: str
    registers: int
    line: int
    name: str


@dataclass(frozen=True)
class Program:
    """rows int32 [n, FIELDS], the last an END; labels: rows by name; literals: int32 words at MEMORY_BASE.

    names, lines: what stood in the text. base, pairs: int64 [n, 3], the cycles of a row, and those more (or less) when
    the row before it was executed before it; source: the name of the text.
    """

    rows: NDArray[np.int32]
    labels: dict[str, int]
    literals: NDArray[np.int32]
    names: tuple[str, ...]
    lines: tuple[int, ...]
    base: NDArray[np.int64]
    pairs: NDArray[np.int64]
    source: str

    def is_loop(self, label: str) -> bool:
        """Whether a branch goes back to a label."""
        return bool(self._back(label))

    def loop(self, label: str) -> range:
        """Rows from a label to the last branch back to it."""
        return range(self.labels[label], self._back(label)[-1] + 1)

    def _back(self, label: str) -> list[int]:
        first = self.labels[label]
        branches = (self.rows[first:, OP] == Op.BRANCH) & (self.rows[first:, IMM] == first)
        return [first + int(row) for row in np.flatnonzero(branches)]

    def mix(self, label: str) -> Counter[str]:
        """How often each instruction stands in a loop; what it calls is not in it."""
        return Counter(self.names[row] for row in self.loop(label))

    def iteration(self, label: str) -> Cycles:
        """Cycles of a round of a loop without calls: every row once, no branch taken but the last, back."""
        rows = self.loop(label)
        total = self.base[rows.start : rows.stop].sum(0) + self.pairs[rows.start + 1 : rows.stop].sum(0) + REFILL.cycles
        low, middle, high = (int(cycles) for cycles in total)
        return low, middle, high


def build(rows: Sequence[Row], labels: dict[str, int], words: Sequence[int], source: str) -> Program:
    """A program of rows whose labels are settled; an END is put behind them."""
    end = [Op.END, *[0] * (COND - 1), ALWAYS, 0]
    traits = [_traits(row) for row in rows]
    pairs = np.zeros((len(rows) + 1, 3), np.int64)
    for place in range(1, len(rows)):
        pairs[place] = pair(traits[place - 1], traits[place])
    return Program(
        rows=np.array([*(row.fields for row in rows), end], np.int32),
        labels=labels,
        literals=np.array(words, np.uint32).view(np.int32),
        names=tuple(row.name for row in rows),
        lines=tuple(row.line for row in rows),
        base=np.array([*(COSTS[row.cost].of(row.registers) for row in rows), (0, 0, 0)], np.int64),
        pairs=pairs,
        source=source,
    )


_LOADS = (Op.LOAD, Op.LOAD_HALF, Op.LOAD_BYTE, Op.LOAD_SIGNED_HALF, Op.LOAD_SIGNED_BYTE)
_STORES = (Op.STORE, Op.STORE_HALF, Op.STORE_BYTE)
_LISTS = (Op.LOAD_MANY, Op.STORE_MANY, Op.LOAD_PAIR, Op.STORE_PAIR, Op.VLOAD_MANY, Op.VSTORE_MANY)
_COMPUTES = (
    Op.ADD, Op.SUB, Op.RSB, Op.MOV, Op.MVN, Op.MOVT, Op.AND, Op.ORR, Op.EOR, Op.BIC, Op.UXTB, Op.UXTH,
    Op.SXTB, Op.SXTH, Op.MUL, Op.MLA, Op.MLS, Op.UDIV, Op.SDIV,
)  # fmt: skip
_ACCUMULATES = (Op.VFMA, Op.VFMS, Op.VMLA, Op.VMLS)
_FLOATS = (Op.VADD, Op.VSUB, Op.VMUL, Op.VDIV, *_ACCUMULATES)


def _single(number: int) -> int:
    """The bit of a floating-point register."""
    return 1 << 16 + number


def _core(*numbers: int) -> int:
    """The bits of core registers."""
    return sum({1 << number for number in numbers if number < ZERO})


def _traits(row: Row) -> Traits:
    fields = row.fields
    op, rd, rn, rm = fields[OP], fields[RD], fields[RN], fields[RM]
    if op in _LOADS:
        return Traits("load", address=_core(rn, rm), loaded=_core(rd))
    if op in _STORES:
        return Traits("store", address=_core(rn, rm))
    if op in (Op.VLOAD, Op.VLOAD_MANY) and row.registers == 1:
        return Traits("load", address=_core(rn))
    if op in (Op.VSTORE, Op.VSTORE_MANY):
        stored = sum(_single(rd + number) for number in range(row.registers))
        return Traits("store" if row.registers == 1 else "", address=_core(rn), reads=stored)
    if op in _LISTS:
        return Traits(address=_core(rn))
    if op in _COMPUTES:
        return Traits(computed=_core(rd))
    if op in _FLOATS:
        return Traits(late=_single(rd), reads=_single(rn) | _single(rm))
    if op in (Op.VABS, Op.VNEG, Op.VMOV, Op.VTO_CORE):
        return Traits(reads=_single(rm))
    if op == Op.VCMP:
        return Traits(reads=_single(rd) | _single(rm))
    return Traits()
