"""Protects the command `autotuner explore`: its table, files and JSON, Ctrl-C, and one clear message for every slip."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autotuner.cli import main
from autotuner.points import default_path
from pulpsim.jit import CACHE_VARIABLE, cache_directory
from tests.system.commands import environment
from trainlib.layers import FullyConnected
from trainlib.model import Model
from trainlib.models.description import as_toml
from trainlib.plan import Plan

TINY = Model("tiny", (FullyConnected("a", 24, 16), FullyConnected("b", 16, 4, relu=False)))
SPEC = """
where = ["ms <= 1"]
[axes]
model = "tiny.toml"
l2.size_bytes = "256K"
cluster.cores = [1, 2]
l1.size_bytes = ["8K", "16K"]
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Without points, but with the compiled code there is."""
    folder = tmp_path_factory.mktemp("explore")
    (cache_directory() / "jit").mkdir(parents=True, exist_ok=True)
    (folder / "jit").symlink_to((cache_directory() / "jit").resolve(), target_is_directory=True)
    return str(folder)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder of its own, with a spec, and the points of those before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, cache)
    Path("tiny.toml").write_text(as_toml(TINY))
    Path("spec.toml").write_text(SPEC)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["explore", *arguments])


def test_it_prints_a_row_a_point_and_the_fronts() -> None:
    done = run("spec.toml", "--workers", "1")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.split()[:1] and line.split()[0].isdecimal()] == list("1234")
    assert "model tiny.toml, l2.size_bytes" in lines[0]
    assert any(line.startswith("front 2, ms against l1_bytes: ") for line in lines)
    assert "front 1, ms against uj_high: no point has both" in done.stdout  # without power figures


def test_files_json_and_a_replay_say_the_same() -> None:
    assert run("spec.toml", "--workers", "1", "--out", "out").exit_code == 0
    printed = json.loads(run("spec.toml", "--workers", "1", "--replay", "--json").stdout)
    assert printed == json.loads(Path("out/points.json").read_text())
    assert printed["complete"] and printed["budget"] == "transfer"
    with open("out/points.csv", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    assert [float(row["cycles"]) for row in rows] == [row["cycles"] for row in printed["points"]]
    assert "<title>Exploration</title>" in Path("out/explore.html").read_text()
    plans = sorted(path.name for path in Path("out/plans").iterdir())
    assert plans == ["0001.json", "0002.json", "0003.json", "0004.json"]
    Plan.load("out/plans/0004.json").check(TINY)


def test_ctrl_c_shows_what_is_done_and_the_next_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many points, most are not reached."""
    many = SPEC.replace('["8K", "16K"]', '{from = "8K", to = "64K", step = "512"}').replace("[1, 2]", "[1, 2, 3, 4]")
    Path("spec.toml").write_text(many)
    code = "import sys; from autotuner.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "explore", "spec.toml", "--workers", "2", "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )
    known = results()
    while results() < known + 3 and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "interrupted: these are the points so far" in err
    printed = json.loads(out)
    reached = [row["point"] for row in printed["points"] if row["remark"] != "not reached"]
    assert not printed["complete"] and 3 <= len(reached) < len(printed["points"])
    done = run("spec.toml", "--workers", "1", "--replay")
    assert done.exit_code == 2
    of = len(printed["points"])
    assert f"{of - len(reached)} of {of} points were not measured" in done.stderr


def results() -> int:
    """That are kept."""
    import sqlite3
    from contextlib import closing

    if not default_path().is_file():
        return 0
    with closing(sqlite3.connect(default_path())) as database:
        return int(database.execute("SELECT count(*) FROM results").fetchone()[0])


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        (SPEC, ["--workers", "0"], "workers = 0: must be a whole number, 1 to 1,024"),
        (SPEC.replace("cores", "core"), [], "spec.toml: axes: no axis 'cluster.core' (did you mean 'cluster.cores'?)"),
        (SPEC.replace("tiny.toml", "tin"), [], "none of 4 points can be; the first one: no model 'tin'"),
        ("[axes", [], "cannot read spec.toml"),
        (SPEC, ["--resume", "--replay"], "--resume measures what is missing, --replay nothing: give one of them"),
        (SPEC.replace('"8K"', '"9K"'), ["--replay"], "points were not measured by this version"),
    ],
)
def test_slips_are_told_in_one_line(spec: str, arguments: list[str], message: str) -> None:
    Path("spec.toml").write_text(spec)
    done = run("spec.toml", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
