"""Tables of the generated pages whose cells are texts already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pulpsim.tables import Column, Table, markdown


def grid(headings: Sequence[str], texts: int, rows: Iterable[Sequence[str]], last: int = 0) -> list[str]:
    """Lines of a table: `texts` columns of text, numbers aligned to the right, and `last` columns of text."""
    numbers = range(texts, len(headings) - last)
    columns = [
        Column(str(place), heading, "number" if place in numbers else "text") for place, heading in enumerate(headings)
    ]
    names = [column.name for column in columns]
    return markdown(Table(columns, [dict(zip(names, row, strict=True)) for row in rows])).splitlines()
