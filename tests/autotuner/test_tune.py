"""Protects the tuner: the same plan however it is run, never slower than what it began with, stopped and resumed."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import pytest

from autotuner import tuning as module
from autotuner import whole
from autotuner.executors import executor_of
from autotuner.executors.here import Here
from autotuner.measure import SKEWS, Meter
from autotuner.points import Points
from autotuner.search import Found, Infeasible
from autotuner.tuning import Progress, Tuned, jobs_of, tune, tune_on
from pulpsim.platform import Platform
from trainlib.errors import PlanError
from trainlib.layers import DepthWise, FullyConnected, PointWise
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import Model
from trainlib.plan import Plan, backward_choices
from trainlib.tiling import default_plan
from trainlib.timing import cycles_of
from trainlib.trainer import Trainer

PLATFORM = Platform.preset("pulp-2022", {"l2.size_bytes": 256 << 10})
STACKS = 8 << 10  # of L1
SMALL = Model(
    "small", (DepthWise("dw", 2, kernel=2), FullyConnected("fc", 16, 3, relu=False)), input_shape=(2, 3, 5)
)  # fmt: skip
DENSE = Model("dense", (FullyConnected("a", 6, 4), FullyConnected("b", 4, 5, relu=False)))
CHAIN = Model("chain", tuple(PointWise(name, 2, 2, relu=name != "d") for name in "abcd"), input_shape=(2, 2, 2))
RULE = default_plan(SMALL, PLATFORM)


@dataclass(frozen=True)
class Fresh:
    """A search of SMALL from nothing, the points it measured, and where they are."""

    tuned: Tuned
    points: int
    path: Path


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    path = tmp_path_factory.mktemp("fresh") / "points.sqlite"
    tuned = tune(SMALL, PLATFORM, 1, path)
    return Fresh(tuned, measured(path), path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "points.sqlite"


def measured(path: Path) -> int:
    """Points in a file that others may be writing, or have been killed at."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM points").fetchone()[0])
    return 0


def simulated(tuned: Tuned) -> int:
    """Points measured in all."""
    return tuned.simulated + sum(one.simulated for one in tuned.outcomes.values() if isinstance(one, Found))


def result(tuned: Tuned) -> tuple[object, ...]:
    """All but what was measured for it and what was known."""
    outcomes = [
        (name, msgspec.structs.replace(one, simulated=0, reused=0) if isinstance(one, Found) else one)
        for name, one in tuned.outcomes.items()
    ]
    return tuned.plan, tuned.fault, tuned.cycles, tuned.default_cycles, outcomes, tuned.complete


def plan_of(tuned: Tuned) -> Plan:
    assert tuned.plan is not None
    return tuned.plan


def mean_cycles(model: Model, plan: Plan, platform: Platform = PLATFORM) -> float:
    """Of the whole step, simulated here."""
    schedule = compile_schedule(model, plan, platform)
    return sum(cycles_of(schedule, platform, skew[: platform.cluster.cores]) for skew in SKEWS) / len(SKEWS)


# -- the plan --------------------------------------------------------------------------------------
def test_any_number_of_workers_finds_the_same(fresh: Fresh, path: Path) -> None:
    """Two do so below, after others were killed."""
    assert result(tune(SMALL, PLATFORM, 3, path)) == result(fresh.tuned)
    assert measured(path) == fresh.points


@pytest.mark.parametrize("workers", [1, 2])
def test_searches_on_many_platforms_share_an_executor(workers: int, path: Path) -> None:
    """Each from a thread of its own: each finds what it finds alone."""
    platforms = [PLATFORM.replace({"dma.bytes_per_cycle": count}) for count in (4, 8, 16)]
    with executor_of(path, workers) as executor, ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda platform: tune_on(executor, path, DENSE, platform, parts=("fw",)), platforms))
    assert [result(one) for one in found] == [result(tune(DENSE, one, parts=("fw",))) for one in platforms]
    assert len({one.cycles for one in found}) == 3


