"""A block of u x v outputs over the whole of K: the inner loop of every matmul.

A block multiplies two panels, u rows of A and v columns of B; a panel's rows or columns are its lanes. One
pointer walks a panel by post-increments, lane after lane and on to the first lane of the next k. A step
over k is u + v loads, B first (last, if A has a single row), then u * v fmadds: loads in one bunch meet
fewer bank conflicts than spread ones. Where registers are short (4x4), B is held and rows of A stream
through two registers. Only 1x1 without k-unrolling has to use a value right after its load. Steps in
memory are in bytes, in a register or known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from pulpsim import Builder
from pulpsim.program import Register

Dimension = Literal["N", "M"]
Step = Register | int

#: from how many sums on the registers do not suffice to load all of a step's lanes at once
CROWDED = 12


@dataclass(frozen=True)
class Panel:
    """Lanes of A or B; `lane` is the step to the next lane, `wrap` from the last one to the next k."""

    pointer: Register
    lanes: int
    lane: Step
    wrap: Step

    def load(self, b: Builder, value: Register, lane: int) -> None:
        b("p.lw", value, (self.pointer, self.wrap if lane == self.lanes - 1 else self.lane, "!"))


@dataclass(frozen=True)
class Kept:
    """A value that the loop over k leaves alone: in a register, or on the stack."""

    register: Register | None
    slot: int = 0

    def get(self, b: Builder, scratch: Iterator[Register]) -> Register:
        """The register that holds it: one of `scratch` if it has to be loaded."""
        if self.register is not None:
            return self.register
        value = next(scratch)
        b("lw", value, ("sp", self.slot))
        return value

    def copy(self, b: Builder, target: Register) -> None:
        if self.register is None:
            b("lw", target, ("sp", self.slot))
        else:
            b.mv(target, self.register)

    def put(self, b: Builder, value: Register) -> None:
        """Change it to what `get` returned."""
        if self.register is None:
            b("sw", value, ("sp", self.slot))


@dataclass
class Keeper:
    """Keeps `room` values in the registers they are in, and the others on the stack."""

    b: Builder
    room: int
    spilled: list[Register] = field(default_factory=list)

    def keep(self, value: Register) -> Kept:
        if self.room > 0:
            self.room -= 1
            return Kept(value)
        self.spilled.append(value)
        return Kept(None, 4 * len(self.spilled) - 4)

    def open(self) -> None:
        """Emit the stores; the registers are free."""
        if self.spilled:
            self.b("addi", "sp", "sp", -4 * len(self.spilled))
        for i, register in enumerate(self.spilled):
            self.b("sw", register, ("sp", 4 * i))
        self.b.free(*self.spilled)

    def close(self) -> None:
        if self.spilled:
            self.b("addi", "sp", "sp", 4 * len(self.spilled))


def block_values(u: int, v: int, unroll: int) -> tuple[int, int]:
    """Registers of a block's values: those of the panel that is held, and of the one that streams."""
    held, streamed = (v, u) if u > 1 else (u, v)
    return unroll * held, 2 if u * v >= CROWDED else unroll * streamed


