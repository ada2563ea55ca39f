"""Protects tables at every width: no number is cut, nothing is left out, no line is longer than the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from autotuner.comparison import Choice, Compared
from autotuner.published import Row, Tile
from autotuner.report import comparison_table, steps_table
from autotuner.search import Found, Infeasible
from autotuner.tuning import Outcome
from pulpsim.console import causes_table
from pulpsim.counters import CoreCounters
from pulpsim.tables import Folding
from trainlib import Trainer, models
from trainlib.overview import plan_record, print_models, print_plan
from trainlib.plan import LayerStep
from trainlib.plan import Tile as PlanTile
from trainlib.report import print_report

WIDTHS = (60, 80, 100, 200)


def console(width: int) -> Console:
    return Console(file=StringIO(), width=width, highlight=False, markup=False, emoji=False)


def lines_of(shown: Console) -> list[str]:
    assert isinstance(shown.file, StringIO)
    lines = shown.file.getvalue().splitlines()
    assert all(cell_len(line) <= shown.width for line in lines), max(lines, key=cell_len)
    assert "…" not in shown.file.getvalue()
    return lines


def check(table: Folding, width: int) -> None:
    """Every number of a table stands somewhere whole, in as many places as it has to."""
    shown = console(width)
    shown.print(table)
    words = " ".join(lines_of(shown)).replace("│", " ").split()
    for column, heading in enumerate(table.headings):
        if heading not in table.texts:
            for row in table.rows:
                for word in row[column].split():
                    assert word in words, (width, heading, row)
    for row in table.rows:
        for cell in row:
            assert all(word in words or len(word) > width // 3 for word in cell.split()), (width, row)


numbers = st.integers(0, 10**13).map(lambda number: f"{number:,}")
words = st.text("abcdefgh_", min_size=1, max_size=14)
phrases = st.lists(words, max_size=6).map(" ".join)


@settings(max_examples=60)
@given(data=st.data(), width=st.integers(40, 220))
def test_any_table_fits_any_width(data: st.DataObject, width: int) -> None:
    keys, texts, count = data.draw(st.integers(1, 2)), data.draw(st.integers(0, 3)), data.draw(st.integers(0, 14))
    headings = [f"{kind}{place}" for kind, n in (("key", keys), ("t", texts), ("n", count)) for place in range(n)]
    table = Folding(headings, headings[: keys + texts], keys, "title", "caption", ruled=data.draw(st.booleans()))
    for _ in range(data.draw(st.integers(0, 5))):
        table.add_row(*(data.draw(words if place < keys else phrases) for place in range(keys + texts)),
                      *(data.draw(numbers) for _ in range(count)))  # fmt: skip
    check(table, width)


def test_a_name_longer_than_a_line_is_taken_apart_and_numbers_are_not() -> None:
    table = Folding(("name", "n"), ("name",))
    table.add_row("x" * 200, "123,456,789,012")
    shown = console(40)
    shown.print(table)
    text = "".join("".join(line.split()) for line in lines_of(shown))
    assert text.count("x") == 200 and "123,456,789,012" in text


def test_columns_that_do_not_fit_stand_below_with_the_rows_names_again() -> None:
    table = Folding(("core", *(f"cause{i}" for i in range(9))), ("core",))
    for core in range(3):
        table.add_row(f"core{core}", *(f"{core * 10**9 + i:,}" for i in range(9)))
    shown = console(60)
    shown.print(table)
    lines = lines_of(shown)
    assert sum("core2" in line for line in lines) == sum(line.split()[:1] == ["core"] for line in lines) == 3


# -- the tables there are --------------------------------------------------------------------------
def outcomes() -> dict[str, Outcome]:
    tile = PlanTile(rows=1234, columns=5678, lines=25)
    step = LayerStep(layer="layer", step="fw", tile=tile, kernel="mm_M_unroll_4x4")
    million = (12_345_678, 12_345_679, 12_345_680, 12_345_690)
    found = Found(
        step, million, million, 12_000_000, (), 123_456_789, 12_345, 1_234_567, 123_456_789, 98_765_432, proven=True
    )
    return {"pointwise0 wg+update": found, "fc fw": Infeasible("fc", "fw", "needs more")}


def found_tables() -> Iterator[Folding]:
    counters = [CoreCounters(*(10**9 * core + 10**7 * cause for cause in range(14))) for core in range(16)]
    yield causes_table({str(core): row for core, row in enumerate(counters)}, title="team on 16 cores: cycles by cause")
    yield steps_table("model on platform: each step by itself", outcomes())
    (found, infeasible), tile = outcomes().values(), Tile(1000, 200, 300, 1000, 10**6)
    assert isinstance(found, Found)
    row = Row(tile, "mm_M_unroll_4x4", "mm_M_unroll_4x4", 123_456_789, 98_765_432, 87_654_321.0)
    choice = Choice(row, row, found.step, 17, found.cycles, row)
    rows = [Compared("pointwise0", "fw", choice, found), Compared("fc", "fw", Choice(None), infeasible)]
    yield comparison_table("model on platform: the published tuner's choices, and ours", rows)


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_of_counters_and_searches_are_whole(width: int) -> None:
    for table in found_tables():
        check(table, width)


@pytest.mark.parametrize("width", WIDTHS)
def test_reports_of_steps_are_whole(width: int) -> None:
    trainer = Trainer("tutorial_cnn")
    report, shown = trainer.timed_step(np.ones(512), np.ones(32)), console(width)
    print_report(report, shown)
    text = "\n".join(lines_of(shown))
    for phase in report.phases:
        for number in (phase.cycles, phase.bound_cycles):
            assert f" {number:,} " in text or f" {number:,}\n" in text
        assert f"{phase.dma_bytes_in / 1024:,.1f}" in text and f"{phase.macs / phase.cycles:.2f}" in text
    for cycles in report.causes.values():
        assert f" {cycles / report.cores:,.0f} " in text or not cycles


@pytest.mark.parametrize("width", WIDTHS)
def test_plans_and_models_are_whole(width: int) -> None:
    for name in models.MODELS:
        trainer = Trainer(name)
        record = plan_record(trainer.model, trainer.plan, trainer.platform)
        shown = console(width)
        print_plan(record, shown)
        text = " ".join(lines_of(shown))
        numbers = [phase[key] for phase in record["phases"] for key in ("macs", "dma_bytes_in", "dma_bytes_out")]
        numbers += [place["bytes"] for place in (*record["l1"], *record["l2"])]
        assert all(f" {number:,} " in text for number in numbers)
        assert all(f"{place['address']:#x}" in text for place in (*record["l1"], *record["l2"]))
    shown = console(width)
    print_models(shown)
    text = " ".join(lines_of(shown))
    assert all(f"{models.get(name).step_macs:,}" in text and name in text for name in models.MODELS)


@pytest.mark.parametrize("width", WIDTHS)
def test_headings_may_be_alike(width: int) -> None:
    """As mean, worst and cycles are, with the instruction cache and without."""
    headings = ["group", *(f"{name}" for _ in range(4) for name in ("mean", "worst", "cycles"))]
    table = Folding(headings, ["group"], ruled=True)
    for number in range(4):
        table.add_row(f"group {number}", *(f"{number}{place:02d}.55 %" for place in range(12)))
    check(table, width)