def test_the_plan_trains_in_the_cycles_that_were_counted(fresh: Fresh) -> None:
    plan = plan_of(fresh.tuned)
    plan.check(SMALL)
    trainer = Trainer(SMALL, PLATFORM, plan)
    report = trainer.timed_step(np.ones(SMALL.inputs, np.float32), np.ones(SMALL.outputs, np.float32))
    with Points(fresh.path) as points:
        meter = Meter(PLATFORM, points)
        counts = [meter.cycles(trainer.schedule, skew) for skew in range(len(SKEWS))]
    assert meter.simulated == 0
    assert report.cycles == counts[0]
    assert sum(counts) / len(SKEWS) == fresh.tuned.cycles == mean_cycles(SMALL, plan)


def test_it_is_faster_than_the_plan_by_rule(fresh: Fresh) -> None:
    assert fresh.tuned.complete and fresh.tuned.fault == ""
    assert fresh.tuned.default_cycles == mean_cycles(SMALL, RULE)
    assert fresh.tuned.cycles < 0.8 * fresh.tuned.default_cycles


@pytest.mark.parametrize(
    ("model", "changes"),
    [(DENSE, {}), (DENSE, {"l1.size_bytes": STACKS + 320}), (CHAIN, {}), (SMALL, {"cluster.cores": 2})],
)
def test_it_is_never_slower_than_the_plan_by_rule(model: Model, changes: dict[str, Any]) -> None:
    platform = PLATFORM.replace(changes)
    tuned = tune(model, platform, 1, None, candidates=20)
    plan_of(tuned).check(model)
    assert tuned.cycles == mean_cycles(model, plan_of(tuned), platform)
    assert tuned.cycles <= tuned.default_cycles == mean_cycles(model, default_plan(model, platform), platform)


def test_every_step_is_searched(fresh: Fresh) -> None:
    outcomes = fresh.tuned.outcomes
    for index, layer in enumerate(SMALL.layers):
        steps = {"fw", *(step for choice in backward_choices(SMALL, index) for step in choice)}
        assert steps == {name.partition(" ")[2] for name in outcomes if name.startswith(f"{layer.name} ")}
    for name, outcome in outcomes.items():
        assert isinstance(outcome, Found) and f"{outcome.step.layer} {outcome.step.step}" == name
        known = {f"{step.layer} {step.step}" for step in RULE.steps}
        assert bool(outcome.first_cycles) == (name in known), "searches begin with the step by rule"
        assert not outcome.first_cycles or sum(outcome.cycles) <= sum(outcome.first_cycles)


def test_steps_are_exchanged_until_the_whole_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where L1 is scarce, the steps found one by one do not fit beside each other; nor does leaving some early."""
    platform, count = PLATFORM.replace({"l1.size_bytes": STACKS + 384}), whole.count
    best = tune(SMALL, platform, 1, None)
    monkeypatch.setattr(whole, "count", lambda meter, model, plan, rival, energy: count(meter, model, plan))
    unlimited = tune(SMALL, platform, 1, None)
    assert result(unlimited) == result(best) and unlimited.simulated >= best.simulated
    monkeypatch.setattr(whole, "PASSES", 0)
    assert tune(SMALL, platform, 1, None).cycles > 1.2 * best.cycles


def test_what_is_clearly_slower_where_it_differs_is_not_counted_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = PLATFORM.replace({"l1.size_bytes": STACKS + 384})
    few = tune(SMALL, platform, 1, None)
    monkeypatch.setattr(whole, "QUICK_LUCK", (1.0, 1.0))
    every = tune(SMALL, platform, 1, None)
    assert few.simulated < 0.9 * every.simulated
    assert few.cycles <= 1.01 * every.cycles


def test_steps_of_long_plans_are_exchanged_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer counts of the whole, until it is as fast but for luck."""
    platform = PLATFORM.replace({"l1.size_bytes": STACKS + 384})
    every, wholes = tune(SMALL, platform, 1, None), list[Plan]()

    def noted(meter: Meter, model: Model, plan: Plan, *rest: Any) -> whole.Counted:
        wholes.append(plan)
        return count(meter, model, plan, *rest)

    count = whole.count
    monkeypatch.setattr(whole, "count", noted)
    assert result(tune(SMALL, platform, 1, None)) == result(every)
    counted = len(wholes)
    monkeypatch.setattr(whole, "QUICK", 0)
    by_parts = tune(SMALL, platform, 1, None)
    assert by_parts.cycles == mean_cycles(SMALL, plan_of(by_parts), platform) <= 1.02 * every.cycles
    assert len(wholes) - counted < 0.6 * counted


