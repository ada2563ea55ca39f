"""A profile as tables: the annotated listing, the hottest loops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pulpsim.counters import Cause
from pulpsim.profile import CAUSES, ISSUE, Part
from pulpsim.profile.hot import HotLoop
from pulpsim.profile.loops import function_of, innermost
from pulpsim.program import Program
from pulpsim.tables import Column, Record, Table, number, words

#: the loops that are shown
SHOWN_LOOPS = 8


def cause_name(cause: Cause) -> str:
    return cause.name.lower().replace("_", " ")


def causes_of(counts: NDArray[np.int64]) -> dict[str, int]:
    """Cycles by cause of [..., ENGINE_CAUSES], those there were."""
    sums = counts.reshape(-1, len(CAUSES)).sum(axis=0).tolist()
    return {cause.name.lower(): cycles for cause, cycles in zip(CAUSES, sums, strict=True) if cycles}


def _cause_columns(present: Iterable[Cause]) -> list[Column]:
    return [number(cause.name.lower(), cause_name(cause)) for cause in present]


def _present(counts: NDArray[np.int64]) -> list[Cause]:
    """The causes beyond issue that cost a cycle somewhere."""
    sums = counts.reshape(-1, len(CAUSES)).sum(axis=0)
    return [cause for cause in CAUSES if cause != ISSUE and sums[cause]]


def _share(total: int) -> Column:
    return number("share", shown=".1%", value=lambda row: row["cycles"] / total if row["cycles"] else None)


def listing(part: Part, title: str = "", whole: int | None = None) -> Table:
    """A row an instruction: how often all cores executed it, its cycles by cause, its share, and the loop it is in.

    Of functions that ran. whole: cycles that shares are of; the part's own without it. Records have the counts of each
    core besides.
    """
    program, by_row, total = part.program, part.by_row, whole or part.cycles
    inside, present, ran = innermost(program), _present(part.counts), _in_functions_that_ran(part)
    rows = [
        {
            "row": row, "labels": labels, "line": line, "text": text, "instruction": program.text(row),
            "loop": inside[row][-1].name if inside[row] else "", "depth": len(inside[row]),
            "issues": int(by_row[row, ISSUE]), "cycles": int(by_row[row].sum()),
            "cores": [causes_of(core) for core in part.counts[:, row]],
        } | {cause.name.lower(): int(by_row[row, cause]) or None for cause in present}
        for row, (labels, line, text) in enumerate(_written(program)) if ran[row]
    ]  # fmt: skip
    lines = [words("line", value=lambda row: str(row["line"] or ""))] if any(program.lines) else []
    columns = [
        *lines, words("text", "instruction", value=_labelled), number("issues", shown=_count),
        number("cycles", shown=_count), _share(total), *_cause_columns(present), words("loop"),
    ]  # fmt: skip
    sums = {"text": "sum", "issues": part.executed, "cycles": part.cycles, "line": 0, "labels": []}
    sums |= {cause.name.lower(): int(part.counts[:, :, cause].sum()) for cause in present}
    return Table(columns, rows, title or program.source, summary=[sums], keys=len(lines) + 1)


def _count(value: int) -> str:
    return f"{value:,}" if value else ""


def _labelled(row: Record) -> str:
    return "  " * row.get("depth", 0) + "".join(f"{label}: " for label in row["labels"]) + row["text"]


def _in_functions_that_ran(part: Part) -> list[bool]:
    functions = [function_of(part.program, row) for row in range(len(part.program))]
    ran = {functions[row] for row in np.flatnonzero(part.by_row.any(axis=1)).tolist()}
    return [function in ran for function in functions]


def _written(program: Program) -> Iterable[tuple[list[str], int, str]]:
    """(labels, line, text) of every row."""
    labels: dict[int, list[str]] = {}
    for name, row in program.labels.items():
        labels.setdefault(row, []).append(name)
    for row in range(len(program)):
        line = program.lines[row] if row < len(program.lines) else 0
        yield labels.get(row, []), line, program.statement(row)


def loops_table(
    hot: Sequence[HotLoop], whole: int, title: str = "the hottest loops", where: Callable[[Program], str] | None = None
) -> Table:
    """whole: cycles that shares are of. where: what a program ran for."""
    rows = [
        {
            "loop": loop.loop.name, "program": loop.program.source, "lines": _lines(loop), "cycles": loop.cycles,
            "share": loop.cycles / whole, "turns": loop.turns, "cores": loop.cores,
            "cycles_per_turn": loop.cycles_per_turn, "instructions_per_turn": loop.instructions / loop.turns,
            "limits": loop.limits, "bound": loop.bound, "bound_cycles": loop.bound_cycles,
            "causes": causes_of(loop.by_row), "loss": "" if loop.loss is None else cause_name(loop.loss),
            "remedy": loop.remedy,
        } | ({} if where is None else {"where": where(loop.program)})
        for loop in hot
    ]  # fmt: skip
    columns = [
        words("loop"), *([] if where is None else [words("where", "where it runs")]),
        number("share", shown=".1%"), number("cycles"), number("turns"),
        number("cycles_per_turn", "cycles a turn", ".2f"), number("instructions_per_turn", "instructions", ".2f"),
        words("bound", "bound by"), number("bound_cycles", "bound", ".2f"), words("loss", "lost to"),
        words("remedy", "what would help"),
    ]  # fmt: skip
    return Table(columns, rows, title)


def _lines(loop: HotLoop) -> list[int]:
    lines = [line for line in loop.program.lines[loop.loop.first : loop.loop.last + 1] if line]
    return [min(lines), max(lines)] if lines else []
