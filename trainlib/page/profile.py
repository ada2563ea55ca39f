"""The section on instructions: kernels, hot loops and listings of a run that was profiled."""

from __future__ import annotations

from pulpsim.tables import Table, number, words
from trainlib.page.charts import Bar, bars, nothing
from trainlib.page.markup import Markup, joined, percent, table, tag
from trainlib.page.record import Listing, Profile, Record
from trainlib.page.steps import cause_of, parts_of

#: kernels that are drawn, and that are in the table
SHOWN, LISTED = 12, 24


def profile(record: Record) -> Markup:
    """What the cycles of instructions are, kernel by kernel and loop by loop."""
    if (found := record.profile) is None:
        return nothing("This run was not profiled: `trainlib train --profile --out DIR` counts by instruction.")
    listings = [_listing(listing, found) for listing in found.listings]
    return joined(_story(found), _kernels(found), table(_loops(found)), *listings)


def _story(found: Profile) -> Markup:
    outside = ", ".join(f"{name.replace('_', ' ')} {cycles:,}" for name, cycles in found.outside.items())
    whole = found.counted + sum(found.outside.values())
    return tag(
        "p", tag("b", percent(found.counted, whole)), f" of the cores' {whole:,} cycles belong to an instruction. "
        f"The others: {outside}.",
    )  # fmt: skip


def _kernels(found: Profile) -> Markup:
    """The longest ones, with their causes."""
    spent: dict[str, int] = {}
    for kernel in found.kernels:
        for cause, cycles in kernel.causes.items():
            spent[cause] = spent.get(cause, 0) + cycles
    rows = [
        Bar(f"{kernel.kernel}, {kernel.where[0]}", parts_of(kernel.causes, spent), f"{kernel.cycles:,}")
        for kernel in found.kernels[:SHOWN]
    ]
    columns = [
        words("kernel"), number("cycles"), number("executed", "instructions"),
        number("stalled", shown=".1%", value=lambda row: 1 - row["executed"] / row["cycles"]),
        words("where", "where it runs", _several),
    ]  # fmt: skip
    shown = Table(columns, [
        {"kernel": kernel.kernel, "cycles": kernel.cycles, "executed": kernel.executed, "where": kernel.where}
        for kernel in found.kernels[:LISTED]
    ], caption=_left_out(found))  # fmt: skip
    return bars(
        "kernels", "Kernels, by cause", "Cycles of all cores in each program.", rows, table=shown,
        legend=[cause_of(name) for name in spent], unit="core cycles", tools={"share": "as shares"},
    )  # fmt: skip


def _left_out(found: Profile) -> str:
    rest = found.kernels[LISTED:]
    return f"{len(rest)} more take {sum(kernel.cycles for kernel in rest):,} cycles." if rest else ""


def _several(where: list[str]) -> str:
    return ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else "")


def _loops(found: Profile) -> Table:
    rows = [
        {"loop": loop.loop, "where": loop.where, "share": loop.share, "cycles_per_turn": loop.cycles_per_turn,
         "bound": f"{loop.bound} {loop.bound_cycles:.2f}", "loss": loop.loss, "remedy": loop.remedy}
        for loop in found.loops
    ]  # fmt: skip
    columns = [
        words("loop"), words("where", "where it runs"), number("share", shown=".1%"),
        number("cycles_per_turn", "cycles a turn", ".2f"),
        words("bound", "bound by"), words("loss", "lost to"), words("remedy", "what would help"),
    ]  # fmt: skip
    return Table(columns, rows, "The hottest loops")


def _listing(listing: Listing, found: Profile) -> Markup:
    """Its instructions that ran, inner loops further to the right."""
    whole = found.counted + sum(found.outside.values())
    lines = [f"{'issues':>10} {'cycles':>10} {'share':>8}"]
    for row in listing.rows:
        text = "  " * row.depth + "".join(f"{label}: " for label in row.labels) + row.text
        lines.append(f"{row.issues:>10,} {row.cycles:>10,} {percent(row.cycles, whole):>8}  {text}")
    return tag("details", tag("summary", "Listing: ", listing.kernel), tag("pre", tag("code", "\n".join(lines))))