def test_made_by_is_kept_and_changes_nothing(fresh: Fresh, path: Path) -> None:
    first = tune(SMALL, PLATFORM, 1, path, parts=("fw",), made_by="one")
    again = tune(SMALL, PLATFORM, 1, path, parts=("fw",), made_by="two")
    assert (plan_of(first).made_by, plan_of(again).made_by) == ("one", "two")
    assert replace(plan_of(first), made_by="two") == again.plan and first.cycles == again.cycles
    also = [replace(plan_of(fresh.tuned), made_by="three")]
    assert plan_of(tune(SMALL, PLATFORM, 1, path, parts=("update",), also=also, made_by="four")).made_by == "four"


# -- restrictions ----------------------------------------------------------------------------------
def test_other_parts_stay_as_they_are_by_rule(path: Path) -> None:
    tuned = tune(SMALL, PLATFORM, 1, path, parts=("fw",))
    assert set(tuned.outcomes) == {"dw fw", "fc fw"}
    steps = plan_of(tuned).steps
    assert [step for step in steps if step.step != "fw"] == [step for step in RULE.steps if step.step != "fw"]
    assert [step for step in steps if step.step == "fw"] != [step for step in RULE.steps if step.step == "fw"]
    assert tuned.cycles < tuned.default_cycles


@pytest.mark.parametrize("allowed", [("dw_u2",), ("dw_1x2", "dw", "mm")])
def test_kernels_can_be_restricted(allowed: tuple[str, ...]) -> None:
    """Those of image steps, also where they stay as they are by rule."""
    tuned = tune(SMALL, PLATFORM, 1, None, allowed=allowed, parts=("fw",))
    chosen = [step.kernel for step in plan_of(tuned).steps if step.layer == "dw"]
    assert chosen and set(chosen) <= {*allowed}
    found, every = tuned.outcomes["dw fw"], tune(SMALL, PLATFORM, 1, None, parts=("fw",)).outcomes["dw fw"]
    assert isinstance(found, Found) and isinstance(every, Found)
    assert found.step.kernel in allowed and {step.kernel for step in found.runners_up} <= {*allowed}
    count = sum(name.startswith("dw") for name in allowed)
    assert found.space * 7 == every.space * count and found.mean >= every.mean
    assert isinstance(tuned.outcomes["fc fw"], Found)


def test_layers_without_an_allowed_kernel_stay_as_they_are_by_rule() -> None:
    tuned = tune(SMALL, PLATFORM, 1, None, allowed=("mm",), parts=("fw",))
    assert str(tuned.outcomes["dw fw"]) == "dw fw has none of the kernels allowed: mm"
    assert plan_of(tuned).steps[0] == RULE.steps[0] and tuned.cycles <= tuned.default_cycles


# -- plans to beat ---------------------------------------------------------------------------------
def test_it_is_never_slower_than_a_plan_it_is_given(fresh: Fresh, path: Path) -> None:
    """Left to itself it cannot find that plan: only updates are searched."""
    assert tune(SMALL, PLATFORM, 1, path, parts=("update",)).cycles > fresh.tuned.cycles
    given = [RULE, plan_of(fresh.tuned)]
    assert tune(SMALL, PLATFORM, 1, path, parts=("update",), also=given).cycles <= fresh.tuned.cycles


