"""Protects the command `trainlib`: its JSON, tables and files, and one clear message for every slip."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from pulpsim.platform import Platform
from tests.system.commands import environment
from trainlib import models
from trainlib.cli import main
from trainlib.data import load_features
from trainlib.lowering.schedule import _Emitter
from trainlib.plan import Plan
from trainlib.tiling import default_plan
from trainlib.trainer import Trainer

KEYS = {
    "model", "platform", "clock_hz", "cores", "cycles", "milliseconds", "macs", "macs_per_cycle",
    "lower_bound_cycles", "issue_bound_cycles", "dma_bytes_in", "dma_bytes_out", "l1_bytes", "l2_bytes", "causes",
    "trained", "microjoules", "microjoules_by_part", "phases", "data", "steps", "lr", "held_out_loss", "loss", "plan",
    "run", "notes", "schema", "plan_values", "platform_values", "made", "memory", "activity",
}  # fmt: skip
PHASE_KEYS = {
    "layer", "step", "cycles", "macs", "dma_bytes_in", "dma_bytes_out", "kernel", "tile", "buffering", "instructions",
    "microjoules", "bound", "bound_cycles", "bounds", "causes", "causes_by_core",
}  # fmt: skip


WRITTEN = ["plan.json", "report.html", "report.json", "timeline.json"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder of its own, with a few samples in small.npz: a full run takes seconds."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez("small.npz", x=rng.standard_normal((10, 640)).astype(np.float32))
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", *arguments])


def good(*arguments: str) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def trained(*arguments: str) -> dict[str, Any]:
    """The JSON of a short run."""
    found: dict[str, Any] = json.loads(
        good("autoencoder", "--json", "--data", "small.npz", "--steps", "2", *arguments)
    )
    return found


def refused(*arguments: str) -> str:
    """The one message with which a run is refused; nothing is printed or written besides."""
    before = sorted(os.listdir())
    result = call(*arguments)
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    assert isinstance(result.exception, SystemExit) and result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("trainlib: "), result.stderr
    assert sorted(os.listdir()) == before
    return lines[0].removeprefix("trainlib: ")


# -- what it prints --------------------------------------------------------------------------------
def test_json_has_every_key_of_the_contract() -> None:
    found = trained()
    assert set(found) == KEYS
    assert (found["model"], found["platform"], found["macs"], found["data"]) == (
        "autoencoder", "pulp-2022", 710_656, "small",
    )  # fmt: skip
    assert found["milliseconds"] == pytest.approx(found["cycles"] / 450_000)
    assert found["macs_per_cycle"] == pytest.approx(found["macs"] / found["cycles"])
    assert found["lower_bound_cycles"] <= found["issue_bound_cycles"] <= found["cycles"]
    assert len(found["phases"]) == 21
    for phase in found["phases"]:
        assert set(phase) == PHASE_KEYS
        assert phase["tile"].keys() == ({"rows", "columns"} if phase["step"] != "mse" else set())
    for name in ("cycles", "macs", "dma_bytes_in", "dma_bytes_out"):
        assert sum(phase[name] for phase in found["phases"]) == found[name]


def test_tables_name_bounds_causes_and_what_was_learned() -> None:
    text = good("autoencoder", "--data", "small.npz", "--steps", "2", "-v")
    first = text.splitlines()[0]
    assert first.startswith("autoencoder on pulp-2022: one training step = ") and "cycles" in first
    assert "MAC/cycle" in first and "at 450 MHz" in first
    for expected in (
        "lower bound", "this plan's own", "bound by", "DMA in", "issue", "where the cycles went", "dma wait",
        "bank conflict", "every cycle of every core is counted once", "fc_ig+wg+update_1x8", "fc9",
        "learning: 2 on-line steps (lr 0.03) on small: mean loss on 2 held-out samples",
    ):  # fmt: skip
        assert expected in text, expected


def test_without_options_it_trains_on_the_shipped_set_and_learns() -> None:
    found = json.loads(good("autoencoder", "--json"))
    assert found["data"] == "engines" and found["steps"] == len(found["loss"]) == 200
    before, after = found["held_out_loss"]
    assert after <= 0.7 * before


def test_the_losses_are_those_of_the_trainer() -> None:
    found, features = trained("--steps", "3", "--lr", "0.01"), load_features("small.npz")
    assert found["lr"] == 0.01
    trainer, order = Trainer(models.get("autoencoder"), lr=0.01), np.random.default_rng(0).permutation(8)
    xs = features.standardise(features.train)[order[:3]]
    assert found["loss"] == [trainer.functional_step(x) for x in xs]


@pytest.mark.parametrize("steps", [1, 2, 11])
def test_as_many_losses_as_steps_also_beyond_the_samples(steps: int) -> None:
    found = trained("--steps", str(steps))
    assert found["steps"] == len(found["loss"]) == steps


def test_samples_without_spread_are_learned_from_too() -> None:
    np.savez("flat.npz", x=np.ones((10, 640), np.float32))
    text = good("autoencoder", "--data", "flat.npz", "--steps", "2")
    assert "held-out samples 0.0000 -> 0.0000\n" in text


# -- platforms -------------------------------------------------------------------------------------
def test_what_the_platform_lacks_costs_cycles() -> None:
    base = trained()["cycles"]
    assert trained("--set", "dma.bytes_per_cycle=4")["cycles"] > 1.5 * base
    assert trained("--set", "cluster.cores=2")["cycles"] > 2 * base
    assert trained("--set", "l1.conflicts=false")["cycles"] < base
    assert trained("--set", "controller.fork_cycles=1000")["cycles"] > base
    shared = trained("--platform", "pulp-open")
    assert shared["cycles"] > base and shared["platform"] == "pulp-open"


def test_a_platform_can_be_a_file() -> None:
    Path("mine.toml").write_text('base = "pulp-2022"\nname = "mine"\n[dma]\nbytes_per_cycle = 16\n')
    found = trained("--platform", "mine.toml")
    assert found["platform"] == "mine" and found["cycles"] < trained()["cycles"]


def test_a_slower_clock_changes_milliseconds_only() -> None:
    slow, base = trained("--set", "clock_hz=1000000"), trained()
    assert slow["cycles"] == base["cycles"] and slow["milliseconds"] == base["cycles"] / 1000


# -- files -----------------------------------------------------------------------------------------
def test_out_writes_what_was_printed_and_a_plan_that_runs_the_same() -> None:
    found = trained("--out", "new/result")
    assert sorted(os.listdir("new/result")) == WRITTEN
    assert json.loads(Path("new/result/report.json").read_text()) == found
    Plan.load("new/result/plan.json").check(models.get("autoencoder"))
    assert found["plan"] == "tuned (autotuner tune autoencoder --platform pulp-2022 --set l1.size_bytes=63K)"
    again = trained("--plan", "new/result/plan.json")
    assert again["made"]["content"] == found["made"]["content"]
    assert again | {"made": None} == found | {"made": None, "plan": "new/result/plan.json"}


def test_out_may_be_there_already_and_is_named_at_the_end() -> None:
    for _ in range(2):
        text = good("autoencoder", "--data", "small.npz", "--steps", "1", "--out", ".")
        assert text.splitlines()[-1].startswith(f"written to .: {', '.join(WRITTEN[i] for i in (2, 0, 3, 1))}")
    assert sorted(os.listdir()) == sorted([*WRITTEN, "small.npz"])


def test_a_plan_of_ones_own_is_run() -> None:
    trained("--out", ".")
    raw = json.loads(Path("plan.json").read_text())
    for step in raw["steps"]:
        step["buffering"] = "single"
    Path("single.json").write_text(json.dumps(raw))
    found, base = trained("--plan", "single.json"), json.loads(Path("report.json").read_text())
    assert found["cycles"] > base["cycles"] and found["loss"] == base["loss"]
    assert {phase["buffering"] for phase in found["phases"]} == {"single"}


# -- slips -----------------------------------------------------------------------------------------
ACCEPTED = "accepted is an .npz archive with an array 'x' of shape [rows, width]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["autoencodr"], "no model 'autoencodr' (did you mean 'autoencoder'?); models: autoencoder"),
        (["autoencoder", "--steps", "0"], "--steps 0: must be at least 1"),
        (["autoencoder", "--steps", "-1"], "--steps -1: must be at least 1"),
        (["autoencoder", "--lr", "0"], "--lr 0.0: must be a positive number, one that FP32 holds"),
        (["autoencoder", "--lr", "-0.1"], "--lr -0.1: must be a positive number, one that FP32 holds"),
        (["autoencoder", "--lr", "nan"], "--lr nan: must be a positive number, one that FP32 holds"),
        (["autoencoder", "--lr", "1e39"], "--lr 1e+39: must be a positive number, one that FP32 holds"),
        (["autoencoder", "--lr", "1e-60"], "--lr 1e-60: must be a positive number, one that FP32 holds"),
        (["autoencoder", "--set", "l1.bank=8"], "--set: unknown key 'l1.bank' (did you mean 'l1.banks'?)"),
        (
            ["autoencoder", "--set", "l1.banks=12"],
            "pulp-2022: l1.banks = 12: must be a power of two, at most 256 (8 or 16?)",
        ),
        (
            ["autoencoder", "--platform", "pulp-2023"],
            "no platform 'pulp-2023' (did you mean 'pulp-2022'?); presets: ",
        ),
        (["autoencoder", "--data", "smal.npz"], f"smal.npz: no such file (did you mean 'small.npz'?): {ACCEPTED}"),
        (["autoencoder", "--plan", "none.json"], "cannot read plan none.json: No such file or directory"),
        (["autoencoder", "--plan", ""], "cannot read plan : Is a directory"),
        (
            ["autoencoder", "--set", "l1.size_bytes=8256"],
            "autoencoder does not fit L1 of pulp-2022: with the smallest tiles, single-buffered, its step needs ",
        ),
        (["autoencoder", "--set", "l2.size_bytes=1000000"], "L2 is too small: a training step needs 1,068,832 bytes"),
        (
            ["autoencoder", "--out", "small.npz"],
            "--out small.npz: is a file; it must be a directory, new or not",
        ),
        (
            ["autoencoder", "--data", "small.npz", "--steps", "1", "--out", "small.npz/below"],
            "--out small.npz/below: Not a directory",
        ),
        (["autoencoder", "--out", ""], "--out '': must be a directory, new or not; . is the one you are in"),
        (["autoencoder", "--out", "new", "--plan", "none.json"], "cannot read plan none.json"),
    ],
)
def test_a_slip_gets_one_message(arguments: list[str], message: str) -> None:
    assert refused(*arguments).startswith(message)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.full((4, 640), np.nan, np.float32),
            "bad.npz: x has 2,560 values that are not finite (NaN or infinity), the first at row 0, column 0 "
            "(nan): all must be finite numbers",
        ),
        (np.zeros((4, 639), np.float32), "bad.npz: x has 639 columns; autoencoder takes 640 inputs"),
        (
            np.zeros(640, np.float32),
            "bad.npz: x has the shape [640]: must have two dimensions, [rows, width]",
        ),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused(x: np.ndarray, message: str) -> None:
    np.savez("bad.npz", x=x)
    assert refused("autoencoder", "--data", "bad.npz") == message


def test_a_file_that_is_no_archive_is_refused() -> None:
    Path("bad.npz").write_text("x = 1\n")
    assert refused("autoencoder", "--data", "bad.npz").startswith("bad.npz: is not an .npz archive: ")


def test_plans_that_cannot_be_used_are_refused() -> None:
    trained("--out", ".")
    raw = json.loads(Path("plan.json").read_text())
    Path("bad.json").write_text("tiles: 4\n")
    assert refused("autoencoder", "--plan", "bad.json").startswith("bad.json: not a plan: JSON is malformed")
    Path("bad.json").write_text(json.dumps(raw | {"model": "ds_cnn"}))
    assert refused("autoencoder", "--plan", "bad.json") == "plan for model 'ds_cnn', not for 'autoencoder'"
    Path("bad.json").write_text(json.dumps(raw | {"steps": raw["steps"][:-1]}))
    assert refused("autoencoder", "--plan", "bad.json") == (
        "plan: backward steps of fc0: none: must be wg+update or wg, update"
    )
    raw["steps"][3]["layer"] = "fcc3"
    Path("bad.json").write_text(json.dumps(raw))
    assert refused("autoencoder", "--plan", "bad.json").startswith(
        "plan, step 3 (fcc3 fw): no layer 'fcc3' in autoencoder (did you mean 'fc3'?)"
    )


def test_a_plan_for_a_larger_l1_is_refused_with_what_it_needs() -> None:
    large = Platform.preset("pulp-2022", {"l1.size_bytes": 128 << 10})
    Path("plan.json").write_text(default_plan(models.get("autoencoder"), large).to_json())
    text = refused("autoencoder", "--plan", "plan.json")
    assert text.startswith("the plan needs ") and "57,344 are available beside the stacks on pulp-2022" in text
    assert text.endswith("smaller tiles, single buffering or awaited stores need less")


def test_training_that_diverges_says_so() -> None:
    text = refused("autoencoder", "--data", "small.npz", "--lr", "5", "--steps", "9")
    assert re.match(r"training diverged: step \d left [\d,]+ of [\d,]+ numbers of w of fc\d that are not finite;", text)
    assert text.endswith("; try an --lr below 5")


def test_a_loss_that_is_no_number_is_divergence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all parameters are still finite."""
    monkeypatch.setattr(Trainer, "functional_step", lambda *_: float("inf"))
    text = refused("autoencoder", "--data", "small.npz", "--steps", "3")
    assert text == "training diverged: the loss of step 1 is no finite number; try an --lr below 0.03"


