"""How near the model comes to the measured tables: every row, in figures by group and as a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from statistics import mean
from typing import Any

from benchmarks import campaign_page, reference
from benchmarks.campaign import Campaign
from benchmarks.campaign_page import COUNTS, counts, counts_columns, percent
from benchmarks.dated import ROOT, made
from benchmarks.reference import Error, Row
from pulpsim.tables import Column, Record, Table, markdown, number, records, sizes, words

PAGE = ROOT / "docs" / "validation.md"
#: what makes the numbers
WATCHED = ("pulpsim", "benchmarks/reference.py", "benchmarks/campaign.py", "tests/reference")
#: below this line the page is a function of the code and the tables; above it, when and where it was made
FENCE = "<!-- below: numbers only -->"
#: in rows of fewer cycles a share says nothing: an empty kernel has 2
SHARE_FROM = 100


@dataclass(frozen=True)
class Line:
    """A measured row and what the model makes of it; None where it cannot be compared.

    plain: without the instruction cache; cached: with it; cold: the first repetition with it.
    """

    table: str
    row: Row
    plain: Error | None
    cached: Error | None
    cold: Error | None


@dataclass(frozen=True)
class Figures:
    """The errors of some rows. Shares are over rows of at least SHARE_FROM cycles; None without any."""

    rows: int
    mean_cycles: float
    worst_cycles: float
    mean_share: float | None
    worst_share: float | None
    inside_skews: float | None  # share of those rows whose skews were measured


@dataclass(frozen=True)
class Group:
    title: str
    plain: Figures | None
    cached: Figures | None
    cold: Figures | None


# -- measuring ---------------------------------------------------------------------------------------
def _configs(table: str) -> list[str]:
    return sorted({row["config"] for row in reference.rows(table, icache=True)})


def _job(table: str, config: str, icache: bool) -> list[Error]:
    if icache:
        return reference.replay(table, config)
    return reference.errors(row for row in reference.rows(table) if row["config"] == config)


def measure() -> list[Line]:
    """Every row of every table, in their order: on all processors, the same for any number of them."""
    jobs = [
        (table, config, icache)
        for icache in (True, False)
        for table in reference.TABLES
        for config in _configs(table)
        if table != "dma" or not icache  # no core runs code while it is measured
    ]
    found: dict[tuple[str, ...], Error] = {}
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for job, errors in zip(jobs, pool.map(_job, *zip(*jobs, strict=True)), strict=True):
            table, _, icache = job
            for error in errors:
                column = error.quantity if icache else "plain"
                found[(column, table, *error.row.values())] = error

    def of(table: str, row: Row, column: str) -> Error | None:
        return found.get((column, table, *row.values()))

    return [
        Line(table, row, of(table, row, "plain"), of(table, row, "cycles"), of(table, row, "cold"))
        for table in reference.TABLES
        for row in reference.rows(table, icache=True)
    ]


# -- figures -----------------------------------------------------------------------------------------
def figures(errors: Sequence[Error]) -> Figures | None:
    """None for no errors."""
    if not errors:
        return None
    cycles = [error.cycles for error in errors]
    shares = [error.relative for error in errors if error.measured >= SHARE_FROM]
    with_skews = [error for error in errors if error.quantity == "cycles" and error.row.get("skew_avg")]
    return Figures(
        len(errors),
        mean(map(abs, cycles)),
        max(cycles, key=abs),
        mean(map(abs, shares)) if shares else None,
        max(shares, key=abs) if shares else None,
        mean(error.inside_skews for error in with_skews) if with_skews else None,
    )


def _title(line: Line) -> str:
    row = line.row
    if line.table == "dma":
        return f"dma, {row['config']}"
    kind = "coupled" if reference.coupled(row) else "uncoupled"
    if line.table == "matmul":
        return f"matmul, {row['config']}, {row['cores']} core{'s' * (row['cores'] != '1')}, {kind}"
    if row["kernel"].startswith("ub_icache_"):
        return "micro, instruction cache"
    return f"micro, {kind}"


def groups(lines: Sequence[Line]) -> list[Group]:
    """Figures by table, configuration, cores and coupling; matching any of a micro row's repeats counts."""
    titles = sorted({_title(line) for line in lines}, key=lambda title: (title.split(",")[0] == "dma", title))
    found = []
    for title in titles:
        members = [line for line in lines if _title(line) == title]
        columns = [[line.plain for line in members], [line.cached for line in members]]
        best = [[error for error in column if error is not None] for column in columns]
        if title.startswith("micro"):
            best = [reference.best_of_repeats(column) for column in best]
        cold = [line.cold for line in members if line.cold is not None]
        found.append(Group(title, figures(best[0]), figures(best[1]), figures(cold)))
    return found


def beyond_limits(lines: Sequence[Line]) -> list[tuple[Error, str]]:
    """Rows beyond their limit with the instruction cache on, and why ("unexplained": a regression)."""
    cached = [line.cached for line in lines if line.cached is not None]
    micro = reference.best_of_repeats(error for error in cached if "m" not in error.row)
    cold = [line.cold for line in lines if line.cold is not None]
    found = [error for error in micro + [e for e in cached if "m" in e.row] + cold if error.beyond_limit]
    return [(e, reference.EXCEPTIONS.get((e.quantity, e.name), "unexplained")) for e in found]


# -- the page ----------------------------------------------------------------------------------------
def groups_table(lines: Sequence[Line], plain: str, window: str, cached: str, cold: str, title: str = "") -> Table:
    """A row per group: rows; mean, worst, cycles, window, without and with the instruction cache; mean, worst, cycles
    of the cold ones. plain, cached, cold: headings of the means.
    """
    columns = [
        words("group"), number("rows", value=_rows),
        *_figures_columns("without_icache", plain, window), *_figures_columns("with_icache", cached, window),
        *_figures_columns("cold", cold, window)[:-1],
    ]  # fmt: skip
    return Table(columns, [_group_record(group) for group in groups(lines)], title)