@dataclass(frozen=True)
class Block:
    """Emits blocks of C = A B.

    panels: N: rows of A, M: columns of B. unroll: k steps per turn of the loop over k; `single`: one more
    step follows. relu: C = max(A B, 0). turns: of that loop. row: the step to C's next row. c: the block's address.
    """

    panels: Mapping[Dimension, Panel]
    unroll: int
    single: bool
    accumulate: bool
    relu: bool
    turns: Kept
    row: Kept
    c: Kept

    def emit(self, b: Builder, moves: Mapping[Dimension, Kept], end: Kept | int | None) -> None:
        """One block; `moves` are added to the panels' pointers, `end` leads from C's last row onwards."""
        u, v = self.panels["N"].lanes, self.panels["M"].lanes
        sums = b.registers("sum", u * v)
        values = b.registers("value", sum(block_values(u, v, self.unroll)))
        scratch = iter(values)
        turns = self.turns.get(b, scratch)
        if self.accumulate and u > 1:
            c, row = next(scratch), self.row.get(b, scratch)
            self.c.copy(b, c)
            self._walk_c(b, "lw", sums, c, row, None)
        elif self.accumulate:
            self._walk_c(b, "lw", sums, self.c.get(b, scratch), None, None)
        else:
            for total in sums:
                b.mv(total, "x0")
        with b.loop(0, turns):
            self._steps(b, sums, values, self.unroll)
        if self.single:
            self._steps(b, sums, values, 1)
        self._finish(b, sums, iter(values), moves, end)
        b.free(*sums, *values)

    def _steps(self, b: Builder, sums: list[Register], values: list[Register], unroll: int) -> None:
        """`unroll` steps over k. A single row of A is held, so that its use does not follow its load."""
        rows, columns = self.panels["N"], self.panels["M"]
        held, streamed = (columns, rows) if rows.lanes > 1 else (rows, columns)
        staying, ahead = block_values(rows.lanes, columns.lanes, unroll)
        fetches = unroll * streamed.lanes

        def fetch(number: int) -> None:
            k, lane = divmod(number, streamed.lanes)
            if lane == 0:
                for h in range(held.lanes):
                    held.load(b, values[k * held.lanes + h], h)
            streamed.load(b, values[staying + number % ahead], lane)

        for number in range(ahead):
            fetch(number)
        for number in range(fetches):
            k, lane = divmod(number, streamed.lanes)
            for h in range(held.lanes):
                i, j = (lane, h) if held is columns else (h, lane)
                total = sums[i * columns.lanes + j]
                b("fmadd.s", total, values[staying + number % ahead], values[k * held.lanes + h], total)
            if number + ahead < fetches:
                fetch(number + ahead)

    def _finish(
        self, b: Builder, sums: list[Register], scratch: Iterator[Register], moves: Mapping[Dimension, Kept],
        end: Kept | int | None,
    ) -> None:  # fmt: skip
        """Store the sums and move the pointers on."""
        c = self.c.get(b, scratch)
        last: Step | None = end.get(b, scratch) if isinstance(end, Kept) else end
        row = None
        if self.panels["N"].lanes > 1:
            row = last if end is self.row else self.row.get(b, scratch)
        steps = {dimension: move.get(b, scratch) for dimension, move in moves.items()}
        if self.relu:
            for total in sums:
                b("fmax.s", total, total, "x0")
        self._walk_c(b, "sw", sums, c, row, last)
        if last is not None:
            self.c.put(b, c)
        for dimension, step in steps.items():
            pointer = self.panels[dimension].pointer
            b("add", pointer, pointer, step)

    def _walk_c(
        self, b: Builder, access: str, sums: list[Register], c: Register, row: Step | None, end: Step | None
    ) -> None:
        """Load or store the sums, row by row; `end` is added to the address of the last row."""
        u, v = self.panels["N"].lanes, self.panels["M"].lanes
        for i in range(u):
            step = row if i < u - 1 else end
            for j in reversed(range(v)):
                if j == 0 and step is not None:
                    b("p." + access, sums[i * v], (c, step, "!"))
                else:
                    b(access, sums[i * v + j], (c, 4 * j))


@contextmanager
def in_register(b: Builder, step: Step) -> Iterator[Register]:
    if isinstance(step, Register):
        yield step
    else:
        with b.temporary("step") as [constant]:
            b.li(constant, step)
            yield constant


def set_step(b: Builder, target: Register, step: Step) -> None:
    """target = step."""
    if isinstance(step, int):
        b.li(target, step)
    else:
        b.mv(target, step)


def add_product(b: Builder, target: Register, count: Register, step: Step, subtract: bool = False) -> None:
    """target += count * step, or -= if `subtract`."""
    with in_register(b, step) as factor:
        b("p.msu" if subtract else "p.mac", target, count, factor)


def add_multiple(b: Builder, target: Register, step: Step, factor: int) -> None:
    """target += factor * step."""
    if isinstance(step, Register) and factor in (1, -1):
        b("add" if factor == 1 else "sub", target, target, step)
    elif isinstance(step, Register):
        with in_register(b, factor) as constant:
            b("p.mac", target, constant, step)
    elif -2048 <= step * factor < 2048:
        b("addi", target, target, step * factor)
    else:
        with in_register(b, step * factor) as constant:
            b("add", target, target, constant)
