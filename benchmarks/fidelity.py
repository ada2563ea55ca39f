"""How near the model comes to the measured tables: every row, in figures by group and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import mean
from typing import Any

from benchmarks import campaign_page, reference
from benchmarks.campaign import Campaign
from benchmarks.campaign_page import percent
from benchmarks.dated import ROOT, made
from benchmarks.markdown import grid
from benchmarks.reference import Error, Row

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
def _share(value: float | None, sign: str = "") -> str:
    return "" if value is None else percent(value, sign)


def _figures(found: Figures | None) -> list[str]:
    """Mean |error| and worst error as shares, and the mean in cycles."""
    if found is None:
        return ["", "", ""]
    return [_share(found.mean_share), _share(found.worst_share, "+"), f"{found.mean_cycles:,.0f}"]


def _inside(found: Figures | None) -> str:
    if found is None or found.inside_skews is None:
        return ""
    return percent(found.inside_skews, digits=0)


def group_texts(lines: Sequence[Line]) -> Iterator[list[str]]:
    """A row of a table per group: title, rows; mean, worst, cycles, window, without and with the instruction
    cache; mean, worst, cycles of the cold ones."""
    for group in groups(lines):
        plain, cached = group.plain, group.cached
        some = cached or plain
        yield [
            group.title, str(some.rows if some else 0), *_figures(plain), _inside(plain), *_figures(cached),
            _inside(cached), *_figures(group.cold),
        ]  # fmt: skip


def _error(error: Error | None, *, measured: bool) -> list[str]:
    if error is None:
        return [""] * (4 if measured else 3)
    share = _share(error.relative, "+") if error.measured >= SHARE_FROM else ""
    counts = [f"{error.measured:,.0f}"] if measured else []
    return [*counts, f"{error.ours:,.0f}", f"{error.cycles:+,.0f}", share]


def _details(table: str, config: str, lines: Sequence[Line]) -> Iterator[str]:
    names = {"matmul": ["kernel", "cores", "N x K x M"], "micro": ["kernel", "cores", "run"]}
    given = names.get(table, ["case", "n", "k", "m"])
    yield ""
    yield f"<details><summary>{table}, {config}: {len(lines)} rows</summary>"
    yield ""
    rows = []
    for line in lines:
        row = line.row
        text = [row[name] if name in row else "x".join(row[size] for size in "nkm") for name in given]
        count = f"{reference.measured(row):,.0f}"
        rows.append([*text, count, *_error(line.plain, measured=False)])
        if table != "dma":
            rows[-1] += [*_error(line.cached, measured=False), *_error(line.cold, measured=True)]
    headings = [*given, "measured", "ours", "error", "%"]
    if table != "dma":
        headings += ["with icache", "error", "%", "cold", "ours", "error", "%"]
    yield from grid(headings, len(given), rows)
    yield ""
    yield "</details>"


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
    headings = ["group", "rows", "mean", "worst", "cycles", "window", "with icache: mean", "worst", "cycles"]
    headings += ["window", "cold: mean", "worst", "cycles"]
    yield from grid(headings, 1, list(group_texts(lines)))
    yield ""
    yield "## Limits with the instruction cache"
    yield ""
    for name, (cycles, share) in reference.LIMITS.items():
        yield f"- {name}: within {cycles} cycles + {percent(share, digits=1)}"
    yield ""
    yield "Coupled matmuls are judged by the group. Beyond their limit:"
    yield ""
    misses = [
        [error.name, error.quantity, reason, *_error(error, measured=True)] for error, reason in beyond_limits(lines)
    ]
    yield from grid(["row", "column", "reason", "measured", "ours", "error", "%"], 3, misses)
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
            yield from _details(table, config, chosen)


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

    def counts(error: Error | None) -> dict[str, float] | None:
        if error is None:
            return None
        return {"measured": error.measured, "ours": error.ours, "error_cycles": error.cycles}

    return campaign_page.document(campaign) | {
        "groups": [
            {
                "group": group.title,
                "without_icache": vars(group.plain) if group.plain else None,
                "with_icache": vars(group.cached) if group.cached else None,
                "cold": vars(group.cold) if group.cold else None,
            }
            for group in groups(lines)
        ],
        "beyond_limits": [
            {"row": error.name, "column": error.quantity, **(counts(error) or {}), "reason": reason}
            for error, reason in beyond_limits(lines)
        ],
        "rows": [
            {
                "table": line.table,
                **line.row,
                "without_icache": counts(line.plain),
                "with_icache": counts(line.cached),
                "cold_with_icache": counts(line.cold),
            }
            for line in lines
        ],
    }
