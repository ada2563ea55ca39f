"""The page on which two runs stand side by side."""

from __future__ import annotations

from collections.abc import Iterator

from pulpsim.tables import Table
from trainlib.page.charts import Bar, bars, changes
from trainlib.page.compare import (
    TOTALS,
    Comparison,
    causes_table,
    made_table,
    plan_table,
    platform_table,
    ratio,
    steps_table,
    totals_table,
)
from trainlib.page.document import Part, document
from trainlib.page.markup import Markup, joined, table, tag
from trainlib.page.steps import card, cause_of, causes_in, parts_of

#: steps in the picture of what changed; what is shown as a change of a total
MOST_STEPS, VISIBLE = 24, 0.0005


def comparison_page(found: Comparison) -> str:
    """One file, like a run's own page."""
    first, second = found.first, found.second
    subtitle = joined(
        "first: ", tag("b", f"{first.model} on {first.platform}"), f" ({found.first_name}); second: ",
        tag("b", f"{second.model} on {second.platform}"), f" ({found.second_name})",
    )  # fmt: skip
    parts = [("headline", "In short", "", _short(found))]
    parts.append(
        (
            "where",
            "Where cycles went",
            "Of a core, on average: so that different numbers of cores compare.",
            _where(found),
        )
    )
    parts.append(("steps", "Steps that changed", "What changed most comes first.", _steps(found)))
    parts += [*_listed(found)]
    return document("Two runs compared", subtitle, parts, "Made by trainlib report.")


def _short(found: Comparison) -> Markup:
    cards = [
        card(
            row["what"],
            f"{format(row['first'], row['shown'])} → {format(row['second'], row['shown'])}",
            ratio(row["ratio"]),
        )
        for row in sorted(found.totals, key=lambda row: [what for what, *_ in TOTALS].index(row["what"]))
        if abs(row["ratio"]) >= VISIBLE
    ]
    told = tag("p", found.story, class_="story")
    cannot = tag("ul", *(tag("li", why) for why in found.cannot)) if found.cannot else None
    heading = tag("p", "What cannot be compared:") if found.cannot else None
    return joined(told, tag("div", *cards, class_="cards pairs") if cards else None, heading, cannot)


def _where(found: Comparison) -> Markup:
    names = causes_in([*found.first.phases, *found.second.phases])
    runs = [("first", found.first), ("second", found.second)]
    rows = [
        Bar(name, parts_of({cause: spent / run.cores for cause, spent in run.causes.items()}, names), f"{run.cycles:,}")
        for name, run in runs
    ]
    return bars(
        "causes", "Both runs, by cause", "The length is cycles.", rows, table=causes_table(found.causes),
        legend=[cause_of(name) for name in names], unit="cycles of a core", tools={"share": "as shares"},
    )  # fmt: skip


def _steps(found: Comparison) -> Markup:
    rows = found.changed_steps
    if not rows:
        return tag("p", "No step takes other cycles.", class_="nothing")
    shown = [(f"{row['layer']} {row['step']}", row["change"], f"{row['first']:,} to {row['second']:,} cycles\n"
              f"most of it is {cause_of(row['cause']).name}") for row in rows[:MOST_STEPS]]  # fmt: skip
    left = len(rows) - len(shown)
    about = "Cycles less to the left, more to the right." + (
        f" {left} that changed less are in the numbers." if left else ""
    )
    return changes("changed", "What changed most", about, shown, steps_table(rows), unit="cycles")


def _listed(found: Comparison) -> Iterator[Part]:
    """Tables alone, where there is something to list."""
    listed = [
        ("totals", "Totals", totals_table(found.totals)), ("plan", "Plans", plan_table(found.plan)),
        ("platform", "Platforms", platform_table(found.platform)),
        ("made", "How they were made", made_table(found.made)),
    ]  # fmt: skip
    for ident, heading, shown in listed:
        nothing = tag("p", "No difference.", class_="nothing")
        yield ident, heading, "", table(Table(shown.columns, shown.rows, keys=shown.keys)) if shown.rows else nothing
