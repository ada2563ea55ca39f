"""Protects what the programs are to those who type: progress, quiet and verbose, colours, the first screen, help with
examples that run, completion, exit statuses."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner, Result
from rich.console import Console

from autotuner.cli import main as autotuner
from pulpsim import progress as said
from pulpsim.cli import main as pulpsim
from pulpsim.console import STATUSES, InputError, table_console
from pulpsim.errors import CycleLimitError, DeadlockError, PulpsimError, TrapError
from pulpsim.progress import Loudness, Stage, coloured, detail, loudness, progress, set_loudness
from tests.system.commands import environment
from tests.trainlib.test_page import tutorial
from trainlib import Trainer, models
from trainlib.cli import main as trainlib
from trainlib.cli_networks import NETWORKS
from trainlib.screen import print_screen
from trainlib.tiling import default_plan

PROGRAMS: dict[str, click.Group] = {"pulpsim": pulpsim, "trainlib": trainlib, "autotuner": autotuner}
COMMANDS = [
    pytest.param(command, id=f"{program} {command.name}".removesuffix(f" {program}"))
    for program, group in PROGRAMS.items()
    for command in (group, *group.commands.values())
]


def call(program: str, *arguments: str) -> Result:
    return CliRunner().invoke(PROGRAMS[program], list(arguments), prog_name=program)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """As most terminals are."""
    monkeypatch.setenv("TERM", "xterm")


# -- progress ------------------------------------------------------------------------------------
class Clock:
    """A time that goes when it is told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(said, "time", clock)
    return clock


def looks(stage: Stage, clock: Clock, *done: float) -> str:
    """The line after seconds in which so much was done."""
    line = ""
    for one in done:
        clock.now += 1
        stage.tell(one)
        line = stage.line()
    return line


def test_a_line_says_how_far_how_fast_and_how_long_still(clock: Clock) -> None:
    assert looks(Stage("training", "steps", 38_400), clock, 0) == "training, 1 s"
    assert looks(Stage("training", "steps", 38_400), clock, 1600, 3200) == (
        "training: 3,200 of 38,400 steps, 1,600 steps/s, 22 s left"
    )
    assert looks(Stage("running", "cycles"), clock, 3.1e6, 6.2e6) == "running: 6.2 M cycles, 3.1 M cycles/s, 2 s"
    bound = Stage("timing", "cycles", 1000, at_least=True)
    assert looks(bound, clock, 100) == "timing: 100 of at least 1,000 cycles, 100 cycles/s, 9 s or more left"
    assert looks(bound, clock, *range(200, 1300, 100)).endswith(" cycles, 100 cycles/s, 12 s")
    assert looks(Stage("waiting"), clock, 5) == "waiting, 1 s"


def test_what_was_slow_at_first_and_what_another_run_did_do_not_count(clock: Clock) -> None:
    compiling = [1] * 20
    line = looks(Stage("timing", "cycles", 10_000), clock, *compiling, *range(101, 2601, 100))
    assert line == "timing: 2,501 of 10,000 cycles, 100 cycles/s, 1:15 min left"
    resumed = Stage("training", "steps", 10_000, done=9000)
    assert looks(resumed, clock, 9010).endswith(" 10 steps/s, 1:39 min left")
    slow = Stage("searching", "steps", 12)
    assert looks(slow, clock, *[0] * 29, *[1] * 71).endswith(" 1 of 12 steps, 1:40 min each, 18:20 min left")


def in_words(loud: Loudness) -> click.Context:
    context = click.Context(click.Command("test"))
    set_loudness(context, loud)
    return context


