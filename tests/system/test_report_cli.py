"""Protects `trainlib report`: pages from records alone, comparisons, one clear message for what is no record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from benchmarks.record_page import texts
from tests.trainlib.pages import Page
from trainlib.cli import main
from trainlib.page.record import Record, decode


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one network on two platforms, in `one` and `two`."""
    folder = tmp_path_factory.mktemp("runs")
    x = np.random.default_rng(0).standard_normal((10, 640)).astype(np.float32)
    np.savez(folder / "few.npz", x=x)
    for name, platform in (("one", "pulp-2022"), ("two", "vega")):
        more = ("--data", str(folder / "few.npz"), "--steps", "2", "--set", "l2.access_cycles=20")
        result = call("train", "autoencoder", "--platform", platform, *more, "--out", str(folder / name))
        assert result.exit_code == 0, result.output
    return folder


def record_of(run: Path) -> Record:
    return decode((run / "report.json").read_bytes(), "report.json")


def test_a_page_is_made_anew_from_the_record_alone(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_bytes((runs / "one" / "report.json").read_bytes())
    for given in (str(file), str(tmp_path)):
        result = call("report", given)
        assert (result.exit_code, result.output) == (0, f"written to {tmp_path / 'report.html'}\n")
        assert (tmp_path / "report.html").read_bytes() == (runs / "one" / "report.html").read_bytes()
        (tmp_path / "report.html").unlink()


def test_the_record_says_how_it_was_made(runs: Path) -> None:
    record = record_of(runs / "two")
    assert record.made is not None and record.platform_values is not None and record.plan_values is not None
    assert record.made.command.startswith("trainlib train autoencoder --platform vega --data ")
    assert set(record.made.versions) == {"pulpsim", "Python", "NumPy", "Numba"} and len(record.made.content) == 64
    sources = {value.key: value.source for value in record.platform_values}
    assert sources["l2.access_cycles"] == "set on the command line"
    assert sources["cluster.fpus"].startswith("assumed: four")
    assert record.number("l1.size_bytes") == 128 << 10 and {step.layer for step in record.plan_values.steps}
    shown = Page((runs / "two" / "report.html").read_text(encoding="utf-8")).texts
    assert record.made.command in shown and record.made.content in shown and sources["cluster.fpus"] in shown


def test_two_runs_are_compared(runs: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "both.html")
    result = call("report", str(runs / "one"), str(runs / "two"), "--out", out)
    assert result.exit_code == 0, result.output
    first, second = record_of(runs / "one"), record_of(runs / "two")
    over = second.cycles - first.cycles
    assert result.stdout.startswith(f"{first.cycles:,} to {second.cycles:,} cycles (")
    assert "cluster.fpus" in result.stdout and result.stdout.endswith(f"written to {out}\n")
    found: dict[str, Any] = json.loads(call("report", str(runs / "one"), str(runs / "two"), "--json").stdout)
    assert found["page"] == str(runs / "two" / "comparison.html") and not found["same"]
    assert Path(found["page"]).read_bytes() == Path(out).read_bytes()
    assert sum(row["change"] for row in found["steps"]) == over and found["cannot"] == [
        "energy: only vega has power figures"
    ]
    same = call("report", str(runs / "one"), str(runs / "one"), "--out", out).stdout
    assert same == (
        "Nothing changed: both runs take the same cycles in every step, by the same causes.\n"
        f"written to {out}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none",), "none: there is no such file: must be a folder that `trainlib train --out` has written, or "),
        (("empty",), "empty: there is no report.json: must be a folder that `trainlib train --out` has written"),
        (("cut.json",), "cut.json: not a whole record: Input data was truncated"),
        (("later.json",), "later.json: its schema is 'trainlib.report/2': this version of trainlib reads "),
        (("plan.json",), "plan.json: not the record of a run: Expected `int | null`, got `array`"),
        (("good.json", "plan.json"), "plan.json: not the record of a run: Expected `int | null`, got `array`"),
        (("good.json", "--out", "page"), "--out page: must be a file whose name ends in .html, in a folder "),
        (("good.json", "--out", "no/a.html"), "--out no/a.html: must be a file whose name ends in .html"),
        (("a", "b", "c"), "a b c: 3 runs: one is shown, two are compared"),
    ],
)
def test_slips_get_one_message(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = (runs / "one" / "report.json").read_bytes()
    Path("empty").mkdir()
    Path("good.json").write_bytes(whole)
    Path("cut.json").write_bytes(whole[:5000])
    Path("later.json").write_bytes(whole.replace(b"trainlib.report/1", b"trainlib.report/2"))
    Path("plan.json").write_bytes((runs / "one" / "plan.json").read_bytes())
    result = call("report", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"trainlib: {message}") and result.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.html"))


def test_the_reference_of_the_record_is_up_to_date() -> None:
    stale = [path.name for path, text in texts().items() if path.read_text(encoding="utf-8") != text]
    assert not stale, "run `python -m benchmarks record`"


def test_the_reference_knows_every_key_of_a_record(runs: Path) -> None:
    record = json.loads((runs / "two" / "report.json").read_text())
    known = Record.__struct_fields__
    assert record.keys() <= set(known), record.keys() - set(known)
    phase = record["phases"][0]
    assert phase.keys() <= set(type(record_of(runs / "two").phases[0]).__struct_fields__)
