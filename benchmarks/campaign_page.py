"""The second campaign on docs/validation.md: figures, then every kernel, phase and transfer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from benchmarks.campaign import (
    BESIDE_LIMIT,
    LIBRARY_LIMITS,
    STEP_LIMITS,
    STRIDED_LIMIT,
    UNCOUPLED_LIMIT,
    Campaign,
    Step,
)
from benchmarks.reference import SKEWS, Error, coupled
from pulpsim.tables import Column, Record, Table, markdown, number, words


def percent(value: float, sign: str = "", digits: int = 2) -> str:
    return f"{value:{sign}.{digits}%}".replace("%", " %")


def counts(error: Error | None) -> dict[str, float] | None:
    """Measured, ours and the difference; None for what was not compared."""
    if error is None:
        return None
    return {"measured": error.measured, "ours": error.ours, "error_cycles": error.cycles}


def counts_columns(of: str, headings: Sequence[str], least: float = 0) -> list[Column]:
    """Columns of `counts`, the error in cycles and as a share; three headings: without what was measured.

    of: what they have in the records; empty: they are the records. least: below it no share is shown.
    """

    def part(name: str) -> Callable[[Record], Any]:
        return lambda row: (row if not of else row[of] or {}).get(name)

    def share(row: Record) -> float | None:
        measured = part("measured")(row)
        return part("error_cycles")(row) / measured if measured and measured >= least else None

    columns = [
        number(f"{of}_measured", shown=",.0f", value=part("measured")),
        number(f"{of}_ours", shown=",.0f", value=part("ours")),
        number(f"{of}_error", shown="+,.0f", value=part("error_cycles")),
        number(f"{of}_share", shown="+.2%", value=share),
    ][-len(headings) :]
    return [replace(column, heading=heading) for column, heading in zip(columns, headings, strict=True)]


COUNTS = ("measured", "ours", "error", "%")


def _figures(errors: Sequence[Error]) -> dict[str, float]:
    """How many, mean of |error| and worst error as shares."""
    shares = [error.relative for error in errors]
    return {"rows": len(errors), "mean": mean(map(abs, shares)), "worst": max(shares, key=abs)}


def _within(cycles: int, share: float) -> str:
    return f"each {cycles} cycles + {percent(share, digits=1)}"


def _most(average: float, largest: float) -> str:
    return f"mean {percent(average, digits=1)}, worst {percent(largest, digits=1)}"


def details(title: str, table: Table) -> Iterator[str]:
    """Folded away."""
    yield from ("", f"<details><summary>{title}: {len(table.rows)} rows</summary>", "")
    yield markdown(table)
    yield from ("", "</details>")


def sections(found: Campaign) -> Iterator[str]:
    """Markdown, line by line."""
    yield from ("## Library kernels, whole steps, transfers", "")
    yield (
        "The second campaign: this project's own kernels and training steps as they were then, on both sides the same "
        "text, all with the instruction cache on. Kernels are compared by the mean over the start skews. The last "
        "column is what the tests allow."
    )
    yield ""
    shares = [number("mean", shown=".2%"), number("worst", shown="+.2%"), words("limit")]
    yield markdown(Table([words("what"), number("rows"), *shares], list(_groups(found))))
    yield from ("", "Whole steps:", "")
    shares[0] = replace(shares[0], heading="phases: mean")
    yield markdown(Table([words("step"), *counts_columns("total", COUNTS), *shares], list(_totals(found))))
    yield from details("library kernels", _kernels(found))
    for step in map(_step, found.steps):
        phases = Table([words("phase"), *counts_columns("", COUNTS)], step["phases"])
        yield from details(f"phases of {step['step']}", phases)
    given = [words("strided", "strides"), words("direction"), words("line_bytes", "bytes a line"), words("lines")]
    alone = Table([*given, *counts_columns("", COUNTS)], _strided(found))
    yield from details("transfers alone", alone)
    columns = [words("case", "transfers beside a kernel"), words("config")]
    columns += [*counts_columns("transfers", COUNTS), *counts_columns("kernel", ("kernel: measured", *COUNTS[1:]))]
    yield from details("transfers beside computing cores", Table(columns, _beside(found)))


def _groups(found: Campaign) -> Iterator[dict[str, Any]]:
    warm = [errors[0] for errors in found.library]
    for config in dict.fromkeys(error.row["config"] for error in warm):
        for cores in ("1", "8"):
            members = [error for error in warm if (error.row["config"], error.row["cores"]) == (config, cores)]
            if members:
                cold = [e[1] for e in found.library if (e[1].row["config"], e[1].row["cores"]) == (config, cores)]
                limit = _most(*LIBRARY_LIMITS[config]) if coupled(members[0].row) else _within(*UNCOUPLED_LIMIT)
                name = f"library kernels, {config}, {cores} core{'s' * (cores != '1')}"
                yield {"what": name, "limit": limit} | _figures(members)
                yield {"what": f"{name}, cold"} | _figures(cold)
    yield {"what": "transfers alone", "limit": _within(*STRIDED_LIMIT)} | _figures(found.strided)
    moved, kernels = zip(*found.beside, strict=True)
    yield {"what": "transfers beside computing cores", "limit": _most(*BESIDE_LIMIT)} | _figures(moved)
    yield {"what": "kernels beside transfers"} | _figures(kernels)


def _totals(found: Campaign) -> Iterator[dict[str, Any]]:
    for step in found.steps:
        limit = percent(STEP_LIMITS[step.config], digits=1)
        yield _step(step) | _figures(step.errors()) | {"limit": limit}


def _kernels(found: Campaign) -> Table:
    skews = words("skews", value=lambda row: "{:,} to {:,}".format(*_ends(row)))
    columns = [words("program", "kernel"), words("config"), words("cores"), skews, *counts_columns("skew_mean", COUNTS)]
    return Table([*columns, *counts_columns("cold", ("cold", *COUNTS[1:]))], _library(found))


def _ends(row: Record) -> tuple[int, int]:
    """Of the cycles measured with the start skews."""
    skews = [int(row[f"skew{skew}"]) for skew in range(SKEWS)]
    return min(skews), max(skews)


# -- records -------------------------------------------------------------------------------------
def document(found: Campaign) -> dict[str, Any]:
    """As JSON values."""
    return {
        "library": _library(found),
        "steps": [_step(step) for step in found.steps],
        "transfers_alone": _strided(found),
        "transfers_beside_cores": _beside(found),
    }


def _library(found: Campaign) -> list[dict[str, Any]]:
    return [{**dict(warm.row), "skew_mean": counts(warm), "cold": counts(cold)} for warm, cold in found.library]


def _step(step: Step) -> dict[str, Any]:
    phases = [
        {"phase": name, **(counts(error) or {})} for (name, *_), error in zip(step.phases, step.errors(), strict=True)
    ]
    return {"step": step.name, "total": counts(step.total), "phases": phases}


def _strided(found: Campaign) -> list[dict[str, Any]]:
    return [{**dict(error.row), **(counts(error) or {})} for error in found.strided]


def _beside(found: Campaign) -> list[dict[str, Any]]:
    return [{**dict(moved.row), "transfers": counts(moved), "kernel": counts(kernel)} for moved, kernel in found.beside]