def test_searches_begin_with_the_steps_of_plans_to_beat(fresh: Fresh, path: Path) -> None:
    """So that what won nearby is known first: of one candidate a step, none is slower than there."""
    tuned = tune(SMALL, PLATFORM, 1, path, candidates=1, also=[plan_of(fresh.tuned)])
    given = {f"{step.layer} {step.step}" for step in plan_of(fresh.tuned).steps}
    for name in given:
        found, proven = tuned.outcomes[name], fresh.tuned.outcomes[name]
        step = next(one for one in plan_of(fresh.tuned).steps if f"{one.layer} {one.step}" == name)
        assert isinstance(found, Found) and isinstance(proven, Found) and not found.proven
        assert found.least == proven.least or step != proven.step
    alone = tune(SMALL, PLATFORM, 1, path, candidates=1)
    assert sum(one.least for one in tuned.outcomes.values() if isinstance(one, Found)) < sum(
        one.least for one in alone.outcomes.values() if isinstance(one, Found)
    )


@pytest.mark.parametrize(("model", "sizes"), [(SMALL, (320, 512)), (DENSE, (256, 320, 448))])
def test_more_l1_never_makes_it_slower(model: Model, sizes: tuple[int, ...]) -> None:
    """When it is given the plan for less."""
    before: list[Tuned] = []
    for size in sizes:
        platform = PLATFORM.replace({"l1.size_bytes": STACKS + size})
        also = [plan_of(tuned) for tuned in before[-1:]]
        before.append(tune(model, platform, 1, None, also=also))
    cycles = [tuned.cycles for tuned in before]
    assert cycles == sorted(cycles, reverse=True) and cycles[-1] < cycles[0]


def test_a_plan_that_does_not_fit_is_passed_over(fresh: Fresh) -> None:
    platform = PLATFORM.replace({"l1.size_bytes": STACKS + 384})
    with pytest.raises(PlanError):
        mean_cycles(SMALL, plan_of(fresh.tuned), platform)
    tuned = tune(SMALL, platform, 1, None, parts=("update",), also=[plan_of(fresh.tuned)])
    plan_of(tuned).check(SMALL)
    assert tuned.fault == "" and 0 < tuned.cycles <= tuned.default_cycles


def test_a_plan_for_another_model_is_refused(path: Path) -> None:
    with pytest.raises(PlanError, match="plan for model 'small', not for 'dense'"):
        tune(DENSE, PLATFORM, 1, path, also=[RULE])
    assert not path.exists()


# -- what is known ---------------------------------------------------------------------------------
def test_a_second_run_simulates_nothing(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "executor_of", lambda *arguments: Unused())
    again = tune(SMALL, PLATFORM, 2, fresh.path)
    assert result(again) == result(fresh.tuned)
    assert simulated(again) == 0 and again.reused == fresh.tuned.simulated + fresh.tuned.reused
    for name, outcome in fresh.tuned.outcomes.items():
        known = again.outcomes[name]
        assert isinstance(outcome, Found) and isinstance(known, Found)
        assert known.reused == outcome.simulated + outcome.reused > 0
    assert measured(fresh.path) == fresh.points == simulated(fresh.tuned)


class Reached(Exception):  # noqa: N818
    """Something is about to be searched."""


class Unused(Here):
    """An executor on which nothing may run."""

    def __init__(self) -> None:
        super().__init__(None)

    def run(self, *arguments: object) -> NoReturn:
        raise Reached


@pytest.mark.parametrize(
    "other",
    [
        partial(tune, platform=PLATFORM.replace({"dma.bytes_per_cycle": 4})),
        partial(tune, model=replace(SMALL, name="other")),
        partial(tune, model=replace(SMALL, layers=(DepthWise("dw", 2, kernel=2, bias=True), SMALL.layers[1]))),
        partial(tune, also=[RULE]),
        partial(tune, parts=("fw",)),
        partial(tune, allowed=("dw",)),
    ],
)
def test_results_are_of_one_platform_model_and_request(
    other: Callable[..., Tuned], fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "executor_of", lambda *arguments: Unused())
    with pytest.raises(Reached):
        other(**{"model": SMALL, "platform": PLATFORM, "workers": 1, "path": fresh.path, **other.keywords})  # type: ignore[attr-defined]


