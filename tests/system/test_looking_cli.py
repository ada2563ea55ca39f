"""Protects --profile, --what-if, --trace and --check: what they print and write, and a message for every slip."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from autotuner.cli import main as autotuner
from pulpsim.cli import main as pulpsim
from trainlib.cli import main as trainlib

#: y[i] = x[i] + x[i + 1] for the core's eight numbers: the last of all reads one that is not there
NEXT = """
next:
    slli t0, a6, 5
    add  a0, a0, t0
    add  a1, a1, t0
    li   t1, 8
    lp.setup x0, t1, 1f
    p.lw t2, 4(a0!)
    lw   t3, 0(a0)
    add  t2, t2, t3
1:  p.sw t2, 4(a1!)
    ret
"""
GIVEN = ["--reg", "a0=0x10000000", "--reg", "a1=0x10001000", "--reg", "a6=core", "--cores", "2"]
X, Y = ["--load", "x.npy@0x10000000"], ["--buffer", "y=0x10001000:64:out"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("next.S").write_text(NEXT)
    np.save("x.npy", np.arange(16, dtype=np.int32))


def call(main: click.Group, *arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def run(*arguments: str, status: int = 0) -> str:
    result = call(pulpsim, "run", "next.S", *GIVEN, *X, *arguments)
    assert result.exit_code == status, result.output
    return result.output


def as_json(*arguments: str, status: int = 0) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(run(*arguments, "--json", status=status))
    return record


def test_a_profile_adds_up_to_what_the_cores_counted() -> None:
    record = as_json("--profile", "--what-if")
    (program,) = record["profile"]["programs"]
    spent = sum(core["total"] - core["idle"] for core in record["cores"])
    assert sum(row["cycles"] for row in program["instructions"]) == record["profile"]["cycles"] == spent
    assert record["what_if"][0]["cycles"] == record["cycles"] == as_json()["cycles"]
    text = run("--profile", "--what-if")
    assert "p.lw t2, 4(a0!)" in text and "the hottest loops" in text and "no bank conflicts" in text


def test_files_for_flame_graphs() -> None:
    assert "open speedscope.json" in run("--out", "flames")
    spent = json.loads(Path("flames/profile.json").read_text())["cycles"]
    assert sum(int(line.rpartition(" ")[2]) for line in Path("flames/stacks.txt").read_text().splitlines()) == spent
    assert json.loads(Path("flames/speedscope.json").read_text())["profiles"][0]["endValue"] == spent


def test_a_trace_in_its_three_forms() -> None:
    lines = run("--trace", "--core", "1", "--to", "60").splitlines()
    assert lines[0].split()[:3] == ["cycle", "core", "pc"]
    rows = [line.split() for line in lines[1:] if re.match(r" +\d+ +\d+ 0x", line)]
    assert rows and all(row[1] == "1" and int(row[0]) < 60 for row in rows)
    for name, begins in (("t.txt", " "), ("t.vcd", "$comment"), ("t.json", '{"traceEvents"')):
        run("--trace-file", name)
        assert Path(name).read_text().startswith(begins)
    assert len(Path("t.txt").read_text().splitlines()) == as_json()["instructions"] + 1


def test_a_trace_of_a_run_that_traps_is_written() -> None:
    Path("trap.S").write_text("nop\nlw t0, 0(x0)\nret")
    result = call(pulpsim, "run", "trap.S", "--trace-file", "t.txt", "--trace", "--cores", "1", "--check")
    assert result.exit_code == 3 and " nop" in result.output and Path("t.txt").read_text().count("\n") == 2


def test_what_is_wrong_is_found_and_the_status_says_so() -> None:
    record = as_json("--check", *Y, status=1)
    assert [finding["kind"] for finding in record["findings"]] == ["outside", "unwritten"]
    assert record["findings"][0]["core"] == 1 and "0 bytes behind x" in record["findings"][0]["place"]
    text = run("--check", *Y, status=1)
    assert "found: core 1, cycle" in text and "check: 2 findings" in text and "lw x" in text
    np.save("x.npy", np.arange(17, dtype=np.int32))
    assert "check: nothing found" in run("--check", *Y)
    assert as_json("--check", *Y)["findings"] == []


def test_an_array_that_is_loaded_is_to_read_unless_it_is_given_otherwise() -> None:
    np.save("x.npy", np.arange(17, dtype=np.int32))
    place = [*GIVEN[:2], "--reg", "a1=0x10000000", *GIVEN[4:], *X, "--check"]
    result = call(pulpsim, "run", "next.S", *place)
    assert result.exit_code == 1 and "which it was given to read" in result.output
    result = call(pulpsim, "run", "next.S", *place, "--buffer", "both=0x10000000:68")
    assert "given to read" not in result.output  # but core 1 reads what core 0 has changed, or not yet
    assert result.exit_code == 1 and "no barrier between" in result.output


@pytest.mark.parametrize(
    "options, message",
    [
        (["--core", "1"], "--core: says what of a trace is shown: it needs --trace or --trace-file"),
        (["--from", "3"], "--from: says what of a trace is shown"),
        (["--to", "3"], "--to: says what of a trace is shown"),
        (["--trace", "--core", "2"], "--core 2: cores 0 to 1 run"),
        (["--trace", "--from", "9", "--to", "9"], "--from 9 --to 9: no cycle lies between"),
        (["--trace", "--json"], "--trace with --json: lines would stand before the document; --trace-file keeps"),
        (["--trace-file", "t.png"], "--trace-file t.png: its name must end in .txt, .vcd or .json"),
        (["--buffer", "y=0x10001000:64"], "--buffer y=0x10001000:64: is what --check holds accesses"),
        (["--check", "--buffer", "y"], "--buffer y: must be NAME=ADDR:BYTES[:in|out|inout], as in x=0x10000000"),
        (["--check", "--buffer", "y=here:64"], "--buffer y=here:64: address 'here': must be a number"),
        (["--check", "--buffer", "y=0x10001000:0"], "--buffer y=0x10001000:0: '0' bytes: must be a number from 1 up"),
        (["--check", "--buffer", "y=0x10001000:4:ou"], "'ou' (did you mean 'out'?): must be in, out, inout"),
        (["--check", "--buffer", "y=0x5:4"], "address 0x00000005 is outside L1"),
        (["--out", "next.S"], "--out next.S: is a file"),
    ],
)
def test_slips_get_one_message(options: list[str], message: str) -> None:
    result = call(pulpsim, "run", "next.S", *GIVEN, *X, *options)
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert not Path("t.txt").exists()


EPOCH = ["autoencoder", "--data", "few.npz", "--epochs", "1"]


def few(file: str) -> None:
    """Samples for the autoencoder."""
    np.savez(file, x=np.random.default_rng(0).standard_normal((10, 640)).astype(np.float32))


# -- networks ----------------------------------------------------------------------------------------
def test_a_step_to_the_instruction() -> None:
    result = call(trainlib, "profile", "tutorial_cnn", "--out", "flames", "--json")
    record = json.loads(result.output)
    assert record["instructions_cycles"] + sum(record["outside"].values()) == record["core_cycles"]
    assert record["core_cycles"] == record["cycles"] * record["cores"]
    assert record["what_if"][0]["cycles"] == record["cycles"] > record["what_if"][-1]["cycles"]
    stacks = Path("flames/stacks.txt").read_text().splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in stacks) == record["core_cycles"]
    assert any(line.startswith("tutorial_cnn;conv;fw;matmul;loop ") for line in stacks)
    some = call(trainlib, "profile", "tutorial_cnn", "--layer", "fc", "--step", "fw", "--no-what-if").output
    assert "fc fw, " in some and "p.lw xk, 4(px!)" in some and "conv" not in some


@pytest.mark.parametrize(
    "options, message",
    [
        (["--layer", "con"], "--layer con: no such layer (did you mean 'conv'?); there are conv, fc, loss"),
        (["--layer", "conv", "--step", "ig"], "--step ig: conv has fw, wg+update"),
        (["--step", "up"], "'up' is not one of"),
    ],
)
def test_slips_of_profiles(options: list[str], message: str) -> None:
    result = call(trainlib, "profile", "tutorial_cnn", *options)
    assert result.exit_code == 2 and message in result.output


def test_training_that_is_checked_and_profiled_is_the_same_training() -> None:
    plain, seen = (
        json.loads(call(trainlib, "train", "tutorial_cnn", "--steps", "5", *more, "--json").output)
        for more in ([], ["--check", "--profile"])
    )
    assert seen.pop("findings") == [] and seen.pop("profile")["counted"] > 0
    for record in (plain, seen):
        del record["made"]
    assert plain == seen
    few("few.npz")
    text = call(trainlib, "train", *EPOCH, "--check", "--out", "run", "--profile").output
    assert "check: nothing found" in text
    assert "The hottest loops" in Path("run/report.html").read_text()


def test_findings_are_the_status_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shipped networks have none: what is made of one."""
    from pulpsim.checker import Finding

    monkeypatch.setattr("trainlib.checked.check_step", lambda trainer: [Finding("order", "it depends", 4, "there")])
    few("few.npz")
    for arguments in (["tutorial_cnn", "--steps", "2"], EPOCH):
        result = call(trainlib, "train", *arguments, "--check")
        assert result.exit_code == 1 and "found: it depends\ncheck: 1 finding\n" in result.output
        result = call(trainlib, "train", *arguments, "--check", "--json")
        assert result.exit_code == 1 and json.loads(result.output)["findings"][0]["kind"] == "order"


def test_a_tuned_plan_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("autotuner.points.default_path", lambda: tmp_path / "points.sqlite")
    result = call(autotuner, "tune", "tutorial_cnn", "--candidates", "1", "--workers", "1", "--check")
    assert result.exit_code == 0 and "check: nothing found" in result.output
    result = call(autotuner, "tune", "--layer", "PW 8x5x5 8", "--check")
    assert result.exit_code == 2 and "--check: looks at the step of a whole network" in result.output
