"""Protects what is made of a table: every cell is in every view of it, and none breaks the view."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from io import StringIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from pulpsim.tables import Table, band, html, kib, markdown, number, records, sizes, text, words

#: what Markdown and HTML take for their own, among letters
names = st.text("ab|<>&\"'\\ \n", max_size=12)
counts = st.one_of(st.none(), st.integers(-(10**9), 10**12))
shares = st.floats(-10, 10)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    kinds = draw(st.lists(st.sampled_from(("text", "count", "share")), max_size=8))
    made = {"text": (words, names), "count": (number, counts), "share": (number, shares)}
    shown = {"text": "", "count": ",", "share": "+.1%"}
    columns, values = [words("key", draw(names))], {"key": names, "not shown": counts}
    for place, kind in enumerate(kinds):
        make, values[f"{kind}{place}"] = made[kind]
        columns.append(make(f"{kind}{place}", draw(st.one_of(st.none(), names)), shown[kind]))
    rows = draw(st.lists(st.fixed_dictionaries(values), max_size=4))
    last = draw(st.integers(0, len(rows)))
    return Table(columns, rows[last:], draw(names), draw(names), rows[:last])


def all_cells(table: Table) -> list[list[str]]:
    heads = [column.heading for column in table.columns]
    return [heads, *table.cells(table.rows), *table.cells(table.summary)]


# -- cells -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("shown", "value", "cell"), [
    (",", 1234567, "1,234,567"), (".2f", 1.005, "1.00"), ("+.1%", 0.1234, "+12.3 %"), ("#x", 255, "0xff"),
    (kib, 1536, "1.5"), (band, (1, 2.345), "1.00-2.35"), (sizes, (3, 4), "3x4"), (",", None, ""), (",", "none", "none"),
    ("+z.0%", -0.001, "+0 %"),
])  # fmt: skip
def test_a_value_is_shown_as_its_column_says(shown: Any, value: object, cell: str) -> None:
    assert number("n", shown=shown).cell({"n": value}) == cell


def test_a_column_may_show_what_follows_from_a_record() -> None:
    column = number("macs_per_cycle", shown=".2f", value=lambda row: row["macs"] / row["cycles"])
    assert (column.cell({"macs": 1, "cycles": 4}), column.heading) == ("0.25", "macs per cycle")
    assert number("absent").cell({}) == ""


# -- views -----------------------------------------------------------------------------------------
def cells_of(line: str) -> list[str]:
    """Of a line of Markdown: a bar with a backslash before it is no border."""
    return [cell.replace("\0", "|") for cell in line.replace(r"\|", "\0").split("|")[1:-1]]


@settings(max_examples=60)
@given(table=tables())
def test_markdown_has_a_line_for_every_row(table: Table) -> None:
    bare = Table(table.columns, table.rows, summary=table.summary, keys=table.keys)
    head, marks, *lines = markdown(bare).split("\n")
    assert len(lines) == len(table.rows) + len(table.summary)
    assert [mark.endswith(":") for mark in cells_of(marks)] == [column.kind == "number" for column in table.columns]
    for line, row in zip([head, *lines], all_cells(table), strict=True):
        assert cells_of(line) == [f" {' '.join(cell.splitlines())} " for cell in row]
    assert markdown(bare) in markdown(table) and markdown(table).startswith(table.title)


class Read(HTMLParser):
    """Rows of cells, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self._inside = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self._inside = tag in ("th", "td")
        if tag == "tr":
            self.rows.append([])
        elif self._inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


@settings(max_examples=60)
@given(table=tables())
def test_html_holds_the_cells_and_nothing_of_them_is_taken_for_a_tag(table: Table) -> None:
    read = Read(html(table))
    assert read.rows == all_cells(table)
    assert read.tags <= {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "p"}


@settings(max_examples=60)
@given(table=tables())
def test_records_hold_the_values_as_they_are(table: Table) -> None:
    found = records(table)
    assert found == list(table.rows) and all("not shown" in row for row in found)
    assert json.loads(json.dumps(found)) == found
    assert all(row is not kept for row, kept in zip(found, table.rows, strict=True))


@settings(max_examples=60)
@given(table=tables(), width=st.one_of(st.just(400), st.integers(36, 60)), ruled=st.booleans())
def test_a_terminal_of_any_width_shows_every_cell(table: Table, width: int, ruled: bool) -> None:
    console = Console(file=StringIO(), width=width, highlight=False, markup=False, emoji=False)
    console.print(text(table, ruled=ruled))
    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert all(len(line) <= width for line in shown.splitlines())
    known = set(shown.replace("│", " ").split())
    for row in all_cells(table)[1:]:
        for column, cell in zip(table.columns, row, strict=True):
            if column.kind == "number":
                assert cell in shown
            else:
                assert all(word in known for word in cell.split())
