"""Protects the map of L2: tensors that live at once share no byte, and each lives while it is moved."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pulpsim.memory import L2_BASE
from pulpsim.platform import Platform
from tests.trainlib.networks import networks, plans
from trainlib.errors import L1Error
from trainlib.lowering.operations import Issue
from trainlib.lowering.schedule import compile_schedule
from trainlib.model import Model
from trainlib.overview import plan_record
from trainlib.plan import Plan

PLATFORM = Platform.preset("pulp-2022", {"l2.size_bytes": 512 << 10})


@st.composite
def planned(draw: st.DrawFn) -> tuple[Model, Plan, dict[str, Any]]:
    model = draw(networks())
    plan = draw(plans(model, PLATFORM.cluster.cores))
    try:
        return model, plan, plan_record(model, plan, PLATFORM)
    except L1Error:
        assume(False)
        raise


def lives(tensor: dict[str, Any], phase: int) -> bool:
    return tensor["first_phase"] is None or tensor["first_phase"] <= phase <= tensor["last_phase"]


@settings(max_examples=25)
@given(case=planned())
def test_tensors_that_live_at_once_share_no_byte(case: tuple[Model, Plan, dict[str, Any]]) -> None:
    """But a part with the tensor it is part of, inside which it lies; the most bytes are those of a phase."""
    _, _, record = case
    whole = {tensor["tensor"]: tensor for tensor in record["l2"] if tensor["part_of"] is None}
    used = []
    for phase in range(len(record["phases"])):
        alive = [tensor for tensor in whole.values() if lives(tensor, phase)]
        living = sorted((t["address"], t["address"] + t["bytes"], t["tensor"]) for t in alive)
        for (_, end, one), (low, _, other) in combinations(living, 2):
            assert end <= low, (one, other)
        assert living[0][0] >= L2_BASE + record["code_bytes"] and living[-1][1] <= L2_BASE + PLATFORM.l2.size_bytes
        used.append(sum(end - low for low, end, _ in living) + record["code_bytes"])
        assert 0 <= record["phases"][phase]["l2_bytes"] - used[-1] < 16 * (len(living) + 1)
    peak = record["l2_peak"]
    assert peak["bytes"] == max(phase["l2_bytes"] for phase in record["phases"]) <= record["l2_bytes"] + 16
    assert record["phases"][peak["phase"]]["l2_bytes"] == peak["bytes"]
    for part in record["l2"]:
        if part["part_of"] is not None:
            around = whole[part["part_of"]]
            assert around["address"] <= part["address"]
            assert part["address"] + part["bytes"] <= around["address"] + around["bytes"]
            assert (part["first_phase"], part["last_phase"]) == (around["first_phase"], around["last_phase"])


@settings(max_examples=25)
@given(case=planned())
def test_what_is_moved_lies_in_a_tensor_that_lives_then(case: tuple[Model, Plan, dict[str, Any]]) -> None:
    model, plan, record = case
    for issue in compile_schedule(model, plan, PLATFORM).operations:
        if isinstance(issue, Issue):
            copy = issue.copy
            low, end = copy.l2, copy.l2 + copy.strides[1] * (copy.lines - 1) + copy.line_bytes
            assert any(
                tensor["address"] <= low and end <= tensor["address"] + tensor["bytes"]
                for tensor in record["l2"] if lives(tensor, issue.phase)
            )  # fmt: skip
