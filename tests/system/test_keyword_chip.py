"""docs/keyword-chip.md answers from what was found: tables, pictures and words are those of the points beside it.

Its searches take minutes and are not run here; the plans of its two chips are timed again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autotuner.exploration.explored import Explored
from autotuner.exploration.spec import Spec
from autotuner.exploration.table import fronts_of, table_of
from autotuner.measure import SKEWS
from benchmarks import keyword_chip
from benchmarks.command_pages import BLOCK, PAGES, blocks
from benchmarks.keyword_chip import CHIPS, DEADLINE_MS, EXPLORATIONS, FOLDER, PAGE, Row, chip_of, row_of
from pulpsim import Platform, console
from trainlib import models
from trainlib.lowering.schedule import compile_schedule
from trainlib.plan import Plan
from trainlib.timing import cycles_of

KEPT = {name: keyword_chip.points((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in EXPLORATIONS}
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the page's files."""
    for found in BLOCK.finditer(TEXT):
        if found["file"]:
            (tmp_path / found["file"]).write_text(found["body"], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", EXPLORATIONS)
def test_tables_show_the_points_that_are_kept(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, rows = Spec.of(f"{name}.toml"), KEPT[name]
    assert [{axis: row[axis] for axis in spec.names} for row in rows] == spec.points
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(console, "PIPE_WIDTH", PAGES["keyword-chip"].width)
    console.print_table(table_of(found := Explored.begun(spec), rows))
    shown = "".join(f"{line.rstrip()}\n" for line in capsys.readouterr().out.splitlines())
    (block,) = (block for block in blocks(PAGE, "console") if f"explore {name}.toml" in block)
    assert shown in block
    for number, front in enumerate(fronts_of(found, rows), start=1):
        numbers = ", ".join(str(place + 1) for place in front)
        assert f"front {number}, {' against '.join(spec.fronts[number - 1])}: {numbers}\n" in block


def test_pictures_are_drawn_of_them() -> None:
    drawn = {
        "causes": keyword_chip.causes_picture(KEPT["chips"]),
        "variations": keyword_chip.variations_picture(KEPT["variations"]),
    }
    for name, picture in drawn.items():
        assert (FOLDER / f"{name}.svg").read_text(encoding="utf-8") == picture
        assert f"({FOLDER.name}/{name}.svg)" in TEXT
    other = [row | {"ms": row["ms"] * 2} for row in KEPT["variations"][:1]] + KEPT["variations"][1:]
    assert keyword_chip.variations_picture(other) != drawn["variations"]


@pytest.mark.parametrize("chip", CHIPS)
def test_each_chips_plan_takes_what_the_page_says(chip: str, folder: Path) -> None:
    platform, plan = Platform.load(chip), Plan.load(FOLDER / f"{Path(chip).stem}.plan.json")
    assert (platform.cluster.cores, platform.cluster.fpus, platform.l1.size_bytes) == CHIPS[chip]
    schedule = compile_schedule(models.get("ds_cnn_paper"), plan, platform)
    cycles = np.mean([cycles_of(schedule, platform, skew[: platform.cluster.cores]) for skew in SKEWS])
    assert cycles == row_of(KEPT["chips"], chip)["cycles"]


def test_a_slower_clock_takes_the_same_cycles() -> None:
    """And the lowest that does is between those that do and those that do not."""
    for chip in CHIPS:
        rows = [row for row in KEPT["clocks"] if row["platform"] == chip]
        assert len(rows) > 2 and len({row["cycles"] for row in rows}) == 1
        assert {row["meets"] for row in rows} == {True, False}
        for row in rows:
            assert row["ms"] == pytest.approx(1e3 * row["cycles"] / row["clock_hz"])
            assert row["meets"] == (row["ms"] <= DEADLINE_MS)


# -- what the page says ----------------------------------------------------------------------------
def words() -> str:
    """The page without its blocks, on one line."""
    return " ".join(BLOCK.sub("", TEXT).split())


def test_the_answer_has_the_numbers_of_both_chips() -> None:
    eight, four = (row_of(KEPT["chips"], chip) for chip in CHIPS)
    assert eight["meets"] and four["meets"]
    for said in (
        f"takes {eight['ms']:.2f} ms on the 8 cores and {four['ms']:.2f} ms on the 4",
        f"{DEADLINE_MS / eight['ms']:.0f} and {DEADLINE_MS / four['ms']:.0f} times as fast",
        f"{eight['uj_low']:.0f}-{eight['uj_high']:.0f} and {four['uj_low']:.0f}-{four['uj_high']:.0f} µJ a step",
        f"{lowest_clock(eight):.1f} MHz for eight cores, {lowest_clock(four):.1f} MHz for four",
        f"{milliwatts(eight)} mW on eight cores, {milliwatts(four)} mW on four",
        f"points {eight['point']} and {four['point']}",
        f"twice as many are {four['cycles'] / eight['cycles']:.2f} times as fast",
    ):
        assert said in words()
    assert lowest_clock(four) < 30 and lowest_clock(eight) < 16
    assert four["uj_low"] < eight["uj_high"]  # the bands overlap
    assert f"eight.toml --plan chips/plans/{eight['point']:04}.json" in TEXT


def milliwatts(row: Row) -> str:
    """The mean of a step every DEADLINE_MS."""
    return f"{row['uj_low'] / DEADLINE_MS:.1f}-{row['uj_high'] / DEADLINE_MS:.1f}"


def lowest_clock(row: Row) -> float:
    """In MHz."""
    return float(row["cycles"] / DEADLINE_MS / 1e3)


def test_what_decides_is_what_was_found() -> None:
    by_chip = {chip_of(row): row for row in KEPT["chips"]}
    small, large = (
        {chip[:2]: row["cycles"] for chip, row in by_chip.items() if chip[2] == size << 10} for size in (64, 128)
    )
    assert small[4, 2] == large[4, 2]
    saved = max(1 - large[chip] / small[chip] for chip in small)
    own = [1 - cycles[cores, cores] / cycles[cores, cores // 2] for cores, cycles in ((8, small), (4, small))]
    assert small[4, 4] < small[8, 2]
    for said in (
        f"Twice as much saves {saved:.1%} at most",
        f"8 cores take {own[0]:.0%} fewer cycles and 4 cores {own[1]:.0%}",
        f"A step needs {row_of(KEPT['chips'], 'eight.toml')['l2_bytes'] / 1024:.0f} KiB",
    ):
        assert said.replace("%", " %") in words()
    for chip, row in by_chip.items():
        spent = row["causes"]
        if chip[2] == 64 << 10:
            assert spent["dma_wait"] + spent["command"] < 0.05 * sum(spent.values())
        if chip in CHIPS.values():
            assert f"{spent['fpu_contention'] / sum(spent.values()):.0%}".replace("%", " %") in words()


def test_what_would_change_the_answer_does_not() -> None:
    assert all(row["meets"] for row in KEPT["variations"])
    worst = max(KEPT["variations"], key=lambda row: row["ms"])
    last = next(row for row in KEPT["variations"] if row["trained"] == "last:1")
    assert (worst["model"], worst["optimizer"], worst["platform"]) == ("ds_cnn", "adam", "four.toml")
    assert f"take {worst['ms']:.2f} ms on four cores" in words() and 99 < lowest_clock(worst) < 100
    assert last["platform"] == "eight.toml" and f"alone takes {last['ms']:.2f} ms on eight cores" in words()
    known = {row["platform"]: row["cycles"] for row in KEPT["clocks"]}
    assert all(known[chip] <= 1.015 * row_of(KEPT["chips"], chip)["cycles"] for chip in CHIPS)


def test_the_background_is_that_of_the_platform() -> None:
    power = Platform.preset("vega").power
    assert power is not None
    low, high = power.background_milliwatts
    said = (
        f"{low} to {high} mW, would take {low * DEADLINE_MS:.0f} to {high * DEADLINE_MS:.0f} µJ in {DEADLINE_MS:.0f} ms"
    )
    assert said in words()


def test_what_is_learned_is_what_the_page_on_learning_says() -> None:
    learning = (PAGE.parent / "learning.md").read_text(encoding="utf-8")
    table = learning.partition("## Unseen speaker: ds_cnn_paper\n")[2].partition("\n## ")[0]
    loaded, trained = (
        next(line for line in table.splitlines() if line.startswith(f"| {way} |  |"))
        for way in ("as loaded", "all layers")
    )
    assert "| 50.1 %" in loaded and "| 76.9 %" in trained and "| 960 |" in trained and "| 104,448 |" in trained
    assert "from 50.1 % right classes to 76.9 % with 960 steps" in words() and "102 KiB more" in words()
