"""What a step did when: it adds up to what the step cost, and nothing lies where something else is."""

from __future__ import annotations

import json
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pulpsim.machine import Machine
from tests.trainlib.arrays import seeds
from tests.trainlib.networks import Case, networks, plans, platforms
from trainlib.evidence import BINS, Place, task_begins
from trainlib.lowering.operations import Issue
from trainlib.report import as_json
from trainlib.step_report import marked_run
from trainlib.trainer import Trainer


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), seed=seeds)
def test_what_a_step_did_adds_up(data: st.DataObject, seed: int) -> None:
    model = data.draw(networks())
    platform = data.draw(platforms(l1_kib=(64, 128), l2_kib=512))
    case = Case(model, data.draw(plans(model, platform.cluster.cores)), platform, seed)
    trainer = Trainer(case.model, case.platform, case.plan)
    schedule, scalars, cores = trainer.schedule, trainer._scalars(), platform.cluster.cores
    ran = marked_run(Machine(platform), schedule, scalars, None)
    evidence = ran.evidence(schedule, platform)

    inward, outward = (sum(moved) for moved in zip(*schedule.bytes_moved(), strict=True))
    activity, begins = evidence.activity, task_begins(schedule, ran.log, ran.cycles)
    assert sum(activity.dma_in_bytes) == inward and sum(activity.dma_out_bytes) == outward
    busy = sum(ran.log.ends) - sum(ran.log.begins)
    assert sum(activity.compute) * activity.bin_cycles * cores == pytest.approx(busy, abs=0.01 * ran.cycles * cores)
    assert min(activity.compute) >= 0 and max(activity.compute) <= 1 and len(activity.compute) == BINS
    assert begins == sorted(begins) and begins[-1] == ran.cycles

    for memory in evidence.memories:
        whole = [place for place in memory.places if not place.of]
        assert all(memory.address <= p.address <= p.address + p.size_bytes <= memory.address + memory.size_bytes
                   and 0 <= p.begin <= p.end <= ran.cycles for p in memory.places)  # fmt: skip
        assert not [pair for pair in combinations(whole, 2) if meet(*pair)]
    moved = {one.number: one for one in ran.log.moved}
    for operation in schedule.operations:
        if isinstance(operation, Issue) and not operation.copy.outward:
            begin, end = moved[operation.transfer].begin, moved[operation.transfer].end
            assert any(p.address <= operation.copy.l1 < p.address + p.size_bytes and p.begin <= begin <= end <= p.end
                       for p in evidence.memories[0].places)  # fmt: skip


def meet(one: Place, other: Place) -> bool:
    """Whether they share bytes in the same cycles."""
    in_time = one.begin < other.end and other.begin < one.end
    return in_time and one.address < other.address + other.size_bytes and other.address < one.address + one.size_bytes


def test_the_json_of_a_report_has_it() -> None:
    report = Trainer("tutorial_cnn").step()
    plain = json.loads(json.dumps(as_json(report)))
    for phase, record in zip(report.phases, plain["phases"], strict=True):
        by_core = record["causes_by_core"]
        assert all(any(cycles) and len(cycles) == report.cores for cycles in by_core.values())
        assert {name: sum(cycles) for name, cycles in by_core.items()} == {n: c for n, c in phase.causes.items() if c}
        assert [sum(cycles) for cycles in zip(*by_core.values(), strict=True)] == [phase.cycles] * report.cores
    l1, l2 = plain["memory"]["l1"], plain["memory"]["l2"]
    assert l1["columns"] == l2["columns"] == ["name", "address", "size_bytes", "begin", "end", "holds", "of"]
    assert {row[5] for row in l2["rows"]} == {"code", "parameters", "activations", "gradients", "other"}
    assert l1["rows"][-1][0] == "stacks" and l2["rows"][0][:2] == ["code", l2["address"]]
    assert sum(plain["activity"]["dma_in_bytes"]) == report.dma_bytes_in
    assert plain["activity"]["bin_cycles"] * BINS == report.cycles
