"""What no encoding holds, or no core runs: targets out of reach, hardware loops that are too short or too long."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pulpsim import isa
from pulpsim.isa import COLUMNS, OP, Unit

_TARGET, _LEVEL = COLUMNS.index("target"), COLUMNS.index("rs3")
_UNITS = np.array([row.unit for row in isa.INSTRUCTIONS])
_HAS_TARGET = np.array(["label" in row.operands for row in isa.INSTRUCTIONS])


def _reach(row: isa.Instruction) -> tuple[int, int]:
    """How far its target may be, in instructions."""
    return row.encoding.field("target").limits if row.encoding and "label" in row.operands else (0, 0)


_REACH = np.array([_reach(row) for row in isa.INSTRUCTIONS])
#: instructions in the body of a hardware loop: at least, and at most where the end has five bits
MIN_BODY, MAX_SHORT_BODY = 2, _reach(isa.BY_KEY["lp.setupi"])[1]
_LONGER = "lp.setup with the count in a register, or lp.starti, lp.endi and lp.counti, reach further"


def violations(rows: NDArray[np.int32]) -> Iterator[tuple[int, str]]:
    """(row, what is wrong and what is accepted) of every target that cannot be."""
    ops, targets = rows[:, 0], rows[:, _TARGET]
    low, high = _REACH[ops, 0], _REACH[ops, 1]
    outside = _HAS_TARGET[ops] & ((targets < low) | (targets > high))
    for row in np.flatnonzero(outside & (_UNITS[ops] != Unit.LOOP)).tolist():
        yield row, f"{4 * int(targets[row]):,} bytes away: {4 * int(low[row]):,} to {4 * int(high[row]):,}"
    for row in np.flatnonzero(_HAS_TARGET[ops] & (_UNITS[ops] == Unit.LOOP)).tolist():
        if fault := _loop_fault(rows, row, (int(low[row]), int(high[row]))):
            yield row, fault


def _loop_fault(rows: NDArray[np.int32], row: int, reach: tuple[int, int]) -> str:
    """What is wrong with the hardware loop that is set up, or whose start or end is set, at a row."""
    op, distance = int(rows[row, 0]), int(rows[row, _TARGET])
    if op == OP["lp.starti"]:
        return _out_of_reach(distance, reach)
    first = _start_of(rows, row) if op == OP["lp.endi"] else row + 1
    last = row + distance
    body = last - first + 1 if first is not None else MIN_BODY
    if body < MIN_BODY:
        return f"a body of {max(body, 0)} instructions: a hardware loop has {MIN_BODY} or more"
    if distance > reach[1] and op == OP["lp.setupi"]:
        return f"a body of {body} instructions: 2 to {reach[1]}; {_LONGER}"
    if fault := _out_of_reach(distance, reach):
        return fault
    if last >= len(rows):
        return "the loop's last instruction is outside the program"
    if _UNITS[rows[last, 0]] in (Unit.BRANCH, Unit.JUMP):
        return "the loop's last instruction is a branch or jump: another one has to follow it"
    return ""


def _out_of_reach(distance: int, reach: tuple[int, int]) -> str:
    if reach[0] <= distance <= reach[1]:
        return ""
    return f"{4 * distance:,} bytes away: {4 * reach[0]:,} to {4 * reach[1]:,}"


def _start_of(rows: NDArray[np.int32], end: int) -> int | None:
    """Where the loop starts whose end is set at a row: by the nearest lp.starti of its level, before or after."""
    starts = np.flatnonzero((rows[:, 0] == OP["lp.starti"]) & (rows[:, _LEVEL] == rows[end, _LEVEL]))
    if not len(starts):
        return None
    nearest = int(starts[np.argmin(np.abs(starts - end))])
    return nearest + int(rows[nearest, _TARGET])
