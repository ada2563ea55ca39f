"""Protects the command `autotuner`: its tables, JSON and files, Ctrl-C, and one clear message for every slip."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autotuner.cli import main
from autotuner.points import default_path
from pulpsim.jit import CACHE_VARIABLE, cache_directory
from pulpsim.platform import Platform
from tests.system.commands import environment
from trainlib import models
from trainlib.layers import DepthWise, FullyConnected
from trainlib.model import Model
from trainlib.plan import Plan
from trainlib.tiling import default_plan
from trainlib.trainer import Trainer

SMALL = Model(
    "small", (DepthWise("dw", 2, kernel=2), FullyConnected("fc", 16, 3, relu=False)), input_shape=(2, 3, 5)
)  # fmt: skip
LAYER = "PW 2x3x3 2"
STEPS = ["fw", "ig", "update", "wg", "wg+update"]
OUTCOME_KEYS = {
    "type", "step", "cycles", "first_cycles", "bound", "space", "simulated", "reused", "pruned", "too_large",
    "proven",
}  # fmt: skip


def cache_in(folder: Path) -> str:
    """A cache without points, but with the compiled code there is."""
    compiled = cache_directory() / "jit"
    compiled.mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    (folder / "jit").symlink_to(compiled.resolve(), target_is_directory=True)
    return str(folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return cache_in(tmp_path_factory.mktemp("autotuner") / "cache")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test in a folder of its own, with the points of those before, and a model that is quickly searched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, cache)
    monkeypatch.setitem(models.MODELS, "small", lambda: SMALL)
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def good(*arguments: str) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.stderr == ""
    return result.stdout


def tuned(*arguments: str) -> dict[str, Any]:
    """The JSON of a search in this process."""
    found: dict[str, Any] = json.loads(good("tune", "--workers", "1", "--json", *arguments))
    return found


def refused(*arguments: str) -> str:
    """The one message with which a command is refused; nothing is printed, written or searched."""
    before, points = sorted(os.listdir()), default_path().exists()
    result = call(*arguments)
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    assert isinstance(result.exception, SystemExit) and result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("autotuner: "), result.stderr
    assert (sorted(os.listdir()), default_path().exists()) == (before, points)
    return lines[0].removeprefix("autotuner: ")


def test_help_names_every_command_and_option() -> None:
    assert all(name in good("--help") for name in ("export", "tune"))
    text = good("tune", "--help")
    for option in "layer platform set steps published from workers out json".split():
        assert f"--{option} " in text
    assert good("tune", "-h") == text and "--format" in good("export", "--help")


# -- a layer ---------------------------------------------------------------------------------------
def test_a_layer_is_tuned_step_by_step() -> None:
    found = tuned("--layer", LAYER)
    assert set(found) == {"layer", "platform", "complete", "steps"}
    assert (found["layer"], found["platform"], found["complete"]) == (LAYER, "pulp-2022", True)
    assert list(found["steps"]) == STEPS
    for name, one in found["steps"].items():
        assert set(one) == OUTCOME_KEYS
        assert (one["type"], one["step"]["layer"], one["step"]["step"]) == ("found", "layer", name)
        assert len(one["cycles"]) == 4 and 0 < one["bound"] <= min(one["cycles"])
    lines = good("tune", "--workers", "1", "--layer", LAYER).splitlines()
    assert lines[0].strip() == f"{LAYER} on pulp-2022"
    for name, one in found["steps"].items():
        (line,) = (line for line in lines if line.startswith(f"│ {name} "))
        assert f" {sum(one['cycles']) / 4:,.0f} │" in line and one["step"]["kernel"] in line


@pytest.mark.parametrize("steps", ["fw,wg", " wg , fw"])
def test_steps_restrict_the_search(steps: str) -> None:
    assert list(tuned("--layer", LAYER, "--steps", steps)["steps"]) == ["fw", "wg", "wg+update"]


def test_the_platform_counts() -> None:
    slow = tuned("--layer", LAYER, "--steps", "fw", "--set", "dma.bytes_per_cycle=4", "--platform", "pulp-open")
    assert slow["platform"] == "pulp-open"
    assert slow["steps"]["fw"]["bound"] > tuned("--layer", LAYER, "--steps", "fw")["steps"]["fw"]["bound"]


def test_an_infeasible_layer_says_what_it_needs() -> None:
    arguments = "--steps", "fw", "--layer", "LINEAR 20 2", "--set", "l1.size_bytes=8224", "--set", "l1.banks=8"
    lines = good("tune", "--workers", "1", *arguments).splitlines()
    assert any(line.startswith("│ fw ") and " infeasible " in line for line in lines)
    assert lines[-1] == (
        "layer fw needs 48 bytes of L1 with its smallest tile, 32 are available beside the stacks "
        "(l1.size_bytes = 8,224)"
    )
    (one,) = tuned(*arguments)["steps"].values()
    assert (one["type"], one["needed_bytes"]) == ("infeasible", 48)


def test_layers_wider_than_l1_are_tuned_with_vectors_from_l2() -> None:
    (one,) = tuned("--steps", "fw", "--layer", "LINEAR 20000 2", "--candidates", "4")["steps"].values()
    assert one["type"] == "found"


def test_a_layer_that_cannot_fit_l2_is_refused_at_once() -> None:
    text = refused("tune", "--layer", "LINEAR 999999999 2")
    assert text.startswith("L2 is too small: a training step needs ") and "is layer.w, 2 x 999,999,999 numbers" in text


def test_a_layer_has_no_plan_to_write() -> None:
    found = tuned("--layer", LAYER, "--steps", "fw", "--out", "new/folder")
    assert os.listdir("new/folder") == ["tuning.json"]
    assert json.loads(Path("new/folder/tuning.json").read_text()) == found


# -- a model ---------------------------------------------------------------------------------------
def test_a_model_gets_a_plan_that_trains_in_the_cycles_it_says() -> None:
    found = tuned("small", "--out", "out")
    assert set(found) == {
        "model", "platform", "cycles", "default_cycles", "complete", "simulated", "reused", "steps", "plan",
    }  # fmt: skip
    assert (found["model"], found["platform"], found["complete"]) == ("small", "pulp-2022", True)
    assert found["cycles"] < found["default_cycles"]
    assert {"dw fw", "fc ig+wg+update"} <= set(found["steps"])
    assert json.loads(Path("out/tuning.json").read_text()) == found
    plan = Plan.load("out/plan.json")
    assert json.loads(plan.to_json()) == found["plan"] and plan.made_by == "autotuner tune small --platform pulp-2022"
    report = Trainer(SMALL, Platform.preset("pulp-2022"), plan).timed_step([1.0] * 30, [1.0] * 3)
    assert report.cycles == pytest.approx(found["cycles"], rel=0.1)

    text = " ".join(good("tune", "small", "--workers", "1", "--out", "out").split())
    assert f"whole step: {found['cycles']:,.0f} cycles, {found['default_cycles']:,.0f} by the default plan (-" in text
    assert f"0 whole steps simulated, {found['simulated'] + found['reused']:,} reused" in text
    assert "written to out: tuning.json, plan.json (trainlib train small --plan out/plan.json)" in text


def test_a_plan_to_beat_is_beaten() -> None:
    best = tuned("small", "--out", "out")
    again = tuned("small", "--steps", "update", "--from", "out/plan.json")
    assert again["cycles"] <= best["cycles"] < tuned("small", "--steps", "update")["cycles"]


def test_a_plan_names_the_command_that_made_it() -> None:
    plan = tuned("small", "--steps", "update", "--set", "l1.size_bytes=63K")["plan"]
    assert plan["made_by"] == "autotuner tune small --platform pulp-2022 --set l1.size_bytes=63K --steps update"


def test_a_model_that_does_not_run_is_refused_with_the_reason() -> None:
    result = call("tune", "small", "--workers", "1", "--out", "out", "--set", "cluster.fp_registers=separate")
    assert result.exit_code == 2
    assert result.stdout.count("cannot run on pulp-2022") == 10
    message = result.stderr
    assert message.startswith("autotuner: no plan for small: ") and message.count("\n") == 1
    assert os.listdir("out") == ["tuning.json"]
    assert json.loads(Path("out/tuning.json").read_text())["plan"] is None


def test_without_a_number_of_workers_there_is_one_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    good("tune", "small", "--steps", "fw", "--workers", "1")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr("autotuner.executors.processes.get_context", None)
    good("tune", "small", "--steps", "fw")
    good("tune", "--layer", LAYER, "--steps", "fw")


# -- a cluster -------------------------------------------------------------------------------------
def test_a_cluster_finds_the_same() -> None:
    """Of a scheduler of our own, whose workers know what was measured."""
    pytest.importorskip("distributed")
    tuned("--layer", LAYER)
    alone = tuned("--layer", LAYER)
    assert all(one["simulated"] == 0 for one in alone["steps"].values())
    found = json.loads(good("tune", "--layer", LAYER, "--scheduler", "local", "--workers", "2", "--json"))
    assert found["steps"] == alone["steps"]
    compared = [good("tune", "--layer", LAYER, "--published", *more) for more in ((), ("--scheduler", "local"))]
    assert compared[0] == compared[1]


def test_a_scheduler_has_workers_of_its_own() -> None:
    text = refused("tune", "small", "--scheduler", "tcp://127.0.0.1:9", "--workers", "2")
    assert text == "--workers: goes with --scheduler local; tcp://127.0.0.1:9 has workers of its own"


def test_a_scheduler_that_does_not_answer_is_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("autotuner.executors.cluster.CONNECT_SECONDS", 1)
    monkeypatch.setenv(CACHE_VARIABLE, cache_in(tmp_path / "new"))
    text = refused("tune", "small", "--scheduler", "tcp://127.0.0.1:9")
    assert text.startswith("scheduler tcp://127.0.0.1:9: no Dask scheduler answers there (")
    assert text.endswith("; give the address that `dask scheduler` prints, tcp://HOST:PORT, or local")


def test_without_dask_there_is_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    for name in ("cluster", "workplace"):
        monkeypatch.delitem(sys.modules, f"autotuner.executors.{name}", raising=False)
    text = refused("tune", "small", "--scheduler", "local")
    assert text == "schedulers are Dask's, which is not there: pip install 'pulpsim[dask]'"


# -- the published tuner ---------------------------------------------------------------------------
def test_published_choices_stand_beside_ours() -> None:
    found = tuned("--layer", LAYER, "--published", "--out", "out")
    assert [row["step"] for row in found["steps"]] == ["fw", "ig", "wg"]
    assert json.loads(Path("out/tuning.json").read_text()) == found
    for row in found["steps"]:
        choice, ours = row["choice"], row["ours"]
        assert choice["place"] == 1 and len(choice["cycles"]) == len(ours["cycles"]) == 4
        assert choice["best"]["tile"] == {"ci": 2, "h": 3, "w": 3, "co": 2, "bytes": choice["best"]["tile"]["bytes"]}
    lines = good("tune", "--workers", "1", "--layer", LAYER, "--published").splitlines()
    assert lines[0].strip() == f"{LAYER} on pulp-2022: the published tuner's choices, and ours"
    for row in found["steps"]:
        (line,) = (line for line in lines if line.startswith(f"│ layer {row['step']} "))
        assert "│ 2,3,3,2 " in line and row["choice"]["best"]["ran"] in line
        for cycles in (row["choice"]["cycles"], row["ours"]["cycles"]):
            assert f" {sum(cycles) / 4:,.0f} │" in line


def test_a_published_choice_that_does_not_fit_is_shown_as_such() -> None:
    text = good("tune", "--workers", "1", "--steps", "fw", "--layer", "LINEAR 20000 2", "--published")
    (line,) = (line for line in text.splitlines() if line.startswith("│ layer fw "))
    assert "does not fit" in line


# -- export ----------------------------------------------------------------------------------------
def test_a_plan_is_exported_to_stdout_or_a_file() -> None:
    plan = default_plan(SMALL, Platform.preset("pulp-2022"))
    Path("plan.json").write_text(plan.to_json())
    text = good("export", "plan.json", "--format", "pulp-trainlib")
    assert text.endswith("#endif\n") and "#define FC_FW_MATMUL_TYPE" in text
    assert good("export", "plan.json") == text
    assert good("export", "plan.json", "--out", "plan.h") == "" and Path("plan.h").read_text() == text
    assert "2 cores" in good("export", "plan.json", "--set", "cluster.cores=2")


def test_what_cannot_be_exported_is_refused() -> None:
    plan = default_plan(SMALL, Platform.preset("pulp-2022"))
    Path("plan.json").write_text(plan.to_json())
    assert refused("export", "plan.json", "--format", "pulp-trainlab") == (
        "--format pulp-trainlab: no such format (did you mean 'pulp-trainlib'?); formats: pulp-trainlib"
    )
    assert refused("export", "plan.json", "--out", "no/plan.h").startswith("cannot write no/plan.h: ")
    assert refused("export", "plan.json", "--out", "") == "--out '': must be the name of a file"
    assert refused("export", "plan.json", "--out", ".") == "--out .: must be the name of a file"
    assert refused("export", "none.json") == "cannot read plan none.json: No such file or directory"
    Path("plan.json").write_text(plan.to_json().replace('"small"', '"large"'))
    assert refused("export", "plan.json").startswith("no model 'large'")


# -- slips -----------------------------------------------------------------------------------------
ONE_OF_THEM = 'give a MODEL or a --layer, one of them: tune ds_cnn_paper, or tune --layer "PW 8x5x5 8"'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], ONE_OF_THEM),
        (["small", "--layer", LAYER], ONE_OF_THEM),
        (["smal"], "no model 'smal' (did you mean 'small'?); models: "),
        (["--layer", "PQ 2x3x3 2"], "layer 'PQ 2x3x3 2': no type 'PQ'"),
        (["--layer", ""], "layer '': no words; accepted: PW "),
        (["small", "--steps", "foo"], "--steps foo: no step 'foo'; steps: fw, wg, ig, sum, update"),
        (["small", "--steps", "fw,updat"], "--steps fw,updat: no step 'updat' (did you mean 'update'?); steps: "),
        (["small", "--steps", ""], "--steps : no step ''"),
        (["small", "--workers", "0"], "--workers 0: must be at least 1"),
        (["small", "--workers", "-2"], "--workers -2: must be at least 1"),
        (["small", "--from", "none.json"], "cannot read plan none.json: No such file or directory"),
        (["small", "--from", "bad.json"], "bad.json: not a plan: "),
        (["small", "--from", "dense.json"], "plan for model 'dense', not for 'small'"),
        (["--layer", LAYER, "--from", "dense.json"], "--from: goes with a MODEL, without --published"),
        (["small", "--published", "--from", "dense.json"], "--from: goes with a MODEL, without --published"),
        (["small", "--out", "bad.json"], "--out bad.json: is a file; it must be a directory, new or not"),
        (["small", "--out", "bad.json/below"], "--out bad.json/below: Not a directory"),
        (["small", "--out", ""], "--out '': must be a directory, new or not; . is the one you are in"),
        (["--layer", LAYER, "--out", ""], "--out '': must be a directory"),
        (["small", "--out", "folder", "--from", "none.json"], "cannot read plan none.json"),
        (["small", "--workers", "1025"], "--workers 1025: must be at least 1, at most 1,024"),
        (["small", "--platform", "pulp-2023"], "no platform 'pulp-2023'"),
        (["small", "--set", "l1.bank=3"], "--set: unknown key 'l1.bank' (did you mean 'l1.banks'?)"),
    ],
)
def test_a_slip_gets_one_message(arguments: list[str], message: str) -> None:
    Path("bad.json").write_text("{")
    dense = Model("dense", (FullyConnected("fc", 2, 2, relu=False),))
    Path("dense.json").write_text(default_plan(dense, Platform.preset("pulp-2022")).to_json())
    assert refused("tune", *arguments).startswith(message)


@pytest.mark.parametrize("arguments", [["--workers", "few"], ["--unknown"], ["small", "more"]])
def test_what_the_command_line_cannot_parse_is_refused_with_its_usage(arguments: list[str]) -> None:
    result = call("tune", *arguments)
    assert result.exit_code == 2 and result.stdout == "" and result.stderr.startswith("Usage: autotuner tune ")


def test_points_that_cannot_be_kept_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, "file")
    for arguments in (["small"], ["--layer", LAYER], ["--layer", LAYER, "--published"]):
        message = refused("tune", "--workers", "1", *arguments)
        assert "points.sqlite" in message and CACHE_VARIABLE in message


# -- Ctrl-C ----------------------------------------------------------------------------------------
#: the command with another model, that says when its search begins
PROGRAM = """
from autotuner import tuning
from trainlib import models
from trainlib.layers import DepthWise, FullyConnected
from trainlib.model import Model
layers = DepthWise("dw", 2, kernel=2), FullyConnected("fc", 16, 3, relu=False)
models.MODELS["small"] = lambda: Model("small", layers, input_shape=(2, 3, 5))
search = tuning.search_steps
tuning.search_steps = lambda *args, **options: (print("searching", flush=True), search(*args, **options))[1]
from autotuner.cli import main
main()
"""


def start(cache: Path) -> subprocess.Popen[str]:
    """On two workers."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "tune", "small", "--workers", "2", "--out", "out", "--json"],
        env=environment(**{CACHE_VARIABLE: str(cache)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def measured(cache: Path) -> int:
    file = cache / "points.sqlite"
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM points").fetchone()[0])
    return 0


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
@pytest.mark.parametrize(
    ("number", "to_all", "points"),
    [(signal.SIGINT, True, 0), (signal.SIGTERM, True, 0), (signal.SIGINT, True, 100), (signal.SIGTERM, False, 100)],
    ids=["Ctrl-C at once", "SIGTERM to all at once", "Ctrl-C", "SIGTERM"],
)  # fmt: skip
def test_ctrl_c_and_sigterm_leave_a_plan_and_the_same_command_goes_on(
    number: signal.Signals, to_all: bool, points: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While workers start, and while they search; a terminal sends Ctrl-C to all processes, `kill` SIGTERM to one."""
    cache = tmp_path / "cache"
    cache_in(cache)
    child = start(cache)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "searching\n"
        time.sleep(0.3)
        while measured(cache) < points and child.poll() is None:
            time.sleep(0.005)
        (os.killpg if to_all else os.kill)(child.pid, number)
        out, err = child.communicate(timeout=60)  # until nobody is left who could write
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    assert (child.returncode, err) == (
        130, "interrupted: the plan is the best so far; the same command goes on from here\n",
    )  # fmt: skip
    first = json.loads(out)
    assert not first["complete"] and first == json.loads(Path("out/tuning.json").read_text())
    plan = Plan.load("out/plan.json")
    report = Trainer(SMALL, Platform.preset("pulp-2022"), plan).timed_step([1.0] * 30, [1.0] * 3)
    assert report.cycles == pytest.approx(first["cycles"], rel=0.1)
    known = measured(cache)
    assert known >= points
    if not points:  # nothing to go on from
        return
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    second = tuned("small", "--out", "out")
    assert second["complete"] and second["cycles"] <= first["cycles"] <= first["default_cycles"]
    assert measured(cache) > known
    assert Plan.load("out/plan.json").to_json() == Path("out/plan.json").read_text()


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
def test_ctrl_c_shows_the_steps_of_a_layer_that_were_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autotuner import tuning

    renamed, calls = tuning.renamed, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return renamed(*arguments)

    monkeypatch.setenv(CACHE_VARIABLE, cache_in(tmp_path / "cache"))
    monkeypatch.setattr(tuning, "renamed", interrupted)
    result = call("tune", "--layer", LAYER, "--workers", "1", "--json")
    assert result.exit_code == 130
    assert result.stderr == "interrupted: these are the steps found; the same command goes on from here\n"
    found = json.loads(result.stdout)
    assert not found["complete"] and len(found["steps"]) == 2
    assert list(tuned("--layer", LAYER)["steps"]) == STEPS
