"""Protects tables at every width: no number is cut, nothing is left out, no line is longer than the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

import autotuner
import benchmarks
import pulpsim
import trainlib
from autotuner.comparison import Choice, Compared
from autotuner.published import Row, Tile
from autotuner.report import comparison_table, steps_table, verified_table
from autotuner.search import Found, Infeasible
from autotuner.tuning import Outcome
from autotuner.verify import Checked
from pulpsim.console import causes_table
from pulpsim.counters import CoreCounters
from pulpsim.tables import Table, number, text, words
from trainlib import Trainer, models
from trainlib.overview import models_table, plan_record, print_plan
from trainlib.plan import LayerStep
from trainlib.plan import Tile as PlanTile
from trainlib.report import print_report

WIDTHS = (60, 80, 100, 200)


def test_tables_are_drawn_in_one_place() -> None:
    """An output format is a view: no other module rules Markdown, HTML or a terminal's tables by itself."""
    folders = [Path(str(package.__file__)).parent for package in (pulpsim, trainlib, autotuner, benchmarks)]
    files = {path: path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py")}
    drawing = {path.name for path, text in files.items() if any(s in text for s in ("rich.table", "--:", "<td", "<th"))}
    assert drawing == {"tables.py", "folding.py"}


def console(width: int) -> Console:
    return Console(file=StringIO(), width=width, highlight=False, markup=False, emoji=False)


def lines_of(shown: Console) -> list[str]:
    assert isinstance(shown.file, StringIO)
    lines = shown.file.getvalue().splitlines()
    assert all(cell_len(line) <= shown.width for line in lines), max(lines, key=cell_len)
    assert "…" not in shown.file.getvalue()
    return lines


def check(table: Table, width: int, *, ruled: bool = False) -> None:
    """Every number of a table stands somewhere whole, in as many places as it has to."""
    shown = console(width)
    shown.print(text(table, ruled=ruled))
    found = " ".join(lines_of(shown)).replace("│", " ").split()
    for row in table.cells([*table.rows, *table.summary]):
        for column, cell in zip(table.columns, row, strict=True):
            for word in cell.split():
                assert word in found or (column.kind == "text" and len(word) > width // 3), (width, column, row)


numbers = st.integers(0, 10**13)
names = st.text("abcdefgh_", min_size=1, max_size=14)
phrases = st.lists(names, max_size=6).map(" ".join)


@settings(max_examples=60)
@given(data=st.data(), width=st.integers(56, 220))
def test_any_table_fits_any_width(data: st.DataObject, width: int) -> None:
    keys, texts, count = data.draw(st.integers(1, 2)), data.draw(st.integers(0, 3)), data.draw(st.integers(0, 14))
    cells = {words(f"key{place}"): names for place in range(keys)}
    cells |= {words(f"t{place}"): phrases for place in range(texts)}
    cells |= {number(f"n{place}"): numbers for place in range(count)}
    rows = [
        {column.name: data.draw(strategy) for column, strategy in cells.items()}
        for _ in range(data.draw(st.integers(0, 5)))
    ]
    last = data.draw(st.integers(0, len(rows)))
    table = Table(list(cells), rows[last:], "title", "caption", rows[:last], keys)
    check(table, width, ruled=data.draw(st.booleans()))


def test_a_name_longer_than_a_line_is_taken_apart_and_numbers_are_not() -> None:
    shown = console(40)
    shown.print(text(Table([words("name"), number("n")], [{"name": "x" * 200, "n": 123_456_789_012}])))
    found = "".join("".join(line.split()) for line in lines_of(shown))
    assert found.count("x") == 200 and "123,456,789,012" in found


def test_columns_that_do_not_fit_stand_below_with_the_rows_names_again() -> None:
    rows = [{"core": f"core{core}"} | {f"cause{i}": core * 10**9 + i for i in range(9)} for core in range(3)]
    shown = console(60)
    shown.print(text(Table([words("core"), *(number(f"cause{i}") for i in range(9))], rows)))
    lines = lines_of(shown)
    assert sum("core2" in line for line in lines) == sum(line.split()[:1] == ["core"] for line in lines) == 3


# -- the tables there are --------------------------------------------------------------------------
def outcomes() -> dict[str, Outcome]:
    tile = PlanTile(rows=1234, columns=5678, lines=25)
    step = LayerStep(layer="layer", step="fw", tile=tile, kernel="mm_M_unroll_4x4")
    million = (12_345_678, 12_345_679, 12_345_680, 12_345_690)
    found = Found(
        step, million, million, 12_000_000, 11_000_000, 10_000_000, 123_456_789, 12_345, 1_234_567, 123_456_789,
        98_765_432, 1_234_567, 12_345, proven=True,
    )  # fmt: skip
    return {"pointwise0 wg+update": found, "fc fw": Infeasible("fc", "fw", "needs more")}


def found_tables() -> Iterator[Table]:
    counters = [CoreCounters(*(10**9 * core + 10**7 * cause for cause in range(14))) for core in range(16)]
    yield causes_table(counters, "team on 16 cores: cycles by cause")
    yield steps_table("model on platform: each step by itself", outcomes())
    again = (12_345_678,) * 4
    checked = {name: Checked(one, 123_456_789, again, 12_000_000, 1, 20) for name, one in outcomes().items()}
    yield verified_table("model on platform: claimed, and found", checked)
    (found, infeasible), tile = outcomes().values(), Tile(1000, 200, 300, 1000, 10**6)
    assert isinstance(found, Found)
    row = Row(tile, "mm_M_unroll_4x4", "mm_M_unroll_4x4", 123_456_789, 98_765_432, 87_654_321.0)
    choice = Choice(row, row, found.step, 17, found.cycles, row)
    rows = [Compared("pointwise0", "fw", choice, found), Compared("fc", "fw", Choice(None), infeasible)]
    yield comparison_table("model on platform: the published tuner's choices, and ours", rows)


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_of_counters_and_searches_are_whole(width: int) -> None:
    for table in found_tables():
        check(table, width, ruled="cores" not in table.title)


@pytest.mark.parametrize("width", WIDTHS)
def test_reports_of_steps_are_whole(width: int) -> None:
    trainer = Trainer("tutorial_cnn")
    report, shown = trainer.timed_step(np.ones(512), np.ones(32)), console(width)
    print_report(report, shown)
    lines = "\n".join(lines_of(shown))
    for phase in report.phases:
        for count in (phase.cycles, phase.bound_cycles):
            assert f" {count:,} " in lines or f" {count:,}\n" in lines
        assert f"{phase.dma_bytes_in / 1024:,.1f}" in lines and f"{phase.macs / phase.cycles:.2f}" in lines
    for cycles in report.causes.values():
        assert f" {cycles / report.cores:,.0f} " in lines or not cycles


@pytest.mark.parametrize("width", WIDTHS)
def test_plans_and_models_are_whole(width: int) -> None:
    for name in models.MODELS:
        trainer = Trainer(name)
        record = plan_record(trainer.model, trainer.plan, trainer.platform)
        shown = console(width)
        print_plan(record, shown)
        lines = " ".join(lines_of(shown))
        counts = [phase[key] for phase in record["phases"] for key in ("macs", "dma_bytes_in", "dma_bytes_out")]
        counts += [place["bytes"] for place in (*record["l1"], *record["l2"])]
        assert all(f" {count:,} " in lines for count in counts)
        assert all(f"{place['address']:#x}" in lines for place in (*record["l1"], *record["l2"]))
    shown = console(width)
    shown.print(text(models_table(), ruled=True))
    lines = " ".join(lines_of(shown))
    assert all(f"{models.get(name).step_macs:,}" in lines and name in lines for name in models.MODELS)


@pytest.mark.parametrize("width", WIDTHS)
def test_headings_may_be_alike(width: int) -> None:
    """As mean, worst and cycles are, with the instruction cache and without."""
    places = [(place, name) for place in range(4) for name in ("mean", "worst", "cycles")]
    columns = [words("group"), *(number(f"{name}{place}", name, ".2%") for place, name in places)]
    rows = [
        {"group": f"group {row}"} | {f"{name}{place}": row + place / 8 for place, name in places} for row in range(4)
    ]
    check(Table(columns, rows), width, ruled=True)
