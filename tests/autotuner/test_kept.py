"""Protects plans kept for a user's own networks: found by content, never slower than before, shipped ones untouched."""

from __future__ import annotations

import json
import signal
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from autotuner import cli, whole
from pulpsim.jit import CACHE_VARIABLE, cache_directory
from pulpsim.platform import Platform
from tests.trainlib.networks import with_l1_for
from trainlib import cli as trainlib_cli
from trainlib import models
from trainlib.layers import DepthWise, Dropout, FullyConnected
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import Model
from trainlib.models import description
from trainlib.optimizers import Adam
from trainlib.plan import Plan
from trainlib.plans import kept, origin, plan_for
from trainlib.tiling import default_plan
from trainlib.timing import cycles_of
from trainlib.trainer import Trainer

PLATFORM = Platform.preset("pulp-2022")
NET = Model("net", (DepthWise("dw", 2, kernel=2), FullyConnected("fc", 16, 3, relu=False)), input_shape=(2, 3, 5))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With net.toml, and a cache with nothing but compiled code."""
    compiled = cache_directory() / "jit"
    compiled.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path)
    Path("cache").mkdir()
    Path("cache/jit").symlink_to(compiled.resolve(), target_is_directory=True)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    Path("net.toml").write_text(description.as_toml(NET))
    return tmp_path


def tune(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(cli.main, ["tune", "net.toml", "--workers", "1", "--candidates", "2", *arguments])
    assert result.exit_code == status, (result.output, result.exception)
    return result


def files() -> list[Path]:
    return sorted(Path("cache/plans").iterdir()) if Path("cache/plans").exists() else []


def shown(*arguments: str) -> dict[str, Any]:
    """What `trainlib plan` says."""
    result = CliRunner().invoke(trainlib_cli.main, ["plan", "net.toml", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def cycles(plan: Plan, platform: Platform = PLATFORM) -> int:
    return cycles_of(compile_schedule(NET, plan, platform), platform)


def test_a_tuned_plan_is_kept_and_taken() -> None:
    assert shown()["origin"] == "by rule"
    (place,) = (line for line in tune("--set", "clock_hz=1000000").stdout.splitlines() if line.startswith("kept, "))
    (file,) = files()
    assert place == f"kept, for trainlib train net.toml: {file.absolute()}"
    said = "autotuner tune net.toml --platform pulp-2022 --set clock_hz=1000000 --candidates 2"
    assert shown()["origin"] == shown("--set", "dma.bytes_per_cycle=4")["origin"] == f"tuned ({said})"
    plan = plan_for(NET, PLATFORM)
    assert plan == Plan.load(file) == Trainer(NET, PLATFORM).plan and plan.made_by == said
    assert cycles(plan) < cycles(default_plan(NET, PLATFORM))


def test_it_is_kept_by_content() -> None:
    """Not by name: of the network, of what is trained, of what decides a good plan."""
    tune()
    renamed = replace(NET, name="other")
    assert plan_for(renamed, PLATFORM) == replace(plan_for(NET, PLATFORM), model="other")
    others = [
        (NET.last(1), PLATFORM),
        (replace(NET, loss="l1"), PLATFORM),
        (replace(NET, layers=(replace(NET.layers[0], bias=True), NET.layers[1])), PLATFORM),
        (replace(NET, layers=(Dropout("drop"), *NET.layers)), PLATFORM),
        (NET, PLATFORM.replace({"l1.size_bytes": 32 << 10})),
        (NET, PLATFORM.replace({"cluster.cores": 4, "cluster.fpus": 4})),
        (NET, replace(PLATFORM, name="mine")),
    ]
    for model, platform in others:
        assert kept.kept_plan(model, platform) is None and "tuned (" not in origin(plan_for(model, platform), platform)


def test_what_does_not_fit_is_not_taken() -> None:
    """States of an optimizer need room."""
    tune()
    tight = compile_schedule(NET, plan_for(NET, PLATFORM), PLATFORM).l1_bytes
    small = with_l1_for(PLATFORM, tight)
    kept.keep(NET, small, plan_for(NET, PLATFORM))
    assert plan_for(NET, small).made_by and not plan_for(NET, small, Adam()).made_by


@pytest.mark.parametrize("content", ["", "{", "[]", None])
def test_a_damaged_plan_is_told_of_once_and_passed_over(content: str | None) -> None:
    """Or one of another network, which somebody put there."""
    other = Model("net", (FullyConnected("fc", 4, 2, relu=False),))
    path = kept.keep(NET, PLATFORM, default_plan(other, PLATFORM))
    if content is not None:
        path.write_text(content)
    with pytest.warns(RuntimeWarning, match=f"{path.name} is passed over: "):
        assert plan_for(NET, PLATFORM) == default_plan(NET, PLATFORM)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plan_for(NET, PLATFORM) == default_plan(NET, PLATFORM)
    assert "kept, for " in tune("--steps", "fw").stdout and plan_for(NET, PLATFORM).made_by


def test_an_interrupted_search_keeps_its_best_but_nothing_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(after: int) -> Result:
        told = []

        def exchange(*arguments: Any) -> None:
            told.append(arguments)
            if len(told) > after:
                signal.raise_signal(signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr(whole.Whole, "_exchange", exchange)
            return tune("--set", f"clock_hz={1000 + after}", status=130)

    interrupted(0)
    (file,) = files()
    first = Plan.load(file)
    assert first.made_by.endswith("--set clock_hz=1000 --candidates 2")
    tune()
    best = Plan.load(file)
    assert cycles(best) <= cycles(first)
    interrupted(1)
    assert files() == [file] and cycles(Plan.load(file)) == cycles(best)
    kept.keep(NET, PLATFORM, replace(default_plan(NET, PLATFORM), made_by="slower"))
    tune()
    assert Plan.load(file).made_by == "autotuner tune net.toml --platform pulp-2022 --candidates 2"


def test_shipped_networks_take_nothing_that_is_kept() -> None:
    """Nor does a part of one; a network of other layers may have its name."""
    shipped = models.get("tutorial_cnn")
    variants = [shipped, shipped.last(1)]
    before = [plan_for(model, PLATFORM) for model in variants]
    for model in variants:
        slow = replace(default_plan(model, PLATFORM), stores="awaited", made_by="slow")
        kept.keep(model, PLATFORM, slow)
    assert [plan_for(model, PLATFORM) for model in variants] == before
    Path("net.toml").write_text(description.as_toml(shipped))
    count = len(files())
    assert "not kept: tutorial_cnn is a shipped network" in tune("--steps", "fw").stdout
    assert len(files()) == count
    other = Model("tutorial_cnn", NET.layers, input_shape=NET.input_shape)
    kept.keep(other, PLATFORM, replace(default_plan(other, PLATFORM), stores="awaited", made_by="slow"))
    assert plan_for(other, PLATFORM).made_by == "slow"
