"""Protects objectives and constraints: the plan is the best by what was asked, and what cannot be says why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.goal import BYTES, MILLISECONDS, OBJECTIVES, Goal, GoalError, Measured, Unmet
from autotuner.tuning import Tuned, tune
from pulpsim.platform import Platform
from trainlib.layers import FullyConnected, PointWise
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import Model
from trainlib.plan import Plan
from trainlib.step_report import energy_of

PLATFORM = Platform.preset("pulp-2022", {"l2.size_bytes": 256 << 10})
WITH_POWER = Platform.preset("vega", {"l2.size_bytes": 256 << 10, "cluster.fpus": 8})
DENSE = Model("dense", (FullyConnected("a", 12, 16), FullyConnected("b", 16, 6, relu=False)))
CHAIN = Model("chain", tuple(PointWise(name, 2, 2, relu=name != "d") for name in "abcd"), input_shape=(2, 2, 2))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("goal") / "points.sqlite"


def tuned(path: Path, goal: Goal, model: Model = DENSE, platform: Platform = PLATFORM) -> Tuned:
    return tune(model, platform, 1, path, candidates=3, goal=goal)


def plan_of(one: Tuned) -> Plan:
    assert one.plan is not None
    return one.plan


# -- objectives ------------------------------------------------------------------------------------
def test_the_fewest_bytes_within_a_deadline(path: Path) -> None:
    """The later it may be, the fewer; what is said of the plan is what it takes."""
    fastest = tuned(path, Goal())
    cycles_a_millisecond = PLATFORM.clock_hz / 1e3
    bytes_used = [fastest.l1_bytes]
    for slack in (1.02, 2.0):
        deadline = slack * fastest.cycles / cycles_a_millisecond
        one = tuned(path, Goal.of("l1", deadline=deadline))
        assert one.unmet is None and one.cycles <= deadline * cycles_a_millisecond
        assert compile_schedule(DENSE, plan_of(one), PLATFORM).l1_bytes == one.l1_bytes
        bytes_used.append(one.l1_bytes)
    assert bytes_used == sorted(bytes_used, reverse=True) and bytes_used[-1] < 0.8 * bytes_used[0]


def test_the_least_energy(path: Path) -> None:
    """Not more than that of the fastest plan, and what is said is what a step of it takes."""
    fastest, least = (tuned(path, Goal.of(objective), DENSE, WITH_POWER) for objective in ("cycles", "energy"))

    def microjoules(plan: Plan) -> float:
        found = energy_of(compile_schedule(DENSE, plan, WITH_POWER), WITH_POWER)
        assert found is not None
        return sum(found.microjoules) / 2

    assert fastest.microjoules is None and least.microjoules is not None
    assert least.microjoules == pytest.approx(microjoules(plan_of(least)), abs=1e-6)
    assert least.microjoules <= microjoules(plan_of(fastest)) + 1e-6


def test_a_weighted_sum_lies_between_its_parts(path: Path) -> None:
    fast = tuned(path, Goal())
    deadline = 1.5e3 * fast.cycles / PLATFORM.clock_hz
    between, small = (tuned(path, Goal.of(objective, deadline)) for objective in ("cycles=1,l1=1", "l1"))
    assert fast.cycles <= between.cycles <= small.cycles
    assert fast.l1_bytes >= between.l1_bytes >= small.l1_bytes and fast.l1_bytes > small.l1_bytes


@given(st.permutations(OBJECTIVES), st.lists(st.floats(0.01, 100), min_size=3, max_size=3))
def test_weights_are_shares_of_what_the_first_plan_takes(names: list[str], weights: list[float]) -> None:
    goal = Goal.of(",".join(f"{name}={weight!r}" for name, weight in zip(names, weights, strict=True)))
    assert goal.weights == tuple(zip(names, weights, strict=True)) and not goal.is_cycles
    first, half = Measured((8, 8, 8, 8), 64, 16.0), Measured((4, 4, 4, 4), 32, 8.0)
    assert goal.cost(first, first, PLATFORM)[1] == pytest.approx(sum(weights))
    assert goal.cost(half, first, PLATFORM)[1] == pytest.approx(sum(weights) / 2)


# -- constraints -----------------------------------------------------------------------------------
@pytest.mark.parametrize("model", [DENSE, CHAIN])
def test_a_plan_keeps_within_the_memory_it_is_given(model: Model, path: Path) -> None:
    """On the platform as it is; the less, the slower."""
    before = 0.0
    for memory in (8192, 2048, 1024):
        one = tuned(path, Goal.of(memory=memory), model)
        schedule = compile_schedule(model, plan_of(one), PLATFORM)
        assert schedule.l1_bytes == one.l1_bytes <= memory
        assert one.cycles >= before
        before = one.cycles


def test_too_little_memory_says_how_much_would_do(path: Path) -> None:
    refused = tuned(path, Goal.of(memory=100))
    assert refused.plan is None and isinstance(refused.unmet, Unmet) and refused.unmet.constraint == "memory"
    found = re.fullmatch(r"memory: 100 bytes of L1 are too few: .* needed; --memory (\d+) would do", refused.fault)
    assert found
    least = int(found[1])
    assert refused.unmet.least == least and plan_of(tuned(path, Goal.of(memory=least)))
    assert tuned(path, Goal.of(memory=least - 65)).plan is None


def test_a_deadline_that_is_missed_says_what_would_do(path: Path) -> None:
    fastest = tuned(path, Goal())
    assert 0 < fastest.bound <= fastest.cycles and fastest.unmet is None
    milliseconds = 1e3 * fastest.cycles / PLATFORM.clock_hz
    missed = tuned(path, Goal.of(deadline=0.9 * milliseconds))
    assert missed.plan == fastest.plan and missed.unmet is not None
    assert missed.unmet.constraint == "deadline" and missed.unmet.least == pytest.approx(milliseconds)
    assert "a clock of 500 MHz would do" in str(missed.unmet) and "no plan can" not in str(missed.unmet)
    faster = PLATFORM.replace({"clock_hz": 501_000_000})
    assert tuned(path, Goal.of(deadline=0.9 * milliseconds), DENSE, faster).unmet is None
    never = tuned(path, Goal.of(deadline=0.9e3 * fastest.bound / PLATFORM.clock_hz)).unmet
    assert "no plan can" in str(never)


# -- as it is written ------------------------------------------------------------------------------
@given(st.integers(1, 10**6), st.sampled_from(sorted(MILLISECONDS)), st.sampled_from(sorted(BYTES)), st.booleans())
def test_times_and_sizes_in_any_unit(number: int, time: str, size: str, spaced: bool) -> None:
    gap = " " * spaced
    goal = Goal.of(deadline=f"{number}{gap}{time}", memory=f"{number}{gap}{size.upper()}")
    assert goal == Goal.of(deadline=number * MILLISECONDS[time], memory=int(number * BYTES[size]))


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"objective": "enrgy"}, "no 'enrgy' (did you mean 'energy'?); known: cycles, energy, l1"),
        ({"objective": "cycles,cycles=2"}, "names one of them twice"),
        ({"objective": "cycles=-1"}, "the weight of cycles is '-1': must be a number above 0"),
        ({"objective": ""}, "no ''"),
        ({"deadline": "10 parsec"}, "deadline = '10 parsec': must be a time, such as 10ms, 500us or 0.2s"),
        ({"deadline": -1}, "deadline = -1: must be a time"),
        ({"deadline": float("nan")}, "deadline = nan: must be a time"),
        ({"memory": "48G"}, "memory = '48G': must be a size, such as 48K or 49152"),
        ({"memory": True}, "memory = True: must be a size"),
    ],
)
def test_what_cannot_be_is_refused(given_: dict[str, str], message: str) -> None:
    with pytest.raises(GoalError, match=re.escape(message)):
        Goal.of(**given_)  # type: ignore[arg-type]


def test_energy_needs_power_figures(path: Path) -> None:
    with pytest.raises(GoalError, match="pulp-2022 has no power figures"):
        tuned(path, Goal.of("energy"))
