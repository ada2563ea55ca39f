"""The loops of a program: hardware loops, and what a jump backwards repeats."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from pulpsim import isa
from pulpsim.isa import Unit
from pulpsim.program import OP, RD, RS3, TARGET, Program


class Loop(NamedTuple):
    """Rows first to last of its body. name: where it begins, as a reader would say it."""

    first: int
    last: int
    name: str


@lru_cache(maxsize=256)
def loops_of(program: Program) -> tuple[Loop, ...]:
    """Outer loops before those inside them, in order of their first rows."""
    hardware = {(first, last) for first, last in _hardware_loops(program) if 0 <= first <= last < len(program)}
    bodies = dict[int, int]()
    for first, last in [*hardware, *_jumps_back(program)]:
        if 0 <= first <= last < len(program):
            bodies[first] = max(last, bodies.get(first, last))
    spans = sorted(hardware | set(bodies.items()), key=lambda body: (body[0], -body[1]))
    return tuple(Loop(first, last, place_name(program, first)) for first, last in spans)


def _hardware_loops(program: Program) -> Iterator[tuple[int, int]]:
    """Bodies that loop set-ups name; of set-ups in parts the nearest end of the same level."""
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for row, columns in enumerate(program.rows.tolist()):
        name = isa.INSTRUCTIONS[columns[OP]].mnemonic
        if name in ("lp.setup", "lp.setupi"):
            yield row + 1, row + columns[TARGET]
        elif name == "lp.starti":
            starts[columns[RS3]] = row + columns[TARGET]
        elif name == "lp.endi":
            ends[columns[RS3]] = row + columns[TARGET]
        for level in starts.keys() & ends.keys():
            yield starts.pop(level), ends.pop(level)


def _jumps_back(program: Program) -> Iterator[tuple[int, int]]:
    """What lies between a branch or jump and its target before it; calls are none."""
    for row, columns in enumerate(program.rows.tolist()):
        instruction = isa.INSTRUCTIONS[columns[OP]]
        jumps = instruction.unit is Unit.BRANCH or (instruction.mnemonic == "jal" and columns[RD] == 0)
        if jumps and columns[TARGET] <= 0:
            yield row + columns[TARGET], row


@lru_cache(maxsize=256)
def innermost(program: Program) -> tuple[tuple[Loop, ...], ...]:
    """Of every row, the loops that it is in, the outermost first."""
    inside: list[list[Loop]] = [[] for _ in range(len(program))]
    for loop in loops_of(program):
        for row in range(loop.first, loop.last + 1):
            inside[row].append(loop)
    return tuple(tuple(sorted(loops, key=lambda loop: loop.first - loop.last)) for loops in inside)


def place_name(program: Program, row: int) -> str:
    """'mm_2x2+0x24' of a row, or its label's own name."""
    at, name = _label_before(program, row)
    own = [label for label, place in program.labels.items() if place == row]
    if own and own[0].startswith(".L"):
        return f"{name}{own[0]}"
    return name if at == row else f"{name}+{4 * (row - at):#x}"


def function_of(program: Program, row: int) -> str:
    """The last label that is not local before a row; the program's name if there is none."""
    return _label_before(program, row)[1]


def _label_before(program: Program, row: int) -> tuple[int, str]:
    """(row, name) of the last label that is not local; (0, the program's name) if there is none."""
    before = [(at, name) for name, at in program.labels.items() if at <= row and not name.startswith(".L")]
    return max(before, default=(0, program.source))
