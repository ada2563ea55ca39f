"""The second campaign on docs/validation.md: figures, then every kernel, phase and transfer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean
from typing import Any

from benchmarks.campaign import (
    BESIDE_LIMIT,
    LIBRARY_LIMITS,
    STEP_LIMITS,
    STRIDED_LIMIT,
    UNCOUPLED_LIMIT,
    Campaign,
)
from benchmarks.markdown import grid
from benchmarks.reference import SKEWS, Error, coupled


def percent(value: float, sign: str = "", digits: int = 2) -> str:
    return f"{value:{sign}.{digits}%}".replace("%", " %")


def _figures(errors: Sequence[Error]) -> list[str]:
    """How many, mean of |error| and worst error as shares."""
    shares = [error.relative for error in errors]
    return [str(len(errors)), percent(mean(map(abs, shares))), percent(max(shares, key=abs), "+")]


def _counts(error: Error) -> list[str]:
    """Measured, ours, and the error in cycles and as a share."""
    return [
        f"{error.measured:,.0f}", f"{error.ours:,.0f}", f"{error.cycles:+,.0f}", percent(error.relative, "+")
    ]  # fmt: skip


def _within(cycles: int, share: float) -> str:
    return f"each {cycles} cycles + {percent(share, digits=1)}"


def _most(average: float, largest: float) -> str:
    return f"mean {percent(average, digits=1)}, worst {percent(largest, digits=1)}"


def _details(title: str, headings: Sequence[str], texts: int, rows: list[list[str]]) -> Iterator[str]:
    yield from ("", f"<details><summary>{title}: {len(rows)} rows</summary>", "")
    yield from grid(headings, texts, rows)
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
    yield from grid(["what", "rows", "mean", "worst", "limit"], 1, list(_groups(found)), last=1)
    yield from ("", "Whole steps:", "")
    yield from grid(
        ["step", "measured", "ours", "error", "%", "phases: mean", "worst", "limit"], 1, list(_steps(found)), last=1
    )
    yield from _kernels(found)
    for step in found.steps:
        rows = [[name, *_counts(error)] for (name, *_), error in zip(step.phases, step.errors(), strict=True)]
        yield from _details(f"phases of {step.name}", ["phase", "measured", "ours", "error", "%"], 1, rows)
    given = ("strided", "direction", "line_bytes", "lines")
    rows = [[*(error.row[name] for name in given), *_counts(error)] for error in found.strided]
    headings = ["strides", "direction", "bytes a line", "lines", "measured", "ours", "error", "%"]
    yield from _details("transfers alone", headings, 4, rows)
    rows = [
        [moved.row["case"], moved.row["config"], *_counts(moved), *_counts(kernel)] for moved, kernel in found.beside
    ]
    headings = ["transfers beside a kernel", "config", *(["measured", "ours", "error", "%"] * 2)]
    headings[6] = "kernel: measured"
    yield from _details("transfers beside computing cores", headings, 2, rows)


def _groups(found: Campaign) -> Iterator[list[str]]:
    warm = [errors[0] for errors in found.library]
    for config in dict.fromkeys(error.row["config"] for error in warm):
        for cores in ("1", "8"):
            members = [error for error in warm if (error.row["config"], error.row["cores"]) == (config, cores)]
            if members:
                cold = [e[1] for e in found.library if (e[1].row["config"], e[1].row["cores"]) == (config, cores)]
                limit = _most(*LIBRARY_LIMITS[config]) if coupled(members[0].row) else _within(*UNCOUPLED_LIMIT)
                name = f"library kernels, {config}, {cores} core{'s' * (cores != '1')}"
                yield [name, *_figures(members), limit]
                yield [f"{name}, cold", *_figures(cold), ""]
    yield ["transfers alone", *_figures(found.strided), _within(*STRIDED_LIMIT)]
    yield ["transfers beside computing cores", *_figures([errors[0] for errors in found.beside]), _most(*BESIDE_LIMIT)]
    yield ["kernels beside transfers", *_figures([errors[1] for errors in found.beside]), ""]


def _steps(found: Campaign) -> Iterator[list[str]]:
    for step in found.steps:
        _, *shares = _figures(step.errors())
        yield [step.name, *_counts(step.total), *shares, percent(STEP_LIMITS[step.config], digits=1)]


def _kernels(found: Campaign) -> Iterator[str]:
    rows = []
    for warm, cold in found.library:
        skews = [int(warm.row[f"skew{skew}"]) for skew in range(SKEWS)]
        place = [warm.row[name] for name in ("program", "config", "cores")]
        rows.append([*place, f"{min(skews):,} to {max(skews):,}", *_counts(warm), *_counts(cold)])
    headings = ["kernel", "config", "cores", "skews", "measured", "ours", "error", "%"]
    yield from _details("library kernels", [*headings, "cold", "ours", "error", "%"], 4, rows)


def document(found: Campaign) -> dict[str, Any]:
    """As JSON values."""

    def counts(error: Error) -> dict[str, float]:
        return {"measured": error.measured, "ours": error.ours, "error_cycles": error.cycles}

    return {
        "library": [
            {**dict(warm.row), "skew_mean": counts(warm), "cold": counts(cold)} for warm, cold in found.library
        ],
        "steps": [
            {
                "step": step.name,
                "total": counts(step.total),
                "phases": [
                    {"phase": name, **counts(error)}
                    for (name, *_), error in zip(step.phases, step.errors(), strict=True)
                ],
            }
            for step in found.steps
        ],
        "transfers_alone": [{**dict(error.row), **counts(error)} for error in found.strided],
        "transfers_beside_cores": [
            {**dict(moved.row), "transfers": counts(moved), "kernel": counts(kernel)} for moved, kernel in found.beside
        ],
    }