def test_results_with_other_plans_to_beat_are_others(fresh: Fresh, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    also = [replace(plan_of(fresh.tuned), made_by="one")]
    known = tune(SMALL, PLATFORM, 1, path, parts=("update",), also=also)
    monkeypatch.setattr(module, "executor_of", lambda *arguments: Unused())
    assert result(tune(SMALL, PLATFORM, 1, path, parts=("update",), also=[plan_of(fresh.tuned)])) == result(known)
    with pytest.raises(Reached):
        tune(SMALL, PLATFORM, 1, path, parts=("update",), also=[RULE])


def test_points_of_another_platform_are_not_taken(fresh: Fresh, path: Path) -> None:
    shutil.copytree(fresh.path.parent, path.parent, dirs_exist_ok=True)
    platform = PLATFORM.replace({"dma.bytes_per_cycle": 4})
    known, alone = (tune(SMALL, platform, 1, file, parts=("fw",)) for file in (path, None))
    assert known == alone and simulated(known) > 0


# -- equal layers ----------------------------------------------------------------------------------
def test_equal_steps_are_one_job() -> None:
    """The first layer has no input gradient, the last feeds the loss; b and c are between layers with ReLU."""
    groups = jobs_of(CHAIN)
    every = [(index, step) for index in range(4) for step in ("fw", "wg", "update", "wg+update")]
    every += [(index, "ig") for index in (1, 2, 3)]
    assert sorted(job for jobs in groups.values() for job in jobs) == sorted(every)
    assert all(jobs[0] == job for job, jobs in groups.items())
    for step in ("fw", "ig", "wg", "update", "wg+update"):
        assert groups[1, step] == [(1, step), (2, step)], step
    assert all(len(jobs) == 1 for job, jobs in groups.items() if job[0] != 1)


def test_steps_differ_where_neighbours_do() -> None:
    """The input gradient goes back through the ReLU below."""
    layers = tuple(PointWise(name, 2, 2, relu=name in "bcd") for name in "abcde")
    groups = jobs_of(Model("some", layers, input_shape=(2, 2, 2)), ("ig",))
    assert groups == {(1, "ig"): [(1, "ig")], (2, "ig"): [(2, "ig"), (3, "ig")], (4, "ig"): [(4, "ig")]}


def test_jobs_can_be_restricted() -> None:
    assert set(jobs_of(SMALL, ("wg",))) == {(0, "wg"), (0, "wg+update"), (1, "wg"), (1, "wg+update")}
    assert set(jobs_of(SMALL, ("fw", "ig"), (1,))) == {(1, "fw"), (1, "ig")}
    assert (1, "ig+wg+update") in jobs_of(SMALL, ("ig", "wg"))
    assert set(jobs_of(SMALL, ("update",))) == {(0, "update"), (1, "update")}


def test_equal_layers_share_a_search_and_its_outcome(path: Path) -> None:
    told: list[Progress] = []
    tuned = tune(CHAIN, PLATFORM, 1, path, parts=("fw",), tell=told.append)
    searches = [progress for progress in told if progress.what != "whole steps"]
    assert [progress.done for progress in searches] == [1, 2, 3] and {progress.of for progress in searches} == {3}
    one, other = tuned.outcomes["b fw"], tuned.outcomes["c fw"]
    assert isinstance(one, Found) and isinstance(other, Found)
    assert replace(one.step, layer="c") == other.step and one.cycles == other.cycles
    assert {step.layer for step in other.runners_up} == {"c"}
    renamed = replace(CHAIN, name="renamed", layers=tuple(replace(one, name=f"{one.name}2") for one in CHAIN.layers))
    again = tune(renamed, PLATFORM, 1, path, parts=("fw",))
    assert simulated(again) == 0 and again.cycles == tuned.cycles
    assert {step.layer for step in plan_of(again).steps} == {"a2", "b2", "c2", "d2"}


# -- what cannot run -------------------------------------------------------------------------------
def test_a_platform_that_cannot_run_the_kernels_has_no_plan(path: Path) -> None:
    platform = PLATFORM.replace({"cluster.fp_registers": "separate"})
    tuned = tune(SMALL, platform, 1, path)
    assert tuned.plan is None and 'cluster.fp_registers = "separate"' in tuned.fault
    assert (tuned.cycles, tuned.default_cycles, measured(path)) == (0, 0, 0)
    assert len(tuned.outcomes) == 10
    for name, outcome in tuned.outcomes.items():
        assert isinstance(outcome, Infeasible) and str(outcome).startswith(f"{name} cannot run on pulp-2022: ")
    assert tune(SMALL, platform, 1, path) == tuned


def test_an_l1_too_small_for_any_tile_has_no_plan() -> None:
    tuned = tune(SMALL, PLATFORM.replace({"l1.banks": 8, "l1.size_bytes": STACKS + 32}), 1, None)
    assert tuned.plan is None and "bytes at once, 32 are available" in tuned.fault
    for name, outcome in tuned.outcomes.items():
        if name.endswith(" update"):
            assert isinstance(outcome, Found)  # it goes through few numbers at a time
            continue
        assert isinstance(outcome, Infeasible) and outcome.needed_bytes > 32
        assert f"{name} needs {outcome.needed_bytes:,} bytes of L1 with its smallest tile, 32 are" in str(outcome)


# -- interrupted -----------------------------------------------------------------------------------
@pytest.mark.parametrize("after", [1, 6, 14])
def test_an_interrupted_run_has_a_plan_and_the_next_one_ends(after: int, fresh: Fresh, path: Path) -> None:
    """While steps are searched, and while they are exchanged: the latter has the better plan."""
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        told.append(progress)
        if len(told) == after:
            raise KeyboardInterrupt

    cut = tune(SMALL, PLATFORM, 1, path, tell=tell)
    plan_of(cut).check(SMALL)
    assert not cut.complete and len(cut.outcomes) == min(after, 10)
    assert cut.cycles == mean_cycles(SMALL, plan_of(cut))
    assert fresh.tuned.cycles <= cut.cycles <= cut.default_cycles == fresh.tuned.default_cycles
    assert (told[-1].what == "whole steps") == (after > 10)
    before = measured(path)
    resumed = tune(SMALL, PLATFORM, 1, path)
    assert result(resumed) == result(fresh.tuned)
    assert before + simulated(resumed) == measured(path)


#: searches in a process group of its own; the model is read from a file
PROGRAM = """
import pickle, sys
from pathlib import Path
import msgspec
from autotuner.tuning import tune
model, platform = pickle.loads(Path(sys.argv[1]).read_bytes())
tuned = tune(model, platform, 2, Path(sys.argv[2]))
print(msgspec.json.encode(tuned).decode())
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
@pytest.mark.parametrize(("kill", "workers"), [(os.kill, 1), (os.killpg, 2)])
def test_a_killed_run_goes_on_where_it_was(
    kill: Callable[[int, int], None], workers: int, fresh: Fresh, path: Path
) -> None:
    """All its processes are killed, or the first alone: then the others end by themselves.

    No point is measured twice; but two workers may come upon the same one at once.
    """
    arguments = path.with_name("arguments")
    arguments.write_bytes(pickle.dumps((SMALL, PLATFORM)))
    command = [sys.executable, "-c", PROGRAM, str(arguments), str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while measured(path) < fresh.points // 2 and child.poll() is None:
            time.sleep(0.002)
        kill(child.pid, signal.SIGKILL)
        printed, _ = child.communicate(timeout=20)  # until nobody is left who could write
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    before = measured(path)
    assert fresh.points // 2 <= before < fresh.points and not printed
    resumed = tune(SMALL, PLATFORM, workers, path)
    assert result(resumed) == result(fresh.tuned)
    assert measured(path) == fresh.points
    assert 0 <= before + simulated(resumed) - fresh.points <= (0 if workers == 1 else 20)
