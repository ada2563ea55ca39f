"""Tables as values, and what is made of them: text for a terminal, Markdown, HTML, records for JSON.

A table has records, which hold plain values by name, and columns, which say what a reader sees of a record and how a
number is written. Here alone do a table's numbers become text.

    steps = Table([words("layer"), number("cycles"), number("share", shown=".1%")], rows, title="steps")
    console.print(text(steps))
    print_json(records(steps))

Importing this costs nothing: rich is imported where text is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pulpsim.folding import Folding

#: plain values by name
Record = Mapping[str, Any]
#: how a value becomes text: a format of Python's, or a function
Shown = str | Callable[[Any], str]


# -- values ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Column:
    """What a reader sees of a record.

    kind: text stands on the left, numbers on the right. value: what is shown; without it, what the record has by the
    column's name. None is shown as nothing, a text as it is, and the rest by `shown`.
    """

    name: str
    heading: str
    kind: Literal["text", "number"]
    shown: Shown = ""
    value: Callable[[Record], Any] | None = None

    def cell(self, record: Record) -> str:
        value = record.get(self.name) if self.value is None else self.value(record)
        if value is None or isinstance(value, str):
            return value or ""
        return self.shown(value) if callable(self.shown) else format(value, self.shown).replace("%", " %")


def words(
    name: str, heading: str | None = None, shown: Shown = "", value: Callable[[Record], Any] | None = None
) -> Column:
    """A column of texts; its heading is its name, if none is given."""
    return Column(name, _spaced(name) if heading is None else heading, "text", shown, value)


def number(
    name: str, heading: str | None = None, shown: Shown = ",", value: Callable[[Record], Any] | None = None
) -> Column:
    """A column of numbers; its heading is its name, if none is given."""
    return Column(name, _spaced(name) if heading is None else heading, "number", shown, value)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


@dataclass(frozen=True)
class Table:
    """rows: records; summary: records that stand below a line. keys: how many of the first columns tell rows apart.

    title: above; caption: below. extras: how many of the last columns a narrow terminal may leave out.
    """

    columns: Sequence[Column]
    rows: Sequence[Record]
    title: str = ""
    caption: str = ""
    summary: Sequence[Record] = ()
    keys: int = 1
    extras: int = 0

    def cells(self, rows: Iterable[Record]) -> list[list[str]]:
        return [[column.cell(row) for column in self.columns] for row in rows]


# -- how values are shown ----------------------------------------------------------------------
def kib(count: int) -> str:
    """Bytes."""
    return f"{count / 1024:,.1f}"


def band(ends: Sequence[float]) -> str:
    """Lowest and highest."""
    return f"{ends[0]:.2f}-{ends[1]:.2f}"


def sizes(numbers: Iterable[int]) -> str:
    """Of a shape, a tile."""
    return "x".join(map(str, numbers))


# -- views -------------------------------------------------------------------------------------
def text(table: Table, *, ruled: bool = False) -> Folding:
    """For a rich console; ruled: with lines between columns."""
    from pulpsim.folding import Folding

    return Folding(
        [column.heading for column in table.columns], [column.kind == "text" for column in table.columns],
        table.cells(table.rows), table.cells(table.summary), table.keys, table.extras, table.title, table.caption,
        ruled,
    )  # fmt: skip


def markdown(table: Table) -> str:
    """Without an end of line; the title and the caption are paragraphs."""
    marks = "|".join("---" if column.kind == "text" else "--:" for column in table.columns)
    rows = table.cells([*table.rows, *table.summary])
    lines = [_line([column.heading for column in table.columns]), f"|{marks}|", *map(_line, rows)]
    return "\n\n".join(filter(None, [table.title, "\n".join(lines), table.caption]))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.splitlines()).replace("|", r"\|") for cell in cells) + " |"


def html(table: Table) -> str:
    """One <table>, without style; cells of numbers are of the class "n"; the caption is a paragraph below."""
    heads = f"<thead>\n{_html_row(table, [column.heading for column in table.columns], 'th')}</thead>\n"
    parts = [f"<caption>{escape(table.title)}</caption>\n" if table.title else "", heads]
    for part, rows in (("tbody", table.rows), ("tfoot", table.summary)):
        if rows:
            parts.append(f"<{part}>\n{''.join(_html_row(table, row, 'td') for row in table.cells(rows))}</{part}>\n")
    below = f"<p>{escape(table.caption)}</p>\n" if table.caption else ""
    return f"<table>\n{''.join(parts)}</table>\n{below}"


def _html_row(table: Table, cells: Sequence[str], tag: str) -> str:
    kinds = {"text": "", "number": " class=n"}
    parts = (
        f"<{tag}{kinds[column.kind]}>{escape(cell)}</{tag}>" for column, cell in zip(table.columns, cells, strict=True)
    )
    return f"<tr>{''.join(parts)}</tr>\n"


def records(table: Table) -> list[dict[str, Any]]:
    """The rows for JSON, values as they are; also those that no column shows."""
    return [dict(row) for row in table.rows]
