"""Protects docs/validation.md: all rows are on it, and its header changes with its numbers only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import campaign, fidelity, reference
from benchmarks.__main__ import main


@pytest.fixture(scope="module")
def lines() -> list[fidelity.Line]:
    """Rows of dma.csv alone: quick, and in one process."""
    errors = reference.errors(reference.rows("dma"))
    return [fidelity.Line("dma", error.row, error, None, None) for error in errors]


@pytest.fixture(scope="module")
def second() -> campaign.Campaign:
    """Some of each kind of measurement."""
    kernels = [row for row in campaign.rows("library") if row["program"] == "cross_entropy_12"]
    return campaign.Campaign(
        [campaign.library_errors(row) for row in kernels],
        [campaign.step(name) for name in campaign.step_names() if name.startswith("tutorial_cnn")],
        [campaign.strided_error(row) for row in campaign.rows("dma_strided")],
        [campaign.beside_errors(scenario) for scenario in campaign.scenarios()[:2]],
    )


def test_the_page_names_every_row_once() -> None:
    text = fidelity.PAGE.read_text(encoding="utf-8")
    for table in reference.TABLES:
        rows = reference.rows(table, icache=True)
        for config in {row["config"] for row in rows}:
            count = sum(row["config"] == config for row in rows)
            section = text.partition(f"<summary>{table}, {config}: {count} rows</summary>")[2]
            printed = section.partition("</details>")[0].strip().splitlines()
            assert len(printed) == count + 2


def test_the_page_names_every_measurement_of_the_second_campaign() -> None:
    text = fidelity.PAGE.read_text(encoding="utf-8")
    counts = {"library kernels": 80, "transfers alone": 48, "transfers beside computing cores": 30}
    counts |= {f"phases of {step.name}": len(step.phases) for step in map(campaign.step, campaign.step_names()[-2:])}
    for title, count in counts.items():
        section = text.partition(f"<summary>{title}: {count} rows</summary>")[2]
        assert len(section.partition("</details>")[0].strip().splitlines()) == count + 2
    assert text.count("<summary>phases of ") == len(campaign.step_names()) == 8


def test_the_page_holds_the_numbers_of_this_version(lines: list[fidelity.Line], second: campaign.Campaign) -> None:
    """Of the DMA, two steps and a kernel; `python -m benchmarks fidelity --check` compares all, in CI."""
    text = fidelity.PAGE.read_text(encoding="utf-8")
    body = fidelity.body(lines, second).splitlines()
    known = ("| ub_dma_", "| 1d |", "| l1", "| l2", "| tutorial_cnn", "| cross_entropy", "| fc_fw_4x1+relu 64x128 b")
    printed = [line for line in body if line.startswith(known)]
    assert len(printed) == len(lines) + 48 + 2 + 4 + 2
    assert set(printed) <= set(text.splitlines())


def test_a_page_is_rewritten_for_other_numbers_only(lines: list[fidelity.Line], second: campaign.Campaign) -> None:
    body = fidelity.body(lines, second)
    old = f"# Validation\n\nmade long ago\n\n{body}"
    assert fidelity.page(body, old) == old
    other = fidelity.body(lines[1:], second)
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
    lines: list[fidelity.Line], second: campaign.Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "validation.md"
    monkeypatch.setattr(fidelity, "PAGE", page)
    monkeypatch.setattr(fidelity, "measure", lambda: lines)
    monkeypatch.setattr(campaign, "measure", lambda: second)

    def run(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["fidelity", *options])
        return result.exit_code, result.stdout

    assert run("--check")[0] == 1 and not page.exists()
    status, printed = run("--json")
    assert status == 0 and page.exists()
    document = json.loads(printed)
    assert len(document["rows"]) == len(lines)
    assert [len(document[name]) for name in ("library", "steps", "transfers_alone", "transfers_beside_cores")] == [
        4, 2, 48, 2,
    ]  # fmt: skip
    assert {group["group"] for group in document["groups"]} == {
        f"dma, {line.row['config']}" for line in lines
    }
    assert run("--check")[0] == 0
    text = page.read_text(encoding="utf-8").replace("ub_dma_loop_only", "ub_dma_loop")
    page.write_text(text, encoding="utf-8")
    assert run("--check")[0] == 1 and page.read_text(encoding="utf-8") == text
    assert "up to date" not in run()[1] and "up to date" in run()[1]