@pytest.mark.parametrize(
    "arguments", [["autoencoder", "--lr", "fast"], ["autoencoder", "--steps", "2.5"], [], ["autoencoder", "--sett"]]
)
def test_what_the_command_line_cannot_parse_is_refused_with_its_usage(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2 and "Usage: " in result.stderr and "Error: " in result.stderr


# -- plans -----------------------------------------------------------------------------------------
def test_plan_verifies_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["plan", "tutorial_cnn", "--verify"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0 and re.search(r"\nno hazard in \d+ operations\n$", result.stdout), result.output
    monkeypatch.setattr(_Emitter, "_wait", lambda self, inward, outward: None)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert re.search(
        r"\n\d+ hazards in \d+ operations\n(operation \d+ \(\w+ \S+\), [^:]+: [^:]+: [^:]+ at 0x\w+\n)+$", result.stdout
    )
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 1 and len(json.loads(result.stdout)["hazards"]) > 1


def test_plan_says_how_long_tensors_live() -> None:
    result = CliRunner().invoke(main, ["plan", "tutorial_cnn"])
    assert result.exit_code == 0 and re.search(r"\nmost at once: [\d,]+ bytes, the code among them, in ", result.stdout)
    found = json.loads(CliRunner().invoke(main, ["plan", "tutorial_cnn", "--json"]).stdout)
    assert "hazards" not in found
    places = {tensor["tensor"]: (tensor["first_phase"], tensor["last_phase"]) for tensor in found["l2"]}
    assert places["sample"] == (None, None)
    first, last = (found["phases"][phase] for phase in places[f"{found['phases'][0]['layer']}.y"])
    assert first == found["phases"][0] and last != first


# -- as a process ----------------------------------------------------------------------------------
def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as users start it, whether the packages are installed or not."""
    return subprocess.run(
        [sys.executable, "-m", "trainlib", *arguments],
        env=environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_a_process_prints_json_alone_and_ends_with_zero() -> None:
    run = process("train", "autoencoder", "--json", "--data", "small.npz", "--steps", "1")
    assert run.returncode == 0 and run.stderr == ""
    assert set(json.loads(run.stdout)) == KEYS


def test_a_process_refuses_with_status_two_and_no_traceback() -> None:
    run = process("train", "autoencodr")
    assert (run.returncode, run.stdout) == (2, "")
    known = "autoencoder, ds_cnn, ds_cnn_paper, lenet5, mobilenet_v1, resnet8, tutorial_cnn"
    files = ".toml, .json, .onnx, .pt2, .py"
    assert run.stderr == (
        f"trainlib: no model 'autoencodr' (did you mean 'autoencoder'?); models: {known}; files: {files}\n"
    )


def test_a_process_in_a_pipe_says_what_it_does_if_it_is_asked() -> None:
    """Also while it compiles, if that takes long. Four lines of it are enough."""
    command = ["train", "autoencoder", "--json", "-v", "--data", "small.npz", "--steps", "3"]
    child = subprocess.Popen(
        [sys.executable, "-m", "trainlib", *command],
        env=environment(PULPSIM_CACHE_DIR="cold"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        assert child.stderr is not None
        lines = [child.stderr.readline() for _ in range(4)]
        child.kill()
    assert lines[0].startswith("plan: tuned") and re.fullmatch(r"planning a training step of .+: \d+.\d s\n", lines[1])
    assert lines[2] == "compiled code: none yet in cold/jit\n"
    hint = "(the first run of a version compiles, for about ten seconds)"
    assert lines[3].startswith((f"training {hint}, ", "training: 2 steps in "))