def shown(stream: io.StringIO, loud: Loudness, monkeypatch: pytest.MonkeyPatch) -> str:
    """By work of two stages, each long enough to be seen where anything is."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(said, "LINE_SECONDS", 0.02)
    monkeypatch.setattr(said, "RENEW_SECONDS", 0.01)
    with in_words(loud), progress(stage := Stage("first"), 0.01):
        time.sleep(0.1)
        stage.next("second", "files", of=10)
        stage.tell(4)
        time.sleep(0.1)
    return stream.getvalue()


def test_a_terminal_has_a_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(Terminal(), Loudness.USUAL, monkeypatch)
    assert "first, 0 s (Ctrl-C stops)" in text and "second: 4 of 10 files, " in text and " left (Ctrl-C stops)" in text
    assert "\n" not in text and text.endswith("\r\033[K")
    assert shown(Terminal(), Loudness.QUIET, monkeypatch) == ""
    assert re.search(r"\r\033\[Kfirst: 0.\d s\n.*\r\033\[K", shown(Terminal(), Loudness.VERBOSE, monkeypatch))


def test_elsewhere_nothing_is_said_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), Loudness.USUAL, monkeypatch) == ""
    text = shown(io.StringIO(), Loudness.VERBOSE, monkeypatch)
    pattern = r"(first, 0 s\n)+first: 0.\d s\n(second: 4 of 10 files, .+ left\n)+second: 4 files in 0.\d s\n"
    assert re.fullmatch(pattern, text), text
    monkeypatch.setenv("TERM", "dumb")
    assert shown(Terminal(), Loudness.USUAL, monkeypatch) == ""


def test_a_line_is_no_longer_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of it would stay on the screen."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress(Stage("long " * 50), 0.0):
        while "long" not in stream.getvalue():
            time.sleep(0.01)
    assert len(stream.getvalue().split("\r\033[K")[1]) == 79


def test_short_work_shows_nothing_and_a_reader_that_has_gone_ends_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(Terminal):
        def write(self, text: str) -> int:
            asked.append(text)
            raise BrokenPipeError(32, "Broken pipe")

    asked: list[str] = []
    monkeypatch.setattr(sys, "stderr", Closed())
    with progress(Stage("short")):
        pass
    assert not asked
    with progress(Stage("halfway"), 0.0):
        while not asked:
            time.sleep(0.01)


# -- quiet and verbose ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), Loudness.USUAL), (("-v", "try"), Loudness.VERBOSE), (("try", "--verbose"), Loudness.VERBOSE),
        (("-q", "try"), Loudness.QUIET), (("try", "--quiet"), Loudness.QUIET), (("-v", "try", "-q"), Loudness.QUIET),
    ],
)  # fmt: skip
def test_the_group_and_the_command_take_both(
    arguments: tuple[str, ...], expected: Loudness, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    @pulpsim.command(name="try")
    def attempt() -> None:
        found.append(loudness())
        said.note("one thing")
        detail("another")

    monkeypatch.setitem(pulpsim.commands, "try", pulpsim.commands.pop("try"))
    result = call("pulpsim", *(arguments or ("try",)))
    assert found == [expected]
    assert result.stdout == "note: one thing\n" * (expected > Loudness.QUIET)
    assert result.stderr == "another\n" * (expected == Loudness.VERBOSE)


def test_verbose_says_what_was_decided_and_shows_whole_tables() -> None:
    arguments = ("train", "tutorial_cnn", "--steps", "1")
    brief, whole = (call("trainlib", *arguments, *more) for more in ((), ("-v",)))
    assert brief.stderr == "" and "bound by" not in brief.stdout and "bound by" in whole.stdout
    for expected in ("plan: tuned (autotuner ", "compiled code: loaded from ", "timing a training step: 50,"):
        assert expected in whole.stderr, whole.stderr


# -- colours and widths --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("variables", "elsewhere", "terminal"),
    [
        ({}, False, True), ({"NO_COLOR": ""}, False, True), ({"NO_COLOR": "1"}, False, False),
        ({"FORCE_COLOR": "1"}, True, True), ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, False, False), ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
    ],
)  # fmt: skip
def test_colours_are_a_terminals(
    variables: dict[str, str], elsewhere: bool, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (coloured(io.StringIO()), coloured(Terminal())) == (elsewhere, terminal)
    outputs = [call("pulpsim", word).output for word in ("platforms", "--help", "asm")]
    outputs[2] = call("pulpsim", "asm", "nowhere.S").stderr
    assert [("\033[" in text) for text in outputs] == [elsewhere] * 3


@pytest.mark.parametrize("width", [60, 80, 200])
def test_tables_are_as_wide_as_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert table_console().width == 200
    monkeypatch.setenv("COLUMNS", str(width))
    for arguments in (("platforms",), ("run", "-", "--cores", "2")):
        lines = CliRunner().invoke(pulpsim, arguments, input="nop\nret\n").stdout.splitlines()
        assert max(map(len, lines[1:])) <= width and (len(lines[1]) > width // 2 or arguments[0] == "run")


# -- the first screen ----------------------------------------------------------------------------
def lines_of(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_the_first_screen_fits_and_tells_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 epochs are a line of 24 characters more."""
    for columns in ("80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        lines = lines_of(call("trainlib", "train", "autoencoder", "--epochs", "1"))
        assert len(lines) <= 38 and max(map(len, lines)) <= int(columns)
        text = "\n".join(lines)
        for expected in (
            "autoencoder on pulp-2022, 8 cores at 450 MHz, trained on engines", "324,570 cycles = 0.721 ms",
            "2.19 MAC/cycle", "22.7 % above the 264,512 cycles", "plan: tuned; L1 54,816, L2 1,068,832 bytes",
            " fc9      46,324     53,698   100,022    30.8 %      2.46        +17 %   DMA in", "66.6 % █",
            "learned: 1 epoch, 1,600 steps; on 1,520 validation samples of engines:", "  AUC 0.498 ",
            "on the device: 1,600 steps, ", "next: -v shows every step; --out DIR keeps ",
        ):  # fmt: skip
            assert expected in text, expected
        assert next(len(line) for line in lines if "AUC" in line) + 23 <= 80
        assert ("fc_ig+wg+update_1x8" in text) == (columns == "200")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_of_large_networks_the_layers_that_take_most_are_shown(width: int) -> None:
    trainer = Trainer("tutorial_cnn")
    report = trainer.timed_step(np.ones(512), np.ones(32))
    phases = tuple(
        replace(phase, layer=f"{phase.layer}{copy}", cycles=phase.cycles + 10 * copy)
        for copy in range(9)
        for phase in report.phases
    )
    large = replace(report, phases=phases, cycles=sum(phase.cycles for phase in phases))
    out = io.StringIO()
    print_screen(large, "by rule", "nothing", Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width and (len(lines) <= 34 or width < 80)
    shown = dict.fromkeys(line.split()[0] for line in lines if re.match(r" (conv|fc|loss)\d ", line))
    assert len(shown) == 10 and {f"conv{copy}" for copy in range(9)} < set(shown)
    assert list(shown) == [name for name in dict.fromkeys(phase.layer for phase in phases) if name in shown]
    assert any(line.startswith("and 17 more layers, ") and line.endswith("-v shows them") for line in lines)


# -- help ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples_and_says_how_loud_it_is(command: Any) -> None:
    options = {name for param in command.params for name in param.opts}
    assert {"-q", "--quiet", "-v", "--verbose"} <= options
    assert command.examples and all(len(line) <= 78 for line in command.examples.splitlines())
    context = command.context_class(command, info_name=command.name, terminal_width=80, **command.context_settings)
    text = command.get_help(context)
    assert "Examples:\n  " in text and max(map(len, text.splitlines())) <= 80
    for param in command.params:  # whatever section it is in
        assert not isinstance(param, click.Option) or text.count(f"{param.opts[0]} ") >= 1


#: commands that take seconds, or files that only other libraries write: only read as the programs read them
COSTLY = {"train", "adapt", "evaluate", "predict", "data", "tune", "explore", "verify"}


def examples() -> Iterator[tuple[str, list[str], str]]:
    """(program, arguments, file for its output)."""
    for group in PROGRAMS.values():
        for command in (group, *group.commands.values()):
            for line in command.examples.replace("\\\n", "").splitlines():
                program, *arguments = shlex.split(line.partition(">")[0])
                yield program, arguments, line.partition(">")[2].strip()


def test_examples_are_true(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    readme = (root / "README.md").read_text(encoding="utf-8")
    Path("scale.S").write_text(re.findall(r"```asm\n(.*?)```", readme, re.DOTALL)[0])
    np.save("x.npy", np.ones(512, np.float32))
    Path("tuned").mkdir()
    for file in ("plan.json", "tuned/plan.json"):
        Path(file).write_text(default_plan(models.get("lenet5"), Trainer("lenet5").platform).to_json())
    Trainer("ds_cnn_paper").save("words.npz")
    for folder in ("result", "other"):
        Path(folder).mkdir()
        Path(folder, "report.json").write_bytes(tutorial())
    run = 0
    for program, arguments, file in sorted(examples(), key=lambda example: "describe" not in example[1]):
        command = PROGRAMS[program].commands[arguments[0]]
        command.make_context(arguments[0], arguments[1:])
        if arguments[0] in COSTLY or "net.onnx" in arguments or ".safetensors" in arguments[-1]:
            continue
        result = call(program, *arguments)
        assert result.exit_code == 0, (program, arguments, result.output)
        run += 1
        if file:
            Path(file).write_text(result.stdout)
    assert run >= 15


# -- completion ----------------------------------------------------------------------------------
def completed(program: str, line: str) -> list[str]:
    """What follows on a line: its last word is not finished."""
    *words, last = line.split(" ")
    shell = BashComplete(PROGRAMS[program], {}, program, "")
    return [item.value if item.type == "plain" else item.type for item in shell.get_completions(words, last)]


def test_names_are_completed() -> None:
    assert set(NETWORKS) == set(models.MODELS)
    assert completed("pulpsim", "run x.S --platform v") == ["vega"]
    assert completed("pulpsim", "run --platform vega --set l1.s") == ["l1.size_bytes=131072"]
    assert completed("pulpsim", "run --platform vega --set power.dma") == ["power.dma_byte_picojoules=0.8,2.3"]
    assert completed("pulpsim", "platforms pulp-20") == ["pulp-2022"]
    assert completed("pulpsim", "run sc") == ["file"]
    assert completed("trainlib", "train ds_") == ["ds_cnn", "ds_cnn_paper"]
    assert completed("trainlib", "train net") == ["file"]
    assert completed("trainlib", "train autoencoder --optimizer ad") == ["adam", "adamw"]
    assert completed("trainlib", "evaluate --data k") == ["keywords"]
    assert completed("trainlib", "train autoencoder --plan p") == ["file"]
    assert completed("autotuner", "tune reg") == ["file"] and completed("autotuner", "tune res") == ["resnet8"]
    assert completed("autotuner", "tune --platform nowhere.toml --set l1.b") == []
    assert "completion" in completed("autotuner", "")


@pytest.mark.parametrize("program", PROGRAMS)
def test_shells_get_what_they_need(program: str) -> None:
    for shell, expected in (("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --no-files")):
        text = call(program, "completion", shell).stdout
        assert expected in text and f"_{program}_COMPLETE={shell}_complete".upper().split("=")[0] in text
    assert call(program, "completion", "csh").exit_code == 2


def test_completing_loads_nothing_slow() -> None:
    code = (
        "import sys\nfrom trainlib.cli import main\n"
        "try:\n    main(prog_name='trainlib')\n"
        "except SystemExit:\n    print(*({'numpy', 'numba', 'simpy', 'rich'} & set(sys.modules)))\n"
    )
    asked = {"_TRAINLIB_COMPLETE": "bash_complete", "COMP_WORDS": "trainlib train auto", "COMP_CWORD": "2"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment(**asked), capture_output=True, text=True, check=False
    )
    assert run.stdout == "plain,autoencoder\n\n", run.stderr


# -- exit statuses -------------------------------------------------------------------------------
@pytest.mark.parametrize("program", PROGRAMS)
def test_statuses_are_the_same_of_all_programs(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, status in (
        (None, 0), (InputError("x"), 2), (PulpsimError("x"), 2), (FileNotFoundError(2, "x", "x"), 2),
        (click.UsageError("x"), 2), (TrapError("x"), 3), (DeadlockError("x"), 3), (CycleLimitError("x"), 3),
        (KeyboardInterrupt(), 130),
    ):  # fmt: skip

        def fail(error: BaseException | None = error) -> None:
            if error is not None:
                raise error

        monkeypatch.setitem(PROGRAMS[program].commands, "fail", click.Command("fail", callback=fail))
        assert call(program, "fail").exit_code == status
    assert call(program, "no-such-command").exit_code == 2
    assert " ".join(call(program, "--help").stdout.split()).endswith(STATUSES)


@pytest.mark.skipif(os.name != "posix", reason="pipes as on POSIX")
def test_a_closed_pipe_is_no_fault_of_the_programs() -> None:
    command = f"{shlex.quote(sys.executable)} -m pulpsim platforms vega | head -c 1"
    run = subprocess.run(command, shell=True, env=environment(), capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("n", "")