def _rows(group: Record) -> int:
    some = group["with_icache"] or group["without_icache"]
    return some["rows"] if some else 0


def _figures_columns(of: str, mean_heading: str, window: str) -> list[Column]:
    """Mean |error| and worst error as shares, the mean in cycles, and the rows inside the window."""
    shown = {
        "mean_share": (mean_heading, ".2%"), "worst_share": ("worst", "+.2%"), "mean_cycles": ("cycles", ",.0f"),
        "inside_skews": (window, ".0%"),
    }  # fmt: skip
    return [number(f"{of}_{name}", heading, form, _figure(of, name)) for name, (heading, form) in shown.items()]


def _figure(of: str, name: str) -> Callable[[Record], Any]:
    return lambda group: (group[of] or {}).get(name)


def _group_record(group: Group) -> dict[str, Any]:
    return {
        "group": group.title,
        "without_icache": vars(group.plain) if group.plain else None,
        "with_icache": vars(group.cached) if group.cached else None,
        "cold": vars(group.cold) if group.cold else None,
    }


def _misses(lines: Sequence[Line]) -> Table:
    """Rows beyond their limit."""
    rows = [
        {"row": error.name, "column": error.quantity, **(counts(error) or {}), "reason": reason}
        for error, reason in beyond_limits(lines)
    ]
    return Table([words("row"), words("column"), words("reason"), *counts_columns("", COUNTS, SHARE_FROM)], rows)


def _rows_table(table: str, lines: Sequence[Line]) -> Table:
    """Every row of a measured table."""
    names = {"matmul": ["kernel", "cores", "N x K x M"], "micro": ["kernel", "cores", "run"]}
    given = [words(name, name) for name in names.get(table, ["case", "n", "k", "m"])]
    columns = [
        *(replace(column, value=_shape) if column.name == "N x K x M" else column for column in given),
        number("measured", shown=",.0f", value=reference.measured),
        *counts_columns("without_icache", COUNTS[1:], SHARE_FROM),
    ]
    if table != "dma":
        columns += counts_columns("with_icache", ("with icache", *COUNTS[2:]), SHARE_FROM)
        columns += counts_columns("cold_with_icache", ("cold", *COUNTS[1:]), SHARE_FROM)
    return Table(columns, [_line_record(line) for line in lines])


def _shape(row: Record) -> str:
    return sizes(row[size] for size in "nkm")


def _line_record(line: Line) -> dict[str, Any]:
    return {
        "table": line.table,
        **line.row,
        "without_icache": counts(line.plain),
        "with_icache": counts(line.cached),
        "cold_with_icache": counts(line.cold),
    }


def body(lines: Sequence[Line], campaign: Campaign) -> str:
    """The page below its header: a function of the code and the tables."""
    return "\n".join(_body(lines, campaign)) + "\n"


def _body(lines: Sequence[Line], campaign: Campaign) -> Iterator[str]:
    yield FENCE
    yield ""
    yield "## By group"
    yield ""
    yield (
        "Mean of |error| and worst error, in % over rows of at least "
        f"{SHARE_FROM} cycles and in cycles over all: without the instruction cache, with it (warm), and of "
        "the first repetition with it (cold). Window: the share of rows whose mean lies where the measured "
        "skews lie, [0.97 min - 100, 1.03 max]."
    )
    yield ""
    yield markdown(groups_table(lines, "mean", "window", "with icache: mean", "cold: mean"))
    yield ""
    yield "## Limits with the instruction cache"
    yield ""
    for name, (cycles, share) in reference.LIMITS.items():
        yield f"- {name}: within {cycles} cycles + {percent(share, digits=1)}"
    yield ""
    yield "Coupled matmuls are judged by the group. Beyond their limit:"
    yield ""
    yield markdown(_misses(lines))
    yield ""
    yield from campaign_page.sections(campaign)
    yield ""
    yield "## All rows of the first campaign"
    yield ""
    yield (
        "`measured`: without the measuring frame. `ours`: without the instruction cache; coupled matmuls "
        "are means over eight start skews."
    )
    for table in reference.TABLES:
        for config in _configs(table):
            chosen = [line for line in lines if (line.table, line.row["config"]) == (table, config)]
            yield from campaign_page.details(f"{table}, {config}", _rows_table(table, chosen))


def header() -> str:
    """The page's first lines: today, the commit, the version."""
    return (
        "# Validation\n\n"
        "Everything measured on the PULP virtual platform (tests/reference, whose README says how) against the "
        "model's count of the same program: tables of small kernels, the library's kernels, whole training steps phase "
        "by phase, transfers.\n\n"
        f"Made {made(WATCHED)}, by `python -m benchmarks fidelity`; these lines stay as they are while the numbers "
        "below do. `python -m benchmarks fidelity --check` compares.\n\n"
    )


def page(text: str, old: str | None) -> str:
    """The page with this body; the old page itself if its body is the same."""
    if old is not None and old.partition(FENCE)[1:] == text.partition(FENCE)[1:]:
        return old
    return header() + text


def document(lines: Sequence[Line], campaign: Campaign) -> dict[str, Any]:
    """Groups, limits' exceptions and rows, and the second campaign, as JSON values."""
    return campaign_page.document(campaign) | {
        "groups": [_group_record(group) for group in groups(lines)],
        "beyond_limits": records(_misses(lines)),
        "rows": [_line_record(line) for line in lines],
    }
