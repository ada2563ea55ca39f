"""A program as machine code: what `values.run_by_itself` would interpret again and again.

A translated program is entered at the first row, at rows that branches, jumps and hardware loops go to and behind rows
that it leaves to the interpreter. It executes rows as the interpreter does - what they compute comes from the same
functions, given constants - and leaves, before a row of which it does not know all: other instructions, addresses
outside of L1, words that others may touch, lines that are not in the instruction cache; and when the trace is full.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulpsim.code import ALIGN_ROWS
from pulpsim.engine import layout as at
from pulpsim.engine.operations import Jump, Loop
from pulpsim.jit.machine_code import Native

#: what a translation depends on beside the rows: whether lines are looked up, whether banks conflict
Settings = tuple[bool, bool]
LATE = (0, at.AFTER_LOAD, at.AFTER_MUL)
_VALUES = (at.K_ADD, at.K_ALU, at.K_WIDE, at.K_FPU, at.K_FMADD, at.K_SHARED_FPU, at.K_SHARED_FMADD, at.K_MUL)
_WORDS = (at.K_LOAD_NEXT, at.K_LOAD_WORD, at.K_STORE_WORD)
KNOWN = (*_VALUES, *_WORDS, at.K_LOOP, at.K_SLOW_LOOP, at.K_BRANCH, at.K_JUMP)


class Region:
    """A program as a graph, from where cores begin. rows: decoded, int32 [n, ROW], from there to the program's end;
    first: the first one's number in the code image. They are counted from 0: the program may lie anywhere."""

    def __init__(self, rows: NDArray[np.int32], first: int, settings: Settings):
        self.lines, self.conflicts = settings
        self._count, self._shift = len(rows), first % ALIGN_ROWS
        own = rows.copy()
        own[own[:, at.R_TARGET] >= 0, at.R_TARGET] -= first * at.ROW
        self._own = own
    @cached_property
    def digest(self) -> str:
        content = self._own.tobytes() + repr((self._shift, self.lines, self.conflicts)).encode()
        return hashlib.sha256(content).hexdigest()[:24]

    @cached_property
    def _rows(self) -> list[list[int]]:
        rows: list[list[int]] = self._own.tolist()
        return rows

    @cached_property
    def loops(self) -> dict[int, list[tuple[int, int]]]:
        """End -> (level, start) of the hardware loops that are set up with this end."""
        loops: dict[int, list[tuple[int, int]]] = {}
        for row in range(self._count):
            if self.kind(row) in (at.K_LOOP, at.K_SLOW_LOOP) and self.field(row, at.R_SUB) == Loop.SETUP:
                loops.setdefault(self.target(row), []).append((self.field(row, at.R_RD), row + 1))
        return loops

    @property
    def fits(self) -> bool:
        """A trace has room for all its rows."""
        return 2 * len(self.rows) < at.TRACE and bool(self.entries)

    def field(self, row: int, column: int) -> int:
        return int(self._rows[row][column])

    def line(self, row: int) -> int:
        """Counted from the first row's."""
        return (row + self._shift) // ALIGN_ROWS

    def kind(self, row: int) -> int:
        return self.field(row, at.R_KIND) & at.KIND

    def target(self, row: int) -> int:
        return self.field(row, at.R_TARGET) // at.ROW

    def holds(self, row: int) -> bool:
        return 0 <= row < self._count

    def known(self, row: int) -> bool:
        """The translation executes this row."""
        kind, sub = self.kind(row), self.field(row, at.R_SUB)
        if kind == at.K_JUMP:
            return bool(sub == Jump.JAL) and self.holds(self.target(row))
        if kind == at.K_BRANCH:
            return self.holds(self.target(row))
        return kind in KNOWN

    def late(self, row: int, following: int) -> int:
        """How late one row's result is for another: 0, or the number of a mark in LATE."""
        late = self.field(row, at.R_LATE)
        if not late & 63 or not self.holds(following):
            return 0
        uses = self.field(following, at.R_USES + (late >> 5 & 1)) >> (late & 31) & 1
        return uses * (1 if late < 64 else 2)

    def starts(self, row: int) -> list[tuple[int, int]]:
        """(level, start) of the loops that end at this row, at most one a level."""
        loops = self.loops.get(row, [])
        return [min(loop for loop in loops if loop[0] == level) for level in sorted({level for level, _ in loops})]

    @cached_property
    def rows(self) -> set[int]:
        """Those that a core may come to, but by jumps to registers."""
        found, waiting = set[int](), [0]
        while waiting:
            row = waiting.pop()
            if row in found or not self.holds(row):
                continue
            found.add(row)
            kind = self.kind(row)
            if kind in (at.K_BRANCH, at.K_JUMP):
                waiting.append(self.target(row))
            calls = kind == at.K_JUMP and self.field(row, at.R_RD) != at.SINK
            if kind not in (at.K_JUMP, at.K_GUARD, at.K_RETURN) or calls:
                waiting.append(row + 1)
        return found

    @cached_property
    def entries(self) -> list[int]:
        """Rows at which the translation may be entered."""
        found = {0, *(start for loops in self.loops.values() for _, start in loops)}
        found |= {self.target(row) for row in self.rows if self.kind(row) in (at.K_BRANCH, at.K_JUMP)}
        found |= {row + 1 for row in self.rows if not self.known(row)}
        return sorted(row for row in found if row in self.rows and self.known(row))


class Translation(Native):
    """The machine code of a region, as the function `translated(c, origin, s, registers, words, present, traces)`."""

    def __init__(self, region: Region):
        super().__init__(_translated)
        self.region = region

    def _file(self, form: str) -> str:
        return f"program-{self.region.digest}-{super()._file(form)}"

    @cached_property
    def part(self) -> Any:
        from pulpsim.jit.parts import part

        return part(_calls(_intrinsic(self.region)), self.options)


def _translated(c, origin, s, registers, words, present, traces):
    """Stands for the function that `_calls` makes."""


def _calls(body: Any) -> Callable[..., Any]:
    def translated(c, origin, s, registers, words, present, traces):
        return body(c, origin, s, registers, words, present, traces)

    translated.__module__ = __name__
    return translated


def _intrinsic(region: Region) -> Any:
    """What Numba calls to have the region's code."""
    from numba import types
    from numba.extending import intrinsic

    from pulpsim.engine.traces.emitting import Emitter

    @intrinsic
    def body(typing, c, origin, s, registers, words, present, traces):
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            Emitter(region, context, builder, signature.args, arguments).emit()
            return context.get_dummy_value()

        return types.none(c, origin, s, registers, words, present, traces), generate

    return body
