"""Protects docs/validation.md: all rows are on it, and its header changes with its numbers only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import fidelity, reference
from benchmarks.__main__ import main


@pytest.fixture(scope="module")
def lines() -> list[fidelity.Line]:
    """Rows of dma.csv alone: quick, and in one process."""
    errors = reference.errors(reference.rows("dma"))
    return [fidelity.Line("dma", error.row, error, None, None) for error in errors]


def test_the_page_names_every_row_once() -> None:
    text = fidelity.PAGE.read_text(encoding="utf-8")
    for table in reference.TABLES:
        rows = reference.rows(table, icache=True)
        for config in {row["config"] for row in rows}:
            count = sum(row["config"] == config for row in rows)
            section = text.partition(f"<summary>{table}, {config}: {count} rows</summary>")[2]
            printed = section.partition("</details>")[0].strip().splitlines()
            assert len(printed) == count + 2


def test_the_page_holds_the_numbers_of_this_version(lines: list[fidelity.Line]) -> None:
    """Of the DMA; `python -m benchmarks fidelity --check` compares all, in CI."""
    text = fidelity.PAGE.read_text(encoding="utf-8")
    printed = [line for line in fidelity.body(lines).splitlines() if line.startswith("| ub_dma_")]
    assert len(printed) == len(lines)
    assert set(printed) <= set(text.splitlines())


def test_a_page_is_rewritten_for_other_numbers_only(lines: list[fidelity.Line]) -> None:
    body = fidelity.body(lines)
    old = f"# Validation\n\nmade long ago\n\n{body}"
    assert fidelity.page(body, old) == old
    other = fidelity.body(lines[1:])
    assert fidelity.page(other, old) == fidelity.page(other, None) != old
    assert "made long ago" not in fidelity.page(other, old)


def test_figures_leave_short_rows_out_of_the_shares() -> None:
    row = reference.rows("micro")[0]
    found = fidelity.figures([reference.Error(row, 2, 20), reference.Error(row, 1000, 990)])
    assert found is not None
    assert (found.rows, found.mean_cycles, found.worst_cycles) == (2, 14, 18)
    assert (found.mean_share, found.worst_share, found.inside_skews) == (0.01, -0.01, None)
    assert fidelity.figures([]) is None


def test_the_command_writes_checks_and_prints(
    lines: list[fidelity.Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "validation.md"
    monkeypatch.setattr(fidelity, "PAGE", page)
    monkeypatch.setattr(fidelity, "measure", lambda: lines)

    def run(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["fidelity", *options])
        return result.exit_code, result.stdout

    assert run("--check")[0] == 1 and not page.exists()
    status, printed = run("--json")
    assert status == 0 and page.exists()
    document = json.loads(printed)
    assert len(document["rows"]) == len(lines)
    assert {group["group"] for group in document["groups"]} == {
        f"dma, {line.row['config']}" for line in lines
    }
    assert run("--check")[0] == 0
    text = page.read_text(encoding="utf-8").replace("ub_dma_loop_only", "ub_dma_loop")
    page.write_text(text, encoding="utf-8")
    assert run("--check")[0] == 1 and page.read_text(encoding="utf-8") == text
    assert "up to date" not in run()[1] and "up to date" in run()[1]
