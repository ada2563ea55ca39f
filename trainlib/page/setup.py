"""Sections on what it ran on and how to run it again."""

from __future__ import annotations

from typing import Any

from pulpsim.tables import Table, words
from trainlib.page.charts import nothing
from trainlib.page.markup import Markup, joined, table, tag
from trainlib.page.record import Record


def platform(record: Record) -> Markup:
    """Every number, and where it comes from."""
    if not record.platform_values:
        return nothing("This record does not have the platform's numbers.")
    rows = [{"key": one.key, "value": written(one.value), "source": one.source} for one in record.platform_values]
    assumed = sum("assumed" in one.source or "assumption" in one.source for one in record.platform_values)
    about = f"{len(rows)} numbers; {assumed or 'none'} of them {'is' if assumed == 1 else 'are'} said to be assumed."
    shown = Table([words("key"), words("value"), words("source", "where it comes from")], rows)
    again = joined("As ", tag("code", f"pulpsim platforms {record.platform}"), " shows them.")
    return joined(tag("p", about, " ", again), table(shown))


def written(value: Any) -> str:
    """As --set takes it."""
    if isinstance(value, list):
        return ", ".join(map(written, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:_}" if isinstance(value, int) else str(value)


def reproduce(record: Record) -> Markup:
    """The command and what else decides its numbers."""
    if (made := record.made) is None:
        return nothing("This record does not say how it was made.")
    rows = [
        *({"what": name, "value": version} for name, version in made.versions.items()),
        {"what": "seed", "value": str(made.seed)},
        {"what": "plan", "value": f"{made.plan_file} (--plan)" if made.plan_file else record.plan or ""},
        {"what": "digest of the step", "value": made.content},
        {"what": "schema of the record", "value": record.schema},
    ]
    notes = [tag("p", "note: ", note) for note in record.notes or ()]
    digest = "Equal digests are equal programs, arguments and transfers: on one platform they take equal cycles."
    return joined(
        tag("pre", tag("code", made.command)), table(Table([words("what"), words("value")], rows)),
        tag("p", digest), *notes,
    )  # fmt: skip
