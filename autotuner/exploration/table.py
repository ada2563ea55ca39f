"""An exploration as a table: a row a point, the same for any number of workers, and what files are made of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from autotuner.exploration.axes import Value
from autotuner.exploration.errors import SpecError
from autotuner.exploration.fronts import front_of
from pulpsim.tables import Column, Table, band, kib, number, words

if TYPE_CHECKING:
    from autotuner.exploration.explored import Explored, Outcome

#: columns behind the axes, in order
RESULTS = (
    "cycles", "ms", "uj_low", "uj_high", "l1_bytes", "l2_bytes", "macs_per_cycle", "bound", "bound_cycles", "lost_to",
    "plan", "proven", "meets", "fronts", "remark",
)  # fmt: skip
#: what is said of a point that was not reached
NOT_REACHED = "not reached"


# -- rows --------------------------------------------------------------------------------------
def rows_of(found: Explored) -> list[dict[str, Any]]:
    """A record a point, in order: its number, its axes, and its results; None for what is not known.

    plan: where it comes from: "rule", "known" (shipped or kept), the point whose plan it is, or "search". meets: that
    constraints on results hold. fronts: numbers of those that it is on, from 1. remark: why there is no plan, or which
    weaker point is faster all the same. causes: cycles of a core by cause, the cores' mean, without start skew; not in
    the files of columns.
    """
    rows = [{"point": place + 1, **found.points[place], **_results(found, place)} for place in range(len(found.points))]
    for row in rows:
        row["meets"] = row["cycles"] is not None and all(one.holds(row) for one in found.spec.on_results)
    fronts = fronts_of(found, rows)
    for place, row in enumerate(rows):
        row["fronts"] = " ".join(str(which + 1) for which, front in enumerate(fronts) if place in front)
    return rows


def fronts_of(found: Explored, rows: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Of the rows that meet what is asked of them, the places of those on each front."""
    met = [row if row["meets"] else {} for row in rows]
    return [front_of(met, columns) for columns in found.spec.fronts]


def _results(found: Explored, place: int) -> dict[str, Any]:
    outcome, setting = found.outcomes[place], found.settings[place]
    if outcome is None or outcome.plan is None or outcome.step is None or isinstance(setting, str):
        return dict.fromkeys((*RESULTS, "causes")) | {"remark": NOT_REACHED if outcome is None else outcome.fault}
    step, cycles = outcome.step, outcome.cycles
    waits = {name: spent for name, spent in step.causes.items() if name != "issue" and spent}
    low, high = step.microjoules or (None, None)
    return {
        "cycles": cycles, "ms": 1e3 * cycles / setting.platform.clock_hz, "uj_low": low, "uj_high": high,
        "l1_bytes": step.l1_bytes, "l2_bytes": step.l2_bytes, "macs_per_cycle": setting.model.step_macs / cycles,
        "bound": step.bound, "bound_cycles": step.bound_cycles,
        "lost_to": max(waits, key=lambda name: waits[name], default=""),
        "plan": _origin(found, place, outcome), "proven": outcome.proven, "meets": None, "fronts": None,
        "remark": _remark(found, place, cycles), "causes": step.causes,
    }  # fmt: skip


def _origin(found: Explored, place: int, outcome: Outcome) -> str:
    plan, setting = outcome.plan, found.settings[place]
    assert plan is not None and not isinstance(setting, str)
    is_neighbours = outcome.origin == "neighbour"
    origin = f"point {found.nearest[place][outcome.neighbour] + 1}" if is_neighbours else outcome.origin
    return origin + (f", on {plan.cores} of {setting.platform.cluster.cores} cores" if plan.cores else "")


def _remark(found: Explored, place: int, cycles: float) -> str:
    """Of weaker points the fastest, if it is faster, and whether its plan could have been taken."""
    known = ((found.outcomes[other], other) for other in sorted(found.weaker[place]))
    faster = [(one.cycles, other) for one, other in known if one is not None and one.plan and one.cycles < cycles]
    if not faster:
        return ""
    least, other = min(faster)
    outcome, nearest = found.outcomes[place], found.nearest[place]
    unfit = outcome is not None and any(nearest[which] == other for which in outcome.unfit)
    why = "whose plan does not fit" if unfit else "which has less"
    return f"{cycles / least - 1:.2%} slower than point {other + 1}, {why}".replace("%", " %")


# -- for people --------------------------------------------------------------------------------
def table_of(found: Explored, rows: Sequence[dict[str, Any]]) -> Table:
    """Without axes that are fixed, and columns that say nothing."""
    several = [axis.name for axis in found.spec.axes if len({row[axis.name] for row in rows}) > 1]
    columns = [number("point"), *(_axis(name, rows) for name in several)]
    columns += [number("cycles", shown=",.0f"), number("ms", shown=",.3f")]
    if any(row["uj_low"] is not None for row in rows):
        columns.append(words("uj", "µJ", band, lambda row: row["uj_low"] and (row["uj_low"], row["uj_high"])))
    columns += [
        number("l1_bytes", "L1 peak KiB", kib), number("l2_bytes", "L2 peak KiB", kib),
        number("macs_per_cycle", "MAC/cycle", ".2f"), words("bound", "bound by"), words("lost_to", "most lost to"),
        words("plan", "plan from"),
    ]  # fmt: skip
    if found.spec.budget == "search":
        columns.append(words("proven", value=lambda row: yes(row["proven"])))
    if found.spec.on_results:
        columns.append(words("meets", value=lambda row: yes(row["meets"])))
    if found.spec.fronts:
        columns.append(words("fronts"))
    if any(row["remark"] for row in rows):
        columns.append(words("remark"))
    fixed = {axis.name: rows[0][axis.name] for axis in found.spec.axes if axis.name not in several}
    return Table(columns, rows, ", ".join(f"{name} {value_text(value)}" for name, value in fixed.items()))


def _axis(name: str, rows: Sequence[dict[str, Any]]) -> Column:
    if not isinstance(rows[0][name], int | float):
        return words(name, name, value_text)
    if name.endswith("size_bytes"):
        return number(name, f"{name.removesuffix('_bytes')} KiB", kib)
    return number(name, name, value_text)


def value_text(value: Value | None) -> str:
    """Of an axis."""
    return (
        "-".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[value]


# -- for machines ------------------------------------------------------------------------------
def columns_of(found: Explored) -> list[str]:
    """Of the files, in order."""
    return ["point", *found.spec.names, *RESULTS]


def csv_of(found: Explored) -> str:
    """With a heading; numbers as Python writes them, what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns_of(found))
    writer.writerows([yes(cell) if isinstance(cell, bool) else cell for cell in row] for row in _cells(found))
    return text.getvalue()


def _cells(found: Explored) -> Iterator[list[Any]]:
    for row in found.rows:
        values = [row[name] for name in columns_of(found)]
        yield [value_text(value) if isinstance(value, tuple) else value for value in values]


def parquet_of(found: Explored) -> bytes:
    """The same as a Parquet file. Raises SpecError without pyarrow."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise SpecError("Parquet files are written by pyarrow: pip install 'pulpsim[parquet]'") from None
    cells = list(zip(*_cells(found), strict=True))
    arrays = {name: pyarrow.array(list(column)) for name, column in zip(columns_of(found), cells, strict=True)}
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays), file)
    return file.getvalue()
